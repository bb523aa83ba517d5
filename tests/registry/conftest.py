"""Each test here runs on SQLite and on a real PostgreSQL, with a database of its own.

Most databases are copies of one that was migrated once: to migrate takes longer than what most tests do afterwards.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from r1plus_model_repo.registry import migrating
from r1plus_model_repo.registry.database import Database, Limits
from r1plus_model_repo.registry.unit_of_work import UnitOfWork
from support.registry.postgres import Cluster, Postgres

BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))
PATIENT = Limits(connect=20.0, lock=5.0, statement=60.0)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The files of a new server, which each server starts from."""
    with closing(Cluster()) as files:
        yield files


@pytest.fixture(scope="session")
def postgres(cluster: Cluster) -> Iterator[Postgres]:
    """One server for all tests that only use it."""
    with closing(Postgres(cluster)) as server:
        server.start()
        yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> Iterator[str]:
    """A database of that server with the newest schema."""
    with postgres.scratch() as name:
        _migrate(postgres.dsn(name))
        yield name


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the newest schema."""
    path = tmp_path_factory.mktemp("migrated") / "registry.db"
    _migrate(f"sqlite:///{path}")
    return path


def _migrate(dsn: str) -> None:
    with closing(Database(dsn, PATIENT)) as database:
        migrating.migrate(database)


@pytest.fixture(params=BOTH)
def dialect(request: pytest.FixtureRequest) -> str:
    """Which kind of database a test runs on."""
    return str(request.param)


@pytest.fixture
def empty(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without a schema."""
    if dialect == "sqlite":
        with closing(Database(f"sqlite:///{tmp_path / 'registry.db'}", PATIENT)) as opened:
            yield opened
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.scratch() as name, closing(Database(server.dsn(name), PATIENT)) as opened:
        yield opened


@pytest.fixture
def dsn(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with the newest schema."""
    if dialect == "sqlite":
        yield f"sqlite:///{shutil.copy(request.getfixturevalue('file'), tmp_path / 'registry.db')}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.scratch(request.getfixturevalue("template")) as name:
        yield server.dsn(name)


@pytest.fixture
def database(dsn: str) -> Iterator[Database]:
    """The database with the newest schema."""
    with closing(Database(dsn, PATIENT)) as opened:
        yield opened


@pytest.fixture
def work(database: Database) -> UnitOfWork:
    """Units of work on it, at a fixed time."""
    return UnitOfWork(database, clock=lambda: 1_800_000_000.0)
