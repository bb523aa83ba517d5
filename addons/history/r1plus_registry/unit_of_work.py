"""A unit of work: everything that one request records or reads, in one transaction.

The service creates one per request, in a thread; tests and scripts may use it directly.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from r1plus_registry.database import RegistryDatabase
from r1plus_registry.queries import Reader
from r1plus_registry.repository import FactRepository


@dataclass(frozen=True, slots=True)
class RegistryUnitOfWork:
    """Transactions over one database."""

    database: RegistryDatabase
    clock: Callable[[], float] = time.time

    @contextlib.contextmanager
    def open_repository(self) -> Iterator[FactRepository]:
        """Yield a repository. Commit at the end of the block, or record nothing if it raises."""
        with self.database.transaction(writes=True) as connection:
            yield FactRepository(connection, self.clock)

    @contextlib.contextmanager
    def open_reader(self) -> Iterator[Reader]:
        """Yield a reader of one consistent snapshot."""
        with self._open_snapshot() as connection:
            yield Reader(connection)

    @contextlib.contextmanager
    def _open_snapshot(self) -> Iterator[Connection]:
        with self.database.transaction(writes=False) as connection:
            if not self.database.is_sqlite:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection
