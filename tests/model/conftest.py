"""torch for the tests of this folder, from the cache; `make test-long NAME=model` runs them."""

import shutil
from pathlib import Path

import pytest

from support.model import environment

environment.add_to_path()

import torch  # noqa: E402 - only now can it be imported

from support.model.tiny_models import write_data, write_tiny  # noqa: E402 - this, too
from support.model.training_volume import OPTIONS, TrainingVolume  # noqa: E402 - this, too

# Models here are too small for two: threads would wait for each other, and longer where others compute.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher and data."""
    folder = tmp_path_factory.mktemp("inputs")
    write_tiny(folder / "teacher", folder)
    write_data(folder / "data.jsonl")
    return folder


@pytest.fixture
def place(inputs: Path, tmp_path: Path) -> TrainingVolume:
    """An empty volume, and an artifact with the tiny teacher and its data."""
    artifact = tmp_path / "artifact"
    shutil.copytree(inputs / "teacher", artifact / "teacher")
    shutil.copyfile(inputs / "data.jsonl", artifact / "data.jsonl")
    return TrainingVolume(tmp_path, OPTIONS)
