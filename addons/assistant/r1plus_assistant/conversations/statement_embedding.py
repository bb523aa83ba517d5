"""What makes the vectors of memory: of a question and the newest statements at once, of many in the background.

Words alone are searched meanwhile, and while the embedder is away or slow: a question waits for it for a moment only.
"""

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from r1plus_assistant.conversations.statement_vectors import MissingVectors, StatementVectors, VectorRanking
from r1plus_assistant.embedding.client import EmbedderUnavailableError, FindEmbedder, TextRefusedError
from r1plus_assistant.memory.index import View

log = logging.getLogger(__name__)
MOST_AT_ONCE: Final = 8
"""Statements that are embedded with a question, which waits for them: more go in the background."""
WAIT_SECONDS: Final = 1.0
"""For which a question waits for the embedder."""
STEP_TEXTS: Final = 8
"""Statements of one caller that are embedded at once: questions wait for them, and so does the next caller."""


@dataclass(frozen=True, slots=True)
class IndexedStatements:
    """What one index shows to a request, and the vectors of it."""

    vectors: StatementVectors
    view: View


class StatementEmbedder:
    """Embeds questions, and what users have stated."""

    def __init__(self, find_embedder: FindEmbedder, wait_seconds: float = WAIT_SECONDS) -> None:
        """Without an embedder words alone are searched."""
        self._find_embedder = find_embedder
        self._wait_seconds = wait_seconds
        self._due: dict[str, weakref.ref[StatementVectors]] = {}
        """Group of a caller -> an index of its, one at a time: the callers take turns."""
        self._wake = asyncio.Event()

    async def rank(self, group: str, question: str, parts: Sequence[IndexedStatements]) -> VectorRanking | None:
        """Return how near what was stated is to a question; None where words alone are searched.

        `group`: of the caller. `parts`: indexes of this caller and end user.
        """
        embedder = self._find_embedder()
        if embedder is None or not question.strip() or not any(part.view.card_end for part in parts):
            return None
        missing = [part.vectors.find_missing(MOST_AT_ONCE + 1, part.view) for part in parts]
        texts = [text for one in missing for text in one.texts]
        if len(texts) > MOST_AT_ONCE:
            self._embed_later(group, parts)
            return None
        try:
            async with asyncio.timeout(self._wait_seconds):
                embeddings = await embedder.embed([question, *texts])
        except (TimeoutError, EmbedderUnavailableError, TextRefusedError) as error:
            log.warning("Memory is searched by words alone: %s", str(error) or "the embedder is slow")
            return None
        cosines: dict[int, float] = {}
        place = 1
        for part, one in zip(parts, missing, strict=True):
            if one.texts:
                part.vectors.add(one.start, embeddings.engine, embeddings.vectors[place : place + len(one.texts)])
            place += len(one.texts)
            own = part.vectors.compare(part.view, embeddings.engine, embeddings.vectors[0])
            if own is None:
                part.vectors.drop()  # they are of another engine
                self._embed_later(group, parts)
                return None
            cosines |= own
        return VectorRanking(cosines)

    def _embed_later(self, group: str, parts: Sequence[IndexedStatements]) -> None:
        for part in parts:
            if group not in self._due and part.vectors.find_missing(1).texts:
                self._due[group] = weakref.ref(part.vectors)
        self._wake.set()

    async def run(self) -> None:
        """Embed what is due, some statements of each caller in turn. Never returns."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                group = next(iter(self._due))
                reference = self._due.pop(group)
                if await self.embed_some(reference):
                    self._due.setdefault(group, reference)

    async def embed_some(self, reference: "weakref.ref[StatementVectors]") -> bool:
        """Embed the next statements of an index that is still there; return whether there may be more."""
        embedder, vectors = self._find_embedder(), reference()
        missing = MissingVectors(0, ()) if vectors is None else vectors.find_missing(STEP_TEXTS)
        del vectors
        if embedder is None or not missing.texts:
            return False
        try:
            embeddings = await embedder.embed(missing.texts)
        except (EmbedderUnavailableError, TextRefusedError) as error:
            log.warning("Statements have no vectors yet: %s", error)
            return False
        vectors = reference()
        if vectors is not None:
            vectors.add(missing.start, embeddings.engine, embeddings.vectors)
        return vectors is not None


@asynccontextmanager
async def running_statement_embedder(find_embedder: FindEmbedder) -> AsyncIterator[StatementEmbedder]:
    """Embed what users state until the block ends; nothing while there is no embedder."""
    statements = StatementEmbedder(find_embedder)
    task = asyncio.create_task(statements.run())
    try:
        yield statements
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
