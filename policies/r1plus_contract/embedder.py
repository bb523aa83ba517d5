"""The tenant's embedder: what the gateway asks it, and what both agree on.

One request and one reply go over a Unix socket, then the embedder closes it. Each is a frame: its length in bytes
(big-endian, 4 bytes), then JSON in UTF-8, whose keys are camelCase (`jsonable`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ENV_SOCKET: Final = "R1PLUS_EMBEDDER_SOCKET"
"""Path of the socket, for both sides. A gateway without it has no embedder."""
DEFAULT_SOCKET: Final = "/run/r1plus/embedder/embedder.sock"
ENV_ENGINE: Final = "R1PLUS_EMBEDDER_ENGINE"
"""Name of the R1PlusEngine: half of an engine's identity."""
ENV_ENGINE_DIR: Final = "R1PLUS_EMBEDDER_ENGINE_DIR"
"""Folder of its files."""
ENV_SHA256: Final = "R1PLUS_EMBEDDER_SHA256"
"""Digest that the files must have: the other half. Empty: whatever they have."""
ENV_THREADS: Final = "R1PLUS_EMBEDDER_THREADS"
"""Of one computation; 1 without it."""
ENV_IDLE_SECONDS: Final = "R1PLUS_EMBEDDER_IDLE_SECONDS"
"""After so long without a request the engine's memory is freed."""
DEFAULT_ENGINE_DIR: Final = "/run/r1plus/embedder-engine"
MOST_TEXTS: Final = 128
"""Texts of one request. Whoever has more sends several, and others take their turn in between."""
MOST_TEXT_BYTES: Final = 32 * 1024
"""Of one text in UTF-8: many times what an engine reads of it."""
MOST_REQUEST_BYTES: Final = 1024 * 1024
MOST_REPLY_BYTES: Final = 4 * 1024 * 1024
MOST_DIMENSIONS: Final = 4096
ANSWER_SECONDS: Final = 60.0
"""Within so long a request has a reply, or an error: the queue, loading the engine, and the longest texts."""


class EmbeddingFailureCode(StrEnum):
    """Why texts have no vectors. The first two are the request's, the others the embedder's."""

    INVALID_REQUEST = "invalid_request"
    TEXT_TOO_LONG = "text_too_long"
    BUSY = "busy"
    TIME_LIMIT = "time_limit"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to embed; none asks for the embedder's health and identity."""

    texts: tuple[str, ...] = ()
    truncate: bool = False
    """Embed the beginning of a text that is longer than the engine reads; otherwise such a request fails."""


@dataclass(frozen=True, slots=True)
class TextEmbeddings:
    """Vectors of all texts of a request, in their order."""

    engine: str
    """NAME@sha256:DIGEST. Vectors of two engines are not comparable."""
    dimensions: int
    vectors: str
    """Base64 of float32, little-endian, a row of `dimensions` numbers per text. Each row has length 1."""
    tokens: tuple[int, ...]
    """Of each text, as the engine has read it: after truncation, with the two marks around it."""
    truncated: tuple[int, ...] = ()
    """Positions of the texts of which the engine has read the beginning only, rising."""


@dataclass(frozen=True, slots=True)
class EmbeddingFailure:
    """Why there are no vectors: cause and remedy in words."""

    code: EmbeddingFailureCode
    message: str
    position: int | None = None
    """Of the text to blame."""


@dataclass(frozen=True, slots=True)
class EmbedderHealth:
    """How the embedder is, and which engine it has."""

    engine: str
    """NAME@sha256:DIGEST, of the files as they were read at start."""
    dimensions: int
    most_tokens: int
    """Tokens of the longest text that is read whole."""
    is_loaded: bool
    """Whether the engine is in memory. The first request loads it; after an idle time it is freed."""
    waiting: int
    answered: int
    """Requests with vectors since its start."""
    failed: int
    """Requests without, for whatever reason."""


@dataclass(frozen=True, slots=True)
class EmbedderReply:
    """Exactly one of the three."""

    embeddings: TextEmbeddings | None = None
    failure: EmbeddingFailure | None = None
    health: EmbedderHealth | None = None
