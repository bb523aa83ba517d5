"""The making of an engine of kind embedding: served files, provenance, a manifest, and a Containerfile for an image.

The folder is laid out as for other engines (`importing.engine`). Called by `r1plus engine import --kind embedding` and
by `minilm`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.engine.delivery import digest_folder, hash_file
from r1plus_model_repo.catalog.embedding import EmbeddingEngineSpec
from r1plus_model_repo.catalog.quantity import mebibytes
from r1plus_model_repo.catalog.types import Backend, EngineKind, spec_problems
from r1plus_model_repo.importing.embedding.checkpoint import (
    FILES,
    EmbeddingSource,
    describe_shape,
    read_embedding_model,
)
from r1plus_model_repo.importing.engine import CONTAINERFILE, CONTAINERFILE_TEMPLATE, ENGINE, MANIFEST, ImportResult
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.huggingface.tokenizer_files import TOKENIZER
from r1plus_model_repo.importing.openvino.ir import NO_TELEMETRY, renumber_layers
from r1plus_model_repo.importing.options import ImportOptionsError
from r1plus_model_repo.importing.package import folders
from r1plus_model_repo.importing.package.manifest import check_name

GRAPH: Final = "r1plus_model_repo.importing.embedding.graph"
MODEL_FILES: Final = ("openvino_model.xml", "openvino_model.bin")
PRECISION: Final = "FP16"
"""Of the stored weights; computed is in 32 bits."""
RUNTIME_MEMORY: Final = "256Mi"
"""Python, OpenVINO, activations of 2048 tokens: measured with all-MiniLM-L6-v2, rounded up."""


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """What the options say of the engine; None: a default."""

    name: str
    family: str
    version: str = "1.0.0"
    image: str | None = None
    cpu: str = "1"
    weights_memory: str | None = None
    runtime_memory: str | None = None


def import_embedding_engine(
    source: Path, out: Path, options: EmbeddingOptions, progress: Callable[[str], None]
) -> ImportResult:
    """Make OUT/NAME of the model at `source`.

    Raises:
        ImportingError: the model cannot be read or converted.
        ImportOptionsError: the options are invalid; it has every problem.
    """
    check_name(options.name)
    target = out / options.name
    if target.exists():
        raise ImportingError(f"{target}: already exists; remove it, or give another --name or --out")
    progress(f"reading {source}")
    model = read_embedding_model(source)
    build_spec(options, model, "0" * 64)
    shape = model.shape
    progress(f"{model.parameters:,} parameters, {shape.dimensions} dimensions, {shape.most_tokens} tokens of a text")
    with folders.lock_folder(out), folders.stage_folder(target) as part:
        origin = make_engine_folder(model, options.name, part / ENGINE, progress)
        spec = build_spec(options, model, digest_folder(part / ENGINE))
        (part / MANIFEST).write_text(render_manifest(options.name, spec, origin), encoding="utf-8")
        shutil.copyfile(CONTAINERFILE_TEMPLATE, part / CONTAINERFILE)
    return ImportResult(target, spec.artifact.sha256, spec.artifact.source, ())


def make_engine_folder(
    model: EmbeddingSource, name: str, engine: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Write the served files and their provenance. Return where they come from."""
    engine.mkdir(parents=True, exist_ok=True)
    sha256_of_files = {file: hash_file(model.folder / file) for file in FILES}
    progress("converting to OpenVINO IR")
    _convert(model, engine)
    shutil.copyfile(model.folder / TOKENIZER, engine / TOKENIZER)
    if sha256_of_files != {file: hash_file(model.folder / file) for file in FILES}:
        raise ImportingError(f"{model.folder}: changed during the import; import it again when it is complete")
    origin = {
        "file": _printable(model.folder.resolve().name),
        "sha256": sha256_of_files["model.safetensors"],
        "files": sha256_of_files,
    }
    folders.write_facts(engine, build_facts(model, name, origin))
    return origin


def build_facts(model: EmbeddingSource, name: str, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance; the embedder reads `embedding`."""
    return {
        "engine": name,
        "kind": EngineKind.EMBEDDING.value,
        "recipe": folders.RECIPE,
        "format": "openvino-ir",
        "precision": PRECISION,
        "embedding": describe_shape(model.shape),
        "source": dict(origin),
        "converter": {"openvino": version("openvino")},
    }


def _convert(model: EmbeddingSource, engine: Path) -> None:
    """Convert in a process of its own: its memory is freed, and its layers are numbered from 0."""
    command = [sys.executable, "-m", GRAPH, str(model.folder), str(engine)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | NO_TELEMETRY)
    if result.returncode != 0:
        reason = result.stderr.strip()[-800:] or f"exit status {result.returncode}; -9 means out of memory"
        raise ImportingError(f"{model.folder.name}: conversion to OpenVINO IR failed: {reason}")
    xml = engine / MODEL_FILES[0]
    xml.write_text(renumber_layers(xml.read_text(encoding="utf-8")), encoding="utf-8")


def build_spec(options: EmbeddingOptions, model: EmbeddingSource, sha256: str) -> EmbeddingEngineSpec:
    """Build the engine's spec.

    Raises:
        ImportOptionsError: with every problem, as `spec.field: what is wrong (got value)`.
    """
    # In 32 bits, beside the file that is mapped in 16.
    weights = mebibytes(int(model.parameters * (4 + 2) * 1.05))
    fields = {
        "kind": EngineKind.EMBEDDING,
        "family": options.family,
        "version": options.version,
        "precision": PRECISION,
        "backend": Backend.OPENVINO,
        "artifact": {
            "image": options.image or f"r1plus.local/engine-{options.name}:{options.version}",
            "sha256": sha256,
        },
        "requirements": {
            "cpu": options.cpu,
            "weightsMemory": options.weights_memory or weights,
            "runtimeMemory": options.runtime_memory or RUNTIME_MEMORY,
        },
        "embedding": {
            "dimensions": model.shape.dimensions,
            "mostTokens": model.shape.most_tokens,
            "parameters": model.parameters,
        },
    }
    try:
        return EmbeddingEngineSpec.model_validate(fields)
    except ValidationError as error:
        raise ImportOptionsError(spec_problems(error, EmbeddingEngineSpec)) from error


def render_manifest(name: str, spec: EmbeddingEngineSpec, origin: Mapping[str, Any]) -> str:
    """Return the R1PlusEngine as YAML, with a comment about its figures at the top."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_ENGINE,
        "metadata": {"name": name},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    head = _HEAD.format(file=origin["file"], sha256=origin["sha256"])
    return head + yaml.safe_dump(body, sort_keys=False, width=110)


def _printable(name: str) -> str:
    """Return a name for YAML comments: a folder may have any."""
    return "".join(c if c.isprintable() else "?" for c in name)


_HEAD = """\
# Made by `r1plus engine import --kind embedding` from {file}, sha256 of its weights {sha256}.
#
# Read from the model: embedding. Computed: artifact.sha256, over the files under engine/; an init container of the
# gateway's pod compares it. Estimated: requirements.weightsMemory, runtimeMemory. Measure, and correct.
---
"""
