"""Marks: what of an owner's content was read, so that the next request reads only what is new.

Items and responses never change, and ids are never used twice. So content is as it was if all that was read is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.content.content import StoredItem, StoredResponse
from r1plus_gateway.store.content.content_books import match_owner
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import Owner

SLACK: Final = 1.25
"""What is continued may have so many times the bytes that are read at once; then it is read again from its end."""
_MOST_NAMED: Final = 256


@dataclass(frozen=True, slots=True)
class ConversationMark:
    """The items of a conversation that were read: consecutive ones."""

    conversation_id: str
    key_id: str
    """Of the owner's newest data key then."""
    first: int
    last: int
    """Positions."""
    last_id: str
    count: int
    size: int
    """Bytes of ciphertext."""

    def is_current(self, connection: Connection, owner: Owner) -> bool:
        """See `Mark`. No item is added before the last one, so their number says whether one is gone."""
        c, own = t.conversation_items.c, t.conversations.c
        is_own = sa.exists(
            sa.select(own.id).where(own.id == self.conversation_id, *match_owner(t.conversations, owner))
        )
        is_read = (c.conversation_id == self.conversation_id, c.position >= self.first, c.position <= self.last)
        is_last = (c.conversation_id == self.conversation_id, c.position == self.last, c.id == self.last_id)
        found = sa.select(
            sa.select(sa.func.count(c.position)).where(*is_read).scalar_subquery(),
            sa.exists(sa.select(c.id).where(*is_last)),
            is_own,
        )
        count, has_last, has_owner = connection.execute(found).one()
        is_there = bool(has_last) and bool(has_owner) and count == self.count
        return is_there and find_newest_key(connection, owner) == self.key_id


@dataclass(frozen=True, slots=True)
class ChainMark:
    """The responses of a chain that were read, the oldest first."""

    ids: Sequence[str]
    key_id: str

    def is_current(self, connection: Connection, owner: Owner) -> bool:
        """See `Mark`."""
        return _has_rows(connection, t.responses, owner, self.ids, self.key_id)


@dataclass(frozen=True, slots=True)
class MemoriesMark:
    """The memories of an owner that were read."""

    ids: Sequence[str]
    key_id: str

    def is_current(self, connection: Connection, owner: Owner) -> bool:
        """See `Mark`."""
        return _has_rows(connection, t.memories, owner, self.ids, self.key_id)


@dataclass(frozen=True, slots=True)
class NewItems:
    """Items of a conversation that were not read before."""

    items: Sequence[StoredItem]
    mark: ConversationMark | None
    """Of all that was read; None where there is nothing."""
    is_continued: bool
    """Whether what was read before is as it was, and comes before these."""


@dataclass(frozen=True, slots=True)
class NewResponses:
    """Responses of a chain that were not read before."""

    responses: Sequence[StoredResponse]
    mark: ChainMark
    continued: ChainMark | None
    """What comes before these, as it was read before."""


def find_newest_key(connection: Connection, owner: Owner) -> str:
    """Return the id of the key that encrypts an owner's content; empty without one."""
    c = t.data_keys.c
    newest = sa.select(c.id).where(*match_owner(t.data_keys, owner)).order_by(c.created_at.desc(), c.id).limit(1)
    return connection.scalar(newest) or ""


def _has_rows(connection: Connection, table: sa.Table, owner: Owner, ids: Sequence[str], key_id: str) -> bool:
    """Return whether an owner has all these rows, and no newer key."""
    c, found = table.c, 0
    for start in range(0, len(ids), _MOST_NAMED):
        named = (c.id.in_(ids[start : start + _MOST_NAMED]), *match_owner(table, owner))
        found += connection.scalar(sa.select(sa.func.count(c.id)).where(*named)) or 0
    return found == len(ids) and find_newest_key(connection, owner) == key_id
