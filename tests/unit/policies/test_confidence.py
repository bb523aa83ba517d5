"""The confidence sequence against its definition."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_policies.detector.confidence import confidence_sequence
from support.tables import for_each

COUNTS = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
ALPHAS = st.sampled_from([0.001, 0.01, 0.05, 0.3])


def inside(p: float, successes: int, n: int, alpha: float) -> bool:
    """The definition, word for word."""
    mixture = math.lgamma(0.5 + successes) + math.lgamma(0.5 + n - successes) - math.lgamma(n + 1) - math.log(math.pi)
    likelihood = sum((k * math.log(q) for k, q in ((successes, p), (n - successes, 1 - p)) if k), 0.0)
    return mixture < likelihood - math.log(alpha)


@given(COUNTS, ALPHAS)
def test_the_ends_are_where_the_definition_ends(count: tuple[int, int], alpha: float) -> None:
    successes, n = count
    found = confidence_sequence(successes, n, alpha)
    step = 1e-7
    if found.lower > step:
        assert inside(found.lower + step, successes, n, alpha)
        assert not inside(found.lower - step, successes, n, alpha)
    if found.upper < 1 - step:
        assert inside(found.upper - step, successes, n, alpha)
        assert not inside(found.upper + step, successes, n, alpha)


@given(COUNTS, ALPHAS)
def test_the_ratio_lies_within_and_both_sides_mirror(count: tuple[int, int], alpha: float) -> None:
    successes, n = count
    found, mirrored = confidence_sequence(successes, n, alpha), confidence_sequence(n - successes, n, alpha)
    assert 0 <= found.lower <= (successes / n if n else 0.5) <= found.upper <= 1
    assert found.lower == pytest.approx(1 - mirrored.upper, abs=1e-9)


@for_each("successes, n, lower, upper", {
    "nothing is known without data": (0, 0, 0.0, 1.0),
    "never wrong: open above": (200, 200, None, 1.0),
    "never right: open below": (0, 200, 0.0, None),
})  # fmt: skip
def test_edges(successes: int, n: int, lower: float | None, upper: float | None) -> None:
    found = confidence_sequence(successes, n, 0.05)
    assert lower is None or found.lower == lower
    assert upper is None or found.upper == upper
    assert n == 0 or found.upper - found.lower < 0.05


def test_a_smaller_alpha_is_wider_and_more_data_narrower() -> None:
    wide, narrow = confidence_sequence(90, 100, 0.001), confidence_sequence(90, 100, 0.1)
    assert wide.lower < narrow.lower < narrow.upper < wide.upper
    much = confidence_sequence(900, 1000, 0.1)
    assert narrow.lower < much.lower < much.upper < narrow.upper


def test_the_truth_is_left_out_at_any_time_in_few_runs() -> None:
    chance, missed = random.Random(3), 0
    for _ in range(300):
        right = 0
        for n in range(1, 201):
            right += chance.random() < 0.95
            if not inside(0.95, right, n, 0.1):
                found = confidence_sequence(right, n, 0.1)
                assert not found.lower < 0.95 < found.upper
                missed += 1
                break
    assert missed <= 30


@for_each("successes, n, alpha, said", {
    "more right than asked": (3, 2, 0.05, "successes: 3 must be between 0 and n = 2"),
    "alpha 0": (1, 2, 0.0, "alpha: 0.0"),
    "alpha 1": (1, 2, 1.0, "alpha: 1.0"),
})  # fmt: skip
def test_refused(successes: int, n: int, alpha: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        confidence_sequence(successes, n, alpha)
