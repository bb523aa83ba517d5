"""Opening of the tenant's data: halves of the key, key ring, database, schema, and whose data they are.

Each step that fails is an error of its own, with the remedy. Called by `store.tenant`, in a thread.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store import migration
from r1plus_gateway.store import tables as t
from r1plus_gateway.store.adopted_root import open_adopted_root
from r1plus_gateway.store.database import (
    DATABASE_FILE,
    Database,
    StoreLimits,
    lock_folder,
    open_file,
    open_url,
    translate_os_error,
)
from r1plus_gateway.store.errors import (
    ConfigError,
    ForeignTenantError,
    KeyLostError,
    SchemaNewerError,
)
from r1plus_gateway.store.repository import MetaName, write_meta
from r1plus_gateway.store.tenant_keys import (
    RING_FILE,
    KeyRing,
    TenantKeys,
    create_ring,
    decode_ring,
    open_ring,
    read_halves,
    read_ring,
    write_ring,
)

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
    """The sealed root that came with a restored backup, as table `meta` has it; empty: none."""
    restore_id: str = ""
    """Of the restore that brought it."""


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """What opens the tenant's data together with a half of the Secret: what a keys file carries."""

    ring: str
    adopted_root: str


def read_rotation_name(connection: Connection) -> str:
    """Return the name of the last rotation of data keys that has ended; empty: none has."""
    return _read_meta(connection, MetaName.ROTATION) or ""


def open_data(config: StoreConfig) -> OpenData:
    """Open the tenant's data, and make them at the first start. Raises StoreError."""
    if not config.tenant_uid:
        raise ConfigError("The tenant's uid is empty; the operator sets it from the namespace's metadata.uid")
    halves = read_halves(config.secret_folder)
    if config.url:
        return _open_postgresql(config, halves)
    return _open_sqlite(config, _get_folder(config), halves)


def refresh_ring(config: StoreConfig, database: Database) -> None:
    """Wrap the root for the halves that the Secret has now; called while the gateway runs. Raises StoreError."""
    _refresh_own_keys(config, database)


def reopen_keys(config: StoreConfig, data: OpenData) -> OpenData:
    """Return the data with the keys that they have now, after another replica restored a backup. Raises StoreError."""
    return _apply_adopted_root(config, data.database, _refresh_own_keys(config, data.database), data.problem)


def read_key_material(config: StoreConfig, connection: Connection) -> KeyMaterial:
    """Return what a keys file carries. Raises StoreError."""
    if config.url:
        text = _read_meta(connection, MetaName.KEY_RING)
    else:
        ring = read_ring(_get_folder(config) / RING_FILE)
        text = None if ring is None else ring.encode()
    if text is None:
        raise KeyLostError("The key ring is missing, so a backup could not be read. Restore it first")
    return KeyMaterial(text, _read_meta(connection, MetaName.ADOPTED_ROOT) or "")


def _refresh_own_keys(config: StoreConfig, database: Database) -> TenantKeys:
    halves = read_halves(config.secret_folder)
    if config.url:
        return _open_stored_ring(config, database, halves)
    folder = _get_folder(config)
    ring = read_ring(folder / RING_FILE)
    if ring is None:
        raise KeyLostError(f"{folder / RING_FILE} is missing. Restore the file from a backup of the volume")
    keys, renewed = open_ring(ring, config.tenant_uid, halves)
    _store_ring(folder, ring, renewed)
    return keys


def _apply_adopted_root(
    config: StoreConfig, database: Database, own: TenantKeys, problem: SchemaNewerError | None
) -> OpenData:
    with database.transaction(writes=False) as connection:
        text = _read_meta(connection, MetaName.ADOPTED_ROOT)
    if text is None:
        return OpenData(database, own, config.tenant_uid, problem)
    adopted = open_adopted_root(text, own, config.tenant_uid, database.name)
    return OpenData(database, adopted.derive_keys(own), adopted.content_uid, problem, text, adopted.restore_id)


def _get_folder(config: StoreConfig) -> Path:
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
                " is lost. Restore the file from a backup of the volume"
            )
        ring = create_ring(config.tenant_uid, halves)
        _store_ring(folder, None, ring)
    keys, renewed = open_ring(ring, config.tenant_uid, halves)
    database = open_file(folder, keys, lock, is_new=not ring.has_database, limits=config.limits)
    try:
        problem = _migrate(database)
        _require_tenant(database, config.tenant_uid, may_write=problem is None)
        _store_ring(folder, ring, replace(renewed, has_database=True))
        return _apply_adopted_root(config, database, keys, problem)
    except BaseException:
        database.close()
        raise


def _open_postgresql(config: StoreConfig, halves: dict[str, bytes]) -> OpenData:
    database = open_url(config.url, config.limits)
    try:
        problem = _migrate(database)
        keys = _open_stored_ring(config, database, halves, may_write=problem is None)
        _require_tenant(database, config.tenant_uid, may_write=problem is None)
        return _apply_adopted_root(config, database, keys, problem)
    except BaseException:
        database.close()
        raise


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
) -> TenantKeys:
    """Open the ring in the database; make it if the database is new."""
    with database.transaction(writes=may_write) as connection:
        text = _read_meta(connection, MetaName.KEY_RING)
        if text is None:
            if not may_write or _read_meta(connection, MetaName.TENANT) is not None:
                raise KeyLostError(
                    f"{database.name}: the key ring is missing, so keys and audit log cannot be verified."
                    " Restore table meta from a backup of the database"
                )
            ring = create_ring(config.tenant_uid, halves)
        else:
            ring = decode_ring(text, f"{database.name}, table meta")
        keys, renewed = open_ring(ring, config.tenant_uid, halves)
        if may_write and (text is None or renewed != ring):
            write_meta(connection, MetaName.KEY_RING, replace(renewed, has_database=True).encode())
    return keys


def _require_tenant(database: Database, tenant_uid: str, *, may_write: bool) -> None:
    with database.transaction(writes=may_write) as connection:
        stored = _read_meta(connection, MetaName.TENANT)
        if stored is None and may_write:
            write_meta(connection, MetaName.TENANT, tenant_uid)
        elif stored != tenant_uid:
            raise ForeignTenantError(
                f"{database.name} belongs to tenant {stored}, and this gateway serves {tenant_uid}; nothing was"
                " changed. Use the volume or the database of this tenant"
            )


def _read_meta(connection: Connection, name: MetaName) -> str | None:
    value: str | None = connection.scalar(sa.select(t.meta.c.value).where(t.meta.c.name == name.value))
    return value


def _store_ring(folder: Path, before: KeyRing | None, ring: KeyRing) -> None:
    if ring == before:
        return
    try:
        write_ring(folder / RING_FILE, ring)
    except OSError as error:
        raise translate_os_error(error, folder / RING_FILE) from error
