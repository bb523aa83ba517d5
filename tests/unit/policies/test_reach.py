"""A threshold that the reference itself misses is told of with both figures; one that it meets is not."""

from hypothesis import given
from hypothesis import strategies as st

from r1plus_policies.gate.reach import Shortfall, find_reachable_threshold, find_shortfall
from r1plus_policies.gate.verdict import max_lost_in_stratum, max_lost_items
from support.tables import for_each


@for_each("strata, threshold, expected", {
    "who loses nothing meets any threshold": ({"a": (0, 100), "b": (0, 100)}, 1.0, None),
    "as many lost as are allowed": ({"a": (2, 100), "b": (2, 100)}, 0.98, None),
    "one more, over all": ({"a": (2, 100), "b": (3, 100)}, 0.98, Shortfall("", 200, 5, 4, 0.975)),
    "a stratum may lose one more than its share": ({"a": (2, 50), "b": (0, 150)}, 0.98, None),
    "and no more": ({"a": (3, 50), "b": (0, 150)}, 0.98, Shortfall("a", 50, 3, 2, 0.96)),
    "what can be reached is rounded down": ({"a": (1, 3), "b": (0, 3)}, 0.9, Shortfall("", 6, 1, 0, 0.8333)),
    "nothing is right, nothing can be reached": ({"a": (4, 4), "b": (4, 4)}, 0.5, Shortfall("", 8, 8, 4, 0.0)),
})  # fmt: skip
def test_shortfall(strata: dict[str, tuple[int, int]], threshold: float, expected: Shortfall | None) -> None:
    assert find_shortfall(strata, threshold) == expected


FIGURES = st.dictionaries(
    st.sampled_from("abcd"),
    st.integers(1, 300).flatmap(lambda size: st.tuples(st.integers(0, size), st.just(size))),
    min_size=1,
)


@given(FIGURES)
def test_what_is_called_reachable_is_reached_and_a_step_beyond_is_not(strata: dict[str, tuple[int, int]]) -> None:
    best = find_reachable_threshold(strata)
    if best > 0:
        assert find_shortfall(strata, best) is None
    if best < 1:
        assert find_shortfall(strata, round(best + 0.0001, 4)) is not None


@given(FIGURES, st.floats(0.01, 1.0))
def test_a_threshold_is_missed_exactly_where_a_gate_would_refuse(strata: dict[str, tuple[int, int]], t: float) -> None:
    lost, items = (sum(pair[part] for pair in strata.values()) for part in (0, 1))
    fails = lost > max_lost_items(items, t) or any(gone > max_lost_in_stratum(n, t) for gone, n in strata.values())
    assert (find_shortfall(strata, t) is not None) == fails
