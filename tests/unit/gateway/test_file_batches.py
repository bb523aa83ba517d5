"""Batches of files with OpenAI's client: added together, read, cancelled, listed, and whose they are."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.store.content.content import ContentLimits, DeletionStep, ListPage
from r1plus_gateway.store.content.knowledge import IngestionState
from r1plus_gateway.store.tenant import TenantStore
from support.documents.making import make_encrypted_pdf
from support.documents.process import running_reader_process
from support.gateway.content import LIMITS
from support.gateway.fake_triton import FakeTriton, serving
from support.gateway.interleaving import answer_briefly
from support.gateway.knowledge import INGESTION, make_batch, make_knowledge, make_store, upload
from support.gateway.process import GatewayProcess, running_process
from support.gateway.tenant_data import Volume, make_caller
from support.tables import for_each

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOTES = b"The bridge is closed on Mondays."
OWNER_CALLER = make_caller()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    settings = {"data": {"contentDays": 30, "hasKnowledge": True}}
    async with (
        running_reader_process(folder) as documents,
        serving(FakeTriton(answer_briefly)) as pod,
        running_process(folder, pod, settings, documents=documents) as process,
    ):
        yield process


class Client:
    """A key holder, or an end user of it, with OpenAI's client and without."""

    def __init__(self, gateway: GatewayProcess, key: str, end_user: str = "") -> None:
        self.gateway, self.key = gateway, key
        self.headers = {"x-r1plus-end-user": end_user} if end_user else {}
        self.openai = openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=key, default_headers=self.headers, max_retries=0
        )

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Return status and answer."""
        headers = {"Authorization": f"Bearer {self.key}", **self.headers}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, f"{self.gateway.url}/v1/vector_stores{path}", json=body) as response,
        ):
            return response.status, await response.json()

    async def upload(self, *files: bytes, name: str = "notes.txt") -> list[str]:
        """Return the ids of new files."""
        made = [await self.openai.files.create(file=(name, data), purpose="assistants") for data in files]
        return [file.id for file in made]

    async def make_store(self) -> str:
        return (await self.openai.vector_stores.create(name="notes")).id


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: GatewayProcess) -> AsyncIterator[Client]:
    made = Client(gateway, await gateway.create_key(scopes=["end-users"]))
    yield made
    await made.openai.close()


@pytest.mark.unit_slow
async def test_files_are_added_read_and_listed_together(client: Client) -> None:
    store, batches = await client.make_store(), client.openai.vector_stores.file_batches
    ids = await client.upload(NOTES, NOTES + b" It opens at nine.")
    await client.openai.vector_stores.files.create(store, file_id=(await client.upload(b"Of no batch."))[0])
    batch = await batches.create_and_poll(store, file_ids=ids, attributes={"topic": "bridges"}, poll_interval_ms=20)
    assert (batch.object, batch.status, batch.vector_store_id) == ("vector_store.files_batch", "completed", store)
    assert batch.file_counts.to_dict() == {"in_progress": 0, "completed": 2, "failed": 0, "cancelled": 0, "total": 2}
    assert await batches.retrieve(batch.id, vector_store_id=store) == batch
    listed = [file async for file in batches.list_files(batch.id, vector_store_id=store, limit=1)]
    assert {file.id for file in listed} == set(ids)
    assert [file.attributes for file in listed] == [{"topic": "bridges"}] * 2
    assert [file.id async for file in batches.list_files(batch.id, vector_store_id=store, filter="failed")] == []


@pytest.mark.unit_slow
async def test_what_is_uploaded_and_polled_is_searched(client: Client) -> None:
    store = await client.make_store()
    files = [("bridge.txt", NOTES), ("boat.txt", b"The boat is red.")]
    batch = await client.openai.vector_stores.file_batches.upload_and_poll(store, files=files, poll_interval_ms=20)
    assert batch.file_counts.completed == 2
    found = await client.openai.vector_stores.search(store, query="When is the bridge closed?")
    assert found.data[0].filename == "bridge.txt"


async def test_each_file_may_have_attributes_and_chunks_of_its_own(client: Client) -> None:
    store, (one, two) = await client.make_store(), await client.upload(NOTES, NOTES)
    static = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
    files: Any = [{"file_id": one, "attributes": {"page": 1}}, {"file_id": two, "chunking_strategy": static}]
    batch = await client.openai.vector_stores.file_batches.create(store, files=files)
    listed = [
        file async for file in client.openai.vector_stores.file_batches.list_files(batch.id, vector_store_id=store)
    ]
    by_id = {file.id: file.to_dict() for file in listed}
    assert by_id[one]["attributes"] == {"page": 1}
    assert by_id[two]["chunking_strategy"] == static


async def test_a_batch_of_which_nothing_can_be_read_has_failed(client: Client) -> None:
    store = await client.make_store()
    ids = await client.upload(make_encrypted_pdf(), name="secret.pdf")
    batch = await client.openai.vector_stores.file_batches.create_and_poll(store, file_ids=ids, poll_interval_ms=20)
    assert (batch.status, batch.file_counts.failed) == ("failed", 1)


async def test_a_batch_that_was_read_is_cancelled_without_effect(client: Client) -> None:
    store, batches = await client.make_store(), client.openai.vector_stores.file_batches
    batch = await batches.create_and_poll(store, file_ids=await client.upload(NOTES), poll_interval_ms=20)
    assert (await batches.cancel(batch.id, vector_store_id=store)).status == "completed"


async def test_a_file_that_is_added_again_is_of_the_newer_batch(client: Client) -> None:
    store, batches = await client.make_store(), client.openai.vector_stores.file_batches
    one, two = await client.upload(NOTES, NOTES)
    before = await batches.create_and_poll(store, file_ids=[one, two], poll_interval_ms=20)
    after = await batches.create_and_poll(store, file_ids=[two], poll_interval_ms=20)
    assert [file.id async for file in batches.list_files(before.id, vector_store_id=store)] == [one]
    assert [file.id async for file in batches.list_files(after.id, vector_store_id=store)] == [two]


@for_each(
    "body, param",
    {
        "without files": ({}, "file_ids"),
        "with files in both ways": ({"file_ids": ["file_1"], "files": [{"file_id": "file_2"}]}, "files"),
        "with a file twice": ({"files": [{"file_id": "file_1"}] * 2}, "files[1].file_id"),
        "with a file that is no object": ({"files": ["file_1"]}, "files[0]"),
        "with a file without an id": ({"files": [{}]}, "files[0].file_id"),
        "with an unknown field of a file": ({"files": [{"file_id": "file_1", "name": "x"}]}, "files[0].name"),
        "with ids that are numbers": ({"file_ids": [1]}, "file_ids[0]"),
        "with too many files": ({"file_ids": [f"file_{number}" for number in range(2_001)]}, "file_ids"),
        "with attributes that are a list": ({"file_ids": ["file_1"], "attributes": []}, "attributes"),
    },
)
async def test_a_batch_is_refused(client: Client, body: dict[str, Any], param: str) -> None:
    status, answer = await client.call("POST", f"/{await client.make_store()}/file_batches", body)
    assert (status, answer["error"]["param"]) == (400, param), answer


async def test_with_an_unknown_file_nothing_is_added(client: Client) -> None:
    store, ids = await client.make_store(), await client.upload(NOTES)
    status, answer = await client.call("POST", f"/{store}/file_batches", {"file_ids": [*ids, "file_00"]})
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert [file async for file in client.openai.vector_stores.files.list(store)] == []


async def test_a_batch_is_its_owners_alone(gateway: GatewayProcess, client: Client) -> None:
    store, ids = await client.make_store(), await client.upload(NOTES)
    batch = await client.openai.vector_stores.file_batches.create_and_poll(store, file_ids=ids, poll_interval_ms=20)
    anna = Client(gateway, client.key, "anna@example.com")
    stranger = Client(gateway, await gateway.create_key())
    own = await anna.make_store()
    path = f"/{store}/file_batches/{batch.id}"
    assert (await anna.call("GET", path))[0] == 200, "a knowledge base is an application's"
    refused = {
        "an end user cancels the key's": await anna.call("POST", f"{path}/cancel"),
        "an end user adds to the key's": await anna.call("POST", f"/{store}/file_batches", {"file_ids": ids}),
        "another key reads": await stranger.call("GET", path),
        "another key cancels": await stranger.call("POST", f"{path}/cancel"),
        "another key lists": await stranger.call("GET", f"{path}/files"),
        "another key adds": await stranger.call("POST", f"/{store}/file_batches", {"file_ids": ids}),
        "through another vector store": await anna.call("GET", f"/{own}/file_batches/{batch.id}"),
        "files of another owner": await anna.call("POST", f"/{own}/file_batches", {"file_ids": ids}),
    }
    assert {name: status for name, (status, _) in refused.items()} == {
        "an end user cancels the key's": 403,
        "an end user adds to the key's": 403,
        "another key reads": 404,
        "another key cancels": 404,
        "another key lists": 404,
        "another key adds": 404,
        "through another vector store": 404,
        "files of another owner": 400,
    }
    for other in (anna, stranger):
        await other.openai.close()


@pytest_asyncio.fixture(loop_scope="module")
async def store(volume: Volume) -> AsyncIterator[TenantStore]:
    opened = volume.make_store()
    assert await opened.open()
    yield opened
    await opened.close()


@for_each("most_batches", {"that is small": 64, "that is deleted in parts": 1})
async def test_of_a_cancelled_batch_what_was_begun_is_deleted(store: TenantStore, most_batches: int) -> None:
    limits = ContentLimits(LIMITS.caller_bytes, LIMITS.tenant_bytes, deletion=DeletionStep(batches=most_batches))
    knowledge: TenantKnowledge = make_knowledge(store, limits)
    owner = knowledge.identify(OWNER_CALLER)
    store_id = await make_store(knowledge, owner)
    ids = [(await upload(knowledge, owner, NOTES)).id for _ in range(3)]
    ingestions = dict.fromkeys(ids, INGESTION)
    assert not await knowledge.write(owner, lambda one: one.add_store_files(store_id, ingestions, "vsfb_1"))
    read, begun, _ = [await knowledge.read(owner, lambda one: one.find_store_file(store_id, name)) for name in ids]  # noqa: B023
    assert read is not None
    assert begun is not None
    assert await knowledge.write(owner, lambda one: one.append_batch(read, make_batch(0, "whole"), INGESTION))
    assert await knowledge.write(owner, lambda one: one.finish_ingestion(read, INGESTION, 1))
    for position in range(3):
        batch = make_batch(position, "begun")
        assert await knowledge.write(owner, lambda one: one.append_batch(begun, batch, INGESTION))  # noqa: B023
    assert await knowledge.delete(owner, lambda one: one.cancel_batch(store_id, "vsfb_1"))
    assert not await knowledge.write(owner, lambda one: one.append_batch(begun, make_batch(3, "late"), INGESTION))
    found = await knowledge.read(owner, lambda one: one.list_store_files(store_id, ListPage(10), None, "vsfb_1"))
    assert found is not None
    states = {file.file_id: (file.state, file.chunks) for file in found.entries}
    assert states == {
        ids[0]: (IngestionState.COMPLETED, 1),
        ids[1]: (IngestionState.CANCELLED, 0),
        ids[2]: (IngestionState.CANCELLED, 0),
    }
    whole = await knowledge.read(owner, lambda one: one.find_vector_store(store_id))
    assert whole is not None
    assert whole.chunks == 1
