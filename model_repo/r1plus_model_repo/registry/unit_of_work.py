"""A unit of work: everything that one request records or reads, in one transaction.

The service makes one per request, in a thread; tests and scripts may use it as it is.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from r1plus_model_repo.registry.database import Database
from r1plus_model_repo.registry.queries import Reader
from r1plus_model_repo.registry.repository import FactRepository


@dataclass(frozen=True, slots=True)
class UnitOfWork:
    """Opens transactions over one database."""

    database: Database
    clock: Callable[[], float] = time.time

    @contextlib.contextmanager
    def recording(self) -> Iterator[FactRepository]:
        """Commits at the end of the block, unless something was raised in it: then nothing of it is recorded."""
        with self.database.transaction(writes=True) as connection:
            yield FactRepository(connection, self.clock)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """One consistent look."""
        with self._consistent() as connection:
            yield Reader(connection)

    @contextlib.contextmanager
    def _consistent(self) -> Iterator[Connection]:
        with self.database.transaction(writes=False) as connection:
            if not self.database.is_sqlite:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection
