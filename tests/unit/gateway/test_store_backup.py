"""Backup and restore of a tenant: what comes back, into which data, and what stays unreadable."""

import asyncio
import base64
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.store.administration.admin import UsageQuery, create_key, list_keys, report_usage, verify_audit
from r1plus_gateway.store.administration.audit import HEAD_FILE
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.content.content import ListPage
from r1plus_gateway.store.copies.backup import make_copy
from r1plus_gateway.store.copies.copy_thread import CopyRunningError
from r1plus_gateway.store.copies.restoration import NotNewError, restore_backup
from r1plus_gateway.store.copies.sealed_stream import StreamKind
from r1plus_gateway.store.database import migration
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.table_copy import BACKED_UP, LEFT_OUT, TableRows, decode_tables, encode_tables
from r1plus_gateway.store.errors import DataReason, RestoringError, StoreError
from r1plus_gateway.store.keys.content_cipher import UnreadableContentError
from r1plus_gateway.store.keys.key_rotation import continue_rotation, request_rotation
from r1plus_gateway.store.keys.tenant_keys import make_half
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase, get_public_key
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from support.gateway.backups import (
    ANNA,
    BERT,
    Files,
    Filled,
    back_up,
    back_up_first_schema,
    check,
    copy,
    fill,
    make_elsewhere,
    read_header,
    read_rows,
    read_texts,
    restore,
)
from support.gateway.content import make_content, say
from support.gateway.tenant_data import ADMIN, Volume, settle
from support.scratch import make_scratch_folder
from support.tables import for_each

EVER = UsageQuery(date(2000, 1, 1), date(2999, 1, 1))


@pytest.fixture
def folder() -> Iterator[Path]:
    made = make_scratch_folder("r1plus-tenant-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def elsewhere(volume: Volume, folder: Path) -> Volume:
    """The tenant's namespace in another cluster, whose Secret was restored, and whose gateway has never run."""
    return make_elsewhere(volume, folder)


@pytest.fixture
async def filled(store: TenantStore) -> Filled:
    return await fill(store)


def test_every_table_is_in_a_backup_or_left_out_for_a_reason() -> None:
    assert {table.name for table in BACKED_UP} | set(LEFT_OUT) == set(t.metadata.tables)
    assert not {table.name for table in BACKED_UP} & set(LEFT_OUT)


async def test_a_backup_has_no_value_that_a_gateway_of_an_earlier_release_keeps_in_a_restore(
    store: TenantStore,
) -> None:
    """It would be there twice, and the restore fails. `schema` is the same, so nothing else refuses it."""
    await store.maintain()
    batches: list[TableRows] = []
    with store.require_data().database.transaction(writes=False) as connection:
        decode_tables(encode_tables(connection, [t.meta]), batches.append, "backup")
    names = {row["name"] for batch in batches for row in batch.rows}
    assert "retention_seen" in names
    assert not names & {"tenant_uid", "key_ring", "adopted_root", "retention_time", "time_confirmation"}


async def test_another_cluster_goes_on_where_the_backup_was_made(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    files = await back_up(store)
    public_key = get_public_key(store)
    for _ in range(2):  # The second time after a restart.
        async with elsewhere.open() as other:
            if not other.require_data().restore_id:
                report = await restore(other, files)
                assert (report.rows["api_keys"], report.rows["conversation_items"], report.data_keys) == (1, 4, 2)
                assert report.unreadable_rows == 0
            assert await verify_key(filled.key.key.encode(), other, other.clock.read()) is not None
            assert [record.models for record in await list_keys(other)] == [frozenset({"credit"})]
            usage = await report_usage(other, replace(EVER, end_user="anna@example.com"))
            assert [row.prompt_tokens + row.completion_tokens for row in usage.rows] == [42]
            with pytest.raises(AccessError, match="budget"):
                await other.ledger.reserve("b", ANNA, "credit", 959)
            for caller in (ANNA, BERT):
                assert await read_texts(other, filled, caller) == [say("x"), say("y")]
            assert get_public_key(other) == public_key
            audit = await verify_audit(other)
            assert (audit.problem, len(audit.restores)) == ("", 1)
            assert read_header(files.backup).id in audit.restores[0].backup
            await other.maintain()
            assert other.state.is_ready


async def test_what_is_over_by_now_of_a_backup_goes_in_the_next_round(
    volume: Volume, store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    volume.time.advance(25 * 86400)
    await store.maintain()
    files = await back_up(store)
    volume.time.advance(6 * 86400)
    async with elsewhere.open() as other:
        await other.maintain()
        report = await restore(other, files)
        assert (report.retention_problem, report.rows["conversations"] > 0) == ("", True)
        await other.maintain()
        assert await other.read(lambda one: one.scalar(sa.select(sa.func.count()).select_from(t.conversations))) == 0


async def test_what_was_restored_can_be_backed_up_and_restored_again(
    volume: Volume, store: TenantStore, filled: Filled, elsewhere: Volume, tmp_path: Path
) -> None:
    files = await back_up(store)
    async with elsewhere.open() as other:
        await restore(other, files)
        conversation = await make_content(other).write(BERT, lambda one: one.create_conversation({}, [say("new")]))
        files = await back_up(other)
    assert read_header(files.backup).root_id == store.require_data().keys.root_id
    # The half of the other cluster's Secret is rotated, which the first cluster never saw.
    async with make_elsewhere(elsewhere, tmp_path, "third-uid").open() as third:
        await restore(third, files)
        assert await read_texts(third, filled) == [say("x"), say("y")]
        found = await make_content(third).read(BERT, lambda one: one.find_conversation(conversation.id))
        assert found is not None
        audit = await verify_audit(third)
        assert (audit.problem, len(audit.restores)) == ("", 2)


async def test_the_halves_are_rotated_after_a_restore(store: TenantStore, filled: Filled, elsewhere: Volume) -> None:
    files, secret = await back_up(store), elsewhere.config.secret_folder
    async with elsewhere.open() as other:
        await restore(other, files)
        (secret / "half-2").write_text(make_half())
        await other.maintain()
        (secret / "half-1").unlink()
        await other.maintain()
        assert other.state.is_ready
    async with elsewhere.open() as other:
        assert await read_texts(other, filled) == [say("x"), say("y")]


async def test_a_backup_shows_nothing_and_has_no_keys(store: TenantStore, filled: Filled) -> None:
    files, data = await back_up(store), store.require_data()
    with data.database.transaction(writes=False) as connection:
        wrapped = list(connection.scalars(sa.select(t.data_keys.c.wrapped_key)))
        plain = b"".join(encode_tables(connection, BACKED_UP))
        ring = connection.scalars(sa.select(t.meta.c.name)).all()
    assert len(wrapped) == 2 and "tenant_uid" in ring
    for secret in (b"anna", b"credit", *wrapped):
        assert secret not in files.backup[len(read_header(files.backup).encode()) :]
    for key in wrapped:
        assert base64.b64encode(key) not in plain
    assert b'"tenant_uid"' not in plain and b"key_ring" not in plain


async def test_the_ledger_goes_on_while_a_backup_is_made_and_is_not_in_it(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    async with aclosing(make_copy(store, ADMIN, StreamKind.BACKUP)) as pieces:
        backup = await anext(pieces)  # The snapshot is open.
        await settle(store, await store.ledger.reserve("later", ANNA, "credit", 100), 1, 1)
        await create_key(store, ADMIN, KeySpec("later"))
        await store.maintain()
        async for piece in pieces:
            backup += piece
    files = Files(backup, await copy(store, StreamKind.KEYS))
    async with elsewhere.open() as other:
        await restore(other, files)
        assert [record.name for record in await list_keys(other)] == ["ci"]
        assert [row.used_tokens for row in (await report_usage(other, EVER)).budgets if row.used_tokens] == [42]


async def test_requests_that_ran_when_the_backup_was_made_are_not_counted(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    await store.ledger.reserve("runs", ANNA, "credit", 100)
    files = await back_up(store)
    async with elsewhere.open() as other:
        await restore(other, files)
        used = {(row.used_tokens, row.reserved_tokens) for row in (await report_usage(other, EVER)).budgets}
        assert used == {(42, 0), (0, 0)}


async def test_one_copy_is_made_at_a_time_and_one_that_is_left_frees_the_next(
    store: TenantStore, filled: Filled
) -> None:
    async with aclosing(make_copy(store, ADMIN, StreamKind.BACKUP)) as pieces:
        await anext(pieces)
        with pytest.raises(CopyRunningError, match="wait for its end"):
            await copy(store, StreamKind.KEYS)
    assert await copy(store, StreamKind.KEYS)


async def test_copies_are_in_the_audit_log_before_they_leave(store: TenantStore, filled: Filled) -> None:
    files = await back_up(store)
    rows = await store.read(
        lambda connection: connection.execute(sa.select(t.audit.c.action, t.audit.c.subject, t.audit.c.caller_id)).all()
    )
    assert [tuple(row) for row in rows[-2:]] == [
        ("backup", read_header(files.backup).id, ADMIN.id),
        ("backup_keys", read_header(files.keys, StreamKind.KEYS).id, ADMIN.id),
    ]


# An end user that was erased.


async def test_an_end_user_that_was_erased_stays_unreadable_with_the_newest_keys(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    backup = await copy(store, StreamKind.BACKUP)
    await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    keys = await copy(store, StreamKind.KEYS)
    async with elsewhere.open() as other:
        report = await restore(other, Files(backup, keys))
        assert (report.unreadable_rows, report.data_keys) == (3, 1)
        content = make_content(other)
        for read in (
            lambda one: one.find_conversation(filled.conversations["anna@example.com"]),
            lambda one: one.list_conversations(ListPage()),
            lambda one: one.list_items(filled.conversations["anna@example.com"], ListPage()),
        ):
            with pytest.raises(UnreadableContentError, match="is gone"):
                await content.read(ANNA, read)
        assert await read_texts(other, filled, BERT) == [say("x"), say("y")]
        # What is left of them is erased for good, and they can store again.
        receipt = await erase(other, ADMIN, ErasureScope(end_user="anna@example.com"))
        assert (receipt.conversations, receipt.items, list(receipt.data_keys)) == (1, 2, [])
        await content.write(ANNA, lambda one: one.create_conversation({}, [say("again")]))


async def test_an_old_keys_file_revives_an_end_user_that_was_erased(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    """Why only the newest keys file may be kept: docs/tenant-data.md says so."""
    old = await back_up(store)
    await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    async with elsewhere.open() as other:
        await restore(other, old)
        assert await read_texts(other, filled) == [say("x"), say("y")]


async def rotate_data_keys(store: TenantStore) -> None:
    cipher = store.cipher
    await store.write(lambda ledger: request_rotation(ledger.connection))
    while await store.write(lambda ledger: continue_rotation(ledger.connection, cipher, ledger.now, 1)):
        pass


async def test_a_rotation_of_data_keys_is_seen_in_the_headers_and_in_a_check(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    backup = await copy(store, StreamKind.BACKUP)
    await rotate_data_keys(store)
    keys = await copy(store, StreamKind.KEYS)
    assert read_header(backup).rotation == "" != read_header(keys, StreamKind.KEYS).rotation
    assert (await check(store, Files(backup, keys))).unreadable_rows == 6
    again = await back_up(store)
    assert read_header(again.backup).rotation == read_header(again.keys, StreamKind.KEYS).rotation
    assert (await check(store, again)).unreadable_rows == 0


async def test_a_rotation_goes_on_where_the_data_are_restored(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    cipher = store.cipher
    await store.write(lambda ledger: request_rotation(ledger.connection))
    await store.write(lambda ledger: continue_rotation(ledger.connection, cipher, ledger.now, 1))
    files = await back_up(store)
    async with elsewhere.open() as other:
        assert ((await restore(other, files)).unreadable_rows, await count_keys(other)) == (0, 4)
        await other.maintain()
        assert await count_keys(other) == 2
        assert await read_texts(other, filled) == [say("x"), say("y")]


async def count_keys(store: TenantStore) -> int:
    return await store.read(
        lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(t.data_keys)) or 0
    )


# Where.


async def use_key(store: TenantStore) -> None:
    await create_key(store, ADMIN, KeySpec("mine"))


async def use_usage(store: TenantStore) -> None:
    await settle(store, await store.ledger.reserve("a", BERT, "credit", 10), 1, 1)


async def use_request(store: TenantStore) -> None:
    await store.ledger.reserve("a", BERT, "credit", 10)


async def use_content(store: TenantStore) -> None:
    await make_content(store).write(BERT, lambda one: one.create_conversation({}, []))


@for_each("use, message", {
    "a key": (use_key, "1 api_keys, 1 audit are there"),
    "usage": (use_usage, "1 audit, 1 budgets, 1 usage are there"),
    "a request that runs": (use_request, "1 reservations are there"),
    "content": (use_content, "1 content_sizes, 1 content_totals, 1 conversations, 1 data_keys are there"),
})  # fmt: skip
async def test_a_restore_replaces_nothing(
    store: TenantStore,
    filled: Filled,
    elsewhere: Volume,
    use: Callable[[TenantStore], Any],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = await back_up(store)
    async with elsewhere.open() as other:
        await use(other)
        before = await read_rows(other)
        caplog.clear()
        for attempt in (restore(other, files), check(other, files, needs_new=True)):
            with pytest.raises(NotNewError, match=message):
                await attempt
        assert "cannot be used" not in caplog.text, "callers do not notice"
        assert await read_rows(other) == before
        assert (await check(other, files)).rows["api_keys"] == 1


async def test_a_second_restore_is_refused(store: TenantStore, filled: Filled, elsewhere: Volume) -> None:
    files = await back_up(store)
    async with elsewhere.open() as other:
        await restore(other, files)
        with pytest.raises(NotNewError):
            await restore(other, files)


async def test_a_check_says_what_a_backup_has_and_writes_nothing(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    files = await back_up(store)
    before = await read_rows(store)
    report = await check(store, files)  # In the tenant that it was made of.
    assert (report.rows["conversations"], report.data_keys, report.restore_id) == (2, 2, "")
    assert await read_rows(store) == before
    async with elsewhere.open() as other:
        assert (await check(other, files, needs_new=True)).rows == report.rows
        assert (await verify_audit(other)).records == 0


# The audit log's head on the volume.


async def test_a_head_of_before_the_restore_is_no_alarm_and_one_of_a_lost_restore_is(
    volume: Volume, store: TenantStore, filled: Filled, folder: Path
) -> None:
    files = await back_up(store)
    lost = make_elsewhere(volume, folder, volume.tenant_uid)
    async with lost.open() as other:  # The same cluster, where the volume's database was lost, and the head was not.
        for number in range(20):
            await create_key(other, ADMIN, KeySpec(f"k{number}"))
        await other.maintain()
    head = lost.config.folder / HEAD_FILE if lost.config.folder else Path()
    old = head.read_text()
    for path in (lost.ring, lost.database):
        path.unlink()
    async with lost.open() as other:
        empty = {path: path.read_bytes() for path in (lost.ring, lost.database)}
        await restore(other, files)
        new = head.read_text()
        head.write_text(old)  # As if the gateway had been killed before it could write the new head.
        audit = await verify_audit(other)
        assert (audit.problem, len(audit.restores)) == ("", 1)
        await create_key(other, ADMIN, KeySpec("more"))
        await other.maintain()
        assert (await verify_audit(other)).problem == ""
    for path, content in empty.items():
        path.write_bytes(content)
    for suffix in ("-wal", "-shm"):
        lost.database.with_name(f"tenant.db{suffix}").unlink(missing_ok=True)
    head.write_text(new)
    async with lost.open() as other:
        assert "was put back to an earlier state" in (await verify_audit(other)).problem


# An older schema, a client that leaves, and requests meanwhile.


async def test_a_backup_of_an_older_schema_is_migrated(store: TenantStore, elsewhere: Volume) -> None:
    await create_key(store, ADMIN, KeySpec("old"))
    files = await back_up_first_schema(store)
    async with elsewhere.open() as other:
        report = await restore(other, files)
        assert "conversations" not in report.rows
        assert [record.name for record in await list_keys(other)] == ["old"]
        assert migration.read_revision(other.require_data().database) == migration.get_head()
        await make_content(other).write(ANNA, lambda one: one.create_conversation({}, [say("x")]))
        assert (await verify_audit(other)).problem == ""


async def test_while_a_backup_is_restored_requests_get_503_and_then_go_on(
    store: TenantStore, filled: Filled, elsewhere: Volume
) -> None:
    files = await back_up(store)
    loop, stream = asyncio.get_running_loop(), io.BytesIO(files.body)
    started, goes_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        await goes_on.wait()

    def read(count: int) -> bytes:
        if not started.is_set():
            asyncio.run_coroutine_threadsafe(wait(), loop).result()
        return stream.read(count)

    async with elsewhere.open() as other:
        restoring = asyncio.create_task(restore_backup(other, ADMIN, read))
        await started.wait()
        assert (other.state.reason, other.state.can_serve) == (DataReason.STARTING, False)
        with pytest.raises(AccessError, match="Starting"):
            await other.ledger.reserve("b", ANNA, "credit", 1)
        with pytest.raises(RestoringError):
            await create_key(other, ADMIN, KeySpec("more"))
        await other.maintain()
        assert other.state.reason is DataReason.STARTING
        with pytest.raises(CopyRunningError):
            await copy(other, StreamKind.BACKUP)
        with pytest.raises(CopyRunningError):
            await restore(other, files)
        goes_on.set()
        await restoring
        assert other.state.is_ready
        await other.ledger.reserve("b", ANNA, "credit", 1)


async def test_a_restore_whose_client_leaves_is_undone(store: TenantStore, filled: Filled, elsewhere: Volume) -> None:
    files = await back_up(store)
    stream = io.BytesIO(files.body[:-30])

    def read(count: int) -> bytes:
        if len(piece := stream.read(count)) < count:
            raise ConnectionResetError("the client has left")
        return piece

    async with elsewhere.open() as other:
        before = await read_rows(other)
        with pytest.raises(ConnectionResetError):
            await restore_backup(other, ADMIN, read)
        assert await read_rows(other) == before
        assert (await restore(other, files)).rows["api_keys"] == 1


async def test_data_of_a_newer_schema_take_no_backup(store: TenantStore, filled: Filled, elsewhere: Volume) -> None:
    files = await back_up(store)
    async with elsewhere.open() as other:
        await other.write(
            lambda one: one.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'") and None
        )
    newer = elsewhere.make_store()
    assert await newer.open()
    with pytest.raises(StoreError, match="newer than this gateway"):
        await restore(newer, files)
    with pytest.raises(StoreError, match="newer than this gateway"):
        await copy(newer, StreamKind.BACKUP)
    await newer.close()
