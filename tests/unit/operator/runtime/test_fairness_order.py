"""Which of the waiting keys is next: against a model that says in a few lines what is promised; and who is woken."""

import asyncio
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from r1plus_operator.runtime.fairness import (
    ALONE_AFTER_SECONDS,
    LONGEST_REST_SECONDS,
    MOST_IN_A_ROW,
    REST,
    WIDE_SHARES,
    Contention,
    Lane,
    Lanes,
    Priority,
)
from r1plus_operator.runtime.queue import WorkQueue
from support.examples import count_examples
from support.runtime.clock import ManualClock
from support.runtime.contention import Contended
from support.waiting import DEADLINE_SECONDS, eventually

GROUPS, MOST = "abc", 2
KEYS = st.sampled_from([f"{group}{i}" for group in GROUPS for i in range(4)])


def lane(key: str) -> Lane:
    """`a1` is of group a; one that ends with an exclamation mark is urgent by itself."""
    return Lane(group=key[0], is_urgent=key.endswith("!"))


def contended() -> Contention:
    """Somebody has waited for two groups just now, at the time 0."""
    contention = Contention()
    for group in ("other", "and another"):
        contention.record(group, 0.0)
    return contention


def give_back(lanes: Lanes[str], key: str) -> bool:
    """Return a key and free its room at once; return whether that lets another one be taken."""
    return lanes.free(lanes.return_key(key))


class LanesMachine(RuleBasedStateMachine):
    """Waiting: key -> (priority, when it came). The rest follows."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[str] = Lanes(lane, MOST, contended())
        self.now = 0.0
        self.waiting: dict[str, tuple[Priority, int]] = {}
        self.out: list[tuple[str, Priority]] = []
        self.in_a_row = dict.fromkeys(Priority, 0)
        self.time = 0
        self.passed: dict[tuple[Priority, str], set[str]] = defaultdict(set)
        """(priority, group) that could be taken -> groups that were, meanwhile."""

    def has_room(self, priority: Priority, group: str) -> bool:
        of_group = Counter(p for key, p in self.out if key[0] == group)
        if priority is Priority.LOW and sum(p is Priority.LOW for _, p in self.out) >= WIDE_SHARES * MOST:
            return False
        if of_group[priority] < (1 if priority is Priority.LOW else MOST):
            return True
        is_alone = priority is not Priority.URGENT and self.now >= ALONE_AFTER_SECONDS
        return is_alone and of_group.total() < WIDE_SHARES * MOST

    def takeable(self, priority: Priority) -> dict[str, list[str]]:
        """Group -> its waiting keys, the oldest first; without those that have no room."""
        found = defaultdict(list)
        for key, (of_key, _) in sorted(self.waiting.items(), key=lambda item: item[1][1]):
            if of_key is priority and self.has_room(priority, key[0]):
                found[key[0]].append(key)
        return found

    @precondition(lambda self: len(self.out) < 9)
    @rule(key=KEYS, priority=st.sampled_from(Priority))
    def push(self, key: str, priority: Priority) -> None:
        if any(key == out for out, _ in self.out):
            return  # The queue pushes none that is out.
        self.lanes.push(key, priority)
        self.time += 1
        if key not in self.waiting or priority < self.waiting[key][0]:
            self.waiting[key] = priority, self.time

    def next_priority(self) -> Priority | None:
        """Return the priority of the next key: the highest, or one that was overtaken often enough."""
        takeable = [priority for priority in Priority if self.takeable(priority)]
        overtaken = [p for p in takeable if self.in_a_row[p] >= MOST_IN_A_ROW.get(p, math.inf)]
        return next(iter((*overtaken, *takeable)), None)

    @rule()
    def nobody_waits_any_more(self) -> None:
        self.now = ALONE_AFTER_SECONDS

    @rule()
    def pop(self) -> None:
        priority = self.next_priority()
        expected = {} if priority is None else self.takeable(priority)
        key = self.lanes.pop(self.now)
        if priority is None:
            assert key is None, "what has no room is not taken"
            return
        assert key is not None, "and what has is"
        assert key == expected[key[0]][0], "of a group the key that has waited longest"
        passed = set().union(*(self.passed[priority, group] for group in expected))
        assert key[0] not in passed, "no group twice in turn"
        del self.waiting[key]
        self.out.append((key, priority))
        self.in_a_row = {p: count + (p > priority) if p is not priority else 0 for p, count in self.in_a_row.items()}
        for group in expected:
            self.passed[priority, group].add(key[0])
        self.passed[priority, key[0]].clear()

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        out = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        after = {group for p in Priority for group in self.takeable(p)}
        self.out.append(out)
        before = {group for p in Priority for group in self.takeable(p)}
        self.out.remove(out)
        assert give_back(self.lanes, out[0]) or after == before, "whoever waits for room is told of it"

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert len(self.lanes) == len(self.waiting)
        for priority in Priority:
            takeable = self.takeable(priority)
            for group in GROUPS:
                if group not in takeable:
                    self.passed[priority, group].clear()


TestLanesKeepTheirPromises = LanesMachine.TestCase
TestLanesKeepTheirPromises.settings = settings(max_examples=count_examples(200), stateful_step_count=50, deadline=None)


class CountedKey(str):
    """A key that counts how often it is looked up."""

    __slots__ = ()
    lookups = 0

    def __hash__(self) -> int:
        CountedKey.lookups += 1
        return super().__hash__()


def test_a_pop_looks_at_no_group_while_none_of_low_priority_has_room() -> None:
    lanes: Lanes[str] = Lanes(lambda key: Lane(group=str(key)), MOST, contended())
    for number in range(100):
        lanes.push(CountedKey(number), Priority.LOW)
    taken = [lanes.pop() for _ in range(WIDE_SHARES * MOST)]
    assert None not in taken
    CountedKey.lookups = 0
    assert lanes.pop() is None
    assert not CountedKey.lookups, "a restart of thousands of namespaces has as many groups"


def lanes_with(*keys: str, most: int | None = None) -> Lanes[str]:
    """Lanes to which these were pushed, one after the other."""
    lanes: Lanes[str] = Lanes(lane, most, contended())
    for key in keys:
        lanes.push(key)
    return lanes


def popped(lanes: Lanes[str]) -> list[str]:
    """All that may be taken now."""
    found = []
    while (key := lanes.pop()) is not None:
        found.append(key)
    return found


@pytest.mark.parametrize(
    ("pushed", "taken"),
    [
        pytest.param("a1 a2 a3 b1 c1 b2", "a1 b1 c1 a2 b2 a3", id="groups in turn, each in its own order"),
        pytest.param("a1 b1! a2 c1!", "b1! c1! a1 a2", id="what is urgent before all else"),
        pytest.param("a1! a2! b1! b2!", "a1! b1! a2! b2!", id="among what is urgent groups in turn, too"),
        pytest.param("a1 a2 a1", "a1 a2", id="no key twice, and where it waited first"),
    ],
)
def test_the_order(pushed: str, taken: str) -> None:
    assert popped(lanes_with(*pushed.split())) == taken.split()


def test_a_key_that_was_urgent_once_waits_behind_its_group_the_next_time() -> None:
    lanes = lanes_with("a1", "a2")
    lanes.push("a1", Priority.URGENT)
    assert lanes.pop() == "a1"
    lanes.push("a1")
    assert popped(lanes) == ["a2", "a1"]


def test_urgent_keys_without_end_delay_the_others_by_a_few() -> None:
    taken = popped(lanes_with(*(f"a{number}!" for number in range(9)), "b1", "b2", "c1"))
    assert [key for key in taken if key[0] != "a"] == ["b1", "c1", "b2"]
    assert [taken.index(key) for key in ("b1", "c1", "b2")] == [3, 7, 11]


def test_of_a_group_no_more_are_out_than_may_be_and_as_many_urgent_ones() -> None:
    lanes = lanes_with("a1", "a2", "a3!", "b1", most=1)
    assert popped(lanes) == ["a3!", "a1", "b1"], "a1 is out, so no other of its group but urgent ones"
    lanes.push("a4!")
    lanes.push("a5!")
    assert popped(lanes) == [], "of which no more may be out either"
    assert give_back(lanes, "a3!")
    assert popped(lanes) == ["a4!"]
    assert give_back(lanes, "a1")
    assert popped(lanes) == ["a2"]


async def test_who_waits_is_woken_when_a_group_has_room_again() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=lane, most_of_group=1, contention=Contended())
    queue.add("a1")
    queue.add("a2")
    assert await queue.get() == "a1"
    second, third = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await eventually(lambda: len(queue._waiters) == 2, "both wait")
    queue.add("b1")
    assert await asyncio.wait_for(second, DEADLINE_SECONDS) == "b1", "another group's key is taken meanwhile"
    queue.finish("b1")
    assert not third.done()
    queue.finish("a1")
    assert await asyncio.wait_for(third, DEADLINE_SECONDS) == "a2"


@pytest.mark.parametrize("seed", range(30))
async def test_nobody_waits_while_there_is_a_key_that_he_may_take(seed: int) -> None:
    rand = random.Random(seed)
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock, lane=lane, most_of_group=2)
    hands: list[str] = []
    waiting: set[asyncio.Task[str]] = set()
    for _ in range(300):
        if rand.random() < 0.4:
            key = f"{rand.choice(GROUPS)}{rand.randrange(9)}{rand.choice(['', '', '!'])}"
            queue.add(key, rand.choice(list(Priority)))
        elif hands and rand.random() < 0.5:
            queue.finish(hands.pop(rand.randrange(len(hands))))
        elif waiting and rand.random() < 0.3:
            waiting.pop().cancel()  # as a worker that is ended
        elif len(waiting) < 5:
            waiting.add(asyncio.create_task(queue.get()))
        clock.advance(rand.choice([0.0, 0.5, 2.0]))
        for _ in range(6):
            await asyncio.sleep(0)
        for task in [task for task in waiting if task.done()]:
            waiting.discard(task)
            hands.append(task.result())
        assert len(set(hands)) == len(hands), "no key is in two hands"
        if waiting:
            lanes = queue._ready
            now = clock.time()
            assert not [k for k, place in lanes._waiting.items() if lanes._has_room(place.priority, k[0], now)]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_key_that_is_added_while_it_is_worked_on_keeps_its_urgency() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=lane)
    queue.add("a1")
    assert await queue.get() == "a1"
    queue.add("a1")
    queue.add("a1", Priority.URGENT)
    queue.add("b1")
    queue.finish("a1")
    assert [await queue.get(), await queue.get()] == ["a1", "b1"]


async def test_a_tenant_that_never_stops_delays_another_by_one_key_each_time() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=lane, most_of_group=1, contention=Contended())
    out: Counter[str] = Counter()
    order: list[str] = []

    async def work() -> None:
        while True:
            key = await queue.get()
            out[key[0]] += 1
            assert out[key[0]] <= 1, "no more of a group than may be"
            order.append(key)
            if len(order) == 10:
                queue.add("b1")
                queue.add("b2")
            await asyncio.sleep(0)
            out[key[0]] -= 1
            queue.finish(key)
            if key[0] == "a" and len(order) < 60:
                queue.add(key)

    for i in range(20):
        queue.add(f"a{i}")
    workers = [asyncio.create_task(work()) for _ in range(2)]
    await eventually(lambda: len(order) >= 60 or any(worker.done() for worker in workers), "sixty keys are done")
    for worker in workers:
        worker.cancel()
    ended = await asyncio.gather(*workers, return_exceptions=True)
    assert [str(fault) for fault in ended if isinstance(fault, AssertionError)] == []
    assert [i for i, key in enumerate(order) if key[0] == "b"][-1] <= 10 + 4


async def test_low_priority_waits_for_all_else_but_is_not_forgotten() -> None:
    lanes: Lanes[str] = Lanes(lane, None, contended())
    for number in range(2):
        lanes.push(f"a{number}", Priority.LOW)
    for number in range(20):
        lanes.push(f"b{number}")
    taken = popped(lanes)
    assert [taken.index(key) for key in ("a0", "a1")] == [8, 17]


def test_of_low_priority_a_group_has_one_out_and_all_together_three_times_as_many_as_a_group() -> None:
    lanes: Lanes[str] = Lanes(lane, 1, contended())
    for key in ("a1", "a2", "b1", "c1", "d1"):
        lanes.push(key, Priority.LOW)
    assert popped(lanes) == ["a1", "b1", "c1"]
    assert give_back(lanes, "a1"), "another group waits for this room"
    assert popped(lanes) == ["d1"]
    lanes.push("a2")
    assert popped(lanes) == ["a2"], "with a higher priority it has the room of that"


class Bulk:
    """A queue with two keys of each of two groups, and a clock that stands still. Somebody has waited for a third group."""

    def __init__(self, priority: Priority = Priority.LOW, *, waited_for: Sequence[str] = ("c1",)) -> None:
        self.clock = ManualClock()
        self.queue: WorkQueue[str] = WorkQueue(clock=self.clock, lane=lane, most_of_group=MOST)
        self.wait_for(waited_for)
        for key in ("a1", "a2", "b1", "b2"):
            self.queue.add(key, priority)

    def wait_for(self, keys: Sequence[str]) -> None:
        """Have a pass over keys for which somebody waits."""
        for key in keys:
            self.queue.add(key)
            assert key in self.take_all()
            self.queue.finish(key)

    def take_all(self) -> list[str]:
        """Take all keys that may be taken now."""
        found = []
        while self.queue.depth:
            step = self.queue.get()
            try:
                step.send(None)
            except StopIteration as stop:
                found.append(str(stop.value))
            else:
                step.close()
                break
        return found


@pytest.mark.parametrize(
    ("seconds_out", "rest"),
    [
        pytest.param(0.1, REST * 0.1, id="some times as long as the key was out"),
        pytest.param(30.0, LONGEST_REST_SECONDS, id="not as long as an API server that does not answer"),
    ],
)
async def test_what_comes_in_bulk_leaves_time_to_others_between_two_keys(seconds_out: float, rest: float) -> None:
    bulk = Bulk()
    assert bulk.take_all() == ["a1", "b1"]
    bulk.clock.advance(seconds_out)
    bulk.wait_for(("c1",))
    bulk.queue.finish("a1")
    assert bulk.take_all() == []
    bulk.queue.add("a3", Priority.NORMAL)
    assert bulk.take_all() == ["a3"], "what somebody waits for does not wait for that"
    bulk.clock.advance(0.9 * rest)
    assert bulk.take_all() == []
    bulk.clock.advance(0.2 * rest)
    assert bulk.take_all() == ["a2"]


@pytest.mark.parametrize(
    ("waited_for", "seconds_ago", "rests"),
    [
        pytest.param((), 0.0, False, id="for nothing"),
        pytest.param(("a3",), 0.0, False, id="for its own group"),
        pytest.param(("c1",), ALONE_AFTER_SECONDS - 1, True, id="for another group"),
        pytest.param(("c1",), ALONE_AFTER_SECONDS + 1, False, id="for another group, long ago"),
        pytest.param(("c1", "a3"), 0.0, True, id="for another group and then its own"),
        pytest.param(("c1", "a3", "a3"), 0.0, True, id="for another group and then its own again and again"),
    ],
)
async def test_what_comes_in_bulk_rests_where_somebody_has_waited(
    waited_for: Sequence[str], seconds_ago: float, rests: bool
) -> None:
    bulk = Bulk(waited_for=waited_for)
    for number in range(3, 9):
        bulk.queue.add(f"a{number}", Priority.LOW)
    bulk.clock.advance(seconds_ago)
    bulk.take_all()
    bulk.clock.advance(0.1)
    bulk.queue.finish("a1")
    assert len(bulk.take_all()) == (0 if rests else 1)


async def test_a_key_of_another_priority_frees_its_room_at_once() -> None:
    bulk = Bulk(Priority.NORMAL)
    bulk.queue.add("a3", Priority.NORMAL)
    assert bulk.take_all() == ["a1", "b1", "a2", "b2"]
    bulk.clock.advance(0.1)
    bulk.queue.finish("a1")
    assert bulk.take_all() == ["a3"]


async def test_a_key_that_rests_can_be_taken_for_another_cause() -> None:
    bulk = Bulk()
    bulk.take_all()
    bulk.clock.advance(0.1)
    bulk.queue.finish("a1")
    bulk.queue.add("a1", Priority.URGENT)
    assert bulk.take_all() == ["a1"]
    bulk.clock.advance(0.1)
    bulk.queue.finish("a1")
    bulk.clock.advance(REST)
    assert bulk.take_all() == ["a2"], "room is freed once for each key that was out"
    bulk.queue.finish("b1")
    bulk.queue.finish("a2")
    bulk.clock.advance(LONGEST_REST_SECONDS)
    assert bulk.take_all() == ["b2"]


async def test_a_worker_that_waits_is_woken_when_the_rest_is_over() -> None:
    bulk = Bulk()
    bulk.take_all()
    bulk.clock.advance(0.1)
    bulk.queue.finish("a1")
    waiting = asyncio.create_task(bulk.queue.get())
    await eventually(lambda: len(bulk.queue._waiters) == 1, "it waits")
    bulk.clock.advance(REST)
    assert await asyncio.wait_for(waiting, DEADLINE_SECONDS) == "a2"


async def test_a_group_that_is_alone_has_more_workers_but_leaves_some_to_the_group_that_comes_next() -> None:
    bulk = Bulk(waited_for=())
    for number in range(3, 20):
        bulk.queue.add(f"a{number}", Priority.LOW)
    taken = bulk.take_all()
    assert len(taken) == WIDE_SHARES * MOST
    alone = [key for key in taken if key[0] == "a"]
    assert len(alone) > 1
    bulk.queue.add("c1")
    assert bulk.take_all() == ["c1"]
    for key in alone[1:]:
        bulk.queue.finish(key)
        bulk.clock.advance(0.01)
    bulk.clock.advance(LONGEST_REST_SECONDS)
    assert bulk.take_all() == [], "beside others it has one"


async def test_workers_that_wait_are_woken_once_a_group_is_alone() -> None:
    bulk = Bulk()
    assert bulk.take_all() == ["a1", "b1"]
    waiting = [asyncio.create_task(bulk.queue.get()) for _ in range(2)]
    await eventually(lambda: len(bulk.queue._waiters) == len(waiting), "they wait")
    bulk.clock.advance(ALONE_AFTER_SECONDS)
    found = await asyncio.wait_for(asyncio.gather(*waiting), DEADLINE_SECONDS)
    assert sorted(found) == ["a2", "b2"]


async def test_keys_whose_time_has_come_are_nobody_who_waits() -> None:
    bulk = Bulk(waited_for=())
    bulk.queue.add_after("c1", 1.0)
    bulk.clock.advance(1.0)
    taken = bulk.take_all()
    assert "c1" in taken
    bulk.clock.advance(0.1)
    bulk.queue.finish("a1")
    bulk.queue.add("a3", Priority.LOW)
    assert bulk.take_all() == ["a3"], "its room does not rest"
