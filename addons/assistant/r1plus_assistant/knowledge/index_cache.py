"""Indexes of vector stores, built when they are first searched and kept while memory lasts."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from r1plus_assistant.knowledge.index import IndexLimitError, StoreIndex
from r1plus_assistant.store.knowledge_reader import KnowledgeReader
from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.store.content.knowledge import VectorStoreFile
from r1plus_gateway.store.database.readers import ReadKind
from r1plus_gateway.store.keys.content_cipher import Owner

MOST_SMALL_CHUNKS: Final = 4_000
"""Of a vector store whose index is built within a second or two, and waits for no larger one."""
MOST_INDEXES: Final = 1_000
"""Also of vector stores without text: each takes some memory, and is looked for in the store every few seconds."""


@dataclass(slots=True)
class _Entry:
    owner: Owner
    """Whose the vector store is."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    index: StoreIndex | None = None


class IndexCache:
    """All indexes. The one that was not searched for the longest time goes first."""

    def __init__(
        self, knowledge: TenantKnowledge, read_most_bytes: Callable[[], int], most_small: int = MOST_SMALL_CHUNKS
    ) -> None:
        self._knowledge = knowledge
        self._most_small = most_small
        self._read_most_bytes = read_most_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        knowledge.notify(self)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return sum(entry.index.size for entry in self._entries.values() if entry.index is not None)

    async def get(self, owner: Owner, store_id: str, engine: str) -> StoreIndex | None:
        """Return the index of a vector store as it is now, with vectors of this engine; None without one.

        An empty engine: vectors are not compared, so those of any engine will do.

        Raises:
            IndexLimitError: it needs more memory than all indexes may have.
            AccessError, UnreadableContentError: as `TenantKnowledge.read`.
        """
        version, store_owner = await self._knowledge.read(
            owner, lambda reader: (reader.read_version(store_id), reader.find_store_owner(store_id))
        )
        if version is None or store_owner is None:
            if store_id in self._entries and self._entries[store_id].owner == owner:
                self.forget(store_id)
            return None
        most = self._read_most_bytes()
        if store_id not in self._entries:
            self._entries[store_id] = _Entry(store_owner)
            self._evict(store_id, most)
        entry = self._entries[store_id]
        self._entries.move_to_end(store_id)
        async with entry.lock:
            index = entry.index
            if not engine and index is not None:
                engine = index.engine
            if index is None or index.version != version or index.engine != engine:
                try:
                    index = await self._knowledge.read(
                        owner,
                        lambda reader: build_index(reader, store_id, engine, most, index),
                        kind=await self._choose_kind(owner, store_id),
                    )
                except IndexLimitError:
                    entry.index = None
                    raise
                entry.index = index
                self._evict(store_id, most)
            return index

    async def _choose_kind(self, owner: Owner, store_id: str) -> ReadKind:
        chunks = await self._knowledge.read(owner, lambda reader: reader.count_chunks(store_id))
        return ReadKind.BUILD if chunks <= self._most_small else ReadKind.LARGE_BUILD

    def forget(self, store_id: str) -> None:
        """Drop the index of a vector store that was deleted."""
        self._entries.pop(store_id, None)

    def forget_owners(self, is_erased: Callable[[Owner], bool]) -> None:
        """Drop the indexes of owners that were erased."""
        for store_id in [one for one, entry in self._entries.items() if is_erased(entry.owner)]:
            self.forget(store_id)

    async def drop_deleted(self, owner: Owner | None = None) -> None:
        """Drop the indexes that have what is no longer stored: of one owner, or of all. Raises StoreError.

        One that lacks what is new stays: the next search adds that to it.
        """
        indexes = {name: entry.index for name, entry in self._entries.items() if owner in (None, entry.owner)}
        if not indexes:
            return
        versions = {name: -1 if index is None else index.version for name, index in indexes.items()}
        for store_id, files in (await self._knowledge.list_changed(versions)).items():
            index, entry = indexes[store_id], self._entries.get(store_id)
            if entry is None or entry.index is not index:
                continue  # It was built again meanwhile.
            if files is None:
                self.forget(store_id)
            elif index is not None and not files.issuperset(file.id for file in index.files):
                entry.index = None

    def _evict(self, store_id: str, most: int) -> None:
        size = self.size
        for other in list(self._entries):
            index = self._entries[other].index
            if size <= most and len(self._entries) <= MOST_INDEXES:
                return
            if other != store_id and not self._entries[other].lock.locked():
                size -= 0 if index is None else index.size
                del self._entries[other]


def build_index(
    reader: KnowledgeReader, store_id: str, engine: str, most_bytes: int, before: StoreIndex | None
) -> StoreIndex | None:
    """Return the index of a vector store as it is stored; files that are new are added to a copy of the one before.

    Raises:
        IndexLimitError: it needs more memory than `most_bytes`.
    """
    version, files = reader.read_version(store_id), reader.list_searchable(store_id)
    if version is None or files is None:
        return None
    index = StoreIndex(engine, most_bytes)
    if before is not None and before.engine == engine and not before.has_stale and _is_prefix(before, files):
        index = before.copy(files[: len(before.files)])
    try:
        added = files[len(index.files) :]
        index.reserve(sum(file.chunks for file in added))
        for file in added:
            index.add_file(file)
            position = -1
            while batches := reader.read_batches(file, position):
                for batch in batches:
                    index.add_batch(batch)
                    position = batch.position
    except IndexLimitError as error:
        raise IndexLimitError(
            f"the vector store {store_id} needs {error}, which all indexes may have; delete files from it, or divide it"
        ) from None
    index.version = version
    index.end_building()
    return index


def _is_prefix(index: StoreIndex, files: Sequence[VectorStoreFile]) -> bool:
    return [file.id for file in files[: len(index.files)]] == [file.id for file in index.files]
