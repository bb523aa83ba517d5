"""Search in vector stores: words and vectors, joined, with the text and the source of what was found."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from r1plus_assistant.embedding.client import EmbedderUnavailableError, FindEmbedder, TextRefusedError
from r1plus_assistant.knowledge.filters import Filter
from r1plus_assistant.knowledge.index import Hit, StoreIndex
from r1plus_assistant.knowledge.index_cache import IndexCache
from r1plus_assistant.store.knowledge_reader import KnowledgeReader
from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.store.content.knowledge import Chunk
from r1plus_gateway.store.keys.content_cipher import Owner

log = logging.getLogger(__name__)
TOUCH_SECONDS: Final = 3600.0
"""Between two notes that a vector store is used: its expiry counts days."""
MOST_QUESTION_CHARACTERS: Final = 4_000
"""Of the end of a question, which is searched for."""
MOST_SEARCHES: Final = 4
"""That run at once: each takes processor time from running streams."""


class SearchMethod(StrEnum):
    """What a search compared."""

    HYBRID = "hybrid"
    """Words and vectors."""
    WORDS = "words"
    """The tenant has no embedder, it is away, or the vectors are of another one and are made again."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found, with its source."""

    vector_store_id: str
    file_id: str
    file_name: str
    attributes: Mapping[str, Any]
    chunk: Chunk
    score: float
    batch: int = 0
    """Where the file's chunks are stored, and there:"""
    index: int = 0
    words: frozenset[str] | None = field(default=None, repr=False)
    """As citations compare them; None: they are split when they are compared."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was found, the best first."""

    passages: Sequence[Passage]
    method: SearchMethod


class UnknownVectorStoreError(Exception):
    """A vector store that the owner has not."""

    def __init__(self, store_id: str) -> None:
        super().__init__(store_id)
        self.store_id = store_id


class KnowledgeSearch:
    """Searches the vector stores of all callers."""

    def __init__(self, knowledge: TenantKnowledge, indexes: IndexCache, find_embedder: FindEmbedder) -> None:
        self._knowledge = knowledge
        self._indexes = indexes
        self._find_embedder = find_embedder
        self._turns = asyncio.Semaphore(MOST_SEARCHES)
        self.stale: dict[str, Owner] = {}
        """Vector stores whose vectors are of another embedder: the ingestion makes them again."""

    async def find(
        self,
        owner: Owner,
        store_ids: Sequence[str],
        question: str,
        most: int,
        condition: Filter | None = None,
        least_score: float = 0.0,
    ) -> SearchResult:
        """Return the best passages of these vector stores.

        Raises:
            UnknownVectorStoreError: one is not there for this owner.
            IndexLimitError: one is too large for the memory of all indexes.
            AccessError, UnreadableContentError: as `TenantKnowledge.read`.
        """
        question = question[-MOST_QUESTION_CHARACTERS:]
        vector, engine = await self._embed(question)
        found: list[tuple[str, Hit]] = []
        method = SearchMethod.HYBRID if engine else SearchMethod.WORDS
        for store_id in dict.fromkeys(store_ids):
            index = await self._indexes.get(owner, store_id, engine)
            if index is None:
                raise UnknownVectorStoreError(store_id)
            if len(index) and engine and not index.has_vectors:
                self.stale[store_id] = owner
                method = SearchMethod.WORDS
            found += [(store_id, hit) for hit in await self._search(index, question, vector, most, condition)]
        found = [one for one in found if one[1].score >= least_score]
        found.sort(key=lambda one: -one[1].score)
        passages = await self._knowledge.read(owner, lambda reader: _read_passages(reader, found[:most]))
        await self._touch(owner, store_ids)
        return SearchResult(passages, method)

    async def _search(
        self,
        index: StoreIndex,
        question: str,
        vector: NDArray[np.float32] | None,
        most: int,
        condition: Filter | None,
    ) -> list[Hit]:
        async with self._turns:
            return await asyncio.to_thread(_search_index, index, question, vector, most, condition)

    async def _embed(self, question: str) -> tuple[NDArray[np.float32] | None, str]:
        """Return the question's vector and the engine; nothing without an embedder that answers."""
        embedder = self._find_embedder()
        if embedder is None or not question.strip():
            return None, ""
        try:
            embeddings = await embedder.embed([question])
        except (EmbedderUnavailableError, TextRefusedError) as error:
            log.warning("A question is searched by its words alone: %s", error)
            return None, ""
        return embeddings.vectors[0], embeddings.engine

    async def _touch(self, owner: Owner, store_ids: Sequence[str]) -> None:
        """Note that vector stores which expire were used."""
        for store_id in store_ids:
            store = await self._knowledge.read(owner, lambda reader: reader.find_expiry(store_id))  # noqa: B023
            if store is not None and store.now - store.used_at > TOUCH_SECONDS:
                await self._knowledge.write(owner, lambda writer: writer.touch_vector_store(store_id))  # noqa: B023


def _search_index(
    index: StoreIndex, question: str, vector: NDArray[np.float32] | None, most: int, condition: Filter | None
) -> list[Hit]:
    """Search an index among the files that a filter lets through, of which there may be ten thousand."""
    allowed = None
    if condition is not None:
        allowed = [condition.matches(file.ingestion.attributes) for file in index.files]
    return index.search(question, vector, most, allowed)


def _read_passages(reader: KnowledgeReader, found: Sequence[tuple[str, Hit]]) -> list[Passage]:
    """Return what was found with its text, without what was deleted meanwhile."""
    passages = []
    for store_id, hit in found:
        file = hit.place.file
        about, chunk = reader.find_file(file.file_id), reader.read_chunk(file, hit.place.batch, hit.place.index)
        if about is not None and chunk is not None:
            passages.append(
                Passage(
                    store_id,
                    file.file_id,
                    about.name,
                    file.ingestion.attributes,
                    chunk,
                    hit.score,
                    hit.place.batch,
                    hit.place.index,
                )
            )
    return passages
