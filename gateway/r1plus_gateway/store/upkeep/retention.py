"""Retention of content: what is older than the tenant's policy goes, with the data keys that nothing needs any more.

A tenant that stops storing keeps what it has stored for as long as it was promised, and stores nothing new.
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.content.content import ENTRY_BYTES, DeletionStep
from r1plus_gateway.store.content.content_books import add_size, delete_conversations, match_owner
from r1plus_gateway.store.content.knowledge import DELETED_AT, UPLOAD_SECONDS, FileState
from r1plus_gateway.store.content.knowledge_books import shrink_file, shrink_vector_store
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.ledger.repository import MetaName, read_meta, write_meta
from r1plus_gateway.store.upkeep.retention_clock import MOST_AHEAD_SECONDS

_DAY: Final = 86400.0
MOST_PRUNED: Final = 100
"""Conversations, and responses, that one transaction deletes: requests wait for it."""
MOST_PRUNED_KNOWLEDGE: Final = 4
"""Files, and vector stores, that one transaction deletes if they are small."""
MOST_PRUNED_ITEMS: Final = 2048
"""Items of conversations that one transaction deletes, and those of one conversation more."""


def prune_content(connection: Connection, now: float, days: float, most: int = MOST_PRUNED) -> bool:
    """Delete the oldest content that is older than so many days. Return whether there may be more.

    0 days: nothing new is stored, and what is there is kept for as long as the last policy said.
    """
    stored = _read_days(connection)
    last = days if stored is None else stored
    if days:
        write_meta(connection, MetaName.CONTENT_DAYS, repr(days))
        _shorten_memories(connection, last * _DAY, days * _DAY)
    has_more = _delete_expired_memories(connection, now, most)
    if not (days or last):
        return has_more
    return _delete_older(connection, now - (days or last) * _DAY, most) or has_more


def prune_knowledge(
    connection: Connection, now: float, owner: Owner | None = None, step: DeletionStep | None = None
) -> bool:
    """Delete some of the files and vector stores whose time is over, and of uploads that were cut; return whether
    there may be more. Nobody sees them any more, so it goes on at any time, also in another process.

    Knowledge has no other end: whoever uploads a file, deletes it. `owner`: only what this one has deleted.
    """
    f, v = t.files.c, t.vector_stores.c
    is_over = sa.or_(f.expires_at <= now, sa.and_(f.state == FileState.UPLOADING, f.created_at < now - UPLOAD_SECONDS))
    is_file, is_store = (is_over,), (v.expires_at <= now,)
    if owner is not None:
        is_file = (f.expires_at == DELETED_AT, *match_owner(t.files, owner))
        is_store = (v.expires_at == DELETED_AT, *match_owner(t.vector_stores, owner))
    for table, conditions, shrink in (
        (t.files, is_file, shrink_file),
        (t.vector_stores, is_store, shrink_vector_store),
    ):
        c = table.c
        found = sa.select(c.id, *(c[name] for name in t.OWNER)).where(*conditions).order_by(c.created_at, c.id)
        for row_id, *own in connection.execute(found.limit(MOST_PRUNED_KNOWLEDGE)).all():
            if shrink(connection, row_id, Owner(*own), step or DeletionStep()):
                return True
    return _has_any(connection, t.files, is_file) or _has_any(connection, t.vector_stores, is_store)


def date_back(connection: Connection, now: float) -> None:
    """Let what was stored while a clock was ahead begin now, or it would be kept until that time has come.

    `now` is the time that retention goes by, in epoch seconds.
    """
    latest = now + MOST_AHEAD_SECONDS
    # A memory's own beginning bounds how far a shorter policy shortens it.
    for moment in (t.conversations.c.used_at, t.responses.c.created_at, t.memories.c.created_at):
        connection.execute(sa.update(moment.table).where(moment > latest).values({moment.name: now}))
    days, ends = _read_days(connection), t.memories.c.expires_at
    if days is not None:  # a memory lasts for no longer
        is_late = ends > latest + days * _DAY
        connection.execute(sa.update(t.memories).where(is_late).values(expires_at=now + days * _DAY))
    for moment in (t.files.c.created_at, t.vector_stores.c.used_at):
        ends = moment.table.c.expires_at
        values = {moment.name: now, ends.name: sa.case((ends == DELETED_AT, ends), else_=ends - moment + now)}
        connection.execute(sa.update(moment.table).where(moment > latest).values(values))


def _read_days(connection: Connection) -> float | None:
    """Return for how many days the last policy keeps content; None if there was none."""
    stored = read_meta(connection, MetaName.CONTENT_DAYS)
    return None if stored is None else float(stored)


def _has_any(connection: Connection, table: sa.Table, conditions: Sequence[Any]) -> bool:
    return connection.scalar(sa.select(table.c.id).where(*conditions).limit(1)) is not None


def _delete_older(connection: Connection, before: float, most: int) -> bool:
    has_more = _delete_older_conversations(connection, before, most)
    return _delete_rows(connection, t.responses, t.responses.c.created_at, before, most) or has_more


def _shorten_memories(connection: Connection, before: float, after: float) -> None:
    """Let memories end as a shorter policy says; both policies in seconds.

    When a memory was written last is not stored, so it is taken to have got the time of the policy before. One that was
    changed and got less ends early, but never before the new policy's time from its beginning.
    """
    if after >= before:
        return
    c = t.memories.c
    earliest, moved = c.created_at + after, c.expires_at - (before - after)
    ends = sa.case((moved > earliest, moved), else_=earliest)
    connection.execute(sa.update(t.memories).where(c.expires_at > earliest).values(expires_at=ends))


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
