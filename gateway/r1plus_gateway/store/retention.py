"""Retention of content: what is older than the tenant's policy goes, with the data keys that nothing needs any more.

A tenant that stops storing keeps what it has stored for as long as it was promised, and stores nothing new.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store import tables as t
from r1plus_gateway.store.content import ENTRY_BYTES
from r1plus_gateway.store.content_books import add_size, delete_conversations
from r1plus_gateway.store.content_cipher import Owner
from r1plus_gateway.store.repository import MetaName, write_meta

MOST_PRUNED: Final = 100
"""Conversations, and responses, that one transaction deletes: requests wait for it."""
MOST_PRUNED_ITEMS: Final = 2048
"""Items of conversations that one transaction deletes, and those of one conversation more."""


def prune_content(connection: Connection, now: float, days: float, most: int = MOST_PRUNED) -> bool:
    """Delete the oldest content that is older than so many days. Return whether there may be more.

    0 days: nothing new is stored, and what is there is kept for as long as the last policy said.
    """
    has_more = _delete_expired_memories(connection, now, most)
    name = MetaName.CONTENT_DAYS
    if days:
        write_meta(connection, name, repr(days))
    else:
        stored: str | None = connection.scalar(sa.select(t.meta.c.value).where(t.meta.c.name == name.value))
        if stored is None:
            return has_more
        days = float(stored)
    return _delete_older(connection, now - days * 86400, most) or has_more


def _delete_older(connection: Connection, before: float, most: int) -> bool:
    has_more = _delete_older_conversations(connection, before, most)
    return _delete_rows(connection, t.responses, t.responses.c.created_at, before, most) or has_more


def _delete_expired_memories(connection: Connection, now: float, most: int) -> bool:
    """Delete memories whose time is over: each has its own, also where nothing new is stored."""
    return _delete_rows(connection, t.memories, t.memories.c.expires_at, now, most)


def _delete_rows(connection: Connection, table: sa.Table, moment: sa.Column[Any], before: float, most: int) -> bool:
    """Delete rows with `content` whose moment is before another one. Return whether there may be more."""
    c = table.c
    found = sa.select(c.id, sa.func.length(c.content), *(c[name] for name in t.OWNER))
    stale = connection.execute(found.where(moment < before).order_by(moment).limit(most)).all()
    if stale:
        connection.execute(sa.delete(table).where(c.id.in_([row.id for row in stale])))
        for row in stale:
            add_size(connection, Owner(*row[2:]), -row[1] - ENTRY_BYTES)
    return len(stale) == most


def _delete_older_conversations(connection: Connection, before: float, most: int) -> bool:
    c = t.conversations.c
    owner = [c[name] for name in t.OWNER]
    old = connection.execute(sa.select(c.id, *owner).where(c.used_at < before).order_by(c.used_at).limit(most)).all()
    items = 0
    for row in old:
        if items > MOST_PRUNED_ITEMS:
            return True
        items += delete_conversations(connection, [(row.id, Owner(*row[1:]))])
    return len(old) == most
