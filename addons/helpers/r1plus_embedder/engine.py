"""The engine in memory: tokenizer and model, for the child process alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from r1plus_embedder.batches import group_by_length
from r1plus_embedder.files import MODEL, TOKENIZER, EngineFiles

PADDING: Final = "[PAD]"


class TextTooLongError(ValueError):
    """A text is longer than the engine reads."""

    def __init__(self, position: int, tokens: int, most: int) -> None:
        super().__init__(
            f"the text has {tokens} tokens, and the engine reads {most}; split it, or ask for its beginning (truncate)"
        )
        self.position = position


@dataclass(frozen=True, slots=True)
class TextVectors:
    """Vectors of texts, in their order."""

    rows: NDArray[np.float32]
    """(texts, dimensions), each of length 1."""
    tokens: tuple[int, ...]
    truncated: tuple[int, ...]
    """Positions of the texts of which the beginning was read only."""


class LoadedEngine:
    """A loaded engine."""

    def __init__(self, files: EngineFiles, threads: int) -> None:
        """Load it. What OpenVINO and tokenizers raise about files that they do not understand is not translated."""
        self._dimensions = files.dimensions
        self._most_tokens = files.most_tokens
        self._tokenizer = Tokenizer.from_file(str(files.folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(files.most_tokens)
        self._padding = self._tokenizer.token_to_id(PADDING) or 0
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self._model = ov.Core().compile_model(files.folder / MODEL, "CPU", options)

    def embed(self, texts: Sequence[str], *, truncate: bool) -> TextVectors:
        """Return the vectors of texts.

        Raises:
            TextTooLongError: of the first text that is too long, unless its beginning will do.
        """
        encodings = self._tokenizer.encode_batch(list(texts))
        truncated = tuple(position for position, one in enumerate(encodings) if one.overflowing)
        if truncated and not truncate:
            position = truncated[0]
            raise TextTooLongError(position, _count_all(encodings[position]), self._most_tokens)
        lengths = tuple(len(one.ids) for one in encodings)
        rows = np.empty((len(texts), self._dimensions), np.float32)
        for group in group_by_length(lengths):
            rows[group] = self._compute([encodings[position] for position in group])
        return TextVectors(rows, lengths, truncated)

    def _compute(self, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        longest = max(len(one.ids) for one in encodings)
        ids = np.full((len(encodings), longest), self._padding, np.int64)
        mask = np.zeros((len(encodings), longest), np.int64)
        for row, one in enumerate(encodings):
            ids[row, : len(one.ids)] = one.ids
            mask[row, : len(one.ids)] = 1
        vectors: NDArray[np.float32] = self._model({"input_ids": ids, "attention_mask": mask})[0]
        return vectors


def _count_all(encoding: Encoding) -> int:
    """Return the tokens of a whole text: its parts have the marks around it each."""
    marks = sum(encoding.special_tokens_mask)
    return len(encoding.ids) + sum(len(part.ids) - marks for part in encoding.overflowing)
