"""The threads that read the tenant's data, each read on a snapshot of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Final, TypeVar

from sqlalchemy.engine import Connection

from r1plus_gateway.store.database.database import Database
from r1plus_gateway.store.errors import BusyError, UnavailableError
from r1plus_gateway.store.ledger.ledger import ANSWER_SECONDS

T = TypeVar("T")
_READERS: Final = 2
MOST_READS: Final = 500
"""Reads that run or wait."""
LONG_READ_SECONDS: Final = 600.0
"""Longest verification of the audit log, and longest build of an index."""


class ReadKind(Enum):
    """Which thread reads: each kind of long read has its own, so none waits for one of another kind."""

    SHORT = "short"
    AUDIT = "audit"
    """Verification of the audit log, and reports that go through whole tables."""
    BUILD = "build"
    """An index of a vector store."""
    LARGE_BUILD = "large build"
    """An index that takes seconds."""

    @property
    def is_long(self) -> bool:
        """Whether it may take longer than a request waits for its key."""
        return self is not ReadKind.SHORT


class Readers:
    """A few threads for each kind of read."""

    def __init__(self) -> None:
        self.count = 0
        """Reads that run or wait."""
        self._threads = {
            kind: ThreadPoolExecutor(1 if kind.is_long else _READERS, thread_name_prefix=f"gateway-{kind.value}-reader")
            for kind in ReadKind
        }

    async def read(
        self, database: Database, step: Callable[[Connection], T], kind: ReadKind, on_start: Callable[[], None]
    ) -> T:
        """Run a step on one consistent snapshot, in a thread of its kind. Raises StoreError.

        `on_start` is called in the thread before the snapshot is made.
        """
        seconds = LONG_READ_SECONDS if kind.is_long else ANSWER_SECONDS
        if self.count >= MOST_READS:
            raise BusyError(f"{self.count} reads wait for the tenant's data already")

        def work() -> T:
            on_start()
            with database.transaction(writes=False, is_long=kind.is_long) as connection:
                return step(connection)

        self.count += 1
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads[kind], work)
        except TimeoutError as error:
            raise UnavailableError(f"The tenant's data gave no answer for {seconds:g} s") from error
        finally:
            self.count -= 1

    @contextlib.contextmanager
    def occupy_long(self) -> Iterator[None]:
        """Let no long read run in the block. Waits for those that run."""
        with contextlib.ExitStack() as stack:
            for kind in ReadKind:
                if kind.is_long:
                    stack.enter_context(_occupy(self._threads[kind]))
            yield

    def close(self) -> None:
        """Drop what waits; what runs ends by itself."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _occupy(thread: ThreadPoolExecutor) -> Iterator[None]:
    """Wait until a thread has done what it was given before, and let it do nothing else during the block."""
    is_free, is_over = threading.Event(), threading.Event()

    def wait() -> None:
        is_free.set()
        is_over.wait()

    occupied = thread.submit(wait)
    try:
        while not is_free.wait(1.0):
            if occupied.cancelled():
                raise UnavailableError("The gateway is stopping")
        yield
    finally:
        is_over.set()
