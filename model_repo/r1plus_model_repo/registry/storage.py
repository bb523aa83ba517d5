"""The database as the service sees it: units of work in threads, each with an end, and a schema kept at its newest.

Everything that the driver does may hang (a frozen server still answers its kernel's packets), so nobody waits for a
thread for longer than `ANSWER_SECONDS`, what nobody waits for any more is not begun, and no more than `MOST_ASKED` wait
at all; there are as many threads as connections, and what hung frees itself in time.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy.engine import Connection

from r1plus_contract.history import Facts
from r1plus_model_repo.registry import migration
from r1plus_model_repo.registry.database import Database
from r1plus_model_repo.registry.errors import BusyError, RegistryError, SchemaError, UnavailableError
from r1plus_model_repo.registry.queries import Reader
from r1plus_model_repo.registry.unit_of_work import UnitOfWork

log = logging.getLogger(__name__)
T = TypeVar("T")
ANSWER_SECONDS: Final = 12.0
MOST_ASKED: Final = 32
"""Requests that the database works at or that wait for their turn."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 15.0


class Storage:
    """One database, made ready and kept so by `run`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._work = UnitOfWork(database)
        self._threads = ThreadPoolExecutor(database.limits.connections, thread_name_prefix="registry-database")
        self._migrator = ThreadPoolExecutor(1, thread_name_prefix="registry-migration")
        self._asked = 0
        self._spoilt = asyncio.Event()
        self._spoilt.set()
        self.problem = "the database has not been asked yet"
        """Why nothing can be recorded or read now; empty while it can."""

    async def run(self) -> None:
        """Migrate at the start, and again whenever the schema or the DSN proves to be another one. For ever."""
        delay = FIRST_RETRY_SECONDS
        while True:
            await self._spoilt.wait()
            try:
                # Bounded by the migration's own time-outs.
                before, now = await asyncio.get_running_loop().run_in_executor(self._migrator, self._prepare)
            except RegistryError as error:
                self._tell(str(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY_SECONDS)
                continue
            delay = FIRST_RETRY_SECONDS
            self._spoilt.clear()
            self._tell("")
            log.info("Schema of %s is at %s%s", self._database.name, now, f", was at {before or 'nothing'}")

    def _prepare(self) -> tuple[str, str]:
        self._database.renew()
        return migration.migrate(self._database)

    async def record(self, facts: Facts) -> dict[str, int]:
        """Record a delivery whole; how many facts of each kind were new."""

        def work() -> dict[str, int]:
            self._database.require_room()
            with self._work.recording() as repository:
                return repository.record(facts)

        recorded = await self._ask(work)
        self._tell("")  # Which a read that succeeds does not say: those go on when the volume is full.
        return recorded

    async def change(self, step: Callable[[Connection], T]) -> T:
        """One transaction that is no delivery."""

        def work() -> T:
            with self._database.transaction(writes=True) as connection:
                return step(connection)

        return await self._ask(work)

    async def read(self, question: Callable[[Reader], T]) -> T:
        """What one look answers."""

        def work() -> T:
            with self._work.reading() as reader:
                return question(reader)

        return await self._ask(work)

    async def check(self) -> str:
        """Why it cannot be used now; empty where it can."""

        def work() -> None:
            self._database.require_room()
            migration.current(self._database)

        if not self._spoilt.is_set():
            try:
                await self._ask(work)
            except RegistryError as error:
                return str(error)
            self._tell("")
        return self.problem

    def close(self) -> None:
        """Let go of the connections; a thread that hangs is left behind."""
        for threads in (self._threads, self._migrator):
            threads.shutdown(wait=False, cancel_futures=True)
        self._database.close()

    async def _ask(self, work: Callable[[], T]) -> T:
        if self._database.is_outdated and not self._spoilt.is_set():
            self._tell("its DSN has changed, and the new one is tried")
            self._spoilt.set()
        if self._spoilt.is_set():
            raise UnavailableError(self.problem)
        if self._asked >= MOST_ASKED:
            raise BusyError(f"{self._database.name}: {self._asked} requests wait for it already")
        try:
            return await self._answer(work)
        except SchemaError as error:
            self._tell(str(error))
            self._spoilt.set()
            raise UnavailableError(str(error)) from error
        except UnavailableError as error:
            self._tell(str(error))
            raise

    async def _answer(self, work: Callable[[], T]) -> T:
        self._asked += 1
        try:
            # Its end cancels the work, which is heard where no thread has begun with it.
            # No `wait_for`: until Python 3.12 it forgets that it was cancelled where the work has just ended.
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise UnavailableError(f"{self._database.name}: no answer for {ANSWER_SECONDS:g} s") from error
        finally:
            self._asked -= 1

    def _tell(self, problem: str) -> None:
        """Remember it, and log it when it is another one."""
        if problem != self.problem:
            if problem:
                log.warning("Database cannot be used: %s", problem)
            elif self.problem:
                log.info("Database can be used")
            self.problem = problem
