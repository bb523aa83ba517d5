"""Brings a database's schema to a revision, forward or back. Called by the service at its start and by `migrate`.

One migrator at a time (an advisory lock; a locked file beside a SQLite database), a transaction per migration, a
time-out for every lock and every statement: a migration that cannot get its locks gives up and leaves what was, and
one that is killed was never there. Who serves meanwhile waits for at most as long as the lock time-out.
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

from r1plus_model_repo.registry.database import Database
from r1plus_model_repo.registry.errors import SchemaError, UnavailableError

SCRIPTS: Final = Path(__file__).parent / "migrations"
HEAD: Final = "head"
BASE: Final = "base"
ADVISORY_LOCK: Final = 0x7231706C7573
"""Of PostgreSQL: `r1plus`. Whoever holds it migrates."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a migration waits: for another migrator, for a table's lock, for one statement."""

    turn: float = 60.0
    lock: float = 5.0
    statement: float = 300.0


def scripts() -> ScriptDirectory:
    """The migrations that this program brings."""
    return ScriptDirectory.from_config(_config())


def head() -> str:
    """The newest of them."""
    return str(scripts().get_current_head())


def current(database: Database) -> str:
    """The revision of the database's schema; empty before the first migration."""
    with database.transaction(writes=False) as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def require_known(database: Database) -> None:
    """Raise SchemaError where the schema is newer than this program."""
    found = current(database)
    if found and found not in {script.revision for script in scripts().walk_revisions()}:
        raise SchemaError(
            f"{database.name}: the schema is at {found}, newer than this program, which knows up to {head()};"
            f" run the newer registry, or let its image `migrate --to {head()}` for the service: docs/registry.md"
        )


def migrate(database: Database, to: str = HEAD, patience: Patience | None = None) -> tuple[str, str]:
    """Bring the schema to `to`, forward or back; returns the revisions before and after, empty for none.

    Raises SchemaError (an unknown revision, a schema from the future) and UnavailableError (a lock, a time-out).
    """
    patience = patience or Patience()
    with _turn(database, patience):
        require_known(database)
        before = current(database)
        try:
            _run(database, before, to, patience)
        except CommandError as error:
            raise SchemaError(f"migrate --to {to}: {error}") from error
        return before, current(database)


def _run(database: Database, before: str, to: str, patience: Patience) -> None:
    backward = to == BASE or to in _passed(before)
    with database.translated(), database.engine.connect() as connection:
        if database.is_sqlite:
            # A table is altered by copying and dropping it, which would take the rows that refer to it along. The
            # pragma is heard outside of a transaction only, so by the driver's own connection.
            connection.connection.execute("PRAGMA foreign_keys = OFF")
        else:
            # Of the session, since each migration is a transaction of its own.
            limits = f"lock_timeout = {_ms(patience.lock)}; SET statement_timeout = {_ms(patience.statement)}"
            connection.exec_driver_sql(f"SET {limits}")
            connection.commit()
        config = _config()
        config.attributes["connection"] = connection
        try:
            (command.downgrade if backward else command.upgrade)(config, to)
        finally:
            connection.invalidate()  # A session with these limits serves nobody else.


def _passed(revision: str) -> set[str]:
    """Revisions that a schema at `revision` has behind it."""
    if not revision:
        return set()
    return {script.revision for script in scripts().iterate_revisions(revision, BASE)}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    return config


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


@contextlib.contextmanager
def _turn(database: Database, patience: Patience) -> Iterator[None]:
    """Hold the right to migrate; it ends with the process, however that ends."""
    if database.is_sqlite:
        with _file_turn(database, patience.turn):
            yield
        return
    with database.translated(), database.engine.connect() as holder, holder.begin():
        holder.exec_driver_sql(f"SET LOCAL lock_timeout = {_ms(patience.turn)}")
        holder.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        try:
            holder.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        except sa.exc.OperationalError as error:
            raise UnavailableError(f"{database.name}: another migration runs since {patience.turn:g} s") from error
        yield


@contextlib.contextmanager
def _file_turn(database: Database, patience: float) -> Iterator[None]:
    path = Path(f"{database.url.database}.migrating")
    deadline = time.monotonic() + patience
    try:
        file = path.open("w")
    except OSError as error:
        raise UnavailableError(f"{database.name}: {error.strerror}: {path}") from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{database.name}: another migration runs since {patience:g} s") from error
                time.sleep(_POLL_SECONDS)
        yield
