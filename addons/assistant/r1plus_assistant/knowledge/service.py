"""The knowledge base of one gateway, from start to end: search, indexes, and the ingestion that runs beside it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from r1plus_assistant.embedding.client import FindEmbedder
from r1plus_assistant.knowledge.documents import DocumentReader
from r1plus_assistant.knowledge.index_cache import IndexCache
from r1plus_assistant.knowledge.ingestion import DEFAULT_PAUSES, IngestionWorker, Pauses
from r1plus_assistant.knowledge.search import KnowledgeSearch, SearchMethod
from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.settings import GatewayLimits
from r1plus_gateway.store.content.content import ContentLimits
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.tenant import TenantStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnowledgeService:
    """What the handlers of knowledge work with."""

    knowledge: TenantKnowledge
    search: KnowledgeSearch
    ingestion: IngestionWorker
    indexes: IndexCache
    find_embedder: FindEmbedder

    @property
    def method(self) -> SearchMethod:
        """What searches compare, while the embedder answers."""
        return SearchMethod.WORDS if self.find_embedder() is None else SearchMethod.HYBRID


@asynccontextmanager
async def run_knowledge(
    store: TenantStore,
    read_limits: Callable[[], GatewayLimits],
    documents: DocumentReader | None,
    find_embedder: FindEmbedder,
    pauses: Pauses = DEFAULT_PAUSES,
) -> AsyncIterator[KnowledgeService]:
    """Read files in until the block ends. What is cut off then goes on with the next gateway."""
    knowledge = TenantKnowledge(store, lambda: read_content_limits(read_limits()))
    indexes = IndexCache(knowledge, lambda: read_limits().index_bytes)
    search = KnowledgeSearch(knowledge, indexes, find_embedder)
    ingestion = IngestionWorker(knowledge, documents, find_embedder, search, pauses)
    tasks = [asyncio.create_task(work) for work in (ingestion.run(), _sweep(indexes, pauses.sweep))]
    try:
        yield KnowledgeService(knowledge, search, ingestion, indexes, find_embedder)
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _sweep(indexes: IndexCache, seconds: float) -> None:
    """Drop the indexes of what is deleted, again and again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await indexes.drop_deleted()
        except StoreError:
            pass  # The state of the data says why.
        except Exception:  # else the task ends, and deleted words stay in memory
            log.exception("Indexes of what was deleted could not be dropped; trying again")


def read_content_limits(limits: GatewayLimits) -> ContentLimits:
    """Return how much may be stored."""
    return ContentLimits(
        limits.content_bytes_per_key,
        limits.content_bytes_per_tenant,
        limits.knowledge_bytes_per_key,
        limits.chunks_per_tenant,
        limits.chunks_per_key,
    )
