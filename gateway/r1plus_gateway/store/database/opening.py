"""Opening of the tenant's data: halves of the key, key ring, database, schema, and whose data they are.

Each step that fails is an error of its own, with the remedy. Called by `store.tenant`, in a thread.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from sqlalchemy.engine import Connection

from r1plus_contract.remedies import Remedy
from r1plus_gateway.store.database import migration
from r1plus_gateway.store.database.database import (
    DATABASE_FILE,
    Database,
    StoreLimits,
    lock_folder,
    open_file,
    open_url,
)
from r1plus_gateway.store.database.volume_errors import translate_os_error
from r1plus_gateway.store.errors import (
    ConfigError,
    ForeignTenantError,
    FullError,
    KeyLostError,
    SchemaNewerError,
    UnavailableError,
)
from r1plus_gateway.store.keys.adopted_root import open_roots
from r1plus_gateway.store.keys.tenant_keys import (
    RING_FILE,
    KeyRing,
    TenantKeys,
    create_ring,
    decode_ring,
    derive_keys,
    find_roots,
    open_ring,
    promote_pending_root,
    read_halves,
    read_ring,
    write_ring,
)
from r1plus_gateway.store.ledger.repository import MetaName, read_meta, write_meta

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the tenant's data are. With `url` they are in PostgreSQL, and `folder` may be empty."""

    tenant_uid: str
    """UID of the tenant's namespace."""
    secret_folder: Path
    """Where the Secret with half of the tenant key is mounted."""
    folder: Path | None = None
    """The volume: the SQLite database, the key ring and the head of the audit log."""
    url: str = ""
    limits: StoreLimits = field(default_factory=StoreLimits)
    audit_days: float = 400.0
    """How long audit records are kept."""
    content_days: float = 0.0
    """How long conversations and responses are kept; 0: none is stored."""
    has_knowledge: bool = False
    """Whether files and vector stores may be stored."""


@dataclass(frozen=True, slots=True)
class OpenData:
    """The tenant's data, ready for use."""

    database: Database
    keys: TenantKeys
    content_uid: str
    """UID of the tenant that content is bound to: another one where a backup of another cluster was restored."""
    problem: SchemaNewerError | None = None
    """Why the data can only be read; None while they can be written."""
    adopted_root: str = ""
    """The sealed root of a restored backup, or of before a rotation, as table `meta` has it; empty: none."""
    restore_id: str = ""
    """Of the restore that brought it."""


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """What opens the tenant's data together with a half of the Secret: what a keys file carries."""

    ring: str
    adopted_root: str


@dataclass(frozen=True, slots=True)
class _Roots:
    """The ring's roots (`tenant_keys.find_roots`), and what lies sealed under one of them."""

    ring: tuple[bytes, ...] = field(repr=False)
    sealed: str


def read_rotation_name(connection: Connection) -> str:
    """Return the name of the last rotation of data keys that has ended; empty: none has."""
    return read_meta(connection, MetaName.ROTATION) or ""


def open_data(config: StoreConfig) -> OpenData:
    """Open the tenant's data, and make them at the first start. Raises StoreError."""
    if not config.tenant_uid:
        raise ConfigError("The tenant's uid is empty; the operator sets it from the namespace's metadata.uid")
    halves = read_halves(config.secret_folder)
    if config.url:
        return _open_postgresql(config, halves)
    return _open_sqlite(config, get_folder(config), halves)


def refresh_ring(config: StoreConfig, database: Database) -> None:
    """Wrap the root for the halves that the Secret has now; called while the gateway runs. Raises StoreError."""
    _refresh_roots(config, database)


def reopen_keys(config: StoreConfig, data: OpenData) -> OpenData:
    """Return the data with the keys of now, after a restore or a rotation of the root. Raises StoreError."""
    return _apply_roots(config, data.database, _refresh_roots(config, data.database), data.problem)


def has_other_root(data: OpenData) -> bool:
    """Return whether a restore, or a rotation of the root, has changed the keys since. Raises StoreError."""
    with data.database.transaction(writes=False) as connection:
        return (read_meta(connection, MetaName.ADOPTED_ROOT) or "") != data.adopted_root


def settle_root_rotation(config: StoreConfig, database: Database) -> bool:
    """End what a rotation of the root has begun on a volume: forward if the data go by the new root, otherwise back.

    Return whether one came to its end. Raises StoreError: what is left is ended by another call, or the next start.
    """
    folder = get_folder(config)
    with database.ring_lock:
        ring = require_ring(folder)
        if not ring.pending:
            return False
        roots = find_roots(ring, read_halves(config.secret_folder))
        with database.transaction(writes=False) as connection:
            sealed = read_meta(connection, MetaName.ADOPTED_ROOT) or ""
        own = open_roots(roots, sealed, config.tenant_uid, database.name).own
        if own == roots[0]:
            store_ring(folder, ring, replace(ring, pending={}))
            return False
        database.encrypt_again(derive_keys(own))
        database.check_content()  # before the root that could open what is left of before goes
        store_ring(folder, ring, promote_pending_root(ring))
        return True


def read_key_material(config: StoreConfig, connection: Connection) -> KeyMaterial:
    """Return what a keys file carries. Raises StoreError."""
    if config.url:
        text = read_meta(connection, MetaName.KEY_RING)
    else:
        ring = read_ring(get_folder(config) / RING_FILE)
        text = None if ring is None else ring.encode()
    if text is None:
        raise KeyLostError("The key ring is missing, so a backup could not be read. Restore it first")
    return KeyMaterial(text, read_meta(connection, MetaName.ADOPTED_ROOT) or "")


def _refresh_roots(config: StoreConfig, database: Database) -> _Roots:
    halves = read_halves(config.secret_folder)
    if config.url:
        return _open_stored_ring(config, database, halves)
    folder = get_folder(config)
    with database.ring_lock:
        ring = require_ring(folder)
        _, renewed = open_ring(ring, config.tenant_uid, halves)
        store_ring(folder, ring, renewed)
        with database.transaction(writes=False) as connection:
            return _Roots(find_roots(renewed, halves), read_meta(connection, MetaName.ADOPTED_ROOT) or "")


def _apply_roots(config: StoreConfig, database: Database, roots: _Roots, problem: SchemaNewerError | None) -> OpenData:
    found = open_roots(roots.ring, roots.sealed, config.tenant_uid, database.name)
    keys, adopted = found.derive_keys(), found.adopted
    if adopted is None:
        return OpenData(database, keys, config.tenant_uid, problem)
    return OpenData(database, keys, adopted.content_uid, problem, roots.sealed, adopted.restore_id)


def require_ring(folder: Path) -> KeyRing:
    """Return the ring of a volume. Raises KeyLostError, CorruptError."""
    ring = read_ring(folder / RING_FILE)
    if ring is None:
        raise KeyLostError(f"{folder / RING_FILE} is missing", Remedy.RESTORE_RING)
    return ring


def get_folder(config: StoreConfig) -> Path:
    """Return the volume. Raises ConfigError without one."""
    if config.folder is None:
        raise ConfigError(
            "The tenant's data have neither a volume nor a database; set spec.gateway.database of the R1PlusTenant"
        )
    return config.folder


def _open_sqlite(config: StoreConfig, folder: Path, halves: dict[str, bytes]) -> OpenData:
    lock = lock_folder(folder)
    try:
        return _open_locked(config, folder, halves, lock)
    except BaseException:
        lock.close()
        raise


def _open_locked(config: StoreConfig, folder: Path, halves: dict[str, bytes], lock: TextIO) -> OpenData:
    ring = read_ring(folder / RING_FILE)
    if ring is None:
        if (folder / DATABASE_FILE).exists():
            raise KeyLostError(
                f"{folder / RING_FILE} is missing, so {DATABASE_FILE} beside it cannot be read: half of the tenant key"
                " is lost",
                Remedy.RESTORE_RING,
            )
        ring = create_ring(config.tenant_uid, halves)
        store_ring(folder, None, ring)
    _, renewed = open_ring(ring, config.tenant_uid, halves)
    candidates = [derive_keys(root) for root in find_roots(ring, halves)]
    database = open_file(folder, candidates, lock, is_new=not ring.has_database, limits=config.limits)
    try:
        problem = _migrate(database)
        _require_tenant(database, config.tenant_uid, may_write=problem is None)
        store_ring(folder, ring, replace(renewed, has_database=True))
        if problem is None:
            _settle_left_rotation(config, database)
        return _apply_roots(config, database, _refresh_roots(config, database), problem)
    except BaseException:
        database.close()
        raise


def _open_postgresql(config: StoreConfig, halves: dict[str, bytes]) -> OpenData:
    database = open_url(config.url, config.limits)
    try:
        problem = _migrate(database)
        roots = _open_stored_ring(config, database, halves, may_write=problem is None)
        _require_tenant(database, config.tenant_uid, may_write=problem is None)
        return _apply_roots(config, database, roots, problem)
    except BaseException:
        database.close()
        raise


def _settle_left_rotation(config: StoreConfig, database: Database) -> None:
    try:
        if settle_root_rotation(config, database):
            log.info("A rotation of the root that was cut has ended: %s has its new key", database.name)
    except (FullError, UnavailableError) as error:
        log.warning("A rotation of the root has not ended, and the file has its key of before: %s", error)


def _migrate(database: Database) -> SchemaNewerError | None:
    try:
        before, now = migration.migrate(database)
    except SchemaNewerError as error:
        return error
    if before != now:
        log.info("Schema of %s is at %s, was at %s", database.name, now, before or "nothing")
    return None


def _open_stored_ring(
    config: StoreConfig, database: Database, halves: dict[str, bytes], *, may_write: bool = True
) -> _Roots:
    """Open the ring in the database; make it if the database is new."""
    with database.transaction(writes=may_write) as connection:
        text = read_meta(connection, MetaName.KEY_RING)
        if text is None:
            if not may_write or read_meta(connection, MetaName.TENANT) is not None:
                raise KeyLostError(
                    f"{database.name}: the key ring is missing, so keys and audit log cannot be verified."
                    " Restore table meta from a backup of the database"
                )
            ring = create_ring(config.tenant_uid, halves)
        else:
            ring = decode_ring(text, f"{database.name}, table meta")
        _, renewed = open_ring(ring, config.tenant_uid, halves)
        if may_write and (text is None or renewed != ring):
            write_meta(connection, MetaName.KEY_RING, replace(renewed, has_database=True).encode())
        return _Roots(find_roots(ring, halves), read_meta(connection, MetaName.ADOPTED_ROOT) or "")


def _require_tenant(database: Database, tenant_uid: str, *, may_write: bool) -> None:
    with database.transaction(writes=may_write) as connection:
        stored = read_meta(connection, MetaName.TENANT)
        if stored is None and may_write:
            write_meta(connection, MetaName.TENANT, tenant_uid)
        elif stored != tenant_uid:
            raise ForeignTenantError(
                f"{database.name} belongs to tenant {stored}, and this gateway serves {tenant_uid}; nothing was"
                " changed",
                Remedy.USE_OWN_DATA,
            )


def store_ring(folder: Path, before: KeyRing | None, ring: KeyRing) -> None:
    """Write the ring of a volume, unless it is as before. Raises StoreError."""
    if ring == before:
        return
    try:
        write_ring(folder / RING_FILE, ring)
    except OSError as error:
        raise translate_os_error(error, folder / RING_FILE) from error
