"""The index of one vector store, in memory: words with their chunks, and vectors. It is never written anywhere.

Searching it takes milliseconds of processor time for each ten thousand chunks, so it runs in a thread.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from r1plus_assistant.knowledge.chunking import describe_passage
from r1plus_assistant.knowledge.fusion import fuse_scores
from r1plus_assistant.knowledge.vector_table import VectorTable
from r1plus_assistant.knowledge.word_table import WordTable
from r1plus_gateway.store.content.knowledge import ChunkBatch, VectorStoreFile

CANDIDATES: Final = 100
"""Best chunks of each ranking that are joined."""
NOT_SIMILAR: Final = -2.0
"""Less than any cosine."""
_PLACE_BYTES: Final = 10
_SAMPLED: Final = 32
"""Of so many chunks one is looked at, to know above which score the best are."""


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk is stored."""

    file: VectorStoreFile
    batch: int
    index: int
    """Within the batch."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a search found."""

    place: ChunkPlace
    score: float
    """1: the first of all rankings."""


class IndexLimitError(Exception):
    """An index needs more memory than all indexes may have."""


class StoreIndex:
    """The chunks of one vector store. Files are added, and never removed: then it is built again.

    One that is searched is not changed: `copy` returns another one, which grows.
    """

    def __init__(self, engine: str, most_bytes: int) -> None:
        """`engine`: identity of the embedder whose vectors count; empty: none."""
        self.engine = engine
        self.version = 0
        self.files: list[VectorStoreFile] = []
        self._most_bytes = most_bytes
        self._words = WordTable()
        self._vectors = VectorTable()
        self._file_numbers: array[int] = array("I")
        self._batches: array[int] = array("I")
        self._within: array[int] = array("H")
        self.has_stale = False
        """Whether a chunk has no vector of this engine, so that words alone are searched."""

    def __len__(self) -> int:
        return len(self._within)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return self._vectors.size + self._words.size + _PLACE_BYTES * len(self)

    @property
    def has_vectors(self) -> bool:
        """Whether vectors are searched: all chunks have one, of this engine."""
        return bool(self.engine) and not self.has_stale and len(self) > 0

    def copy(self, files: Iterable[VectorStoreFile]) -> "StoreIndex":
        """Return an index of the same chunks that can grow; `files`: its files as they are now, in the same order."""
        copied = StoreIndex(self.engine, self._most_bytes)
        copied.files = list(files)
        copied._words, copied._vectors = self._words.copy(), self._vectors.copy()
        copied._file_numbers, copied._batches, copied._within = (
            self._file_numbers[:],
            self._batches[:],
            self._within[:],
        )
        copied.has_stale = self.has_stale
        return copied

    def reserve(self, chunks: int) -> None:
        """Say how many chunks will come: vectors get their place at once."""
        self._vectors.reserve(len(self) + chunks)

    def add_file(self, file: VectorStoreFile) -> None:
        """Begin a file; its batches follow."""
        self.files.append(file)

    def add_batch(self, batch: ChunkBatch) -> None:
        """Add chunks of the last file. Raises IndexLimitError."""
        for index, chunk in enumerate(batch.chunks):
            self._words.add(describe_passage(chunk))
            self._file_numbers.append(len(self.files) - 1)
            self._batches.append(batch.position)
            self._within.append(index)
        self._add_vectors(batch)
        if self.size > self._most_bytes:
            raise IndexLimitError(f"more than {self._most_bytes} bytes of memory")

    def end_building(self) -> None:
        """Forget what only building needs."""
        self._words.end_building()

    def search(
        self,
        question: str,
        vector: NDArray[np.float32] | None,
        most: int,
        allowed: Sequence[bool] | None = None,
    ) -> list[Hit]:
        """Return the best chunks for a question; `vector`: the question's, (dimensions,), or None: words alone.

        `allowed`: whether each file may be found.
        """
        if not len(self):
            return []
        mask = None
        if allowed is not None:
            mask = np.asarray(allowed, dtype=bool)[np.frombuffer(self._file_numbers, dtype=np.uint32)]
        words = _exclude(self._words.score(question), mask, 0.0)
        if vector is None or not self.has_vectors or not self._vectors.has_width(len(vector)):
            best = pick_best(words, most, least=0.0)
            return [Hit(self._locate(int(one)), float(words[one] / words[best[0]])) for one in best]
        cosines = _exclude(self._vectors.compare(vector), mask, NOT_SIMILAR)
        candidates = np.union1d(
            pick_best(words, CANDIDATES, least=0.0), pick_best(cosines, CANDIDATES, least=NOT_SIMILAR)
        )
        scores = fuse_scores(words[candidates], cosines[candidates])
        order = np.lexsort((candidates, -scores))[:most]
        return [Hit(self._locate(int(candidates[one])), float(scores[one])) for one in order]

    def rank_by(self, question: str, vector: NDArray[np.float32] | None, most: int) -> list[int]:
        """Return numbers of chunks by one ranking alone: that of words, or that of the vector. For measurements."""
        if vector is None:
            return [int(one) for one in pick_best(self._words.score(question), most, least=0.0)]
        return [int(one) for one in pick_best(self._vectors.compare(vector), most, least=NOT_SIMILAR)]

    def _add_vectors(self, batch: ChunkBatch) -> None:
        if not self.engine:
            return
        rows: Any = None
        if batch.engine == self.engine:
            rows = np.frombuffer(batch.vectors, dtype="<f4").reshape(len(batch.chunks), -1)
        if rows is None or not self._vectors.has_width(rows.shape[1]):
            self.has_stale, self._vectors = True, VectorTable()
        if not self.has_stale:
            self._vectors.add(rows)

    def _locate(self, number: int) -> ChunkPlace:
        return ChunkPlace(self.files[self._file_numbers[number]], self._batches[number], self._within[number])


def pick_best(scores: NDArray[np.float32], count: int, *, least: float) -> NDArray[np.intp]:
    """Return the numbers of the best scores above `least`, the best first; of equal ones the first number first."""
    found = np.flatnonzero(scores >= _sample_bar(scores, count))
    if len(found) < count:
        found = np.arange(len(scores))
    found = found[scores[found] > least]
    best: NDArray[np.intp] = found[np.lexsort((found, -scores[found]))][:count]
    return best


def _sample_bar(scores: NDArray[np.float32], count: int) -> float:
    """Return a score that about four times as many scores reach: to sort all of them would take the longest."""
    sample = scores[::_SAMPLED]
    place = len(sample) - 4 * count // _SAMPLED - 1
    return float(np.partition(sample, place)[place]) if place > 0 else -np.inf


def _exclude(scores: NDArray[np.float32], mask: NDArray[np.bool_] | None, least: float) -> NDArray[np.float32]:
    """Return the scores with the least one for what may not be found."""
    return scores if mask is None else np.where(mask, scores, np.float32(least))
