"""Each test here runs on SQLite and on a real PostgreSQL, with a database of its own.

Most databases are copies of one that was migrated once: to migrate takes longer than what most tests do afterwards.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest

from r1plus_registry import migration
from r1plus_registry.database import DatabaseLimits, RegistryDatabase
from r1plus_registry.unit_of_work import RegistryUnitOfWork
from support.registry.postgres import Postgres
from support.registry.servers import cluster, postgresql
from support.registry.sqlite import Sqlite

__all__ = ["cluster", "postgresql"]

BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))
PATIENT = DatabaseLimits(connect=20.0, lock=5.0, statement=60.0)


@pytest.fixture(scope="session")
def sqlite() -> Iterator[Sqlite]:
    """A folder for files."""
    with closing(Sqlite()) as folder:
        yield folder


@pytest.fixture(scope="session", params=BOTH)
def server(request: pytest.FixtureRequest) -> Sqlite | Postgres:
    """Where a test has its database."""
    found: Sqlite | Postgres = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def template(server: Sqlite | Postgres) -> Iterator[str]:
    """The DSN of a database with the newest schema, to be copied."""
    with server.scratch() as dsn:
        with closing(RegistryDatabase(dsn, PATIENT)) as database:
            migration.migrate(database)
        yield dsn


@pytest.fixture
def empty(server: Sqlite | Postgres) -> Iterator[RegistryDatabase]:
    """A database without a schema."""
    with server.scratch() as dsn, closing(RegistryDatabase(dsn, PATIENT)) as database:
        yield database


@pytest.fixture
def dsn(server: Sqlite | Postgres, template: str) -> Iterator[str]:
    """A database with the newest schema."""
    with server.scratch(template) as copy:
        yield copy


@pytest.fixture
def database(dsn: str) -> Iterator[RegistryDatabase]:
    """The database with the newest schema."""
    with closing(RegistryDatabase(dsn, PATIENT)) as opened:
        yield opened


@pytest.fixture
def work(database: RegistryDatabase) -> RegistryUnitOfWork:
    """Units of work on it, at a fixed time."""
    return RegistryUnitOfWork(database, clock=lambda: 1_800_000_000.0)
