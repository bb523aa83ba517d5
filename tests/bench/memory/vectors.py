"""Vectors of the shipped embedding engine, through the embedder's process, as the gateway ranks by them."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devcluster.cache import cache_dir
from r1plus_assistant.conversations.statement_vectors import StatementVectors, VectorRanking
from r1plus_assistant.embedding.client import SocketEmbedder
from r1plus_assistant.memory.index import index_turns, view_index
from r1plus_assistant.memory.turns import Turn
from r1plus_model_repo.importing.embedding.minilm import NAME, build_minilm
from support.embedding.process import running_embedder_process

Vectors = Mapping[str, NDArray[np.float32]]
"""Of each text, (dimensions,), of length 1."""


def rank_by_vectors(turns: Sequence[Turn], question: str, vectors: Vectors) -> VectorRanking:
    """Return the ranking of what the user states, as the gateway makes it."""
    index = index_turns(turns)
    view, own = view_index(index), StatementVectors(index)
    missing = own.find_missing(len(index.cards))
    own.add(missing.start, NAME, np.stack([vectors[text] for text in missing.texts]))
    cosines = own.compare(view, NAME, vectors[question])
    assert cosines is not None, "a statement without a vector"
    return VectorRanking(cosines)


async def embed_texts(texts: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Return the vector of each text."""
    distinct = list(dict.fromkeys(texts))
    with tempfile.TemporaryDirectory(prefix="r1plus-memory-") as name:
        engine = build_minilm(cache_dir() / "engines", print)
        async with running_embedder_process(Path(name), engine, NAME) as process:
            embeddings = await SocketEmbedder(str(process.socket)).embed(distinct)
    return dict(zip(distinct, embeddings.vectors, strict=True))
