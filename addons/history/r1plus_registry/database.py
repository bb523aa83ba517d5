"""One database behind a DSN: SQLite in a file, or PostgreSQL.

Created by `__main__`, used by units of work and migrations.

Every wait has a limit: for a connection, a lock, a statement. Driver errors are translated, without the password.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from r1plus_registry.errors import (
    DatabaseSchemaError,
    DocumentError,
    RegistryConfigError,
    RegistryFullError,
    RegistryUnavailableError,
)

VARIABLE: Final = "R1PLUS_REGISTRY_DSN"
FILE_VARIABLE: Final = "R1PLUS_REGISTRY_DSN_FILE"
DRIVERS: Final = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite+pysqlite"}
SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")
"""Secret parameters that libpq accepts in the DSN's query."""
EXAMPLES: Final = "postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:////data/registry.db"
ENLARGE: Final = "enlarge the volume (chart value registry.storage.size), or PostgreSQL's"
_WRITES = "r1plus_writes"
_DISK_FULL = "53100"
"""SQLSTATE disk_full."""


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """Limits in seconds, except the last two."""

    connect: float = 5.0
    lock: float = 3.0
    statement: float = 5.0
    connections: int = 4
    """Number of connections."""
    room: int = 16 * 2**20
    """Free bytes needed outside SQLite's file: room for its log and a few of the largest deliveries."""


def parse_dsn(dsn: str, variable: str = VARIABLE) -> URL:
    """Parse a DSN into a URL with our driver. Raise ConfigError, which never has the password."""
    try:
        url = make_url(dsn)
    except (ArgumentError, ValueError):
        raise RegistryConfigError(f"{variable}: is not a database URL; expected {EXAMPLES}") from None
    driver = DRIVERS.get(url.drivername, url.drivername)
    if driver not in DRIVERS.values():
        raise RegistryConfigError(
            f"{variable}: {url.drivername!r:.40} is not a supported database; expected {EXAMPLES}"
        )
    if not url.database or url.database == ":memory:":
        raise RegistryConfigError(f"{variable}: has no persistent database; expected {EXAMPLES}")
    return url.set(drivername=driver)


class RegistryDatabase:
    """Connections to one database, and transactions on them."""

    def __init__(self, dsn: str | Path, limits: DatabaseLimits | None = None) -> None:
        """Read `dsn`: a DSN, or a file with one, which may change. Opens no connection. Raises ConfigError."""
        self._source = dsn
        self._variable = FILE_VARIABLE if isinstance(dsn, Path) else VARIABLE
        self._dsn = self._read_dsn()
        self.url = parse_dsn(self._dsn, self._variable)
        self.limits = limits or DatabaseLimits()
        self.engine = _create_engine(self.url, self.limits)

    @property
    def is_outdated(self) -> bool:
        """Whether the file now has another DSN, or none."""
        try:
            return self._read_dsn() != self._dsn
        except RegistryConfigError:
            return True

    def renew(self) -> None:
        """Switch to the DSN that the file has now. Running work ends on the old connections. Raises ConfigError."""
        if (dsn := self._read_dsn()) != self._dsn:
            url, old_engine = parse_dsn(dsn, self._variable), self.engine
            self.engine, self.url, self._dsn = _create_engine(url, self.limits), url, dsn
            old_engine.dispose()

    def _read_dsn(self) -> str:
        if isinstance(self._source, str):
            return self._source
        try:
            return self._source.read_text().strip()
        except OSError as error:
            remedy = "the chart mounts the Secret of registry.database.existingSecret there"
            raise RegistryConfigError(f"{self._variable}: {self._source}: {error.strerror}; {remedy}") from error

    @property
    def name(self) -> str:
        """URL for logs and messages, without the password."""
        return self.url.difference_update_query(SECRETS).render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @contextlib.contextmanager
    def transaction(self, *, writes: bool) -> Iterator[Connection]:
        """Run a transaction. Raise UnavailableError, SchemaError or DocumentError for driver errors."""
        with self.translate_errors(), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: writes})
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate driver errors to RegistryError."""
        try:
            yield
        except PoolTimeoutError as error:
            raise RegistryUnavailableError(
                f"{self.name}: all {self.limits.connections} connections are busy"
            ) from error
        except DBAPIError as error:
            raise self._translate_error(error) from error
        except SQLAlchemyError as error:
            raise RegistryUnavailableError(f"{self.name}: {_get_first_line(error)}") from error

    def require_room(self) -> None:
        """Raise FullError if the volume of the SQLite file lacks room for a delivery; PostgreSQL reports that itself.

        Pruning leaves room within the file, but the log is written first and needs some outside it.
        """
        if not self.is_sqlite:
            return
        folder = Path(self.url.database or "").parent
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise RegistryUnavailableError(f"{self.name}: {error.strerror}: {folder}") from error
        if free < self.limits.room // 2 or free < self.limits.room - self._count_spare_bytes():
            problem = f"the volume is full: {free / 2**20:.1f} MiB free, {self.limits.room / 2**20:g} MiB needed"
            raise RegistryFullError(f"{self.name}: {problem}; {ENLARGE}")

    def _count_spare_bytes(self) -> int:
        """Return the unused bytes within SQLite's file."""
        with self.transaction(writes=False) as connection:
            pages, size = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("freelist_count", "page_size")
            )
        return int(pages) * int(size)

    def _translate_error(self, error: DBAPIError) -> Exception:
        message = f"{self.name}: {_get_first_line(error.orig or error)}"
        is_schema_missing = "no such table" in message or "no such column" in message or "has no column" in message
        if is_schema_missing or (isinstance(error, ProgrammingError) and not self.is_sqlite):
            return DatabaseSchemaError(f"{message}; check that the schema is migrated")
        if _is_full(error.orig):
            return RegistryFullError(f"{message}; {ENLARGE}")
        if isinstance(error, sa.exc.IntegrityError | sa.exc.DataError):
            return DocumentError(message)
        return RegistryUnavailableError(message)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _is_full(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(error, "sqlstate", None) == _DISK_FULL


def _get_first_line(error: object) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _create_engine(url: URL, limits: DatabaseLimits) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _create_sqlite_engine(url, limits)
    engine = sa.create_engine(
        url,
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.connect,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": max(2, int(limits.connect)),
            # Detects a lost peer in seconds instead of the kernel's two hours.
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15000,
            # A connection pooler may give each transaction another connection.
            "prepare_threshold": None,
        },
    )
    timeouts = (
        f"SET LOCAL statement_timeout = {_to_milliseconds(limits.statement)}; SET LOCAL lock_timeout ="
        f" {_to_milliseconds(limits.lock)}"
    )

    @sa.event.listens_for(engine, "begin")
    def set_timeouts(connection: Connection) -> None:
        if _WRITES in connection.get_execution_options():
            connection.exec_driver_sql(timeouts)

    return engine


def _create_sqlite_engine(url: URL, limits: DatabaseLimits) -> Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.connect,
        connect_args={"timeout": limits.lock, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver begins transactions implicitly, and not for schema changes.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer locks at once: after a read it could not get the lock while another one writes.
        writes = connection.get_execution_options().get(_WRITES, True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _to_milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
