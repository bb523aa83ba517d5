"""The vectors of an index: 16 bits for each number, half the memory of what embedders give, compared in a few passes.

The order of passages does not change by that: the cosine of two vectors differs by less than 0.0002.
"""

from typing import Final

import numpy as np
import simsimd
from numpy.typing import NDArray

_BLOCK: Final = 4096
# On a processor with AVX512-FP16 simsimd would add up in 16 bits: the error was four times as large, and beyond 0.0002.
simsimd.disable_capability("sapphire")


class VectorTable:
    """Vectors of length 1, by the numbers of their chunks. One that is searched is not changed: a copy of it grows."""

    def __init__(self, block: int = _BLOCK) -> None:
        """`block`: rows that are allocated at once."""
        self._block = block
        self._rows: NDArray[np.float16] | None = None
        self._is_shared = False
        """Whether another table has the same memory: the first row that is added moves this one to its own."""
        self._capacity = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return 0 if self._rows is None else self._rows.nbytes

    def copy(self) -> "VectorTable":
        """Return a table of the same vectors that can grow."""
        copied = VectorTable(self._block)
        copied._rows, copied._count, copied._is_shared = self._rows, self._count, True
        return copied

    def reserve(self, count: int) -> None:
        """Say how many vectors there will be."""
        self._capacity = count

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Add vectors, (count, dimensions)."""
        end = self._count + len(vectors)
        if self._rows is None or self._is_shared or end > len(self._rows):
            room = max(self._capacity, end if self._rows is None else end + self._block)
            grown = np.empty((room, vectors.shape[1]), dtype=np.float16)
            if self._rows is not None:
                grown[: self._count] = self._rows[: self._count]
            self._rows, self._is_shared = grown, False
        self._rows[self._count : end] = vectors
        self._count = end

    def has_width(self, dimensions: int) -> bool:
        """Return whether vectors have so many numbers: an embedder that misbehaves may send others of one engine."""
        return self._rows is None or self._rows.shape[1] == dimensions

    def compare(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine of a vector, (dimensions,), and each of the table, (count,)."""
        if self._rows is None:
            return np.empty(0, dtype=np.float32)
        question = vector.astype(np.float16).reshape(1, -1)
        cosines = simsimd.cdist(question, self._rows[: self._count], "dot", out_dtype="float32")
        return np.asarray(cosines).reshape(-1)
