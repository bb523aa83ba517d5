"""The work queue: client-go's dirty/processing semantics, delays and backoff, and the workers."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from r1plus_operator.runtime.backoff import Backoff
from r1plus_operator.runtime.queue import ShutDownError, WorkQueue, run_workers
from support.examples import count_examples
from support.runtime.clock import ManualClock
from support.waiting import DEADLINE_SECONDS, eventually

EXACT = Backoff(first=1.0, cap=8.0, jitter=0.0)
KEYS = st.sampled_from("abcd")


def manual_queue() -> tuple[WorkQueue[str], ManualClock]:
    clock = ManualClock()
    return WorkQueue(clock=clock, retries=EXACT), clock


def taken(queue: WorkQueue[str]) -> str:
    """Take a key that is known to be there, without an event loop."""
    step = queue.get()
    try:
        step.send(None)
    except StopIteration as stop:
        return str(stop.value)
    raise AssertionError("the queue made its caller wait although a key was ready")


class QueueMachine(RuleBasedStateMachine):
    """Any sequence of calls against a model that says in a few lines what the queue promises."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.clock = manual_queue()
        self.ready: list[str] = []
        self.processing: set[str] = set()
        self.again: set[str] = set()
        self.due: dict[str, float] = {}
        self.failures: Counter[str] = Counter()
        self.doublings: Counter[str] = Counter()

    def _added(self, key: str) -> None:
        if key in self.processing:
            self.again.add(key)
        elif key not in self.ready:
            self.ready.append(key)

    def _delayed(self, key: str, seconds: float) -> None:
        self.due[key] = min(self.due.get(key, float("inf")), self.clock.time() + seconds)

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self._added(key)

    @rule(key=KEYS, seconds=st.integers(-1, 9))
    def add_after(self, key: str, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        if seconds <= 0:
            self._added(key)
        else:
            self._delayed(key, seconds)

    @rule(key=KEYS)
    def add_failed(self, key: str) -> None:
        self.queue.add_failed(key)
        self._delayed(key, min(8.0, 2.0 ** self.doublings[key]))
        self.failures[key] += 1
        self.doublings[key] += 1

    @rule(key=KEYS, seconds=st.integers(1, 20))
    def add_failed_that_may_come_back(self, key: str, seconds: int) -> None:
        self.queue.add_failed(key, float(seconds))
        self._delayed(key, float(seconds))
        self.failures[key] += 1
        del self.doublings[key]

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        del self.failures[key], self.doublings[key]

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):  # whole seconds, so that keys due together are added in the order they were asked for
            self.clock.advance(1)
            now = self.clock.time()
            fired = [key for key, when in self.due.items() if when <= now]
            before = list(self.ready)
            for key in fired:
                del self.due[key]
                self._added(key)
            # Of keys due in the same instant either may come first.
            fresh = self.ready[len(before) :]
            actual = list(self.queue._ready._waiting)[len(before) :]
            assert sorted(fresh) == sorted(actual)
            self.ready[len(before) :] = actual

    @precondition(lambda self: self.ready)
    @rule()
    def get(self) -> None:
        key = taken(self.queue)
        assert key == self.ready.pop(0), "keys come in the order they became ready"
        assert key not in self.processing, "no key is in two hands"
        self.processing.add(key)

    @precondition(lambda self: self.processing)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.processing)))
        self.queue.finish(key)
        self.processing.discard(key)
        if key in self.again:
            self.again.discard(key)
            self.ready.append(key)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert self.queue.depth == len(self.ready)
        assert self.queue.delay_depth == len(self.due)
        assert self.clock.live_timers <= 1, "one timer for all delays"
        assert self.queue.count_failures("a") == self.failures["a"]


TestQueueKeepsItsPromises = QueueMachine.TestCase
TestQueueKeepsItsPromises.settings = settings(max_examples=count_examples(150), stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        pytest.param([5.0], 5.0, id="a delayed key comes at its time"),
        pytest.param([5.0, 2.0], 2.0, id="an earlier add takes the place of a later one"),
        pytest.param([2.0, 5.0], 2.0, id="a later add changes nothing"),
        pytest.param([5.0, 3.0, 4.0, 3.0], 3.0, id="of many adds the earliest counts, once"),
    ],
)
def test_delayed_adds(delays: list[float], expected: float) -> None:
    queue, clock = manual_queue()
    for delay in delays:
        queue.add_after("key", delay)
    clock.advance(expected - 0.001)
    assert queue.depth == 0
    clock.advance(0.001)
    assert queue.depth == 1
    assert taken(queue) == "key"
    queue.finish("key")
    clock.advance(100)
    assert queue.depth == 0, "the other delays are gone, too"


def test_failures_in_a_row_double_the_delay_up_to_the_cap_and_success_starts_over() -> None:
    queue, clock = manual_queue()
    seen = []
    for _ in range(5):
        queue.add_failed("key")
        started = clock.time()
        while not queue.depth:
            clock.advance(1)
        seen.append(clock.time() - started)
        queue.finish(taken(queue))
    assert seen == [1, 2, 4, 8, 8]
    queue.forget("key")
    queue.add_failed("key")
    clock.advance(1)
    assert queue.depth == 1


def test_a_thousand_failures_do_not_overflow_the_delay() -> None:
    assert Backoff(0.005, 120.0).compute_delay(5000, random.Random(1)) <= 120.0


async def test_a_cancelled_waiter_passes_its_key_on() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("key")
    first.cancel()
    assert await asyncio.wait_for(second, DEADLINE_SECONDS) == "key"
    assert first.cancelled()


async def test_shutting_down_frees_every_waiter_and_takes_no_more() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add_after("later", 60)
    queue.shut_down()
    assert all(isinstance(r, ShutDownError) for r in await asyncio.gather(*waiters, return_exceptions=True))
    queue.add("key")
    queue.add_after("key", 1)
    assert (queue.depth, queue.delay_depth) == (0, 0)


async def test_workers_never_share_a_key_and_make_a_pass_after_each_last_add() -> None:
    queue: WorkQueue[int] = WorkQueue()
    rand = random.Random(7)
    version: Counter[int] = Counter()
    seen: dict[int, int] = {}
    busy: set[int] = set()
    most = 0

    async def handle(key: int) -> None:
        nonlocal most
        assert key not in busy, "two workers had the same key"
        busy.add(key)
        most = max(most, len(busy))
        read = version[key]
        for _ in range(rand.randrange(4)):
            await asyncio.sleep(0)
        seen[key] = read
        busy.discard(key)

    def report(key: int, error: Exception) -> None:
        raise AssertionError(f"{key}: {error}")

    workers = asyncio.create_task(run_workers(queue, 4, handle, on_error=report))
    for _ in range(3000):
        key = rand.randrange(10)
        version[key] += 1
        queue.add(key)
        if rand.random() < 0.3:
            await asyncio.sleep(0)
    await eventually(lambda: seen == version, "the last version of each key is seen")
    assert most == 4
    queue.shut_down()
    await asyncio.wait_for(workers, DEADLINE_SECONDS)


@pytest.mark.parametrize(
    ("verdict", "expected_delay", "expected_failures"),
    [
        pytest.param(lambda: None, 1.0, 1, id="None from the error handler means the queue's own backoff"),
        pytest.param(lambda: 30.0, 30.0, 1, id="a number from the error handler is the delay, of a failure as well"),
        pytest.param(lambda: 1 / 0, 1.0, 1, id="an error handler that fails itself loses no key"),
    ],
)
async def test_a_failed_pass_comes_again(verdict: Any, expected_delay: float, expected_failures: int) -> None:
    queue, clock = manual_queue()
    passes = 0

    async def handle(_: str) -> None:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise ValueError("the first pass fails")

    workers = asyncio.create_task(run_workers(queue, 2, handle, on_error=lambda _key, _error: verdict()))
    queue.add("key")
    await eventually(lambda: queue.delay_depth == 1, "the key waits")
    assert queue.count_failures("key") == expected_failures
    clock.advance(expected_delay - 0.001)
    assert queue.depth == 0
    clock.advance(0.001)
    await eventually(lambda: passes == 2 and queue.count_failures("key") == 0, "the second pass is over")
    queue.shut_down()
    await asyncio.wait_for(workers, DEADLINE_SECONDS)


async def test_cancelling_the_workers_ends_their_handlers() -> None:
    queue: WorkQueue[str] = WorkQueue()
    started, ended = asyncio.Event(), asyncio.Event()

    async def handle(_: str) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    workers = asyncio.create_task(run_workers(queue, 2, handle, on_error=lambda _k, _e: None))
    queue.add("key")
    await started.wait()
    workers.cancel()
    with pytest.raises(asyncio.CancelledError):
        await workers
    assert ended.is_set()
