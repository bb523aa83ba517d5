"""`make test-long NAME=embedding`: the shipped engine's vectors against the reference implementation's, on over 200 texts."""

import json
from pathlib import Path

import numpy as np
import pytest

from devcluster.cache import cache_dir
from embedding.reference import compute_reference, read_golden
from r1plus_model_repo.importing.embedding import minilm
from support.embedding.running import running_embedder
from support.embedding.texts import list_texts

pytestmark = [pytest.mark.embedding, pytest.mark.timeout(3600)]
LEAST_COSINE = 0.999
"""What is promised."""


async def test_vectors_agree_with_the_reference_on_every_text(tmp_path: Path) -> None:
    texts = list_texts()
    assert len(texts) >= 200
    reference = compute_reference(texts)
    engine = minilm.build_minilm(cache_dir() / "engines", lambda line: None)
    async with running_embedder(tmp_path, engine, name=minilm.NAME) as embedder:
        got = await embedder.client.embed(texts)
    cosines = (got.vectors * reference).sum(axis=1)
    figures = {"texts": len(texts), "tokens": sum(got.tokens), "least_cosine": round(float(cosines.min()), 7)}
    print(f"\n{json.dumps(figures)}")  # pytest has begun the line
    worst = int(cosines.argmin())
    assert cosines[worst] >= LEAST_COSINE, texts[worst]
    assert len(got.truncated) >= 5, "no text is longer than the engine reads"


def test_the_golden_sample_is_the_references(tmp_path: Path) -> None:
    texts, vectors = read_golden()
    assert (vectors * compute_reference(texts)).sum(axis=1).min() > 0.999999
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
