"""A confidence sequence for a proportion: an interval that may be read after every probe.

Beta-binomial mixture with Jeffreys' prior. The chance that it *ever* excludes the true proportion is at most alpha,
for probes that are independent given the past. It covers flips per request, not the choice of the items. To watch a
proportion that may change, start a new one at each alarm.
"""

import math
from collections.abc import Callable
from typing import Final

from r1plus_policies.bounds import Interval

_PRIOR: Final = 0.5
_BISECTIONS: Final = 60


def is_excluded(p: float, successes: int, n: int, alpha: float) -> bool:
    """Return whether p in (0, 1) is outside: B(1/2+S, 1/2+n-S) / B(1/2, 1/2) >= p^S (1-p)^(n-S) / alpha."""
    failures = n - successes
    mixture = _log_beta(_PRIOR + successes, _PRIOR + failures) - _log_beta(_PRIOR, _PRIOR)
    likelihood = (successes * math.log(p) if successes else 0.0) + (failures * math.log1p(-p) if failures else 0.0)
    return mixture >= likelihood - math.log(alpha)


def confidence_sequence(successes: int, n: int, alpha: float) -> Interval:
    """Return the ends of what is not excluded; [0, 1] without data."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: {alpha} must be between 0 and 1, both excluded")
    if not 0 <= successes <= n:
        raise ValueError(f"successes: {successes} must be between 0 and n = {n}")
    peak = successes / n if n else 0.5

    def outside(p: float) -> bool:
        return not 0.0 < p < 1.0 or is_excluded(p, successes, n, alpha)

    lower = _find_bound(outside, 0.0, peak) if successes else 0.0
    upper = _find_bound(outside, 1.0, peak) if successes < n else 1.0
    return Interval(lower, upper)


def _find_bound(outside: Callable[[float], bool], out: float, within: float) -> float:
    """Find the end of the interval between a point outside and its peak: the likelihood has one peak only."""
    for _ in range(_BISECTIONS):
        middle = (out + within) / 2
        out, within = (middle, within) if outside(middle) else (out, middle)
    return out


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
