"""Stored content for tests: what callers say, and access to it as a caller has it."""

from typing import Any

import sqlalchemy as sa

from r1plus_gateway.store import tables as t
from r1plus_gateway.store.content import ENTRY_BYTES, OWNER_BYTES, ContentLimits
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.tenant_content import TenantContent

MIB = 2**20
LIMITS = ContentLimits(caller_bytes=MIB, tenant_bytes=2 * MIB)


def say(text: str, role: str = "user") -> dict[str, Any]:
    """Return an item of a conversation."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def make_content(store: TenantStore, limits: ContentLimits = LIMITS) -> TenantContent:
    """Return the content of all callers of a store."""
    return TenantContent(store, lambda: limits)


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
    ):
        names = [table.c[name] for name in t.OWNER]
        sums = sa.select(*names, sa.func.count(), sa.func.sum(sa.func.length(content))).select_from(place)
        for *own, count, size in connection.execute(sums.group_by(*names)):
            stored[tuple(own)] += count * ENTRY_BYTES + int(size)
    assert booked == stored
    totals: dict[tuple[str, str], int] = {}
    for (kind, name, _), size in booked.items():
        totals[kind, name] = totals.get((kind, name), 0) + size
    rows = connection.execute(sa.select(t.content_totals)).all()
    assert {(row.caller_kind, row.caller_id): row.bytes for row in rows if row.bytes} == totals
    keys = {tuple(row) for row in connection.execute(sa.select(*(t.data_keys.c[name] for name in t.OWNER)))}
    assert keys == set(booked), "an owner without content has a data key, or one with content has none"
    return sum(booked.values())
