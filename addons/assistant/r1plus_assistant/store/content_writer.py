"""Changes of what one owner has stored, in one transaction with the books. Called with that of `TenantStore.write`."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_assistant.store.content_reader import ContentReader
from r1plus_assistant.store.knowledge_limits import compute_share, compute_user_share
from r1plus_gateway.store.content.content import (
    ENTRY_BYTES,
    MOST_ITEMS,
    MOST_MEMORIES,
    ContentLimitError,
    ContentLimits,
    MemoryChanges,
    MemorySource,
    StoredConversation,
    StoredItem,
    StoredMemory,
    StoredResponse,
)
from r1plus_gateway.store.content.content_books import (
    add_size,
    delete_conversations,
    measure_new_owner,
    read_caller_bytes,
    read_own_bytes,
    read_stored_bytes,
)
from r1plus_gateway.store.content.knowledge_books import read_caller_knowledge, read_owner_bytes
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import ContentCipher, DataKey, Owner
from r1plus_gateway.store.upkeep.erasure_records import is_erased_since

DAY_SECONDS: Final = 86_400.0
_APART_SECONDS: Final = 0.001
"""Between what was said in one request: lists and corrections go by time."""
_PREFIXES: Final[Mapping[str, str]] = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


class ContentWriter(ContentReader):
    """Changes what one owner has stored. What raises ContentLimitError has stored no content."""

    def __init__(
        self,
        connection: Connection,
        cipher: ContentCipher,
        owner: Owner,
        now: float,
        over_by: float,
        limits: ContentLimits,
    ) -> None:
        """Take a connection that writes; the times are as a reader's."""
        super().__init__(connection, cipher, owner, now, over_by)
        self._limits = limits

    def create_conversation(
        self, attributes: Mapping[str, str], items: Sequence[Mapping[str, Any]]
    ) -> StoredConversation:
        """Store a new conversation. Raises ContentLimitError."""
        key = self._get_newest_key()
        conversation = StoredConversation(make_id("conv"), self.now, self.now, dict(attributes))
        sealed = self._encrypt(key, "conversations", conversation.id, conversation.attributes)
        rows = self._make_items(key, conversation.id, items, 0)
        self._grow([sealed, *(row["content"] for row in rows)])
        row = {**self._own(), "id": conversation.id, "created_at": self.now, "used_at": self.now}
        self.connection.execute(sa.insert(t.conversations), [row | {"key_id": key.id, "attributes": sealed}])
        self._insert_items(rows)
        return conversation

    def replace_attributes(self, conversation_id: str, attributes: Mapping[str, str]) -> StoredConversation | None:
        """Give a conversation other attributes; None if there is none."""
        before = self._find_own(t.conversations, conversation_id)
        if before is None:
            return None
        key = self._get_newest_key()
        sealed = self._encrypt(key, "conversations", conversation_id, attributes)
        self._grow([sealed], replaced=before.attributes)
        self.connection.execute(
            sa.update(t.conversations)
            .where(t.conversations.c.id == conversation_id)
            .values(attributes=sealed, key_id=key.id, used_at=self.now)
        )
        return StoredConversation(conversation_id, before.created_at, self.now, dict(attributes))

    def append_items(self, conversation_id: str, items: Sequence[Mapping[str, Any]]) -> list[StoredItem] | None:
        """Add items at the end of a conversation; None if there is none. Raises ContentLimitError."""
        if self._find_own(t.conversations, conversation_id) is None:
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
        return [StoredItem(row["id"], dict(item)) for row, item in zip(rows, items, strict=True)]

    def delete_item(self, conversation_id: str, item_id: str) -> bool:
        """Delete an item; return whether there was one."""
        c = t.conversation_items.c
        if self._find_own(t.conversations, conversation_id) is None:
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
        if self._find_own(t.conversations, conversation_id) is None:
            return False
        delete_conversations(self.connection, [(conversation_id, self.owner)])
        return True

    def store_response(self, response: StoredResponse) -> None:
        """Store a response. Raises ContentLimitError."""
        key = self._get_newest_key()
        content = {"input": list(response.input), "answer": response.answer}
        sealed = self._encrypt(key, "responses", response.id, content)
        self._grow([sealed])
        row = {**self._own(), "id": response.id, "previous_id": response.previous_id, "created_at": self.now}
        self.connection.execute(sa.insert(t.responses), [row | {"key_id": key.id, "content": sealed}])

    def is_erased_since(self, seq: int) -> bool:
        """Return whether this owner's content was erased after the audit record of this number."""
        return is_erased_since(self.connection, self.owner, seq)

    def delete_response(self, response_id: str) -> bool:
        """Delete a response; return whether there was one. What follows it can no longer be continued."""
        return self._delete_row(t.responses, response_id)

    def add_memory(self, text: str, source: MemorySource, days: float) -> StoredMemory:
        """Remember a text for so many days. Raises ContentLimitError."""
        return self._add_memory(text, source, days, self.now)

    def _add_memory(self, text: str, source: MemorySource, days: float, created_at: float) -> StoredMemory:
        count = self.connection.scalar(sa.select(sa.func.count()).where(*self._match(t.memories))) or 0
        if count >= MOST_MEMORIES:
            raise ContentLimitError(f"{count} memories are stored, and there are at most {MOST_MEMORIES}; delete some")
        memory = StoredMemory(make_id("mem"), text, source, created_at, created_at + days * DAY_SECONDS)
        key = self._get_newest_key()
        sealed = self._seal_memory(key, memory)
        self._grow([sealed])
        row = {**self._own(), "id": memory.id, "created_at": memory.created_at, "expires_at": memory.expires_at}
        self.connection.execute(sa.insert(t.memories), [row | {"key_id": key.id, "content": sealed}])
        return memory

    def replace_memory(self, memory_id: str, text: str | None, days: float) -> StoredMemory | None:
        """Give a memory another text, if one is named, and so many days from now on; None if there is none."""
        before = self._find_own(t.memories, memory_id)
        if before is None:
            return None
        memory = self._make_memory(before)
        memory = replace(memory, text=memory.text if text is None else text, expires_at=self.now + days * DAY_SECONDS)
        key = self._get_newest_key()
        sealed = self._seal_memory(key, memory)
        self._grow([sealed], replaced=before.content)
        values = {"key_id": key.id, "content": sealed, "expires_at": memory.expires_at}
        self.connection.execute(sa.update(t.memories).where(t.memories.c.id == memory_id).values(values))
        return memory

    def delete_memory(self, memory_id: str) -> bool:
        """Delete a memory; return whether there was one."""
        return self._delete_row(t.memories, memory_id)

    def change_memories(self, changes: MemoryChanges, days: float) -> None:
        """Remember what the user said. It takes the place of what it corrects, and then of the oldest that was said.

        Raises ContentLimitError.
        """
        for memory_id in changes.superseded:
            self.delete_memory(memory_id)
        known = self.read_memories()
        excess = len(known) + len(changes.said) - MOST_MEMORIES
        oldest = [memory.id for memory in known if memory.source is MemorySource.SAID]
        for memory_id in oldest[: max(0, excess)]:
            self.delete_memory(memory_id)
        for place, text in enumerate(changes.said):
            self._add_memory(text, MemorySource.SAID, days, self.now + place * _APART_SECONDS)

    def _seal_memory(self, key: DataKey, memory: StoredMemory) -> bytes:
        return self._encrypt(key, "memories", memory.id, {"text": memory.text, "source": memory.source})

    def _delete_row(self, table: sa.Table, row_id: str) -> bool:
        """Delete a row with `content`, and count its size off; return whether there was one."""
        is_own = (table.c.id == row_id, *self._match(table))
        size = self.connection.scalar(sa.select(sa.func.length(table.c.content)).where(*is_own))
        if size is None:
            return False
        self.connection.execute(sa.delete(table).where(*is_own))
        add_size(self.connection, self.owner, -size - ENTRY_BYTES)
        return True

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
                    "created_at": self.now,
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
            sa.update(t.conversations).where(t.conversations.c.id == conversation_id).values(used_at=self.now)
        )

    def _encrypt(self, key: DataKey, table: str, row: str, content: Any) -> bytes:
        return self.cipher.encrypt(key, table, row, orjson.dumps(content))

    def _get_newest_key(self) -> DataKey:
        return self._keys.get_newest(self.owner, self.now)

    def _grow(self, contents: Sequence[bytes], *, replaced: bytes | None = None) -> None:
        """Count new content, or one that replaces another. Raises ContentLimitError where there is no room."""
        size = sum(len(content) + ENTRY_BYTES for content in contents)
        if replaced is not None:
            size -= len(replaced) + ENTRY_BYTES
        if size > 0:
            self._check_room(size)
        add_size(self.connection, self.owner, size)

    def _check_room(self, size: int) -> None:
        limits, stored = self._limits, read_stored_bytes(self.connection)
        of_caller = read_caller_bytes(self.connection, self.owner)
        size += measure_new_owner(self.connection, self.owner)
        kept = of_caller - read_caller_knowledge(self.connection, self.owner).bytes
        if kept + size > limits.caller_bytes:
            raise ContentLimitError(
                f"{size} bytes more exceed the {limits.caller_bytes} that this key may store, of which {kept} are"
                " in use; delete conversations and responses"
            )
        if stored + size > limits.tenant_bytes:
            # How much the others have stored is not the caller's to know.
            raise ContentLimitError(
                f"{size} bytes more exceed what is left of the {limits.tenant_bytes} that all of the tenant may"
                " store; delete conversations and responses, or ask the platform team"
            )
        share = compute_share(limits.caller_bytes, limits.tenant_bytes, stored - of_caller)
        if kept + size > share:
            raise ContentLimitError(
                f"{size} bytes more exceed this key's share of the tenant's {limits.tenant_bytes}, of which it has"
                f" {kept}: what is left is for other keys; delete conversations and responses, or ask the platform team"
            )
        own = read_own_bytes(self.connection, self.owner) - read_owner_bytes(self.connection, self.owner)
        if self.owner.end_user and own + size > compute_user_share(share, kept - own):
            raise ContentLimitError(
                f"{size} bytes more exceed this end user's share of what its key may store, of which it has {own}: what"
                " is left is for the key and its other end users; delete conversations and responses, or ask the"
                " platform team"
            )


def make_id(prefix: str) -> str:
    """Return a new id that nobody can guess."""
    return f"{prefix}_{secrets.token_hex(16)}"
