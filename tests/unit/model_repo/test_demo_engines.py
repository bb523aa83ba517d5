"""Names of the engines that packages are made into, where the libraries that make them are not imported."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.importing.demo_engines import MAKERS, SAME_FILES, find_folder_name
from r1plus_model_repo.importing.shipped import list_shipped

QWEN = {engine.name: engine for engine in load_catalog(Path(catalog.__file__).parent / "qwen")}
DEFAULT = {engine.name: engine for engine in load_catalog(Path(catalog.__file__).parent)}


@pytest.mark.parametrize("module", sorted(set(MAKERS.values())))
def test_the_names_are_those_that_can_be_made(module: str) -> None:
    assert sorted(name for name, maker in MAKERS.items() if maker == module) == sorted(import_module(module).RECIPES)


@pytest.mark.unit_slow
def test_serve_does_not_keep_the_libraries_of_engines_in_its_memory() -> None:
    script = "import sys, r1plus_edge.update.supervisor; print([n for n in ('numpy', 'gguf', 'openvino', 'grpc') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_the_qwen_family_has_three_sizes_and_each_can_be_made() -> None:
    assert {engine.spec.tier.value for engine in QWEN.values()} == {"full", "lite", "edge"}
    assert len({engine.spec.architecture.parameters for engine in QWEN.values()}) == 3
    assert {find_folder_name(name) for name in QWEN} <= set(MAKERS)


def test_the_default_catalog_has_no_engine_of_another_family_of_files() -> None:
    assert not QWEN.keys() & DEFAULT.keys()


def test_an_engine_with_the_files_of_another_has_its_digest_and_shape() -> None:
    for name, other in SAME_FILES.items():
        engine, same = QWEN[name].spec, DEFAULT[other].spec
        assert (engine.files, engine.architecture) == (same.files, same.architecture)


def test_every_engine_with_a_maker_is_in_a_shipped_catalog() -> None:
    assert {engine.name for engine in list_shipped()} == MAKERS.keys() | SAME_FILES.keys()
