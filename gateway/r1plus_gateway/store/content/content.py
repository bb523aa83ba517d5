"""Stored content as values: conversations, items, responses, pages of lists, and the limits of all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

MOST_ITEMS: Final = 2048
"""Of one conversation: as many as a request may have messages."""
MOST_HISTORY: Final = 2048
"""Responses that one may follow."""
MOST_MEMORIES: Final = 256
"""Of one owner."""
MOST_MEMORY_CHARACTERS: Final = 400
"""Of one memory: a sentence or two."""
ENTRY_BYTES: Final = 512
"""That limits count for each conversation, item, response and memory besides its ciphertext: what a row costs."""
OWNER_BYTES: Final = 1024
"""That limits count for each owner with content: its data key, and its entry in the books."""
PAGE_BYTES: Final = 2**20
"""A page of a list ends before it has more, unless its first entry alone does: answers are held in memory."""
Json = dict[str, Any]
T = TypeVar("T")


class ContentLimitError(ValueError):
    """There is no room for more content."""


class HistoryTooLongError(Exception):
    """What was said before is longer than any prompt may be."""


class HistoryBrokenError(Exception):
    """A response is there, and one that it follows is not."""


@dataclass(frozen=True, slots=True)
class DeletionStep:
    """How much of files and vector stores one transaction deletes: requests wait for it."""

    batches: int = 64
    """Of chunks: about 4 MiB."""
    parts: int = 16
    """Of files: 4 MiB."""


@dataclass(frozen=True, slots=True)
class ContentLimits:
    """Bytes of stored content: ciphertext, `ENTRY_BYTES` and `OWNER_BYTES`."""

    caller_bytes: int
    """Of one caller, with all its end users, without its knowledge."""
    tenant_bytes: int
    """Of all callers, knowledge included."""
    knowledge_caller_bytes: int = 256 * 2**20
    """Of one caller's files and vector stores, with those of its end users, while no other has any: else less
    (`knowledge_limits`)."""
    tenant_chunks: int = 100_000
    """Of all vector stores: each is compared with each question."""
    caller_chunks: int = 50_000
    """Of one caller's vector stores, with those of its end users, while no other has any: else less."""
    deletion: DeletionStep = DeletionStep()


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """A conversation without its items. Times are seconds since the epoch."""

    id: str
    created_at: float
    used_at: float
    attributes: Mapping[str, str]
    """The API's `metadata`."""


@dataclass(frozen=True, slots=True)
class StoredItem:
    """What was said, or a tool's call or output. `content` is the API's object without its id."""

    id: str
    content: Json


class MemorySource(StrEnum):
    """Where a memory comes from."""

    SAID = "said"
    """The user said it in a request that asked to keep such things."""
    PINNED = "pinned"
    """It was stored as a memory."""


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """What is remembered across conversations. Times are seconds since the epoch."""

    id: str
    text: str
    source: MemorySource
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class MemoryChanges:
    """What a request changes of what is remembered."""

    said: Sequence[str]
    """New statements of the user."""
    superseded: Sequence[str]
    """Ids of memories that they correct or repeat."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response: what was asked, what was answered, and which response it follows (empty: none)."""

    id: str
    previous_id: str
    input: Sequence[Mapping[str, Any]]
    """Items of the request, without those of the responses before."""
    answer: Json


@dataclass(frozen=True, slots=True)
class ListPage:
    """Which part of a list is returned: at most `limit` entries after the one named `after`; empty: from the start."""

    limit: int = 20
    after: str = ""
    is_ascending: bool = False


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """A part of a list."""

    entries: Sequence[T]
    has_more: bool
