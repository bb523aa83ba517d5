"""Copies of a SQLite database to a file and back, while the service runs. PostgreSQL has `pg_dump` and `pg_restore`."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from r1plus_registry import migration
from r1plus_registry.database import RegistryDatabase
from r1plus_registry.errors import RegistryConfigError, RegistryUnavailableError


def back_up(database: RegistryDatabase, to: Path) -> None:
    """Write a consistent copy to `to`, complete or not at all. Raise ConfigError or UnavailableError."""
    part = to.with_name(f"{to.name}.part")
    with _translate_errors(to), contextlib.closing(_open_existing(_get_sqlite_path(database, "pg_dump"))) as live:
        part.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(part)) as copy:
            live.backup(copy)
            # One file, without a separate log.
            copy.execute("PRAGMA journal_mode = DELETE")
        part.replace(to)


def restore(database: RegistryDatabase, source: Path) -> None:
    """Replace the recorded facts by a copy, completely or not at all.

    The service migrates a copy with an older schema at the next request.

    Raises:
        ConfigError: the copy is not a registry.
        UnavailableError: the copy cannot be read.
        SchemaError: the copy is newer than this program.
    """
    path = _get_sqlite_path(database, "pg_restore")
    with contextlib.closing(RegistryDatabase(f"sqlite:///{source.absolute()}")) as copy:
        _require_whole(copy, source)
        migration.require_known(copy)
    with (
        _translate_errors(path),
        contextlib.closing(_open_existing(source)) as backup,
        contextlib.closing(sqlite3.connect(path, timeout=database.limits.lock)) as live,
    ):
        backup.backup(live)


def _require_whole(copy: RegistryDatabase, source: Path) -> None:
    with _translate_errors(source), contextlib.closing(_open_existing(source)) as connection:
        result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise RegistryUnavailableError(f"{source}: is damaged: {result}; nothing was restored")
    if not migration.read_revision(copy):
        raise RegistryConfigError(f"{source}: is not a registry; nothing was restored")


def _get_sqlite_path(database: RegistryDatabase, alternative: str) -> Path:
    if not database.is_sqlite:
        raise RegistryConfigError(f"{database.name}: is not a SQLite file; use {alternative}: docs/registry.md")
    return Path(database.url.database or "")


def _open_existing(path: Path) -> sqlite3.Connection:
    """Open a file that must exist."""
    return sqlite3.connect(f"file:{path.absolute()}?mode=rw", uri=True)


@contextlib.contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise RegistryUnavailableError(f"{path}: {error}") from error
