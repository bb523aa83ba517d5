"""R1PlusEngines from YAML: the shipped catalog, or a folder from the command line.

Called by the command line, by the operator (from its ConfigMap) and by tests. All problems are reported together.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from r1plus_contract import names
from r1plus_model_repo.catalog.embedding import EmbeddingEngine, EmbeddingEngineSpec, read_spec, select_model
from r1plus_model_repo.catalog.types import Engine, spec_problems


class CatalogError(ValueError):
    """Engines that cannot be read; one line per problem: file, object, field, value, what is wrong."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


AnyEngine = Engine | EmbeddingEngine


def load_catalog(source: Path | str) -> tuple[Engine, ...]:
    """Return the engines that answer prompts, of a folder (each *.yaml), of a file, or of YAML text, sorted by name.

    Raises:
        CatalogError: with the problems of all engines, of either kind.
    """
    return tuple(engine for engine in load_all_engines(source) if isinstance(engine, Engine))


def load_all_engines(source: Path | str) -> tuple[AnyEngine, ...]:
    """Return the engines of both kinds, as `load_catalog`."""
    engines: list[AnyEngine] = []
    problems: list[str] = []
    for origin, text in _read_texts(source):
        for document in _parse_documents(origin, text, problems):
            result = read_engine(origin, document)
            if isinstance(result, AnyEngine):
                engines.append(result)
            else:
                problems.extend(result)
    counts = Counter(engine.name for engine in engines)
    problems += [f"metadata.name: {name}: {n} engines have this name" for name, n in sorted(counts.items()) if n > 1]
    problems += _find_dangling_references([engine for engine in engines if isinstance(engine, Engine)])
    if problems:
        raise CatalogError(tuple(problems))
    return tuple(sorted(engines, key=lambda engine: engine.name))


def _read_texts(source: Path | str) -> Iterator[tuple[str, str]]:
    if isinstance(source, str):
        yield "text", source
    elif source.is_dir():
        for path in sorted(source.glob("*.yaml")):
            yield path.name, path.read_text(encoding="utf-8")
    else:
        yield source.name, source.read_text(encoding="utf-8")


def _parse_documents(origin: str, text: str, problems: list[str]) -> list[Any]:
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        problems.append(f"{origin}: not YAML: {error}")
        return []


def read_engine(origin: str, document: Any) -> AnyEngine | tuple[str, ...]:
    """Return the R1PlusEngine in a parsed YAML document, or all its problems."""
    kind = document.get("kind") if isinstance(document, Mapping) else None
    api = document.get("apiVersion") if isinstance(document, Mapping) else None
    if kind != names.KIND_ENGINE or api != names.API_VERSION:
        expected_kind = f"{names.API_VERSION} {names.KIND_ENGINE}"
        return (f"{origin}: apiVersion, kind: expected {expected_kind}, got {api} {kind}",)
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name:
        return (f"{origin}: metadata.name: missing",)
    try:
        spec = read_spec(document.get("spec"))
    except ValidationError as error:
        model = select_model(document.get("spec"))
        return tuple(f"{origin}: {name}: {problem}" for problem in spec_problems(error, model))
    return EmbeddingEngine(name, spec) if isinstance(spec, EmbeddingEngineSpec) else Engine(name, spec)


def _find_dangling_references(engines: list[Engine]) -> list[str]:
    """Return the inherited references that do not lead to a measured engine of this catalog."""
    measured_names = {engine.name for engine in engines if engine.spec.reference.measured is not None}
    return [
        f"{engine.name}: spec.reference.inheritedFrom: {parent}: no measured engine of this name in the catalog"
        for engine in engines
        if (parent := engine.spec.reference.inherited_from) is not None and parent not in measured_names
    ]
