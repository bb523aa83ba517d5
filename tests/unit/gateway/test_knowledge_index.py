"""Indexes of vector stores: what a search sees while files, attributes and embedders change."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from r1plus_assistant.embedding.client import EmbedderUnavailableError
from r1plus_assistant.knowledge import index_cache
from r1plus_assistant.knowledge.filters import Comparison
from r1plus_assistant.knowledge.index_cache import IndexCache
from r1plus_assistant.knowledge.search import KnowledgeSearch, SearchMethod, SearchResult
from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from support.gateway.fake_embedder import FakeEmbedder
from support.gateway.knowledge import ENGINE, add_file, ingest, make_batch, make_knowledge, make_store, upload
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.tables import for_each

KEY = make_caller()


class Base:
    """A vector store that is filled by the test, and its search."""

    def __init__(self, store: TenantStore, owner: Owner) -> None:
        self.knowledge: TenantKnowledge = make_knowledge(store)
        self.owner = owner
        self.embedder = FakeEmbedder(ENGINE, dimensions=2)
        self.indexes = IndexCache(self.knowledge, lambda: 2**30)
        self.search = KnowledgeSearch(self.knowledge, self.indexes, lambda: self.embedder)
        self.store_id = ""

    async def add(self, *texts: str, engine: str = ENGINE) -> str:
        """Add a file of these chunks; return its id."""
        if not self.store_id:
            self.store_id = await make_store(self.knowledge, self.owner)
        file = await upload(self.knowledge, self.owner, b"x")
        added = await add_file(self.knowledge, self.owner, self.store_id, file.id)
        await ingest(self.knowledge, self.owner, added, make_batch(0, *texts, engine=engine))
        return file.id

    async def find(self, question: str, condition: Comparison | None = None) -> SearchResult:
        """Search the vector store."""
        return await self.search.find(self.owner, [self.store_id], question, 10, condition)


@pytest.fixture
def base(store: TenantStore) -> Base:
    return Base(store, make_knowledge(store).identify(KEY))


async def test_a_search_filters_by_the_attributes_that_a_file_has_now(base: Base) -> None:
    file_id = await base.add("the red door")
    granted = Comparison("eq", "team", "red")
    attributes = {"team": "red"}
    await base.knowledge.write(base.owner, lambda one: one.change_store_file(base.store_id, file_id, attributes))
    assert [one.attributes for one in (await base.find("door", granted)).passages] == [attributes]
    await base.knowledge.write(base.owner, lambda one: one.change_store_file(base.store_id, file_id, {"team": "blue"}))
    assert (await base.find("door", granted)).passages == []
    assert [one.attributes for one in (await base.find("door")).passages] == [{"team": "blue"}]


async def test_a_question_without_a_vector_takes_the_index_that_is_there(base: Base) -> None:
    first = await base.add("the red door")
    assert (await base.find("red")).method is SearchMethod.HYBRID
    published = await base.indexes.get(base.owner, base.store_id, ENGINE)
    base.embedder.trouble = EmbedderUnavailableError("busy")
    found = await base.find("red")
    assert (found.method, [one.file_id for one in found.passages]) == (SearchMethod.WORDS, [first])
    assert (await base.find("  ")).passages == []
    assert await base.indexes.get(base.owner, base.store_id, ENGINE) is published


async def test_a_foreign_key_that_knows_an_id_leaves_the_owners_index(base: Base) -> None:
    await base.add("the red door")
    published = await base.indexes.get(base.owner, base.store_id, ENGINE)
    for stranger in (make_caller("key000000002"), make_caller("key000000002", end_user="anna")):
        assert await base.indexes.get(base.knowledge.identify(stranger), base.store_id, ENGINE) is None
    assert await base.indexes.get(base.owner, base.store_id, ENGINE) is published
    await base.knowledge.write(base.owner, lambda one: one.delete_vector_store(base.store_id))
    assert await base.indexes.get(base.owner, base.store_id, ENGINE) is None
    assert base.indexes.size == 0


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_of_many_small_vector_stores_a_bounded_number_has_an_index(
    base: Base, monkeypatch: pytest.MonkeyPatch, times: float
) -> None:
    """Without text they count no bytes, and each takes memory all the same."""
    most = 10
    monkeypatch.setattr(index_cache, "MOST_INDEXES", most)
    for _ in range(round(most * times)):
        store_id = await make_store(base.knowledge, base.owner)
        assert await base.indexes.get(base.owner, store_id, ENGINE) is not None
        assert len(base.indexes._entries) <= most
    await base.add("the red door")
    assert len((await base.find("door")).passages) == 1


async def test_an_index_that_is_searched_is_not_changed_when_files_are_added(base: Base, volume: Volume) -> None:
    first = await base.add("the red door", "the red wall")
    published = await base.indexes.get(base.owner, base.store_id, ENGINE)
    assert published is not None
    vector = np.array([1.0, 0.0], np.float32)
    before = published.search("red", vector, 10, [True])
    volume.time.advance(1)
    second = await base.add("the red floor", "the red roof")
    assert {one.file_id for one in (await base.find("red")).passages} == {first, second}
    assert [one.file_id for one in published.files] == [first]
    assert len(published) == 2
    assert published.search("red", vector, 10, [True]) == before
    assert await base.indexes.get(base.owner, base.store_id, ENGINE) is not published


async def test_vectors_of_another_length_are_not_compared(base: Base) -> None:
    await base.add("the red door")
    base.embedder.dimensions = 3  # of the same engine, as it says
    assert [one.chunk.text for one in (await base.find("door")).passages] == ["the red door"]


async def test_a_file_with_vectors_of_another_length_leaves_words_to_be_searched(base: Base) -> None:
    await base.add("the red door")
    file = await upload(base.knowledge, base.owner, b"x")
    added = await add_file(base.knowledge, base.owner, base.store_id, file.id)
    longer = replace(make_batch(0, "the blue door"), vectors=struct.pack("<3f", 1.0, 0.0, 0.0))
    await ingest(base.knowledge, base.owner, added, longer)
    result = await base.find("door")
    assert result.method is SearchMethod.WORDS
    assert {one.chunk.text for one in result.passages} == {"the red door", "the blue door"}


DELETIONS = {
    "its file": lambda one, store_id, file_id: one.delete_file(file_id),
    "its file from the vector store": lambda one, store_id, file_id: one.remove_store_file(store_id, file_id),
    "its vector store": lambda one, store_id, file_id: one.delete_vector_store(store_id),
}


@pytest.mark.parametrize("deleted", DELETIONS)
async def test_the_words_of_what_a_caller_deletes_are_in_no_index(base: Base, deleted: str) -> None:
    file_id = await base.add("the red door")
    await base.find("red")
    assert base.indexes.size > 0
    assert await base.knowledge.delete(base.owner, lambda one: DELETIONS[deleted](one, base.store_id, file_id))
    assert base.indexes.size == 0


async def test_the_words_of_who_is_erased_are_in_no_index(base: Base, store: TenantStore) -> None:
    other = Base(store, base.knowledge.identify(make_caller("key000000002")))
    for one in (base, other):
        await one.add("the red door")
        await one.find("red")
    await erase(store, ADMIN, ErasureScope(caller_kind=base.owner.caller_kind, caller_id=base.owner.caller_id))
    assert base.indexes.size == 0
    assert other.indexes.size > 0


async def test_a_sweep_drops_what_another_replica_has_deleted_and_keeps_what_lacks_a_new_file(base: Base) -> None:
    first = await base.add("the red door")
    published = await base.indexes.get(base.owner, base.store_id, ENGINE)
    assert published is not None
    await base.add("the red wall")
    size = base.indexes.size
    await base.indexes.drop_deleted()
    assert base.indexes.size == size
    await base.knowledge.write(base.owner, lambda one: one.delete_file(first))
    await base.indexes.drop_deleted()
    assert base.indexes.size == 0
    assert [one.chunk.text for one in (await base.find("red")).passages] == ["the red wall"]
