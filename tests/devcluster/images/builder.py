"""Makes images out of recipes, each once: the interface of this folder for the cluster, the demo and the tests.

`component_images` is what the cluster itself runs, `product_images` what the project ships, `engine_image` a model.
All of them report through the caller's `Steps` and write their references to `images.json` in the cache.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.cache import cache_dir, locked, staged
from devcluster.images import components, engines, product, python_layers, store
from devcluster.images.recipe import Image, Recipe
from devcluster.steps import Step, Steps

ENGINE_PREFIX = "engine/"
COMPONENT_STEPS = len(components.recipe_names())
PRODUCT_STEPS = len(product.NAMES) + 1
"""What a caller announces by `Steps.expect` before it asks for those images."""


def build_all(steps: Steps) -> list[Image]:
    """Every image: the cluster's, the project's, and one per engine that lies ready in the cache."""
    made = [*component_images(steps), *product_images(steps).values()]
    folders = sorted(path.parent for path in (cache_dir() / "engines").glob(f"[!.]*/{engines.FACTS}"))
    return [*made, *(engine_image(folder.name, folder, steps) for folder in folders)]


def component_images(steps: Steps) -> list[Image]:
    """What the embedded cluster's own pods need; the programs in them must have been built before."""
    return [ensure(recipe, steps) for recipe in components.recipes()]


def product_images(steps: Steps, names: Iterable[str] = product.NAMES) -> dict[str, Image]:
    """Images that this project ships, by name."""
    with steps.step("project wheel", log=store.build_log("wheel")) as step:
        wheel = python_layers.wheel(step)
    made = {}
    for name in names:
        made[name] = ensure(product.recipe(name, wheel), steps)
    return made


def engine_image(name: str, folder: Path, steps: Steps) -> Image:
    """Pack a converted engine's folder, so that a node fetches it as it fetches any image."""
    return ensure(engines.recipe(name, folder), steps, listed_as=f"{ENGINE_PREFIX}{name}")


def references() -> dict[str, str]:
    """Name to reference of every image built so far; engines as `engine/NAME`."""
    listing = _listing()
    return dict(json.loads(listing.read_text())) if listing.exists() else {}


def ensure(recipe: Recipe, steps: Steps, listed_as: str | None = None) -> Image:
    """The image of `recipe`, from the cache or freshly built. Two runs at once take turns; the second finds it made."""
    image = Image(recipe.ref, store.archive_of(recipe.name, recipe.key))
    log = store.build_log(recipe.name)
    with steps.step(f"image {recipe.name}", log=log) as step, locked(f"image-{recipe.name}"):
        if image.archive.exists():
            os.utime(image.archive)
            step.cached()
        else:
            log.unlink(missing_ok=True)
            _build(recipe, image, step, log)
            step.built()
        _list(listed_as or recipe.name, recipe.ref)
    return image


def _build(recipe: Recipe, image: Image, step: Step, log: Path) -> None:
    if recipe.base is not None:
        _ensure_base(recipe.base, step, log)
    with locked("images"), _context() as context:
        store.sweep()
        step.progress("collecting files")
        recipe.assemble(context, log)
        (context / "Containerfile").write_text(recipe.containerfile)
        if recipe.base is not None:
            store.ensure_stored(recipe.base.ref, store.archive_of(recipe.base.name, recipe.base.key), log)
        step.progress("building layers")
        store.build(recipe.ref, context, recipe.base.ref if recipe.base is not None else None, log)
        step.progress("writing the archive")
        with staged(image.archive) as target:
            store.export(recipe.ref, target, log)
        if not recipe.layers_serve_again:
            store.forget(recipe.ref)
        store.forget_older(recipe.name, frozenset(references().values()))


def _ensure_base(base: Recipe, step: Step, log: Path) -> None:
    """Build the base inside the step of the first image that needs it, if nobody asked for it before."""
    archive = store.archive_of(base.name, base.key)
    with locked(f"image-{base.name}"):
        if not archive.exists():
            _build(base, Image(base.ref, archive), step, log)


@contextmanager
def _context() -> Iterator[Path]:
    """An empty folder on the cache's file system, so that big files come in as hard links; the lock `images` is held."""
    root = store.images_dir() / "contexts"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _list(name: str, ref: str) -> None:
    with locked("images-list"):
        known = references()
        if known.get(name) == ref:
            return
        with staged(_listing()) as target:
            target.write_text(json.dumps(known | {name: ref}, indent=2, sort_keys=True) + "\n")


def _listing() -> Path:
    return store.images_dir() / "images.json"
