"""Stored knowledge: whose it is, what it may have, what the file shows, and when it goes."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from r1plus_assistant.store.knowledge_writer import KnowledgeWriter
from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.store.content.content import ContentLimitError, ContentLimits, DeletionStep, ListPage
from r1plus_gateway.store.content.knowledge import UPLOAD_SECONDS, Chunk, ChunkBatch, IngestionState
from r1plus_gateway.store.content.knowledge_books import read_caller_knowledge
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import UnreadableContentError
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from r1plus_gateway.store.upkeep.retention import prune_knowledge
from support.gateway.backups import back_up, make_elsewhere, restore
from support.gateway.content import LIMITS, MIB, check_books, make_content, say
from support.gateway.knowledge import INGESTION, add_file, ingest, make_batch, make_knowledge, make_store, upload
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.scratch import make_scratch_folder
from support.tables import for_each

KEY = make_caller()
ANNA, BERT = make_caller(end_user="anna"), make_caller(end_user="bert")
OTHER = make_caller("key000000002")
SECRET = b"the vault's code is sesame"


@pytest.fixture
async def store(volume: Volume) -> AsyncIterator[TenantStore]:
    async with volume.open() as opened:
        yield opened


@pytest.fixture
def knowledge(store: TenantStore) -> TenantKnowledge:
    return make_knowledge(store)


async def test_a_file_and_its_chunks_are_read_as_they_were_written_also_after_a_restart(volume: Volume) -> None:
    batches = [make_batch(0, "one", "two"), make_batch(1, "three", engine="")]
    async with volume.open() as store:
        knowledge = make_knowledge(store)
        owner = knowledge.identify(KEY)
        file = await upload(knowledge, owner, b"one ", b"two")
        store_id = await make_store(knowledge, owner)
        await ingest(knowledge, owner, await add_file(knowledge, owner, store_id, file.id), *batches)
    async with volume.open() as store:
        knowledge = make_knowledge(store)
        assert await knowledge.read(owner, lambda one: one.find_file(file.id)) == file
        assert file.bytes == 7
        parts = [await knowledge.read(owner, lambda one: one.read_part(file.id, place)) for place in range(3)]  # noqa: B023
        assert parts == [b"one ", b"two", None]
        found = await knowledge.read(owner, lambda one: one.list_searchable(store_id))
        assert found is not None
        assert await knowledge.read(owner, lambda one: one.read_batches(found[0])) == batches
        assert found[0].chunks == 3
        shown = await knowledge.read(owner, lambda one: one.find_vector_store(store_id))
        assert shown is not None
        assert (shown.chunks, shown.counts) == (3, {IngestionState.COMPLETED: 1})
        await store.read(check_books)


def test_a_batch_is_decoded_as_it_was_encoded() -> None:
    chunk = Chunk("Größe 😀", 3, 12, None, "A > B")
    batch = ChunkBatch(7, [chunk, chunk], "e", b"\0" * 16)
    assert ChunkBatch.decode(7, "e", batch.encode()) == batch


async def test_an_end_user_sees_the_keys_files_and_its_own_and_changes_its_own_only(knowledge: TenantKnowledge) -> None:
    key, anna, bert, other = map(knowledge.identify, (KEY, ANNA, BERT, OTHER))
    shared, own = await upload(knowledge, key, b"handbook"), await upload(knowledge, anna, b"diary")
    seen = {}
    for name, owner in (("key", key), ("anna", anna), ("bert", bert), ("other", other)):
        listed = await knowledge.read(owner, lambda one: one.list_files(ListPage()))
        assert listed is not None
        seen[name] = {file.id for file in listed.entries}
        assert (await knowledge.read(owner, lambda one: one.read_part(own.id, 0)) is not None) == (name == "anna")
    assert seen == {"key": {shared.id}, "anna": {shared.id, own.id}, "bert": {shared.id}, "other": set()}
    for owner, file in ((anna, shared), (bert, own), (key, own), (other, shared)):
        assert not await knowledge.write(owner, lambda one: one.delete_file(file.id))  # noqa: B023
    store_id = await make_store(knowledge, anna)
    for file in (shared, own):
        added = await knowledge.write(anna, lambda one: one.add_store_file(store_id, file.id, INGESTION))  # noqa: B023
        assert (added is not None) == (file is own)
    assert await knowledge.read(bert, lambda one: one.list_store_files(store_id, ListPage())) is None
    assert await knowledge.read(bert, lambda one: one.read_version(store_id)) is None


async def test_the_file_shows_neither_content_nor_name_nor_chunk(volume: Volume) -> None:
    async with volume.open() as store:
        knowledge = make_knowledge(store)
        owner = knowledge.identify(KEY)
        file = await upload(knowledge, owner, SECRET, name=f"{SECRET.decode()}.txt")
        added = await add_file(knowledge, owner, await make_store(knowledge, owner, SECRET.decode()), file.id)
        await ingest(knowledge, owner, added, make_batch(0, SECRET.decode()))
        with store.require_data().database.transaction(writes=False) as connection:
            dump = "".join(
                repr(tuple(row))
                for table in ("files", "file_parts", "vector_stores", "vector_store_files", "chunk_batches")
                for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
            )
        assert file.id in dump
        assert "sesame" not in dump
        assert "Heading" not in dump
    files = {path: path.read_bytes() for path in volume.folder.rglob("*") if path.is_file()}
    assert volume.database in files
    assert [path for path, content in files.items() if b"sesame" in content] == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ContentLimits(MIB, 2 * MIB, 3000), "3000 of files and vector stores that this key may have"),
        (ContentLimits(MIB, 4000), "what is left of the 4000 that all of the tenant"),
        (ContentLimits(MIB, 2 * MIB, tenant_chunks=1), "exceed the 1 that all of the tenant may have"),
    ],
    ids=["bytes of the key", "bytes of the tenant", "chunks of the tenant"],
)
async def test_what_exceeds_a_limit_is_refused_with_it_and_stores_nothing(
    store: TenantStore, limits: ContentLimits, reason: str
) -> None:
    knowledge = make_knowledge(store, limits)
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, b"one")
    added = await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)
    before = await store.read(check_books)
    with pytest.raises(ContentLimitError, match=reason) as refusal:
        for place in range(5):
            await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(place, *"ab"), INGESTION))  # noqa: B023
    assert limits.tenant_chunks > 1 or "in use" not in str(refusal.value)  # how much others have is theirs
    after = await store.read(check_books)
    assert after == before or limits.tenant_chunks > 1


async def take_chunks(knowledge: TenantKnowledge, caller: Caller, most: int = 1000) -> int:
    """Store chunks for a caller, one after another, until it is refused or has stored so many; return their number."""
    owner = knowledge.identify(caller)
    file = await upload(knowledge, owner, b"one")
    added = await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)
    for position in range(most):
        batch = make_batch(position, "a", engine="")
        try:
            assert await knowledge.write(owner, lambda one: one.append_batch(added, batch, INGESTION))  # noqa: B023
        except ContentLimitError:
            return position
    return most


KEYS = [make_caller(f"key00000000{number}") for number in range(1, 5)]


@for_each("caller_chunks, expected", {
    "a key has half of what others leave": (30, [30, 15, 7, 4]),
    "a smaller limit leaves the last one more": (15, [15, 11, 8, 6]),
    "a limit of all has no share": (60, [60, 0, 0, 0]),
})  # fmt: skip
async def test_no_keys_take_all_chunks_of_a_tenant(store: TenantStore, caller_chunks: int, expected: list[int]) -> None:
    knowledge = make_knowledge(store, ContentLimits(MIB, 2 * MIB, tenant_chunks=60, caller_chunks=caller_chunks))
    assert [await take_chunks(knowledge, key) for key in KEYS] == expected
    assert [await take_chunks(knowledge, key) for key in KEYS] == [0] * len(KEYS)
    await store.read(check_books)


@pytest.mark.unit_slow
async def test_keys_that_are_read_in_turn_have_the_same_and_leave_as_much(store: TenantStore) -> None:
    knowledge = make_knowledge(store, ContentLimits(MIB, 2 * MIB, tenant_chunks=24, caller_chunks=12))
    taken = dict.fromkeys(KEYS[:3], 0)
    for _ in range(8):
        for key in taken:
            taken[key] += await take_chunks(knowledge, key, 1)
    assert list(taken.values()) == [6, 6, 6]
    assert await take_chunks(knowledge, KEYS[3]) == 3


async def test_an_end_user_counts_as_its_key_and_who_deletes_has_room_again(store: TenantStore) -> None:
    knowledge = make_knowledge(store, ContentLimits(MIB, 2 * MIB, tenant_chunks=8, caller_chunks=4))
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, b"one")
    added = await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)

    async def append() -> bool:
        return await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, *"ab"), INGESTION))

    assert await append()
    assert await take_chunks(knowledge, ANNA) == 1
    with pytest.raises(ContentLimitError, match="2 chunks more exceed the 4 that this key may have, of which 3 are"):
        await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(1, *"cd"), INGESTION))
    await knowledge.write(owner, lambda one: one.clear_batches(added))
    assert await append()


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_an_end_user_leaves_chunks_to_its_key_and_the_others_of_it(store: TenantStore, times: float) -> None:
    knowledge = make_knowledge(store, ContentLimits(MIB, 2 * MIB, tenant_chunks=60, caller_chunks=30))
    assert await take_chunks(knowledge, ANNA, round(15 * times)) == 15
    assert await take_chunks(knowledge, BERT) == 7, "half of what she leaves"
    assert await take_chunks(knowledge, KEY) == 8, "the key has all that is left"
    assert await take_chunks(knowledge, OTHER) == 15
    await store.read(check_books)


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_an_end_user_leaves_bytes_to_its_key_and_the_others_of_it(store: TenantStore, times: float) -> None:
    knowledge = make_knowledge(store, ContentLimits(MIB, 2 * MIB, knowledge_caller_bytes=60_000))

    async def fill(caller: Caller, most: int) -> int:
        owner, count = knowledge.identify(caller), 0
        with contextlib.suppress(ContentLimitError):
            while count < most:
                await upload(knowledge, owner, b"x" * 2000)
                count += 1
        return count

    of_anna = await fill(ANNA, round(12 * times))
    with pytest.raises(ContentLimitError, match="this end user's share"):
        await upload(knowledge, knowledge.identify(ANNA), b"x" * 20_000)
    of_bert, of_key = await fill(BERT, 100), await fill(KEY, 100)
    assert 0 < of_bert < of_anna <= of_bert + of_key, "she has half of what there is, and he half of what she leaves"
    await store.read(check_books)


async def test_a_refusal_names_what_is_ones_own_and_not_what_others_have(store: TenantStore) -> None:
    knowledge = make_knowledge(store, ContentLimits(MIB, 2 * MIB, tenant_chunks=60, caller_chunks=30))
    assert [await take_chunks(knowledge, key, 20) for key in KEYS[:2]] == [20, 20]
    owner = knowledge.identify(KEYS[0])
    file = await upload(knowledge, owner, b"one")
    added = await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)
    with pytest.raises(ContentLimitError) as refusal:
        await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "a"), INGESTION))
    assert str(refusal.value).startswith(
        "1 chunks more exceed this key's share of the tenant's 60, of which it has 20:"
    )


async def test_a_file_that_was_read_is_completed_although_others_have_taken_its_keys_room(store: TenantStore) -> None:
    knowledge = make_knowledge(store, ContentLimits(MIB, 2 * MIB, tenant_chunks=8, caller_chunks=4))
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, b"one")
    added = await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)
    assert await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, *"abc"), INGESTION))
    assert await take_chunks(knowledge, OTHER) == 2
    longer = replace(INGESTION, pages=1_000_000)
    assert await knowledge.write(owner, lambda one: one.finish_ingestion(added, longer, 1))
    await store.read(check_books)


@pytest.mark.unit_slow
async def test_no_keys_take_all_bytes_of_a_tenant_by_their_documents(store: TenantStore) -> None:
    limits = ContentLimits(MIB // 8, MIB, knowledge_caller_bytes=MIB // 2)
    knowledge, content, part = make_knowledge(store, limits), make_content(store, limits), b"x" * 8000
    for key, share in zip(KEYS, (1 / 2, 1 / 4, 1 / 8, 1 / 16), strict=True):
        owner = knowledge.identify(key)
        with pytest.raises(ContentLimitError, match="this key"):
            while True:
                await upload(knowledge, owner, part)
        size = (await store.read(lambda one: read_caller_knowledge(one, owner))).bytes  # noqa: B023
        assert MIB * share - 2 * len(part) < size <= MIB * share
    await content.write(make_caller("key000000009"), lambda one: one.create_conversation({}, [say("x" * 4000)]))
    await store.read(check_books)


@pytest.mark.unit_slow
async def test_no_key_grows_beyond_its_share_by_changing_what_it_has(store: TenantStore) -> None:
    limits = ContentLimits(MIB // 8, MIB, knowledge_caller_bytes=MIB // 2)
    knowledge, owner = make_knowledge(store, limits), make_knowledge(store, limits).identify(OTHER)
    await upload(knowledge, knowledge.identify(KEY), b"x" * (MIB * 3 // 8))
    stores = [
        await knowledge.write(owner, lambda one: one.create_vector_store(f"Store {number}", "", {}, None))  # noqa: B023
        for number in range(50)
    ]
    with pytest.raises(ContentLimitError, match="this key's share"):
        for one in stores:
            larger = replace(one, attributes={str(number): "x" * 512 for number in range(16)})
            await knowledge.write(owner, lambda writer: writer.change_vector_store(larger))  # noqa: B023
    await store.read(check_books)


async def test_no_key_grows_beyond_its_share_by_attributes_of_files(store: TenantStore) -> None:
    limits = ContentLimits(MIB // 8, MIB, knowledge_caller_bytes=MIB // 2)
    knowledge = make_knowledge(store, limits)
    owner = knowledge.identify(KEY)
    store_id, file = await make_store(knowledge, owner), await upload(knowledge, owner, b"x" * (MIB * 15 // 32))
    await add_file(knowledge, owner, store_id, file.id)
    await upload(knowledge, knowledge.identify(OTHER), b"x" * (MIB // 4))
    with pytest.raises(ContentLimitError, match="this key's share"):
        await knowledge.write(owner, lambda one: one.change_store_file(store_id, file.id, {"topic": "x" * 512}))
    assert await knowledge.write(owner, lambda one: one.change_store_file(store_id, file.id, {})) is not None
    await store.read(check_books)


async def test_knowledge_takes_nothing_from_what_conversations_may_have(store: TenantStore) -> None:
    limits = ContentLimits(8000, 2 * MIB, MIB)
    knowledge, content = make_knowledge(store, limits), make_content(store, limits)
    await upload(knowledge, knowledge.identify(KEY), b"x" * 100_000)
    await content.write(KEY, lambda one: one.create_conversation({}, [say("x" * 4000)]))
    with pytest.raises(ContentLimitError, match="8000"):
        await content.write(KEY, lambda one: one.create_conversation({}, [say("x" * 4000)]))
    await store.read(check_books)


async def test_deleting_a_file_takes_it_out_of_its_vector_stores(
    store: TenantStore, knowledge: TenantKnowledge
) -> None:
    owner = knowledge.identify(KEY)
    file, kept = await upload(knowledge, owner, b"one"), await upload(knowledge, owner, b"two")
    store_id = await make_store(knowledge, owner)
    for one in (file, kept):
        await ingest(knowledge, owner, await add_file(knowledge, owner, store_id, one.id), make_batch(0, "text"))
    version = await knowledge.read(owner, lambda one: one.read_version(store_id))
    assert await knowledge.write(owner, lambda one: one.delete_file(file.id))
    found = await knowledge.read(owner, lambda one: one.list_searchable(store_id))
    assert found is not None
    assert [one.file_id for one in found] == [kept.id]
    assert await knowledge.read(owner, lambda one: one.read_version(store_id)) != version
    assert await knowledge.write(owner, lambda one: one.delete_vector_store(store_id))
    assert await knowledge.write(owner, lambda one: one.delete_file(kept.id))
    assert await store.read(check_books) == 0


async def test_a_file_that_is_not_wanted_any_more_gets_no_chunks(knowledge: TenantKnowledge) -> None:
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, b"one")
    store_id = await make_store(knowledge, owner)
    added = await add_file(knowledge, owner, store_id, file.id)
    assert await knowledge.write(owner, lambda one: one.remove_store_file(store_id, file.id))
    assert not await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "x"), INGESTION))
    again = await add_file(knowledge, owner, store_id, file.id)
    assert again.id != added.id
    assert not await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "x"), INGESTION))


async def test_attributes_that_change_while_a_file_is_read_are_kept(knowledge: TenantKnowledge) -> None:
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, b"one")
    store_id = await make_store(knowledge, owner)
    added = await add_file(knowledge, owner, store_id, file.id)
    assert await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "x"), INGESTION))
    attributes = {"team": "blue"}
    await knowledge.write(owner, lambda one: one.change_store_file(store_id, file.id, attributes))
    assert await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(1, "y"), INGESTION))
    found = await knowledge.read(owner, lambda one: one.find_store_file(store_id, file.id))
    assert found is not None
    assert found.ingestion.attributes == attributes
    assert await knowledge.write(owner, lambda one: one.update_ingestion(added, INGESTION, IngestionState.COMPLETED))
    read = await knowledge.read(owner, lambda one: one.list_searchable(store_id))
    assert read is not None
    assert [one.ingestion.attributes for one in read] == [attributes]


@for_each("callers, limit", {
    "a caller": ((KEY, ANNA, KEY, OTHER), 2),
    "an end user of the same key": ((ANNA, ANNA, ANNA, BERT), 3),
})  # fmt: skip
async def test_who_has_many_files_keeps_no_other_from_being_read(
    knowledge: TenantKnowledge, volume: Volume, callers: tuple[Caller, ...], limit: int
) -> None:
    added = []
    for caller in callers:
        owner = knowledge.identify(caller)
        file = await upload(knowledge, owner, b"one")
        await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)
        added.append((file.id, owner))
        volume.time.advance(1)
    pending = [(file_id, owner) for _, file_id, owner in await knowledge.list_pending(limit)]
    assert pending == [added[0], added[1], added[3]]


async def test_a_page_of_files_of_one_purpose_is_full(knowledge: TenantKnowledge, volume: Volume) -> None:
    owner = knowledge.identify(KEY)
    wanted = []
    for purpose in ("user_data", "assistants", "assistants", "user_data", "assistants", "user_data"):
        file_id = await knowledge.write(owner, lambda one: one.begin_file("a.txt"))
        await knowledge.write(owner, lambda one: one.finish_file(file_id, "a.txt", purpose, None))  # noqa: B023
        wanted += [file_id] if purpose == "user_data" else []
        volume.time.advance(1)
    page = ListPage(2, is_ascending=True)
    first = await knowledge.read(owner, lambda one: one.list_files(page, "user_data"))
    assert first is not None
    assert ([file.id for file in first.entries], first.has_more) == (wanted[:2], True)
    rest = await knowledge.read(owner, lambda one: one.list_files(replace(page, after=wanted[1]), "user_data"))
    assert rest is not None
    assert ([file.id for file in rest.entries], rest.has_more) == (wanted[2:], False)


async def test_files_of_an_earlier_release_are_listed_by_their_encrypted_purpose(
    knowledge: TenantKnowledge, store: TenantStore
) -> None:
    owner = knowledge.identify(KEY)
    names = []
    for purpose in ("user_data", "assistants"):
        file_id = await knowledge.write(owner, lambda one: one.begin_file("a.txt"))
        await knowledge.write(owner, lambda one: one.finish_file(file_id, "a.txt", purpose, None))  # noqa: B023
        names.append(file_id)
    await store.write(lambda ledger: ledger.connection.execute(sa.update(t.files).values(purpose=None)))
    found = await knowledge.read(owner, lambda one: one.list_files(ListPage(), "user_data"))
    assert found is not None
    assert [file.id for file in found.entries] == names[:1]


async def test_a_file_that_is_read_again_begins_without_chunks(store: TenantStore, knowledge: TenantKnowledge) -> None:
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, b"one")
    added = await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)
    await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "x"), INGESTION))
    before = await store.read(check_books)
    await knowledge.write(owner, lambda one: one.clear_batches(added))
    assert await store.read(check_books) < before
    await ingest(knowledge, owner, added, make_batch(0, "y"))
    assert await store.read(check_books) == before


async def test_an_erasure_takes_an_end_users_knowledge_and_leaves_the_keys(
    store: TenantStore, knowledge: TenantKnowledge
) -> None:
    key, anna = knowledge.identify(KEY), knowledge.identify(ANNA)
    shared = await upload(knowledge, key, b"handbook")
    own = await upload(knowledge, anna, b"diary")
    store_id = await make_store(knowledge, anna)
    await ingest(knowledge, anna, await add_file(knowledge, anna, store_id, own.id), make_batch(0, "a", "b"))
    receipt = await erase(store, ADMIN, ErasureScope(end_user="anna"))
    assert (receipt.files, receipt.vector_stores, receipt.chunks, len(receipt.data_keys)) == (1, 1, 2, 1)
    assert await knowledge.read(anna, lambda one: one.find_file(own.id)) is None
    assert await knowledge.read(anna, lambda one: one.find_vector_store(store_id)) is None
    assert await knowledge.read(anna, lambda one: one.find_file(shared.id)) == shared
    receipt = await erase(store, ADMIN, ErasureScope(caller_kind="api_key", caller_id=KEY.id))
    assert receipt.files == 1
    assert await store.read(check_books) == 0


async def test_what_expires_is_gone_at_once_and_deleted_within_the_hour(volume: Volume) -> None:
    async with volume.open() as store:
        knowledge = make_knowledge(store)
        owner = knowledge.identify(KEY)
        ends = await knowledge.write(owner, lambda one: one.begin_file("a.txt"))
        await knowledge.write(owner, lambda one: one.finish_file(ends, "a.txt", "assistants", 3600.0))
        stays = await upload(knowledge, owner, b"two")
        made = await knowledge.write(owner, lambda one: one.create_vector_store("s", "", {}, 1))
        volume.time.advance(2 * 86400)
        assert await knowledge.read(owner, lambda one: one.find_file(ends)) is None
        assert await knowledge.read(owner, lambda one: one.find_vector_store(made.id)) is None
        assert await knowledge.read(owner, lambda one: one.find_file(stays.id)) == stays
        await store.write(lambda one: prune_knowledge(one.connection, one.now))
        await store.read(check_books)
        listed = await knowledge.read(owner, lambda one: one.list_files(ListPage()))
        assert listed is not None
        assert [file.id for file in listed.entries] == [stays.id]


async def test_what_is_left_of_an_upload_that_was_cut_goes(store: TenantStore, knowledge: TenantKnowledge) -> None:
    owner = knowledge.identify(KEY)
    file_id = await knowledge.write(owner, lambda one: one.begin_file("a.txt"))
    await knowledge.write(owner, lambda one: one.append_part(file_id, 0, b"x"))
    assert await knowledge.read(owner, lambda one: one.find_file(file_id)) is None
    await store.write(lambda one: prune_knowledge(one.connection, one.now + UPLOAD_SECONDS - 60))
    assert await store.read(check_books) > 0
    await store.write(lambda one: prune_knowledge(one.connection, one.now + UPLOAD_SECONDS + 60))
    assert await store.read(check_books) == 0


async def test_a_row_that_was_moved_does_not_decrypt(store: TenantStore, knowledge: TenantKnowledge) -> None:
    owner = knowledge.identify(KEY)
    one, two = await upload(knowledge, owner, b"one"), await upload(knowledge, owner, b"two")

    def swap(writer: KnowledgeWriter) -> None:
        for statement in (
            "UPDATE file_parts SET file_id = ? WHERE file_id = ?",
            "UPDATE file_parts SET id = id || 'x'",
        ):
            values = (one.id + "-", one.id) if "?" in statement else ()
            writer.connection.exec_driver_sql(statement, values)

    await knowledge.write(owner, swap)
    with pytest.raises(UnreadableContentError):
        await knowledge.read(owner, lambda reader: reader.read_part(two.id, 0))


async def test_a_backup_restores_knowledge_and_not_what_was_erased_since(volume: Volume, store: TenantStore) -> None:
    knowledge = make_knowledge(store)
    key, anna = knowledge.identify(KEY), knowledge.identify(ANNA)
    kept, erased = await upload(knowledge, key, SECRET), await upload(knowledge, anna, SECRET)
    store_id = await make_store(knowledge, key)
    batch = make_batch(0, SECRET.decode())
    await ingest(knowledge, key, await add_file(knowledge, key, store_id, kept.id), batch)
    old = await back_up(store)
    await erase(store, ADMIN, ErasureScope(end_user="anna"))
    newest = await back_up(store)
    assert b"sesame" not in old.backup
    folder = make_scratch_folder("r1plus-elsewhere-")
    try:
        async with make_elsewhere(volume, folder).open() as other:
            await restore(other, replace(newest, backup=old.backup))
            there = make_knowledge(other)
            assert await there.read(key, lambda one: one.read_part(kept.id, 0)) == SECRET
            files = await there.read(key, lambda one: one.list_searchable(store_id))
            assert files is not None
            assert await there.read(key, lambda one: one.read_batches(files[0])) == [batch]
            with pytest.raises(UnreadableContentError):
                await there.read(anna, lambda one: one.find_file(erased.id))
            assert await there.write(anna, lambda one: one.delete_file(erased.id))
    finally:
        shutil.rmtree(folder)


async def test_a_batch_that_another_replica_has_stored_is_not_stored_twice(
    store: TenantStore, knowledge: TenantKnowledge
) -> None:
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, b"one")
    added = await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)
    assert await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "x"), INGESTION))
    assert not await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "x"), INGESTION))
    assert not await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(2, "x"), INGESTION))
    assert len(await knowledge.read(owner, lambda one: one.read_batches(added))) == 1
    await store.read(check_books)


async def test_chunks_of_two_readers_are_never_mixed(store: TenantStore, knowledge: TenantKnowledge) -> None:
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, b"one")
    store_id = await make_store(knowledge, owner)
    added = await add_file(knowledge, owner, store_id, file.id)
    other = replace(INGESTION, reader="tests/2")
    assert await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "x"), INGESTION))
    assert not await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(1, "y"), other))
    await knowledge.write(owner, lambda one: one.clear_batches(added))
    assert await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(0, "y"), other))
    assert not await knowledge.write(owner, lambda one: one.append_batch(added, make_batch(1, "x"), INGESTION))
    assert not await knowledge.write(owner, lambda one: one.finish_ingestion(added, INGESTION, 1))
    assert not await knowledge.write(owner, lambda one: one.finish_ingestion(added, other, 2))
    assert await knowledge.write(owner, lambda one: one.finish_ingestion(added, other, 1))
    read = await knowledge.read(owner, lambda one: one.list_searchable(store_id))
    assert read is not None
    batches = await knowledge.read(owner, lambda one: one.read_batches(read[0]))
    assert [chunk.text for batch in batches for chunk in batch.chunks] == ["y"]
    await store.read(check_books)


async def test_others_write_between_the_parts_of_a_large_deletion(store: TenantStore) -> None:
    knowledge = make_knowledge(store, replace(LIMITS, deletion=DeletionStep(batches=2, parts=2)))
    owner = knowledge.identify(KEY)
    file = await upload(knowledge, owner, *[b"part"] * 5)
    store_id = await make_store(knowledge, owner)
    added = await add_file(knowledge, owner, store_id, file.id)
    await ingest(knowledge, owner, added, *[make_batch(place, "a", "b") for place in range(9)])
    assert await knowledge.write(owner, lambda one: one.delete_vector_store(store_id))
    assert not await knowledge.write(owner, lambda one: one.delete_vector_store(store_id))
    assert await knowledge.read(owner, lambda one: one.find_vector_store(store_id)) is None
    assert await knowledge.read(owner, lambda one: one.list_searchable(store_id)) is None
    sizes = [await store.read(check_books)]
    while await knowledge.write(owner, lambda one: one.drop_deleted()):
        sizes.append(await store.read(check_books))
        assert (await upload(knowledge, owner, b"x")).bytes == 1
        assert await knowledge.delete(owner, lambda one: one.delete_file(file.id)) == (len(sizes) == 2)
    assert await store.read(lambda one: one.scalar(sa.select(sa.func.count()).select_from(t.chunk_batches))) == 0


async def test_a_large_deletion_that_was_cut_goes_on_in_the_stores_rounds(volume: Volume) -> None:
    async with volume.open() as store:
        knowledge = make_knowledge(store, replace(LIMITS, deletion=DeletionStep(batches=2, parts=2)))
        owner = knowledge.identify(KEY)
        file = await upload(knowledge, owner, *[b"part"] * 5)
        assert await knowledge.write(owner, lambda one: one.delete_file(file.id))
        assert await store.read(check_books) > 0
        assert await knowledge.read(owner, lambda one: one.find_file(file.id)) is None
    async with volume.open() as store:
        while await store.write(lambda one: prune_knowledge(one.connection, one.now)):
            pass
        assert await store.read(check_books) == 0


async def delete_large_store(knowledge: TenantKnowledge, files: int) -> str:
    """Delete a vector store of files that are not read yet; it goes in parts. Return its id."""
    owner = knowledge.identify(KEY)
    store_id = await make_store(knowledge, owner)
    for _ in range(files):
        await add_file(knowledge, owner, store_id, (await upload(knowledge, owner, b"part")).id)
    assert await knowledge.write(owner, lambda one: one.delete_vector_store(store_id))
    return store_id


async def test_nothing_is_read_into_what_was_deleted_and_goes_in_parts(store: TenantStore) -> None:
    knowledge = make_knowledge(store, replace(LIMITS, deletion=DeletionStep(batches=2, parts=2)))
    owner = knowledge.identify(KEY)
    deleted = await delete_large_store(knowledge, 3)
    assert await knowledge.list_pending() == [], "else the ingestion looks for it without a pause"
    large, whole = await upload(knowledge, owner, *[b"part"] * 5), await upload(knowledge, owner, b"part")
    there = await make_store(knowledge, owner)
    file = await add_file(knowledge, owner, there, large.id)
    await knowledge.write(owner, lambda one: one.delete_file(large.id))
    assert await knowledge.list_pending() == []
    for store_id, file_id in ((there, large.id), (deleted, whole.id)):
        add = lambda one: one.add_store_file(store_id, file_id, INGESTION)  # noqa: B023, E731
        assert await knowledge.write(owner, add) is None
    batch = make_batch(0, "a")
    assert not await knowledge.write(owner, lambda one: one.append_batch(file, batch, INGESTION))
    assert await knowledge.list_pending() == []
    await store.read(check_books)


async def test_what_has_expired_is_not_read(store: TenantStore) -> None:
    knowledge = make_knowledge(store)
    owner = knowledge.identify(KEY)
    expired, there = await make_store(knowledge, owner), await make_store(knowledge, owner)
    file = await upload(knowledge, owner, b"part")
    for store_id in (expired, there):
        await add_file(knowledge, owner, store_id, file.id)
    ends = sa.update(t.vector_stores).where(t.vector_stores.c.id == expired).values(expires_at=1.0)
    await store.write(lambda one: one.connection.execute(ends))
    assert [store_id for store_id, *_ in await knowledge.list_pending()] == [there]


@pytest.mark.unit_slow
async def test_one_transaction_deletes_many_small_files_of_a_vector_store(store: TenantStore) -> None:
    knowledge = make_knowledge(store, replace(LIMITS, deletion=DeletionStep(batches=8, parts=8)))
    owner = knowledge.identify(KEY)
    await delete_large_store(knowledge, 40)
    count = 1
    while await knowledge.write(owner, lambda one: one.drop_deleted()):
        count += 1
    assert count == 5
    await store.read(check_books)


async def test_an_upload_whose_time_is_over_does_not_go_on_while_it_is_deleted_in_parts(store: TenantStore) -> None:
    knowledge = make_knowledge(store)
    owner = knowledge.identify(KEY)
    file_id = await knowledge.write(owner, lambda one: one.begin_file("a.txt"))
    for place in range(5):
        await knowledge.write(owner, lambda one: one.append_part(file_id, place, b"part"))  # noqa: B023
    step, late = DeletionStep(batches=2, parts=2), UPLOAD_SECONDS + 1
    assert await store.write(lambda one: prune_knowledge(one.connection, one.now + late, step=step))
    assert not await knowledge.write(owner, lambda one: one.append_part(file_id, 5, b"part"))
    assert await knowledge.write(owner, lambda one: one.finish_file(file_id, "a.txt", "assistants", None)) is None
    while await knowledge.write(owner, lambda one: one.drop_deleted()):
        pass
    assert await store.read(check_books) == 0


async def test_what_was_large_of_a_cut_upload_goes_in_parts(store: TenantStore) -> None:
    knowledge = make_knowledge(store, replace(LIMITS, deletion=DeletionStep(batches=2, parts=2)))
    owner = knowledge.identify(KEY)
    file_id = await knowledge.write(owner, lambda one: one.begin_file("a.txt"))
    for place in range(5):
        await knowledge.write(owner, lambda one: one.append_part(file_id, place, b"part"))  # noqa: B023
    assert await knowledge.write(owner, lambda one: one.drop_upload(file_id))
    assert await store.read(check_books) > 0
    assert not await knowledge.delete(owner, lambda one: one.drop_upload(file_id))
    assert await store.read(check_books) == 0


async def test_a_deletion_whose_caller_has_left_goes_on_in_the_next_round(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with volume.open() as store:
        await store.maintain()
        knowledge = make_knowledge(store, replace(LIMITS, deletion=DeletionStep(batches=2, parts=2)))
        owner = knowledge.identify(KEY)
        file = await upload(knowledge, owner, *[b"part"] * 5)
        assert await knowledge.write(owner, lambda one: one.delete_file(file.id))
        with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
            patch.setattr(TenantKnowledge, "write", _leave)
            await knowledge.drop_deleted(owner)
        assert await store.read(check_books) > 0
        await store.maintain()
        assert await store.read(check_books) == 0


async def _leave(*_: object) -> bool:
    raise asyncio.CancelledError
