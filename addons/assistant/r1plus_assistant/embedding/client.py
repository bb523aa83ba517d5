"""The client of the embedder's socket: texts in, vectors out, in requests that others can take turns with."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from r1plus_assistant.helper_socket import HelperUnavailableError, exchange_frames
from r1plus_contract.embedder import (
    ANSWER_SECONDS,
    MOST_DIMENSIONS,
    MOST_REPLY_BYTES,
    MOST_REQUEST_BYTES,
    MOST_TEXT_BYTES,
    MOST_TEXTS,
    EmbedderHealth,
    EmbedderReply,
    EmbeddingFailure,
    EmbeddingFailureCode,
    EmbeddingRequest,
    TextEmbeddings,
)
from r1plus_contract.jsonable import ContractError, dumps, loads

GRACE_SECONDS: Final = 0.5
"""Beyond the time in which an embedder answers."""
HEALTH_SECONDS: Final = 5.0
MOST_AT_ONCE: Final = 8
"""Requests at the embedder, which computes one at a time: further ones wait here, in the order of their arrival."""
WAIT_SECONDS: Final = 30.0
"""For which a request waits here. Then the embedder is busy, and the caller is told so."""
MOST_TEXTS_BYTES: Final = (MOST_REQUEST_BYTES - 4096) // 6
"""Of the texts of one request in UTF-8: JSON writes some characters in six bytes."""
MOST_COST: Final = 32 * 512
"""Of one request, so that others wait a few seconds at most: many short texts, or few long ones."""
COST_OF_LONG: Final = 512
"""A text costs its bytes, each of which could be a token, and never more than this: engines read the beginning only."""
MOST_TEXT_TOKENS: Final = MOST_TEXT_BYTES + 2
"""Of one text: each byte could be one, and there are two marks around it. Tokens are billed."""
MOST_REPLY_VALUES: Final = 4 * MOST_TEXTS
"""Of one reply: two for each text, and some more."""
MOST_ENGINE_CHARACTERS: Final = 512
MOST_VALUE: Final = 2.0**15
"""Of a number in a vector: an index has 16 bits for each, and what is beyond them would be no number there."""
BUSY: Final = "the embedder has had no place for this request for {:g} s, since others are before it; try again later"
NOT_UNDERSTOOD: Final = "the embedder's answer is not understood; ask the platform team to look at its release"


class EmbedderUnavailableError(Exception):
    """The embedder is away, busy, or does not answer as it should; the message says what to do."""


class TextRefusedError(ValueError):
    """The embedder does not take a text; the message says why."""

    def __init__(self, message: str, position: int | None) -> None:
        super().__init__(message)
        self.position = position
        """Of the text among all that were given."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of texts, in their order."""

    vectors: NDArray[np.float32]
    """(texts, dimensions), each of length 1."""
    tokens: tuple[int, ...]
    """Of each text, as the engine has read it."""
    truncated: tuple[int, ...]
    """Positions of the texts of which the engine has read the beginning only."""
    engine: str
    """NAME@sha256:DIGEST: vectors of two engines are not comparable."""


class Embedder(Protocol):
    """What turns texts into vectors."""

    async def embed(self, texts: Sequence[str], *, truncate: bool = True) -> Embeddings:
        """Return a vector per text; at least one text.

        Args:
            texts: any number, each of at most `MOST_TEXT_BYTES`.
            truncate: embed the beginning of a text that is longer than the engine reads, instead of refusing it.

        Raises:
            TextRefusedError: of a text that is too long, or is no text.
            EmbedderUnavailableError: there are no vectors now.
        """

    def embed_parts(self, texts: Sequence[str], *, truncate: bool = True) -> AsyncGenerator[Embeddings, None]:
        """Yield the same in parts, as they are computed; `join` makes one of them. So it is known what has been spent.

        Raises:
            TextRefusedError, EmbedderUnavailableError: see `embed`; also after the first part.
        """

    async def identify(self) -> str:
        """Return the engine: NAME@sha256:DIGEST.

        Raises:
            EmbedderUnavailableError: there is no answer.
        """


FindEmbedder = Callable[[], Embedder | None]
"""Returns the embedder that there is now: on one machine its engine may come while the gateway runs."""


class SocketEmbedder:
    """An embedder at a Unix socket."""

    def __init__(
        self,
        path: str,
        answer_seconds: float = ANSWER_SECONDS + GRACE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        start_seconds: float = 0.0,
    ) -> None:
        """`start_seconds`: what its process may need to start, where a request starts it."""
        self._path = path
        self._answer_seconds = answer_seconds + start_seconds
        self._health_seconds = HEALTH_SECONDS + start_seconds
        self._wait_seconds = wait_seconds
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def embed(self, texts: Sequence[str], *, truncate: bool = True) -> Embeddings:
        """See `Embedder`."""
        return join([part async for part in self.embed_parts(texts, truncate=truncate)])

    async def embed_parts(self, texts: Sequence[str], *, truncate: bool = True) -> AsyncGenerator[Embeddings, None]:
        """See `Embedder`. The requests of one call follow each other, and those of other calls come in between."""
        if not texts:
            raise ValueError("texts: empty; give at least one")
        engine = ""
        for start, stop in _split(texts):
            part = await self._embed_part(texts[start:stop], start, truncate)
            if part.engine != (engine or part.engine):
                raise EmbedderUnavailableError("the embedder has changed its engine meanwhile; try again")
            engine = part.engine
            yield part

    async def identify(self) -> str:
        """See `Embedder`."""
        return (await self.describe()).engine

    async def describe(self) -> EmbedderHealth:
        """Return how the embedder is.

        Raises:
            EmbedderUnavailableError: there is no answer.
        """
        health = (await self._ask(EmbeddingRequest(), self._health_seconds)).health
        if health is None:
            raise EmbedderUnavailableError(NOT_UNDERSTOOD)
        return health

    async def _embed_part(self, texts: Sequence[str], start: int, truncate: bool) -> Embeddings:
        async with self._take_turn():
            reply = await self._ask(EmbeddingRequest(tuple(texts), truncate), self._answer_seconds)
        if reply.failure is not None:
            raise _convert_failure(reply.failure, start)
        if reply.embeddings is None:
            raise EmbedderUnavailableError(NOT_UNDERSTOOD)
        try:
            return _decode(reply.embeddings, len(texts), start)
        except ContractError as error:
            raise EmbedderUnavailableError(NOT_UNDERSTOOD) from error

    @contextlib.asynccontextmanager
    async def _take_turn(self) -> AsyncIterator[None]:
        """Hold a place at the embedder for the block.

        Raises:
            EmbedderUnavailableError: none has become free in time.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            raise EmbedderUnavailableError(BUSY.format(self._wait_seconds)) from error
        try:
            yield
        finally:
            self._turns.release()

    async def _ask(self, request: EmbeddingRequest, seconds: float) -> EmbedderReply:
        payload = dumps(request).encode()
        try:
            reply = await exchange_frames(self._path, "embedder", payload, MOST_REPLY_BYTES, seconds)
            return loads(EmbedderReply, reply, tolerant=True, most_values=MOST_REPLY_VALUES)
        except HelperUnavailableError as error:
            raise EmbedderUnavailableError(str(error)) from error
        except ContractError as error:
            raise EmbedderUnavailableError(NOT_UNDERSTOOD) from error


def _split(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Return begin and end of each request.

    Raises:
        TextRefusedError: a text that no request can hold.
    """
    start, total, costs = 0, 0, 0
    for position, text in enumerate(texts):
        size = _measure(text, position)
        cost = min(size, COST_OF_LONG)
        is_full = position - start == MOST_TEXTS or total + size > MOST_TEXTS_BYTES or costs + cost > MOST_COST
        if is_full:
            yield start, position
            start, total, costs = position, 0, 0
        total, costs = total + size, costs + cost
    yield start, len(texts)


def _measure(text: str, position: int) -> int:
    """Return the bytes of a text in UTF-8.

    Raises:
        TextRefusedError: too many, or half a character.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        message = f"half a character (a lone surrogate) at position {error.start}; send whole characters"
        raise TextRefusedError(message, position) from error
    if size > MOST_TEXT_BYTES:
        raise TextRefusedError(f"{size} bytes exceed {MOST_TEXT_BYTES}; split the text", position)
    return size


def _convert_failure(failure: EmbeddingFailure, start: int) -> Exception:
    if failure.code in (EmbeddingFailureCode.INVALID_REQUEST, EmbeddingFailureCode.TEXT_TOO_LONG):
        position = None if failure.position is None else start + failure.position
        return TextRefusedError(failure.message, position)
    return EmbedderUnavailableError(failure.message)


def _decode(embeddings: TextEmbeddings, count: int, start: int) -> Embeddings:
    """Return the vectors of a reply to `count` texts.

    Raises:
        ContractError: it does not have the form that both sides agreed on.
    """
    dimensions = embeddings.dimensions
    if not 1 <= dimensions <= MOST_DIMENSIONS or len(embeddings.tokens) != count:
        raise ContractError(f"dimensions {dimensions}, tokens of {len(embeddings.tokens)} texts instead of {count}")
    if not all(0 <= tokens <= MOST_TEXT_TOKENS for tokens in embeddings.tokens):
        raise ContractError(f"tokens: not between 0 and {MOST_TEXT_TOKENS}")
    if not all(0 <= position < count for position in embeddings.truncated):
        raise ContractError("truncated: positions beyond the texts")
    if len(embeddings.engine) > MOST_ENGINE_CHARACTERS or not embeddings.engine.isprintable():
        raise ContractError("engine: no identity")
    try:
        data = base64.b64decode(embeddings.vectors, validate=True)
    except ValueError as error:
        raise ContractError(f"vectors: {error}") from error
    if len(data) != 4 * dimensions * count:
        raise ContractError(f"vectors: {len(data)} bytes instead of {4 * dimensions * count}")
    vectors = np.frombuffer(data, "<f4").reshape(count, dimensions).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ContractError("vectors: not finite")
    if np.abs(vectors).max(initial=0.0) > MOST_VALUE:
        raise ContractError(f"vectors: numbers beyond {MOST_VALUE:g}")
    truncated = tuple(start + position for position in embeddings.truncated)
    return Embeddings(vectors, embeddings.tokens, truncated, embeddings.engine)


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Return the parts of one call as one; at least one part."""
    return Embeddings(
        np.concatenate([part.vectors for part in parts]),
        tuple(tokens for part in parts for tokens in part.tokens),
        tuple(position for part in parts for position in part.truncated),
        parts[0].engine,
    )
