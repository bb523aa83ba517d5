"""The project's own client and stored data, against a gateway as it runs: sync and async alike."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from r1plus_client import AsyncClient, Client, InvalidRequestError, NotFoundError, async_resources, resources
from support.documents.process import running_reader_process
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess, running_process

pytestmark = pytest.mark.asyncio(loop_scope="module")
HANDBOOK = b"# Hotels\n\nA night may cost 140 euros. In Zurich it may cost 210 francs.\n"
RESOURCES = ("conversations", "responses", "files", "vector_stores", "memories")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"data": {"contentDays": 30, "hasKnowledge": True}}
    async with (
        running_reader_process(folder) as documents,
        serving(FakeTriton(answer("In Zurich a night ", "may cost 210 francs [1]."))) as pod,
        running_process(folder, pod, settings, documents=documents) as process,
    ):
        yield process


class Waiting:
    """A synchronous client that is called from a thread, with the methods of the asynchronous one."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def for_end_user(self, name: str) -> "Waiting":
        """See `Client`."""
        return Waiting(self._client.for_end_user(name))

    def __getattr__(self, name: str) -> Any:
        return _Resource(getattr(self._client, name))


class _Resource:
    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._resource, name)
        if name.startswith("list"):
            return lambda *values, **options: _iterate(method(*values, **options))
        return lambda *values, **options: asyncio.to_thread(method, *values, **options)


async def _iterate(entries: Iterator[Any]) -> AsyncIterator[Any]:
    for entry in await asyncio.to_thread(list, entries):
        yield entry


@pytest_asyncio.fixture(loop_scope="module", params=["sync", "async"])
async def client(gateway: GatewayProcess, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    key = await gateway.create_key(scopes=["end-users"])
    if request.param == "async":
        async with AsyncClient(gateway.url, key, max_retries=0) as own:
            yield own
    else:
        with Client(gateway.url, key, max_retries=0) as own:
            yield Waiting(own)


async def collect(entries: Any) -> list[Any]:
    return [entry async for entry in entries]


@pytest.mark.unit_slow
async def test_a_document_is_uploaded_read_searched_and_cited(client: Any, tmp_path: Path) -> None:
    (tmp_path / "handbook.md").write_bytes(HANDBOOK)
    file = await client.files.upload(tmp_path / "handbook.md")
    assert (file.filename, file.bytes, file.is_shared) == ("handbook.md", len(HANDBOOK), True)
    assert await client.files.download(file.id) == HANDBOOK
    assert await client.files.get(file.id) == file
    store = await client.vector_stores.create(name="travel", metadata={"team": "red"}, expires_after_days=7)
    await client.vector_stores.add_file(store.id, file.id, attributes={"year": 2026})
    read = await client.vector_stores.wait_for_file(store.id, file.id)
    assert (read.status, read.error_code, read.chunks, read.attributes) == ("completed", "", 1, {"year": 2026})
    (hit,) = await client.vector_stores.search(store.id, "Zurich", filters={"type": "eq", "key": "year", "value": 2026})
    assert (hit.file_id, hit.heading, hit.score, "210 francs" in hit.text) == (file.id, "Hotels", 1.0, True)
    response = await client.responses.create(
        model="credit", input="What may a night in Zurich cost?", vector_store_ids=[store.id]
    )
    assert (response.status, response.text) == ("completed", "In Zurich a night may cost 210 francs [1].")
    assert [(one.file_id, one.basis) for one in response.citations] == [(file.id, "number")]
    await client.vector_stores.update_file(store.id, file.id, attributes={})
    assert (await client.vector_stores.update(store.id, name="trips")).name == "trips"
    await client.vector_stores.remove_file(store.id, file.id)
    assert await collect(client.vector_stores.list_files(store.id)) == []
    await client.vector_stores.delete(store.id)
    await client.files.delete(file.id)
    assert (await collect(client.files.list()), await collect(client.vector_stores.list())) == ([], [])


@pytest.mark.unit_slow
async def test_files_are_added_together_waited_for_and_cancelled(client: Any) -> None:
    store, other = await client.vector_stores.create(), await client.vector_stores.create()
    names = ("handbook.md", "program.exe")
    contents = (HANDBOOK, b"MZ\x00\x01")
    ids = [(await client.files.upload(one, filename=name)).id for one, name in zip(contents, names, strict=True)]
    made = await client.vector_stores.add_files(store.id, ids, attributes={"year": 2026})
    assert (made.vector_store_id, made.file_counts["total"]) == (store.id, 2)
    read = await client.vector_stores.wait_for_batch(store.id, made.id)
    assert (read.status, read.file_counts["completed"], read.file_counts["failed"]) == ("completed", 1, 1)
    (failed,) = await collect(client.vector_stores.list_batch_files(store.id, made.id, status="failed"))
    assert (failed.file_id, failed.attributes, bool(failed.error_message)) == (ids[1], {"year": 2026}, True)
    assert await client.vector_stores.cancel_batch(store.id, made.id) == read, "what was read stays"
    with pytest.raises(NotFoundError):
        await client.vector_stores.get_batch(other.id, made.id)
    with pytest.raises(NotFoundError):
        await client.vector_stores.add_files(store.id, [ids[0], "file_of_nobody"])
    with pytest.raises(InvalidRequestError):
        await client.vector_stores.add_files(store.id, [])
    for one in (store, other):
        await client.vector_stores.delete(one.id)
    for name in ids:
        await client.files.delete(name)


async def test_a_conversation_and_its_responses_are_stored_listed_and_deleted(client: Any) -> None:
    made = await client.conversations.create(metadata={"case": "7"})
    response = await client.responses.create(model="credit", input="Hello", conversation=made.id)
    assert response.storage == "stored"
    items = await collect(client.conversations.list_items(made.id))
    assert [one.text for one in items] == ["Hello", response.text]
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "More"}]}
    (added,) = await client.conversations.add_items(made.id, [said])
    await client.conversations.delete_item(made.id, added.id)
    stored = await client.responses.get(response.id)
    assert (stored.text, stored.usage, stored.evidence.revision) == (
        response.text,
        response.usage,
        response.evidence.revision,
    )
    assert [one.text for one in await collect(client.responses.list_input_items(response.id))] == ["Hello"]
    assert (await client.conversations.update(made.id, metadata={})).metadata == {}
    await client.responses.delete(response.id)
    await client.conversations.delete(made.id)
    with pytest.raises(NotFoundError):
        await client.conversations.get(made.id)


async def test_memories_are_an_end_users_own(client: Any) -> None:
    anna, bert = client.for_end_user("anna"), client.for_end_user("bert")
    kept = await anna.memories.create("I live in Kiel.", expires_after_days=3)
    assert (await anna.memories.update(kept.id, text="I live in Bonn.")).text == "I live in Bonn."
    assert [one.text for one in await collect(anna.memories.list())] == ["I live in Bonn."]
    assert await collect(bert.memories.list()) == []
    with pytest.raises(NotFoundError):
        await bert.memories.get(kept.id)
    await anna.memories.delete(kept.id)


async def test_lists_come_in_pages_without_gaps(client: Any) -> None:
    made = await client.conversations.create()
    for start in range(0, 220, 20):
        texts = [{"type": "input_text", "text": str(number)} for number in range(start, start + 20)]
        items = [{"type": "message", "role": "user", "content": [text]} for text in texts]
        assert len(await client.conversations.add_items(made.id, items)) == 20
    found = await collect(client.conversations.list_items(made.id))
    assert [one.text for one in found] == [str(number) for number in range(220)]
    assert made in await collect(client.conversations.list())


async def test_errors_name_the_field_and_wrong_arguments_are_refused_here(client: Any) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        await client.vector_stores.create(name="x" * 300)
    assert refusal.value.param == "name"
    with pytest.raises(ValueError, match="filename: missing"):
        await client.files.upload(b"text")
    with pytest.raises(ValueError, match="an id is empty"):
        await client.files.get("")
    with pytest.raises(NotFoundError):
        await client.files.get("../models")


async def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    for name in ("Conversations", "Responses", "Files", "VectorStores", "Memories"):
        own, other = getattr(resources, name), getattr(async_resources, f"Async{name}")
        methods = [one for one in vars(own) if not one.startswith("_")]
        assert methods == [one for one in vars(other) if not one.startswith("_")]
        for method in methods:
            first, second = (inspect.signature(getattr(one, method)) for one in (own, other))
            assert first.parameters == second.parameters, (name, method)
            assert getattr(own, method).__doc__ == getattr(other, method).__doc__
