"""R1PlusDeployments, R1PlusEngines, R1PlusTenants and golden suites from YAML, read like `kubectl apply -f`.

Called by `plan` and `validate`.
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
    """One object as written, and its source."""

    source: str
    body: Json

    @property
    def name(self) -> str:
        """`metadata.name`, or an empty string."""
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        """`metadata.namespace`, or `default`; kubectl would use the namespace of its context."""
        return str(self.metadata.get("namespace") or "default")

    @property
    def title(self) -> str:
        """File, namespace and name, for messages."""
        return f"{self.source}: {self.namespace}/{self.name}"

    @property
    def metadata(self) -> Json:
        """`metadata`, or an empty dict if it is not a mapping."""
        metadata = self.body.get("metadata")
        return metadata if isinstance(metadata, dict) else {}

    @property
    def spec(self) -> Any:
        """`spec` as written, of any type."""
        return self.body.get("spec")


def read_documents(path: str, *required_kinds: str) -> dict[str, list[Document]]:
    """Return kind -> objects in a file, a folder's `*.yaml`, or standard input (`-`).

    Of ConfigMaps, only golden suites.

    Raises:
        UsageError: there is no object of `required_kinds`, or a file cannot be read.
    """
    documents: dict[str, list[Document]] = {kind: [] for kind in (*_OURS, CONFIG_MAP)}
    for source, body in _read_bodies(path):
        document = Document(source, body)
        if _is_ours(document) or _is_suite(document):
            documents[body["kind"]].append(document)
    if not any(documents[kind] for kind in required_kinds):
        raise UsageError(f"{path}: has no {', '.join(required_kinds)} of {GROUP}; try examples/credit-full.yaml")
    return documents


def _is_ours(document: Document) -> bool:
    group = str(document.body.get("apiVersion", "")).split("/")[0]
    return group == GROUP and document.body.get("kind") in _OURS


def _is_suite(document: Document) -> bool:
    labels = document.metadata.get("labels")
    return document.body.get("kind") == CONFIG_MAP and isinstance(labels, dict) and LABEL_SUITE in labels


def _read_bodies(path: str) -> Iterator[tuple[str, Json]]:
    for source, text in _read_texts(path):
        try:
            documents = list(yaml.safe_load_all(text))
        except yaml.YAMLError as error:
            raise UsageError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
        yield from ((source, body) for body in documents if isinstance(body, dict))


def _read_texts(path: str) -> Iterator[tuple[str, str]]:
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
