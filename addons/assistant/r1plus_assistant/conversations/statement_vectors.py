"""Vectors of what the user has stated: a further ranking of memory, for one index. They are in memory only.

They are a part of an index and found with it, so a question is compared with what its own caller and end user said, and
with nothing else. What drops an index drops its vectors.
"""

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from r1plus_assistant.knowledge.vector_table import VectorTable
from r1plus_assistant.memory.index import ConversationIndex, View, view_index
from r1plus_assistant.memory.turns import Sentence

ROW_BYTES: Final = 1024
"""About: of a vector that is still to come."""
_BLOCK_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class MissingVectors:
    """Statements that have no vector yet."""

    start: int
    """Number of the first one among all statements of its index."""
    texts: Sequence[str]


class StatementVectors:
    """Vectors of consecutive statements of an index, all by one engine."""

    def __init__(self, index: ConversationIndex) -> None:
        self._index = index
        self._engine = ""
        self._first = 0
        self._table = VectorTable(_BLOCK_ROWS)
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of memory, about, with those of vectors that are still to come."""
        return max(self._table.size, ROW_BYTES * len(self._index.cards))

    def find_missing(self, most: int, view: View | None = None) -> MissingVectors:
        """Return the first statements of a view, or of all, that have no vector; at most so many."""
        view = view or view_index(self._index)
        with self._lock:
            start = self._find_start(view, self._engine)
        cards = self._index.cards[start : min(view.card_end, start + most)]
        return MissingVectors(start, [card.sentence.text for card in cards])

    def add(self, start: int, engine: str, vectors: NDArray[np.float32]) -> None:
        """Add vectors, (count, dimensions), of the statements from this number on.

        Vectors of another engine take the place of all, and so do those that begin before all or leave a gap: vectors
        are consecutive. What another request has added meanwhile stays.
        """
        with self._lock:
            is_consecutive = self._first <= start <= self._end
            if engine != self._engine or not self._table.has_width(vectors.shape[1]) or not is_consecutive:
                self._engine, self._first, self._table = engine, start, VectorTable(_BLOCK_ROWS)
            self._table.add(vectors[self._end - start :])

    def drop(self) -> None:
        """Drop all vectors: the embedder has another engine now."""
        with self._lock:
            self._engine, self._first, self._table = "", 0, VectorTable(_BLOCK_ROWS)

    def compare(self, view: View, engine: str, vector: NDArray[np.float32]) -> dict[int, float] | None:
        """Return the cosine of a question's vector and each statement of a view, by the sentence's position.

        None where a statement has no vector of this engine: a part of them would push the others out of the prompt.
        """
        with self._lock:
            if self._find_start(view, engine) < view.card_end or not self._table.has_width(len(vector)):
                return None
            cosines = self._table.compare(vector)
            first = _find_first(view)
            numbers = range(first, view.card_end)
            return {self._index.cards[one].sentence.position: float(cosines[one - self._first]) for one in numbers}

    @property
    def _end(self) -> int:
        return self._first + len(self._table)

    def _find_start(self, view: View, engine: str) -> int:
        """Return the number of the first statement of a view without a vector."""
        first = _find_first(view)
        is_covered = engine == self._engine and self._first <= first <= self._end
        return self._end if is_covered else first


class VectorRanking:
    """Ranks what the user states by the cosine of its vector with the question's. See `memory.ranking.Ranking`."""

    def __init__(self, cosines: Mapping[int, float]) -> None:
        """`cosines`: by the sentence's position."""
        self._cosines = cosines

    def rank(self, question: str, sentences: Sequence[Sentence]) -> list[int]:
        """Return indices of the sentences that have a vector, the nearest first. The question is in the cosines."""
        scores = {index: self._cosines.get(sentence.position) for index, sentence in enumerate(sentences)}
        ranked = [(-score, index) for index, score in scores.items() if score is not None]
        return [index for _, index in sorted(ranked)]


def _find_first(view: View) -> int:
    """Return the number of a view's first statement among all of its index."""
    return bisect_left(view.index.card_places, view.begin)
