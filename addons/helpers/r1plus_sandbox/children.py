"""A forked process, from the side of its supervisor: it is killed and reaped by its descriptor, never by a number."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import NoReturn


class ForkedChild:
    """A process that was forked to run one function, which does not return."""

    def __init__(self, run: Callable[[], NoReturn]) -> None:
        self.pid = os.fork()
        if not self.pid:
            run()
        self._exit = os.pidfd_open(self.pid)
        self._status: int | None = None

    async def end(self) -> int:
        """Kill it if it still runs; return its exit status, negative for a signal."""
        if self._status is None:
            signal.pidfd_send_signal(self._exit, signal.SIGKILL)  # a zombie takes it without effect
            await self.wait()
        return self._status or 0

    async def wait(self) -> int:
        """Wait until it has ended; return its exit status, negative for a signal."""
        if self._status is not None:
            return self._status
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._exit, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._exit)
        self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])  # noqa: ASYNC222 - it has ended
        os.close(self._exit)
        return self._status
