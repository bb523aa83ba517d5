"""Recall: what a request continues is read once, seen as it is now, and dropped from memory when its content goes.

`content.write` changes the store as another replica does: this process hears nothing of it.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from r1plus_assistant.conversations.indexed_history import IndexedHistory, Recollection
from r1plus_assistant.conversations.recall import MOST_CHARACTERS_AT_ONCE, Continued, Recall
from r1plus_assistant.memory.index import MOST_INDEXED
from r1plus_assistant.store.content_reader import ContentReader
from r1plus_assistant.store.content_writer import ContentWriter
from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.http.errors import RequestError
from r1plus_gateway.store.administration.admin import rotate_data_keys
from r1plus_gateway.store.content.content import MemorySource, StoredResponse
from r1plus_gateway.store.keys.content_cipher import ContentCipher
from r1plus_gateway.store.tenant import Periods, TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from support.gateway.content import make_content, say
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.tables import for_each
from support.waiting import eventually

ANNA = make_caller(end_user="anna@example.com")
BERT = make_caller(end_user="bert@example.com")
MOST = 2**20


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


@pytest.fixture
def recall(content: TenantContent) -> Recall:
    return Recall(content)


@pytest.fixture
def decrypted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of rows that were decrypted."""
    rows: list[str] = []
    decrypt = ContentCipher.decrypt

    def spy(self: ContentCipher, key: Any, table: str, row: str, text: bytes) -> bytes:
        rows.append(row)
        return decrypt(self, key, table, row, text)

    monkeypatch.setattr(ContentCipher, "decrypt", spy)
    return rows


async def begin(content: TenantContent, *texts: str, caller: Caller = ANNA) -> str:
    """Return a new conversation."""
    items = [say(text) for text in texts]
    return (await content.write(caller, lambda one: one.create_conversation({}, items))).id


async def read(recall: Recall, conversation: str, caller: Caller = ANNA, most_bytes: int = MOST) -> list[str]:
    """Return what a request with memory sees of a conversation."""
    recollection, _ = await recall.recall(caller, Continued("", conversation, most_bytes, recalls=False))
    return list_said(recollection)


async def read_chain(recall: Recall, response: str, caller: Caller = ANNA) -> list[str]:
    recollection, _ = await recall.recall(caller, Continued(response, "", MOST, recalls=False))
    return list_said(recollection)


def list_said(recollection: Recollection) -> list[str]:
    return [sentence.text for sentence in recollection.said.list_sentences()]


async def append(content: TenantContent, conversation: str, *texts: str) -> None:
    await content.write(ANNA, lambda one: one.append_items(conversation, [say(text) for text in texts]))


async def delete_item(content: TenantContent, conversation: str, place: int) -> None:
    def delete(one: ContentWriter) -> None:
        items = one.read_items(conversation, MOST)
        assert one.delete_item(conversation, items[place].id)

    await content.write(ANNA, delete)


async def store_response(content: TenantContent, number: int, text: str, previous: int = 0) -> str:
    answer = {"output": [{"id": "x", "status": "completed", **say(f"Answer {number}.", "assistant")}]}
    before = f"resp_{previous}" if previous else ""
    stored = StoredResponse(f"resp_{number}", before, [say(text)], answer)
    await content.write(ANNA, lambda one: one.store_response(stored))
    return stored.id


async def test_what_was_read_is_not_read_again(content: TenantContent, recall: Recall, decrypted: list[str]) -> None:
    conversation = await begin(content, "One.", "Two.")
    assert await read(recall, conversation) == ["One.", "Two."]
    decrypted.clear()
    assert await read(recall, conversation) == ["One.", "Two."]
    assert decrypted == [conversation], "no item"
    await append(content, conversation, "Three.")
    decrypted.clear()
    assert await read(recall, conversation) == ["One.", "Two.", "Three."]
    assert len(decrypted) == 2


async def test_a_chain_of_responses_is_read_on(content: TenantContent, recall: Recall, decrypted: list[str]) -> None:
    await store_response(content, 1, "One.")
    await store_response(content, 2, "Two.", 1)
    assert await read_chain(recall, "resp_2") == ["One.", "Answer 1.", "Two.", "Answer 2."]
    await store_response(content, 3, "Three.", 2)
    decrypted.clear()
    assert (await read_chain(recall, "resp_3"))[-3:] == ["Answer 2.", "Three.", "Answer 3."]
    assert decrypted == ["resp_3"]
    await store_response(content, 4, "Other.", 2)
    assert await read_chain(recall, "resp_4") == ["One.", "Answer 1.", "Two.", "Answer 2.", "Other.", "Answer 4."]
    assert await read_chain(recall, "resp_2") == ["One.", "Answer 1.", "Two.", "Answer 2."]


@for_each("change, expected", {
    "an item is deleted": (lambda c, n: delete_item(c, n, 1), ["One.", "Three."]),
    "the last item is deleted": (lambda c, n: delete_item(c, n, 2), ["One.", "Two."]),
    "items are added": (lambda c, n: append(c, n, "Four.", "Five."), ["One.", "Two.", "Three.", "Four.", "Five."]),
})  # fmt: skip
async def test_what_another_replica_changes_is_seen(
    change: Callable[[TenantContent, str], Any], expected: list[str], content: TenantContent, recall: Recall
) -> None:
    conversation = await begin(content, "One.", "Two.", "Three.")
    await read(recall, conversation)
    await change(content, conversation)
    assert await read(recall, conversation) == expected


async def test_a_place_that_is_taken_again_is_seen(content: TenantContent, recall: Recall) -> None:
    conversation = await begin(content, "One.", "Two.")
    await read(recall, conversation)
    await delete_item(content, conversation, 1)
    await append(content, conversation, "Another.")
    assert await read(recall, conversation) == ["One.", "Another."]


async def test_a_response_that_another_replica_deleted_breaks_the_chain(content: TenantContent, recall: Recall) -> None:
    await store_response(content, 1, "One.")
    await store_response(content, 2, "Two.", 1)
    await read_chain(recall, "resp_2")
    await content.write(ANNA, lambda one: one.delete_response("resp_2"))
    with pytest.raises(RequestError):
        await read_chain(recall, "resp_2")


async def test_what_one_has_in_memory_no_other_finds(
    content: TenantContent, recall: Recall, store: TenantStore
) -> None:
    conversation = await begin(content, "My code is 4711.")
    await store_response(content, 1, "One.")
    await read(recall, conversation)
    await read_chain(recall, "resp_1")
    assert len(store.plaintext) == 2, "else this shows nothing"
    for other in (BERT, make_caller(), make_caller("key000000002", end_user="anna@example.com")):
        for continued in (Continued("", conversation, MOST, recalls=True), Continued("resp_1", "", MOST, recalls=True)):
            with pytest.raises(RequestError) as raised:
                await recall.recall(other, continued)
            assert raised.value.status == 404


async def test_of_a_conversation_that_is_too_long_the_newest_part_is_read(
    content: TenantContent, recall: Recall
) -> None:
    conversation = await begin(content, *(f"Number {number}: {'x' * 100}" for number in range(20)))
    size = 300
    said = await read(recall, conversation, most_bytes=8 * size)
    assert said[-1].startswith("Number 19:")
    first = len(said)
    await append(content, conversation, "New.")
    assert len(await read(recall, conversation, most_bytes=8 * size)) == first + 1, "and what is new besides"
    for number in range(30):
        await append(content, conversation, f"Later {number}: {'x' * 100}")
        said = await read(recall, conversation, most_bytes=8 * size)
        assert said[-1].startswith(f"Later {number}:")
        assert len(said) <= 1.5 * first, "it does not grow without end"


async def test_two_requests_at_once_see_the_same_and_add_it_once(content: TenantContent, recall: Recall) -> None:
    conversation = await begin(content, "One.")
    await read(recall, conversation)
    await append(content, conversation, "Two.")
    both = await asyncio.gather(*(read(recall, conversation) for _ in range(8)))
    assert both == [["One.", "Two."]] * 8
    assert await read(recall, conversation) == ["One.", "Two."]


async def test_memories_are_those_that_are_stored_now(content: TenantContent, recall: Recall) -> None:
    async def list_known() -> list[str]:
        recollection, memories = await recall.recall(ANNA, Continued("", "", MOST, recalls=True))
        known = [sentence.text for sentence in recollection.known.list_sentences()]
        assert known == [memory.text for memory in memories]
        return known

    assert await list_known() == []
    made = await content.write(ANNA, lambda one: one.add_memory("I am Anna.", MemorySource.PINNED, 1))
    await content.write(BERT, lambda one: one.add_memory("I am Bert.", MemorySource.PINNED, 1))
    assert await list_known() == ["I am Anna."]
    await content.write(ANNA, lambda one: one.replace_memory(made.id, "I am Ann.", 1))
    assert await list_known() == ["I am Ann."]
    await content.write(ANNA, lambda one: one.delete_memory(made.id))
    assert await list_known() == []


async def forget_all(store: TenantStore, content: TenantContent, recall: Recall) -> str:
    """Have a conversation, a chain and memories of Anna in memory; return the conversation."""
    conversation = await begin(content, "My code is 4711.")
    await store_response(content, 1, "One.")
    await content.write(ANNA, lambda one: one.add_memory("I am Anna.", MemorySource.PINNED, 30))
    await recall.recall(ANNA, Continued("", conversation, MOST, recalls=True))
    await read_chain(recall, "resp_1")
    assert len(store.plaintext) == 3, "else this shows nothing"
    return conversation


async def test_an_erasure_leaves_nothing_in_memory(store: TenantStore, content: TenantContent, recall: Recall) -> None:
    await forget_all(store, content, recall)
    await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
    assert (len(store.plaintext), store.plaintext.size) == (0, 0)


async def test_what_retention_deletes_goes_from_memory(
    volume: Volume, store: TenantStore, content: TenantContent, recall: Recall
) -> None:
    await forget_all(store, content, recall)
    volume.time.advance(31 * 86400)
    await store.maintain()
    assert len(store.plaintext) == 0


async def test_a_rotation_of_keys_leaves_nothing_in_memory(
    store: TenantStore, content: TenantContent, recall: Recall, decrypted: list[str]
) -> None:
    conversation = await forget_all(store, content, recall)
    await rotate_data_keys(store, ADMIN)
    decrypted.clear()
    assert await read(recall, conversation) == ["My code is 4711."]
    assert len(decrypted) == 2, "what the former key encrypted is read again"
    await store.maintain()
    assert len(store.plaintext) == 1, "the others, which nobody has asked for since, are gone"


async def test_what_another_replica_erased_goes_in_the_next_round(
    store: TenantStore, content: TenantContent, recall: Recall
) -> None:
    conversation = await forget_all(store, content, recall)
    other = await begin(content, "It rains.", caller=BERT)
    await read(recall, other, BERT)

    def drop_stale(reader: ContentReader) -> int:
        store.plaintext.drop_stale(reader.connection)
        return len(store.plaintext)

    assert await content.read(ANNA, drop_stale) == 4, "what is there stays"
    await content.write(ANNA, lambda one: one.delete_conversation(conversation))
    assert await content.read(ANNA, drop_stale) == 3
    await content.write(ANNA, lambda one: one.delete_response("resp_1"))
    assert await content.read(ANNA, drop_stale) == 2
    await content.write(ANNA, lambda one: [one.delete_memory(memory.id) for memory in one.read_memories()])
    assert await content.read(ANNA, drop_stale) == 1
    assert await read(recall, other, BERT) == ["It rains."]


async def test_of_many_new_items_the_newest_part_is_read(
    content: TenantContent, recall: Recall, decrypted: list[str]
) -> None:
    conversation = await begin(content, "One.")
    await read(recall, conversation, most_bytes=2000)
    await append(content, conversation, *[f"Number {number} is {'x' * 100}." for number in range(300)])
    decrypted.clear()
    said = await read(recall, conversation, most_bytes=2000)
    assert said[-1].startswith("Number 299")
    assert len(decrypted) < 20


async def test_long_texts_are_indexed_in_a_thread(
    content: TenantContent, recall: Recall, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []
    add = IndexedHistory.add

    def spy(*values: Any) -> Any:
        threads.append(threading.current_thread() is not threading.main_thread())
        return add(*values)

    monkeypatch.setattr(IndexedHistory, "add", spy)
    for text in ("Short.", "Long. " * MOST_CHARACTERS_AT_ONCE):
        await read(recall, await begin(content, text))
    assert threads == [False, True]


async def test_a_caller_indexes_one_text_at_a_time_and_another_comes_next(
    content: TenantContent, recall: Recall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of one key wait, each for seconds; another key's is indexed meanwhile."""
    begun, released = list[str](), threading.Event()
    add = IndexedHistory.add

    def wait(history: IndexedHistory, items: Any, before: Any, after: Any) -> Any:
        begun.append(items[0]["content"][0]["text"][:4])
        assert begun[-1] == "Next" or released.wait(60)
        return add(history, items, before, after)

    monkeypatch.setattr(IndexedHistory, "add", wait)
    other = make_caller("key000000002")
    mine = [await begin(content, "Long " * MOST_CHARACTERS_AT_ONCE) for _ in range(10)]
    its = await begin(content, "Next " * MOST_CHARACTERS_AT_ONCE, caller=other)
    reads = [asyncio.create_task(read(recall, one)) for one in mine]
    try:
        await eventually(lambda: begun, "one is indexed")
        assert (await read(recall, its, other))[0].startswith("Next")
        assert begun == ["Long", "Next"]
    finally:
        released.set()
    await asyncio.gather(*reads)
    assert begun == ["Long", "Next", *["Long"] * 9]


async def test_a_text_of_short_lines_does_not_fill_the_memory(content: TenantContent, recall: Recall) -> None:
    conversation = await begin(content, *["a\n" * 10_000 + "b"] * 5)
    options = Continued("", conversation, MOST, recalls=False)
    recollection, _ = await recall.recall(ANNA, options)
    index = recollection.said.index
    assert (len(index.sentences), len(index.utterances)) == (MOST_INDEXED, 5)
    assert index.sentences[-1].text == "b"
    assert (await recall.recall(ANNA, options))[0].said.index is index, "kept for the next request"
