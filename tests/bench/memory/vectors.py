"""Vectors of the shipped embedding engine as a further ranking, through the embedder's process."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devcluster.cache import cache_dir
from r1plus_gateway.embedding.client import SocketEmbedder
from r1plus_gateway.memory.turns import Sentence
from r1plus_model_repo.importing.embedding.minilm import NAME, build_minilm
from support.embedding.process import running_embedder_process


class VectorRanking:
    """Ranks what the user states by the cosine of its vector with the question's."""

    def __init__(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """`vectors`: of each text, (dimensions,), of length 1."""
        self._vectors = vectors

    def rank(self, question: str, sentences: Sequence[Sentence]) -> list[int]:
        """See `Ranking`."""
        if not sentences:
            return []
        rows = np.stack([self._vectors[sentence.text] for sentence in sentences])
        return [int(index) for index in np.argsort(-(rows @ self._vectors[question]), kind="stable")]


async def embed_texts(texts: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Return the vector of each text."""
    distinct = list(dict.fromkeys(texts))
    with tempfile.TemporaryDirectory(prefix="r1plus-memory-") as name:
        engine = build_minilm(cache_dir() / "engines", print)
        async with running_embedder_process(Path(name), engine, NAME) as process:
            embeddings = await SocketEmbedder(str(process.socket)).embed(distinct)
    return dict(zip(distinct, embeddings.vectors, strict=True))
