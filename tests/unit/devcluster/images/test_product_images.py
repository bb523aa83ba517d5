"""Each shipped image carries the rooms that its code imports, and the packages of its extras as locked."""

import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from devcluster.images.product import PRODUCTS
from devcluster.images.python_layers import belongs, locked_dependencies
from devcluster.images.sources import ROOT
from support.imports import list_imported_modules, list_imported_packages, list_sources

ASSEMBLIES = ("r1plus_model_repo/backends/assembly.py",)
"""Import an add-on, which an image may lack."""
BACKENDS = "r1plus_model_repo/backends/"
"""The monitor's image only carries them. In Triton's, each engine's own backend imports what NVIDIA's image has."""
NOT_IN_THE_OPERATOR = {"tritonclient", "grpcio", "numpy", "packaging"}
"""A client of Triton, which the operator never calls, with what the client imports: 33 MB of wheels."""


def _list_modules(name: str) -> dict[str, Path]:
    """Return the modules of a product, by the path that they have in the wheel."""
    product = PRODUCTS[name]
    return {file: path for file, path in list_sources().items() if belongs(file, product.rooms, product.not_rooms)}


def _list_packages(name: str) -> set[str]:
    """Return the packages that the image of a product gets."""
    product = PRODUCTS[name]
    lines = locked_dependencies(product.extras, product.only).requirements.splitlines()
    return {canonicalize_name(re.split(r"[=\[ ;]", line)[0]) for line in lines}


def _present(module: str, files: dict[str, Path]) -> bool:
    path = module.replace(".", "/")
    return f"{path}.py" in files or f"{path}/__init__.py" in files


@pytest.mark.parametrize("name", PRODUCTS)
def test_an_image_has_every_module_of_ours_that_its_code_imports(name: str) -> None:
    files = _list_modules(name)
    assert any(module.startswith("r1plus_") for path in files.values() for module in list_imported_modules(path))
    missing = {
        f"{file} imports {module}"
        for file, path in files.items()
        if file not in ASSEMBLIES
        for module in list_imported_modules(path)
        if module.startswith("r1plus_") and not _present(module, files)
    }
    assert not missing


@pytest.mark.parametrize("name", PRODUCTS)
def test_an_image_has_every_package_that_its_code_imports(name: str) -> None:
    files = {file: path for file, path in _list_modules(name).items() if not file.startswith(BACKENDS)}
    packages = _list_packages(name)
    missing = {
        f"{file} imports {package}"
        for file, path in files.items()
        for package in list_imported_packages(path)
        if package not in packages
    }
    assert files and packages and not missing


def test_the_operators_image_has_no_client_of_triton() -> None:
    assert _list_packages("operator") & NOT_IN_THE_OPERATOR == set()
    assert _list_packages("gateway") >= NOT_IN_THE_OPERATOR  # The names are those of the lock.


@pytest.mark.parametrize("package", ["httpx", "orjson"])
def test_the_monitors_image_has_no_package_that_it_never_imports(package: str) -> None:
    assert package not in _list_packages("monitor")


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
