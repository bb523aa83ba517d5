"""Migration of the tenant's schema to the newest revision, at each start of a gateway.

One transaction per migration, and a time-out for every lock and statement: a migration that cannot get its locks
changes nothing. Replicas on one PostgreSQL take turns by an advisory lock; a SQLite file has one user anyway.
A release reads the schema of the release before it, so migrations expand first and contract a release later.
"""

import contextlib
import functools
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
from sqlalchemy.engine import Connection

from r1plus_contract.remedies import Remedy
from r1plus_gateway.store.database.database import Database, to_milliseconds
from r1plus_gateway.store.errors import LockedError, MigrationError, SchemaNewerError, UnavailableError

SCRIPTS: Final = Path(__file__).parent / "migrations"
ADVISORY_LOCK: Final = 0x7231706C757367
"""PostgreSQL advisory lock of the migrator: `r1plusg` in ASCII."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a migration waits: for another migrator, for a table's lock, for one statement."""

    turn: float = 60.0
    lock: float = 5.0
    statement: float = 300.0


@functools.cache
def load_scripts() -> ScriptDirectory:
    """Return the migrations of this program, which are read once."""
    return ScriptDirectory.from_config(_build_config())


def get_head() -> str:
    """Return the newest revision."""
    return str(load_scripts().get_current_head())


def read_revision(database: Database) -> str:
    """Return the revision of the database's schema; empty before the first migration."""
    with database.transaction(writes=False) as connection:
        return read_revision_within(connection)


def read_revision_within(connection: Connection) -> str:
    """Return the revision that a transaction sees; empty before the first migration."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def is_known(revision: str) -> bool:
    """Return whether this program has the revision."""
    return revision in {script.revision for script in load_scripts().walk_revisions()}


def move_within(connection: Connection, revision: str) -> None:
    """Migrate the schema forward or back within a transaction of the caller. Raises CommandError."""
    config = _build_config()
    config.attributes["connection"] = connection
    is_back = revision != get_head()
    (command.downgrade if is_back else command.upgrade)(config, revision)


def require_known(database: Database) -> None:
    """Raise SchemaNewerError if the schema is newer than this program."""
    revision = read_revision(database)
    if revision and not is_known(revision):
        raise SchemaNewerError(
            f"{database.name}: the schema is at {revision}, newer than this gateway, whose newest is {get_head()}."
            " Keys and usage can be read, and no request is served",
            Remedy.RUN_NEWER_GATEWAY,
        )


def migrate(database: Database, patience: Patience | None = None) -> tuple[str, str]:
    """Migrate the schema to the newest revision. Return the revisions before and after; empty: none.

    Raises:
        SchemaNewerError: a newer program migrated it; nothing was changed.
        MigrationError: a lock, a time-out, or a step that failed; nothing was changed.
    """
    patience = patience or Patience()
    with _hold_lock(database, patience):
        require_known(database)
        before = read_revision(database)
        if before == get_head():
            return before, before
        try:
            _run_migration(database, patience)
        except (CommandError, UnavailableError, LockedError) as error:
            raise MigrationError(
                f"{database.name}: the schema stays at {before or 'nothing'}, since its migration failed: {error}."
                " It is tried again; if it fails again, end what holds locks on the tenant's tables"
            ) from error
        return before, read_revision(database)


def _run_migration(database: Database, patience: Patience) -> None:
    with database.translate_errors(), database.engine.connect() as connection:
        if database.is_sqlite:
            # Altering a table copies and drops it. The pragma only works outside a transaction, so on the driver's own
            # connection.
            connection.connection.execute("PRAGMA foreign_keys = OFF")
        else:
            # For the session, since each migration is its own transaction.
            connection.exec_driver_sql(
                f"SET lock_timeout = {to_milliseconds(patience.lock)};"
                f" SET statement_timeout = {to_milliseconds(patience.statement)}"
            )
            connection.commit()
        config = _build_config()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        finally:
            connection.invalidate()  # A session with these settings must not be reused.


def _build_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    return config


@contextlib.contextmanager
def _hold_lock(database: Database, patience: Patience) -> Iterator[None]:
    """Hold the right to migrate; it ends with the process."""
    if database.is_sqlite:
        yield
        return
    with database.translate_errors(), database.engine.connect() as holder, holder.begin():
        holder.exec_driver_sql(f"SET LOCAL lock_timeout = {to_milliseconds(patience.turn)}")
        holder.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        try:
            holder.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        except sa.exc.OperationalError as error:
            raise MigrationError(
                f"{database.name}: another gateway's migration has run for {patience.turn:g} s. It is tried again"
            ) from error
        yield
