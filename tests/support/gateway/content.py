"""Stored content for tests: what callers say, and access to it as a caller has it."""

from typing import Any, Final

import sqlalchemy as sa

from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_gateway.store.content.content import ENTRY_BYTES, OWNER_BYTES, ContentLimits
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.tenant import TenantStore

MIB = 2**20
LIMITS = ContentLimits(caller_bytes=MIB, tenant_bytes=2 * MIB)


def say(text: str, role: str = "user") -> dict[str, Any]:
    """Return an item of a conversation."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def make_content(store: TenantStore, limits: ContentLimits = LIMITS) -> TenantContent:
    """Return the content of all callers of a store."""
    return TenantContent(store, lambda: limits)


_FILES: Final = t.vector_store_files.join(
    t.vector_stores, t.vector_stores.c.id == t.vector_store_files.c.vector_store_id
)
KNOWLEDGE: Final = (
    (t.files, t.files.c.attributes, t.files),
    (t.files, t.file_parts.c.content, t.file_parts.join(t.files, t.files.c.id == t.file_parts.c.file_id)),
    (t.vector_stores, t.vector_stores.c.attributes, t.vector_stores),
    (t.vector_stores, t.vector_store_files.c.content, _FILES),
    (
        t.vector_stores,
        t.chunk_batches.c.content,
        _FILES.join(t.chunk_batches, t.chunk_batches.c.vector_store_file_id == t.vector_store_files.c.id),
    ),
)
"""Tables of knowledge: whose owner a row has, what it has encrypted, and how the owner is found."""


def check_knowledge_books(connection: sa.Connection) -> None:
    """Compare what the books say of knowledge with the rows, and look for rows that nothing owns."""
    stored: dict[tuple[str, ...], int] = {}
    counts = []
    for table, content, place in KNOWLEDGE:
        names = [table.c[name] for name in t.OWNER]
        sums = sa.select(*names, sa.func.count(), sa.func.sum(sa.func.length(content))).select_from(place)
        total = 0
        for *own, count, size in connection.execute(sums.group_by(*names)):
            stored[tuple(own)] = stored.get(tuple(own), 0) + count * ENTRY_BYTES + int(size)
            total += count
        counts.append(total)
    rows = connection.execute(sa.select(t.knowledge_sizes)).all()
    assert {tuple(row[:3]): row.bytes for row in rows if row.bytes} == stored
    tables = (t.files, t.file_parts, t.vector_stores, t.vector_store_files, t.chunk_batches)
    assert counts == [connection.scalar(sa.select(sa.func.count()).select_from(one)) for one in tables]
    files, batches = t.vector_store_files.c, t.chunk_batches.c
    in_files = connection.scalar(sa.select(sa.func.sum(files.chunks))) or 0
    in_batches = connection.scalar(sa.select(sa.func.sum(batches.chunks))) or 0
    assert sum(row.chunks for row in rows) == in_files == in_batches


def check_books(connection: sa.Connection) -> int:
    """Return the bytes that the books say, after comparing them with the rows: of each owner, and of each caller."""
    owner = [t.content_sizes.c[name] for name in t.OWNER]
    booked = {tuple(row[:-1]): row.bytes for row in connection.execute(sa.select(*owner, t.content_sizes.c.bytes))}
    stored = dict.fromkeys(booked, OWNER_BYTES)
    c = t.conversations.c
    items = t.conversation_items.join(t.conversations, c.id == t.conversation_items.c.conversation_id)
    for table, content, place in (
        (t.conversations, c.attributes, t.conversations),
        (t.conversations, t.conversation_items.c.content, items),
        (t.responses, t.responses.c.content, t.responses),
        (t.memories, t.memories.c.content, t.memories),
        *KNOWLEDGE,
    ):
        names = [table.c[name] for name in t.OWNER]
        sums = sa.select(*names, sa.func.count(), sa.func.sum(sa.func.length(content))).select_from(place)
        for *own, count, size in connection.execute(sums.group_by(*names)):
            stored[tuple(own)] += count * ENTRY_BYTES + int(size)
    assert booked == stored
    check_knowledge_books(connection)
    totals: dict[tuple[str, str], int] = {}
    for (kind, name, _), size in booked.items():
        totals[kind, name] = totals.get((kind, name), 0) + size
    rows = connection.execute(sa.select(t.content_totals)).all()
    assert {(row.caller_kind, row.caller_id): row.bytes for row in rows if row.bytes} == totals
    keys = {tuple(row) for row in connection.execute(sa.select(*(t.data_keys.c[name] for name in t.OWNER)))}
    assert keys == set(booked), "an owner without content has a data key, or one with content has none"
    return sum(booked.values())
