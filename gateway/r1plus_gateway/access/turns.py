"""Turns of callers: how many of one caller's requests may be at something at one time, while the others wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(slots=True)
class _Line:
    semaphore: asyncio.Semaphore
    users: int = 0


class Turns:
    """Lines that are there as long as somebody is in them."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    @contextlib.asynccontextmanager
    async def wait(self, name: str, most: int) -> AsyncIterator[None]:
        """Wait until fewer than `most` of this line are within such a block."""
        line = self._lines.setdefault(name, _Line(asyncio.Semaphore(most)))
        line.users += 1
        try:
            async with line.semaphore:
                yield
        finally:
            line.users -= 1
            if not line.users:
                del self._lines[name]
