"""How many of one caller's requests may be at something at one time: the others wait, or are refused."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
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


class Places:
    """Requests of each caller that run at one time, within a bound. Others are refused."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def take(self, caller: str, most: int, build_refusal: Callable[[], Exception]) -> Iterator[None]:
        """Hold one of a caller's places for the block. Raises what `build_refusal` makes if `most` are taken."""
        if self._taken[caller] >= most:
            raise build_refusal()
        self._taken[caller] += 1
        try:
            yield
        finally:
            self._taken[caller] -= 1
            if not self._taken[caller]:
                del self._taken[caller]
