"""The files that a target depends on: what it imports or starts, and data files in the same packages."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from evidence.repository import ROOT, is_below, list_files

SOURCES: Final = ("policies", "model_repo", "monitoring", "operator", "gateway", "edge", "cli", "addons/[^/]+", "tests")
"""Folders that hold packages, as patterns."""
LOCK: Final = "uv.lock"
"""Every target runs with its packages."""
_MODULE: Final = re.compile(r"r1plus_\w+|\w+(\.\w+)+")
_PYTHON: Final = re.compile(rf"(?:{'|'.join(SOURCES)})/(?P<module>.+?)(?:/__init__|/__main__)?\.py")


def list_dependencies(entry: Iterable[str], also: Iterable[str], root: Path = ROOT) -> frozenset[str]:
    """Return the paths that a target depends on: `entry`, what it imports, transitively, and all below `also`.

    A string that is the name of a module counts as an import: it is what `python -m` starts. So do
    fixtures around tests, the lock, and what is not Python in a package of the product: templates, grammars, tables.
    """
    files, modules = list_files(root), _map_modules(root)
    pending = [path for path in files if is_below(path, list(entry))]
    seen = set[str]()
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        pending += _list_conftests(path, files)
        if path.endswith(".py"):
            pending += [module for name in _list_names(root / path) & modules.keys() for module in modules[name]]
    folders = {path.rpartition("/")[0] for path in files if path.endswith(".py")}
    packages = {path.rpartition("/")[0] for path in seen if path.endswith(".py") and not path.startswith("tests/")}
    data = (path for path in files if not path.endswith((".py", ".md")) and _find_package(path, folders) in packages)
    return frozenset([*seen, *data, *(path for path in files if is_below(path, [*also, LOCK]))])


def _list_conftests(path: str, files: tuple[str, ...]) -> list[str]:
    """Return the fixtures that pytest loads for a file of tests by itself: `conftest.py` of the folders around it."""
    parts = path.split("/")[:-1] if path.startswith("tests/") else []
    around = ("/".join([*parts[:count], "conftest.py"]) for count in range(1, len(parts) + 1))
    return [conftest for conftest in around if conftest in files]


def _find_package(path: str, folders: set[str]) -> str:
    """Return the nearest folder around `path` that holds Python; data in a folder of their own belong to it."""
    folder = path.rpartition("/")[0]
    while folder and folder not in folders:
        folder = folder.rpartition("/")[0]
    return folder


@cache
def _map_modules(root: Path) -> dict[str, list[str]]:
    """Return the paths of each module: two where a package has an `__init__` and, for `python -m`, a `__main__`."""
    modules = dict[str, list[str]]()
    for path in list_files(root):
        if match := _PYTHON.fullmatch(path):
            modules.setdefault(match["module"].replace("/", "."), []).append(path)
    return modules


@cache
def _list_names(path: Path) -> frozenset[str]:
    """Return all names in `path` that may be those of modules, with the packages around what is imported."""
    imported, strings = set[str](), set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings |= {node.value} if _MODULE.fullmatch(node.value) else set()
    return frozenset(strings | {package for name in imported for package in _list_packages(name)})


def _list_packages(name: str) -> Iterator[str]:
    """Yield a module's name and those of the packages around it, whose `__init__` it runs."""
    while name:
        yield name
        name = name.rpartition(".")[0]
