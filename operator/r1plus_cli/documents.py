"""Reads R1PlusDeployments, R1PlusEngines and R1PlusTenants from YAML, as `kubectl apply -f` would be given them.

Called by `plan`, which passes all but deployments over, and by `validate`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r1plus_cli.errors import UsageError
from r1plus_contract.names import GROUP, KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT

Json = dict[str, Any]
STDIN = "-"
_OURS = (KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT)


@dataclass(frozen=True, slots=True)
class Document:
    """One object as written, and where."""

    source: str
    body: Json

    @property
    def name(self) -> str:
        """`metadata.name` as far as it is there."""
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        """`metadata.namespace`; without one kubectl would take its context's."""
        return str(self.metadata.get("namespace") or "default")

    @property
    def title(self) -> str:
        """File, namespace and name, for people."""
        return f"{self.source}: {self.namespace}/{self.name}"

    @property
    def metadata(self) -> Json:
        """`metadata`, or nothing where it is not a mapping."""
        found = self.body.get("metadata")
        return found if isinstance(found, dict) else {}

    @property
    def spec(self) -> Any:
        """`spec` as written, of whatever type."""
        return self.body.get("spec")


def read_deployments(path: str) -> list[Document]:
    """All R1PlusDeployments of a file, a folder's `*.yaml`, or standard input (`-`); other kinds are passed over."""
    found = [document for document in _documents(path) if document.body["kind"] == KIND_DEPLOYMENT]
    if not found:
        raise UsageError(f"{path}: holds no {KIND_DEPLOYMENT} of {GROUP}; try examples/credit-full.yaml")
    return found


def read_all(path: str) -> dict[str, list[Document]]:
    """Kind -> its objects in a file, a folder's `*.yaml`, or standard input (`-`)."""
    found = list(_documents(path))
    if not found:
        raise UsageError(f"{path}: holds no {', '.join(_OURS)} of {GROUP}; try examples/credit-full.yaml")
    return {kind: [document for document in found if document.body["kind"] == kind] for kind in _OURS}


def _documents(path: str) -> Iterator[Document]:
    return (Document(source, body) for source, body in _bodies(path) if _is_ours(body))


def _is_ours(body: Json) -> bool:
    ours = str(body.get("apiVersion", "")).split("/")[0] == GROUP
    return ours and body.get("kind") in _OURS


def _bodies(path: str) -> Iterator[tuple[str, Json]]:
    for source, text in _texts(path):
        try:
            documents = list(yaml.safe_load_all(text))
        except yaml.YAMLError as error:
            raise UsageError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
        yield from ((source, body) for body in documents if isinstance(body, dict))


def _texts(path: str) -> Iterator[tuple[str, str]]:
    if path == STDIN:
        yield "standard input", sys.stdin.read()
        return
    root = Path(path)
    files = sorted(root.glob("*.yaml")) if root.is_dir() else [root]
    for file in files:
        try:
            yield str(file), file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: cannot be read: {error}") from error
