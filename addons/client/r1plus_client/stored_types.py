"""What the gateway stores for a caller, as frozen values. `details` has all that the gateway says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1plus_client.types import Evidence, Usage

Details = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its items. Times are seconds since the epoch, here and below."""

    id: str
    created_at: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ConversationItem:
    """An item of a conversation. `details` has OpenAI's form."""

    id: str
    type: str
    text: str
    """Of a message; empty for any other item."""
    details: Details = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Citation:
    """A place in an answer, and the passage that it rests on: see `docs/knowledge.md`."""

    file_id: str
    filename: str
    index: int
    """Characters of the answer before it."""
    page: int | None
    heading: str
    basis: str
    """`number`: the answer names the passage; `words`: it has its words."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of `/v1/responses`. `status` is `completed` or `incomplete`."""

    id: str
    status: str
    text: str
    citations: tuple[Citation, ...]
    usage: Usage
    model: str
    evidence: Evidence
    storage: str
    """Whether it is stored: `stored`, or why not."""
    details: Details = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class File:
    """A file that was uploaded, without its content."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None
    is_shared: bool
    """Whether it is the key's, for all its end users."""


@dataclass(frozen=True, slots=True)
class VectorStore:
    """A set of files that is searched."""

    id: str
    name: str
    status: str
    """`in_progress` while a file is read, else `completed`."""
    metadata: Mapping[str, str]
    file_counts: Mapping[str, int]
    chunks: int
    search: str
    """`hybrid`, or `words` without an embedding engine."""
    created_at: int
    expires_at: int | None
    is_shared: bool


@dataclass(frozen=True, slots=True)
class VectorStoreFile:
    """A file in a vector store, and how far it was read."""

    file_id: str
    vector_store_id: str
    status: str
    """`in_progress`, `completed`, `failed` or `cancelled`."""
    error_code: str
    error_message: str
    """Cause and remedy; empty unless it failed."""
    attributes: Mapping[str, Any]
    pages: int
    chunks: int
    unreadable_pages: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Files that were added to a vector store together, and how many were read."""

    id: str
    vector_store_id: str
    status: str
    """`in_progress` while a file is read; else `completed`, `failed` if none could be read, or `cancelled`."""
    file_counts: Mapping[str, int]
    """`in_progress`, `completed`, `failed`, `cancelled`, `total`."""
    created_at: int


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A passage that was found, with its place in the document."""

    file_id: str
    filename: str
    text: str
    score: float
    """From 0 to 1."""
    page: int | None
    heading: str
    start: int
    end: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of an end user across conversations."""

    id: str
    text: str
    source: str
    """`pinned`, or `said`."""
    created_at: int
    expires_at: int
