"""How many of one caller's requests may be at something at one time: the others wait, or are refused."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Users:
    semaphore: asyncio.Semaphore
    count: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """How many may wait in one line, and what the next one gets, which is called with that number."""

    most: int
    build_refusal: Callable[[int], Exception]


class Turns:
    """Lines that are there as long as somebody is in them."""

    def __init__(self) -> None:
        self._lines: dict[str, _Users] = {}

    @contextlib.asynccontextmanager
    async def wait(self, name: str, most: int, line: Line | None = None) -> AsyncIterator[None]:
        """Wait until fewer than `most` of this name are within such a block.

        `line`: how many wait at most; the next one raises what it builds. None: any number.
        """
        users = self._lines.setdefault(name, _Users(asyncio.Semaphore(most)))
        if line is not None and users.count >= most + line.most:
            raise line.build_refusal(line.most)
        users.count += 1
        try:
            async with users.semaphore:
                yield
        finally:
            users.count -= 1
            if not users.count:
                del self._lines[name]


class ThreadTurns:
    """Work of callers in threads: a few of all at one time, of each caller one, and callers take turns."""

    def __init__(self, most: int = 1) -> None:
        self._turns = Turns()
        self._running = asyncio.Semaphore(most)

    async def run(self, caller: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns that runs in a thread.

        Nothing stops a thread. So a request that is cancelled meanwhile keeps its turn until its thread has ended: else
        callers that leave would have as many threads as they send requests.
        """
        async with self._turns.wait(caller, 1), self._running:
            work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                while not work.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([work])
                if not work.cancelled():
                    work.exception()  # else it is logged, though nobody waits for it
                raise


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
