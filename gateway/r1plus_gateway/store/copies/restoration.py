"""Restore of a tenant's backup, into data that are new: one transaction, so all of it or nothing.

What comes is a keys file and then a backup (`store.copies.backup`). The keys file's ring is opened by the half that
the Secret has, which proves whose it is; its root is adopted (`store.keys.adopted_root`). Called by `http.copies`.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_contract.gateway import GATEWAY_KEY
from r1plus_contract.timestamps import format_timestamp
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store.administration.audit import RESTORE_ACTION, AuditHead, AuditRecord
from r1plus_gateway.store.clock import LedgerClock
from r1plus_gateway.store.copies.sealed_stream import Read, SealedStreamError, StreamHeader, StreamKind, StreamReader
from r1plus_gateway.store.database import migration
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.opening import OpenData, StoreConfig
from r1plus_gateway.store.database.table_copy import TableRows, decode_tables
from r1plus_gateway.store.errors import CorruptError
from r1plus_gateway.store.keys.adopted_root import AdoptedRoot, open_roots
from r1plus_gateway.store.keys.tenant_keys import TenantKeys, decode_ring, find_roots, read_halves
from r1plus_gateway.store.ledger.repository import OWN_META, LedgerRepository, MetaName, write_meta
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep import retention_clock

NEVER_IN_USE = ("counters", "instances", "meta")
"""Tables that have rows before anybody has used the tenant's data."""


class NotNewError(ValueError):
    """The data that a backup should be restored into are in use."""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore brought, or a check found."""

    backup: StreamHeader
    rows: Mapping[str, int]
    """By table."""
    data_keys: int
    unreadable_rows: int
    """Rows with content whose data key is not in the keys file: it was destroyed, by an erasure or a rotation since."""
    restore_id: str = ""
    """Empty after a check."""
    retention_problem: str = ""
    """Why what is over by now is not deleted yet, and what to do; empty: it is deleted."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a backup is restored: a gateway's data, and who asks for it."""

    config: StoreConfig
    data: OpenData
    clock: LedgerClock
    instance: str
    admin: Caller


@dataclass(frozen=True, slots=True)
class _Source:
    """The keys that a keys file brings."""

    header: StreamHeader
    keys: TenantKeys = field(repr=False)
    root: AdoptedRoot = field(repr=False)


class _Intake:
    """Where rows go, and which of them no key opens."""

    def __init__(self, insert: Callable[[TableRows], None]) -> None:
        self._insert = insert
        self.key_ids: set[str] = set()
        self.unreadable = 0

    def take_keys(self, batch: TableRows) -> None:
        """Take data keys, which come first."""
        self.key_ids.update(row["id"] for row in batch.rows)
        self._insert(batch)

    def take_rows(self, batch: TableRows) -> None:
        """Take rows of the backup."""
        self.unreadable += sum("key_id" in row and row["key_id"] not in self.key_ids for row in batch.rows)
        self._insert(batch)


@dataclass(frozen=True, slots=True)
class _Adopted:
    """What a gateway goes on with, once the restore is committed."""

    data: OpenData
    head: AuditHead
    retention_problem: str


@dataclass(frozen=True, slots=True)
class _Restored:
    data: OpenData
    head: AuditHead
    report: RestoreReport


async def check_backup(store: TenantStore, admin: Caller, read: Read, *, needs_new: bool) -> RestoreReport:
    """Read both files to their ends and write nothing. With `needs_new` also ask whether they could be restored here.

    Raises:
        SealedStreamError: a file is cut, changed, foreign, newer, or not the one that goes with the other.
        NotNewError: the data are in use.
        CopyRunningError: another copy runs.
        StoreError: the data cannot be used.
    """
    return await store.copier.run(partial(_check, _describe_site(store, admin), read, needs_new=needs_new))


async def restore_backup(store: TenantStore, admin: Caller, read: Read) -> RestoreReport:
    """Restore both files, and go on with what they brought. Raises as `check_backup`; then nothing was written.

    A restore whose client leaves ends by itself, as nothing more can be read; what it has committed is taken over.
    """
    task = asyncio.create_task(_restore_held(store, admin, read))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # else it is logged as one that nobody has seen
        raise


async def _restore_held(store: TenantStore, admin: Caller, read: Read) -> RestoreReport:
    site = _describe_site(store, admin)
    await store.copier.run(partial(_require_new_data, site))  # else who calls a tenant in use would get 503
    with store.hold():
        restored = await store.copier.run(partial(restore, site, read))
        await store.adopt(restored.data, restored.head)
    store.prune_soon()  # what was kept when the backup was made may be over
    await store.empty_log()
    return restored.report


def _describe_site(store: TenantStore, admin: Caller) -> Site:
    return Site(store.config, store.require_data(), store.clock, store.instance, admin)


def _check(site: Site, read: Read, *, needs_new: bool) -> RestoreReport:
    if needs_new:
        _require_new_data(site)
    reader, source = _open_keys(site, read)
    intake = _Intake(lambda _: None)
    decode_tables(reader.open_frames(source.keys.backup_key), intake.take_keys, "keys")
    backup = _open_backup(site, read, source)
    rows = decode_tables(backup.open_frames(source.keys.backup_key), intake.take_rows, "backup")
    backup.require_end()
    return RestoreReport(backup.header, rows, len(intake.key_ids), intake.unreadable)


def restore(site: Site, read: Read) -> _Restored:
    """Restore both files in one transaction. Raises as `check_backup`."""
    database = site.data.database
    with database.transaction(writes=True) as connection:
        database.allow_long_statements(connection)
        _require_new(connection)
        _empty(connection)
        reader, source = _open_keys(site, read)
        intake = _Intake(partial(TableRows.insert, connection=connection))
        decode_tables(reader.open_frames(source.keys.backup_key), intake.take_keys, "keys")
        backup = _open_backup(site, read, source)
        rows = _import_tables(connection, backup, source, intake)
        backup.require_end()
        adopted = _adopt(site, connection, source, backup.header)
    report = RestoreReport(
        backup.header,
        rows,
        len(intake.key_ids),
        intake.unreadable,
        adopted.data.restore_id,
        adopted.retention_problem,
    )
    return _Restored(adopted.data, adopted.head, report)


def _require_new_data(site: Site) -> None:
    with site.data.database.transaction(writes=False) as connection:
        _require_new(connection)


def _require_new(connection: Connection) -> None:
    counts = {
        table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
        for table in t.metadata.sorted_tables
        if table.name not in NEVER_IN_USE
    }
    if used := [f"{count} {name}" for name, count in counts.items() if count]:
        raise NotNewError(
            f"This tenant's data are in use ({', '.join(used)} are there), and a restore replaces nothing; restore"
            " into a new volume or database, before applications call"
        )


def _empty(connection: Connection) -> None:
    connection.execute(sa.delete(t.counters))
    kept = [name.value for name in OWN_META if name is not MetaName.EARLIER_RETENTION_TIME]  # The backup's follows.
    connection.execute(sa.delete(t.meta).where(t.meta.c.name.not_in(kept)))


def _open_keys(site: Site, read: Read) -> tuple[StreamReader, _Source]:
    reader = StreamReader(read, StreamKind.KEYS)
    header = reader.header
    _require_own(header, "keys", site)
    halves = read_halves(site.config.secret_folder)
    try:
        ring = decode_ring(header.ring, "keys")
        roots = find_roots(ring, halves)
        if not roots:
            raise SealedStreamError(
                f"keys: no half in Secret {GATEWAY_KEY} ({', '.join(sorted(halves))}) opens the key ring; restore the"
                " Secret from the recovery export of that time: r1plus tenant init --from FILE"
            )
        found = open_roots(roots, header.adopted_root, ring.tenant_uid, "keys")
    except (CorruptError, UnicodeError) as error:
        raise SealedStreamError(f"keys: was changed ({error}); copy it again") from error
    keys = found.derive_keys()
    if keys.root_id != header.root_id:
        raise SealedStreamError("keys: has a header that was changed; copy it again")
    adopted = found.adopted or AdoptedRoot(found.own, ring.tenant_uid, "", found.own)
    return reader, _Source(header, keys, replace(adopted, content_root=adopted.content_root or found.own))


def _open_backup(site: Site, read: Read, source: _Source) -> StreamReader:
    reader = StreamReader(read, StreamKind.BACKUP)
    header = reader.header
    _require_own(header, "backup", site)
    if header.root_id != source.keys.root_id:
        raise SealedStreamError(
            f"backup: was made under root {header.root_id}, and the keys file is of root {source.keys.root_id}; name"
            " the keys file that was written with this backup; one of after a rotation of the root does not open it"
        )
    if header.created_at > source.header.created_at:
        raise SealedStreamError(
            f"keys: are of {format_timestamp(source.header.created_at)}, older than the backup of"
            f" {format_timestamp(header.created_at)}; name the newest keys file, which the newest backup wrote"
        )
    return reader


def _require_own(header: StreamHeader, name: str, site: Site) -> None:
    if header.namespace != site.admin.namespace:
        raise SealedStreamError(
            f"{name}: is of tenant {header.namespace}, and this gateway serves {site.admin.namespace}; nothing is"
            " restored into another tenant. Name this tenant's file"
        )
    if not migration.is_known(header.schema):
        raise SealedStreamError(
            f"{name}: has schema {header.schema}, newer than this gateway, whose newest is {migration.get_head()}; run"
            " the newer gateway"
        )


def _import_tables(
    connection: Connection, backup: StreamReader, source: _Source, intake: "_Intake"
) -> Mapping[str, int]:
    """Import the backup's tables; those of an older schema into tables like them, which are migrated then."""
    frames = backup.open_frames(source.keys.backup_key)
    if backup.header.schema == migration.get_head():
        return decode_tables(frames, intake.take_rows, "backup")
    keys: list[Any] = [dict(row) for row in connection.execute(sa.select(t.data_keys)).mappings()]
    connection.execute(sa.delete(t.data_keys))
    migration.move_within(connection, backup.header.schema)
    rows = decode_tables(frames, intake.take_rows, "backup")
    migration.move_within(connection, migration.get_head())
    if keys:
        connection.execute(sa.insert(t.data_keys), keys)
    return rows


def _adopt(site: Site, connection: Connection, source: _Source, backup: StreamHeader) -> _Adopted:
    """Take over root and time that came, and record the restore in the audit log that came."""
    adopted = replace(source.root, restore_id=f"restore_{secrets.token_hex(16)}")
    sealed = adopted.seal(site.data.keys, site.config.tenant_uid)
    write_meta(connection, MetaName.ADOPTED_ROOT, sealed)
    data = replace(
        site.data,
        keys=adopted.derive_keys(site.data.keys),
        content_uid=adopted.content_uid,
        adopted_root=sealed,
        restore_id=adopted.restore_id,
    )
    ledger = LedgerRepository(connection, data.keys, site.clock, site.instance, sealed)
    ledger.append_audit(
        AuditRecord(
            ledger.now,
            RESTORE_ACTION,
            caller_kind=site.admin.kind.value,
            caller_id=site.admin.id,
            subject=adopted.restore_id,
            outcome=f"{backup.id} of {format_timestamp(backup.created_at)}",
        )
    )
    problem = retention_clock.restart(ledger, site.clock, backup.created_at)
    ledger.flush()
    return _Adopted(data, ledger.head, problem)
