"""The fixed dependencies serve where docs/decisions/0012-fixed-dependencies.md has them, and none is declared in vain."""

import re

import pytest

from devcluster.images.product import PRODUCTS
from support.dependencies import BASE, ROOT, list_dependencies
from support.imports import list_imported_packages, list_sources
from support.tables import for_each

FIXED = {
    "kopf in the operator": ("kopf", "operator", "r1plus_operator/"),
    "kubernetes in the command": ("kubernetes", "cli", "r1plus_cli/"),
    "tritonclient in the monitor": ("tritonclient", "monitor", "r1plus_monitoring/"),
    "tritonclient in the gateway": ("tritonclient", "gateway", "r1plus_gateway/"),
    "tritonclient in the command": ("tritonclient", "cli", "r1plus_cli/"),
    "pydantic in the operator": ("pydantic", BASE, "r1plus_operator/"),
    "pydantic in the catalog of engines": ("pydantic", BASE, "r1plus_model_repo/catalog/"),
    "prometheus-client in the operator": ("prometheus-client", "operator", "r1plus_operator/"),
    "prometheus-client in the monitor": ("prometheus-client", "monitor", "r1plus_monitoring/"),
    "prometheus-client in the gateway": ("prometheus-client", "gateway", "r1plus_gateway/"),
    "prometheus-client in the registry": ("prometheus-client", "registry", "r1plus_registry/"),
    "alembic in the registry": ("alembic", "registry", "r1plus_registry/"),
    "alembic in the gateway": ("alembic", "gateway", "r1plus_gateway/store/"),
    "sqlalchemy in the registry": ("sqlalchemy", "registry", "r1plus_registry/"),
    "sqlalchemy in the gateway": ("sqlalchemy", "gateway", "r1plus_gateway/store/"),
    "httpx in the command": ("httpx", "cli", "r1plus_cli/"),
}
DECISION = ROOT / "docs" / "decisions" / "0012-fixed-dependencies.md"
ROOMS = {
    **{name: PRODUCTS[name].rooms for name in ("operator", "monitor", "registry")},
    "gateway": ("r1plus_gateway",),
    "assistant": ("r1plus_assistant",),
    "engine": ("r1plus_model_repo/backends", "r1plus_model_repo/importing"),
    "calculator": ("r1plus_calculator",),
    "code": ("r1plus_sandbox",),
    "documents": ("r1plus_documents",),
    "embedder": ("r1plus_embedder",),
    "distil": ("r1plus_model",),
    "torch": ("r1plus_model", "r1plus_model_repo/backends"),
    "hf": ("r1plus_export",),
    "onnx": ("r1plus_export",),
    "keras": ("r1plus_export", "r1plus_model/encoder.py"),
    "cli": ("r1plus_cli", "r1plus_operator", "r1plus_monitoring", "r1plus_model_repo"),
}
"""What is installed with an extra to run it."""
NOT_IMPORTED = {
    ("registry", "psycopg"): "SQLAlchemy loads it by the name in a URL",
    ("gateway", "psycopg"): "SQLAlchemy loads it by the name in a URL",
    ("gateway", "protobuf"): "the messages of tritonclient are of it",
    ("gateway", "packaging"): "tritonclient.grpc imports it without declaring it",
    ("code", "pydantic-monty-runtime"): "a program, which runs as a process",
    ("onnx", "onnx"): "the builder of onnxruntime-genai imports it without declaring it",
    ("onnx", "onnx-ir"): "the builder of onnxruntime-genai imports it without declaring it",
}


def list_imported(rooms: tuple[str, ...]) -> set[str]:
    """Return the packages that the files of these rooms import."""
    sources = [path for file, path in list_sources().items() if file.startswith(rooms)]
    assert sources
    return set().union(*map(list_imported_packages, sources))


@for_each("package, extra, room", FIXED)
def test_a_fixed_dependency_is_declared_and_imported(package: str, extra: str, room: str) -> None:
    assert package in {one.name for one in list_dependencies() if one.extra == extra}
    assert package in list_imported((room,))


def test_the_decision_lists_what_is_fixed() -> None:
    listed = re.findall(r"^\| `([a-z-]+)`", DECISION.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted({package for package, _, _ in FIXED.values()})


def test_every_extra_has_its_rooms() -> None:
    assert set(ROOMS) | {BASE} == {one.extra for one in list_dependencies()}


@pytest.mark.parametrize("extra", ROOMS)
def test_an_extra_declares_what_its_rooms_import(extra: str) -> None:
    imported = list_imported(ROOMS[extra])
    declared = [one for one in list_dependencies() if one.extra == extra]
    excused = {package for of, package in NOT_IMPORTED if of == extra}
    unused = {one.name for one in declared} - imported
    assert unused == excused, [one.place for one in declared if one.name in unused ^ excused]
