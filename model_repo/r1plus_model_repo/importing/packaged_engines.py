"""The making of shipped engines: a family's recipes, from weights in packages to OpenVINO IR with a pinned digest.

DIR/<engine name>/ for every recipe; the demo, the curator of golden suites and the engine images start from these
folders. Called by the families (`smollm2`, `qwen`). It calls the same functions as `r1plus engine quantize` and
`r1plus engine import`.
"""

import argparse
import fcntl
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract.engine.delivery import digest_folder
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.gguf.model import read_model
from r1plus_model_repo.importing.gguf.requantise import Precision, requantise
from r1plus_model_repo.importing.openvino.ir import FILES
from r1plus_model_repo.importing.package.folders import (
    FACTS_FILE,
    RECIPE,
    convert_gguf,
    create_scratch,
    dump_facts,
    list_converter_versions,
    stage_folder,
)
from r1plus_model_repo.importing.source import PackagedWeights, fetch_weights


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """One engine: its weights, and the precision that they are converted to."""

    weights: PackagedWeights
    precision: str
    """Precision of the engine."""
    requantised: bool = True
    """Whether the weights are published in another precision."""


@dataclass(frozen=True, slots=True)
class EngineBuild:
    """A finished engine folder."""

    folder: Path
    sha256: str
    bytes: int


def build_engines(
    recipes: Mapping[str, EngineRecipe], out: Path, progress: Callable[[str], None], names: Collection[str]
) -> dict[str, EngineBuild]:
    """Make those engines of `names` that are missing in `out`: complete folders only, one builder at a time.

    Raises:
        ImportingError: weights that cannot be fetched or converted.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in out.glob(".part-*"):
            shutil.rmtree(leftover)
        builds = {}
        for name, recipe in recipes.items():
            if name not in names:
                continue
            if not _is_current(out / name, recipe):
                _build(out, name, recipe, progress)
            builds[name] = _measure(out / name)
            progress(f"{name}: {builds[name].bytes / 2**20:.0f} MiB, sha256 {builds[name].sha256}")
    return builds


def load_digests(catalog_folder: Path, names: Collection[str]) -> dict[str, str]:
    """Return engine name -> the digest in the catalog of the folder."""
    return {engine.name: engine.spec.files.sha256 for engine in load_catalog(catalog_folder) if engine.name in names}


def _build_facts(name: str, recipe: EngineRecipe) -> dict[str, object]:
    """Return the provenance of the folder; a folder with other provenance is made again."""
    return {
        "engine": name,
        "recipe": RECIPE,
        "format": "openvino-ir",
        "precision": recipe.precision,
        "source": _describe_source(recipe.weights),
        "converter": list_converter_versions(),
    }


def _describe_source(weights: PackagedWeights) -> dict[str, object]:
    if len(weights.parts) == 1:  # The form of the first engines, whose digests are published.
        (part,) = weights.parts
        return {"package": part.package, "version": part.version, "file": part.member, "sha256": weights.sha256}
    return {
        "packages": [f"{part.package} {part.version}" for part in weights.parts],
        "file": weights.file,
        "sha256": weights.sha256,
        "publisher": weights.publisher,
        "licence": weights.licence,
    }


def _is_current(folder: Path, recipe: EngineRecipe) -> bool:
    try:
        same = (folder / FACTS_FILE).read_text(encoding="utf-8") == dump_facts(_build_facts(folder.name, recipe))
    except FileNotFoundError:
        return False
    return same and {path.name for path in folder.iterdir()} == {*FILES, FACTS_FILE}


def _build(out: Path, name: str, recipe: EngineRecipe, progress: Callable[[str], None]) -> None:
    with create_scratch(out / name) as workspace, stage_folder(out / name) as engine:
        weights = prepare_weights(name, recipe, out, workspace, progress)
        read_model(weights)
        progress(f"{name}: converting to OpenVINO IR")
        convert_gguf(weights, workspace / "conversion", engine, _build_facts(name, recipe))


def prepare_weights(
    name: str, recipe: EngineRecipe, out: Path, workspace: Path, progress: Callable[[str], None]
) -> Path:
    """Return a GGUF file with the engine's numbers: the published one, or one in `workspace`, in its precision.

    `out` is the folder of the engines, which keeps what was fetched.

    Raises:
        ImportingError: the weights cannot be fetched or converted.
    """
    weights = fetch_weights(recipe.weights, out / ".source", progress)
    if not recipe.requantised:
        return weights
    progress(f"{name}: requantising to {recipe.precision}")
    target = workspace / f"{recipe.precision}.gguf"
    requantise(weights, target, Precision[recipe.precision], lambda line: progress(f"{name}: {line}"))
    return target


def _measure(folder: Path) -> EngineBuild:
    return EngineBuild(folder, digest_folder(folder), sum(path.stat().st_size for path in folder.iterdir()))


def run(description: str, recipes: Mapping[str, EngineRecipe], catalog_folder: Path) -> int:
    """Make the engines that the command line asks for.

    Exit 0: all match the catalog; 1: an engine could not be made; 3: the bytes differ from the catalog.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <engine name>/")
    parser.add_argument("--engine", choices=sorted(recipes), action="append", help="one of them; by default all")
    arguments = parser.parse_args()
    try:
        builds = build_engines(
            recipes, arguments.out, lambda line: print(line, flush=True), arguments.engine or recipes
        )
    except (ImportingError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    digests = load_digests(catalog_folder, recipes)
    mismatches = {name: digests[name] for name, build in builds.items() if build.sha256 != digests[name]}
    for name, sha in mismatches.items():
        print(f"{name}: sha256 is {builds[name].sha256}, the catalog has {sha}", file=sys.stderr)
    return 3 if mismatches else 0
