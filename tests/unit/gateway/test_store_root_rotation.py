"""Rotation of the root: who knows the old one reads nothing that comes later, and everybody else notices nothing."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlcipher3 import dbapi2 as sqlcipher

from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.store.administration import admin
from r1plus_gateway.store.administration.admin import (
    UsageQuery,
    UsageReport,
    create_key,
    report_usage,
    rotate_data_keys,
    verify_audit,
)
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.content.content import MemorySource
from r1plus_gateway.store.copies.backup import make_copy
from r1plus_gateway.store.copies.copy_thread import CopyRunningError
from r1plus_gateway.store.copies.restoration import NotNewError
from r1plus_gateway.store.copies.sealed_stream import SealedStreamError, StreamKind, StreamReader
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.database import Database
from r1plus_gateway.store.database.opening import open_data
from r1plus_gateway.store.errors import (
    CorruptError,
    DataReason,
    FullError,
    SchemaNewerError,
    StoreError,
    WrongKeyError,
)
from r1plus_gateway.store.keys import key_rotation
from r1plus_gateway.store.keys.adopted_root import open_roots
from r1plus_gateway.store.keys.content_cipher import ContentCipher, DataKey, Owner, UnreadableContentError
from r1plus_gateway.store.keys.key_rotation import KeyRotation, is_rotation_due, read_rotation
from r1plus_gateway.store.keys.root_rotation import RotationRunningError, replace_root, rotate_root
from r1plus_gateway.store.keys.tenant_keys import TenantKeys, derive_keys, find_roots, make_half, read_halves, read_ring
from r1plus_gateway.store.ledger.repository import MetaName, read_meta
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase, get_public_key, verify_receipt
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from support.gateway.backups import ANNA, BERT, Files, Filled, back_up, check, copy, fill, make_elsewhere, read_texts
from support.gateway.backups import restore as restore_files
from support.gateway.content import check_books, make_content
from support.gateway.rotation_traffic import TEXTS, unbroken_traffic
from support.gateway.tenant_data import ADMIN, Volume
from support.scratch import make_scratch_folder
from support.tables import for_each
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts

EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1), end_user="anna@example.com")
PAGE_BYTES = 4096


async def end_rotation(store: TenantStore) -> None:
    """Maintain until no row is left to encrypt again: a round whose database is slow leaves rows to the next one."""

    async def has_ended() -> bool:
        await store.maintain()
        found = await store.read(read_rotation)
        return not found.older_keys and not await store.read(is_rotation_due)

    await eventually(has_ended, "the rotation of data keys has ended", retry_on=(StoreError,))


@pytest.fixture
def other_folder() -> Iterator[Path]:
    made = make_scratch_folder("r1plus-tenant-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
async def filled(store: TenantStore) -> AsyncIterator[Filled]:
    made = await fill(store)
    await make_content(store).write(ANNA, lambda one: one.add_memory("I live in Kiel.", MemorySource.PINNED, 30))
    yield made


def find_root(volume: Volume) -> bytes:
    """Return what a thief of the volume and of the Secret's half finds."""
    ring = read_ring(volume.ring)
    assert ring is not None
    (root,) = find_roots(ring, read_halves(volume.config.secret_folder))
    return root


async def require_unchanged(store: TenantStore, filled: Filled, usage: UsageReport) -> None:
    """Raise AssertionError unless keys, usage, audit log and content are as they were."""
    assert await verify_key(filled.key.key.encode(), store, store.clock.read()) is not None
    assert await report_usage(store, EVER) == usage
    assert (await verify_audit(store)).problem == ""
    for caller in (ANNA, BERT):
        assert await read_texts(store, filled, caller) == TEXTS
    memories = await make_content(store).read(ANNA, lambda one: one.read_memories())
    assert [memory.text for memory in memories] == ["I live in Kiel."]
    await store.read(check_books)


async def test_keys_usage_audit_log_receipts_and_content_stay_through_three_rotations_and_a_restart(
    volume: Volume,
) -> None:
    roots = set()
    async with volume.open() as store:
        filled = await fill(store)
        await make_content(store).write(ANNA, lambda one: one.add_memory("I live in Kiel.", MemorySource.PINNED, 30))
        receipt, usage = await erase(store, ADMIN, ErasureScope(end_user="carl")), await report_usage(store, EVER)
        public_key = get_public_key(store)
        for _ in range(3):
            roots |= {find_root(volume), store.require_data().keys.root_id}
            rotation = await rotate_root(store, ADMIN)
            assert rotation.root_id == store.require_data().keys.root_id
            assert rotation.data_keys == KeyRotation(owners=2, older_keys=2, rows_left=7)
            await require_unchanged(store, filled, usage)
            await end_rotation(store)
            assert await store.read(read_rotation) == KeyRotation(owners=2, older_keys=0, rows_left=0)
            await require_unchanged(store, filled, usage)
            assert store.state.is_ready
    assert not {find_root(volume), rotation.root_id} & roots
    assert len(roots) == 6
    async with volume.open() as store:
        await require_unchanged(store, filled, usage)
        assert get_public_key(store) == public_key
        assert verify_receipt(asdict(receipt), public_key)
        with store.require_data().database.transaction(writes=False) as connection:
            is_rotation = t.audit.c.action == "rotate_root"
            assert len(connection.scalars(sa.select(t.audit.c.subject).where(is_rotation)).all()) == 3
            assert read_meta(connection, MetaName.ROTATION_DUE) is None


def open_as(path: Path, keys: TenantKeys) -> None:
    """Read a SQLite file with a key. Raises sqlcipher.DatabaseError."""
    connection = sqlcipher.connect(str(path))
    try:
        connection.execute("PRAGMA cipher_log_level = NONE")
        connection.execute(f"PRAGMA key = \"x'{keys.database_key.hex()}{keys.database_salt.hex()}'\"")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.close()


def read_pages(path: Path) -> set[bytes]:
    content = path.read_bytes()
    return {content[start : start + PAGE_BYTES] for start in range(0, len(content), PAGE_BYTES)}


async def test_who_had_a_half_and_a_snapshot_opens_nothing_of_what_comes_after(
    volume: Volume, other_folder: Path
) -> None:
    """The half is rotated first: with the old one the new ring opens to nothing."""
    secret = volume.config.secret_folder
    async with volume.open() as store:
        await fill(store)
        data = store.require_data()
        stolen_rows = await store.read(lambda one: one.execute(sa.select(t.data_keys)).all())
        old_cipher = ContentCipher(lambda: data.keys, data.content_uid)
        stolen = [old_cipher.unwrap_key(row.id, Owner(*row[1:4]), bytes(row.wrapped_key)) for row in stolen_rows]
        await store.empty_log()
        shutil.copytree(volume.folder, other_folder, dirs_exist_ok=True)
        root = find_root(volume)
        open_as(other_folder / "data" / "tenant.db", derive_keys(root))
        (secret / "half-2").write_text(make_half())
        await store.maintain()
        (secret / "half-1").unlink()
        await store.maintain()
        await rotate_root(store, ADMIN)
        await end_rotation(store)
        await store.empty_log()
        files = await back_up(store)
        rows = await store.read(lambda one: one.execute(sa.select(t.data_keys)).all())
        items = await store.read(lambda one: one.execute(sa.select(t.conversation_items)).all())
        sealed = await store.read(lambda one: read_meta(one, MetaName.ADOPTED_ROOT))
    ring = read_ring(volume.ring)
    assert ring is not None and sealed is not None
    assert find_roots(ring, read_halves(other_folder / "secret")) == ()
    with pytest.raises(sqlcipher.DatabaseError, match="not a database"):
        open_as(volume.database, derive_keys(root))
    assert not read_pages(volume.database) & read_pages(other_folder / "data" / "tenant.db")
    with pytest.raises(CorruptError):
        open_roots((root,), sealed, volume.tenant_uid, "the thief")
    # What a thief reads who gets a copy of all tables, as with PostgreSQL:
    assert len(rows) == 2 and len(items) == 4
    for row in rows:
        with pytest.raises(UnreadableContentError):
            old_cipher.unwrap_key(row.id, Owner(*row[1:4]), bytes(row.wrapped_key))
    for item in items:
        for key in stolen:
            for name in (key.id, item.key_id):
                with pytest.raises(UnreadableContentError):
                    old_cipher.decrypt(
                        DataKey(name, key.value), t.conversation_items.name, item.id, bytes(item.content)
                    )
    for stream, kind in ((files.backup, StreamKind.BACKUP), (files.keys, StreamKind.KEYS)):
        with pytest.raises(SealedStreamError, match="was changed"):
            list(StreamReader(BytesIO(stream).read, kind).open_frames(derive_keys(root).backup_key))
    # And the old half with the new volume, or the other way round, opens nothing either.
    shutil.copy(other_folder / "secret" / "half-1", secret)
    (secret / "half-2").unlink()
    with pytest.raises(WrongKeyError):
        open_data(volume.config)
    shutil.copy(other_folder / "data" / "key-ring.json", volume.ring)
    with pytest.raises(WrongKeyError, match="was not made with this tenant's key"):
        open_data(volume.config)


@pytest.mark.unit_slow
async def test_requests_go_on_during_rotations(store: TenantStore, filled: Filled) -> None:
    async with unbroken_traffic(store, filled) as done:
        for _ in range(5):
            await rotate_root(store, ADMIN)
            await end_rotation(store)
    assert min(done.values()) >= 5, done
    assert store.state.is_ready
    assert (await verify_audit(store)).problem == ""


async def test_a_second_half_and_a_rotation_of_data_keys_have_to_end_first(volume: Volume) -> None:
    async with volume.open() as store:
        await fill(store)
        root = find_root(volume)
        (volume.config.secret_folder / "half-2").write_text(make_half())
        with pytest.raises(RotationRunningError, match=r"has 2 halves.*rotate-key --finish"):
            await rotate_root(store, ADMIN)
        (volume.config.secret_folder / "half-2").unlink()
        await rotate_data_keys(store, ADMIN)
        with pytest.raises(RotationRunningError, match="6 rows are left to encrypt again"):
            await rotate_root(store, ADMIN)
        assert find_root(volume) == root
        await end_rotation(store)
        await rotate_root(store, ADMIN)
        assert find_root(volume) != root


async def test_one_copy_or_rotation_runs_at_a_time(store: TenantStore, filled: Filled) -> None:
    backup = make_copy(store, ADMIN, StreamKind.BACKUP)
    await anext(backup)
    with pytest.raises(CopyRunningError):
        await rotate_root(store, ADMIN)
    await backup.aclose()
    rotation = asyncio.create_task(rotate_root(store, ADMIN))
    await eventually(lambda: is_busy(store), "the rotation runs", period_s=0)
    for call in (rotate_root(store, ADMIN), copy(store, StreamKind.KEYS)):
        with pytest.raises(CopyRunningError):
            await call
    await rotation
    assert await read_texts(store, filled) == TEXTS


def is_busy(store: TenantStore) -> bool:
    try:
        store.copier.require_free()
    except CopyRunningError:
        return True
    return False


async def test_a_rotation_whose_client_leaves_comes_to_its_end(volume: Volume) -> None:
    async with volume.open() as store:
        filled, root = await fill(store), find_root(volume)
        task = asyncio.create_task(rotate_root(store, ADMIN))
        await eventually(lambda: is_busy(store), "the rotation runs", period_s=0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert find_root(volume) != root
        assert (await store.read(read_rotation)).older_keys == 2
        assert await read_texts(store, filled) == TEXTS


async def test_a_schema_that_is_newer_is_not_rotated(volume: Volume) -> None:
    async with volume.open() as store:
        with store.require_data().database.transaction(writes=True) as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    async with volume.open() as store:
        root = find_root(volume)
        with pytest.raises(SchemaNewerError):
            await rotate_root(store, ADMIN)
        assert find_root(volume) == root


async def test_backups_of_before_need_the_keys_file_of_before(
    store: TenantStore, filled: Filled, volume: Volume, other_folder: Path
) -> None:
    old = await back_up(store)
    await erase(store, ADMIN, ErasureScope(end_user="bert@example.com"))
    await rotate_root(store, ADMIN)
    await end_rotation(store)
    new = await back_up(store)
    async with make_elsewhere(volume, other_folder).open() as other:
        for files, message in (
            (
                Files(old.backup, new.keys),
                r"backup: was made under root .*the keys file that was written with this backup",
            ),
            (Files(new.backup, old.keys), r"backup: was made under root "),
        ):
            for call in (check(store, files), restore_files(other, files)):
                with pytest.raises(SealedStreamError, match=message):
                    await call
            assert (await verify_audit(other)).records == 0
        assert (await check(other, old, needs_new=True)).unreadable_rows == 0
        assert (await restore_files(other, new)).unreadable_rows == 0
        assert await read_texts(other, filled) == TEXTS
        listed = await make_content(other).read(BERT, lambda one: one.read_memories())
        assert listed == []
        assert await verify_key(filled.key.key.encode(), other, other.clock.read()) is not None
        with pytest.raises(NotNewError):
            await restore_files(other, new)


@pytest.mark.unit_slow
async def test_a_rotated_tenant_is_restored_rotated_and_restored_again(
    store: TenantStore, filled: Filled, volume: Volume, other_folder: Path
) -> None:
    usage = await report_usage(store, EVER)
    await rotate_root(store, ADMIN)
    files = await back_up(store)
    for number in range(3):
        there = make_elsewhere(volume, other_folder / str(number), f"uid-{number}")
        async with there.open() as other:
            assert (await restore_files(other, files)).unreadable_rows == 0
            assert other.require_data().keys.root_id == store.require_data().keys.root_id or number
            await require_unchanged(other, filled, usage)
        async with there.open() as other:
            restored = other.require_data().restore_id
            await end_rotation(other)
            await rotate_root(other, ADMIN)
            await require_unchanged(other, filled, usage)
            assert other.require_data().restore_id == restored
            if number == 1:
                await end_rotation(other)
            files = await back_up(other)
        async with there.open() as other:
            await require_unchanged(other, filled, usage)


async def test_an_erasure_stays_one(store: TenantStore, filled: Filled, volume: Volume, other_folder: Path) -> None:
    await rotate_root(store, ADMIN)
    await end_rotation(store)
    old = await copy(store, StreamKind.BACKUP)
    await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    keys = await copy(store, StreamKind.KEYS)
    async with make_elsewhere(volume, other_folder).open() as other:
        assert (await restore_files(other, Files(old, keys))).unreadable_rows == 4
        with pytest.raises(UnreadableContentError, match="is gone"):
            await read_texts(other, filled)
        assert await read_texts(other, filled, BERT) == TEXTS


class Broken:
    """Lets the file not be encrypted again, some times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        encrypt_again = Database.encrypt_again

        def fail(database: Database, keys: TenantKeys) -> None:
            if self.times:
                self.times -= 1
                raise FullError("the volume is full")
            encrypt_again(database, keys)

        monkeypatch.setattr(Database, "encrypt_again", fail)


@for_each("is_restarted", {"by another call": (False,), "by a restart": (True,)})
async def test_a_rotation_that_could_not_encrypt_the_file_is_ended_later(
    volume: Volume, other_folder: Path, monkeypatch: pytest.MonkeyPatch, is_restarted: bool
) -> None:
    """The data go by the new root meanwhile, the file has its key of before, and the ring has both roots."""
    async with volume.open() as store:
        filled = await fill(store)
        Broken(1).install(monkeypatch)
        with pytest.raises(FullError):
            await rotate_root(store, ADMIN)
        root_id = store.require_data().keys.root_id
        assert await read_texts(store, filled) == TEXTS
        ring = read_ring(volume.ring)
        assert ring is not None and len(find_roots(ring, read_halves(volume.config.secret_folder))) == 2
        files = await back_up(store)
        async with make_elsewhere(volume, other_folder).open() as other:
            assert (await restore_files(other, files)).unreadable_rows == 0
            assert await read_texts(other, filled) == TEXTS
        if not is_restarted:
            assert (await rotate_root(store, ADMIN)).root_id == root_id
    async with volume.open() as store:
        assert store.require_data().keys.root_id == root_id
        assert volume.database.read_bytes()[:16] == derive_keys(find_root(volume)).database_salt
        assert await read_texts(store, filled) == TEXTS
        await end_rotation(store)
        assert await store.read(read_rotation) == KeyRotation(owners=2, older_keys=0, rows_left=0)


async def test_a_gateway_starts_although_the_volume_has_no_room_to_end_a_rotation(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Broken(2).install(monkeypatch)
    caplog.set_level("INFO")
    async with volume.open() as store:
        filled = await fill(store)
        with pytest.raises(FullError):
            await rotate_root(store, ADMIN)
    async with volume.open() as store:
        assert "A rotation of the root has not ended" in caplog.text
        (volume.config.secret_folder / "half-2").write_text(make_half())
        await store.maintain()  # Both roots get a wrap for the new half.
        (volume.config.secret_folder / "half-1").unlink()
        await store.maintain()
        assert await read_texts(store, filled) == TEXTS
        assert store.state.is_ready
    async with volume.open() as store:
        assert "A rotation of the root that was cut has ended" in caplog.text
        assert await read_texts(store, filled) == TEXTS
        find_root(volume)


async def test_a_volume_without_room_for_a_second_copy_is_refused_before_anything_is_written(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with volume.open() as store:
        await fill(store)
        ring = volume.ring.read_bytes()
        monkeypatch.setattr("r1plus_gateway.store.database.database._LOG_OVERHEAD", 1e12)
        with pytest.raises(FullError, match=r"MiB of room, and the volume has .*Enlarge the volume"):
            await rotate_root(store, ADMIN)
        assert volume.ring.read_bytes() == ring
        assert store.state.is_ready


async def test_a_row_that_does_not_decrypt_holds_up_the_next_rotation_and_nothing_else(
    store: TenantStore, filled: Filled, caplog: pytest.LogCaptureFixture
) -> None:
    """While data keys of before the last rotation are left, the root that opens them is needed."""
    with store.require_data().database.transaction(writes=True) as connection:
        is_berts = t.data_keys.c.caller_id == BERT.id
        connection.execute(sa.update(t.data_keys).where(is_berts).values(wrapped_key=b"x" * 60))
    await rotate_root(store, ADMIN)
    await store.maintain()
    assert "Rotation of data keys stopped, older keys stay" in caplog.text
    assert await read_texts(store, filled) == TEXTS
    with pytest.raises(UnreadableContentError):
        await read_texts(store, filled, BERT)
    with pytest.raises(RotationRunningError, match="rows are left to encrypt again; wait for its end"):
        await rotate_root(store, ADMIN)
    await erase(store, ADMIN, ErasureScope(end_user=BERT.end_user))
    store.resume_rotation()
    await end_rotation(store)
    await rotate_root(store, ADMIN)
    assert await read_texts(store, filled) == TEXTS


async def test_owners_that_are_due_a_new_key_get_it_also_after_a_restart(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (admin, key_rotation):
        monkeypatch.setattr(module, "MOST_OWNERS", 1)
    async with volume.open() as store:
        filled = await fill(store)
        old = set(await store.read(lambda one: one.scalars(sa.select(t.data_keys.c.id)).all()))
        await store.run_alone(lambda: replace_root(store, ADMIN))
        with pytest.raises(RotationRunningError):
            await rotate_root(store, ADMIN)
        assert await read_texts(store, filled) == TEXTS
    async with volume.open() as store:
        assert await store.read(is_rotation_due)
        await end_rotation(store)
        assert not await store.read(is_rotation_due)
        new = set(await store.read(lambda one: one.scalars(sa.select(t.data_keys.c.id)).all()))
        assert len(new) == 2 and not new & old
        assert await read_texts(store, filled) == TEXTS


async def test_an_adopted_root_that_was_changed_is_a_damaged_database(volume: Volume) -> None:
    async with volume.open() as store:
        await rotate_root(store, ADMIN)
        await create_key(store, ADMIN, KeySpec("ci"))
        with store.require_data().database.transaction(writes=True) as connection:
            c = t.meta.c
            connection.execute(sa.update(t.meta).where(c.name == "adopted_root").values(value="AAAA"))
    with pytest.raises(CorruptError, match=r"does not open .*Restore database and key ring together"):
        open_data(volume.config)
    store = volume.make_store()
    assert not await store.open()
    await store.close()
    assert store.state.reason is DataReason.CORRUPT
