"""The shipped embedding engine in its process: the bytes of the catalog, and the vectors of the reference."""

from pathlib import Path

import pytest

from devcluster.cache import cache_dir
from embedding.reference import read_golden
from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo.importing.embedding import minilm
from support.embedding.running import running_embedder

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]  # The engine may have to be made first.
LEAST_COSINE = 0.999


@pytest.fixture(scope="module")
def engine() -> Path:
    return minilm.build_minilm(cache_dir() / "engines", print)


def test_it_is_made_with_the_digest_of_the_catalog(engine: Path) -> None:
    assert digest_folder(engine) == minilm.load_catalog_digest()


async def test_its_vectors_are_those_of_the_reference_implementation(tmp_path: Path, engine: Path) -> None:
    texts, vectors = read_golden()
    async with running_embedder(tmp_path, engine, name=minilm.NAME) as embedder:
        got = await embedder.client.embed(texts)
    cosines = (got.vectors * vectors).sum(axis=1)
    assert cosines.min() >= LEAST_COSINE, texts[int(cosines.argmin())]
    assert got.engine == f"{minilm.NAME}@sha256:{minilm.load_catalog_digest()}"


async def test_texts_of_one_meaning_are_nearer_than_others(tmp_path: Path, engine: Path) -> None:
    texts = ["How do I open an account?", "Opening a bank account", "The ship sails at noon"]
    async with running_embedder(tmp_path, engine, name=minilm.NAME) as embedder:
        question, near, far = (await embedder.client.embed(texts)).vectors
    assert question @ near > question @ far + 0.3
