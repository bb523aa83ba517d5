"""An event loop in which one of several processes can be stopped, as SIGSTOP and SIGKILL do, while the others go on.

What a process does runs in a context of its own (`start`): its tasks, their callbacks and timers inherit it. While a
process is frozen, what becomes ready in its context is set aside. Thawed, it goes on where it was, with its timers late.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

_PROCESS: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")


class RanDryError(Exception):
    """Nothing will ever happen any more, and somebody waits for it."""


class ProcessLoop(asyncio.SelectorEventLoop):
    """The loop. A process is a name that no earlier one had."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: dict[str, list[asyncio.Handle]] = {}
        """Process -> what it would do now, in its order."""
        self._has_new_frozen = False
        self._kept: list[set[asyncio.Task[Any]]] = []
        """Tasks of frozen processes, which nobody else may refer to: garbage collection would run what cleans up."""

    def start(self, process: str, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` as the main task of a process."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, process)
        return self.create_task(work, name=process, context=context)

    def start_outside(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` in no process: what a frozen process has sent arrives all the same."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, "")
        return self.create_task(work, context=context)

    def call_outside(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` after so many seconds, in no process."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, "")
        self.call_later(seconds, act, context=context)

    def freeze(self, process: str) -> None:
        """Stop a process. For ever, that is SIGKILL: nothing of it runs again, not even what cleans up."""
        self._frozen.setdefault(process, [])
        self._kept.append(asyncio.all_tasks(self))
        self._has_new_frozen = True

    def thaw(self, process: str) -> None:
        """Let a process go on."""
        loop: Any = self
        handle: Any
        for handle in self._frozen.pop(process, []):
            if isinstance(handle, asyncio.TimerHandle):
                heapq.heappush(loop._scheduled, handle)
                handle._scheduled = True
            else:
                loop._ready.append(handle)

    def is_frozen(self, process: str) -> bool:
        """Return whether a process is stopped."""
        return process in self._frozen

    def _run_once(self) -> None:
        loop: Any = self
        if self._frozen:
            self._set_aside()
        if not (loop._ready or loop._scheduled or loop._stopping):
            raise RanDryError(f"the world ran dry at {self.time():.1f} s: nothing is scheduled any more")
        super()._run_once()  # type: ignore[misc]

    def _set_aside(self) -> None:
        loop: Any = self
        if self._has_new_frozen:
            self._has_new_frozen = False
            loop._scheduled[:] = [handle for handle in loop._scheduled if self._keep(handle)]
            heapq.heapify(loop._scheduled)
        for _ in range(len(loop._ready)):
            handle = loop._ready.popleft()
            if self._keep(handle):
                loop._ready.append(handle)

    def _keep(self, handle: Any) -> bool:
        """Return whether a handle stays where it is; else it is set aside."""
        aside = self._frozen.get(handle._context.get(_PROCESS, ""))
        if aside is None or handle._cancelled:
            return True
        if isinstance(handle, asyncio.TimerHandle):
            timer: Any = handle
            timer._scheduled = False  # Else its cancellation would count for the heap.
        aside.append(handle)
        return False


@contextmanager
def process_loop() -> Iterator[ProcessLoop]:
    """A loop for one simulation; what is left in it at the end is cancelled, in every process."""
    loop = ProcessLoop()
    try:
        asyncio.set_event_loop(loop)
        yield loop
    finally:
        for process in list(loop._frozen):
            loop.thaw(process)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(_gather(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


async def _gather(tasks: "set[asyncio.Task[Any]]") -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
