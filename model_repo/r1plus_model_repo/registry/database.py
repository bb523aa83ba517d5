"""One database behind a DSN: SQLite in a file, or PostgreSQL. Made by `__main__`, used by units of work and migrations.

Every wait is bounded: for a connection, for a lock, for a statement. What the driver raises leaves here as one of our
errors, without the password.
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

from r1plus_model_repo.registry.errors import ConfigError, DocumentError, FullError, SchemaError, UnavailableError

VARIABLE: Final = "R1PLUS_REGISTRY_DSN"
FILE_VARIABLE: Final = "R1PLUS_REGISTRY_DSN_FILE"
DRIVERS: Final = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite+pysqlite"}
SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")
"""What libpq also takes in the DSN's query, and nobody shall read."""
EXAMPLES: Final = "postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:////data/registry.db"
ENLARGE: Final = "enlarge the volume (chart value registry.storage.size), or PostgreSQL's"
_WRITES = "r1plus_writes"
_DISK_FULL = "53100"
"""SQLSTATE disk_full."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, but for the last two."""

    connect: float = 5.0
    lock: float = 3.0
    statement: float = 5.0
    connections: int = 4
    """At most, at once."""
    room: int = 16 * 2**20
    """Bytes that are to be free beside SQLite's file: its log and its tables take a few of the largest deliveries."""


def parse(dsn: str, variable: str = VARIABLE) -> URL:
    """The DSN as a URL with the driver of ours; raises ConfigError, which never shows the password."""
    try:
        url = make_url(dsn)
    except (ArgumentError, ValueError):
        raise ConfigError(f"{variable}: is no database URL; expected {EXAMPLES}") from None
    driver = DRIVERS.get(url.drivername, url.drivername)
    if driver not in DRIVERS.values():
        raise ConfigError(f"{variable}: {url.drivername!r:.40} is no database of the registry; expected {EXAMPLES}")
    if not url.database or url.database == ":memory:":
        raise ConfigError(f"{variable}: names no database that would last; expected {EXAMPLES}")
    return url.set(drivername=driver)


class Database:
    """Connections to one database, and transactions on them."""

    def __init__(self, dsn: str | Path, limits: Limits | None = None) -> None:
        """`dsn`: a DSN, or the file that holds one and may change. Connects to nothing yet. Raises ConfigError."""
        self._source = dsn
        self._variable = FILE_VARIABLE if isinstance(dsn, Path) else VARIABLE
        self._dsn = self._read()
        self.url = parse(self._dsn, self._variable)
        self.limits = limits or Limits()
        self.engine = _engine(self.url, self.limits)

    @property
    def is_outdated(self) -> bool:
        """Whether the file holds another DSN by now, or none."""
        try:
            return self._read() != self._dsn
        except ConfigError:
            return True

    def renew(self) -> None:
        """Take the DSN that the file holds now. What runs on old connections ends on them. Raises ConfigError."""
        if (dsn := self._read()) != self._dsn:
            url, before = parse(dsn, self._variable), self.engine
            self.engine, self.url, self._dsn = _engine(url, self.limits), url, dsn
            before.dispose()

    def _read(self) -> str:
        if isinstance(self._source, str):
            return self._source
        try:
            return self._source.read_text().strip()
        except OSError as error:
            there = "the chart mounts the Secret of registry.database.existingSecret there"
            raise ConfigError(f"{self._variable}: {self._source}: {error.strerror}; {there}") from error

    @property
    def name(self) -> str:
        """For logs and messages: without the password."""
        return self.url.difference_update_query(SECRETS).render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self.url.get_backend_name() == "sqlite"

    @contextlib.contextmanager
    def transaction(self, *, writes: bool) -> Iterator[Connection]:
        """All or nothing; raises UnavailableError, SchemaError or DocumentError for what the driver says."""
        with self.translated(), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: writes})
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """What the driver raises, as an error of ours."""
        try:
            yield
        except PoolTimeoutError as error:
            raise UnavailableError(f"{self.name}: all {self.limits.connections} connections are busy") from error
        except DBAPIError as error:
            raise self._error_for(error) from error
        except SQLAlchemyError as error:
            raise UnavailableError(f"{self.name}: {_first_line(error)}") from error

    def require_room(self) -> None:
        """Raise FullError where the file's volume has less room than a delivery may take; PostgreSQL says so itself.

        What was pruned leaves room within the file, but the log that is written first needs some beside it.
        """
        if not self.is_sqlite:
            return
        folder = Path(self.url.database or "").parent
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise UnavailableError(f"{self.name}: {error.strerror}: {folder}") from error
        if free < self.limits.room // 2 or free < self.limits.room - self._spare_bytes():
            said = f"the volume is full: {free / 2**20:.1f} MiB are free, {self.limits.room / 2**20:g} needed"
            raise FullError(f"{self.name}: {said}; {ENLARGE}")

    def _spare_bytes(self) -> int:
        """Bytes within SQLite's file that hold nothing any more."""
        with self.transaction(writes=False) as connection:
            pages, size = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("freelist_count", "page_size")
            )
        return int(pages) * int(size)

    def _error_for(self, error: DBAPIError) -> Exception:
        said = f"{self.name}: {_first_line(error.orig or error)}"
        missing = "no such table" in said or "no such column" in said or "has no column" in said
        if missing or (isinstance(error, ProgrammingError) and not self.is_sqlite):
            return SchemaError(f"{said}; has the schema been migrated?")
        if _is_full(error.orig):
            return FullError(f"{said}; {ENLARGE}")
        if isinstance(error, sa.exc.IntegrityError | sa.exc.DataError):
            return DocumentError(said)
        return UnavailableError(said)

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


def _is_full(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(error, "sqlstate", None) == _DISK_FULL


def _first_line(error: object) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _engine(url: URL, limits: Limits) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, limits)
    engine = sa.create_engine(
        url,
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.connect,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": max(2, int(limits.connect)),
            # A peer that vanished without a word is noticed in seconds, not after the kernel's two hours.
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15000,
            # A pooler between us and the server may give each transaction another connection.
            "prepare_threshold": None,
        },
    )
    bounds = f"SET LOCAL statement_timeout = {_ms(limits.statement)}; SET LOCAL lock_timeout = {_ms(limits.lock)}"

    @sa.event.listens_for(engine, "begin")
    def bound(connection: Connection) -> None:
        if _WRITES in connection.get_execution_options():
            connection.exec_driver_sql(bounds)

    return engine


def _sqlite(url: URL, limits: Limits) -> Engine:
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
        # The driver would begin transactions by guesswork, and none for a change of the schema.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes its lock at once: one that read first could not get it any more while another writes.
        writes = connection.get_execution_options().get(_WRITES, True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
