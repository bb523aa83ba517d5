"""A knowledge base as values: files, vector stores, the chunks of their files, and how far each was read."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson

PART_BYTES: Final = 256 * 1024
"""Of a file, that one transaction stores: requests wait for it."""
BATCH_CHUNKS: Final = 32
"""That one transaction stores, with their vectors."""
MOST_FILES: Final = 10_000
"""Of one vector store."""
UPLOAD_SECONDS: Final = 3600.0
"""Within which a file has to be whole; what is left of an upload that was cut goes then."""
DELETED_AT: Final = 0.0
"""`expires_at` of what was deleted and is too large for one transaction: nobody sees it, and it goes in parts."""
_LENGTH: Final = struct.Struct(">I")


class FileState(StrEnum):
    """How far a file has come. Callers see whole ones only."""

    UPLOADING = "uploading"
    WHOLE = "whole"


class IngestionState(StrEnum):
    """How far the reading of a file has come; the values are OpenAI's."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file without its content. Times are seconds since the epoch."""

    id: str
    name: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: float | None
    is_shared: bool
    """Whether it is the caller's own, for all its end users; else it is one end user's."""


@dataclass(frozen=True, slots=True)
class VectorStore:
    """A set of files that is searched."""

    id: str
    name: str
    description: str
    attributes: Mapping[str, str]
    """The API's `metadata`."""
    created_at: float
    used_at: float
    expires_days: int | None
    """After its last use."""
    expires_at: float | None
    version: int
    is_shared: bool
    counts: Mapping[IngestionState, int] = field(default_factory=dict)
    """Files in each state."""
    bytes: int = 0
    """Of chunks and vectors, encrypted."""
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class IngestionProblem:
    """Why a file could not be read, or a page of it: code, cause and remedy."""

    code: str
    message: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Ingestion:
    """How a file is read into a vector store. Stored encrypted: problems may quote a name."""

    attributes: Mapping[str, Any]
    """The API's `attributes`: what searches can be filtered by."""
    chunk_tokens: int
    overlap_tokens: int
    reader: str = ""
    """What has read it, and cut it into chunks: another one begins again."""
    pages: int = 0
    """That were read so far; 0 where the format has none."""
    problem: IngestionProblem | None = None
    unreadable: Sequence[IngestionProblem] = ()
    """Pages without text that could be read."""


@dataclass(frozen=True, slots=True)
class VectorStoreFile:
    """A file in a vector store."""

    id: str
    """Of this row; callers name it by the file's."""
    vector_store_id: str
    file_id: str
    created_at: float
    state: IngestionState
    chunks: int
    batches: int
    bytes: int
    """Of chunks and vectors, encrypted."""
    ingestion: Ingestion


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Files that were added to a vector store together, as far as they are still in it."""

    id: str
    vector_store_id: str
    created_at: float
    counts: Mapping[IngestionState, int]
    """Files in each state; at least one."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document's text, with its place."""

    text: str
    start: int
    """Characters of the document's text before it."""
    end: int
    page: int | None = None
    """From 1; None where the format has none."""
    heading: str = ""
    """Headings above it, the outermost first, joined by ` > `."""


@dataclass(frozen=True, slots=True)
class ChunkBatch:
    """Consecutive chunks of one file, with their vectors."""

    position: int
    chunks: Sequence[Chunk]
    engine: str = ""
    """Identity of the embedder; empty: there are no vectors."""
    vectors: bytes = field(default=b"", repr=False)
    """float32, little-endian, a row for each chunk, each of length 1."""

    def encode(self) -> bytes:
        """Return what is encrypted: the length of the chunks' JSON, the JSON, the vectors."""
        text = orjson.dumps([(one.text, one.start, one.end, one.page, one.heading) for one in self.chunks])
        return _LENGTH.pack(len(text)) + text + self.vectors

    @classmethod
    def decode(cls, position: int, engine: str, data: bytes) -> "ChunkBatch":
        """Return what `encode` was called on."""
        (length,) = _LENGTH.unpack_from(data)
        text, vectors = data[_LENGTH.size : _LENGTH.size + length], data[_LENGTH.size + length :]
        return cls(position, [Chunk(*values) for values in orjson.loads(text)], engine, vectors)


@dataclass(frozen=True, slots=True)
class FileBatches:
    """The chunks of one file of a vector store."""

    file: VectorStoreFile
    batches: Sequence[ChunkBatch]


@dataclass(frozen=True, slots=True)
class KnowledgeSize:
    """How much knowledge there is."""

    bytes: int = 0
    chunks: int = 0
