"""Rotation of the root: a new one takes over what hides data, so who knows the old one reads nothing that comes later.

    new root → key of the database's file, wrapping key of data keys, key of backups, sealing of the old root
    old root → peppers, audit key, receipt key: API keys, pseudonyms, audit log and receipts stay valid

One transaction seals the old root under the new one (`store.keys.adopted_root`), and notes that each owner is due a new
data key: those of before may be known, too, and stay wrapped by the old root until rows are encrypted again. In
PostgreSQL it also replaces the key ring. On a volume the ring has both roots from before it until the file has its new
key; a start on what a crash left ends the rotation forward or back (`opening.settle_root_rotation`).

Called by `http.administration`.
"""

import asyncio
from dataclasses import dataclass, replace

from sqlalchemy.engine import Connection

from r1plus_contract.gateway import GATEWAY_KEY
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store.administration.admin import append_action, make_data_keys
from r1plus_gateway.store.database.opening import get_folder, require_ring, settle_root_rotation, store_ring
from r1plus_gateway.store.errors import KeyLostError
from r1plus_gateway.store.keys.adopted_root import AdoptedRoot, open_roots
from r1plus_gateway.store.keys.key_rotation import KeyRotation, is_rotation_due, read_rotation, request_rotation
from r1plus_gateway.store.keys.tenant_keys import (
    add_pending_root,
    decode_ring,
    derive_keys,
    find_roots,
    promote_pending_root,
    read_halves,
)
from r1plus_gateway.store.ledger.repository import LedgerRepository, MetaName, read_meta, write_meta
from r1plus_gateway.store.tenant import TenantStore


class RotationRunningError(ValueError):
    """Another rotation has to end first."""


@dataclass(frozen=True, slots=True)
class RootRotation:
    """What a rotation of the root has done, and what it has begun."""

    root_id: str
    """Of the new root; backups name it."""
    data_keys: KeyRotation


async def rotate_root(store: TenantStore, admin: Caller) -> RootRotation:
    """Give the tenant a new root, and each owner's content a new data key.

    Requests wait while a volume's file is encrypted again. A rotation whose client leaves goes on.

    Raises:
        RotationRunningError: the Secret's half, or data keys, are being rotated.
        CopyRunningError: a backup or a restore runs.
        StoreError: the data cannot be used, or the volume is full. Another call goes on with what was begun.
    """
    task = asyncio.create_task(_rotate(store, admin))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # else it is logged as one that nobody has seen
        raise


async def _rotate(store: TenantStore, admin: Caller) -> RootRotation:
    await store.run_alone(lambda: replace_root(store, admin))
    data_keys = await make_data_keys(store, admin, is_due=True)
    return RootRotation(store.require_data().keys.root_id, data_keys)


def replace_root(store: TenantStore, admin: Caller) -> None:
    """Replace the root, or end what another call has begun. Raises as `rotate_root`."""
    config, data = store.config, store.require_data()
    if data.problem is not None:
        raise data.problem.renew()
    halves = read_halves(config.secret_folder)
    if len(halves) > 1:
        raise RotationRunningError(
            f"Secret {GATEWAY_KEY} has {len(halves)} halves, and the older one would open the new root, too; end the"
            " rotation of the half first: r1plus tenant rotate-key --finish"
        )
    if not data.database.is_sqlite:
        _replace_in_database(store, admin, halves)
        store.take_rotated_root()
        return
    with store.hold_writer():
        is_ended = settle_root_rotation(config, data.database)
    if not is_ended:
        _replace_on_volume(store, admin, halves)


def _replace_on_volume(store: TenantStore, admin: Caller, halves: dict[str, bytes]) -> None:
    config, data = store.config, store.require_data()
    with data.database.transaction(writes=False) as connection:
        _require_no_rotation(connection)
    data.database.require_room()
    folder = get_folder(config)
    with data.database.ring_lock:
        ring = require_ring(folder)
        pending = add_pending_root(ring, halves)
        store_ring(folder, ring, pending)
    try:
        # SQLite gives its lock to whoever asks at the right moment, and the writer asks all the time.
        with store.hold_writer():
            with store.make_work(data).open_repository() as repository:
                _switch(repository, store, admin, find_roots(pending, halves))
            store.take_rotated_root()
    finally:
        with store.hold_writer():
            settle_root_rotation(config, data.database)


def _replace_in_database(store: TenantStore, admin: Caller, halves: dict[str, bytes]) -> None:
    data = store.require_data()
    with store.make_work(data).open_repository() as repository:
        text = read_meta(repository.connection, MetaName.KEY_RING)
        if text is None:
            raise KeyLostError(f"{data.database.name}: the key ring is missing. Restore table meta from a backup")
        ring = add_pending_root(decode_ring(text, f"{data.database.name}, table meta"), halves)
        _switch(repository, store, admin, find_roots(ring, halves))
        write_meta(repository.connection, MetaName.KEY_RING, promote_pending_root(ring).encode())


def _switch(repository: LedgerRepository, store: TenantStore, admin: Caller, roots: tuple[bytes, ...]) -> None:
    """Let the data go by the second root, in one transaction."""
    config, data, connection = store.config, store.require_data(), repository.connection
    _require_no_rotation(connection)
    before, own = open_roots(roots[:1], data.adopted_root, config.tenant_uid, data.database.name), derive_keys(roots[1])
    adopted = before.adopted or AdoptedRoot(before.own, config.tenant_uid, "", before.own)
    adopted = replace(adopted, content_root=b"", former_root=adopted.content_root or before.own)
    write_meta(connection, MetaName.ADOPTED_ROOT, adopted.seal(own, config.tenant_uid))
    request_rotation(connection)
    append_action(repository, admin, "rotate_root", own.root_id)


def _require_no_rotation(connection: Connection) -> None:
    """Raise RotationRunningError while there may be data keys of before the last rotation of the root."""
    found = read_rotation(connection)
    if found.older_keys or is_rotation_due(connection):
        raise RotationRunningError(
            f"A rotation of data keys is under way, and {found.rows_left} rows are left to encrypt again; wait for its"
            " end. If it does not go on, the gateway's log says why"
        )
