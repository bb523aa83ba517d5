"""A thread for what takes minutes: the copy of all data into a backup, and back. One copy at a time.

The event loop only passes bytes on. Owned by `store.tenant`; `store.copies.backup`, `store.copies.restoration` and
`store.keys.root_rotation` give it work.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class CopyRunningError(ValueError):
    """Another backup, a restore or a rotation of the root runs."""


class CopyThread:
    """Runs one copy at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="gateway-copier")
        self._is_busy = False

    async def iterate(self, make: Callable[[], Iterator[bytes]]) -> AsyncGenerator[bytes, None]:
        """Yield what an iterator yields in the thread; it is closed there, whatever happens here.

        Raises:
            CopyRunningError: another copy runs.
        """
        loop = asyncio.get_running_loop()
        with self._occupy():
            pieces = make()
            try:
                while (piece := await loop.run_in_executor(self._threads, next, pieces, None)) is not None:
                    yield piece
            finally:
                await asyncio.shield(loop.run_in_executor(self._threads, _close, pieces))

    async def run(self, work: Callable[[], T]) -> T:
        """Run work in the thread. Raises CopyRunningError, and what the work raises."""
        with self._occupy():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def require_free(self) -> None:
        """Raise CopyRunningError while a copy runs."""
        if self._is_busy:
            raise CopyRunningError("A backup, a restore or a rotation of this tenant's root runs; wait for its end")

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def _occupy(self) -> Iterator[None]:
        self.require_free()
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False


def _close(pieces: Iterator[bytes]) -> None:
    if hasattr(pieces, "close"):
        pieces.close()
