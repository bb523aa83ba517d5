"""A tenant's backup, and its keys file: what `r1plus tenant backup` writes.

The **backup** has all tables but those with keys, so content in it is ciphertext twice: under its owner's data key, and
as a whole under the root. The **keys file** has the key ring and the wrapped data keys. It opens nothing without a half
of the Secret, which the recovery export has. Of keys files the newest is kept only: an older one opens what was erased.

Called by `http.copies`; `store.copies.restoration` is the way back.
"""

import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

from sqlalchemy.engine import Connection

from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store.administration.audit import AuditRecord
from r1plus_gateway.store.copies.sealed_stream import NAMES, StreamHeader, StreamKind, seal
from r1plus_gateway.store.database import migration
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.opening import read_key_material, read_rotation_name
from r1plus_gateway.store.database.table_copy import BACKED_UP, count_rows, encode_tables
from r1plus_gateway.store.errors import RestoringError
from r1plus_gateway.store.ledger.repository import LedgerRepository, MetaName, read_meta
from r1plus_gateway.store.tenant import TenantStore

TABLES: Final = {StreamKind.BACKUP: BACKED_UP, StreamKind.KEYS: (t.data_keys,)}
ACTIONS: Final = {StreamKind.BACKUP: "backup", StreamKind.KEYS: "backup_keys"}
"""What the audit log calls it."""


async def make_copy(store: TenantStore, admin: Caller, kind: StreamKind) -> AsyncGenerator[bytes, None]:
    """Yield a backup or a keys file, of one snapshot. The ledger goes on meanwhile.

    The audit log has a record of it before the first byte leaves.

    Raises:
        CopyRunningError: another copy runs.
        StoreError: the data cannot be read, or the record not be written.
    """
    store.copier.require_free()
    copy_id = f"{NAMES[kind]}_{secrets.token_hex(16)}"

    def record(ledger: LedgerRepository) -> int:
        ledger.append_audit(
            AuditRecord(ledger.now, ACTIONS[kind], caller_kind=admin.kind.value, caller_id=admin.id, subject=copy_id)
        )
        return int(ledger.now)

    created_at = await store.write(record)
    data = store.require_data()

    def build_header(connection: Connection) -> StreamHeader:
        if (read_meta(connection, MetaName.ADOPTED_ROOT) or "") != data.adopted_root:
            raise RestoringError("The tenant's root was rotated a moment ago, and is opened again; wait")
        has_keys = kind is StreamKind.KEYS
        material = read_key_material(store.config, connection) if has_keys else None
        return StreamHeader(
            kind=kind,
            id=copy_id,
            namespace=admin.namespace,
            tenant_uid=store.config.tenant_uid,
            root_id=data.keys.root_id,
            schema=migration.read_revision_within(connection),
            created_at=created_at,
            rows=count_rows(connection, TABLES[kind]),
            rotation=read_rotation_name(connection),
            ring=material.ring if material else "",
            adopted_root=material.adopted_root if material else "",
        )

    def produce() -> Iterator[bytes]:
        with data.database.transaction(writes=False, is_long=True) as connection:
            data.database.allow_long_statements(connection)
            yield from seal(build_header(connection), data.keys.backup_key, encode_tables(connection, TABLES[kind]))

    async with aclosing(store.copier.iterate(produce)) as pieces:
        async for piece in pieces:
            yield piece
