"""`--to keras`: the file r1plus.keras, with weights and tokenizer, loaded by `tf.keras.models.load_model`.

`python -m r1plus_export.keras CHECKPOINT FOLDER PRECISION` makes it. Without KERAS_BACKEND the backend is TensorFlow.
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import keras
import numpy
from safetensors import safe_open

from r1plus_contract.engine.llama_architecture import DERIVED, read_shape
from r1plus_export.answering import IsFinished, TextModel
from r1plus_export.keras_model import TextGenerator
from r1plus_model.encoder import list_end_ids

FILE: Final = "r1plus.keras"


class KerasModel:
    """A file in Keras."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = keras.models.load_model(folder / FILE)

    @property
    def end_ids(self) -> Collection[int]:
        """Tokens that end an answer."""
        ends: Collection[int] = self._model.end_ids
        return ends

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the tokens of a conversation in the chat template."""
        ids: list[int] = self._model.encoder.encode_messages(messages)
        return ids

    def generate(self, ids: list[int], most: int, is_finished: IsFinished) -> list[int]:
        """Return the most likely continuation."""
        answer: list[int] = self._model.generate_tokens(ids, most, is_finished)
        return answer

    def decode(self, ids: list[int]) -> str:
        """Return the text without special tokens."""
        return str(self._model.encoder.decode(ids))


def open_model(folder: Path) -> TextModel:
    """Open an exported folder."""
    return KerasModel(folder)


def write_folder(checkpoint: Path, folder: Path) -> None:
    """Write the checkpoint as r1plus.keras, in 32 bits."""
    fields = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    model: Any = TextGenerator(asdict(read_shape(fields)), ())
    model.load_assets(str(checkpoint))
    model.end_ids = tuple(list_end_ids(checkpoint, model.encoder))
    model.build((None, None))
    for name, numbers in _read_tensors(checkpoint):
        if name != "lm_head.weight" or not model.shape.has_tied_embeddings:
            _find_weight(model, name).assign(numbers.T if _is_dense(name) else numbers)
    model.save(folder / FILE)


def _read_tensors(checkpoint: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary.
                if not name.endswith(DERIVED):
                    yield name, tensors.get_tensor(name).astype(numpy.float32)


def _is_dense(name: str) -> bool:
    """Return whether the weight is a matrix that Keras has the other way round."""
    return name == "lm_head.weight" or name.endswith("_proj.weight")


def _find_weight(model: Any, name: str) -> Any:
    """Return the variable for a tensor of the checkpoint."""
    if name == "lm_head.weight":
        return model.embed_tokens.reverse_embeddings
    if name == "model.embed_tokens.weight":
        return model.embed_tokens.embeddings
    if name == "model.norm.weight":
        return model.norm.scale
    _, _, number, *_, layer, kind = name.split(".")
    part = getattr(model.blocks[int(number)], layer)
    if kind == "bias":
        return part.bias
    return part.kernel if layer.endswith("_proj") else part.scale


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
