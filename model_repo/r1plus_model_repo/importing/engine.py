"""From a model to an engine: the files that pods get, their provenance, a manifest and what an image is built from.

    OUT/NAME/engine/          what is served; engine.json says what it was made from and by
    OUT/NAME/Containerfile    podman build -t IMAGE OUT/NAME
    OUT/NAME/engine.yaml      the R1PlusEngine; kubectl apply -f it

`r1plus engine import` calls it. The folder is there when it is whole: it is made beside, and renamed.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_contract.delivery import digest_of, file_sha256
from r1plus_model_repo.importing import folders
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.manifest import Wish, check_name, manifest, spec_of
from r1plus_model_repo.importing.model import Claims, Model, read
from r1plus_model_repo.importing.openvino_ir import try_template
from r1plus_model_repo.importing.tokenizer_limit import unlimit
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
    target = out / wish.name
    if target.exists():
        raise ImportingError(f"{target}: is there already; remove it, or give another --name or --out")
    progress(f"reading {source}")
    model = read(source, claims)
    spec_of(wish, model, _UNKNOWN, "")  # What is wrong with the wish is told before hours of work.
    progress(_told(model))
    origin = _origin(model)
    facts = _facts(wish, model, origin)
    notes = list(model.notes)
    with folders.alone(out), folders.staged(target) as part, folders.scratch(target) as workspace:
        engine = part / ENGINE
        if model.files:
            progress("copying the model")
            _copy(model, engine, notes)
            folders.seal(engine, facts)
        else:
            progress("converting to OpenVINO IR")
            folders.from_gguf(source, workspace / "conversion", engine, facts, sha256=origin["sha256"])
            progress("trying the chat template")
            try_template(engine, source.name)
        _agrees(model, engine)
        progress("computing the engine's sha256")
        digest = digest_of(engine)
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


def _origin(model: Model) -> dict[str, Any]:
    """Name and sha256 of what was imported; no path, since the engine's digest covers it."""
    # A file may be called anything, and the manifest is YAML.
    name = "".join(c if c.isprintable() else "?" for c in model.source.resolve().name)
    if model.files:
        listed = {part: file_sha256(model.source / part) for part in model.files}
        return {"file": name, "sha256": listed["openvino_model.bin"], "files": listed}
    return {"file": name, "sha256": file_sha256(model.source), "bytes": model.source.stat().st_size}


def _facts(wish: Wish, model: Model, origin: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "engine": wish.name,
        "recipe": folders.RECIPE,
        "format": "openvino-ir",
        "precision": model.precision,
        "architecture": {
            "layers": model.shape.layers,
            "kvHeads": model.shape.kv_heads,
            "headSize": model.shape.head_size,
            "contextLength": model.context_length,
            "parameters": model.parameters,
        },
        "source": dict(origin),
        "converter": folders.converter() if not model.files else {},
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
