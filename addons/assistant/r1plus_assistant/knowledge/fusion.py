"""How the scores of words and those of vectors become one.

Each is divided by its best one, and they are added by weight. That keeps how far one passage is ahead of the next: a
part number is in one passage, and vectors have all numbers of its kind close together. Ranks alone lose that.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

WORD_WEIGHT: Final = 0.25
"""Of words; the rest is that of vectors. Chosen on the development halves of `make bench NAME=knowledge`."""


def fuse_scores(words: NDArray[np.float32], cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one score of 0 to 1 for each chunk, (chunks,): 1 is the best of both. What no vector is near counts 0."""
    fused: NDArray[np.float32] = WORD_WEIGHT * _scale(words) + (1 - WORD_WEIGHT) * _scale(cosines)
    return fused


def _scale(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    most = scores.max(initial=0.0)
    return np.maximum(scores, 0) / most if most > 0 else np.zeros_like(scores)
