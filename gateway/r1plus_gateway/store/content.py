"""Conversations, their items, and stored responses: one transaction's access to the content of one owner.

Every statement names the owner, so another caller's id finds nothing. What is deleted is deleted in the same
transaction as its size. Called with the connection of `TenantStore.read` or `write`.
"""

import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store import tables as t
from r1plus_gateway.store.content_cipher import ContentCipher, DataKey, Owner, UnreadableContentError

MOST_ITEMS: Final = 2048
"""Of one conversation: as many as a request may have messages."""
MOST_HISTORY: Final = 2048
"""Responses that one may follow."""
ENTRY_BYTES: Final = 512
"""That limits count for each conversation, item and response besides its ciphertext: what a row costs."""
OWNER_BYTES: Final = 1024
"""That limits count for each owner with content: its data key, and its entry in the books."""
PAGE_BYTES: Final = 2**20
"""A page of a list ends before it has more, unless its first entry alone does: answers are held in memory."""
_MOST_NAMED: Final = 256
"""Ids in one statement."""
_PREFIXES: Final[Mapping[str, str]] = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
_OWNED: Final = (t.conversations, t.responses)
"""Tables whose rows name their owner, and are encrypted under its keys."""
Json = dict[str, Any]
T = TypeVar("T")


class ContentLimitError(ValueError):
    """There is no room for more content."""


class HistoryTooLongError(Exception):
    """What was said before is longer than any prompt may be."""


class HistoryBrokenError(Exception):
    """A response is there, and one that it follows is not."""


@dataclass(frozen=True, slots=True)
class ContentLimits:
    """Bytes of stored content: ciphertext, `ENTRY_BYTES` and `OWNER_BYTES`."""

    caller_bytes: int
    """Of one caller, with all its end users."""
    tenant_bytes: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its items. Times are seconds since the epoch."""

    id: str
    created_at: float
    used_at: float
    attributes: Mapping[str, str]
    """The API's `metadata`."""


@dataclass(frozen=True, slots=True)
class Item:
    """What was said, or a tool's call or output. `content` is the API's object without its id."""

    id: str
    content: Json


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response: what was asked, what was answered, and which response it follows (empty: none)."""

    id: str
    previous_id: str
    input: Sequence[Mapping[str, Any]]
    """Items of the request, without those of the responses before."""
    answer: Json


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is returned: at most `limit` entries after the one named `after`; empty: from the start."""

    limit: int = 20
    after: str = ""
    is_ascending: bool = False


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """A part of a list."""

    entries: Sequence[T]
    has_more: bool


class ContentReader:
    """Reads what one owner has stored."""

    def __init__(self, connection: Connection, cipher: ContentCipher, owner: Owner) -> None:
        self.connection = connection
        self.cipher = cipher
        self.owner = owner
        self._data_keys: dict[str, DataKey] = {}

    def find_conversation(self, conversation_id: str) -> Conversation | None:
        """Return a conversation of this owner. Raises UnreadableContentError."""
        c = t.conversations.c
        found = self.connection.execute(
            sa.select(t.conversations).where(c.id == conversation_id, *self._match(t.conversations))
        ).one_or_none()
        return None if found is None else self._make_conversation(found)

    def list_conversations(self, page: Page) -> Listed[Conversation] | None:
        """Return conversations by the time they were made; None if `page.after` is none of them."""
        c, after = t.conversations.c, None
        if page.after:
            after = self.find_conversation(page.after)
            if after is None:
                return None
        place = sa.tuple_(c.created_at, c.id)
        statement = sa.select(t.conversations).where(*self._match(t.conversations))
        if after is not None:
            bound = sa.tuple_(sa.literal(after.created_at), sa.literal(after.id))
            statement = statement.where(place > bound if page.is_ascending else place < bound)
        order = (c.created_at, c.id) if page.is_ascending else (c.created_at.desc(), c.id.desc())
        rows = self.connection.execute(statement.order_by(*order).limit(page.limit + 1)).all()
        return Listed([self._make_conversation(row) for row in rows[: page.limit]], len(rows) > page.limit)

    def list_items(self, conversation_id: str, page: Page) -> Listed[Item] | None:
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

    def read_items(self, conversation_id: str, most_bytes: int, *, cuts_oldest: bool = False) -> list[Item]:
        """Return all items of a conversation of this owner.

        `cuts_oldest`: of a conversation with more bytes, return the newest items that have no more.

        Raises:
            HistoryTooLongError: it has more bytes, and is not to be cut.
        """
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
        rows = self.connection.execute(sa.select(t.conversation_items).where(*is_item).order_by(c.position))
        return [self._make_item(row) for row in rows]

    def find_item(self, conversation_id: str, item_id: str) -> Item | None:
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
        responses = self._read_responses([row.id for row in found])
        return [responses[row.id] for row in reversed(found)]

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

    def _match(self, table: sa.Table) -> tuple[Any, ...]:
        return match_owner(table, self.owner)

    def _match_items(self, conversation_id: str) -> tuple[Any, ...]:
        """Return the conditions that an item is of this conversation, and that the conversation is this owner's."""
        c = t.conversations.c
        is_own = sa.exists(sa.select(c.id).where(c.id == conversation_id, *self._match(t.conversations)))
        return (t.conversation_items.c.conversation_id == conversation_id, is_own)

    def _make_conversation(self, row: Any) -> Conversation:
        attributes = self._decrypt(row, "conversations", row.attributes)
        return Conversation(row.id, row.created_at, row.used_at, attributes)

    def _make_item(self, row: Any) -> Item:
        return Item(row.id, self._decrypt(row, "conversation_items", row.content))

    def _decrypt(self, row: Any, table: str, content: bytes) -> Any:
        return orjson.loads(self.cipher.decrypt(self._open_key(row.key_id), table, row.id, bytes(content)))

    def _open_key(self, key_id: str) -> DataKey:
        if key_id not in self._data_keys:
            c = t.data_keys.c
            wrapped = self.connection.scalar(sa.select(c.wrapped_key).where(c.id == key_id, *self._match(t.data_keys)))
            if wrapped is None:
                raise UnreadableContentError(f"Data key {key_id} is gone: what it encrypted cannot be read any more")
            self._data_keys[key_id] = self.cipher.unwrap_key(key_id, self.owner, bytes(wrapped))
        return self._data_keys[key_id]


class ContentWriter(ContentReader):
    """Changes what one owner has stored. What raises ContentLimitError has stored no content."""

    def __init__(
        self, connection: Connection, cipher: ContentCipher, owner: Owner, now: float, limits: ContentLimits
    ) -> None:
        """Take a connection that writes; `now` is ledger time."""
        super().__init__(connection, cipher, owner)
        self._now = now
        self._limits = limits

    def create_conversation(self, attributes: Mapping[str, str], items: Sequence[Mapping[str, Any]]) -> Conversation:
        """Store a new conversation. Raises ContentLimitError."""
        key = self._get_newest_key()
        conversation = Conversation(make_id("conv"), self._now, self._now, dict(attributes))
        sealed = self._encrypt(key, "conversations", conversation.id, conversation.attributes)
        rows = self._make_items(key, conversation.id, items, 0)
        self._grow([sealed, *(row["content"] for row in rows)])
        row = {**self._own(), "id": conversation.id, "created_at": self._now, "used_at": self._now}
        self.connection.execute(sa.insert(t.conversations), [row | {"key_id": key.id, "attributes": sealed}])
        self._insert_items(rows)
        return conversation

    def replace_attributes(self, conversation_id: str, attributes: Mapping[str, str]) -> Conversation | None:
        """Give a conversation other attributes; None if there is none."""
        before = self._find_row(conversation_id)
        if before is None:
            return None
        key = self._get_newest_key()
        sealed = self._encrypt(key, "conversations", conversation_id, attributes)
        self._grow([sealed], replaced=before.attributes)
        self.connection.execute(
            sa.update(t.conversations)
            .where(t.conversations.c.id == conversation_id)
            .values(attributes=sealed, key_id=key.id, used_at=self._now)
        )
        return Conversation(conversation_id, before.created_at, self._now, dict(attributes))

    def append_items(self, conversation_id: str, items: Sequence[Mapping[str, Any]]) -> list[Item] | None:
        """Add items at the end of a conversation; None if there is none. Raises ContentLimitError."""
        if self._find_row(conversation_id) is None:
            return None
        c = t.conversation_items.c
        count, last = self.connection.execute(
            sa.select(sa.func.count(), sa.func.max(c.position)).where(c.conversation_id == conversation_id)
        ).one()
        if count + len(items) > MOST_ITEMS:
            raise ContentLimitError(
                f"items: {count} are in the conversation, and {len(items)} more exceed {MOST_ITEMS}; start a new one"
            )
        rows = self._make_items(self._get_newest_key(), conversation_id, items, 0 if last is None else last + 1)
        self._grow([row["content"] for row in rows])
        self._insert_items(rows)
        self._touch(conversation_id)
        return [Item(row["id"], dict(item)) for row, item in zip(rows, items, strict=True)]

    def delete_item(self, conversation_id: str, item_id: str) -> bool:
        """Delete an item; return whether there was one."""
        c = t.conversation_items.c
        if self._find_row(conversation_id) is None:
            return False
        is_item = (c.conversation_id == conversation_id, c.id == item_id)
        size = self.connection.scalar(sa.select(sa.func.length(c.content)).where(*is_item))
        if size is None:
            return False
        self.connection.execute(sa.delete(t.conversation_items).where(*is_item))
        add_size(self.connection, self.owner, -size - ENTRY_BYTES)
        self._touch(conversation_id)
        return True

    def delete_conversation(self, conversation_id: str) -> bool:
        """Delete a conversation with its items; return whether there was one."""
        if self._find_row(conversation_id) is None:
            return False
        delete_conversations(self.connection, [(conversation_id, self.owner)])
        return True

    def store_response(self, response: StoredResponse) -> None:
        """Store a response. Raises ContentLimitError."""
        key = self._get_newest_key()
        content = {"input": list(response.input), "answer": response.answer}
        sealed = self._encrypt(key, "responses", response.id, content)
        self._grow([sealed])
        row = {**self._own(), "id": response.id, "previous_id": response.previous_id, "created_at": self._now}
        self.connection.execute(sa.insert(t.responses), [row | {"key_id": key.id, "content": sealed}])

    def delete_response(self, response_id: str) -> bool:
        """Delete a response; return whether there was one. What follows it can no longer be continued."""
        c = t.responses.c
        is_own = (c.id == response_id, *self._match(t.responses))
        size = self.connection.scalar(sa.select(sa.func.length(c.content)).where(*is_own))
        if size is None:
            return False
        self.connection.execute(sa.delete(t.responses).where(*is_own))
        add_size(self.connection, self.owner, -size - ENTRY_BYTES)
        return True

    def _find_row(self, conversation_id: str) -> Any:
        c = t.conversations.c
        return self.connection.execute(
            sa.select(t.conversations).where(c.id == conversation_id, *self._match(t.conversations))
        ).one_or_none()

    def _own(self) -> dict[str, str]:
        return {name: getattr(self.owner, name) for name in t.OWNER}

    def _make_items(
        self, key: DataKey, conversation_id: str, items: Sequence[Mapping[str, Any]], position: int
    ) -> list[dict[str, Any]]:
        rows = []
        for offset, item in enumerate(items):
            row_id = make_id(_PREFIXES.get(item.get("type", ""), "item"))
            rows.append(
                {
                    "id": row_id,
                    "conversation_id": conversation_id,
                    "position": position + offset,
                    "created_at": self._now,
                    "key_id": key.id,
                    "content": self._encrypt(key, "conversation_items", row_id, item),
                }
            )
        return rows

    def _insert_items(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            self.connection.execute(sa.insert(t.conversation_items), rows)

    def _touch(self, conversation_id: str) -> None:
        self.connection.execute(
            sa.update(t.conversations).where(t.conversations.c.id == conversation_id).values(used_at=self._now)
        )

    def _encrypt(self, key: DataKey, table: str, row: str, content: Any) -> bytes:
        return self.cipher.encrypt(key, table, row, orjson.dumps(content))

    def _get_newest_key(self) -> DataKey:
        """Return the key that encrypts; made with the owner's first content."""
        c = t.data_keys.c
        row = self.connection.execute(
            sa.select(c.id).where(*self._match(t.data_keys)).order_by(c.created_at.desc(), c.id).limit(1)
        ).one_or_none()
        if row is not None:
            return self._open_key(row.id)
        key, wrapped = self.cipher.create_key(self.owner)
        self.connection.execute(
            sa.insert(t.data_keys),
            [{**self._own(), "id": key.id, "wrapped_key": wrapped, "created_at": self._now}],
        )
        self._data_keys[key.id] = key
        return key

    def _grow(self, contents: Sequence[bytes], *, replaced: bytes | None = None) -> None:
        """Count new content, or one that replaces another. Raises ContentLimitError where there is no room."""
        size = sum(len(content) + ENTRY_BYTES for content in contents)
        if replaced is not None:
            size -= len(replaced) + ENTRY_BYTES
        if size > 0:
            self._check_room(size)
        add_size(self.connection, self.owner, size)

    def _check_room(self, size: int) -> None:
        sizes, totals = t.content_sizes, t.content_totals.c
        if self.connection.scalar(sa.select(sizes.c.bytes).where(*match_owner(sizes, self.owner))) is None:
            size += OWNER_BYTES
        is_caller = (totals.caller_kind == self.owner.caller_kind, totals.caller_id == self.owner.caller_id)
        own = self.connection.scalar(sa.select(totals.bytes).where(*is_caller)) or 0
        if own + size > self._limits.caller_bytes:
            raise ContentLimitError(
                f"{size} bytes more exceed the {self._limits.caller_bytes} that this key may store, of which {own} are"
                " in use; delete conversations and responses"
            )
        if read_stored_bytes(self.connection) + size > self._limits.tenant_bytes:
            # How much the others have stored is not the caller's to know.
            raise ContentLimitError(
                f"{size} bytes more exceed what is left of the {self._limits.tenant_bytes} that all of the tenant may"
                " store; delete conversations and responses, or ask the platform team"
            )


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


def read_stored_bytes(connection: Connection) -> int:
    """Return the bytes that all owners have stored."""
    return int(connection.scalar(sa.select(sa.func.sum(t.content_totals.c.bytes))) or 0)


def make_id(prefix: str) -> str:
    """Return a new id that nobody can guess."""
    return f"{prefix}_{secrets.token_hex(16)}"


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
