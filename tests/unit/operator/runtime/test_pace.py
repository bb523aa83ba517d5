"""Keys that are changed without end come at their group's pace; none is forgotten, and no other group waits for it."""

from hypothesis import given
from hypothesis import strategies as st

from r1plus_operator.runtime.pace import GroupRateLimiter
from r1plus_operator.runtime.queue import WorkQueue
from support.runtime.clock import ManualClock

RATE, BURST = 2.0, 3


class Timeline:
    """A clock that a test moves, and what was asked of the queue: (time, key)."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[tuple[float, str]] = []
        self.pace: GroupRateLimiter[str] = GroupRateLimiter(
            self._add_after, lambda key: key[0], rate=RATE, burst=BURST, clock=lambda: self.now
        )

    def add(self, *keys: str) -> None:
        for key in keys:
            self.pace.add(key)

    def _add_after(self, key: str, seconds: float) -> None:
        self.due.append((round(self.now + seconds - 1000.0, 6), key))


def test_so_many_come_at_once_and_the_others_one_after_the_other() -> None:
    line = Timeline()
    line.add(*(f"a{number}" for number in range(6)))
    assert line.due == [(0.0, "a0"), (0.0, "a1"), (0.0, "a2"), (0.5, "a3"), (1.0, "a4"), (1.5, "a5")]


def test_another_group_does_not_wait() -> None:
    line = Timeline()
    line.add(*(f"a{number}" for number in range(9)))
    line.add("b0")
    assert line.due[-1] == (0.0, "b0")


def test_a_key_that_waits_takes_no_second_place_and_one_that_was_looked_at_does() -> None:
    line = Timeline()
    line.add("a0", "a1", "a2", "a3", "a3", "a3", "a4")
    assert line.due[3:] == [(0.5, "a3"), (0.5, "a3"), (0.5, "a3"), (1.0, "a4")], "the queue makes one of them"
    line.now += 0.5
    line.add("a3")
    assert line.due[-1] == (1.5, "a3"), "its time has come: what changed after that is another pass"


def test_who_edits_the_same_key_fast_waits_too() -> None:
    line = Timeline()
    line.add(*["a0"] * 50)
    assert sorted(at for at, _ in line.due)[:3] == [0.0] * 3
    assert {at for at, _ in line.due[3:]} == {0.5}


def test_an_edit_after_a_pass_that_came_before_its_time_is_seen() -> None:
    """With the real queue: a pass for another reason takes the place of the booked one."""
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    pace: GroupRateLimiter[str] = GroupRateLimiter(
        queue.add_after, lambda key: key[0], rate=RATE, burst=1, clock=clock.time
    )
    pace.add("a0")
    queue.add_after("a1", 0.1)
    pace.add("a1")
    clock.advance(0.1)
    assert queue.depth == 2
    assert queue.delay_depth == 0, "a1 waits no more"
    pace.add("a1")
    assert queue.delay_depth == 1
    clock.advance(0.4)
    assert (queue.delay_depth, queue.depth) == (0, 2)


def test_after_a_rest_as_many_come_at_once_as_ever() -> None:
    line = Timeline()
    line.add(*(f"a{number}" for number in range(6)))
    line.now += 10.0
    line.add("b0")
    assert set(line.pace._groups) == {"b"}, "nothing is kept of who rests"
    line.add(*(f"a{number}" for number in range(4)))
    assert [at for at, _ in line.due[-4:]] == [10.0, 10.0, 10.0, 10.5]


def test_what_is_kept_of_a_group_is_no_more_than_what_waits() -> None:
    line = Timeline()
    for number in range(100):
        line.add(f"a{number}")
        line.now += 5.0
    assert len(line.pace._groups["a"].due_at) == 1


@given(st.lists(st.tuples(st.sampled_from(["a0", "a1", "a2", "a3", "a4", "a5", "b0", "b1"]), st.sampled_from([0.0, 0.01, 0.3, 2.0]))))  # fmt: skip
def test_every_edit_is_followed_by_a_pass_and_no_group_has_more_than_its_share(edits: list[tuple[str, float]]) -> None:
    line = Timeline()
    for key, later in edits:
        line.now += later
        line.add(key)
        now = round(line.now - 1000.0, 6)
        assert any(k == key and at >= now for at, k in line.due), "a pass that sees the edit"
    for group in "ab":
        times = sorted(at for at, key in set(line.due) if key[0] == group)
        for first, start in enumerate(times):
            for count, end in enumerate(times[first:], 1):
                assert count <= BURST + (end - start) * RATE + 1e-6
