"""Erasure: what goes, what stays, what a receipt proves, and what a copy from before still shows."""

import base64
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store.administration.admin import confirm_time, verify_audit
from r1plus_gateway.store.content.content import ListPage, StoredResponse
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.errors import FullError
from r1plus_gateway.store.keys.content_cipher import UnreadableContentError
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase, verify_receipt
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from r1plus_gateway.store.upkeep.erasure_steps import ErasureStep, begin_erasure, continue_erasure
from support.gateway.content import check_books, make_content, say
from support.gateway.knowledge import add_file, ingest, make_batch, make_knowledge, make_store, upload
from support.gateway.tenant_data import ADMIN, TENANT_UID, Volume, make_caller
from support.scratch import make_scratch_folder

pytestmark = pytest.mark.first_run_counts

ANNA = make_caller(end_user="anna@example.com")
ANNA_ELSEWHERE = make_caller("key000000002", end_user="anna@example.com")
BERT = make_caller(end_user="bert@example.com")
EVERYBODY = (ANNA, ANNA_ELSEWHERE, BERT, make_caller())


async def fill(content: TenantContent) -> None:
    """Store a conversation and a response for everybody."""
    for number, caller in enumerate(EVERYBODY):
        answer = StoredResponse(f"resp_{number}", "", [say("q")], {"text": "a"})
        await content.write(caller, lambda one: one.create_conversation({}, [say("x"), say("y")]))
        await content.write(caller, lambda one: one.store_response(answer))  # noqa: B023


async def list_owners(content: TenantContent) -> list[Caller]:
    """Return who has conversations."""
    listed = [
        (caller, await content.read(caller, lambda one: one.list_conversations(ListPage()))) for caller in EVERYBODY
    ]
    return [caller for caller, found in listed if found is not None and found.entries]


@pytest.mark.parametrize(
    ("scope", "left", "counts"),
    [
        (ErasureScope(end_user="anna@example.com"), [BERT, make_caller()], (2, 4, 2, 2)),
        (
            ErasureScope(caller_kind="api_key", caller_id="key000000001"),
            [ANNA_ELSEWHERE],
            (3, 6, 3, 3),
        ),
        (ErasureScope(end_user="nobody"), list(EVERYBODY), (0, 0, 0, 0)),
    ],
    ids=["an end user, with every key", "a key, with its end users", "somebody unknown"],
)
async def test_erasure_takes_what_it_names_and_says_how_much(
    scope: ErasureScope, left: list[Caller], counts: tuple[int, ...], store: TenantStore
) -> None:
    content = make_content(store)
    await fill(content)
    receipt = await erase(store, ADMIN, scope)
    assert (receipt.conversations, receipt.items, receipt.responses, len(receipt.data_keys)) == counts
    assert await list_owners(content) == left
    database = store.require_data().database
    with database.transaction(writes=False) as connection:
        keys = set(connection.scalars(sa.select(t.data_keys.c.id)))
        for table in (t.data_keys, t.content_sizes, t.responses):
            assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == len(left)
        assert connection.scalar(sa.select(sa.func.count()).select_from(t.conversation_items)) == 2 * len(left)
    assert not keys & set(receipt.data_keys)


async def test_erasure_is_in_the_audit_log_without_the_persons_name(volume: Volume, store: TenantStore) -> None:
    await fill(make_content(store))
    receipt = await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    with store.require_data().database.transaction(writes=False) as connection:
        row = connection.execute(sa.select(t.audit).order_by(t.audit.c.seq.desc()).limit(1)).one()
    assert (row.action, row.caller_id, row.subject, row.end_user) == (
        "erase_content",
        ADMIN.id,
        receipt.id,
        receipt.end_user,
    )
    assert "anna" not in repr(row) + repr(receipt)
    assert (await verify_audit(store)).problem == ""
    assert receipt.tenant_uid == TENANT_UID
    assert receipt.erased_at == int(volume.time.wall)


@pytest.mark.parametrize(
    "change",
    [
        lambda receipt: receipt | {"items": 0},
        lambda receipt: receipt | {"data_keys": []},
        lambda receipt: receipt | {"tenant_uid": "another"},
        lambda receipt: receipt | {"more": 1},
        lambda receipt: receipt | {"signature": base64.b64encode(bytes(64)).decode()},
        lambda receipt: receipt | {"signature": "?"},
        lambda receipt: receipt | {"public_key": "?"},
        lambda receipt: {},
    ],
    ids=["a count", "no keys", "a tenant", "a field", "no signature", "no base64", "no key", "nothing"],
)
async def test_a_receipt_is_valid_as_it_is_and_not_when_it_was_changed(
    change: Callable[[dict[str, Any]], dict[str, Any]], store: TenantStore
) -> None:
    await fill(make_content(store))
    receipt = asdict(await erase(store, ADMIN, ErasureScope(end_user="anna@example.com")))
    assert verify_receipt(receipt, receipt["public_key"])
    assert not verify_receipt(change(receipt), receipt["public_key"])


async def test_a_receipt_of_another_tenants_key_is_not_valid(store: TenantStore) -> None:
    receipt = asdict(await erase(store, ADMIN, ErasureScope(end_user="x")))
    folder = make_scratch_folder("r1plus-tenant-")
    async with Volume(folder).make().open() as other:
        foreign = asdict(await erase(other, ADMIN, ErasureScope(end_user="x")))
    shutil.rmtree(folder)
    assert foreign["public_key"] != receipt["public_key"]
    assert verify_receipt(foreign, foreign["public_key"])
    assert not verify_receipt(foreign, receipt["public_key"])


async def test_the_public_key_stays_over_a_restart(volume: Volume) -> None:
    keys = set()
    for _ in range(2):
        async with volume.open() as store:
            keys.add((await erase(store, ADMIN, ErasureScope(end_user="x"))).public_key)
    assert len(keys) == 1


async def test_after_an_erasure_the_log_of_the_database_is_empty(volume: Volume, store: TenantStore) -> None:
    await fill(make_content(store))
    log = volume.database.with_name("tenant.db-wal")
    assert log.stat().st_size > 0
    await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    assert log.stat().st_size == 0


async def test_what_is_deleted_is_overwritten_in_the_file(store: TenantStore) -> None:
    with store.require_data().database.transaction(writes=True) as connection:
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1


async def test_a_log_that_cannot_be_emptied_now_costs_no_receipt(
    store: TenantStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rows and the keys are gone by then, and a second erasure would find nothing."""
    await fill(make_content(store))

    def fail() -> None:
        raise FullError("tenant.db: disk I/O error")

    monkeypatch.setattr(store.require_data().database, "empty_log", fail)
    receipt = await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    assert receipt.conversations == 2
    assert verify_receipt(asdict(receipt), receipt.public_key)
    assert "still has what was erased, and is emptied later" in caplog.text


async def test_an_erasure_counts_off_what_each_caller_has_stored(store: TenantStore) -> None:
    await fill(make_content(store))
    for scope in (ErasureScope(end_user="anna@example.com"), ErasureScope(caller_kind="api_key", caller_id=BERT.id)):
        await erase(store, ADMIN, scope)
        await store.read(check_books)


async def test_rows_from_before_an_erasure_are_unreadable_without_the_keys_that_it_destroyed(
    store: TenantStore,
) -> None:
    content = make_content(store)
    made = await content.write(ANNA, lambda one: one.create_conversation({}, [say("x")]))
    database, tables = store.require_data().database, (t.conversations, t.conversation_items)
    with database.transaction(writes=False) as connection:
        copies = [(table, connection.execute(sa.select(table)).mappings().all()) for table in tables]
    await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    # A restored backup of content.
    with database.transaction(writes=True) as connection:
        for table, rows in copies:
            connection.execute(sa.insert(table), [dict(row) for row in rows])
    with pytest.raises(UnreadableContentError, match="is gone"):
        await content.read(ANNA, lambda one: one.find_conversation(made.id))


@pytest.mark.parametrize(
    ("scope", "erased"),
    [
        (ErasureScope(end_user="anna@example.com"), [ANNA, ANNA_ELSEWHERE]),
        (ErasureScope(caller_kind="api_key", caller_id="key000000001"), [ANNA, BERT, make_caller()]),
    ],
    ids=["an end user, with every key", "a key, with its end users"],
)
async def test_what_began_before_an_erasure_learns_of_it_and_what_began_after_it_does_not(
    scope: ErasureScope, erased: list[Caller], store: TenantStore
) -> None:
    content, before = make_content(store), store.audit_seq
    await erase(store, ADMIN, scope)
    after = store.audit_seq
    for caller in EVERYBODY:
        is_erased = [await content.write(caller, lambda one: one.is_erased_since(seq)) for seq in (before, after)]  # noqa: B023
        assert is_erased == [caller in erased, False]


async def test_records_of_erasures_go_with_the_audit_log(volume: Volume, store: TenantStore) -> None:
    for days in (0, 210, 210):
        volume.time.advance(days * 86400)
        await confirm_time(store, ADMIN)
        await store.maintain()
        await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    times = await store.read(lambda connection: connection.scalars(sa.select(t.erasures.c.erased_at)).all())
    assert sorted(volume.time.wall - at for at in times) == [0.0, 210 * 86400.0], "of the last 400 days"


async def test_an_end_user_can_store_again_after_an_erasure(store: TenantStore) -> None:
    content = make_content(store)
    await fill(content)
    first = await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    await content.write(ANNA, lambda one: one.create_conversation({}, [say("again")]))
    second = await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    assert (second.conversations, len(second.data_keys)) == (1, 1)
    assert not set(first.data_keys) & set(second.data_keys)
    assert replace(first, id="") != replace(second, id="")


SMALL = ErasureStep(keys=1, rows=3, bytes=1_000)
END_USER = ErasureScope(end_user="anna@example.com")
KEYS_OWN = [0, 0, 1, 1]
"""What an end user with nothing sees: the documents that the key shares with all."""


async def fill_with_knowledge(store: TenantStore) -> None:
    """Store content and documents for everybody, of which one step of `SMALL` erases a part only."""
    await fill(make_content(store))
    knowledge = make_knowledge(store)
    for caller in EVERYBODY:
        owner = knowledge.identify(caller)
        file = await upload(knowledge, owner, b"a" * 900, b"b" * 900)
        store_id = await make_store(knowledge, owner)
        added = await add_file(knowledge, owner, store_id, file.id)
        await ingest(knowledge, owner, added, *(make_batch(position, "one", "two") for position in range(4)))


async def list_all(store: TenantStore, caller: Caller) -> list[int]:
    """Return how many conversations, responses, files and vector stores a caller sees, with those of its key."""
    content, knowledge = make_content(store), make_knowledge(store)
    owner = knowledge.identify(caller)
    conversations = await content.read(caller, lambda one: one.list_conversations(ListPage(100)))
    found = [await content.read(caller, lambda one: one.find_response(f"resp_{number}")) for number in range(4)]  # noqa: B023
    files = await knowledge.read(owner, lambda one: one.list_files(ListPage(100)))
    stores = await knowledge.read(owner, lambda one: one.list_vector_stores(ListPage(100)))
    assert conversations is not None and files is not None and stores is not None
    responses = sum(one is not None for one in found)
    return [len(conversations.entries), responses, len(files.entries), len(stores.entries)]


def count_rows(connection: sa.Connection) -> int:
    """Return the rows of content and their keys."""
    tables = (t.conversations, t.conversation_items, t.responses, t.files, t.file_parts, t.vector_stores)
    more = (t.vector_store_files, t.chunk_batches, t.data_keys)
    return sum(connection.scalar(sa.select(sa.func.count()).select_from(one)) or 0 for one in (*tables, *more))


async def begin(store: TenantStore, scope: ErasureScope = END_USER) -> str:
    """Do the first part of an erasure."""
    pseudonym = store.require_data().keys.compute_pseudonym(scope.end_user)
    return await store.write(lambda ledger: begin_erasure(ledger, ADMIN.id, scope, pseudonym, SMALL))


@pytest.mark.parametrize("step", [SMALL, ErasureStep()], ids=["in parts", "at once"])
async def test_an_erasure_in_parts_and_one_at_once_leave_and_say_the_same(
    step: ErasureStep, store: TenantStore
) -> None:
    await fill_with_knowledge(store)
    receipt = await erase(store, ADMIN, END_USER, step)
    counts = (receipt.conversations, receipt.items, receipt.responses, receipt.memories)
    assert (*counts, receipt.files, receipt.vector_stores, receipt.chunks) == (2, 4, 2, 0, 2, 2, 16)
    assert len(receipt.data_keys) == 2
    seen = [await list_all(store, caller) for caller in EVERYBODY]
    assert seen == [KEYS_OWN, [0] * 4, [1, 1, 2, 2], [1] * 4]
    assert await store.read(count_rows) == 2 * (1 + 2 + 1 + 1 + 2 + 1 + 1 + 4 + 1)
    await store.read(check_books)


async def test_a_large_erasure_goes_in_parts_between_which_others_write(store: TenantStore) -> None:
    await fill_with_knowledge(store)
    content, left = make_content(store), [await store.read(count_rows)]
    erasure_id = await begin(store)
    has_more = True
    while has_more:
        left.append(await store.read(count_rows))
        shown = await content.write(ANNA_ELSEWHERE, lambda one: one.find_response("resp_1"))
        has_begun = len(left) > 2
        assert (shown is None) or not has_begun, "nothing is seen once all keys are destroyed"
        made = await content.write(BERT, lambda one: one.create_conversation({}, []))
        assert await content.write(BERT, lambda one: one.delete_conversation(made.id)), "others write"  # noqa: B023
        has_more = await store.write(lambda ledger: continue_erasure(ledger, erasure_id, SMALL))
    parts = [before - after for before, after in pairwise([*left, await store.read(count_rows)])]
    assert max(parts) <= SMALL.keys + SMALL.rows
    assert sum(part > 0 for part in parts) >= (left[0] - await store.read(count_rows)) // (SMALL.keys + SMALL.rows)
    await store.read(check_books)


async def test_a_step_deletes_no_more_bytes_than_it_may_but_for_one_row(store: TenantStore) -> None:
    await fill_with_knowledge(store)
    sizes = sa.select(sa.func.sum(sa.func.length(t.file_parts.c.content)))
    erasure_id, has_more, parts = await begin(store), True, []
    while has_more:
        before = await store.read(lambda connection: connection.scalar(sizes))
        has_more = await store.write(lambda ledger: continue_erasure(ledger, erasure_id, SMALL))
        parts.append(before - await store.read(lambda connection: connection.scalar(sizes)))
    assert 0 < max(parts) <= SMALL.bytes


async def test_what_is_stored_after_the_keys_are_destroyed_is_kept_and_the_rest_is_not_seen(store: TenantStore) -> None:
    await fill_with_knowledge(store)
    erasure_id = await begin(store)
    while await store.write(lambda ledger: continue_erasure(ledger, erasure_id, ErasureStep(1, 0, 0))):
        if await store.read(lambda one: one.scalar(sa.select(t.erasures.c.seq))) is not None:
            break
    assert await list_all(store, ANNA) == KEYS_OWN
    content, knowledge = make_content(store), make_knowledge(store)
    made = await content.write(ANNA, lambda one: one.create_conversation({}, [say("again")]))
    owner = knowledge.identify(ANNA)
    await upload(knowledge, owner, b"again")
    assert await list_all(store, ANNA) == [1, 0, 2, 1]
    assert not await content.write(ANNA, lambda one: one.delete_response("resp_0")), "nor deleted by its owner"
    assert await knowledge.list_pending() == [one for one in await knowledge.list_pending() if one[2] != owner]
    while await store.write(lambda ledger: continue_erasure(ledger, erasure_id, SMALL)):
        pass
    assert await list_all(store, ANNA) == [1, 0, 2, 1]
    assert await content.read(ANNA, lambda one: one.find_conversation(made.id)) is not None
    await store.read(check_books)


async def test_what_an_erasure_has_begun_is_finished_by_the_next_gateway(volume: Volume) -> None:
    async with volume.open() as store:
        await fill_with_knowledge(store)
        erasure_id = await begin(store)
    async with volume.open() as store:
        assert await store.read(count_rows) > 2 * 14
        await store.maintain()
        await store.read(check_books)
        assert await store.read(count_rows) == 2 * 14
        assert volume.database.with_name("tenant.db-wal").stat().st_size == 0
        receipt = await erase(store, ADMIN, END_USER)
        assert (receipt.id, receipt.conversations, receipt.files, receipt.chunks) == (erasure_id, 2, 2, 16)
        assert len(receipt.data_keys) == 2
        again = await erase(store, ADMIN, END_USER)
        assert (again.id != erasure_id, again.conversations, again.data_keys) == (True, 0, [])
        assert (await verify_audit(store)).problem == ""


async def test_who_erases_again_before_the_receipt_erases_what_was_stored_since(store: TenantStore) -> None:
    await fill_with_knowledge(store)
    erasure_id = await begin(store)
    while await store.write(lambda ledger: continue_erasure(ledger, erasure_id, SMALL)):
        pass
    await make_content(store).write(ANNA, lambda one: one.create_conversation({}, [say("again")]))
    seq = store.audit_seq
    receipt = await erase(store, ADMIN, END_USER, SMALL)
    assert (receipt.id, receipt.conversations, receipt.items, len(receipt.data_keys)) == (erasure_id, 3, 5, 3)
    assert await list_all(store, ANNA) == KEYS_OWN
    assert await make_content(store).write(ANNA, lambda one: one.is_erased_since(seq))
    await store.read(check_books)
