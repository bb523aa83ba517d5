"""BERT and mean pooling in plain NumPy, after its paper and one text at a time: what a converted engine must agree with."""

from collections.abc import Mapping, Sequence
from math import erf

import numpy as np
from numpy.typing import NDArray

from r1plus_model_repo.importing.embedding.checkpoint import BertShape, Pooling

Matrix = NDArray[np.float64]


def embed(ids: Sequence[int], weights: Mapping[str, NDArray[np.float32]], shape: BertShape) -> Matrix:
    """Return the vector of one text."""
    hidden = (
        weights["embeddings.word_embeddings.weight"][list(ids)]
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0]
    ).astype(np.float64)
    hidden = _normalise(hidden, weights, "embeddings", shape)
    for layer in range(shape.layers):
        hidden = _run_layer(hidden, weights, f"encoder.layer.{layer}", shape)
    vector = hidden[0] if shape.pooling is Pooling.CLS else hidden.mean(axis=0)
    return np.asarray(vector / np.linalg.norm(vector))


def _run_layer(hidden: Matrix, weights: Mapping[str, NDArray[np.float32]], here: str, shape: BertShape) -> Matrix:
    size = shape.hidden_size // shape.heads
    query, key, value = (_dense(hidden, weights, f"{here}.attention.self.{n}") for n in ("query", "key", "value"))
    heads = []
    for head in range(shape.heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / np.sqrt(size)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(shares / shares.sum(axis=1, keepdims=True) @ value[:, part])
    attended = _dense(np.concatenate(heads, axis=1), weights, f"{here}.attention.output.dense")
    hidden = _normalise(hidden + attended, weights, f"{here}.attention.output", shape)
    inner = _dense(hidden, weights, f"{here}.intermediate.dense")
    inner = inner * 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
    return _normalise(hidden + _dense(inner, weights, f"{here}.output.dense"), weights, f"{here}.output", shape)


def _dense(hidden: Matrix, weights: Mapping[str, NDArray[np.float32]], name: str) -> Matrix:
    return np.asarray(hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def _normalise(hidden: Matrix, weights: Mapping[str, NDArray[np.float32]], name: str, shape: BertShape) -> Matrix:
    even = (hidden - hidden.mean(axis=1, keepdims=True)) / np.sqrt(hidden.var(axis=1, keepdims=True) + shape.epsilon)
    return np.asarray(even * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"])
