"""Exact bounds for counts: binomial, hypergeometric, McNemar. Called by the gate and by the monitor's sweeps.

Standard library only. Probabilities are sums of exact terms in the log domain; nothing is approximated by a normal
distribution, since the counts that matter here are small (4 of 210).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

_BISECTIONS: Final = 60
"""Halvings of [0, 1]: more than a float can tell apart."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Two one-sided bounds on a proportion or a difference; each is missed with probability at most alpha."""

    lower: float
    upper: float


def binomial_at_most(k: int, n: int, p: float) -> float:
    """Return P(X <= k) for X ~ Binomial(n, p)."""
    _check(n >= 0, "n", n, "0 or more")
    _check(0.0 <= p <= 1.0, "p", p, "between 0 and 1")
    if k < 0:
        return 0.0
    if k >= n or p == 0.0:
        return 1.0
    if p == 1.0:
        return 0.0
    return min(1.0, math.fsum(_term(i, n, p) for i in range(k + 1)))


def binomial_at_least(k: int, n: int, p: float) -> float:
    """Return P(X >= k); summed from its own side, so that a tail of 1e-30 is not lost in 1 - 1."""
    _check(n >= 0, "n", n, "0 or more")
    _check(0.0 <= p <= 1.0, "p", p, "between 0 and 1")
    if k <= 0:
        return 1.0
    if k > n or p == 0.0:
        return 0.0
    if p == 1.0:
        return 1.0
    return min(1.0, math.fsum(_term(i, n, p) for i in range(k, n + 1)))


@lru_cache(maxsize=1024)  # A monitor asks for the same one after each probe.
def binomial_quantile(n: int, p: float, q: float) -> int:
    """Return the smallest k with P(X <= k) >= q for X ~ Binomial(n, p)."""
    _check(0.0 < q < 1.0, "q", q, "between 0 and 1, both excluded")
    _check(0.0 <= p <= 1.0, "p", p, "between 0 and 1")
    if p in (0.0, 1.0):
        return n if p == 1.0 else 0
    total = 0.0
    for k in range(n + 1):
        total += _term(k, n, p)
        if total >= q:
            return k
    return n


@lru_cache(maxsize=1024)  # A monitor asks for the same one after each probe.
def clopper_pearson(successes: int, n: int, alpha: float) -> Interval:
    """Return one-sided bounds at `alpha` each; [0, 1] without data."""
    _check(0.0 < alpha < 1.0, "alpha", alpha, "between 0 and 1, both excluded")
    _check(0 <= successes <= n, "successes", successes, f"between 0 and n = {n}")
    lower = 0.0 if successes == 0 else _find_largest(lambda p: binomial_at_least(successes, n, p) <= alpha)
    return Interval(lower, upper_bound(successes, n, alpha))


def upper_bound(successes: int, n: int, alpha: float) -> float:
    """Return the upper Clopper-Pearson bound alone: it sums no more than `successes` terms; 1 without data."""
    _check(0.0 < alpha < 1.0, "alpha", alpha, "between 0 and 1, both excluded")
    _check(0 <= successes <= n, "successes", successes, f"between 0 and n = {n}")
    return 1.0 if successes == n else _find_largest(lambda p: binomial_at_most(successes, n, p) >= alpha)


def paired_difference(lost: int, gained: int, n: int, alpha: float) -> Interval:
    """Return bounds on how much a proportion has changed between two runs over the same n items, from -1 to 1.

    Both hold together with a chance of at least 1 - alpha: each of four one-sided bounds, of gained and of lost items,
    gets a quarter of it. So the interval is wider than an approximate one.
    """
    _check(
        lost >= 0 and gained >= 0 and lost + gained <= n, "lost, gained", (lost, gained), f"0 or more, up to n = {n}"
    )
    gains, losses = (clopper_pearson(count, n, alpha / 4) for count in (gained, lost))
    return Interval(gains.lower - losses.upper, gains.upper - losses.lower)


def hypergeometric_at_least(k: int, population: int, marked: int, drawn: int) -> Fraction:
    """Return P(at least k marked among `drawn`), drawn without replacement. Exact."""
    _check(0 <= marked <= population, "marked", marked, f"between 0 and the population of {population}")
    _check(0 <= drawn <= population, "drawn", drawn, f"between 0 and the population of {population}")
    ways = sum(
        math.comb(marked, i) * math.comb(population - marked, drawn - i)
        for i in range(max(k, 0), min(marked, drawn) + 1)
    )
    return Fraction(ways, math.comb(population, drawn))


def mcnemar_exact(lost: int, gained: int) -> float:
    """Return the two-sided exact p of a change between two paired runs, from the discordant pairs alone."""
    _check(lost >= 0 and gained >= 0, "lost, gained", (lost, gained), "0 or more")
    discordant = lost + gained
    return min(1.0, 2.0 * binomial_at_most(min(lost, gained), discordant, 0.5)) if discordant else 1.0


def _term(i: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
    return math.exp(ways + i * math.log(p) + (n - i) * math.log1p(-p))


def _find_largest(holds: Callable[[float], bool]) -> float:
    """Find the largest p in [0, 1] for which `holds`, given that it holds up to some p and not beyond."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _check(holds: bool, name: str, value: object, limit: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {value} must be {limit}")
