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
)

COUNTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
CHANCES = st.floats(0.001, 0.999)


def exactly(k: int, n: int, p: Fraction) -> Fraction:
    """P(X <= k), in rational numbers."""
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@pytest.mark.parametrize(
    ("n", "p", "q", "expected"),
    [
        pytest.param(600, 0.01, 0.999, 15, id="15 of 600 at 1 %, the limit that ACCURACY.md quotes"),
        pytest.param(10, 0.5, 0.5, 5, id="the median of ten coins"),
        pytest.param(10, 0.0, 0.999, 0, id="what never happens"),
        pytest.param(10, 1.0, 0.001, 10, id="what always happens"),
        pytest.param(0, 0.5, 0.9, 0, id="no trial"),
    ],
)
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


@pytest.mark.parametrize(
    ("successes", "n", "alpha", "lower", "upper"),
    [
        pytest.param(0, 10, 0.05, 0.0, 1 - 0.05**0.1, id="no success: the upper bound has a closed form"),
        pytest.param(10, 10, 0.05, 0.05**0.1, 1.0, id="no failure: so has the lower"),
        pytest.param(0, 0, 0.001, 0.0, 1.0, id="no data: nothing is known"),
        pytest.param(8, 10, 0.025, 0.4439045, 0.9747893, id="8 of 10 at 95 %, as in the printed tables"),
        pytest.param(50, 100, 0.025, 0.3983211, 0.6016789, id="50 of 100 at 95 %, as in the printed tables"),
    ],
)
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


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        pytest.param(0, 0, 1.0, id="no change says nothing"),
        pytest.param(6, 0, 2 * 0.5**6, id="six lost are not yet below 1 %"),
        pytest.param(7, 0, 2 * 0.5**7, id="a seventh is not either, two-sided"),
        pytest.param(8, 0, 2 * 0.5**8, id="eight are"),
        pytest.param(3, 3, 1.0, id="as many lost as gained"),
    ],
)
def test_mcnemar(lost: int, gained: int, p: float) -> None:
    assert mcnemar_exact(lost, gained) == pytest.approx(p)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        pytest.param(lambda: binomial_at_most(1, 2, 1.5), "p: 1.5", id="a chance above 1"),
        pytest.param(lambda: binomial_at_least(1, -1, 0.5), "n: -1", id="fewer than no trials"),
        pytest.param(lambda: binomial_quantile(1, 0.5, 1.0), "q: 1.0", id="a quantile of 1"),
        pytest.param(lambda: clopper_pearson(3, 2, 0.1), "successes: 3", id="more successes than trials"),
        pytest.param(lambda: clopper_pearson(1, 2, 0.0), "alpha: 0.0", id="an alpha of 0"),
        pytest.param(lambda: hypergeometric_at_least(0, 5, 6, 1), "marked: 6", id="more marked than there are"),
        pytest.param(lambda: mcnemar_exact(-1, 0), "lost, gained", id="fewer than none lost"),
    ],
)
def test_nonsense_is_refused_by_name(call: object, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        call()  # type: ignore[operator]
