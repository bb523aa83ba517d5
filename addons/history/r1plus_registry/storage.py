"""The database as the service sees it: units of work in threads, each with a time limit, and a schema at its newest.

Any driver call may hang (a frozen server still answers its kernel's packets). So a request waits at most
`ANSWER_SECONDS`, abandoned work is not started, and at most `MOST_PENDING` requests wait. There are as many threads as
connections; a hanging thread frees itself in time.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy.engine import Connection

from r1plus_contract.history import Facts
from r1plus_registry import migration
from r1plus_registry.database import RegistryDatabase
from r1plus_registry.errors import (
    DatabaseSchemaError,
    RegistryError,
    RegistryUnavailableError,
)
from r1plus_registry.queries import Reader
from r1plus_registry.shares import SERVICE, Shares
from r1plus_registry.unit_of_work import RegistryUnitOfWork

log = logging.getLogger(__name__)
T = TypeVar("T")
ANSWER_SECONDS: Final = 12.0
MOST_PENDING: Final = 64
"""Requests of users that run or wait."""
MOST_PENDING_OF_USER: Final = 8
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 15.0


class Storage:
    """One database, which `run` prepares and keeps usable."""

    def __init__(self, database: RegistryDatabase) -> None:
        self._database = database
        self._work = RegistryUnitOfWork(database)
        self._threads = ThreadPoolExecutor(database.limits.connections, thread_name_prefix="registry-database")
        self._migrator = ThreadPoolExecutor(1, thread_name_prefix="registry-migration")
        # One thread is left where the requests of one user all wait for the database.
        running_of_user = max(1, database.limits.connections - 1)
        self.shares = Shares(database.name, MOST_PENDING, MOST_PENDING_OF_USER, running_of_user)
        self._needs_preparation = asyncio.Event()
        self._needs_preparation.set()
        self._look: asyncio.Task[str] | None = None
        self.problem = "the database has not been checked yet"
        """Why the database cannot be used now; empty while it can."""

    async def run(self) -> None:
        """Migrate at the start, and again whenever the schema or the DSN changes. Never returns."""
        delay = FIRST_RETRY_SECONDS
        while True:
            await self._needs_preparation.wait()
            try:
                # Limited by the migration's own time-outs.
                old_revision, new_revision = await asyncio.get_running_loop().run_in_executor(
                    self._migrator, self._prepare
                )
            except RegistryError as error:
                self._set_problem(str(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY_SECONDS)
                continue
            delay = FIRST_RETRY_SECONDS
            self._needs_preparation.clear()
            self._set_problem("")
            log.info(
                "Schema of %s is at %s%s", self._database.name, new_revision, f", was at {old_revision or 'nothing'}"
            )

    def _prepare(self) -> tuple[str, str]:
        self._database.renew()
        return migration.migrate(self._database)

    async def record(self, facts: Facts) -> dict[str, int]:
        """Record a delivery completely and return how many facts of each kind were new."""

        def work() -> dict[str, int]:
            self._database.require_room()
            with self._work.open_repository() as repository:
                return repository.record(facts)

        new_counts = await self._submit(work)
        self._set_problem("")  # A successful read does not show this: reads work when the volume is full.
        return new_counts

    async def transact(self, step: Callable[[Connection], T]) -> T:
        """Run `step` in a writing transaction."""

        def work() -> T:
            with self._database.transaction(writes=True) as connection:
                return step(connection)

        return await self._submit(work)

    async def read(self, question: Callable[[Reader], T], user: str = SERVICE) -> T:
        """Run `question` of a user on one consistent snapshot."""

        def work() -> T:
            with self._work.open_reader() as reader:
                return question(reader)

        return await self._submit(work, user)

    async def find_problem(self) -> str:
        """Return why the database cannot be used now; empty if it can. Who asks meanwhile shares the look."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_for_problem())
        return await asyncio.shield(self._look)

    async def _look_for_problem(self) -> str:
        def work() -> None:
            self._database.require_room()
            migration.read_revision(self._database)

        if not self._needs_preparation.is_set():
            try:
                await self._submit(work)
            except RegistryError as error:
                return str(error)
            self._set_problem("")
        return self.problem

    def close(self) -> None:
        """Close the connections; a hanging thread is abandoned."""
        if self._look is not None:
            self._look.cancel()
        for threads in (self._threads, self._migrator):
            threads.shutdown(wait=False, cancel_futures=True)
        self._database.close()

    async def _submit(self, work: Callable[[], T], user: str = SERVICE) -> T:
        if self._database.is_outdated and not self._needs_preparation.is_set():
            self._set_problem("its DSN has changed; connecting to the new one")
            self._needs_preparation.set()
        if self._needs_preparation.is_set():
            raise RegistryUnavailableError(self.problem)
        async with self.shares.take(user):
            return await self._run(work)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._run_bounded(work)
        except DatabaseSchemaError as error:
            self._set_problem(str(error))
            self._needs_preparation.set()
            raise RegistryUnavailableError(str(error)) from error
        except RegistryUnavailableError as error:
            self._set_problem(str(error))
            raise

    async def _run_bounded(self, work: Callable[[], T]) -> T:
        try:
            # The time-out cancels the work if no thread has started it.
            # Not `wait_for`: until Python 3.12 it loses a cancellation if the work has just ended.
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise RegistryUnavailableError(f"{self._database.name}: no answer for {ANSWER_SECONDS:g} s") from error

    def _set_problem(self, problem: str) -> None:
        """Store the problem, and log it if it changed."""
        if problem != self.problem:
            if problem:
                log.warning("Database cannot be used: %s", problem)
            elif self.problem:
                log.info("Database can be used")
            self.problem = problem
