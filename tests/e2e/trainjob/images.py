"""The trainer's image, and an artifact with a teacher: images that `make e2e STORY=trainjob` alone has.

The trainer's is what docs/distillation/cluster.md asks of an installation: r1plus with its extras, and torch. Its torch is that
of `make test-long NAME=model`, with substitutes for CUDA's libraries, so nobody should train with it.
"""

import shutil
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from devcluster.cache import CACHE_VARIABLE, cache_dir
from devcluster.images import builder, engines, python_layers, rootfs, store
from devcluster.images.recipe import Image, Recipe
from devcluster.images.sources import link_tree
from devcluster.steps import Steps
from r1plus_contract.engine.delivery import digest_folder
from support.model import environment
from support.model.forms import write_forms

TRAINER: Final = "trainer"
TEACHER: Final = "forms-teacher"
NEEDED_BYTES: Final = 8 * 10**9
"""Of the disk, while the image is built and unpacked on the node."""
_EXTRAS: Final = ("cli", "engine", "distil", "calculator")
"""The last for SymPy: the folder of torch leaves out what the tests' own environment has."""
_CONTAINERFILE: Final = """\
ARG BASE
FROM ${BASE}
ENV PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1 HOME=/tmp
WORKDIR /tmp
RUN site=$(python3 -c 'import site; print(site.getsitepackages()[0])') \\
 && mkdir -p "$site" \\
 && printf '/opt/r1plus/dependencies\\n/opt/r1plus/application\\n/opt/torch\\n' > "$site/r1plus.pth"
COPY packages/ /opt/torch/
COPY dependencies/ /opt/r1plus/dependencies/
COPY application/ /opt/r1plus/application/
# Of the wheel's data, where Python's prefix is /usr: the suites that no data may have.
RUN ln -s /opt/r1plus/application/data/share/r1plus /usr/share/r1plus
# What is imported is compiled once, here: a pod's root is read-only, so each start would do it again.
RUN python3 -c 'import torch, r1plus_training.distill_job, r1plus_model.training.distillation, r1plus_model.training.workers, \
r1plus_model_repo.importing.engine, r1plus_model_repo.importing.huggingface.to_gguf, openvino'
USER 1000:1000
"""


@dataclass(frozen=True, slots=True)
class TrainJobImages:
    """Both, and the digest of the artifact."""

    trainer: Image
    teacher: Image
    sha256: str

    @property
    def archives(self) -> tuple[Image, ...]:
        """For the node."""
        return self.trainer, self.teacher


def build(steps: Steps, scratch: Path) -> TrainJobImages:
    """Build what the cache lacks. The teacher is trained below `scratch`."""
    steps.expect(4)
    with steps.step("torch"):
        packages = environment.prepare()
    with steps.step("project wheel") as step:
        wheel = python_layers.wheel(step)
    recipe = _describe_trainer(packages, wheel)
    _check_room(recipe)
    trainer = builder.ensure(recipe, steps)
    artifact = scratch / "artifact"
    write_forms(artifact, scratch)
    return TrainJobImages(trainer, builder.ensure(engines.recipe(TEACHER, artifact), steps), digest_folder(artifact))


def _describe_trainer(packages: Path, wheel: Path) -> Recipe:
    dependencies = python_layers.locked_dependencies(_EXTRAS)
    rooms = _list_rooms(wheel)
    # The folder of packages is made once per lock, whose digest it is named after.
    ingredients = (packages.name, dependencies.key, python_layers.rooms_digest(wheel, rooms, ()))
    assemble = partial(_assemble, packages, dependencies, wheel)
    return Recipe(TRAINER, _CONTAINERFILE, ingredients, assemble, rootfs.base())


def _list_rooms(wheel: Path) -> tuple[str, ...]:
    """Return the packages of the wheel: an installation by pip has all of them."""
    with zipfile.ZipFile(wheel) as packed:
        tops = {name.partition("/")[0] for name in packed.namelist()}
    return tuple(sorted(top for top in tops if not top.endswith(".dist-info")))


def _assemble(packages: Path, dependencies: python_layers.Dependencies, wheel: Path, context: Path, log: Path) -> None:
    link_tree(packages, context / "packages")
    link_tree(python_layers.installed(dependencies, log), context / "dependencies")
    application = context / "application"
    python_layers.unpack_rooms(wheel, _list_rooms(wheel), (), application)
    (data,) = application.glob("*.data")
    (data / "data").rename(application / "data")


def _check_room(recipe: Recipe) -> None:
    """Raise SystemExit where the disk has too little room to build the image and to hold it on the node."""
    free = shutil.disk_usage(cache_dir()).free
    if not store.archive_of(recipe.name, recipe.key).exists() and free < NEEDED_BYTES:
        raise SystemExit(
            f"{cache_dir()} has {free / 10**9:.1f} GB free, and the image {TRAINER} needs {NEEDED_BYTES / 10**9:.1f} GB"
            f" while it is built: make room, or put the cache elsewhere by {CACHE_VARIABLE}=DIR"
        )
