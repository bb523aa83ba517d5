"""Stored content: whose it is, how much there may be, what the file shows, and when it goes."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from r1plus_assistant.store.content_reader import ContentReader
from r1plus_assistant.store.content_writer import ContentWriter
from r1plus_assistant.store.tenant_content import WRITES_AT_ONCE, TenantContent
from r1plus_gateway.access.caller import Caller, CallerKind
from r1plus_gateway.store.administration.admin import confirm_time
from r1plus_gateway.store.content.content import (
    ENTRY_BYTES,
    MOST_ITEMS,
    OWNER_BYTES,
    ContentLimitError,
    ContentLimits,
    HistoryBrokenError,
    HistoryTooLongError,
    Listed,
    ListPage,
    MemoryChanges,
    MemorySource,
    StoredConversation,
    StoredResponse,
)
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import ContentCipher, DataKey, Owner, UnreadableContentError
from r1plus_gateway.store.keys.tenant_keys import derive_keys
from r1plus_gateway.store.tenant import Periods, TenantStore
from r1plus_gateway.store.upkeep import retention
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from support.gateway.content import MIB, check_books, make_content, say
from support.gateway.content_crash import take_steps
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.tables import for_each
from support.waiting import eventually

CALLER = make_caller()
ANNA = make_caller(end_user="anna@example.com")
SECRET = "the vault's code is sesame"


@pytest.fixture
async def store(volume: Volume) -> AsyncIterator[TenantStore]:
    """A store that looks for old content in each round."""
    opened = volume.make_store(Periods(prune=0.0))
    assert await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def content(store: TenantStore) -> TenantContent:
    return make_content(store)


def count_rows(store: TenantStore, *tables: sa.Table) -> list[int]:
    with store.require_data().database.transaction(writes=False) as connection:
        return [connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables]


async def read_size(store: TenantStore) -> int:
    """Return the bytes that the books say, after comparing them with the rows."""
    return await store.read(check_books)


async def test_a_conversation_is_read_as_it_was_written_also_after_a_restart(volume: Volume) -> None:
    said = [say("My name is Anna."), say("Hello Anna.", "assistant"), {"type": "function_call", "name": "f"}]
    async with volume.open() as store:
        content = make_content(store)
        made = await content.write(CALLER, lambda one: one.create_conversation({"topic": "names"}, said[:2]))
        await content.write(CALLER, lambda one: one.append_items(made.id, said[2:]))
    async with volume.open() as store:
        content = make_content(store)
        assert await content.read(CALLER, lambda one: one.find_conversation(made.id)) == made
        listed = await content.read(CALLER, lambda one: one.list_items(made.id, ListPage(is_ascending=True)))
        assert listed is not None
        assert [item.content for item in listed.entries] == said
        assert [item.id.partition("_")[0] for item in listed.entries] == ["msg", "msg", "fc"]
        assert not listed.has_more


@pytest.mark.parametrize(
    "other",
    [
        make_caller("key000000002"),
        make_caller(end_user="bert@example.com"),
        make_caller(),
        make_caller(kind=CallerKind.SERVICE_ACCOUNT, end_user="anna@example.com"),
    ],
    ids=["another key", "another end user", "the key itself", "an account of the same name"],
)
async def test_nobody_else_finds_changes_or_deletes_content(
    other: Caller, content: TenantContent, store: TenantStore
) -> None:
    made = await content.write(ANNA, lambda one: one.create_conversation({}, [say(SECRET)]))
    item = (await content.read(ANNA, lambda one: one.list_items(made.id, ListPage()))).entries[0]  # type: ignore[union-attr]
    answer = StoredResponse("resp_1", "", [say(SECRET)], {"text": SECRET})
    await content.write(ANNA, lambda one: one.store_response(answer))
    before = await read_size(store)
    assert await content.read(other, lambda one: one.find_conversation(made.id)) is None
    assert await content.read(other, lambda one: one.list_conversations(ListPage(after=made.id))) is None
    assert await content.read(other, lambda one: one.list_conversations(ListPage())) == Listed([], has_more=False)
    assert await content.read(other, lambda one: one.list_items(made.id, ListPage())) == Listed([], has_more=False)
    assert await content.read(other, lambda one: one.find_item(made.id, item.id)) is None
    assert await content.read(other, lambda one: one.read_items(made.id, MIB)) == []
    assert await content.read(other, lambda one: one.find_response("resp_1")) is None
    assert await content.read(other, lambda one: one.read_history("resp_1", MIB)) is None
    assert await content.write(other, lambda one: one.replace_attributes(made.id, {"a": "b"})) is None
    assert await content.write(other, lambda one: one.append_items(made.id, [say("x")])) is None
    assert not await content.write(other, lambda one: one.delete_item(made.id, item.id))
    assert not await content.write(other, lambda one: one.delete_conversation(made.id))
    assert not await content.write(other, lambda one: one.delete_response("resp_1"))
    assert await read_size(store) == before
    assert await content.read(ANNA, lambda one: one.find_conversation(made.id)) == made
    assert await content.read(ANNA, lambda one: one.find_response("resp_1")) == answer


async def test_pages_of_a_list_have_each_entry_once(volume: Volume, content: TenantContent) -> None:
    made = []
    for _ in range(5):
        made.append((await content.write(CALLER, lambda one: one.create_conversation({}, []))).id)
        volume.time.advance(1)
    target = made[0]
    texts = [str(number) for number in range(5)]
    await content.write(CALLER, lambda one: one.append_items(target, [say(text) for text in texts]))

    async def read_pages(read: Callable[[ContentReader, ListPage], object], *, is_ascending: bool) -> list[object]:
        entries: list[object] = []
        for _ in itertools.count():
            after = entries[-1].id if entries else ""  # type: ignore[attr-defined]
            page = ListPage(2, after, is_ascending)
            listed = await content.read(CALLER, lambda one: read(one, page))  # noqa: B023
            entries += listed.entries  # type: ignore[attr-defined]
            if not listed.has_more:  # type: ignore[attr-defined]
                return entries
        raise AssertionError

    for is_ascending in (True, False):
        step = 1 if is_ascending else -1
        conversations = await read_pages(lambda one, page: one.list_conversations(page), is_ascending=is_ascending)
        assert [one.id for one in conversations] == made[::step]  # type: ignore[attr-defined]
        items = await read_pages(lambda one, page: one.list_items(target, page), is_ascending=is_ascending)
        assert [one.content for one in items] == [say(text) for text in texts][::step]  # type: ignore[attr-defined]
    assert await content.read(CALLER, lambda one: one.list_items(target, ListPage(after="msg_none"))) is None


async def test_what_is_deleted_is_gone_and_no_longer_counted(content: TenantContent, store: TenantStore) -> None:
    made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("a"), say("b")]))
    listed = await content.read(CALLER, lambda one: one.list_items(made.id, ListPage(is_ascending=True)))
    assert listed is not None
    first, second = listed.entries
    assert await content.write(CALLER, lambda one: one.delete_item(made.id, first.id))
    assert not await content.write(CALLER, lambda one: one.delete_item(made.id, first.id))
    assert await content.read(CALLER, lambda one: one.find_item(made.id, first.id)) is None
    assert await content.read(CALLER, lambda one: one.find_item(made.id, second.id)) == second
    await content.write(CALLER, lambda one: one.replace_attributes(made.id, {"topic": "x" * 100}))
    assert await read_size(store) > 100
    await content.write(CALLER, lambda one: one.store_response(StoredResponse("resp_1", "", [say("a")], {})))
    assert await content.write(CALLER, lambda one: one.delete_response("resp_1"))
    assert await content.write(CALLER, lambda one: one.delete_conversation(made.id))
    assert await read_size(store) == 0
    assert count_rows(store, t.conversations, t.conversation_items, t.responses) == [0, 0, 0]


async def test_a_history_is_the_chain_of_responses_and_breaks_where_one_was_deleted(content: TenantContent) -> None:
    chain = [
        StoredResponse(f"resp_{number}", f"resp_{number - 1}" if number else "", [say(str(number))], {"n": number})
        for number in range(4)
    ]
    for one in chain:
        await content.write(CALLER, lambda writer: writer.store_response(one))  # noqa: B023
    assert await content.read(CALLER, lambda one: one.read_history("resp_3", MIB)) == chain
    assert await content.read(CALLER, lambda one: one.read_history("resp_1", MIB)) == chain[:2]
    await content.write(CALLER, lambda one: one.delete_response("resp_2"))
    with pytest.raises(HistoryBrokenError, match="resp_3 follows resp_2, which is not there"):
        await content.read(CALLER, lambda one: one.read_history("resp_3", MIB))
    assert await content.read(CALLER, lambda one: one.read_history("resp_2", MIB)) is None


async def test_a_history_ends_at_what_another_owner_has(content: TenantContent) -> None:
    for caller, answer in (
        (CALLER, StoredResponse("resp_1", "", [say(SECRET)], {})),
        (ANNA, StoredResponse("resp_2", "resp_1", [say("x")], {})),
    ):
        await content.write(caller, lambda one: one.store_response(answer))  # noqa: B023
    with pytest.raises(HistoryBrokenError, match="resp_2 follows resp_1, which is not there"):
        await content.read(ANNA, lambda one: one.read_history("resp_2", MIB))


async def test_a_page_ends_before_it_is_too_large_to_hold(store: TenantStore) -> None:
    content = make_content(store, ContentLimits(8 * MIB, 8 * MIB))
    sizes = [MIB // 2, MIB // 4, MIB // 4, 2 * MIB, 10]
    made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("x" * size) for size in sizes]))
    pages, after, has_more = [], "", True
    while has_more:
        page = ListPage(100, after, is_ascending=True)
        listed = await content.read(CALLER, lambda one: one.list_items(made.id, page))  # type: ignore[assignment]  # noqa: B023
        pages.append([len(item.content["content"][0]["text"]) for item in listed.entries])
        after, has_more = listed.entries[-1].id, listed.has_more
    assert pages == [sizes[:2], sizes[2:3], sizes[3:4], sizes[4:]]


async def test_a_history_that_no_prompt_could_hold_is_not_read(content: TenantContent) -> None:
    made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("x" * 500)] * 3))
    assert len(await content.read(CALLER, lambda one: one.read_items(made.id, 5000))) == 3
    for number, previous in enumerate(("", "resp_0", "resp_1")):
        answer = StoredResponse(f"resp_{number}", previous, [say("x" * 500)], {})
        await content.write(CALLER, lambda one: one.store_response(answer))  # noqa: B023
    for read in (lambda one: one.read_items(made.id, 1500), lambda one: one.read_history("resp_2", 1500)):
        with pytest.raises(HistoryTooLongError, match="bytes, more than 1500"):
            await content.read(CALLER, read)


async def test_of_a_history_that_is_too_long_the_newest_part_is_read(content: TenantContent) -> None:
    made = await content.write(CALLER, lambda one: one.create_conversation({}, [say(f"{n}" * 500) for n in range(4)]))
    chain = [StoredResponse(f"resp_{n}", f"resp_{n - 1}" if n else "", [say(f"{n}" * 500)], {}) for n in range(4)]
    for answer in chain:
        await content.write(CALLER, lambda one: one.store_response(answer))  # noqa: B023
    for most, count in ((0, 0), (1500, 2), (MIB, 4)):
        items = await content.read(CALLER, lambda one: one.read_items(made.id, most, cuts_oldest=True))  # noqa: B023
        assert [item.content["content"][0]["text"][0] for item in items] == ["0", "1", "2", "3"][4 - count :]
        history = await content.read(CALLER, lambda one: one.read_history("resp_3", most, cuts_oldest=True))  # noqa: B023
        assert history == chain[4 - count :]

    assert await content.read(ANNA, lambda one: one.read_items(made.id, MIB, cuts_oldest=True)) == []


async def test_a_conversation_takes_no_more_items_than_a_request_may_have(store: TenantStore) -> None:
    content = make_content(store, ContentLimits(4 * MIB, 4 * MIB))
    made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("x")] * (MOST_ITEMS - 1)))
    await content.write(CALLER, lambda one: one.append_items(made.id, [say("last")]))
    with pytest.raises(ContentLimitError, match="2048 are in the conversation, and 1 more exceed 2048"):
        await content.write(CALLER, lambda one: one.append_items(made.id, [say("too many")]))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ContentLimits(6000, 20_000), "exceed the 6000 that this key may store, of which {} are in use"),
        (ContentLimits(20_000, 6000), "exceed what is left of the 6000 that all of the tenant may store; delete"),
    ],
    ids=["of the caller", "of the tenant"],
)
async def test_content_that_exceeds_a_limit_is_refused_and_nothing_of_it_is_stored(
    limits: ContentLimits, message: str, store: TenantStore
) -> None:
    content = make_content(store, limits)
    made = await content.write(ANNA, lambda one: one.create_conversation({}, [say("x" * 700)]))
    before = await read_size(store)
    other = make_caller()
    with pytest.raises(ContentLimitError, match=message.format(before)):
        await content.write(other, lambda one: one.create_conversation({}, [say("x" * 2000)]))
    with pytest.raises(ContentLimitError):
        await content.write(ANNA, lambda one: one.append_items(made.id, [say("x" * 3000)]))
    with pytest.raises(ContentLimitError):
        await content.write(ANNA, lambda one: one.replace_attributes(made.id, {"a": "x" * 4000}))
    with pytest.raises(ContentLimitError):
        await content.write(ANNA, lambda one: one.store_response(StoredResponse("r", "", [say("x" * 3000)], {})))
    assert await read_size(store) == before
    assert count_rows(store, t.conversations, t.conversation_items, t.responses) == [1, 1, 0]
    await content.write(ANNA, lambda one: one.delete_conversation(made.id))
    await content.write(other, lambda one: one.create_conversation({}, [say("x" * 2000)]))
    await read_size(store)


async def test_a_step_that_is_refused_halfway_has_stored_nothing(store: TenantStore) -> None:
    content = make_content(store, ContentLimits(6000, 20_000))
    made = await content.write(CALLER, lambda one: one.create_conversation({}, []))

    def append_and_store(one: ContentWriter) -> None:
        one.append_items(made.id, [say("x" * 1000)])
        one.store_response(StoredResponse("resp_1", "", [say("x" * 1000)], {"text": "x" * 3000}))

    before = await read_size(store)
    with pytest.raises(ContentLimitError):
        await content.write(CALLER, append_and_store)
    assert await read_size(store) == before
    assert count_rows(store, t.conversation_items, t.responses) == [0, 0]


async def test_entries_without_text_fill_the_limit_as_well(store: TenantStore) -> None:
    """Each costs a row of the volume: 64 MiB of empty conversations would fill it."""
    content = make_content(store, ContentLimits(20_000, 40_000))
    count = 0
    with pytest.raises(ContentLimitError):
        for count in range(1000):  # noqa: B007 - the last one counts
            await content.write(CALLER, lambda one: one.create_conversation({}, []))
    assert count == (20_000 - OWNER_BYTES) // (ENTRY_BYTES + 30)
    with pytest.raises(ContentLimitError):
        for number in range(1000):
            caller = make_caller("key000000002", end_user=f"user-{number}")
            await content.write(caller, lambda one: one.create_conversation({}, []))
    of_one = OWNER_BYTES + ENTRY_BYTES + 30
    assert number == 10_000 // of_one - 1, "half of what it may have alone, and the last one has half of what is left"
    await read_size(store)


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_keys_that_store_all_they_may_leave_another_key_room(store: TenantStore, times: float) -> None:
    """As many as would fill the tenant, if each stored what one may alone."""
    limits, text = ContentLimits(MIB // 8, MIB), say("x" * 8000)
    content, left = make_content(store, limits), MIB
    greedy = [make_caller(f"key{number:09}") for number in range(8)]
    made: list[tuple[Caller, StoredConversation]] = []
    for caller in greedy:
        for _ in range(round(times * limits.caller_bytes / 8000)):
            with contextlib.suppress(ContentLimitError):
                made.append((caller, await content.write(caller, lambda one: one.create_conversation({}, [text]))))
        before, left = left, MIB - await read_size(store)
        assert left >= before * 7 / 8, "it has an eighth of what the others leave, and no more"
    with pytest.raises(ContentLimitError, match="this key's share of the tenant's"):
        await content.write(greedy[-1], lambda one: one.create_conversation({}, [text]))
    other = make_caller("key000000009")
    for _ in range(3):
        await content.write(other, lambda one: one.create_conversation({}, [text]))
    for caller, conversation in made:
        await content.write(caller, lambda one: one.delete_conversation(conversation.id))  # noqa: B023
    await content.write(greedy[0], lambda one: one.create_conversation({}, [text]))
    await read_size(store)


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_an_end_user_leaves_room_to_its_key_and_the_others_of_it(store: TenantStore, times: float) -> None:
    limits, text = ContentLimits(80_000, 10 * 80_000), say(Random(1).randbytes(2000).hex())
    content, key = make_content(store, limits), "key000000001"

    async def fill(caller: Caller, most: int) -> int:
        count = 0
        with contextlib.suppress(ContentLimitError):
            while count < most:
                await content.write(caller, lambda one: one.create_conversation({}, [text]))
                count += 1
        return count

    of_anna = await fill(make_caller(key, end_user="anna"), round(20 * times))
    with pytest.raises(ContentLimitError, match="this end user's share"):
        await content.write(make_caller(key, end_user="anna"), lambda one: one.create_conversation({}, [text] * 2))
    of_bert = await fill(make_caller(key, end_user="bert"), 100)
    of_key = await fill(make_caller(key), 100)
    assert 0 < of_bert < of_anna <= of_bert + of_key, "she has half of what there is, and he half of what she leaves"
    await read_size(store)


async def test_owners_whose_content_is_gone_or_was_refused_leave_nothing(store: TenantStore) -> None:
    content = make_content(store, ContentLimits(6000, 20_000))
    for number in range(5):
        caller = make_caller(end_user=f"user-{number}")
        made = await content.write(caller, lambda one: one.create_conversation({}, [say("x")]))
        answer = StoredResponse(f"resp_{number}", "", [say("x")], {})
        await content.write(caller, lambda one: one.store_response(answer))  # noqa: B023
        await content.write(caller, lambda one: one.delete_conversation(made.id))  # noqa: B023
        assert count_rows(store, t.data_keys, t.content_sizes) == [1, 1], "a response is still there"
        await content.write(caller, lambda one: one.delete_response(answer.id))  # noqa: B023
        with pytest.raises(ContentLimitError):
            await content.write(caller, lambda one: one.create_conversation({}, [say("x" * 6000)]))
    assert count_rows(store, t.data_keys, t.content_sizes) == [0, 0]
    assert await read_size(store) == 0


async def test_a_step_that_finds_unreadable_content_delays_no_other(
    content: TenantContent, store: TenantStore, caplog: pytest.LogCaptureFixture
) -> None:
    made = await content.write(ANNA, lambda one: one.create_conversation({}, []))
    with store.require_data().database.transaction(writes=True) as connection:
        connection.execute(sa.update(t.data_keys).values(wrapped_key=b"x" * 60))
    begun = []

    def refuse(one: ContentWriter) -> None:
        begun.append(one)
        one.append_items(made.id, [say("x")])

    others = [content.write(CALLER, lambda one: one.create_conversation({}, [])) for _ in range(3)]
    results = await asyncio.gather(*others, content.write(ANNA, refuse), return_exceptions=True)
    assert [type(result).__name__ for result in results] == [*["StoredConversation"] * 3, "UnreadableContentError"]
    assert len(begun) == 1, "the batch was run again"
    assert "failed" not in caplog.text


async def test_rows_hold_no_text_and_do_not_decrypt_in_another_place(
    content: TenantContent, store: TenantStore
) -> None:
    made = await content.write(ANNA, lambda one: one.create_conversation({"topic": SECRET}, [say(SECRET)]))
    other = await content.write(ANNA, lambda one: one.create_conversation({}, [say("harmless")]))
    database = store.require_data().database
    with database.transaction(writes=False) as connection:
        for table in t.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                assert b"sesame" not in b"".join(one for one in row if isinstance(one, bytes))
                assert "sesame" not in repr(row)
                assert "anna" not in repr(row)
    items = t.conversation_items
    with database.transaction(writes=True) as connection:
        stolen = connection.scalar(sa.select(items.c.content).where(items.c.conversation_id == made.id))
        connection.execute(sa.update(items).where(items.c.conversation_id == other.id).values(content=stolen))
    with pytest.raises(UnreadableContentError, match="does not decrypt"):
        await content.read(ANNA, lambda one: one.list_items(other.id, ListPage()))


@for_each("changes", {
    "another tenant": {"tenant": "another"},
    "another table": {"table": "responses"},
    "another row": {"row": "conv_2"},
    "another key's name": {"key_id": "2"},
})  # fmt: skip
def test_a_ciphertext_is_bound_to_its_tenant_table_row_and_key(changes: Mapping[str, str]) -> None:
    """With the right key in hand, as of a copied database, or of a root that two tenants share by mistake."""
    keys = derive_keys(b"r" * 32)

    def decrypt(
        sealed: bytes, tenant: str = "own", table: str = "items", row: str = "conv_1", key_id: str = "1"
    ) -> bytes:
        return ContentCipher(lambda: keys, tenant).decrypt(DataKey(key_id, b"k" * 32), table, row, sealed)

    sealed = ContentCipher(lambda: keys, "own").encrypt(DataKey("1", b"k" * 32), "items", "conv_1", b"text")
    assert decrypt(sealed) == b"text"
    with pytest.raises(UnreadableContentError):
        decrypt(sealed, **changes)


@for_each("tenant, owner", {
    "another tenant": ("another", Owner("api_key", "a", "anna")),
    "another caller": ("own", Owner("api_key", "b", "anna")),
    "another kind of caller": ("own", Owner("service_account", "a", "anna")),
    "another end user": ("own", Owner("api_key", "a", "bert")),
})  # fmt: skip
def test_a_wrapped_data_key_is_bound_to_its_tenant_and_owner(tenant: str, owner: Owner) -> None:
    keys, own = derive_keys(b"r" * 32), Owner("api_key", "a", "anna")
    key, wrapped = ContentCipher(lambda: keys, "own").create_key(own)
    assert ContentCipher(lambda: keys, "own").unwrap_key(key.id, own, wrapped).value == key.value
    with pytest.raises(UnreadableContentError):
        ContentCipher(lambda: keys, tenant).unwrap_key(key.id, owner, wrapped)


async def test_content_is_unreadable_for_another_owner_even_with_the_row_in_its_name(
    content: TenantContent, store: TenantStore
) -> None:
    made = await content.write(ANNA, lambda one: one.create_conversation({}, [say(SECRET)]))
    with store.require_data().database.transaction(writes=True) as connection:
        for table in (t.conversations, t.data_keys):
            connection.execute(sa.update(table).values(end_user=""))
    with pytest.raises(UnreadableContentError):
        await content.read(CALLER, lambda one: one.find_conversation(made.id))


async def test_content_goes_when_it_was_not_used_for_as_long_as_the_policy_says(
    volume: Volume, content: TenantContent, store: TenantStore
) -> None:
    old = await content.write(ANNA, lambda one: one.create_conversation({}, [say("old")]))
    used = await content.write(CALLER, lambda one: one.create_conversation({}, [say("used")]))
    await content.write(ANNA, lambda one: one.store_response(StoredResponse("resp_old", "", [], {})))
    await store.maintain()
    volume.time.advance(20 * 86400)
    await content.write(CALLER, lambda one: one.append_items(used.id, [say("more")]))
    await content.write(CALLER, lambda one: one.store_response(StoredResponse("resp_new", "", [], {})))
    volume.time.advance(11 * 86400)
    await store.maintain()
    assert await content.read(ANNA, lambda one: one.find_conversation(old.id)) is None
    assert await content.read(ANNA, lambda one: one.find_response("resp_old")) is None
    assert await content.read(CALLER, lambda one: one.find_conversation(used.id)) is not None
    assert await content.read(CALLER, lambda one: one.find_response("resp_new")) is not None
    assert count_rows(store, t.data_keys) == [1], "the key of an owner without content stays"
    await read_size(store)


async def test_a_tenant_that_stops_storing_keeps_what_it_has_for_as_long_as_was_said(volume: Volume) -> None:
    async with volume.open() as store:
        content = make_content(store)
        assert content.is_stored
        made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("x")]))
        await store.maintain()
    volume.content_days = 0.0
    volume.time.advance(29 * 86400)
    async with volume.open() as store:
        content = make_content(store)
        assert not content.is_stored
        await store.maintain()
        assert await content.read(CALLER, lambda one: one.find_conversation(made.id)) is not None
    async with volume.open() as store:
        volume.time.advance(2 * 86400)
        await confirm_time(store, ADMIN)
        await store.maintain()
        assert count_rows(store, t.conversations, t.conversation_items, t.data_keys) == [0, 0, 0]


@pytest.mark.unit_slow
async def test_much_old_content_goes_in_several_rounds(
    volume: Volume, content: TenantContent, store: TenantStore
) -> None:
    for _ in range(250):
        await content.write(CALLER, lambda one: one.create_conversation({}, []))
    volume.time.advance(31 * 86400)
    left = []
    for _ in range(4):
        await store.maintain()
        left += count_rows(store, t.conversations)
    assert left == [150, 50, 0, 0]


async def test_old_conversations_of_many_items_go_a_few_at_a_time(
    volume: Volume, content: TenantContent, store: TenantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests wait while they go."""
    monkeypatch.setattr(retention, "MOST_PRUNED_ITEMS", 10)
    for _ in range(6):
        await content.write(CALLER, lambda one: one.create_conversation({}, [say("x")] * 6))
    volume.time.advance(31 * 86400)
    left = []
    for _ in range(4):
        await store.maintain()
        left += count_rows(store, t.conversations)
    assert left == [4, 2, 0, 0]


async def test_reads_of_one_caller_leave_a_thread_to_the_others(content: TenantContent) -> None:
    """Keys are looked up by the same threads."""
    gate = threading.Event()
    slow = [asyncio.create_task(content.read(ANNA, lambda _: gate.wait(60))) for _ in range(5)]
    other = make_caller("key000000002")
    async with asyncio.timeout(30):
        assert await content.read(other, lambda one: one.find_conversation("conv_1")) is None
    assert not any(task.done() for task in slow)
    gate.set()
    assert all(await asyncio.gather(*slow))


async def test_few_writes_of_one_caller_are_before_those_of_the_others(
    content: TenantContent, store: TenantStore
) -> None:
    gate, has_begun, order = threading.Event(), threading.Event(), list[str]()
    running = asyncio.create_task(store.write(lambda _: (has_begun.set(), gate.wait(60))))
    await eventually(has_begun.is_set, "the writer is busy", period_s=0.001)
    other = make_caller("key000000002")
    callers = [ANNA] * 20 + [other]
    writes = [
        asyncio.create_task(content.write(caller, lambda one: order.append(one.owner.caller_id))) for caller in callers
    ]
    await eventually(lambda: store._writer.pending == WRITES_AT_ONCE + 1, "the first of each wait", period_s=0.001)
    gate.set()
    await asyncio.gather(running, *writes)
    assert order.index(other.id) == WRITES_AT_ONCE
    assert len(order) == 21


SMALL = ("meta", "content_totals", "instances", "chain", "api_keys", "reservations")
"""Tables that have few rows whatever is stored."""


OF_ALL_KEYS = {
    ("data_keys", "SCAN data_keys USING INDEX ix_data_keys_owner"),
    ("data_keys)", "SCAN anon_1"),
    ("data_keys", "SCAN old"),
    ("data_keys", "SCAN new"),
}
"""A rotation gives each owner a new key, a few at a time, looks for older ones, and counts what is left."""


@pytest.mark.unit_slow
async def test_no_statement_reads_a_whole_table_but_those_that_are_about_all_keys(store: TenantStore) -> None:
    """At 10^5 rows each that does holds up all requests for seconds."""
    statements: dict[str, Any] = {}

    def note(_: object, __: object, statement: str, parameters: Any, ___: object, is_many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            statements.setdefault(statement, parameters[0] if is_many else parameters)

    database = store.require_data().database
    sa.event.listen(database.engine, "before_cursor_execute", note)
    await take_steps(store, lambda: None)
    content = make_content(store)
    await content.write(CALLER, lambda one: one.store_response(StoredResponse("resp_1", "", [], {})))
    await content.read(CALLER, lambda one: one.read_history("resp_1", MIB))
    for page in (ListPage(), ListPage(is_ascending=True)):
        await content.read(CALLER, lambda one: one.list_conversations(page))  # noqa: B023
    await erase(store, ADMIN, ErasureScope(caller_kind=CALLER.kind.value, caller_id=CALLER.id))
    sa.event.remove(database.engine, "before_cursor_execute", note)
    assert len(statements) > 50
    slow = set()
    with database.engine.connect() as connection:
        for statement, parameters in statements.items():
            plan = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            table = statement.split("FROM")[-1].split()[0]
            slow |= {(table, str(row[3])) for row in plan if _is_slow(table, statement, str(row[3]))}
    assert {entry for entry in slow if "COVERING INDEX" not in entry[1] and entry not in OF_ALL_KEYS} == set()


def _is_slow(table: str, statement: str, step: str) -> bool:
    """Return whether a step of a plan takes the longer, the more is stored. An owner has few keys, but much content."""
    if step.startswith("SCAN "):
        return step.split()[1] not in SMALL
    is_sorted = "TEMP B-TREE FOR ORDER BY" in step and table in ("conversations", "conversation_items", "responses")
    return is_sorted or ("responses.id IN" in statement and "ix_responses_owner" in step)


async def test_a_memory_whose_time_is_over_is_neither_recalled_nor_listed(
    volume: Volume, content: TenantContent
) -> None:
    caller = make_caller()
    for text, days in (("short", 1.0), ("long", 9.0)):
        await content.write(caller, lambda one: one.add_memory(text, MemorySource.SAID, days))  # noqa: B023
    volume.time.advance(2 * 86400)
    recalled = await content.read(caller, lambda one: one.read_memories())
    listed = await content.read(caller, lambda one: one.list_memories(ListPage(10)))
    assert listed is not None
    assert [one.text for one in recalled] == [one.text for one in listed.entries] == ["long"]


async def test_a_memory_whose_time_is_over_is_neither_shown_nor_begun_again(
    volume: Volume, content: TenantContent
) -> None:
    made = await content.write(CALLER, lambda one: one.add_memory("short", MemorySource.PINNED, 1.0))
    assert await content.write(CALLER, lambda one: one.replace_memory(made.id, "shorter", 1.0)) is not None
    assert await content.read(CALLER, lambda one: one.find_memory(made.id)) is not None
    volume.time.advance(2 * 86400)
    assert await content.write(CALLER, lambda one: one.replace_memory(made.id, "again", 9.0)) is None
    assert await content.read(CALLER, lambda one: one.find_memory(made.id)) is None


async def test_a_shorter_policy_holds_for_memories_that_are_there(volume: Volume) -> None:
    async with volume.open() as store:
        content = make_content(store)
        for text, days in (("said", 30.0), ("pinned", 2.0), ("changed", 30.0)):
            made = await content.write(CALLER, lambda one: one.add_memory(text, MemorySource.SAID, days))  # noqa: B023
        await store.maintain()
        volume.time.advance(86400)
        await content.write(CALLER, lambda one: one.replace_memory(made.id, None, 30.0))
    volume.content_days = 7.0
    left = []
    async with volume.open() as store:
        content = make_content(store)
        for _ in range(4):
            await store.maintain()
            left.append({one.text for one in await content.read(CALLER, lambda one: one.read_memories())})
            volume.time.advance(3 * 86400)
    assert left == [{"said", "pinned", "changed"}, {"said", "changed"}, {"changed"}, set()]


async def test_what_takes_the_place_of_an_owners_only_content_is_readable(content: TenantContent) -> None:
    """The data key goes with what it encrypted, in the same transaction: what is new needs another."""
    caller = make_caller()
    old = await content.write(caller, lambda one: one.add_memory("I live in Kiel.", MemorySource.SAID, 1.0))
    changes = MemoryChanges(("I live in Bonn.", "I have a dog."), (old.id,))

    def change(one: ContentWriter) -> None:
        one.replace_memory(old.id, "I live in Ulm.", 1.0)
        one.change_memories(changes, 1.0)

    await content.write(caller, change)
    recalled = await content.read(caller, lambda one: one.read_memories())
    assert {one.text for one in recalled} == {"I live in Bonn.", "I have a dog."}
