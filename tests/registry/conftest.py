"""Each test here runs on SQLite and on a real PostgreSQL, with a database of its own."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1plus_model_repo.registry import migrating
from r1plus_model_repo.registry.database import Database, Limits
from r1plus_model_repo.registry.unit_of_work import UnitOfWork
from registry.postgres import Postgres

BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))
PATIENT = Limits(connect=20.0, lock=5.0, statement=60.0)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests that only use it."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture(params=BOTH)
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create(f"t_{uuid.uuid4().hex}")


@pytest.fixture
def empty(dsn: str) -> Iterator[Database]:
    """A database without a schema."""
    made = Database(dsn, PATIENT)
    yield made
    made.close()


@pytest.fixture
def database(empty: Database) -> Database:
    """One with the newest schema."""
    migrating.migrate(empty)
    return empty


@pytest.fixture
def work(database: Database) -> UnitOfWork:
    """Units of work on it, at a fixed time."""
    return UnitOfWork(database, clock=lambda: 1_800_000_000.0)
