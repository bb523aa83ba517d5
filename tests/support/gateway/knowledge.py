"""Stored knowledge for tests, as callers and the ingestion store it."""

import struct

from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.store.content.content import ContentLimits
from r1plus_gateway.store.content.knowledge import (
    Chunk,
    ChunkBatch,
    Ingestion,
    IngestionState,
    StoredFile,
    VectorStoreFile,
)
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.content import LIMITS

ENGINE = "tests@sha256:00"
INGESTION = Ingestion({"topic": "tests"}, 200, 20, "tests/1")


def make_knowledge(store: TenantStore, limits: ContentLimits = LIMITS) -> TenantKnowledge:
    """Return the knowledge of all callers of a store."""
    return TenantKnowledge(store, lambda: limits)


def make_batch(position: int, *texts: str, engine: str = ENGINE) -> ChunkBatch:
    """Return a batch of chunks, with a vector of two numbers each."""
    chunks = [Chunk(text, 0, len(text), 1, "Heading") for text in texts]
    vectors = b"".join(struct.pack("<2f", 1.0, 0.0) for _ in texts) if engine else b""
    return ChunkBatch(position, chunks, engine, vectors)


async def upload(knowledge: TenantKnowledge, owner: Owner, *parts: bytes, name: str = "notes.txt") -> StoredFile:
    """Upload a file, a part at a time."""
    file_id = await knowledge.write(owner, lambda one: one.begin_file(name))
    for position, part in enumerate(parts):
        assert await knowledge.write(owner, lambda one: one.append_part(file_id, position, part))  # noqa: B023
    file = await knowledge.write(owner, lambda one: one.finish_file(file_id, name, "assistants", None))
    assert file is not None
    return file


async def make_store(knowledge: TenantKnowledge, owner: Owner, name: str = "notes") -> str:
    """Make a vector store; return its id."""
    made = await knowledge.write(owner, lambda one: one.create_vector_store(name, "", {}, None))
    return made.id


async def add_file(knowledge: TenantKnowledge, owner: Owner, store_id: str, file_id: str) -> VectorStoreFile:
    """Add a file to a vector store."""
    added = await knowledge.write(owner, lambda one: one.add_store_file(store_id, file_id, INGESTION))
    assert added is not None
    return added


async def ingest(knowledge: TenantKnowledge, owner: Owner, file: VectorStoreFile, *batches: ChunkBatch) -> None:
    """Store a file's chunks as the ingestion does."""
    for batch in batches:
        assert await knowledge.write(owner, lambda one: one.append_batch(file, batch, INGESTION))  # noqa: B023
    completed = IngestionState.COMPLETED
    assert await knowledge.write(owner, lambda one: one.update_ingestion(file, INGESTION, completed))
