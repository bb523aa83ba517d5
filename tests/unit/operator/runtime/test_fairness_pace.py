"""What changes without end gets fewer and fewer turns; nothing is forgotten, and no other group waits for it."""

import itertools
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_operator.runtime.fairness import (
    ALONE_AFTER_SECONDS,
    LOOK_AGAIN_SECONDS,
    MOST_REMEMBERED,
    Contention,
    Pace,
    PaceLimits,
)
from support.runtime.clock import ManualClock
from support.runtime.contention import Contended

LIMITS = PaceLimits(at_once=3, burst_per_second=2.0, burst=6, per_second=0.5, longest_seconds=16.0)


class Timeline:
    """A clock that a test moves, and which turns were taken: (time, key, which change was followed)."""

    def __init__(self, limits: PaceLimits = LIMITS, contention: Contention | None = None) -> None:
        self.clock = ManualClock()
        self.pace: Pace[str] = Pace(lambda key: key[0], contention or Contended(), limits, clock=self.clock)
        self.turns: list[tuple[float, str, int]] = []
        self.changes: dict[str, int] = {}

    def change(self, *keys: str) -> None:
        for key in keys:
            number = self.changes[key] = self.changes.get(key, 0) + 1
            turn = partial(self._take, key, number)
            if self.pace.take_turn(key, turn):
                turn()

    def change_for(self, seconds: float, *keys: str, every: float = 0.125) -> None:
        for _ in range(int(seconds / every)):
            self.change(*keys)
            self.clock.advance(every)

    def times(self, group: str = "") -> list[float]:
        return [at for at, key, _ in self.turns if key.startswith(group)]

    def _take(self, key: str, number: int) -> None:
        self.turns.append((round(self.clock.time(), 6), key, number))


def test_a_few_come_at_once_the_rest_of_a_burst_soon_and_then_one_every_two_seconds() -> None:
    line = Timeline()
    line.change(*(f"a{number}" for number in range(9)))
    line.clock.advance(60.0)
    assert line.times() == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 6.0]
    assert not any(group.waiting for group in line.pace._groups.values())


def test_another_group_does_not_wait() -> None:
    line = Timeline()
    line.change(*(f"a{number}" for number in range(9)), "b0")
    assert line.times("b") == [0.0]


def test_of_many_changes_of_what_waits_the_newest_is_followed_once() -> None:
    line = Timeline()
    line.change("a0", "a1", "a2", *["a3"] * 50)
    line.clock.advance(100.0)
    assert [(key, number) for _, key, number in line.turns][3:] == [("a3", 50)]


@pytest.mark.parametrize("crs", [1, 20], ids=["one object", "more objects than come at once"])
def test_who_never_stops_gets_a_turn_every_sixteen_seconds(crs: int) -> None:
    line = Timeline()
    line.change_for(300.0, *(f"a{number}" for number in range(crs)))
    late = [at for at in line.times() if at > 60.0]
    gaps = {round(after - before, 6) for before, after in itertools.pairwise(late)}
    assert max(gaps) - min(gaps) <= 0.125
    assert min(gaps) == 16.0


def test_the_gap_doubles_and_is_halved_again_once_nothing_changes() -> None:
    line = Timeline(PaceLimits(at_once=1, burst_per_second=100.0, burst=1000, per_second=0.5, longest_seconds=16.0))
    keys = [f"a{number}" for number in range(9)]
    line.change(*keys)
    line.change_for(31.0, *keys)
    before = line.times()
    line.clock.advance(100.0)
    after = [late - early for early, late in itertools.pairwise(line.times())][len(before) - 1 :]
    assert [round(late - early) for early, late in itertools.pairwise(before)][:5] == [0, 2, 4, 8, 16]
    assert [round(gap) for gap in after[:4]] == [16, 16, 8, 4], "the first was set before it was quiet"


def test_the_last_change_of_each_is_followed_soon_after_a_flood() -> None:
    line = Timeline()
    keys = [f"a{number}" for number in range(20)]
    line.change_for(100.0, *keys)
    line.clock.advance(120.0)
    followed = {key: number for _, key, number in line.turns}
    assert followed == line.changes


def test_what_had_no_turn_for_longest_is_next() -> None:
    line = Timeline()
    keys = [f"a{number}" for number in range(5)]
    line.change_for(100.0, *keys)
    line.change("a9")
    line.clock.advance(16.25)
    assert line.turns[-1][1:] == ("a9", 1), "it waits for none of those that have had theirs"


def test_a_flood_is_forgotten_after_a_rest() -> None:
    line = Timeline()
    line.change_for(100.0, "a0")
    line.clock.advance(200.0)
    began = len(line.turns)
    line.change("a0", "a1", "a2")
    assert len(line.turns) == began + 3
    line.change("b0")
    line.clock.advance(200.0)
    line.change("c0")
    assert set(line.pace._groups) == {"c"}, "nothing is kept of who rests"


def test_what_is_withdrawn_is_not_followed_and_what_changes_after_it_is() -> None:
    line = Timeline()
    line.change("a0", "a1", "a2", "a3", "a4")
    line.pace.withdraw("a3")
    line.pace.withdraw("a4")
    line.pace.withdraw("a0")
    line.pace.withdraw("b0")
    line.change("a4")
    line.clock.advance(60.0)
    assert [(key, number) for _, key, number in line.turns][3:] == [("a4", 2)]


def test_of_objects_that_come_and_go_no_more_is_remembered_than_so_many() -> None:
    line = Timeline(PaceLimits(at_once=10_000, burst_per_second=1.0, burst=10_000))
    line.change(*(f"a{number}" for number in range(MOST_REMEMBERED + 500)))
    assert len(line.pace._groups["a"].last_turns) == MOST_REMEMBERED


def test_what_comes_waits_and_is_withdrawn_without_end_is_not_remembered_and_takes_no_turn_of_others() -> None:
    line = Timeline()
    line.change("a0", "a1", "a2", "a3")
    for number in range(10_000):
        line.change(f"a gone {number}")
        line.pace.withdraw(f"a gone {number}")
    assert len(line.pace._groups["a"].waiting) == 1
    line.change("a4")
    line.clock.advance(10.0)
    assert {key for _, key, _ in line.turns} == {"a0", "a1", "a2", "a3", "a4"}


def test_a_turn_whose_key_is_withdrawn_is_the_next_keys_and_no_second_one_comes_with_it() -> None:
    line = Timeline()
    line.change("a0", "a1", "a2", "a3")
    line.pace.withdraw("a3")
    line.change("a4", "a5")
    line.clock.advance(60.0)
    assert len(line.times()) == len(set(line.times()[2:])) + 2, "one at a time"
    line.change("a6")
    line.clock.advance(60.0)
    assert {key for _, key, _ in line.turns} >= {"a4", "a5", "a6"}


KEYS = st.sampled_from(["a0", "a1", "a2", "a3", "a4", "a5", "b0", "b1"])


@given(st.lists(st.tuples(KEYS, st.sampled_from([0.0, 0.01, 0.3, 2.0, 20.0])), max_size=80))
def test_every_last_change_is_followed_and_no_group_has_more_than_its_share(edits: list[tuple[str, float]]) -> None:
    line = Timeline()
    for key, later in edits:
        line.clock.advance(later)
        line.change(key)
    line.clock.advance(300.0)
    assert {key: number for _, key, number in line.turns} == line.changes
    assert not any(group.waiting for group in line.pace._groups.values())
    for group in "ab":
        times = line.times(group)
        for first, start in enumerate(times):
            for count, end in enumerate(times[first:], 1):
                assert count <= LIMITS.burst + (end - start) * LIMITS.per_second + 1e-6
                assert count <= LIMITS.at_once + (end - start) * LIMITS.burst_per_second + 1e-6


class Shared(Timeline):
    """Groups that see each other: whoever changes something is somebody who waits."""

    def __init__(self) -> None:
        super().__init__(contention=Contention())


def test_who_is_alone_hardly_waits() -> None:
    line = Shared()
    line.change(*(f"a{number}" for number in range(200)))
    assert len(line.times()) == LIMITS.at_once_alone
    line.clock.advance(200 / LIMITS.per_second_alone + LOOK_AGAIN_SECONDS)
    assert len(line.times()) == 200


def test_of_a_burst_of_who_is_alone_the_newest_state_of_each_is_followed() -> None:
    line = Shared()
    for _ in range(100):
        line.change(*(f"a{number}" for number in range(100)))
    assert len(line.turns) == LIMITS.at_once_alone
    line.clock.advance(1.0)
    assert len(line.turns) <= LIMITS.at_once_alone + LIMITS.per_second_alone + 1
    assert {key: number for _, key, number in line.turns} == line.changes


def test_a_turn_that_fails_takes_none_from_the_next() -> None:
    line = Timeline()
    line.change("a0", "a1", "a2")

    def fail() -> None:
        raise RuntimeError("an edit that cannot be taken")

    assert not line.pace.take_turn("a3", fail)
    line.change("a4")
    with pytest.raises(RuntimeError):
        line.clock.advance(10.0)
    line.clock.advance(10.0)
    assert [key for _, key, _ in line.turns][3:] == ["a4"]


def test_once_somebody_comes_a_group_that_was_alone_has_had_its_burst() -> None:
    line = Shared()
    line.change_for(30.0, *(f"a{number}" for number in range(9)))
    line.change("b0")
    began = line.clock.time()
    line.change_for(4.0, *(f"a{number}" for number in range(9)))
    assert sum(at > began for at in line.times("a")) <= 2
    assert line.times("b") == [began]


def test_a_flood_beside_others_has_all_its_turns_soon_after_they_have_gone() -> None:
    line = Shared()
    line.change("b0")
    line.change_for(3.0, *(f"a{number}" for number in range(99)))
    assert len(line.times("a")) < 20
    line.clock.advance(ALONE_AFTER_SECONDS)
    assert {key: number for _, key, number in line.turns} == line.changes
