"""Packages of others that the project's source files import, at their head or late."""

import ast
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from support.paths import SOURCES

_NEVER_INSTALLED = {"onnx_ir": "onnx-ir", "onnxruntime_genai": "onnxruntime-genai", "tensorflow": "tensorflow-cpu"}
"""Modules whose package has another name and is in no lock of this environment."""


@cache
def list_sources() -> dict[str, Path]:
    """Return every module of the project, by the path that it has in the wheel."""
    return {path.relative_to(f).as_posix(): path for f in SOURCES for path in f.glob("r1plus_*/**/*.py")}


@cache
def list_imported_modules(source: Path) -> frozenset[str]:
    """Return the modules that import statements of a file name; relative ones are left out."""
    nodes = list(ast.walk(ast.parse(source.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return frozenset(names)


def list_imported_packages(source: Path) -> set[str]:
    """Return the packages of others that a file imports, as PyPI names them."""
    tops = {name.split(".")[0] for name in list_imported_modules(source)}
    foreign = {top for top in tops if top not in sys.stdlib_module_names and not top.startswith("r1plus_")}
    installed = _list_installed()
    return {canonicalize_name(one) for top in foreign for one in installed.get(top, (_NEVER_INSTALLED.get(top, top),))}


@cache
def _list_installed() -> dict[str, tuple[str, ...]]:
    return {module: tuple(packages) for module, packages in packages_distributions().items()}
