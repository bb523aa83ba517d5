"""The reader of documents: what the gateway sends it, and what both agree on.

One document goes over a connection to a Unix socket. Everything is a frame: its length in bytes (big-endian, 4 bytes),
then its content. The gateway sends a `DocumentRequest` as JSON, then the document in frames of bytes. The reader sends
`DocumentReply`s as JSON while it reads, and closes. Keys are camelCase (`jsonable`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ENV_SOCKET: Final = "R1PLUS_DOCUMENTS_SOCKET"
"""Path of the socket, for both sides. A gateway without it reads no documents."""
DEFAULT_SOCKET: Final = "/run/r1plus/documents/documents.sock"
MOST_REQUEST_BYTES: Final = 16 * 1024
MOST_FRAME_BYTES: Final = 256 * 1024
"""Of a document's bytes."""
MOST_REPLY_BYTES: Final = 1024 * 1024
MOST_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
MOST_PAGES: Final = 5000
MOST_BLOCK_CHARACTERS: Final = 16_000
"""A longer text becomes several blocks."""
DEEPEST_HEADING: Final = 9
EXTENSIONS: Final = (".txt", ".md", ".markdown", ".html", ".htm", ".pdf", ".docx")
"""That name a format. What has another one is read as plain text, if it is that."""


class DocumentFailureCode(StrEnum):
    """Why a document cannot be read. All but the last three are the document's."""

    UNSUPPORTED_FORMAT = "unsupported_format"
    WRONG_ENCODING = "wrong_encoding"
    ENCRYPTED = "encrypted"
    MACROS = "macros"
    DAMAGED = "damaged"
    NO_TEXT = "no_text"
    LIMIT = "limit"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    BUSY = "busy"
    INVALID_REQUEST = "invalid_request"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DocumentRequest:
    """A document that follows; one of 0 bytes asks for the reader's health."""

    name: str
    """Its file name: the extension says the format."""
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A heading or a paragraph, in the document's order."""

    text: str
    level: int = 0
    """Of a heading, from 1 to `DEEPEST_HEADING`; 0: a paragraph."""
    page: int | None = None
    """From 1; None where the format has none."""


@dataclass(frozen=True, slots=True)
class UnreadablePage:
    """A page whose text could not be read: cause and remedy."""

    page: int
    message: str


@dataclass(frozen=True, slots=True)
class DocumentFailure:
    """Why there is no text, or no more: cause and remedy, with the file's name."""

    code: DocumentFailureCode
    message: str


@dataclass(frozen=True, slots=True)
class DocumentReply:
    """A part of what was read. The first says `reader`; the last has `is_end`, or a failure."""

    reader: str = ""
    """Format and versions: another one may cut the text in other places."""
    blocks: tuple[TextBlock, ...] = ()
    unreadable: tuple[UnreadablePage, ...] = ()
    pages: int = 0
    """That were read so far."""
    is_end: bool = False
    failure: DocumentFailure | None = None
