"""Which of the waiting keys is next: against a model that says in a few lines what is promised; and who is woken."""

import asyncio
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from r1plus_operator.runtime.lanes import URGENT_IN_A_ROW, Lane, Lanes
from r1plus_operator.runtime.queue import WorkQueue
from support.waiting import DEADLINE_SECONDS, eventually

GROUPS, MOST = "abc", 2
KEYS = st.sampled_from([f"{group}{i}" for group in GROUPS for i in range(4)])


def lane(key: str) -> Lane:
    """`a1` is of group a; one that ends with an exclamation mark is urgent by itself."""
    return Lane(group=key[0], is_urgent=key.endswith("!"))


class LanesMachine(RuleBasedStateMachine):
    """Waiting: key -> (urgent, when it came). The rest follows."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[str] = Lanes(lane, MOST)
        self.waiting: dict[str, tuple[bool, int]] = {}
        self.out: list[tuple[str, bool]] = []
        """(key, whether it was urgent)."""
        self.in_a_row = 0
        self.time = 0
        self.passed: dict[tuple[bool, str], set[str]] = defaultdict(set)
        """(urgent, group) that could be taken -> groups that were, meanwhile."""

    def takeable(self, urgent: bool) -> dict[str, list[str]]:
        """Group -> its waiting keys, the oldest first; without those that have no room."""
        found = defaultdict(list)
        for key, (is_urgent, _) in sorted(self.waiting.items(), key=lambda item: item[1][1]):
            if is_urgent is urgent and sum((k[0], u) == (key[0], urgent) for k, u in self.out) < MOST:
                found[key[0]].append(key)
        return found

    @precondition(lambda self: len(self.out) < 9)
    @rule(key=KEYS, at_once=st.booleans())
    def push(self, key: str, at_once: bool) -> None:
        if any(key == out for out, _ in self.out):
            return  # The queue pushes none that is out.
        self.lanes.push(key, urgent=at_once)
        self.time += 1
        if key not in self.waiting or (at_once and not self.waiting[key][0]):
            self.waiting[key] = at_once, self.time

    @rule()
    def pop(self) -> None:
        key = self.lanes.pop()
        may_be_urgent, may_not = bool(self.takeable(True)), bool(self.takeable(False))
        urgent = may_be_urgent and not (self.in_a_row >= URGENT_IN_A_ROW and may_not)
        expected = self.takeable(urgent)
        if not expected:
            assert key is None, "what has no room is not taken"
            return
        assert key is not None, "and what has is"
        assert key == expected[key[0]][0], "of a group the key that has waited longest"
        assert key[0] not in set().union(*(self.passed[urgent, group] for group in expected)), "no group twice in turn"
        del self.waiting[key]
        self.out.append((key, urgent))
        self.in_a_row = self.in_a_row + 1 if urgent else 0
        for group in expected:
            self.passed[urgent, group].add(key[0])
        self.passed[urgent, key[0]].clear()

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        key, urgent = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        before = self.takeable(urgent)
        made_room = self.lanes.return_key(key)
        self.out.append((key, urgent))
        full = key[0] not in self.takeable(urgent)
        self.out.pop()
        assert made_room or not (full and key[0] in before), "whoever waits for room is told of it"

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert len(self.lanes) == len(self.waiting)
        for urgent in (True, False):
            takeable = self.takeable(urgent)
            for group in GROUPS:
                if group not in takeable:
                    self.passed[urgent, group].clear()


TestLanesKeepTheirPromises = LanesMachine.TestCase
TestLanesKeepTheirPromises.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def lanes_with(*keys: str, most: int | None = None) -> Lanes[str]:
    """Lanes to which these were pushed, one after the other."""
    lanes: Lanes[str] = Lanes(lane, most)
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
    lanes.push("a1", urgent=True)
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
    assert lanes.return_key("a3!")
    assert popped(lanes) == ["a4!"]
    assert lanes.return_key("a1")
    assert popped(lanes) == ["a2"]
    assert not lanes.return_key("b1"), "nobody of its group waits"


async def test_who_waits_is_woken_when_a_group_has_room_again() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=lane, most_of_group=1)
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
    queue: WorkQueue[str] = WorkQueue(lane=lane, most_of_group=2)
    hands: list[str] = []
    waiting: set[asyncio.Task[str]] = set()
    for _ in range(300):
        if rand.random() < 0.4:
            key = f"{rand.choice(GROUPS)}{rand.randrange(9)}{rand.choice(['', '', '!'])}"
            queue.add(key, urgent=rand.random() < 0.2)
        elif hands and rand.random() < 0.5:
            queue.finish(hands.pop(rand.randrange(len(hands))))
        elif waiting and rand.random() < 0.3:
            waiting.pop().cancel()  # as a worker that is ended
        elif len(waiting) < 5:
            waiting.add(asyncio.create_task(queue.get()))
        for _ in range(6):
            await asyncio.sleep(0)
        for task in [task for task in waiting if task.done()]:
            waiting.discard(task)
            hands.append(task.result())
        assert len(set(hands)) == len(hands), "no key is in two hands"
        if waiting:
            lanes = queue._ready
            out = Counter((k[0], urgent) for k, urgent in lanes._urgency_by_key.items())
            assert not [k for k, place in lanes._waiting.items() if out[k[0], place.is_urgent] < 2]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_key_that_is_added_while_it_is_worked_on_keeps_its_urgency() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=lane)
    queue.add("a1")
    assert await queue.get() == "a1"
    queue.add("a1")
    queue.add("a1", urgent=True)
    queue.add("b1")
    queue.finish("a1")
    assert [await queue.get(), await queue.get()] == ["a1", "b1"]


async def test_a_tenant_that_never_stops_delays_another_by_one_key_each_time() -> None:
    queue: WorkQueue[str] = WorkQueue(lane=lane, most_of_group=1)
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
