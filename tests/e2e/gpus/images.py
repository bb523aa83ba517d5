"""What stands for NVIDIA's image with TensorRT-LLM, and checkpoints for it: images that tests alone make.

The image is the CPU Triton's with a layer more: a real tritonserver and its real Python backend, and stand-ins for
NVIDIA's entry point, `trtllm-build`, `tensorrt_llm` and `transformers`. This project's own code is taken out of it, since NVIDIA's images
have none: what Triton loads can only be what the init container `verify` has laid beside the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devcluster.images import builder, engines, product, python_layers
from devcluster.images.recipe import Image, Recipe, tree_digest
from devcluster.images.sources import link_tree
from devcluster.steps import Steps
from r1plus_contract.engine.delivery import digest_folder

STAND_INS = Path(__file__).parent / "stand_ins"
RUNTIME = "gpu-runtime"
BASE = "triton-cpu"
_IGNORED = frozenset({"__pycache__"})
_CONTAINERFILE = """\
ARG BASE
FROM ${BASE}
USER 0:0
RUN rm -rf /opt/r1plus/application
COPY stand_ins/trtllm-build /usr/local/bin/trtllm-build
COPY stand_ins/nvidia_entrypoint.sh /opt/nvidia/nvidia_entrypoint.sh
COPY stand_ins/python/ /opt/stand-ins/
RUN chmod 0755 /usr/local/bin/trtllm-build /opt/nvidia/nvidia_entrypoint.sh \\
 && site=$(python3 -c 'import site; print(site.getsitepackages()[0])') \\
 && printf '/opt/r1plus/dependencies\\n/opt/stand-ins\\n' > "$site/r1plus.pth" \\
 && python3 -c 'import numpy, transformers, tensorrt_llm.bindings.executor'
USER 1000:1000
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]
CMD []
"""
TENANT = "team-gpus"
VERSION = "1.2.1"
"""Of the TensorRT-LLM that the image is said to have."""
REFUSAL = "[TRT] [E] 10: Could not find any implementation for node {ForeignNode[LLAMA/layers/0]}"
GOOD: Mapping[str, str] = {
    "checkpoint/config.json": '{"architecture": "LlamaForCausalLM", "dtype": "float16"}\n',
    "checkpoint/rank0.safetensors": "weights that nobody reads\n" * 64,
    "tokenizer/tokenizer.json": "{}\n",
}
CHECKPOINTS: Mapping[str, Mapping[str, str]] = {
    "gpu-checkpoint": GOOD,
    "gpu-checkpoint-refused": {**GOOD, "checkpoint/refuses": f"{REFUSAL}\n"},
}
"""Name of the image -> what it holds below engine/. What makes the builder fail is a file, for the stand-in to find."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An image that carries one, and the digest of the files."""

    image: Image
    sha256: str


@dataclass(frozen=True, slots=True)
class GpuImages:
    """All of them."""

    runtime: Image
    checkpoints: Mapping[str, Checkpoint]

    @property
    def archives(self) -> tuple[Image, ...]:
        """For the node."""
        return (self.runtime, *(one.image for one in self.checkpoints.values()))


def build(steps: Steps, scratch: Path) -> GpuImages:
    """From the cache where they are there. `scratch` is where the checkpoints are written."""
    steps.expect(2 + len(CHECKPOINTS))
    with steps.step("project wheel") as step:
        wheel = python_layers.wheel(step)
    runtime = builder.ensure(_runtime(wheel), steps)
    return GpuImages(runtime, {name: _checkpoint(name, scratch / name, steps) for name in CHECKPOINTS})


def _runtime(wheel: Path) -> Recipe:
    ingredients = (tree_digest(STAND_INS, ignored=_IGNORED),)
    return Recipe(RUNTIME, _CONTAINERFILE, ingredients, _assemble, product.recipe(BASE, wheel))


def _assemble(context: Path, log: Path) -> None:
    link_tree(STAND_INS, context / "stand_ins")


def _checkpoint(name: str, folder: Path, steps: Steps) -> Checkpoint:
    for path, text in CHECKPOINTS[name].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return Checkpoint(builder.ensure(engines.recipe(name, folder), steps), digest_folder(folder))
