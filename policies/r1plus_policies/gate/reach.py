"""Can the reference itself meet this threshold on this suite? Asked by the operator before it starts a pod, and by the
command line after a baseline: a threshold that even the reference misses would refuse every engine for ever.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from r1plus_policies.gate.verdict import allowed_in_stratum, allowed_lost


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Where the reference misses the threshold."""

    stratum: str
    """Empty: over the whole suite."""
    items: int
    lost: int
    allowed: int
    """At the threshold asked for."""
    reachable: float
    """The greatest threshold that the reference meets everywhere, rounded down to four digits; 0: none."""


def shortfall(strata: Mapping[str, tuple[int, int]], threshold: float) -> Shortfall | None:
    """None where the reference meets `threshold`. `strata`: name -> (lost, items) under its worst condition."""
    lost, items = (sum(pair[part] for pair in strata.values()) for part in (0, 1))
    checks = [("", lost, items, allowed_lost(items, threshold))]
    checks += [(name, gone, size, allowed_in_stratum(size, threshold)) for name, (gone, size) in sorted(strata.items())]
    for stratum, gone, size, allowed in checks:
        if gone > allowed:
            return Shortfall(stratum, size, gone, allowed, reachable(strata))
    return None


def reachable(strata: Mapping[str, tuple[int, int]]) -> float:
    """The greatest threshold that these figures meet, overall and in every stratum, rounded down to four digits."""
    lost, items = (sum(pair[part] for pair in strata.values()) for part in (0, 1))
    limits = [Fraction(items - lost, items)] if items else [Fraction(0)]
    # A stratum may lose one more than its share.
    limits += [Fraction(size - max(0, gone - 1), size) for gone, size in strata.values() if size]
    return math.floor(min(limits) * 10_000) / 10_000
