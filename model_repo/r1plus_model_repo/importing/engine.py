"""The making of an engine from a model: served files, provenance, a manifest, and a Containerfile for an image.

    OUT/NAME/engine/          the served files; engine.json has their provenance
    OUT/NAME/Containerfile    podman build -t IMAGE OUT/NAME
    OUT/NAME/engine.yaml      the R1PlusEngine; kubectl apply -f it

Called by `r1plus engine import`. The folder appears when it is complete: it is made under another name and renamed.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1plus_contract.engine.delivery import build_listing, digest_folder, digest_listing, hash_file, parse_listing
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.model import TENSORRT_LLM, Claims, SourceModel
from r1plus_model_repo.importing.openvino.ir import try_template
from r1plus_model_repo.importing.openvino.tokenizer_limit import remove_limit
from r1plus_model_repo.importing.options import check_backend
from r1plus_model_repo.importing.package import folders
from r1plus_model_repo.importing.package.manifest import ImportOptions, build_spec, check_name, render_manifest
from r1plus_model_repo.importing.package.placement import place_files
from r1plus_model_repo.importing.readers import read_source
from r1plus_model_repo.kv_shape import read_kv_shape

ENGINE, CONTAINERFILE, MANIFEST = "engine", "Containerfile", "engine.yaml"
CONTAINERFILE_TEMPLATE = Path(__file__).parent / "Containerfile.engine"
_PLACEHOLDER_SHA256 = "0" * 64


@dataclass(frozen=True, slots=True)
class ImportResult:
    """A finished engine: its folder, the digest of its files, and notes for the user."""

    folder: Path
    sha256: str
    image: str
    notes: tuple[str, ...]


def import_engine(
    source: Path, out: Path, options: ImportOptions, claims: Claims, progress: Callable[[str], None]
) -> ImportResult:
    """Make OUT/NAME of the model at `source`.

    Raises:
        ImportingError: the model cannot be read or converted.
        ImportOptionsError: the options are invalid; it has every problem.
    """
    check_name(options.name)
    check_backend(options)
    target = out / options.name
    if target.exists():
        raise ImportingError(f"{target}: already exists; remove it, or give another --name or --out")
    progress(f"reading {source}")
    model = read_source(source, claims, options.runtime)
    build_spec(options, model, _PLACEHOLDER_SHA256, "")  # Reports invalid options before hours of work.
    progress(_describe(model))
    notes = list(model.notes)
    with folders.lock_folder(out), folders.stage_folder(target) as part:
        engine = part / ENGINE
        if model.gpu is not None:
            origin = _copy_files(model, options, claims, engine, progress)
        else:
            with folders.create_scratch(target) as workspace:
                origin = _make_openvino(model, options, engine, workspace, notes, progress)
        progress("computing the engine's sha256")
        digest = digest_folder(engine)
        spec = build_spec(options, model, digest, f"{origin['file']}, sha256 {origin['sha256']}")
        if spec.attention is not None:
            notes.append(f"{spec.attention.describe()}: a revision with it has a gate of its own")
        (part / MANIFEST).write_text(render_manifest(options.name, spec, origin), encoding="utf-8")
        shutil.copyfile(CONTAINERFILE_TEMPLATE, part / CONTAINERFILE)
    return ImportResult(target, digest, spec.files.source, tuple(notes))


def _describe(model: SourceModel) -> str:
    shape = model.shape
    return (
        f"{model.precision}, {model.parameters:,} parameters, {shape.layers} layers, {shape.kv_heads} KV heads of"
        f" {shape.head_size}, context {model.context_length}, {model.weights_bytes / 2**20:.0f} MiB"
    )


def _make_openvino(
    model: SourceModel,
    options: ImportOptions,
    engine: Path,
    workspace: Path,
    notes: list[str],
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Copy an OpenVINO folder, or convert a GGUF file. Return where the files come from."""
    origin = _hash_origin(model)
    facts = _build_facts(
        options, model, origin, "openvino-ir", {} if model.files else folders.list_converter_versions()
    )
    if model.files:
        progress("copying the model")
        _copy_openvino(model, engine, notes)
        folders.write_facts(engine, facts)
    else:
        progress("converting to OpenVINO IR")
        folders.convert_gguf(model.source, workspace / "conversion", engine, facts, sha256=origin["sha256"])
        progress("trying the chat template")
        try_template(engine, model.source.name)
    _check_shape(model, engine)
    return origin


def _copy_files(
    model: SourceModel, options: ImportOptions, claims: Claims, engine: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Copy a checkpoint or plan and read the copy again. Return where the files come from."""
    progress("copying the files")
    place_files(model.source, model.files, engine)
    model_copy = read_source(engine, claims, options.runtime)
    if replace(model_copy, source=model.source, notes=model.notes) != model:
        raise ImportingError(f"{model.source}: changed during the import; import it again when it is complete")
    progress("computing the files' sha256")
    files = build_listing(engine)
    origin = {"file": _source_name(model), "sha256": digest_listing(files), "files": parse_listing(files)}
    (engine / folders.FACTS_FILE).write_text(
        folders.dump_facts(_build_facts(options, model, origin, _format_name(model), {})), encoding="utf-8"
    )
    (engine / folders.FACTS_FILE).chmod(0o644)
    return origin


def _format_name(model: SourceModel) -> str:
    if model.gpu is None or model.gpu.backend != TENSORRT_LLM:
        return "huggingface"
    return "trtllm-plan" if model.gpu.built else "trtllm-checkpoint"


def _source_name(model: SourceModel) -> str:
    """Return the printable name of the source: a file may have any name, and the manifest is YAML."""
    return "".join(c if c.isprintable() else "?" for c in model.source.resolve().name)


def _hash_origin(model: SourceModel) -> dict[str, Any]:
    """Return the name and sha256 of the source; no path, since the engine's digest covers it."""
    if model.files:
        sha256_of_files = {part: hash_file(model.source / part) for part in model.files}
        return {"file": _source_name(model), "sha256": sha256_of_files["openvino_model.bin"], "files": sha256_of_files}
    return {"file": _source_name(model), "sha256": hash_file(model.source), "bytes": model.source.stat().st_size}


def _build_facts(
    options: ImportOptions, model: SourceModel, origin: Mapping[str, Any], form: str, converter: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "engine": options.name,
        "recipe": folders.RECIPE,
        "format": form,
        "precision": model.precision,
        "architecture": {
            "layers": model.shape.layers,
            "kvHeads": model.shape.kv_heads,
            "headSize": model.shape.head_size,
            "contextLength": model.context_length,
            "parameters": model.parameters,
        },
        "source": dict(origin),
        "converter": dict(converter),
    }


def _copy_openvino(model: SourceModel, engine: Path, notes: list[str]) -> None:
    engine.mkdir(parents=True)
    for name in model.files:
        shutil.copyfile(model.source / name, engine / name)
    try:
        remove_limit(engine)
    except ImportingError as error:
        notes.append(f"{error}: if the tokenizer truncates long prompts, it still does")


def _check_shape(model: SourceModel, engine: Path) -> None:
    """Check that the engine has the shape that was read, so that the sizes in the manifest are correct."""
    try:
        shape = read_kv_shape(engine)
    except ValueError as error:
        raise ImportingError(f"{model.source}: {error}") from error
    if shape != model.shape:
        difference = f"the file has {model.shape}, the converted model {shape}"
        raise ImportingError(f"{model.source}: {difference}; get it again")
