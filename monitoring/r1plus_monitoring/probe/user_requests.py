"""How many requests of users the engine runs, for `/verdict`: old pods stay until there is none."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from r1plus_monitoring.probe.client import EngineClient

CACHE_SECONDS: Final = 1.0
WAIT_SECONDS: Final = 0.2
"""Longest wait for the engine's metrics: a gateway waits half a second for the whole report."""


class UserRequests:
    """Counts when it is asked, at most once a second."""

    def __init__(self, engine: EngineClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._count: int | None = None
        self._read_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def count(self) -> int | None:
        """Return the number; None where the engine does not say so in time."""
        if self._clock() - self._read_at > CACHE_SECONDS:
            self._count = None
            self._task = self._task or asyncio.create_task(self._read())
        if self._task is not None:
            await asyncio.wait([self._task], timeout=WAIT_SECONDS)
        return self._count

    async def close(self) -> None:
        """End a count that is under way."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _read(self) -> None:
        try:
            self._count = await self._engine.count_user_requests()
            self._read_at = self._clock()
        finally:
            self._task = None
