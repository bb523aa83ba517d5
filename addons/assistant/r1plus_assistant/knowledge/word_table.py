"""The words of an index: which chunks have each, and their scores for a question by BM25.

A code of several parts, as `4711-03`, is a word of its own, too: each of its parts is in many codes.
"""

import re
import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from r1plus_assistant.memory.ranking import LENGTH_WEIGHT, SATURATION
from r1plus_assistant.memory.words import WordSplitter, fold

_WORD_BYTES: Final = 400
"""About: of a word in the table, besides its chunks."""
_CHUNK_BYTES: Final = 8
_POSTING_BYTES: Final = 7
"""With what arrays have in reserve."""
_CODE: Final = re.compile(r"\b\w++(?:[-./:]++\w++)++")
_MOST_CODE_CHARACTERS: Final = 64
_MOST_COUNT: Final = 2**16 - 1

Posting = tuple["array[int]", "array[int]"]
"""Numbers of chunks, and how often each has the word."""


class WordTable:
    """Words by the numbers of their chunks. One that is searched is not changed: a copy of it grows."""

    def __init__(self) -> None:
        self._splitter = WordSplitter()
        self._postings: dict[str, Posting] = {}
        self._shared: Mapping[str, Posting] = {}
        """Those of the table that this one is a copy of: they are copied before they grow."""
        self._lengths: array[int] = array("I")
        self._entries = 0
        self._norms: NDArray[np.float32] | None = None
        """What BM25 adds to the count of a word, for the length of each chunk."""

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return _POSTING_BYTES * self._entries + _CHUNK_BYTES * len(self) + _WORD_BYTES * len(self._postings)

    def copy(self) -> "WordTable":
        """Return a table of the same words that can grow."""
        copied = WordTable()
        copied._postings, copied._shared = dict(self._postings), self._postings
        copied._lengths, copied._entries = self._lengths[:], self._entries
        return copied

    def add(self, text: str) -> None:
        """Add the next chunk."""
        number, words = len(self._lengths), self._splitter.split(text)
        words += find_codes(text)
        self._lengths.append(len(words))
        counts: Mapping[str, int] = Counter(words)
        for word, count in counts.items():
            if (posting := self._postings.get(word)) is None:
                posting = self._postings[sys.intern(word)] = (array("I"), array("H"))
            elif posting is self._shared.get(word):
                posting = self._postings[word] = (posting[0][:], posting[1][:])
            posting[0].append(number)
            posting[1].append(min(count, _MOST_COUNT))
        self._entries += len(counts)
        self._norms = None

    def end_building(self) -> None:
        """Forget what only building needs, and prepare searches."""
        self._splitter, self._shared = WordSplitter(), {}
        self._norms = self._compute_norms()

    def score(self, question: str) -> NDArray[np.float32]:
        """Return the score of each chunk for a question, (chunks,); 0: it has no word of it."""
        scores = np.zeros(len(self), dtype=np.float32)
        norms = self._compute_norms() if self._norms is None else self._norms
        for word in sorted({*WordSplitter().split(question), *find_codes(question)}):
            if (posting := self._postings.get(word)) is None:
                continue
            chunks, counts = np.frombuffer(posting[0], dtype=np.uint32), np.frombuffer(posting[1], dtype=np.uint16)
            rarity = np.log(1 + (len(self) - len(chunks) + 0.5) / (len(chunks) + 0.5))
            shares = norms.take(chunks)
            shares += counts
            np.divide(counts, shares, out=shares)
            shares *= np.float32(rarity * (SATURATION + 1))
            scores[chunks] += shares
        return scores

    def _compute_norms(self) -> NDArray[np.float32]:
        lengths = np.frombuffer(self._lengths, dtype=np.uint32)
        mean = max(1.0, float(lengths.mean())) if len(lengths) else 1.0
        norms: NDArray[np.float32] = (SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths / mean)).astype(
            np.float32
        )
        return norms


def find_codes(text: str) -> list[str]:
    """Return the codes of a text, folded: parts that are joined without a space, with a digit among them."""
    return [
        fold(code)
        for code in _CODE.findall(text)
        if len(code) <= _MOST_CODE_CHARACTERS and any(one.isdigit() for one in code)
    ]
