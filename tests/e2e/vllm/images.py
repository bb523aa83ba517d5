"""Triton with vLLM for CPUs, and checkpoints for it: images that `make e2e STORY=vllm` alone has.

The image is what docs/engines/vllm-on-cpu.md asks of an installation: tritonserver with its Python backend, vLLM where that backend's
`python3` finds it, and none of this project's code. Its packages are those of `make test-long NAME=vllm`, substitutes for CUDA's
libraries included, so nobody should serve with it.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from devcluster.cache import CACHE_VARIABLE, cache_dir
from devcluster.images import builder, engines, product, python_layers, store
from devcluster.images.recipe import Image, Recipe, stamp
from devcluster.images.sources import link_tree
from devcluster.steps import Steps
from r1plus_model_repo.importing.engine import ENGINE, MANIFEST, import_engine
from r1plus_model_repo.importing.model import VLLM, Claims
from r1plus_model_repo.importing.options import ImportOptions
from support.vllm import environment
from support.vllm.engine import convert_smollm2

RUNTIME: Final = "triton-vllm-cpu"
BASE: Final = "triton-cpu"
GOOD: Final = "smollm2-vllm"
SWAPPED: Final = "smollm2-vllm-swapped"
"""Names of the engines, and their families."""
CPU: Final = "2"
SWAPPED_TENSORS: Final = ("model.layers.3.self_attn.q_proj.weight", "model.layers.12.self_attn.q_proj.weight")
NEEDED_BYTES: Final = 12 * 10**9
"""Of the disk, while the image is built and unpacked on the node."""
_NUMA: Final = Path("/usr/lib/x86_64-linux-gnu/libnuma.so.1")
"""Of libnuma1, which the environment's installation brings."""
_CONTAINERFILE: Final = """\
ARG BASE
FROM ${BASE}
USER 0:0
# As a site folder: its path file leads to setuptools' copy of distutils, which Debian's python3 does not have.
RUN rm -rf /opt/r1plus && site=$(python3 -c 'import site; print(site.getsitepackages()[0])') \\
 && printf 'import site; site.addsitedir("/opt/vllm")\\n' > "$site/r1plus.pth"
COPY libnuma.so.1 /usr/lib/x86_64-linux-gnu/libnuma.so.1
COPY packages/ /opt/vllm/
# What is imported is compiled once, here: a pod's root is read-only, so each start would do it again.
RUN PYTHONDONTWRITEBYTECODE= python3 -c 'from vllm import LLMEngine; import numpy, xgrammar, vllm.v1.engine.core, \
vllm.v1.executor.multiproc_executor, vllm.v1.worker.cpu_worker, vllm.model_executor.models.llama, transformers.models.llama'
USER 1000:1000
ENTRYPOINT []
CMD []
"""


@dataclass(frozen=True, slots=True)
class PackedEngine:
    """A checkpoint's image, and the R1PlusEngine that `r1plus engine import` wrote for it."""

    image: Image
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VllmImages:
    """All of them."""

    runtime: Image
    engines: Mapping[str, PackedEngine]

    @property
    def archives(self) -> tuple[Image, ...]:
        """For the node."""
        return (self.runtime, *(one.image for one in self.engines.values()))


def read_version() -> str:
    """Return the version of vLLM in the image."""
    (version,) = re.findall(r"^vllm-cpu==(\S+)", environment.LOCK.read_text(), re.MULTILINE)
    return str(version)


def build(steps: Steps, scratch: Path) -> VllmImages:
    """Build what the cache lacks. Checkpoints are written below `scratch`."""
    steps.expect(5)
    packages = environment.locate_packages(environment.prepare().parents[1])
    with steps.step("project wheel") as step:
        wheel = python_layers.wheel(step)
    recipe = _describe_runtime(packages, wheel)
    _check_room(recipe)
    runtime = builder.ensure(recipe, steps)
    with steps.step("checkpoints of SmolLM2"):
        good = convert_smollm2(scratch / "good")
        swapped = swap_tensors(good, scratch / "swapped")
    checkpoints = {GOOD: good, SWAPPED: swapped}
    return VllmImages(runtime, {name: _pack(name, folder, scratch, steps) for name, folder in checkpoints.items()})


def swap_tensors(source: Path, target: Path) -> Path:
    """Copy a checkpoint to `target`, two tensors of one shape in each other's place; return that.

    A converter's fault: each file is valid, its names and shapes are those of the model, and it answers wrongly.
    """
    shutil.copytree(source, target)
    weights = target / "model.safetensors"
    data = weights.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    one, other = (header[name] for name in SWAPPED_TENSORS)
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]
    text = json.dumps(header, separators=(",", ":")).encode().ljust(end - 8)
    weights.write_bytes(data[:8] + text + data[end:])
    return target


def _describe_runtime(packages: Path, wheel: Path) -> Recipe:
    library = _NUMA.resolve()
    # The environment is made once per lock, whose digest its folder is named after.
    ingredients = (environment.read_key(), stamp(library))
    assemble = partial(_assemble, packages, library)
    return Recipe(RUNTIME, _CONTAINERFILE, ingredients, assemble, product.recipe(BASE, wheel))


def _check_room(recipe: Recipe) -> None:
    """Raise SystemExit where the disk has too little room to build the image and to hold it on the node."""
    free = shutil.disk_usage(cache_dir()).free
    if not store.archive_of(recipe.name, recipe.key).exists() and free < NEEDED_BYTES:
        raise SystemExit(
            f"{cache_dir()} has {free / 10**9:.1f} GB free, and the image {RUNTIME} needs {NEEDED_BYTES / 10**9:.1f} GB while it"
            f" is built: make room, or put the cache elsewhere by {CACHE_VARIABLE}=DIR"
        )


def _assemble(packages: Path, library: Path, context: Path, log: Path) -> None:
    link_tree(packages, context / "packages")
    for compiled in (context / "packages").rglob("__pycache__"):
        shutil.rmtree(compiled)
    shutil.copy2(library, context / _NUMA.name)


def _pack(name: str, checkpoint: Path, scratch: Path, steps: Steps) -> PackedEngine:
    """Import a checkpoint as a user does, and pack it."""
    options = ImportOptions(name, "full", name, cpu=CPU, backend=VLLM, gpus=0)
    folder = import_engine(checkpoint, scratch / "engines", options, Claims(), lambda line: None).folder
    image = builder.ensure(engines.recipe(name, folder / ENGINE), steps)
    manifest = yaml.safe_load((folder / MANIFEST).read_text("utf-8"))
    manifest["spec"]["artifact"]["image"] = image.pinned
    return PackedEngine(image, manifest)
