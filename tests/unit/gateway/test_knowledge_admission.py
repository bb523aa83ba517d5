"""What a search for an answer costs before the request is admitted: few searches of one caller, and none in vain."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from r1plus_assistant import embeddings
from r1plus_assistant.embedding import client as embedder_client
from r1plus_assistant.knowledge import citations, quotation
from r1plus_assistant.knowledge.citations import find_citations
from r1plus_assistant.knowledge.filters import Comparison
from r1plus_assistant.knowledge.search import KnowledgeSearch, Passage, SearchMethod, SearchResult
from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.http.accounting.admission import MOST_SEARCHES
from r1plus_gateway.store.content.knowledge import Chunk
from support.gateway.access import ALICE
from support.gateway.fake_embedder import EMBEDDING
from support.gateway.fake_triton import FakeTriton, Gated, answer, serving
from support.gateway.knowledge import add_file, ingest, make_batch, make_knowledge, make_store, upload
from support.gateway.rig import Rig, read_events, read_typed_events, running, running_before
from support.gateway.tenant_data import Volume
from support.tables import for_each
from support.waiting import eventually

SETTINGS = {"embedding": EMBEDDING, "data": {"hasKnowledge": True}}
PASSAGES = [Passage("vs", "file", "a.md", {}, Chunk(f"The hotel {name} costs 210 francs.", 0, 9), 1.0) for name in "ab"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    volume = Volume(tmp_path / "volume").make()
    async with volume.open() as store, running(tmp_path, answer("a"), settings=SETTINGS, store=store) as rig:
        yield rig


async def make_vector_store(rig: Rig) -> str:
    async with rig.post("/v1/vector_stores", {"name": "handbook"}) as response:
        return str((await response.json())["id"])


async def ask(rig: Rig, form: str, store_id: str) -> tuple[int, Any]:
    """Ask with a search; return status and answer."""
    asked: Any
    if form == "chat":
        asked = rig.chat(knowledge={"vector_store_ids": [store_id]})
    else:
        asked = rig.respond(tools=[{"type": "file_search", "vector_store_ids": [store_id]}])
    async with asked as response:
        return response.status, await response.json()


FORMS = {"a chat": "chat", "a response": "response"}


@for_each("form", FORMS)
async def test_a_flood_without_a_budget_searches_a_few_times(rig: Rig, form: str) -> None:
    store_id = await make_vector_store(rig)
    spent = AccessError(429, "insufficient_quota", "the budget is used up", hold_seconds=60)
    rig.ledger.refusal, rig.embedder.gate = spent, asyncio.Event()
    requests = [asyncio.create_task(ask(rig, form, store_id)) for _ in range(30)]
    await eventually(lambda: len(rig.embedder.asked) == MOST_SEARCHES, "a few search")
    rig.embedder.gate.set()
    refused = await asyncio.gather(*requests)
    assert {(status, got["error"]["code"]) for status, got in refused} == {(429, "insufficient_quota")}
    assert len(rig.embedder.asked) == MOST_SEARCHES


@for_each("form", FORMS)
async def test_before_a_full_queue_nothing_is_searched(tmp_path: Path, form: str) -> None:
    script = Gated(("a",))
    volume = Volume(tmp_path / "volume").make()
    settings = {**SETTINGS, "limits": {"queuePerKey": 1}}
    async with (
        volume.open() as store,
        serving(FakeTriton(script)) as pod,
        running_before(tmp_path, pod, settings=settings, store=store, batch=1) as rig,
    ):
        store_id = await make_vector_store(rig)
        waiting = [asyncio.create_task(_read(rig))]
        await rig.until_running(1)
        waiting.append(asyncio.create_task(_read(rig)))
        await eventually(lambda: rig.gateway.models.queue.waiting == 1, "the queue is full")
        status, got = await ask(rig, form, store_id)
        assert (status, got["error"]["code"]) == (503, "queue_full")
        assert rig.embedder.asked == []
        script.release(4)
        await asyncio.gather(*waiting)


async def _read(rig: Rig) -> None:
    async with rig.chat() as response:
        await response.read()


async def test_searches_of_vector_stores_take_the_same_turns(rig: Rig) -> None:
    store_id = await make_vector_store(rig)
    rig.embedder.gate = asyncio.Event()

    async def search() -> int:
        async with rig.post(f"/v1/vector_stores/{store_id}/search", {"query": "hotels"}) as response:
            return int(response.status)

    searches = [asyncio.create_task(search()) for _ in range(MOST_SEARCHES + 4)]
    chat = asyncio.create_task(ask(rig, "chat", store_id))
    await eventually(lambda: len(rig.embedder.asked) == MOST_SEARCHES, "a few search")
    rig.embedder.gate.set()
    assert await asyncio.gather(*searches) == [200] * (MOST_SEARCHES + 4)
    assert (await chat)[0] == 200


@for_each("form", FORMS)
async def test_a_search_filters_and_quotes_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A filter of 32 lists is compared with ten thousand files, and fifty long passages are quoted: streams go on."""
    is_beside: dict[str, set[bool]] = defaultdict(set)
    loop = threading.get_ident()

    def spy(owner: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def note(*values: Any) -> Any:
            is_beside[name].add(threading.get_ident() != loop)
            return function(*values)

        monkeypatch.setattr(owner, name, note)

    spy(Comparison, "matches")
    spy(quotation, "quote_text")
    volume, settings = Volume(tmp_path / "volume").make(), {"data": {"hasKnowledge": True}}
    async with (
        volume.open() as store,
        running(tmp_path, answer("a"), settings=settings, has_embedder=False, store=store) as rig,
    ):
        knowledge = make_knowledge(store)
        owner = knowledge.identify(ALICE)
        store_id, file = await make_store(knowledge, owner), await upload(knowledge, owner, b"x")
        added = await add_file(knowledge, owner, store_id, file.id)
        await ingest(knowledge, owner, added, make_batch(0, "The hotel costs 210 francs.", engine=""))
        search = {"vector_store_ids": [store_id], "filters": {"type": "in", "key": "topic", "value": ["tests"]}}
        ask_by: Callable[..., Any] = rig.chat if form == "chat" else rig.respond
        fields = {"knowledge": search} if form == "chat" else {"tools": [{"type": "file_search", **search}]}
        async with ask_by("Which hotel?", **fields) as response:
            assert response.status == 200, await response.text()
    assert is_beside == {"matches": {True}, "quote_text": {True}}


async def test_a_search_for_an_answer_is_a_request_that_uses_stored_content(tmp_path: Path) -> None:
    settings = {**SETTINGS, "limits": {"queuePerKey": 1}}
    volume = Volume(tmp_path / "volume").make()
    async with volume.open() as store, running(tmp_path, answer("a"), settings=settings, store=store) as rig:
        store_id = await make_vector_store(rig)
        rig.embedder.gate = asyncio.Event()
        first = asyncio.create_task(ask(rig, "chat", store_id))
        await eventually(lambda: len(rig.embedder.asked) == 1, "it is searched")
        status, got = await ask(rig, "chat", store_id)
        assert (status, got["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "use stored content now" in got["error"]["message"]
        rig.embedder.gate.set()
        assert (await first)[0] == 200


def test_one_caller_leaves_room_at_the_embedder() -> None:
    assert MOST_SEARCHES + embeddings.MOST_AT_ONCE < embedder_client.MOST_AT_ONCE


@for_each("is_streamed", {"whole": False, "streamed": True})
@for_each("form", FORMS)
async def test_an_answer_is_compared_with_the_passages_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, form: str, is_streamed: bool
) -> None:
    compared: list[str] = []

    async def find(*_: Any) -> SearchResult:
        return SearchResult(PASSAGES, SearchMethod.WORDS)

    def compare(text: str, passages: Any) -> Any:
        compared.append(text)
        return find_citations(text, passages)

    monkeypatch.setattr(KnowledgeSearch, "find", find)
    monkeypatch.setattr(citations, "find_citations", compare)
    rig.pod.script = answer("The hotel b costs ", "210 francs [2].")
    if form == "chat":
        asked, read = rig.chat(knowledge={"vector_store_ids": ["vs"]}, stream=is_streamed), read_events
    else:
        tools = [{"type": "file_search", "vector_store_ids": ["vs"]}]
        asked, read = rig.respond(tools=tools, stream=is_streamed), read_typed_events
    async with asked as response:
        got = str(await read(response) if is_streamed else await response.json())
    assert "file_citation" in got
    assert compared == ["The hotel b costs 210 francs [2]."]
