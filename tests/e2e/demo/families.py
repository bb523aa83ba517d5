"""The model families that can play the demo: `make demo` plays smollm2, `make demo FAMILY=qwen` two models that differ."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from devcluster.space import GB
from e2e.parts import ENGINE_PREFIX, IMAGES_VARIABLE, Parts
from e2e.waiting import StoryError
from r1plus_model_repo.importing import smollm2
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.packaged_engines import EngineBuild

Builds = Mapping[str, EngineBuild]


@dataclass(frozen=True, slots=True)
class Family:
    """What the demo serves, and the engine that its gate refuses."""

    name: str
    """The chart's `defaultFamily`."""
    files: tuple[str, ...]
    """Engines whose files it serves, by the names that their recipes have."""
    regression: str
    """What `spec.engine.precision: Q4_1` selects at tier full."""
    introduction: str
    manifests: Path | None = None
    """R1PlusEngines that the chart's catalog lacks."""
    disk_bytes: int = 0
    """What it needs in the cache, and again in the cluster, beyond what smollm2 needs."""


SMOLLM2: Final = Family(
    name="smollm2",
    files=tuple(smollm2.RECIPES),
    regression="smollm2-full-q4-1",
    introduction="smollm2 stands in for R1+: one set of weights in three precisions plays the three sizes.",
)
QWEN: Final = Family(
    name="qwen",
    files=("qwen-lite-q8-0", "qwen-lite-q4-1", "smollm2-full-f16", "smollm2-edge-q4-1"),
    regression="qwen-full-q4-1",
    introduction="Qwen2.5-Coder-0.5B plays full, SmolLM2-135M lite in FP16 and edge in Q4_1.",
    manifests=Path(__file__).parent / "engines" / "qwen.yaml",
    disk_bytes=4 * GB,
)
FAMILIES: Final = {family.name: family for family in (SMOLLM2, QWEN)}


def make_engines(
    family: Family, make: Callable[[Collection[str]], Builds], tell: Callable[[str], None]
) -> tuple[Family, Builds]:
    """Return the family with its engines. Where its weights cannot be had, say so and go on with smollm2.

    Raises:
        ImportingError: smollm2's weights cannot be had either.
    """
    try:
        return family, make(family.files)
    except ImportingError as error:
        if family is SMOLLM2:
            raise
        tell(f"The engines of {family.name} cannot be made: {error}")
        tell(f"The demo goes on with {SMOLLM2.name}.")
        return SMOLLM2, make(SMOLLM2.files)


def build_manifests(family: Family, parts: Parts) -> list[dict[str, Any]]:
    """Return the R1PlusEngines to apply, with the images and digests of `parts`.

    Raises:
        StoryError: an image is missing.
    """
    if family.manifests is None:
        return []
    bodies = list(yaml.safe_load_all(family.manifests.read_text(encoding="utf-8")))
    if missing := sorted(name for name in map(find_files, bodies) if name not in parts.engines):
        images = ", ".join(f"{ENGINE_PREFIX}{name}" for name in missing)
        raise StoryError(
            f"{IMAGES_VARIABLE}: lacks {images}, which the family {family.name} serves; push these images"
            " (CONTRIBUTING.md says how) and name them there, or leave out FAMILY"
        )
    for body in bodies:
        name, artifact = find_files(body), body["spec"]["artifact"]
        artifact["image"] = parts.engines[name]
        artifact["sha256"] = parts.digests.get(name, artifact["sha256"])
    return bodies


def find_files(body: Mapping[str, Any]) -> str:
    """Return the engine whose files an R1PlusEngine of a catalog serves: its image is `r1plus.local/engine-NAME:dev`."""
    image: str = body["spec"]["artifact"]["image"]
    return image.removeprefix("r1plus.local/engine-").removesuffix(":dev")
