"""What one owner has stored, read in one transaction. Every statement names the owner: another's id finds nothing.

Called with the connection of `TenantStore.read` or `write`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa

from r1plus_assistant.store.content_marks import (
    SLACK,
    ChainMark,
    ConversationMark,
    NewItems,
    NewResponses,
    find_newest_key,
)
from r1plus_assistant.store.owner_reader import OwnerReader
from r1plus_gateway.store.content.content import (
    MOST_HISTORY,
    MOST_MEMORIES,
    PAGE_BYTES,
    HistoryBrokenError,
    HistoryTooLongError,
    Listed,
    ListPage,
    MemorySource,
    StoredConversation,
    StoredItem,
    StoredMemory,
    StoredResponse,
)
from r1plus_gateway.store.content.content_books import match_owner
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.upkeep.erasure_records import match_shown

_MOST_NAMED: Final = 256
"""Ids in one statement."""
_MOST_STEPS: Final = 4
"""Newest responses of a chain, one of which was read before where the chain was continued by one request or two."""


class ContentReader(OwnerReader):
    """Reads what one owner has stored."""

    def find_conversation(self, conversation_id: str) -> StoredConversation | None:
        """Return a conversation of this owner. Raises UnreadableContentError."""
        row = self._find_own(t.conversations, conversation_id)
        return None if row is None else self._make_conversation(row)

    def list_conversations(self, page: ListPage) -> Listed[StoredConversation] | None:
        """Return conversations by the time they were made; None if `page.after` is none of them."""
        rows = self._list_rows(t.conversations, page)
        if rows is None:
            return None
        return Listed([self._make_conversation(row) for row in rows[: page.limit]], len(rows) > page.limit)

    def list_memories(self, page: ListPage) -> Listed[StoredMemory] | None:
        """Return memories whose time is not over, by when they were made; None if `page.after` is none of them."""
        rows = self._list_rows(t.memories, page)
        if rows is None:
            return None
        return Listed([self._make_memory(row) for row in rows[: page.limit]], len(rows) > page.limit)

    def read_memories(self) -> list[StoredMemory]:
        """Return all memories of this owner whose time is not over, the oldest first."""
        return [self._make_memory(row) for row in self._list_rows(t.memories, ListPage(MOST_MEMORIES, "", True)) or ()]

    def find_memory(self, memory_id: str) -> StoredMemory | None:
        """Return a memory of this owner. Raises UnreadableContentError."""
        row = self._find_own(t.memories, memory_id)
        return None if row is None else self._make_memory(row)

    def list_items(self, conversation_id: str, page: ListPage) -> Listed[StoredItem] | None:
        """Return items of a conversation of this owner as they were said; None if `page.after` is none of them."""
        c = t.conversation_items.c
        is_item = self._match_items(conversation_id)
        statement = sa.select(t.conversation_items).where(*is_item)
        if page.after:
            position = self.connection.scalar(sa.select(c.position).where(*is_item, c.id == page.after))
            if position is None:
                return None
            statement = statement.where(c.position > position if page.is_ascending else c.position < position)
        order = c.position if page.is_ascending else c.position.desc()
        sizes = statement.with_only_columns(c.id, sa.func.length(c.content).label("size")).order_by(order)
        found = self.connection.execute(sizes.limit(page.limit + 1)).all()
        fitting = _count_fitting([row.size for row in found[: page.limit]])
        rows = self.connection.execute(statement.order_by(order).limit(fitting)).all()
        return Listed([self._make_item(row) for row in rows], len(found) > fitting)

    def read_items(self, conversation_id: str, most_bytes: int, *, cuts_oldest: bool = False) -> list[StoredItem]:
        """Return all items of a conversation of this owner.

        `cuts_oldest`: of a conversation with more bytes, return the newest items that have no more.

        Raises:
            HistoryTooLongError: it has more bytes, and is not to be cut.
        """
        return [self._make_item(row) for row in self._read_item_rows(conversation_id, most_bytes, cuts_oldest)]

    def read_new_items(self, conversation_id: str, before: ConversationMark | None, most_bytes: int) -> NewItems:
        """Return the items of a conversation that were added since a mark.

        Without a mark, or where an item is gone or a key is new: the newest items that have no more bytes.
        """
        is_continued = (
            before is not None
            and before.size + self._measure_items(conversation_id, before.last) <= SLACK * most_bytes
            and before.is_current(self.connection, self.owner)
        )
        if before is None or not is_continued:
            rows = self._read_item_rows(conversation_id, most_bytes, cuts_oldest=True)
            first, count, size = (rows[0].position, 0, 0) if rows else (0, 0, 0)
        else:
            c = t.conversation_items.c
            is_new = (*self._match_items(conversation_id), c.position > before.last)
            rows = self.connection.execute(sa.select(t.conversation_items).where(*is_new).order_by(c.position)).all()
            first, count, size = before.first, before.count, before.size
        if not rows:
            return NewItems((), before if is_continued else None, is_continued)
        key_id = find_newest_key(self.connection, self.owner)
        size += sum(len(row.content) for row in rows)
        last, count = rows[-1], count + len(rows)
        mark = ConversationMark(conversation_id, key_id, first, last.position, last.id, count, size)
        return NewItems([self._make_item(row) for row in rows], mark, is_continued)

    def _measure_items(self, conversation_id: str, after: int) -> int:
        """Return the bytes of ciphertext of the items after a position."""
        c = t.conversation_items.c
        size = sa.select(sa.func.sum(sa.func.length(c.content)))
        return int(self.connection.scalar(size.where(*self._match_items(conversation_id), c.position > after)) or 0)

    def _read_item_rows(self, conversation_id: str, most_bytes: int, cuts_oldest: bool) -> Sequence[Any]:
        c, is_item = t.conversation_items.c, self._match_items(conversation_id)
        size = sa.func.length(c.content).label("size")
        if cuts_oldest:
            sizes = self.connection.execute(sa.select(c.position, size).where(*is_item).order_by(c.position.desc()))
            position, total = None, 0
            for row in sizes:
                total += row.size
                if total > most_bytes:
                    break
                position = row.position
            if position is None:
                return []
            is_item = (*is_item, c.position >= position)
        else:
            _check_length(self.connection.scalar(sa.select(sa.func.sum(size)).where(*is_item)), most_bytes)
        return self.connection.execute(sa.select(t.conversation_items).where(*is_item).order_by(c.position)).all()

    def find_item(self, conversation_id: str, item_id: str) -> StoredItem | None:
        """Return an item of a conversation of this owner."""
        is_item = (*self._match_items(conversation_id), t.conversation_items.c.id == item_id)
        row = self.connection.execute(sa.select(t.conversation_items).where(*is_item)).one_or_none()
        return None if row is None else self._make_item(row)

    def find_response(self, response_id: str) -> StoredResponse | None:
        """Return a stored response of this owner. Raises UnreadableContentError."""
        c = t.responses.c
        row = self.connection.execute(
            sa.select(t.responses).where(c.id == response_id, *self._match(t.responses))
        ).one_or_none()
        return None if row is None else self._make_response(row)

    def read_history(
        self, response_id: str, most_bytes: int, *, cuts_oldest: bool = False
    ) -> list[StoredResponse] | None:
        """Return a response and all that it follows, the oldest first; None if it is not there.

        `cuts_oldest`: of a longer history, return the newest responses that have no more bytes.

        Raises:
            HistoryBrokenError: one that it follows is not there.
            HistoryTooLongError: it follows more than `MOST_HISTORY`, or all together have more bytes.
        """
        ids = self._find_history(response_id, most_bytes, cuts_oldest=cuts_oldest)
        if ids is None:
            return None
        responses = self._read_responses(ids)
        return [responses[one] for one in ids]

    def read_new_responses(
        self, response_id: str, find_before: Callable[[str], ChainMark | None], most_bytes: int
    ) -> NewResponses | None:
        """Return the newest responses of a chain that were not read before; None if it is not there.

        `find_before`: returns what was read up to a response of this owner.

        Raises:
            HistoryBrokenError: one that it follows is not there.
        """
        ids = self._find_history(response_id, most_bytes, cuts_oldest=True)
        if ids is None:
            return None
        key_id = find_newest_key(self.connection, self.owner)
        for end in range(len(ids), max(0, len(ids) - _MOST_STEPS), -1):
            before = find_before(ids[end - 1])
            if before is not None and before.key_id == key_id and self._is_continued(before, ids[:end]):
                responses = self._read_responses(ids[end:])
                mark = ChainMark((*before.ids, *ids[end:]), key_id)
                return NewResponses([responses[one] for one in ids[end:]], mark, before)
        responses = self._read_responses(ids)
        return NewResponses([responses[one] for one in ids], ChainMark(tuple(ids), key_id), None)

    def _find_history(self, response_id: str, most_bytes: int, *, cuts_oldest: bool) -> list[str] | None:
        """Return the ids of a response and all that it follows, as `read_history` says."""
        c, size = t.responses.c, sa.func.length(t.responses.c.content)
        owner = [c[name] for name in t.OWNER]
        first = sa.select(c.id, c.previous_id, *owner, size.label("size"), sa.literal(1).label("place"))
        chain = first.where(c.id == response_id, *self._match(t.responses)).cte("chain", recursive=True)
        # By the id alone: PostgreSQL would look through all of the owner's for each step if it were named.
        before = sa.select(c.id, c.previous_id, *owner, chain.c.size + size, chain.c.place + 1)
        has_room = (chain.c.place <= MOST_HISTORY, chain.c.size <= most_bytes)
        chain = chain.union_all(before.where(c.id == chain.c.previous_id, *has_room))
        rows = self.connection.execute(sa.select(chain).order_by(chain.c.place)).all()
        found = list(itertools.takewhile(self._is_own, rows))
        if not found:
            return None
        is_whole = found[-1].size <= most_bytes and len(found) <= MOST_HISTORY
        if not is_whole and cuts_oldest:
            found = found[:-1]
        elif not is_whole:
            _check_length(found[-1].size, most_bytes)
            raise HistoryTooLongError(f"it follows more than {MOST_HISTORY} responses")
        elif found[-1].previous_id:
            raise HistoryBrokenError(f"{response_id} follows {found[-1].previous_id}, which is not there")
        return [row.id for row in reversed(found)]

    def _is_continued(self, before: ChainMark, ids: Sequence[str]) -> bool:
        """Return whether what was read before ends with these ids, which are there; what it has besides is too."""
        more = len(before.ids) - len(ids)
        is_same = 0 <= more <= (SLACK - 1) * len(ids) and list(before.ids[more:]) == list(ids)
        return is_same and (more == 0 or before.is_current(self.connection, self.owner))

    def _is_own(self, row: Any) -> bool:
        return all(getattr(row, name) == getattr(self.owner, name) for name in t.OWNER)

    def _read_responses(self, ids: Sequence[str]) -> dict[str, StoredResponse]:
        """Return responses of this owner by their ids, which were found as its own."""
        c, responses = t.responses.c, {}
        for start in range(0, len(ids), _MOST_NAMED):
            # SQLite would look through all of the owner's if the statement named it. Another owner's do not decrypt.
            is_named = c.id.in_(ids[start : start + _MOST_NAMED])
            for row in self.connection.execute(sa.select(t.responses).where(is_named)):
                responses[row.id] = self._make_response(row)
        return responses

    def _make_response(self, row: Any) -> StoredResponse:
        content = self._decrypt(row, "responses", row.content)
        return StoredResponse(row.id, row.previous_id, content["input"], content["answer"])

    def _find_own(self, table: sa.Table, row_id: str) -> Any:
        """Return a row of this owner as it is stored; None if there is none."""
        is_own = (table.c.id == row_id, *self._match(table), *self._match_time(table))
        return self.connection.execute(sa.select(table).where(*is_own)).one_or_none()

    def _list_rows(self, table: sa.Table, page: ListPage) -> Sequence[Any] | None:
        """Return rows by the time they were made, one more than the page has; None if `page.after` is none of them."""
        c, after = table.c, None
        if page.after:
            after = self._find_own(table, page.after)
            if after is None:
                return None
        statement = sa.select(table).where(*self._match(table), *self._match_time(table))
        if after is not None:
            place = sa.tuple_(c.created_at, c.id)
            bound = sa.tuple_(sa.literal(after.created_at), sa.literal(after.id))
            statement = statement.where(place > bound if page.is_ascending else place < bound)
        order = (c.created_at, c.id) if page.is_ascending else (c.created_at.desc(), c.id.desc())
        return self.connection.execute(statement.order_by(*order).limit(page.limit + 1)).all()

    def _match(self, table: sa.Table) -> tuple[Any, ...]:
        return (*match_owner(table, self.owner), match_shown(table, self.owner))

    def _match_time(self, table: sa.Table) -> tuple[Any, ...]:
        """Return the condition that the time of a memory is not over."""
        return (table.c.expires_at > self.over_by,) if table is t.memories else ()

    def _match_items(self, conversation_id: str) -> tuple[Any, ...]:
        """Return the conditions that an item is of this conversation, and that the conversation is this owner's."""
        c = t.conversations.c
        is_own = sa.exists(sa.select(c.id).where(c.id == conversation_id, *self._match(t.conversations)))
        return (t.conversation_items.c.conversation_id == conversation_id, is_own)

    def _make_conversation(self, row: Any) -> StoredConversation:
        attributes = self._decrypt(row, "conversations", row.attributes)
        return StoredConversation(row.id, row.created_at, row.used_at, attributes)

    def _make_memory(self, row: Any) -> StoredMemory:
        content = self._decrypt(row, "memories", row.content)
        return StoredMemory(row.id, content["text"], MemorySource(content["source"]), row.created_at, row.expires_at)

    def _make_item(self, row: Any) -> StoredItem:
        return StoredItem(row.id, self._decrypt(row, "conversation_items", row.content))

    def _decrypt(self, row: Any, table: str, content: bytes) -> Any:
        return orjson.loads(self.cipher.decrypt(self._keys.open(row.key_id, self.owner), table, row.id, bytes(content)))


def _count_fitting(sizes: Sequence[int]) -> int:
    """Return how many entries a page has room for; at least the first."""
    total = 0
    for position, size in enumerate(sizes):
        total += size
        if total > PAGE_BYTES and position:
            return position
    return len(sizes)


def _check_length(size: int | None, most: int) -> None:
    if size is not None and size > most:
        raise HistoryTooLongError(f"it has {size} bytes, more than {most}")
