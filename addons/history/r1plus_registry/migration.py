"""Migration of a database's schema to a revision, up or down. Called by the service at its start and by `migrate`.

Only one migrator runs at a time (an advisory lock; a locked file next to a SQLite database), with one transaction per
migration and a time-out for every lock and statement. A migration that cannot get its locks changes nothing, and a
killed one is rolled back. Requests wait at most for the lock time-out.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from r1plus_registry.database import RegistryDatabase
from r1plus_registry.errors import DatabaseSchemaError, RegistryUnavailableError

SCRIPTS: Final = Path(__file__).parent / "migrations"
HEAD: Final = "head"
BASE: Final = "base"
ADVISORY_LOCK: Final = 0x7231706C7573
"""PostgreSQL advisory lock of the migrator: `r1plus` in ASCII."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class MigrationTimeouts:
    """Seconds that a migration waits: for another migrator, for a table's lock, for one statement."""

    turn: float = 60.0
    lock: float = 5.0
    statement: float = 300.0


def load_scripts() -> ScriptDirectory:
    """Return the migrations of this program."""
    return ScriptDirectory.from_config(_build_config())


def get_head() -> str:
    """Return the newest revision."""
    return str(load_scripts().get_current_head())


def read_revision(database: RegistryDatabase) -> str:
    """Return the revision of the database's schema; empty before the first migration."""
    with database.transaction(writes=False) as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def require_known(database: RegistryDatabase) -> None:
    """Raise SchemaError if the schema is newer than this program."""
    revision = read_revision(database)
    if revision and revision not in {script.revision for script in load_scripts().walk_revisions()}:
        raise DatabaseSchemaError(
            f"{database.name}: the schema is at {revision}, newer than this program, whose newest is {get_head()};"
            f" run the newer registry, or run `migrate --to {get_head()}` with its image: docs/registry.md"
        )


def migrate(database: RegistryDatabase, to: str = HEAD, patience: MigrationTimeouts | None = None) -> tuple[str, str]:
    """Migrate the schema to `to`, up or down. Return the revisions before and after; empty: none.

    Raises:
        SchemaError: an unknown revision, or a schema newer than this program.
        UnavailableError: a lock or a time-out.
    """
    patience = patience or MigrationTimeouts()
    with _hold_lock(database, patience):
        require_known(database)
        before = read_revision(database)
        try:
            _run_migration(database, before, to, patience)
        except CommandError as error:
            raise DatabaseSchemaError(f"migrate --to {to}: {error}") from error
        return before, read_revision(database)


def _run_migration(database: RegistryDatabase, before: str, to: str, patience: MigrationTimeouts) -> None:
    is_downgrade = to == BASE or to in _list_past_revisions(before)
    with database.translate_errors(), database.engine.connect() as connection:
        if database.is_sqlite:
            # Altering a table copies and drops it, which would delete the rows that refer to it. The pragma only works
            # outside a transaction, so on the driver's own connection.
            connection.connection.execute("PRAGMA foreign_keys = OFF")
        else:
            # For the session, since each migration is its own transaction.
            limits = (
                f"lock_timeout = {_to_milliseconds(patience.lock)}; SET statement_timeout ="
                f" {_to_milliseconds(patience.statement)}"
            )
            connection.exec_driver_sql(f"SET {limits}")
            connection.commit()
        config = _build_config()
        config.attributes["connection"] = connection
        try:
            (command.downgrade if is_downgrade else command.upgrade)(config, to)
        finally:
            connection.invalidate()  # A session with these limits must not be reused.


def _list_past_revisions(revision: str) -> set[str]:
    """Return the revisions up to `revision`."""
    if not revision:
        return set()
    return {script.revision for script in load_scripts().iterate_revisions(revision, BASE)}


def _build_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    return config


def _to_milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


@contextlib.contextmanager
def _hold_lock(database: RegistryDatabase, patience: MigrationTimeouts) -> Iterator[None]:
    """Hold the right to migrate; it ends with the process."""
    if database.is_sqlite:
        with _hold_file_lock(database, patience.turn):
            yield
        return
    with database.translate_errors(), database.engine.connect() as holder, holder.begin():
        holder.exec_driver_sql(f"SET LOCAL lock_timeout = {_to_milliseconds(patience.turn)}")
        holder.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        try:
            holder.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        except sa.exc.OperationalError as error:
            raise RegistryUnavailableError(
                f"{database.name}: another migration has run for {patience.turn:g} s; try again later"
            ) from error
        yield


@contextlib.contextmanager
def _hold_file_lock(database: RegistryDatabase, patience: float) -> Iterator[None]:
    path = Path(f"{database.url.database}.migrating")
    deadline = time.monotonic() + patience
    try:
        file = path.open("w")
    except OSError as error:
        raise RegistryUnavailableError(f"{database.name}: {error.strerror}: {path}") from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise RegistryUnavailableError(
                        f"{database.name}: another migration has run for {patience:g} s; try again later"
                    ) from error
                time.sleep(_POLL_SECONDS)
        yield
