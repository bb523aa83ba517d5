"""From a model to an engine: the files that pods get, their provenance, a manifest and what an image is built from.

    OUT/NAME/engine/          what is served; engine.json says what it was made from and by
    OUT/NAME/Containerfile    podman build -t IMAGE OUT/NAME
    OUT/NAME/engine.yaml      the R1PlusEngine; kubectl apply -f it

`r1plus engine import` calls it. The folder is there when it is whole: it is made beside, and renamed.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1plus_contract.delivery import build_listing, digest_folder, digest_listing, hash_file, parse_listing
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.model import TENSORRT_LLM, Claims, Model
from r1plus_model_repo.importing.openvino.ir import try_template
from r1plus_model_repo.importing.openvino.tokenizer_limit import unlimit
from r1plus_model_repo.importing.options import check_backend
from r1plus_model_repo.importing.package import folders
from r1plus_model_repo.importing.package.manifest import Wish, check_name, manifest, spec_of
from r1plus_model_repo.importing.package.placement import place
from r1plus_model_repo.importing.readers import read
from r1plus_model_repo.kv_shape import kv_shape

ENGINE, CONTAINERFILE, MANIFEST = "engine", "Containerfile", "engine.yaml"
_TEMPLATE = Path(__file__).parent / "Containerfile.engine"
_UNKNOWN = "0" * 64


@dataclass(frozen=True, slots=True)
class Imported:
    """A finished engine: its folder, the digest of what is served, and what should be known of it."""

    folder: Path
    sha256: str
    image: str
    notes: tuple[str, ...]


def import_engine(source: Path, out: Path, wish: Wish, claims: Claims, progress: Callable[[str], None]) -> Imported:
    """Make OUT/NAME of the model at `source`; ImportingError, or WishError with every problem."""
    check_name(wish.name)
    check_backend(wish)
    target = out / wish.name
    if target.exists():
        raise ImportingError(f"{target}: is there already; remove it, or give another --name or --out")
    progress(f"reading {source}")
    model = read(source, claims, wish.backend)
    spec_of(wish, model, _UNKNOWN, "")  # What is wrong with the wish is told before hours of work.
    progress(_told(model))
    notes = list(model.notes)
    with folders.alone(out), folders.staged(target) as part:
        engine = part / ENGINE
        if model.gpu is not None:
            origin = _take(model, wish, claims, engine, progress)
        else:
            with folders.scratch(target) as workspace:
                origin = _openvino(model, wish, engine, workspace, notes, progress)
        progress("computing the engine's sha256")
        digest = digest_folder(engine)
        spec = spec_of(wish, model, digest, f"{origin['file']}, sha256 {origin['sha256']}")
        (part / MANIFEST).write_text(manifest(wish.name, spec, origin), encoding="utf-8")
        shutil.copyfile(_TEMPLATE, part / CONTAINERFILE)
    return Imported(target, digest, spec.files.source, tuple(notes))


def _told(model: Model) -> str:
    shape = model.shape
    return (
        f"{model.precision}, {model.parameters:,} parameters, {shape.layers} layers, {shape.kv_heads} KV heads of"
        f" {shape.head_size}, context {model.context_length}, {model.weights_bytes / 2**20:.0f} MiB"
    )


def _openvino(
    model: Model, wish: Wish, engine: Path, workspace: Path, notes: list[str], progress: Callable[[str], None]
) -> dict[str, Any]:
    """A folder as it is, or a GGUF file converted; where it came from."""
    origin = _origin(model)
    facts = _facts(wish, model, origin, "openvino-ir", {} if model.files else folders.converter())
    if model.files:
        progress("copying the model")
        _copy(model, engine, notes)
        folders.seal(engine, facts)
    else:
        progress("converting to OpenVINO IR")
        folders.from_gguf(model.source, workspace / "conversion", engine, facts, sha256=origin["sha256"])
        progress("trying the chat template")
        try_template(engine, model.source.name)
    _agrees(model, engine)
    return origin


def _take(model: Model, wish: Wish, claims: Claims, engine: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """A checkpoint or a plan for GPUs as it is; where it came from. What was placed is read again."""
    progress("taking the files")
    place(model.source, model.files, engine)
    again = read(engine, claims, wish.backend)
    if replace(again, source=model.source, notes=model.notes) != model:
        raise ImportingError(f"{model.source}: changed while it was imported; import it again when it is whole")
    progress("computing the files' sha256")
    files = build_listing(engine)
    origin = {"file": _name(model), "sha256": digest_listing(files), "files": parse_listing(files)}
    (engine / folders.FACTS).write_text(folders.dump(_facts(wish, model, origin, _format(model), {})), encoding="utf-8")
    (engine / folders.FACTS).chmod(0o644)
    return origin


def _format(model: Model) -> str:
    if model.gpu is None or model.gpu.backend != TENSORRT_LLM:
        return "huggingface"
    return "trtllm-plan" if model.gpu.built else "trtllm-checkpoint"


def _name(model: Model) -> str:
    """A file may be called anything, and the manifest is YAML."""
    return "".join(c if c.isprintable() else "?" for c in model.source.resolve().name)


def _origin(model: Model) -> dict[str, Any]:
    """Name and sha256 of what was imported; no path, since the engine's digest covers it."""
    if model.files:
        of_each = {part: hash_file(model.source / part) for part in model.files}
        return {"file": _name(model), "sha256": of_each["openvino_model.bin"], "files": of_each}
    return {"file": _name(model), "sha256": hash_file(model.source), "bytes": model.source.stat().st_size}


def _facts(
    wish: Wish, model: Model, origin: Mapping[str, Any], form: str, converter: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "engine": wish.name,
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


def _copy(model: Model, engine: Path, notes: list[str]) -> None:
    engine.mkdir(parents=True)
    for name in model.files:
        shutil.copyfile(model.source / name, engine / name)
    try:
        unlimit(engine)
    except ImportingError as error:
        notes.append(f"{error}: if the tokenizer cuts long prompts, it will go on doing so")


def _agrees(model: Model, engine: Path) -> None:
    """What is served has the shape that was read, so that the manifest's sizes are the engine's."""
    try:
        found = kv_shape(engine)
    except ValueError as error:
        raise ImportingError(f"{model.source}: {error}") from error
    if found != model.shape:
        told = f"the file says {model.shape}, the converted model is {found}"
        raise ImportingError(f"{model.source}: {told}; get it again")
