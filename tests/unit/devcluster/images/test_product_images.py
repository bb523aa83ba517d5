"""Each shipped image carries the rooms that its code imports, and the packages of one extra as locked."""

import ast
from functools import cache
from pathlib import Path

import pytest

from devcluster.images.product import PRODUCTS
from devcluster.images.python_layers import belongs
from devcluster.images.sources import ROOT

WITHOUT_TORCH = ("r1plus_model_repo/backends/torch_engine.py",)
"""Reports that torch is missing before it imports what comes with torch."""
ROOMS = ("policies", "model_repo", "monitoring", "operator", "gateway")


def _sources() -> dict[str, Path]:
    """Every module of the project, by the name that it has in the wheel."""
    folders = [ROOT / room for room in ROOMS]
    return {path.relative_to(f).as_posix(): path for f in folders for path in f.glob("r1plus_*/**/*.py")}


@cache
def _own_imports(source: Path) -> set[str]:
    """Modules of the project that a source file names in an import statement."""
    nodes = list(ast.walk(ast.parse(source.read_text())))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name for name in found if name.startswith("r1plus_")}


def _present(module: str, files: dict[str, Path]) -> bool:
    path = module.replace(".", "/")
    return f"{path}.py" in files or f"{path}/__init__.py" in files


@pytest.mark.parametrize("name", PRODUCTS)
def test_an_image_has_every_module_of_ours_that_its_code_imports(name: str) -> None:
    product = PRODUCTS[name]
    files = {file: path for file, path in _sources().items() if belongs(file, product.rooms, product.not_rooms)}
    missing = {
        f"{file} imports {module}"
        for file, path in files.items()
        if file not in WITHOUT_TORCH
        for module in _own_imports(path)
        if not _present(module, files)
    }
    assert not missing


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        pytest.param("r1plus_contract/names.py", True, id="a module of a room"),
        pytest.param("r1plus_contractors/names.py", False, id="a room whose name merely begins alike"),
        pytest.param("r1plus_model_repo/delivery.py", True, id="a single module that is named"),
        pytest.param("r1plus_model_repo/catalog/types.py", False, id="its neighbours"),
        pytest.param("r1plus_monitoring/curate/facts/french.txt", False, id="a part that is taken out of a room"),
        pytest.param("r1plus-0.1.0.dist-info/RECORD", False, id="the wheel's own listing"),
    ],
)
def test_rooms_select_files_of_the_wheel(file: str, expected: bool) -> None:
    rooms = ("r1plus_contract", "r1plus_monitoring", "r1plus_model_repo/delivery.py")
    assert belongs(file, rooms, ("r1plus_monitoring/curate",)) is expected


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_containerfile_takes_its_base_as_an_argument_and_drops_root(name: str) -> None:
    lines = (ROOT / PRODUCTS[name].containerfile).read_text().splitlines()
    assert next(line for line in lines if line.startswith("FROM")) == "FROM ${BASE}"
    assert "USER 1000:1000" in lines
