"""A confidence sequence for a proportion: an interval that may be looked at after every probe.

Beta-binomial mixture with Jeffreys' prior. The chance that it *ever* leaves the true
proportion out is at most alpha, for probes that are independent given the past: it covers flips per request, not the
choice of the items. Whoever watches a proportion that may change starts a new one at each alarm.
"""

import math
from collections.abc import Callable
from typing import Final

from r1plus_policies.bounds import Interval

_PRIOR: Final = 0.5
_BISECTIONS: Final = 60


def excluded(p: float, successes: int, n: int, alpha: float) -> bool:
    """Whether p in (0, 1) lies outside: B(1/2+S, 1/2+n-S) / B(1/2, 1/2) >= p^S (1-p)^(n-S) / alpha."""
    failures = n - successes
    mixture = _log_beta(_PRIOR + successes, _PRIOR + failures) - _log_beta(_PRIOR, _PRIOR)
    likelihood = (successes * math.log(p) if successes else 0.0) + (failures * math.log1p(-p) if failures else 0.0)
    return mixture >= likelihood - math.log(alpha)


def confidence_sequence(successes: int, n: int, alpha: float) -> Interval:
    """What is not excluded, as its two ends; [0, 1] without data."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: {alpha} must be between 0 and 1, both excluded")
    if not 0 <= successes <= n:
        raise ValueError(f"successes: {successes} must be between 0 and n = {n}")
    peak = successes / n if n else 0.5

    def outside(p: float) -> bool:
        return not 0.0 < p < 1.0 or excluded(p, successes, n, alpha)

    lower = _end(outside, 0.0, peak) if successes else 0.0
    upper = _end(outside, 1.0, peak) if successes < n else 1.0
    return Interval(lower, upper)


def _end(outside: Callable[[float], bool], out: float, within: float) -> float:
    """Where the interval ends between a point outside and its peak: the likelihood has one peak only."""
    for _ in range(_BISECTIONS):
        middle = (out + within) / 2
        out, within = (middle, within) if outside(middle) else (out, middle)
    return out


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
