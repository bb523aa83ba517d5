"""The encoder as an OpenVINO graph: tokens in, one vector of length 1 per text out.

    input_ids       (texts, tokens) int64
    attention_mask  (texts, tokens) int64, 1 for a token and 0 for padding
    embeddings      (texts, dimensions) float32

BERT: huggingface/transformers, `models/bert/modeling_bert.py`. Pooling: sentence-transformers, `models/Pooling.py`.
`python -m r1plus_model_repo.importing.embedding.graph SOURCE TARGET` writes it, in a process whose memory is freed.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from r1plus_model_repo.importing.embedding.checkpoint import (
    WEIGHTS,
    BertShape,
    EmbeddingSource,
    Pooling,
    read_embedding_model,
)

MODEL: Final = "openvino_model.xml"
MASKED: Final = -1e9
"""Added to the attention of padding: its share is then 0 in float32."""
SMALLEST_NORM: Final = 1e-12
_TYPES: Final[dict[str, Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
Weight = Callable[[str], NDArray[np.float32]]


def build_graph(source: EmbeddingSource) -> Any:
    """Return the model with the weights of the source."""
    weights = _open_weights(source)
    return _Encoder(source.shape, weights).build()


def _open_weights(source: EmbeddingSource) -> Weight:
    path = source.folder / WEIGHTS
    with path.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
    data = np.memmap(path, np.uint8, "r", offset=start)

    def read(name: str) -> NDArray[np.float32]:
        tensor = source.tensors[source.prefix + name]
        values = data[tensor.begin : tensor.end].view(_TYPES[tensor.dtype]).reshape(tensor.shape)
        return np.ascontiguousarray(values, dtype=np.float32)

    return read


class _Encoder:
    def __init__(self, shape: BertShape, weights: Weight) -> None:
        self._shape = shape
        self._weights = weights

    def build(self) -> Any:
        ids = ops.parameter([-1, -1], np.int64, name="input_ids")
        mask = ops.parameter([-1, -1], np.int64, name="attention_mask")
        for node, name in ((ids, "input_ids"), (mask, "attention_mask")):
            node.output(0).set_names({name})
        shares = ops.convert(mask, np.float32)
        # (texts, 1, 1, tokens): the same for each head and each token that looks.
        bias = ops.multiply(ops.unsqueeze(ops.subtract(shares, _scalar(1.0)), _ints([1, 2])), _scalar(-MASKED))
        hidden = self._embed(ids)
        for layer in range(self._shape.layers):
            hidden = self._add_layer(hidden, bias, f"encoder.layer.{layer}")
        pooled = self._pool(hidden, shares)
        result = ops.result(_normalise(pooled), name="embeddings")
        result.output(0).set_names({"embeddings"})
        return ov.Model([result], [ids, mask], "embedding")

    def _embed(self, ids: Any) -> Any:
        words = ops.gather(self._constant("embeddings.word_embeddings.weight"), ids, _ints(0))
        length = ops.gather(ops.shape_of(ids), _ints(1), _ints(0))
        positions = ops.range(_ints(0), length, _ints(1), "i64")
        places = ops.gather(self._constant("embeddings.position_embeddings.weight"), positions, _ints(0))
        segment = self._weights("embeddings.token_type_embeddings.weight")[0]
        total = ops.add(ops.add(words, places), ops.constant(segment))
        return self._normalise_layer(total, "embeddings.LayerNorm")

    def _add_layer(self, hidden: Any, bias: Any, here: str) -> Any:
        query, key, value = (self._split_heads(hidden, f"{here}.attention.self.{n}") for n in ("query", "key", "value"))
        looked = ops.scaled_dot_product_attention(query, key, value, bias)
        merged = ops.reshape(
            ops.transpose(looked, _ints([0, 2, 1, 3])), _ints([0, 0, self._shape.hidden_size]), special_zero=True
        )
        attended = self._multiply(merged, f"{here}.attention.output.dense")
        hidden = self._normalise_layer(ops.add(attended, hidden), f"{here}.attention.output.LayerNorm")
        inner = ops.gelu(self._multiply(hidden, f"{here}.intermediate.dense"), "erf")
        outer = self._multiply(inner, f"{here}.output.dense")
        return self._normalise_layer(ops.add(outer, hidden), f"{here}.output.LayerNorm")

    def _split_heads(self, hidden: Any, name: str) -> Any:
        heads = self._shape.heads
        form = _ints([0, 0, heads, self._shape.hidden_size // heads])
        return ops.transpose(ops.reshape(self._multiply(hidden, name), form, special_zero=True), _ints([0, 2, 1, 3]))

    def _multiply(self, hidden: Any, name: str) -> Any:
        product = ops.matmul(hidden, self._constant(f"{name}.weight"), False, True)
        return ops.add(product, self._constant(f"{name}.bias"))

    def _normalise_layer(self, hidden: Any, name: str) -> Any:
        even = ops.mvn(hidden, _ints([-1]), True, self._shape.epsilon, "inside_sqrt")
        return ops.add(ops.multiply(even, self._constant(f"{name}.weight")), self._constant(f"{name}.bias"))

    def _pool(self, hidden: Any, shares: Any) -> Any:
        if self._shape.pooling is Pooling.CLS:
            return ops.gather(hidden, _ints(0), _ints(1))
        weighted = ops.reduce_sum(ops.multiply(hidden, ops.unsqueeze(shares, _ints([2]))), _ints([1]), False)
        return ops.divide(weighted, ops.reduce_sum(shares, _ints([1]), True))

    def _constant(self, name: str) -> Any:
        return ops.constant(self._weights(name))


def _normalise(vectors: Any) -> Any:
    squares = ops.reduce_sum(ops.multiply(vectors, vectors), _ints([1]), True)
    return ops.divide(vectors, ops.maximum(ops.sqrt(squares), _scalar(SMALLEST_NORM)))


def _scalar(value: float) -> Any:
    return ops.constant(np.float32(value))


def _ints(value: int | list[int]) -> Any:
    return ops.constant(np.array(value, np.int64))


def main(source: str, target: str) -> None:
    """Write the model of a folder."""
    ov.save_model(build_graph(read_embedding_model(Path(source))), Path(target) / MODEL, compress_to_fp16=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
