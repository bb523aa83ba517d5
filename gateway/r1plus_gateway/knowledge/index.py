"""The index of one vector store, in memory: words with their chunks, and vectors. It is never written anywhere.

Searching it takes milliseconds of processor time for each ten thousand chunks, so it runs in a thread.
"""

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from r1plus_gateway.knowledge.chunking import describe_passage
from r1plus_gateway.memory.ranking import LENGTH_WEIGHT, RANK_CONSTANT, SATURATION, fuse_rankings
from r1plus_gateway.memory.words import WordSplitter
from r1plus_gateway.store.knowledge import ChunkBatch, VectorStoreFile

CANDIDATES: Final = 100
"""Best chunks of each ranking that are joined."""
_WORD_BYTES: Final = 400
"""About: of a word in the index, besides its chunks."""
_MOST_COUNT: Final = 2**16 - 1
_BLOCK: Final = 4096
"""Rows of vectors that are allocated at once."""


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
        self._splitter = WordSplitter()
        self._postings: dict[str, tuple[array[int], array[int]]] = {}
        """Word -> numbers of chunks, and how often each has it."""
        self._shared_postings: Mapping[str, tuple[array[int], array[int]]] = {}
        """Those of the index that this one is a copy of: they are copied before they grow."""
        self._lengths: array[int] = array("I")
        """Words of each chunk."""
        self._file_numbers: array[int] = array("I")
        self._batches: array[int] = array("I")
        self._within: array[int] = array("H")
        self._vectors: NDArray[np.float32] | None = None
        self._shares_vectors = False
        self._capacity = 0
        self._posting_bytes = 0
        self.has_stale = False
        """Whether a chunk has no vector of this engine, so that words alone are searched."""

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        vectors = self._vectors.nbytes if self._vectors is not None else 0
        return vectors + self._posting_bytes + 16 * len(self) + _WORD_BYTES * len(self._postings)

    @property
    def has_vectors(self) -> bool:
        """Whether vectors are searched: all chunks have one, of this engine."""
        return bool(self.engine) and not self.has_stale and len(self) > 0

    def copy(self, files: Iterable[VectorStoreFile]) -> "StoreIndex":
        """Return an index of the same chunks that can grow; `files`: its files as they are now, in the same order."""
        copied = StoreIndex(self.engine, self._most_bytes)
        copied.files = list(files)
        copied._postings, copied._shared_postings = dict(self._postings), self._postings
        copied._lengths, copied._file_numbers = self._lengths[:], self._file_numbers[:]
        copied._batches, copied._within = self._batches[:], self._within[:]
        copied._vectors, copied._shares_vectors = self._vectors, True
        copied._posting_bytes, copied.has_stale = self._posting_bytes, self.has_stale
        return copied

    def reserve(self, chunks: int) -> None:
        """Say how many chunks will come: vectors get their place at once."""
        self._capacity = len(self) + chunks

    def add_file(self, file: VectorStoreFile) -> None:
        """Begin a file; its batches follow."""
        self.files.append(file)

    def add_batch(self, batch: ChunkBatch) -> None:
        """Add chunks of the last file. Raises IndexLimitError."""
        first = len(self)
        for index, chunk in enumerate(batch.chunks):
            self._add_words(first + index, self._splitter.split(describe_passage(chunk)))
            self._file_numbers.append(len(self.files) - 1)
            self._batches.append(batch.position)
            self._within.append(index)
        self._add_vectors(first, batch)
        if self.size > self._most_bytes:
            raise IndexLimitError(f"more than {self._most_bytes} bytes of memory")

    def end_building(self) -> None:
        """Forget what only building needs."""
        self._splitter = WordSplitter()
        self._shared_postings = {}

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
        rankings = [self._rank_words(question, mask)]
        if vector is not None and self.has_vectors and self._has_width(len(vector)):
            assert self._vectors is not None
            rankings.append(_pick_best(self._vectors[: len(self)] @ vector, mask, least=-2.0))
        scores = fuse_rankings(rankings)
        best = sorted(scores, key=lambda index: (-scores[index], index))[:most]
        most_score = len(rankings) / (RANK_CONSTANT + 1)
        return [Hit(self._locate(index), scores[index] / most_score) for index in best]

    def rank_by(self, question: str, vector: NDArray[np.float32] | None, most: int) -> list[int]:
        """Return numbers of chunks by one ranking alone: that of words, or that of the vector. For measurements."""
        if vector is None:
            return self._rank_words(question, None)[:most]
        assert self._vectors is not None
        return _pick_best(self._vectors[: len(self)] @ vector, None, least=-2.0)[:most]

    def _rank_words(self, question: str, mask: NDArray[np.bool_] | None) -> list[int]:
        """BM25."""
        lengths = np.frombuffer(self._lengths, dtype=np.uint32)
        mean = max(1.0, float(lengths.mean()))
        scores = np.zeros(len(self), dtype=np.float32)
        for word in set(WordSplitter().split(question)):
            if word not in self._postings:
                continue
            chunks = np.frombuffer(self._postings[word][0], dtype=np.uint32)
            counts = np.frombuffer(self._postings[word][1], dtype=np.uint16).astype(np.float32)
            rarity = np.log(1 + (len(self) - len(chunks) + 0.5) / (len(chunks) + 0.5))
            norm = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths[chunks] / mean
            scores[chunks] += (rarity * counts * (SATURATION + 1) / (counts + SATURATION * norm)).astype(np.float32)
        return _pick_best(scores, mask, least=0.0)

    def _add_words(self, number: int, words: Sequence[str]) -> None:
        self._lengths.append(len(words))
        counts: Mapping[str, int] = Counter(words)
        for word, count in counts.items():
            if (posting := self._postings.get(word)) is None:
                posting = self._postings[sys.intern(word)] = (array("I"), array("H"))
            elif posting is self._shared_postings.get(word):
                posting = self._postings[word] = (posting[0][:], posting[1][:])
            posting[0].append(number)
            posting[1].append(min(count, _MOST_COUNT))
        self._posting_bytes += 7 * len(counts)  # with what arrays have in reserve

    def _add_vectors(self, first: int, batch: ChunkBatch) -> None:
        if not self.engine:
            return
        rows: Any = None
        if batch.engine == self.engine:
            rows = np.frombuffer(batch.vectors, dtype="<f4").reshape(len(batch.chunks), -1)
        if rows is None or not self._has_width(rows.shape[1]):
            self.has_stale = True
            self._vectors = None
        if self.has_stale:
            return
        if self._vectors is None:
            self._vectors = np.empty((max(self._capacity, _BLOCK), rows.shape[1]), dtype=np.float32)
            self._shares_vectors = False
        if self._shares_vectors or first + len(rows) > len(self._vectors):
            room = max(self._capacity, first + len(rows) + _BLOCK)
            larger = np.empty((room, rows.shape[1]), dtype=np.float32)
            larger[:first] = self._vectors[:first]
            self._vectors, self._shares_vectors = larger, False
        self._vectors[first : first + len(rows)] = rows

    def _has_width(self, dimensions: int) -> bool:
        """Return whether vectors have so many numbers: an embedder that misbehaves may send others of one engine."""
        return self._vectors is None or self._vectors.shape[1] == dimensions

    def _locate(self, number: int) -> ChunkPlace:
        return ChunkPlace(self.files[self._file_numbers[number]], self._batches[number], self._within[number])


def _pick_best(scores: NDArray[np.float32], mask: NDArray[np.bool_] | None, *, least: float) -> list[int]:
    """Return the numbers of the best chunks above `least`, the best first."""
    if mask is not None:
        scores = np.where(mask, scores, np.float32(-np.inf))
    count = min(CANDIDATES, len(scores))
    best = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
    best = best[np.lexsort((best, -scores[best]))]
    return [int(number) for number in best if scores[number] > least]
