"""Kill the ingestion itself at each statement that changes something, as `content_crash` does: a process of its own.

After each kill the next gateway's ingestion goes on, and each file ends as one that was read without a break.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy as sa

from r1plus_assistant.knowledge.documents import ReadPart, UnreadableDocumentError
from r1plus_assistant.knowledge.index_cache import IndexCache
from r1plus_assistant.knowledge.ingestion import IngestionWorker, Pauses
from r1plus_assistant.knowledge.search import KnowledgeSearch
from r1plus_assistant.store.knowledge_writer import KnowledgeWriter
from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_contract.documents import DocumentFailure, DocumentFailureCode, DocumentReply, TextBlock
from r1plus_gateway.store.content.content import ListPage
from r1plus_gateway.store.content.knowledge import BATCH_CHUNKS, ChunkBatch, IngestionState, VectorStoreFile
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.content import LIMITS, check_books
from support.gateway.content_crash import State, main
from support.gateway.fake_embedder import ENGINE, FakeEmbedder
from support.gateway.knowledge import INGESTION, add_file, make_batch, make_knowledge, make_store, upload
from support.gateway.tenant_data import make_caller
from support.waiting import eventually

T = TypeVar("T")
KEY: Final = make_caller()
ALL: Final = ListPage(100, is_ascending=True)
BLOCKS: Final = 2 * BATCH_CHUNKS + 5
TEXTS: Final = [f"Text number {number}." for number in range(BLOCKS)]
WHOLE, BEGUN, BROKEN = "whole.txt", "begun.txt", "broken.txt"


class Reader:
    """Yields the texts of every file but of one, which is damaged."""

    async def read(self, name: str, size: int, read_part: ReadPart) -> AsyncGenerator[DocumentReply, None]:
        """See `DocumentReader`."""
        yield DocumentReply(reader="tests/2")
        if name == BROKEN:
            raise UnreadableDocumentError(DocumentFailure(DocumentFailureCode.DAMAGED, f"{name}: is damaged"))
        for number, text in enumerate(TEXTS):
            yield DocumentReply(blocks=(TextBlock(f"H{number}", 1), TextBlock(text)))
        yield DocumentReply(is_end=True)


class ReportingKnowledge(TenantKnowledge):
    """Knowledge that reports each change that is committed."""

    def __init__(self, store: TenantStore, on_step: Callable[[], None]) -> None:
        super().__init__(store, lambda: LIMITS)
        self._on_step = on_step

    async def write(self, owner: Owner, step: Callable[[KnowledgeWriter], T]) -> T:
        """See `TenantKnowledge`."""
        written = await super().write(owner, step)
        self._on_step()
        return written


@asynccontextmanager
async def running(knowledge: TenantKnowledge) -> AsyncIterator[tuple[IngestionWorker, KnowledgeSearch]]:
    """Run the ingestion for the block; yield it, and the search whose stale vectors it makes again."""
    indexes = IndexCache(knowledge, lambda: 2**26)
    embedder = FakeEmbedder()
    search = KnowledgeSearch(knowledge, indexes, lambda: embedder)
    worker = IngestionWorker(knowledge, Reader(), lambda: embedder, search, Pauses(0.01, 0.1))
    task = asyncio.create_task(worker.run())
    try:
        yield worker, search
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def prepare(store: TenantStore) -> None:
    """Store files: one of which another reader has read a batch, and one with vectors of another embedder."""
    knowledge = make_knowledge(store)
    key = knowledge.identify(KEY)
    for name in (WHOLE, BEGUN, BROKEN):
        file = await upload(knowledge, key, b"x", name=name)
        store_id = await make_store(knowledge, key, name)
        if name != BROKEN:
            added = await add_file(knowledge, key, store_id, file.id)
            await knowledge.write(key, lambda one: one.append_batch(added, make_batch(0, *TEXTS[:3]), INGESTION))  # noqa: B023
            if name == WHOLE:
                await knowledge.write(key, lambda one: one.finish_ingestion(added, INGESTION, 1))  # noqa: B023


async def take_steps(store: TenantStore, on_step: Callable[[], None]) -> None:
    """Read on what was begun, make vectors again, and fail at a file; `on_step` is called after each commit."""
    knowledge = ReportingKnowledge(store, on_step)
    key, places = knowledge.identify(KEY), await list_stores(knowledge)
    async with running(knowledge) as (worker, search):
        await eventually(
            lambda: has_state(knowledge, places[BEGUN], IngestionState.COMPLETED), "what was begun is read"
        )
        await search.find(key, [places[WHOLE]], "text", 1)
        worker.wake()
        await eventually(lambda: is_renewed(knowledge, search, places[WHOLE]), "the vectors are made again")
        files = await knowledge.read(key, lambda one: one.list_files(ALL))
        assert files is not None
        broken = next(file for file in files.entries if file.name == BROKEN)
        await add_file(knowledge, key, places[BROKEN], broken.id)
        worker.wake()
        await eventually(
            lambda: has_state(knowledge, places[BROKEN], IngestionState.FAILED), "the other cannot be read"
        )


async def list_stores(knowledge: TenantKnowledge) -> dict[str, str]:
    """Return the ids of the vector stores by their names."""
    stores = await knowledge.read(knowledge.identify(KEY), lambda one: one.list_vector_stores(ALL))
    assert stores is not None
    return {one.name: one.id for one in stores.entries}


async def list_files(knowledge: TenantKnowledge, store_id: str) -> list[tuple[VectorStoreFile, list[ChunkBatch]]]:
    """Return the files of a vector store, each with what is stored of it."""
    key = knowledge.identify(KEY)
    listed = await knowledge.read(key, lambda one: one.list_store_files(store_id, ALL))
    assert listed is not None
    return [(file, list(await knowledge.read(key, lambda one: one.read_batches(file)))) for file in listed.entries]  # noqa: B023


async def has_state(knowledge: TenantKnowledge, store_id: str, state: IngestionState) -> bool:
    """Return whether all files of a vector store have come so far."""
    return all(file.state is state for file, _ in await list_files(knowledge, store_id))


async def is_renewed(knowledge: TenantKnowledge, search: KnowledgeSearch, store_id: str) -> bool:
    """Return whether the vectors are the embedder's, and its index may use them."""
    files = await list_files(knowledge, store_id)
    return not search.stale and all(batch.engine == ENGINE for _, batches in files for batch in batches)


async def read_state(store: TenantStore) -> State:
    """Return what is stored, without ids; then let the next gateway's ingestion go on, and compare what it ends with."""
    knowledge, state = make_knowledge(store), State()
    stores = await knowledge.read(knowledge.identify(KEY), lambda one: one.list_vector_stores(ALL))
    assert stores is not None
    for one in stores.entries:
        for file, batches in await list_files(knowledge, one.id):
            problem = file.ingestion.problem and file.ingestion.problem.code
            stored = [[batch.engine, len(batch.chunks)] for batch in batches]
            state.append([one.name, one.version, file.state, problem, stored])
    await store.read(check_sizes)
    await check_end(store, knowledge)
    return sorted(state, key=str)


async def check_end(store: TenantStore, knowledge: TenantKnowledge) -> None:
    """Read to the end what was begun, and compare it with the texts of the files."""
    places = await list_stores(knowledge)
    expected = {
        WHOLE: (IngestionState.COMPLETED, TEXTS[:3]),
        BEGUN: (IngestionState.COMPLETED, TEXTS),
        BROKEN: (IngestionState.FAILED, []),
    }
    async with running(knowledge):
        for name, (state, texts) in expected.items():
            await eventually(lambda: has_state(knowledge, places[name], state), f"{name} is {state}")  # noqa: B023
            files = await list_files(knowledge, places[name])
            assert [chunk.text for _, batches in files for one in batches for chunk in one.chunks] == texts, name
    await store.read(check_sizes)


def check_sizes(connection: sa.Connection) -> None:
    """Compare the books with the rows."""
    check_books(connection)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), take_steps, read_state, prepare)
