"""An embedder in memory: vectors that depend on the words of a text, so that texts with common words are near."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence

import numpy as np
from numpy.typing import NDArray

from r1plus_assistant.embedding.client import Embeddings, TextRefusedError, join

ENGINE = "minilm@sha256:" + "5a" * 32
DIMENSIONS = 384
MOST_TOKENS = 256
EMBEDDING = {"name": "minilm", "sha256": "5a" * 32, "dimensions": DIMENSIONS, "mostTokens": MOST_TOKENS}
"""What a gateway's settings say of it."""


class FakeEmbedder:
    """A word is a token; a vector is the sum of its words' own."""

    def __init__(self, engine: str = ENGINE, dimensions: int = DIMENSIONS) -> None:
        self.engine = engine
        self.dimensions = dimensions
        self.asked: list[tuple[str, ...]] = []
        self.trouble: Exception | None = None
        self.gate: asyncio.Event | None = None
        """Answers wait for it."""

    async def embed(self, texts: Sequence[str], *, truncate: bool = True) -> Embeddings:
        """See `Embedder`."""
        return join([part async for part in self.embed_parts(texts, truncate=truncate)])

    async def embed_parts(self, texts: Sequence[str], *, truncate: bool = True) -> AsyncGenerator[Embeddings, None]:
        """See `Embedder`. All texts are one part."""
        self.asked.append(tuple(texts))
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        words = [text.lower().split() for text in texts]
        truncated = tuple(position for position, those in enumerate(words) if len(those) + 2 > MOST_TOKENS)
        if truncated and not truncate:
            raise TextRefusedError(f"more than {MOST_TOKENS} tokens; split the text", truncated[0])
        vectors = np.stack([self._embed_words(those[: MOST_TOKENS - 2]) for those in words])
        tokens = tuple(min(len(those) + 2, MOST_TOKENS) for those in words)
        yield Embeddings(vectors, tokens, truncated, self.engine)

    async def identify(self) -> str:
        """See `Embedder`."""
        if self.trouble is not None:
            raise self.trouble
        return self.engine

    def _embed_words(self, words: Sequence[str]) -> NDArray[np.float32]:
        total = np.zeros(self.dimensions)
        for word in words or ("",):
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
            total += np.random.default_rng(seed).standard_normal(self.dimensions)
        return (total / np.linalg.norm(total)).astype(np.float32)
