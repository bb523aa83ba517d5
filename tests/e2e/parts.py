"""Everything the story needs on disk before a cluster can run it: programs, engines, images. Made once, then found.

For a cluster of your own nothing is built: R1PLUS_IMAGES names a JSON file with references that your nodes can pull.
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from devcluster.__main__ import build_all as build_programs
from devcluster.cache import cache_dir
from devcluster.images import builder
from devcluster.images.recipe import Image
from devcluster.steps import Steps
from e2e.waiting import StoryError
from r1plus_model_repo.importing.demo_engines import MAKERS
from r1plus_model_repo.importing.embedding import minilm
from r1plus_model_repo.importing.packaged_engines import EngineBuild
from r1plus_model_repo.importing.smollm2 import RECIPES

IMAGES_VARIABLE = "R1PLUS_IMAGES"
PRODUCTS = ("operator", "monitor", "registry", "gateway", "triton-cpu")
ENGINE_PREFIX = "engine/"


@dataclass(frozen=True, slots=True)
class Parts:
    """Image references by name (engines as `engine/NAME`), engine digests, and the archives where we built them."""

    refs: Mapping[str, str]
    digests: Mapping[str, str] = field(default_factory=dict)
    archives: tuple[Image, ...] = ()
    own: tuple[Image, ...] = ()
    """Images of the embedded cluster's own components."""

    def add_images(self, images: Mapping[str, Image]) -> "Parts":
        """Return the parts with further images, by name."""
        refs = {**self.refs, **{name: image.pinned for name, image in images.items()}}
        return replace(self, archives=(*self.archives, *images.values()), refs=refs)

    @property
    def engines(self) -> dict[str, str]:
        """Engine name to image reference."""
        return {n.removeprefix(ENGINE_PREFIX): r for n, r in self.refs.items() if n.startswith(ENGINE_PREFIX)}


def build(steps: Steps, engines: Mapping[str, EngineBuild] | None = None) -> Parts:
    """Build what is missing: programs of the cluster, engines (smollm2's, unless others are given), every image."""
    if engines is None:
        engines = make_engines(steps, RECIPES)
    steps.expect(builder.COMPONENT_STEPS + builder.PRODUCT_STEPS + len(engines))
    build_programs(steps)
    own = builder.component_images(steps)
    products = builder.product_images(steps)
    packed = {f"{ENGINE_PREFIX}{n}": builder.engine_image(n, made.folder, steps) for n, made in engines.items()}
    made = {**products, **packed}
    return Parts(
        refs={name: image.pinned for name, image in made.items()},
        digests={name: engine.sha256 for name, engine in engines.items()},
        archives=tuple(made.values()),
        own=tuple(own),
    )


def build_embedding_engine(steps: Steps) -> dict[str, Image]:
    """Build the image of the embedding engine, which only some stories need; one step more."""
    with steps.step(f"engine {minilm.NAME}") as step:
        folder = minilm.build_minilm(cache_dir() / "engines", step.progress)
    return {ENGINE_PREFIX + minilm.NAME: builder.engine_image(minilm.NAME, folder, steps)}


def given_path() -> Path | None:
    """The file that R1PLUS_IMAGES names."""
    named = os.environ.get(IMAGES_VARIABLE)
    return Path(named) if named else None


def given(path: Path | None) -> Parts:
    """The references in `path`; StoryError says what the file must hold."""
    products = ", ".join(f'"{name}": REF' for name in PRODUCTS)
    wanted = f'{{{products}, "{ENGINE_PREFIX}smollm2-full-f16": REF, ...}}'
    if path is None:
        raise StoryError(
            f"KUBECONFIG names a cluster of your own, for which nothing is built: set {IMAGES_VARIABLE} to a JSON file {wanted} with references"
            " by digest (REPOSITORY@sha256:...) that your nodes can pull (docs/building-images.md says how to build and push them), or unset KUBECONFIG"
        )
    refs = dict(json.loads(path.read_text()))
    if absent := [name for name in PRODUCTS if name not in refs]:
        raise StoryError(f"{path}: lacks {', '.join(absent)}; it must hold {wanted}")
    return Parts(refs=refs)


def make_engines(steps: Steps, names: Collection[str]) -> dict[str, EngineBuild]:
    """Make those of these engines that are missing in the cache. Raises ImportingError."""
    folder, made = cache_dir() / "engines", dict[str, EngineBuild]()
    steps.expect(1)
    with steps.step(f"{len(names)} engines") as step:
        before = set(folder.glob("*"))
        for module in sorted({MAKERS[name] for name in names}):
            made |= import_module(module).build_engines(folder, step.progress, names)
        if set(folder.glob("*")) == before:
            step.cached()
        else:
            step.built()
    return made
