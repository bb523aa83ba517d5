"""Read R1PlusEngines from YAML: the shipped catalog, or a folder that the command line was given.

Called by the command line, by the operator (from its ConfigMap) and by tests. All that is wrong is reported at once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from r1plus_contract import names
from r1plus_model_repo.catalog.types import Engine, EngineSpec, spec_problems


class CatalogError(ValueError):
    """Engines that cannot be read; one line per problem: file, object, field, value, what is wrong."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_catalog(source: Path | str) -> tuple[Engine, ...]:
    """The engines of a folder (every *.yaml in it), of one file, or of YAML text; sorted by name."""
    engines: list[Engine] = []
    problems: list[str] = []
    for origin, text in _texts(source):
        for document in _documents(origin, text, problems):
            found = read_engine(origin, document)
            if isinstance(found, Engine):
                engines.append(found)
            else:
                problems.extend(found)
    counts = Counter(engine.name for engine in engines)
    problems += [f"metadata.name: {name}: {n} engines of this name" for name, n in sorted(counts.items()) if n > 1]
    problems += _dangling(engines)
    if problems:
        raise CatalogError(tuple(problems))
    return tuple(sorted(engines, key=lambda engine: engine.name))


def _texts(source: Path | str) -> Iterator[tuple[str, str]]:
    if isinstance(source, str):
        yield "text", source
    elif source.is_dir():
        for path in sorted(source.glob("*.yaml")):
            yield path.name, path.read_text(encoding="utf-8")
    else:
        yield source.name, source.read_text(encoding="utf-8")


def _documents(origin: str, text: str, problems: list[str]) -> list[Any]:
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        problems.append(f"{origin}: not YAML: {error}")
        return []


def read_engine(origin: str, document: Any) -> Engine | tuple[str, ...]:
    """One R1PlusEngine as YAML gave it, or all that is wrong with it."""
    kind = document.get("kind") if isinstance(document, Mapping) else None
    api = document.get("apiVersion") if isinstance(document, Mapping) else None
    if kind != names.KIND_ENGINE or api != names.API_VERSION:
        wanted = f"{names.API_VERSION} {names.KIND_ENGINE}"
        return (f"{origin}: apiVersion, kind: expected {wanted}, got {api} {kind}",)
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name:
        return (f"{origin}: metadata.name: missing",)
    try:
        return Engine(name, EngineSpec.model_validate(document.get("spec")))
    except ValidationError as error:
        return tuple(f"{origin}: {name}: {problem}" for problem in spec_problems(error, EngineSpec))


def _dangling(engines: list[Engine]) -> list[str]:
    """An inherited reference must lead to an engine of this catalog that was measured."""
    measured = {engine.name for engine in engines if engine.spec.reference.measured is not None}
    return [
        f"{engine.name}: spec.reference.inheritedFrom: {parent}: no measured engine of this name in the catalog"
        for engine in engines
        if (parent := engine.spec.reference.inherited_from) is not None and parent not in measured
    ]
