"""The queue: bounds, turns, and what a cancellation leaves behind."""

import asyncio

import pytest

from r1plus_gateway.serving.errors import QueueFullError
from r1plus_gateway.serving.fair_queue import FairQueue


class Line:
    """Requests of several callers at one queue of one slot; notes who is served in which order."""

    def __init__(self, per_caller: int = 100, per_tenant: int = 100, slots: int = 1) -> None:
        self.queue = FairQueue(lambda: (per_caller, per_tenant))
        self.queue.set_capacity("credit", slots)
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def _ask(self, caller: str, done: asyncio.Event) -> None:
        await self.queue.enter("credit", caller)
        self.served.append(caller)
        try:
            await done.wait()
        finally:
            self.queue.leave("credit", caller)

    async def ask(self, *callers: str, done: asyncio.Event | None = None) -> None:
        """Let these ask one after another, and run until all are in the queue."""
        finished = asyncio.Event()
        finished.set()
        for caller in callers:
            self.tasks.append(asyncio.create_task(self._ask(caller, done or finished)))
        await asyncio.sleep(0)

    async def finish(self) -> None:
        """Wait for all."""
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_callers_take_turns() -> None:
    line = Line()
    slot = asyncio.Event()
    await line.ask("first", done=slot)
    await line.ask("a", "a", "a", "b", "c", "c")
    slot.set()
    await line.finish()
    assert line.served == ["first", "a", "b", "c", "a", "c", "a"]
    assert line.queue.waiting == 0


async def test_a_caller_who_fills_its_share_is_refused_and_others_are_not() -> None:
    line = Line(per_caller=2)
    slot = asyncio.Event()
    await line.ask("a", done=slot)
    await line.ask("a", "a")
    with pytest.raises(QueueFullError, match="2 of your requests wait"):
        line.queue.check_room("credit", "a")
    line.queue.check_room("credit", "b")
    slot.set()
    await line.finish()


async def test_the_tenant_has_a_bound_over_all_models() -> None:
    line = Line(per_tenant=2)
    slot = asyncio.Event()
    await line.ask("a", done=slot)
    await line.ask("b", "c")
    with pytest.raises(QueueFullError, match="2 requests wait"):
        await line.queue.enter("debit", "d")
    slot.set()
    await line.finish()


async def test_who_is_cancelled_while_waiting_leaves_no_trace() -> None:
    line = Line()
    slot = asyncio.Event()
    await line.ask("a", done=slot)
    await line.ask("b", "c")
    line.tasks[1].cancel()
    await asyncio.sleep(0)
    assert line.queue.waiting == 1
    slot.set()
    await line.finish()
    assert line.served == ["a", "c"]
    assert line.queue.waiting == 0


async def test_who_is_cancelled_in_the_moment_of_its_turn_gives_it_back() -> None:
    line = Line()
    slot = asyncio.Event()
    await line.ask("a", done=slot)
    await line.ask("b", "c")
    line.queue.set_capacity("credit", 2)  # grants b its slot, which b has not seen yet
    line.tasks[1].cancel()
    slot.set()
    await line.finish()
    assert line.served == ["a", "c"]
    assert line.queue.waiting == 0
    await asyncio.wait_for(line.queue.enter("credit", "d"), 60)


async def test_more_pods_let_those_that_wait_go() -> None:
    line = Line(slots=0)
    slot = asyncio.Event()
    await line.ask("a", "b", done=slot)
    assert line.served == []
    line.queue.set_capacity("credit", 2)
    await asyncio.sleep(0)
    assert line.served == ["a", "b"]
    line.queue.set_capacity("credit", 0)
    slot.set()
    await line.finish()


@pytest.mark.parametrize(("slots", "alone"), [(1, 1), (3, 3), (4, 3), (16, 12), (32, 24)])
@pytest.mark.parametrize("times", [1, 1.1, 10])
async def test_a_caller_alone_leaves_a_fourth_of_the_slots_to_the_next_one(
    slots: int, alone: int, times: float
) -> None:
    """A takes all that it can; B has a slot at once from four slots on, and below after two of A's answers at most."""
    line = Line(per_caller=1000, per_tenant=1000, slots=slots)
    answers = [asyncio.Event() for _ in range(round(alone * times))]
    for answer in answers:
        await line.ask("a", done=answer)
    assert line.served == ["a"] * alone
    await line.ask("b", done=(end := asyncio.Event()))
    if slots < 4:
        assert line.served == ["a"] * alone
        for answer in answers[:2]:
            answer.set()
            await until_idle()
    assert "b" in line.served[alone : alone + 2]
    for event in (*answers, end):
        event.set()
    await line.finish()
    assert (line.queue.count_running("credit"), line.queue.waiting) == (0, 0)
    again = asyncio.Event()
    await line.ask(*"a" * alone, done=again)
    assert line.queue.count_running("credit") == alone, "A has its slots again"
    again.set()
    await line.finish()


async def test_a_greedy_caller_gives_its_slots_up_to_those_that_wait() -> None:
    """A, which holds 12 of 16, gets none of those that become free until B has as many as A."""
    line = Line(slots=16)
    answers = [asyncio.Event() for _ in range(40)]
    for answer in answers:
        await line.ask("a", done=answer)
    await line.ask(*"b" * 10, done=(end := asyncio.Event()))
    assert line.served[12:] == ["b"]
    for answer in answers[:8]:
        answer.set()
        await until_idle()
    assert line.served.count("b") == 6, "half of those that are not kept"
    assert line.queue.count_running("credit") == 12
    await line.ask("c")
    assert line.served[-1] == "c", "the reserve is still there"
    for event in (*answers, end):
        event.set()
    await line.finish()


async def test_who_gives_up_waiting_leaves_its_share_to_the_others() -> None:
    line = Line(slots=3)
    held = asyncio.Event()
    await line.ask("a", "b", "b", "b", done=held)
    await line.ask("c", done=held)
    waits = line.tasks[-1]
    line.tasks[0].cancel()  # a
    await until_idle()
    assert line.served == ["a", "b", "b", "c"]
    waits.cancel()
    await until_idle()
    assert line.served == ["a", "b", "b", "c", "b"]
    held.set()
    await line.finish()


async def until_idle() -> None:
    """Run what is ready, and what that wakes."""
    for _ in range(5):
        await asyncio.sleep(0)
