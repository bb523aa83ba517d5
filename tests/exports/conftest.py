"""torch, transformers and what exports are made with, from the cache; `make test-long NAME=exports` runs the tests of this folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.exports import environment

environment.add_to_path()

from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint  # noqa: E402 - now it can be
from support.exports.tiny_engine import TinyEngine, make_tiny_engine, write_weights  # noqa: E402 - these, too

FIGURES = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEngine:
    """A tiny engine with its suite."""
    return make_tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny Llama, in 32 bits."""
    root = tmp_path_factory.mktemp("llama")
    return convert_gguf_to_checkpoint(
        write_weights(root / "tiny.gguf"), root / "checkpoint", "F32", lambda _: None
    ).folder


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Iterator[list[dict[str, Any]]]:
    """What the last line of the run says."""
    yield pytestconfig.stash.setdefault(FIGURES, [])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the figures, as JSON."""
    if FIGURES in config.stash:
        print(json.dumps({"exports": config.stash[FIGURES]}))
