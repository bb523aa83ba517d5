"""Copies a SQLite database to a file and back, while the service runs. PostgreSQL has `pg_dump` and `pg_restore`."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from r1plus_model_repo.registry import migration
from r1plus_model_repo.registry.database import Database
from r1plus_model_repo.registry.errors import ConfigError, UnavailableError


def back_up(database: Database, to: Path) -> None:
    """Write a consistent copy to `to`, which is whole or not there. Raises ConfigError and UnavailableError."""
    unfinished = to.with_name(f"{to.name}.part")
    with _errors(to), contextlib.closing(_opened(_file(database, "pg_dump"))) as live:
        unfinished.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(unfinished)) as copy:
            live.backup(copy)
            # One file, without a log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        unfinished.replace(to)


def restore(database: Database, source: Path) -> None:
    """Put a copy in the place of what is recorded, all of it or nothing.

    A copy of an older schema is migrated by the service, which notices it at the next request. Raises ConfigError (it
    is no registry), UnavailableError (it cannot be read) and SchemaError (it is newer than this program).
    """
    path = _file(database, "pg_restore")
    with contextlib.closing(Database(f"sqlite:///{source.absolute()}")) as copy:
        _require_whole(copy, source)
        migration.require_known(copy)
    with (
        _errors(path),
        contextlib.closing(_opened(source)) as backup,
        contextlib.closing(sqlite3.connect(path, timeout=database.limits.lock)) as live,
    ):
        backup.backup(live)


def _require_whole(copy: Database, source: Path) -> None:
    with _errors(source), contextlib.closing(_opened(source)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise UnavailableError(f"{source}: is damaged: {found}; nothing was restored")
    if not migration.current(copy):
        raise ConfigError(f"{source}: holds no registry; nothing was restored")


def _file(database: Database, instead: str) -> Path:
    if not database.is_sqlite:
        raise ConfigError(f"{database.name}: is no SQLite file; use {instead}: docs/registry.md")
    return Path(database.url.database or "")


def _opened(path: Path) -> sqlite3.Connection:
    """One that is there."""
    return sqlite3.connect(f"file:{path.absolute()}?mode=rw", uri=True)


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(f"{path}: {error}") from error
