"""A clock for the running event loop: it stops while there is something to do, and jumps where everything waits for it.

A test opts in by the fixture `virtual_time` (`tests/conftest.py`), or calls `skip_seconds` where another process takes part.
Why this is our own: docs/decisions/0011-virtual-time.md.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PAST_SECONDS = 1e-6
SOCKET_SECONDS = 0.02
"""Real seconds for which sockets are watched before a jump. Nothing waits for them where the loop has no socket."""


class VirtualClock:
    """The time of one event loop, whose selector it replaces."""

    def __init__(self, loop: Any, start: float | None, socket_seconds: float) -> None:
        self._loop = loop
        self._select = loop._selector.select
        self._run_in_executor = loop.run_in_executor
        self._now = loop.time() if start is None else start
        self._socket_seconds = socket_seconds
        self._threads_at_work: set[asyncio.Future[Any]] = set()

    def read(self) -> float:
        """Return the virtual seconds (`loop.time`)."""
        return self._now

    def select(self, timeout: float | None = None) -> Any:
        """Return the sockets that are ready; where there are none, move the clock to the next timer instead of waiting."""
        if timeout is None or timeout <= 0:
            return self._select(timeout)
        ready = self._select(0)
        if not ready and self._threads_at_work:
            # A thread wakes the loop when it ends: however long it takes, no timer fires meanwhile.
            return self._select(None)
        if not ready and self._has_sockets():
            ready = self._select(self._socket_seconds)
        if not ready:
            # A little past the timer: rounded below it, code that waits for that moment would look again for ever.
            self._now += timeout + PAST_SECONDS
        return ready

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run `function` in a thread, for which the clock waits (`loop.run_in_executor`, `asyncio.to_thread`)."""
        future = self._run_in_executor(executor, function, *arguments)
        self._threads_at_work.add(future)
        future.add_done_callback(self._threads_at_work.discard)
        return future

    def _has_sockets(self) -> bool:
        # One is the loop's own, by which other threads wake it.
        return len(self._loop._selector.get_map()) > 1


@contextmanager
def virtual_time(start: float | None = None, *, socket_seconds: float = SOCKET_SECONDS) -> Iterator[None]:
    """Let the running loop's timers fire in their order without waiting for them, however slow the machine is.

    What this process does in its loop or in the loop's threads comes before a later timer. What other processes and
    other threads send may come after it: wait for these in real time.

    `start`: first value of the clock, so that two runs read the same; refused once a timer has been set.
    """
    loop: Any = asyncio.get_running_loop()
    if "run_in_executor" in vars(loop):
        raise RuntimeError("this loop has virtual time already")
    if start is not None and loop._scheduled:
        raise RuntimeError("a timer has been set by another clock: enter virtual time before it, or leave out start")
    clock, own = VirtualClock(loop, start, socket_seconds), vars(loop).get("time")
    loop._selector.select, loop.time, loop.run_in_executor = clock.select, clock.read, clock.run_in_executor
    try:
        yield
    finally:
        del loop._selector.select, loop.time, loop.run_in_executor
        if own is not None:
            loop.time = own


def read_loop_time() -> float:
    """Return the running loop's time: the clock for product code that reads one, in virtual time and across skips."""
    return asyncio.get_running_loop().time()


def skip_seconds(seconds: float) -> None:
    """Move the running loop's clock forward at once; then time passes as before.

    For a limit of real length on another process: the test skips it once the process is where the limit should meet
    it. All timers of the loop that end within these seconds fire, in their order: also a limit on a thread at work.
    Where something else of the loop has such a limit, give the part that is tested a clock of its own.
    """
    loop = asyncio.get_running_loop()
    read = loop.time
    loop.time = lambda: read() + seconds  # type: ignore[method-assign]
