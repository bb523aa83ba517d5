"""The books of stored content: how much each owner and each caller has, and what goes when nothing is left.

What is deleted is counted off in the same transaction. Used by `content_writer`, `retention` and `erasure`.
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.content.content import ENTRY_BYTES, OWNER_BYTES
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import Owner

_OWNED: Final = (t.conversations, t.responses, t.memories, t.files, t.vector_stores)
"""Tables whose rows name their owner, and are encrypted under its keys."""


def read_stored_bytes(connection: Connection) -> int:
    """Return the bytes that all owners have stored."""
    return int(connection.scalar(sa.select(sa.func.sum(t.content_totals.c.bytes))) or 0)


def read_caller_bytes(connection: Connection, owner: Owner) -> int:
    """Return the bytes that the caller of an owner has stored with all its end users."""
    c = t.content_totals.c
    is_caller = (c.caller_kind == owner.caller_kind, c.caller_id == owner.caller_id)
    return int(connection.scalar(sa.select(c.bytes).where(*is_caller)) or 0)


def read_own_bytes(connection: Connection, owner: Owner) -> int:
    """Return the bytes that an owner has stored, without its caller's other end users."""
    sizes = t.content_sizes
    return int(connection.scalar(sa.select(sizes.c.bytes).where(*match_owner(sizes, owner))) or 0)


def measure_new_owner(connection: Connection, owner: Owner) -> int:
    """Return what an owner's first content costs besides itself; 0 if it has some."""
    sizes = t.content_sizes
    has_content = connection.scalar(sa.select(sizes.c.bytes).where(*match_owner(sizes, owner))) is not None
    return 0 if has_content else OWNER_BYTES


def match_owner(table: sa.Table, owner: Owner) -> tuple[Any, ...]:
    """Return the conditions that a row is this owner's."""
    return tuple(table.c[name] == getattr(owner, name) for name in t.OWNER)


def add_size(connection: Connection, owner: Owner, size: int) -> None:
    """Count bytes that an owner has stored, or has no longer. One without content loses its entry and its data keys."""
    is_own, bytes_ = match_owner(t.content_sizes, owner), t.content_sizes.c.bytes
    added = size
    if not connection.execute(sa.update(t.content_sizes).where(*is_own).values(bytes=bytes_ + size)).rowcount:
        added += OWNER_BYTES
        own = {name: getattr(owner, name) for name in t.OWNER}
        connection.execute(sa.insert(t.content_sizes), [own | {"bytes": added}])
    if size < 0:
        left = connection.scalar(sa.select(bytes_).where(*is_own)) or 0
        if left <= OWNER_BYTES:
            connection.execute(sa.delete(t.content_sizes).where(*is_own))
            _delete_keys(connection, owner)
            added -= left
    add_total(connection, owner.caller_kind, owner.caller_id, added)


def add_total(connection: Connection, caller_kind: str, caller_id: str, size: int) -> None:
    """Count bytes that a caller has stored with all its end users, or has no longer."""
    c = t.content_totals.c
    is_caller = (c.caller_kind == caller_kind, c.caller_id == caller_id)
    if not connection.execute(sa.update(t.content_totals).where(*is_caller).values(bytes=c.bytes + size)).rowcount:
        own = {"caller_kind": caller_kind, "caller_id": caller_id}
        connection.execute(sa.insert(t.content_totals), [own | {"bytes": size}])


def _delete_keys(connection: Connection, owner: Owner) -> None:
    """Destroy an owner's data keys, whatever the books say, only if nothing needs them."""
    needed = [sa.exists(sa.select(table.c.id).where(*match_owner(table, owner))) for table in _OWNED]
    connection.execute(
        sa.delete(t.data_keys).where(*match_owner(t.data_keys, owner), *(~is_needed for is_needed in needed))
    )


def delete_conversations(connection: Connection, conversations: Sequence[tuple[str, Owner]]) -> int:
    """Delete conversations with their items, and count their size off. Return how many items went."""
    items = 0
    for conversation_id, owner in conversations:
        c = t.conversation_items.c
        count, size = connection.execute(
            sa.select(sa.func.count(), sa.func.sum(sa.func.length(c.content))).where(
                c.conversation_id == conversation_id
            )
        ).one()
        own = connection.scalar(
            sa.select(sa.func.length(t.conversations.c.attributes)).where(t.conversations.c.id == conversation_id)
        )
        connection.execute(sa.delete(t.conversation_items).where(c.conversation_id == conversation_id))
        connection.execute(sa.delete(t.conversations).where(t.conversations.c.id == conversation_id))
        add_size(connection, owner, -int(size or 0) - int(own or 0) - (count + 1) * ENTRY_BYTES)
        items += count
    return items
