"""torch, transformers and what exports are made with, from the cache; `make test-exports` runs the tests of this folder."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.exports import environment

environment.add_to_path()

from support.exports.tiny_engine import TinyEngine, make_tiny_engine  # noqa: E402 - only now can all be imported

FIGURES = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEngine:
    """A tiny engine with its suite."""
    return make_tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Iterator[list[dict[str, Any]]]:
    """What the last line of the run says."""
    yield pytestconfig.stash.setdefault(FIGURES, [])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the figures, as JSON."""
    if FIGURES in config.stash:
        print(json.dumps({"exports": config.stash[FIGURES]}))
