"""One database: an encrypted SQLite file, or PostgreSQL. Opened by `store.database.opening`, used by units of work.

Much is as in the registry's `database`. It exists twice because rooms do not import each other, what both may import
does no I/O, and this one has a key, a file of which it is the only user, and errors that name the state of the data.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, RootTransaction, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlcipher3 import dbapi2 as sqlcipher

from r1plus_contract.remedies import Remedy
from r1plus_gateway.store.database.volume_errors import find_lack_of_files, translate_os_error
from r1plus_gateway.store.errors import (
    BusyError,
    ConfigError,
    CorruptError,
    FullError,
    LockedError,
    ReadOnlyError,
    StoreError,
    UnavailableError,
    WrongKeyError,
)
from r1plus_gateway.store.keys.tenant_keys import TenantKeys

DATABASE_FILE: Final = "tenant.db"
LOCK_FILE: Final = "tenant.lock"
DRIVERS: Final = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")
"""Secret parameters that libpq accepts in the URL's query."""
MOST_CHECKED_BYTES: Final = 64 * 2**20
"""A larger file is not read as a whole at start."""
WRITER_LOCK: Final = 0x7231706C757367_01
"""PostgreSQL advisory lock of the writer: replicas take turns, as the chain of audit records asks for anyway."""
_WRITES = "r1plus_writes"
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    # What is deleted is overwritten, and does not wait in a free page.
    "secure_delete = ON",
    # The keeper moves the log into the file; a request does so only if it falls behind by 40 MB.
    "wal_autocheckpoint = 10000",
    "journal_size_limit = 67108864",
)
_COPY_STATEMENT_SECONDS: Final = 300.0
_LOG_OVERHEAD: Final = 1.02
"""Bytes that SQLite's log needs for a byte of the file."""
_FREE_BYTES: Final = 64 * 1024
"""A volume with less counts as full."""


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """StoreLimits in seconds, except the last."""

    connect: float = 5.0
    lock: float = 3.0
    statement: float = 5.0
    connections: int = 8
    """Number of connections: for the writer, two readers, keeper, auditor and copier, and two that build indexes."""


class _FileKey:
    """What new connections open the SQLite file with: another key once it was encrypted again."""

    def __init__(self, keys: TenantKeys) -> None:
        self.replace(keys)

    def replace(self, keys: TenantKeys) -> None:
        """Use the file's key of these keys."""
        self.text = f"\"x'{keys.database_key.hex()}{keys.database_salt.hex()}'\""


class Database:
    """Connections to one database, and transactions on them."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        folder: Path | None,
        limits: StoreLimits,
        lock: TextIO | None,
        file_key: _FileKey | None = None,
    ) -> None:
        """Use `open_file` or `open_url`. `folder`, `lock` and `file_key` are those of a SQLite file."""
        self.engine = engine
        self.name = name
        """For logs and messages, without a secret."""
        self.limits = limits
        self.ring_lock = threading.Lock()
        """Held by who reads the key ring beside the file and may replace it."""
        self._folder = folder
        self._lock = lock
        self._file_key = file_key
        self._long_reads = 0
        self._long_reads_lock = threading.Lock()

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self._folder is not None

    @property
    def has_long_reads(self) -> bool:
        """Whether a long read runs, such as a backup."""
        return self._long_reads > 0

    @contextlib.contextmanager
    def transaction(self, *, writes: bool, is_long: bool = False) -> Iterator[Connection]:
        """Run a transaction: one that writes is the only one, others see one consistent snapshot. Raises StoreError.

        `is_long`: it reads for seconds or hours, and SQLite's log is not emptied meanwhile.
        """
        with self._count_long_read(is_long), self.translate_errors(), self.engine.connect() as plain:
            options: dict[str, Any] = {_WRITES: writes}
            if not writes and not self.is_sqlite:
                options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            connection = plain.execution_options(**options)
            transaction = connection.begin()
            try:
                yield connection
            except BaseException:
                transaction.rollback()
                raise
            self._commit(transaction)

    @contextlib.contextmanager
    def _count_long_read(self, is_long: bool) -> Iterator[None]:
        with self._long_reads_lock:
            self._long_reads += is_long
        try:
            yield
        finally:
            with self._long_reads_lock:
                self._long_reads -= is_long

    def _commit(self, transaction: RootTransaction) -> None:
        try:
            transaction.commit()
        except DBAPIError as error:
            translated = self._translate_error(error.orig or error)
            translated.may_be_written = True
            raise translated from error

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate driver errors to StoreError."""
        try:
            yield
        except PoolTimeoutError as error:
            raise BusyError(f"{self.name}: all {self.limits.connections} connections are busy") from error
        except DBAPIError as error:
            raise self._translate_error(error.orig or error) from error
        except sqlcipher.Error as error:
            raise self._translate_error(error) from error
        except SQLAlchemyError as error:
            raise UnavailableError(f"{self.name}: {_get_first_line(error)}") from error

    def allow_long_statements(self, connection: Connection) -> None:
        """Let this transaction's statements, and its waits for a client, take longer than a request's."""
        if not self.is_sqlite:
            connection.exec_driver_sql(
                f"SET LOCAL statement_timeout = {to_milliseconds(_COPY_STATEMENT_SECONDS)};"
                " SET LOCAL idle_in_transaction_session_timeout = 0"
            )

    def checkpoint(self) -> None:
        """Move SQLite's log into its file, so that no request has to. Raises StoreError."""
        if self.is_sqlite:
            with self.translate_errors(), self.engine.connect() as connection:
                # On the driver's own connection: SQLAlchemy would begin a transaction first.
                connection.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def empty_log(self) -> None:
        """Move SQLite's log into its file and cut it to nothing, so that no deleted row is left in it.

        It waits for nobody, since it has SQLite's only place for writers meanwhile.
        Raises StoreError; BusyError while a reader or a writer needs the log.
        """
        if not self.is_sqlite:
            return
        if self.has_long_reads:
            raise BusyError(f"{self.name}: a long read needs the log, so it could not be emptied")
        with self.translate_errors(), self.engine.connect() as connection:
            driver = connection.connection
            driver.execute("PRAGMA busy_timeout = 0")
            try:
                is_busy = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                driver.execute(f"PRAGMA busy_timeout = {to_milliseconds(self.limits.lock)}")
        if is_busy:
            raise BusyError(f"{self.name}: a reader needs the log, so it could not be emptied")

    def encrypt_again(self, keys: TenantKeys) -> None:
        """Encrypt the SQLite file with the file's key of these keys, unless it is, and leave nothing of the key before.

        All connections are taken first, so other transactions end before, or wait. It is one transaction of SQLite's
        log, which is then moved into the file and cut.

        Raises StoreError: the log may have it under the new key, or nothing was changed. Another call goes on.
        FullError: the volume has no room for a second copy, which the log becomes.
        """
        assert self._file_key is not None, "no file"
        after = _FileKey(keys)
        self.require_room()
        with self.translate_errors(), contextlib.ExitStack() as stack:
            taken = [stack.enter_context(self.engine.connect()) for _ in range(self.limits.connections)]
            try:
                # On the driver's own connection: inside a transaction the key cannot be changed.
                driver = taken[0].connection
                if after.text != self._file_key.text:
                    driver.execute(f"PRAGMA rekey = {after.text}")
                    self._require_key(after)  # The pragma says ok also where it failed, and has changed nothing.
                    self._file_key.replace(keys)
                if driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    raise BusyError(f"{self.name}: a reader needs the log, so it could not be emptied")
            finally:
                for connection in taken:
                    connection.invalidate()  # Each has the key of before.

    def require_room(self) -> None:
        """Raise FullError if the SQLite file could not be encrypted again."""
        assert self._folder is not None, "no file"
        try:
            size, status = (self._folder / DATABASE_FILE).stat().st_size, os.statvfs(self._folder)
        except OSError as error:
            raise translate_os_error(error, self._folder) from error
        free, needed = status.f_bavail * status.f_frsize, int(size * _LOG_OVERHEAD) + _FREE_BYTES
        if free < needed:
            raise FullError(
                f"{self.name}: to be encrypted again it needs {needed >> 20} MiB of room, and the volume has"
                f" {free >> 20} MiB",
                Remedy.ENLARGE_VOLUME,
            )

    def _require_key(self, file_key: _FileKey) -> None:
        try:
            connection = _connect(Path(self.name), file_key, self.limits)
        except sqlcipher.Error as error:
            raise UnavailableError(
                f"{self.name} could not be encrypted again, and has its key of before. See whether the volume has room,"
                " and is healthy"
            ) from error
        connection.close()

    def check_content(self, most_bytes: int | None = None) -> None:
        """Read the first page of a file, and each page unless it is larger than `most_bytes`. Raises StoreError."""
        if self._folder is None:
            return
        path = self._folder / DATABASE_FILE
        with self.translate_errors(), self.engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            if most_bytes is None or path.stat().st_size <= most_bytes:
                found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
                if found != "ok":
                    raise CorruptError(f"{path} is damaged: {_get_first_line(found)}", Remedy.RESTORE_BACKUP)

    def close(self) -> None:
        """Close all connections, and let go of the file."""
        self.engine.dispose()
        if self._lock is not None:
            self._lock.close()

    def _translate_error(self, error: BaseException) -> StoreError:
        text = f"{self.name}: {_get_first_line(error)}"
        if self._folder is not None:
            return _translate_sqlite_error(error, text, self._folder)
        state = getattr(error, "sqlstate", None)
        if state == "53100":  # disk_full
            return FullError(text, Remedy.ENLARGE_VOLUME)
        if state == "25006":  # read_only_sql_transaction
            return ReadOnlyError(f"{text}. The server takes no writes: connect to the primary")
        return UnavailableError(text)


def lock_folder(folder: Path) -> TextIO:
    """Become the only user of the folder until the returned file is closed, or the process ends.

    Raises:
        LockedError: another process uses it.
        ReadOnlyError, FullError, ConfigError: of the volume.
    """
    path = folder / LOCK_FILE
    try:
        file = path.open("a")
    except OSError as error:
        raise translate_os_error(error, folder) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LockedError(
            f"{folder}: another gateway uses the tenant's data. It ends within its grace period; if it does not",
            Remedy.END_OTHER_GATEWAY,
        ) from error
    return file


def open_file(
    folder: Path, candidates: Sequence[TenantKeys], lock: TextIO, *, is_new: bool, limits: StoreLimits | None = None
) -> Database:
    """Open the encrypted file in `folder`, or create it if it is new. The database owns the lock from then on.

    There is more than one candidate after a rotation of the root that was cut: its end is in SQLite's log, or is not.

    Raises:
        WrongKeyError: it was made with none of these keys.
        CorruptError: it is damaged, cut, or missing although it is not new.
        ReadOnlyError, FullError: of the volume.
    """
    limits, path = limits or StoreLimits(), folder / DATABASE_FILE
    _check_header(path, candidates, is_new=is_new)
    problem: CorruptError | None = None
    for keys in candidates:
        file_key = _FileKey(keys)
        database = Database(_create_sqlite_engine(path, file_key, limits), str(path), folder, limits, lock, file_key)
        try:
            database.check_content(MOST_CHECKED_BYTES)
        except CorruptError as error:
            database.engine.dispose()
            problem = problem or error
        except BaseException:
            database.engine.dispose()
            raise
        else:
            return database
    assert problem is not None
    raise problem


def open_url(url: str, limits: StoreLimits | None = None) -> Database:
    """Return the PostgreSQL database of a URL; opens no connection. Raises ConfigError, which has no password."""
    limits, parsed = limits or StoreLimits(), parse_url(url)
    name = parsed.difference_update_query(SECRETS).render_as_string(hide_password=True)
    return Database(_create_postgresql_engine(parsed, limits), name, None, limits, None)


def parse_url(text: str) -> URL:
    """Parse a URL into one with our driver. Raises ConfigError, which never has the password."""
    example = "expected postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(f"The tenant's database is not a URL; {example}") from None
    driver = DRIVERS.get(url.drivername, url.drivername)
    if driver not in DRIVERS.values() or not url.database:
        raise ConfigError(f"The tenant's database {url.drivername!r:.40} is not supported, or has no name; {example}")
    return url.set(drivername=driver)


def _check_header(path: Path, candidates: Sequence[TenantKeys], *, is_new: bool) -> None:
    length = len(candidates[0].database_salt)
    try:
        with path.open("rb") as file:
            salt = file.read(length)
    except FileNotFoundError:
        salt = b""
    except OSError as error:
        raise translate_os_error(error, path.parent) from error
    if not salt and is_new:
        return
    if len(salt) < length:
        problem = "is cut" if path.exists() else "is missing"
        raise CorruptError(f"{path} {problem}: keys, budgets and usage are lost", Remedy.RESTORE_BACKUP)
    if salt not in [keys.database_salt for keys in candidates]:
        raise WrongKeyError(
            f"{path} was not made with this tenant's key: the file was replaced, or its key ring was",
            Remedy.RESTORE_FILE_AND_RING,
        )


def _create_sqlite_engine(path: Path, file_key: _FileKey, limits: StoreLimits) -> Engine:
    engine = sa.create_engine(
        "sqlite+pysqlite://",
        module=sqlcipher,
        creator=lambda: _connect(path, file_key, limits),
        poolclass=sa.pool.QueuePool,
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.connect,
    )

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _connect(path: Path, file_key: _FileKey, limits: StoreLimits) -> Any:
    connection = sqlcipher.connect(str(path), timeout=limits.lock, check_same_thread=False)
    try:
        # The driver begins transactions implicitly, and not for schema changes.
        connection.isolation_level = None
        # What SQLCipher logs goes to stderr in a form of its own; errors reach us as exceptions.
        connection.execute("PRAGMA cipher_log_level = NONE")
        connection.execute(f"PRAGMA key = {file_key.text}")
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _create_postgresql_engine(url: URL, limits: StoreLimits) -> Engine:
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
        f"SET LOCAL statement_timeout = {to_milliseconds(limits.statement)};"
        f" SET LOCAL lock_timeout = {to_milliseconds(limits.lock)}"
    )

    @sa.event.listens_for(engine, "begin")
    def prepare(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        if writes is not None:
            # One exchange with the server: each costs more than what it does.
            lock = f"; SELECT pg_advisory_xact_lock({WRITER_LOCK})" if writes else ""
            connection.exec_driver_sql(f"{timeouts}{lock}")

    return engine


def _translate_sqlite_error(error: BaseException, text: str, folder: Path) -> StoreError:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlcipher.SQLITE_CANTOPEN, sqlcipher.SQLITE_IOERR) and (lack := find_lack_of_files(folder)):
        return lack
    if code == sqlcipher.SQLITE_FULL or (code == sqlcipher.SQLITE_IOERR and _is_volume_full(folder)):
        return FullError(text, Remedy.ENLARGE_VOLUME)
    if code in (sqlcipher.SQLITE_NOTADB, sqlcipher.SQLITE_CORRUPT):
        return CorruptError(text, Remedy.RESTORE_BACKUP)
    if code in (sqlcipher.SQLITE_READONLY, sqlcipher.SQLITE_PERM, sqlcipher.SQLITE_CANTOPEN):
        return ReadOnlyError(text, Remedy.ALLOW_WRITES)
    if code in (sqlcipher.SQLITE_BUSY, sqlcipher.SQLITE_LOCKED):
        return LockedError(f"{text}. Another program has the file open: end it")
    return UnavailableError(text)


def _is_volume_full(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < _FREE_BYTES


def _get_first_line(error: object) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def to_milliseconds(seconds: float) -> int:
    """Return whole milliseconds, at least one: for PostgreSQL zero means no limit."""
    return max(1, int(seconds * 1000))
