"""Whether the reference itself can meet a threshold on a suite.

Asked by the operator before it starts a pod, and by the command line after a baseline. A threshold that even the
reference misses would refuse every engine for ever.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from r1plus_policies.gate.verdict import max_lost_in_stratum, max_lost_items


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Where the reference misses the threshold."""

    stratum: str
    """Empty: over the whole suite."""
    items: int
    lost_items: int
    lost_limit: int
    """At the required threshold."""
    reachable: float
    """The greatest threshold that the reference meets everywhere, rounded down to four digits; 0: none."""


def find_shortfall(strata: Mapping[str, tuple[int, int]], threshold: float) -> Shortfall | None:
    """Find where the reference misses `threshold`; None where it meets it. `strata`: name -> (lost, items), worst
    condition."""
    total_lost, items = (sum(pair[part] for pair in strata.values()) for part in (0, 1))
    checks = [("", total_lost, items, max_lost_items(items, threshold))]
    checks += [
        (name, lost_count, size, max_lost_in_stratum(size, threshold))
        for name, (lost_count, size) in sorted(strata.items())
    ]
    for stratum, lost_count, size, limit in checks:
        if lost_count > limit:
            return Shortfall(stratum, size, lost_count, limit, find_reachable_threshold(strata))
    return None


def find_reachable_threshold(strata: Mapping[str, tuple[int, int]]) -> float:
    """Return the greatest threshold that these figures meet, in every stratum, rounded down to four digits."""
    total_lost, items = (sum(pair[part] for pair in strata.values()) for part in (0, 1))
    limits = [Fraction(items - total_lost, items)] if items else [Fraction(0)]
    # A stratum may lose one more than its share.
    limits += [Fraction(size - max(0, lost_count - 1), size) for lost_count, size in strata.values() if size]
    return math.floor(min(limits) * 10_000) / 10_000
