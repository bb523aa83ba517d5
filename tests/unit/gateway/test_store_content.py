"""Stored content: whose it is, how much there may be, what the file shows, and when it goes."""

import itertools
from collections.abc import AsyncIterator, Callable

import pytest
import sqlalchemy as sa

from r1plus_gateway.access.caller import Caller, CallerKind
from r1plus_gateway.store import tables as t
from r1plus_gateway.store.content import (
    MOST_ITEMS,
    ContentLimitError,
    ContentLimits,
    ContentReader,
    HistoryTooLongError,
    Listed,
    Page,
    StoredResponse,
)
from r1plus_gateway.store.content_cipher import UnreadableContentError
from r1plus_gateway.store.tenant import Periods, TenantStore
from r1plus_gateway.store.tenant_content import TenantContent
from support.gateway.content import MIB, make_content, say
from support.gateway.tenant_data import Volume, make_caller

CALLER = make_caller()
ANNA = make_caller(end_user="anna@example.com")
SECRET = "the vault's code is 4711"


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

    def read(connection: sa.Connection) -> int:
        columns = (t.conversations.c.attributes, t.conversation_items.c.content, t.responses.c.content)
        stored = sum(connection.scalar(sa.select(sa.func.sum(sa.func.length(column)))) or 0 for column in columns)
        booked = connection.scalar(sa.select(sa.func.sum(t.content_sizes.c.bytes))) or 0
        assert booked == stored
        return int(stored)

    return await store.read(read)


async def test_a_conversation_is_read_as_it_was_written_also_after_a_restart(volume: Volume) -> None:
    said = [say("My name is Anna."), say("Hello Anna.", "assistant"), {"type": "function_call", "name": "f"}]
    async with volume.open() as store:
        content = make_content(store)
        made = await content.write(CALLER, lambda one: one.create_conversation({"topic": "names"}, said[:2]))
        await content.write(CALLER, lambda one: one.append_items(made.id, said[2:]))
    async with volume.open() as store:
        content = make_content(store)
        assert await content.read(CALLER, lambda one: one.find_conversation(made.id)) == made
        listed = await content.read(CALLER, lambda one: one.list_items(made.id, Page(is_ascending=True)))
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
    item = (await content.read(ANNA, lambda one: one.list_items(made.id, Page()))).entries[0]  # type: ignore[union-attr]
    answer = StoredResponse("resp_1", "", [say(SECRET)], {"text": SECRET})
    await content.write(ANNA, lambda one: one.store_response(answer))
    before = await read_size(store)
    assert await content.read(other, lambda one: one.find_conversation(made.id)) is None
    assert await content.read(other, lambda one: one.list_conversations(Page(after=made.id))) is None
    assert await content.read(other, lambda one: one.list_conversations(Page())) == Listed([], has_more=False)
    assert await content.read(other, lambda one: one.list_items(made.id, Page())) == Listed([], has_more=False)
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

    async def read_pages(read: Callable[[ContentReader, Page], object], *, is_ascending: bool) -> list[object]:
        entries: list[object] = []
        for _ in itertools.count():
            after = entries[-1].id if entries else ""  # type: ignore[attr-defined]
            page = Page(2, after, is_ascending)
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
    assert await content.read(CALLER, lambda one: one.list_items(target, Page(after="msg_none"))) is None


async def test_what_is_deleted_is_gone_and_no_longer_counted(content: TenantContent, store: TenantStore) -> None:
    made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("a"), say("b")]))
    listed = await content.read(CALLER, lambda one: one.list_items(made.id, Page(is_ascending=True)))
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
    assert await content.read(CALLER, lambda one: one.read_history("resp_3", MIB)) is None


async def test_a_page_ends_before_it_is_too_large_to_hold(store: TenantStore) -> None:
    content = make_content(store, ContentLimits(8 * MIB, 8 * MIB))
    sizes = [MIB // 2, MIB // 4, MIB // 4, 2 * MIB, 10]
    made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("x" * size) for size in sizes]))
    pages, after, has_more = [], "", True
    while has_more:
        page = Page(100, after, is_ascending=True)
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


async def test_a_conversation_takes_no_more_items_than_a_request_may_have(content: TenantContent) -> None:
    made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("x")] * (MOST_ITEMS - 1)))
    await content.write(CALLER, lambda one: one.append_items(made.id, [say("last")]))
    with pytest.raises(ContentLimitError, match="2048 are in the conversation, and 1 more exceed 2048"):
        await content.write(CALLER, lambda one: one.append_items(made.id, [say("too many")]))


@pytest.mark.parametrize(
    ("limits", "who"),
    [
        (ContentLimits(2000, 10_000), "this key"),
        (ContentLimits(10_000, 2000), "the tenant"),
    ],
    ids=["of the caller", "of the tenant"],
)
async def test_content_that_exceeds_a_limit_is_refused_and_nothing_of_it_is_stored(
    limits: ContentLimits, who: str, store: TenantStore
) -> None:
    content = make_content(store, limits)
    made = await content.write(ANNA, lambda one: one.create_conversation({}, [say("x" * 1000)]))
    before = await read_size(store)
    other = make_caller(end_user="bert@example.com")
    with pytest.raises(ContentLimitError, match=f"exceed the 2000 that {who} may store, of which {before} are in use"):
        await content.write(other, lambda one: one.create_conversation({}, [say("x" * 1000)]))
    with pytest.raises(ContentLimitError):
        await content.write(ANNA, lambda one: one.append_items(made.id, [say("x" * 1000)]))
    with pytest.raises(ContentLimitError):
        await content.write(ANNA, lambda one: one.replace_attributes(made.id, {"a": "x" * 2000}))
    with pytest.raises(ContentLimitError):
        await content.write(ANNA, lambda one: one.store_response(StoredResponse("r", "", [say("x" * 1000)], {})))
    assert await read_size(store) == before
    assert count_rows(store, t.conversations, t.conversation_items, t.responses) == [1, 1, 0]
    await content.write(ANNA, lambda one: one.delete_conversation(made.id))
    await content.write(other, lambda one: one.create_conversation({}, [say("x" * 1000)]))


async def test_rows_hold_no_text_and_do_not_decrypt_in_another_place(
    content: TenantContent, store: TenantStore
) -> None:
    made = await content.write(ANNA, lambda one: one.create_conversation({"topic": SECRET}, [say(SECRET)]))
    other = await content.write(ANNA, lambda one: one.create_conversation({}, [say("harmless")]))
    database = store.require_data().database
    with database.transaction(writes=False) as connection:
        for table in t.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                assert b"4711" not in b"".join(one for one in row if isinstance(one, bytes))
                assert "4711" not in repr(row)
                assert "anna" not in repr(row)
    items = t.conversation_items
    with database.transaction(writes=True) as connection:
        stolen = connection.scalar(sa.select(items.c.content).where(items.c.conversation_id == made.id))
        connection.execute(sa.update(items).where(items.c.conversation_id == other.id).values(content=stolen))
    with pytest.raises(UnreadableContentError, match="does not decrypt"):
        await content.read(ANNA, lambda one: one.list_items(other.id, Page()))


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
    volume.time.advance(2 * 86400)
    async with volume.open() as store:
        await store.maintain()
        assert count_rows(store, t.conversations, t.conversation_items, t.data_keys) == [0, 0, 0]


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
