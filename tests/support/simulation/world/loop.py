"""An event loop in which one of several processes can be stopped, as SIGSTOP and SIGKILL do, while the others go on.

What a process does runs in a context of its own (`start`): its tasks, their callbacks and timers inherit it. While a
process is frozen, what becomes ready in its context is set aside. Thawed, it goes on where it was, with its timers late.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from heapq import heapify, heappush
from typing import Any

from support.simulation.loop import SimulationLoop

_PROCESS: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")
Timer = tuple[float, int, asyncio.TimerHandle]


class ProcessLoop(SimulationLoop):
    """The loop. A process is a name that no earlier one had."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: dict[str, tuple[list[asyncio.Handle], list[Timer]]] = {}
        """Process -> what it would do now, in its order, and its timers."""
        self._has_new_frozen = False
        self._kept: list[set[asyncio.Task[Any]]] = []
        """Tasks of frozen processes, which nobody else may refer to: garbage collection would run what cleans up."""

    def start(self, process: str, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` as the main task of a process."""
        return self.create_task(work, name=process, context=_build_context(process))

    def start_outside(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` in no process: what a frozen process has sent arrives all the same."""
        return self.create_task(work, context=_build_context(""))

    def call_outside(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` after so many seconds, in no process."""
        self.call_later(seconds, act, context=_build_context(""))

    def freeze(self, process: str) -> None:
        """Stop a process. For ever, that is SIGKILL: nothing of it runs again, not even what cleans up."""
        self._frozen.setdefault(process, ([], []))
        self._kept.append(asyncio.all_tasks(self))
        self._has_new_frozen = True

    def thaw(self, process: str) -> None:
        """Let a process go on."""
        handles, timers = self._frozen.pop(process, ([], []))
        self._ready.extend(handles)  # type: ignore[attr-defined]
        for timer in timers:
            heappush(self._timers, timer)

    def is_frozen(self, process: str) -> bool:
        """Return whether a process is stopped."""
        return process in self._frozen

    def thaw_all(self) -> None:
        """Let every process go on: at the end, what is left of them can be cancelled then."""
        for process in list(self._frozen):
            self.thaw(process)

    def _run_once(self) -> None:
        if self._frozen:
            self._set_aside()
        super()._run_once()

    def _set_aside(self) -> None:
        if self._has_new_frozen:
            self._has_new_frozen = False
            timers, self._timers = self._timers, []
            for timer in timers:
                aside = self._find_aside(timer[2])
                (self._timers if aside is None else aside[1]).append(timer)
            heapify(self._timers)
        ready: Any = self._ready  # type: ignore[attr-defined]
        for _ in range(len(ready)):
            handle = ready.popleft()
            aside = self._find_aside(handle)
            (ready if aside is None else aside[0]).append(handle)

    def _find_aside(self, handle: Any) -> tuple[list[asyncio.Handle], list[Timer]] | None:
        """Return where a handle is set aside; None: it stays."""
        return self._frozen.get(handle._context.get(_PROCESS, ""))


def _build_context(process: str) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(_PROCESS.set, process)
    return context


async def pass_seconds(seconds: float) -> None:
    """Let virtual seconds pass."""
    assert isinstance(asyncio.get_running_loop(), ProcessLoop)
    await asyncio.sleep(seconds)


@contextmanager
def process_loop() -> Iterator[ProcessLoop]:
    """A loop for one simulation; what is left in it at the end is cancelled, in every process."""
    loop = ProcessLoop()
    try:
        asyncio.set_event_loop(loop)
        yield loop
    finally:
        loop.thaw_all()
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(_gather(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


async def _gather(tasks: "set[asyncio.Task[Any]]") -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
