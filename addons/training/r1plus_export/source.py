"""The engine that is exported: its catalog entry, its files, and the weights that it was made of.

OpenVINO's files cannot be turned back into a checkpoint. So an engine of a GGUF file is exported from that file. It is
fetched for a shipped engine, and given for any other: its sha256 must be the one that the engine recorded.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from r1plus_contract.engine.delivery import digest_folder, hash_file
from r1plus_export.errors import ExportError
from r1plus_model_repo.catalog.loader import CatalogError, load_all_engines
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from r1plus_model_repo.importing.demo_engines import MAKERS, SAME_FILES
from r1plus_model_repo.importing.engine import ENGINE, MANIFEST
from r1plus_model_repo.importing.huggingface.checkpoint import read_checkpoint
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from r1plus_model_repo.importing.model import Claims
from r1plus_model_repo.importing.package.folders import FACTS_FILE
from r1plus_model_repo.importing.package.placement import place_files
from r1plus_model_repo.importing.packaged_engines import EngineRecipe, prepare_weights
from r1plus_model_repo.importing.shipped import build_shipped_engine

Progress = Callable[[str], None]
_MADE_BY: Final = "give the folder that `r1plus engine import` or `make` wrote, or the name of a shipped engine"
_GGUF, _CHECKPOINT = "openvino-ir", "huggingface"


@dataclass(frozen=True, slots=True)
class ExportedEngine:
    """An engine whose files were checked."""

    name: str
    spec: EngineSpec
    files: Path
    """Folder of what pods load."""
    facts: Mapping[str, Any]
    """Its provenance: engine.json."""

    @property
    def is_checkpoint(self) -> bool:
        """Whether its files are a Hugging Face checkpoint."""
        return bool(self.facts.get("format") == _CHECKPOINT)


def open_engine(reference: str, cache: Path, progress: Progress) -> ExportedEngine:
    """Return the engine in a folder, or the shipped engine of this name, which is made in `cache` if needed.

    Raises:
        ExportError: it is neither, or none that can be exported.
        ImportingError: a shipped engine cannot be made.
    """
    folder = Path(reference)
    if folder.is_dir():
        engine, files = _read_folder(folder)
    elif reference in MAKERS or reference in SAME_FILES:
        spec, build = build_shipped_engine(reference, cache, progress)
        engine, files = Engine(reference, spec), build.folder
    else:
        raise ExportError(f"ENGINE: {reference!r:.120} is no folder and no shipped engine; {_MADE_BY}")
    facts = _read_facts(files)
    _check_format(facts)
    return ExportedEngine(engine.name, engine.spec, files, facts)


def _read_folder(folder: Path) -> tuple[Engine, Path]:
    if not (folder / MANIFEST).is_file() or not (folder / ENGINE).is_dir():
        raise ExportError(f"ENGINE: {folder} has no {MANIFEST} and {ENGINE}/; {_MADE_BY}")
    try:
        engines = load_all_engines(folder / MANIFEST)
    except (CatalogError, UnicodeDecodeError) as error:
        raise ExportError(f"ENGINE: {folder / MANIFEST}: {error}; import the engine again") from error
    if len(engines) != 1:
        raise ExportError(f"ENGINE: {folder / MANIFEST} has {len(engines)} engines; give the folder of one")
    (engine,) = engines
    if not isinstance(engine, Engine):
        raise ExportError(f"ENGINE: {engine.name}: spec.kind: embedding: it generates no text, so it is not exported")
    if engine.spec.artifact is not None and (digest := digest_folder(folder / ENGINE)) != engine.spec.files.sha256:
        raise ExportError(
            f"ENGINE: {folder / ENGINE}: sha256 is {digest}, {MANIFEST} has {engine.spec.files.sha256}: the files were"
            " changed; import the engine again"
        )
    return engine, folder / ENGINE


def _read_facts(files: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads((files / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"ENGINE: {files / FACTS_FILE}: {error}; {_MADE_BY}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("source"), dict):
        raise ExportError(f"ENGINE: {files / FACTS_FILE}: does not say what the files were made of; {_MADE_BY}")
    return facts


def _check_format(facts: Mapping[str, Any]) -> None:
    form = facts.get("format")
    if form == _GGUF and "files" in facts["source"]:
        raise ExportError(
            "ENGINE: was imported from OpenVINO IR, which is not turned back into a checkpoint; import the model's GGUF"
            " file or its checkpoint, and export that engine"
        )
    if form not in (_GGUF, _CHECKPOINT):
        what = "a built TensorRT engine" if form == "trtllm-plan" else f"of the format {form!r:.40}"
        raise ExportError(
            f"ENGINE: is {what}, which has no weights that other libraries read; import the model's Hugging Face"
            " checkpoint with --backend vllm, and export that engine"
        )


def place_checkpoint(
    engine: ExportedEngine, weights: Path | None, folder: Path, precision: str, cache: Path, progress: Progress
) -> None:
    """Write the engine's checkpoint to `folder`, which is new, by way of other folders beside it.

    Raises:
        ExportError: the weights are missing, or not those that the engine was made of.
        ImportingError: they cannot be fetched or converted.
    """
    if engine.is_checkpoint:
        if weights is not None:
            raise ExportError("--weights: the engine has its weights; leave it out")
        # Copies: `save_pretrained` to an export writes into its files, and the engine's have a digest.
        place_files(engine.files, read_checkpoint(engine.files, Claims()).files, folder, may_link=False)
        return
    workspace = folder.with_name(f"{folder.name}-weights")
    workspace.mkdir()
    source = _find_weights(engine, weights, workspace, cache, progress)
    convert_gguf_to_checkpoint(source, folder, precision, progress)


def _find_weights(
    engine: ExportedEngine, weights: Path | None, workspace: Path, cache: Path, progress: Progress
) -> Path:
    """Return a GGUF file with the engine's numbers."""
    origin = engine.facts["source"]
    if weights is not None:
        if not weights.is_file():
            raise ExportError(f"--weights: {weights} is no file; give the .gguf file that the engine was made of")
        if (digest := hash_file(weights)) != origin.get("sha256"):
            raise ExportError(
                f"--weights: sha256 of {weights} is {digest}, and the engine was made of {origin.get('file')}, sha256"
                f" {origin.get('sha256')}; give that file"
            )
        return weights
    recipe = find_recipe(engine.facts)
    if recipe is None:
        raise ExportError(
            f"--weights: missing; give the file that the engine was made of: {origin.get('file')}, sha256"
            f" {origin.get('sha256')}"
        )
    return prepare_weights(str(engine.facts["engine"]), recipe, cache, workspace, progress)


def find_recipe(facts: Mapping[str, Any]) -> EngineRecipe | None:
    """Return how the engine is made of packages; None: it was imported from a file."""
    name = facts.get("engine")
    if not isinstance(name, str) or name not in MAKERS or not {"package", "packages"} & set(facts["source"]):
        return None
    recipe: EngineRecipe = import_module(MAKERS[name]).RECIPES[name]
    return recipe if recipe.weights.sha256 == facts["source"].get("sha256") else None
