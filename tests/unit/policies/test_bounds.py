"""Exact bounds against tables, closed forms and their own definitions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_policies.bounds import (
    binomial_at_least,
    binomial_at_most,
    binomial_quantile,
    clopper_pearson,
    hypergeometric_at_least,
    mcnemar_exact,
    paired_difference,
)
from support.tables import for_each

COUNTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
CHANCES = st.floats(0.001, 0.999)


def exactly(k: int, n: int, p: Fraction) -> Fraction:
    """P(X <= k), in rational numbers."""
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@for_each("n, p, q, expected", {
    "15 of 600 at 1 %": (600, 0.01, 0.999, 15),
    "the median of ten coins": (10, 0.5, 0.5, 5),
    "what never happens": (10, 0.0, 0.999, 0),
    "what always happens": (10, 1.0, 0.001, 10),
    "no trial": (0, 0.5, 0.9, 0),
})  # fmt: skip
def test_quantiles(n: int, p: float, q: float, expected: int) -> None:
    assert binomial_quantile(n, p, q) == expected


@given(COUNTS, st.integers(1, 99))
def test_both_tails_are_exact(count: tuple[int, int], percent: int) -> None:
    k, n = count
    p = Fraction(percent, 100)
    assert binomial_at_most(k, n, float(p)) == pytest.approx(float(exactly(k, n, p)), rel=1e-9)
    assert binomial_at_least(k, n, float(p)) == pytest.approx(float(1 - exactly(k - 1, n, p)), rel=1e-9)


@given(st.integers(0, 200), CHANCES, CHANCES)
def test_a_quantile_is_the_least_that_reaches_q(n: int, p: float, q: float) -> None:
    k = binomial_quantile(n, p, q)
    assert k == n or binomial_at_most(k, n, p) >= q - 1e-9
    assert k == 0 or binomial_at_most(k - 1, n, p) < q + 1e-9


@for_each("successes, n, alpha, lower, upper", {
    "no success: the upper bound has a closed form": (0, 10, 0.05, 0.0, 1 - 0.05**0.1),
    "no failure: so has the lower": (10, 10, 0.05, 0.05**0.1, 1.0),
    "no data: nothing is known": (0, 0, 0.001, 0.0, 1.0),
    "8 of 10 at 95 %, as in the printed tables": (8, 10, 0.025, 0.4439045, 0.9747893),
    "50 of 100 at 95 %, as in the printed tables": (50, 100, 0.025, 0.3983211, 0.6016789),
})  # fmt: skip
def test_clopper_pearson(successes: int, n: int, alpha: float, lower: float, upper: float) -> None:
    found = clopper_pearson(successes, n, alpha)
    assert (found.lower, found.upper) == (pytest.approx(lower, abs=1e-6), pytest.approx(upper, abs=1e-6))


@given(COUNTS, st.floats(0.0005, 0.2))
def test_a_bound_is_where_the_tail_is_alpha(count: tuple[int, int], alpha: float) -> None:
    k, n = count
    found = clopper_pearson(k, n, alpha)
    assert found.lower <= k / n <= found.upper
    if k > 0:
        assert binomial_at_least(k, n, found.lower) == pytest.approx(alpha, rel=1e-6)
    if k < n:
        assert binomial_at_most(k, n, found.upper) == pytest.approx(alpha, rel=1e-6)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 31))
def test_drawing_without_replacement_is_counted(population: int, marked: int, drawn: int, k: int) -> None:
    marked, drawn = min(marked, population), min(drawn, population)
    total = sum(
        hypergeometric_at_least(i, population, marked, drawn)
        - hypergeometric_at_least(i + 1, population, marked, drawn)
        for i in range(k, drawn + 1)
    )
    assert total == (hypergeometric_at_least(k, population, marked, drawn) if k <= drawn else 0)
    assert hypergeometric_at_least(0, population, marked, drawn) == 1


def test_120_of_200_without_a_failure_exclude_5_bad_items() -> None:
    assert 1 - hypergeometric_at_least(1, 200, 5, 120) < Fraction(1, 90)


@for_each("lost, gained, p", {
    "no change says nothing": (0, 0, 1.0),
    "six lost are not yet below 1 %": (6, 0, 2 * 0.5**6),
    "a seventh is not either, two-sided": (7, 0, 2 * 0.5**7),
    "eight are": (8, 0, 2 * 0.5**8),
    "as many lost as gained": (3, 3, 1.0),
})  # fmt: skip
def test_mcnemar(lost: int, gained: int, p: float) -> None:
    assert mcnemar_exact(lost, gained) == pytest.approx(p)


@for_each("lost, gained, n", {
    "nothing changed": (0, 0, 40),
    "some gained": (2, 15, 60),
    "all gained": (0, 12, 12),
})  # fmt: skip
def test_a_difference_of_pairs_is_within_its_bounds_which_are_those_of_lost_and_gained(
    lost: int, gained: int, n: int
) -> None:
    interval = paired_difference(lost, gained, n, 0.05)

    assert -1 <= interval.lower <= (gained - lost) / n <= interval.upper <= 1
    assert interval.lower == clopper_pearson(gained, n, 0.0125).lower - clopper_pearson(lost, n, 0.0125).upper
    mirrored = paired_difference(gained, lost, n, 0.05)
    assert (mirrored.lower, mirrored.upper) == pytest.approx((-interval.upper, -interval.lower))


@given(st.integers(1, 9), st.data())
def test_a_difference_of_pairs_is_missed_no_more_often_than_it_says(n: int, data: st.DataObject) -> None:
    gain = data.draw(st.floats(0, 1))
    loss = data.draw(st.floats(0, 1 - gain))
    missed = 0.0
    for gained in range(n + 1):
        for lost in range(n + 1 - gained):
            interval = paired_difference(lost, gained, n, 0.2)
            if not interval.lower <= gain - loss <= interval.upper:
                ways = math.comb(n, gained) * math.comb(n - gained, lost)
                missed += ways * gain**gained * loss**lost * max(0.0, 1 - gain - loss) ** (n - gained - lost)
    assert missed <= 0.2 + 1e-9


@for_each("call, field", {
    "a chance above 1": (lambda: binomial_at_most(1, 2, 1.5), "p: 1.5"),
    "fewer than no trials": (lambda: binomial_at_least(1, -1, 0.5), "n: -1"),
    "a quantile of 1": (lambda: binomial_quantile(1, 0.5, 1.0), "q: 1.0"),
    "more successes than trials": (lambda: clopper_pearson(3, 2, 0.1), "successes: 3"),
    "an alpha of 0": (lambda: clopper_pearson(1, 2, 0.0), "alpha: 0.0"),
    "more marked than there are": (lambda: hypergeometric_at_least(0, 5, 6, 1), "marked: 6"),
    "fewer than none lost": (lambda: mcnemar_exact(-1, 0), "lost, gained"),
    "more changes than items": (lambda: paired_difference(3, 3, 5, 0.05), "lost, gained"),
})  # fmt: skip
def test_nonsense_is_refused_by_name(call: object, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        call()  # type: ignore[operator]
