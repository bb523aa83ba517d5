"""Reads R1PlusDeployments, R1PlusEngines, R1PlusTenants and golden suites from YAML, as `kubectl apply -f` reads them.

Called by `plan` and by `validate`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r1plus_cli.errors import UsageError
from r1plus_contract.names import GROUP, KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT, LABEL_SUITE

Json = dict[str, Any]
STDIN = "-"
CONFIG_MAP = "ConfigMap"
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


def read_documents(path: str, *needed: str) -> dict[str, list[Document]]:
    """Kind -> its objects in a file, a folder's `*.yaml`, or standard input (`-`); of ConfigMaps the golden suites.

    Raises UsageError where there is no object of the kinds that are `needed`.
    """
    found: dict[str, list[Document]] = {kind: [] for kind in (*_OURS, CONFIG_MAP)}
    for source, body in _bodies(path):
        document = Document(source, body)
        if _is_ours(document) or _is_suite(document):
            found[body["kind"]].append(document)
    if not any(found[kind] for kind in needed):
        raise UsageError(f"{path}: holds no {', '.join(needed)} of {GROUP}; try examples/credit-full.yaml")
    return found


def _is_ours(document: Document) -> bool:
    group = str(document.body.get("apiVersion", "")).split("/")[0]
    return group == GROUP and document.body.get("kind") in _OURS


def _is_suite(document: Document) -> bool:
    labels = document.metadata.get("labels")
    return document.body.get("kind") == CONFIG_MAP and isinstance(labels, dict) and LABEL_SUITE in labels


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
