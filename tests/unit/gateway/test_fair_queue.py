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
            self.queue.leave("credit")

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
