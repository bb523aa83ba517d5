"""The images that the project ships: `operator`, `monitor`, `registry`, `gateway`, and Triton without a GPU, `triton-cpu`.

Their Containerfiles lie beside what they build and take their base as an argument: whoever has a registry builds them
on an ordinary Python image, out of the context that `python -m devcluster.images context NAME DIR` lays out.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devcluster.images import python_layers, rootfs, triton
from devcluster.images.python_layers import Dependencies
from devcluster.images.recipe import Recipe
from devcluster.images.sources import ROOT, link_tree


@dataclass(frozen=True, slots=True)
class Product:
    """One shipped image: its Containerfile, the extras with its dependencies, and the rooms that it runs."""

    containerfile: str
    extras: tuple[str, ...]
    rooms: tuple[str, ...]
    not_rooms: tuple[str, ...] = ()
    """Parts of those rooms that only developers run."""
    only: tuple[str, ...] = ()
    """Packages of the extras that the image needs; empty for all."""
    left_out: tuple[str, ...] = ()
    """Files of those packages that it does not."""
    tritonserver: bool = False


# Tests and headers that a running image never reads.
_NEVER_IMPORTED = ("*/tests", "*/*/tests", "*/test", "*/include")
_NEVER_RUN = ("bin", *_NEVER_IMPORTED)
_NO_PROGRAM_BUT_MONTY = ("bin/[!m]*", "bin/m[!o]*")
"""The calculator runs code with it."""

# Of OpenVINO: devices that our images do not have, and formats that engines do not have.
_OPENVINO_NEVER_RUN = (
    "openvino/cmake",
    "openvino/libs/cache.json",
    "openvino/libs/libopenvino_intel_[gn]pu_plugin.so",
    "openvino/libs/libopenvino_onnx_frontend.so*",
    "openvino/libs/libopenvino_paddle_frontend.so*",
    "openvino/libs/libopenvino_pytorch_frontend.so*",
    "openvino/libs/libopenvino_tensorflow_frontend.so*",
    "openvino/libs/libopenvino_tensorflow_lite_frontend.so*",
)

_OF_OTHERS = (
    "r1plus_contract/calculator_grammar",
    "r1plus_contract/engine/llama_architecture.py",
    "r1plus_contract/process/syscall_filters.py",
)
"""What gateway, helpers and import of engines share. A change of it makes no other image, so no serving identity."""

PRODUCTS: dict[str, Product] = {
    "operator": Product(
        containerfile="operator/Containerfile",
        extras=("operator",),
        rooms=("r1plus_contract", "r1plus_policies", "r1plus_model_repo", "r1plus_operator"),
        not_rooms=("r1plus_model_repo/backends", "r1plus_model_repo/importing"),
        left_out=_NEVER_RUN,
    ),
    # The monitor's image also runs the init container that verifies an engine, and the Job that fills a volume. The
    # backends it only carries: the init container lays them beside the model that a Triton image of NVIDIA's loads.
    "monitor": Product(
        containerfile="monitoring/Containerfile",
        extras=("monitor",),
        rooms=(
            "r1plus_contract",
            "r1plus_policies",
            "r1plus_monitoring",
            "r1plus_model_repo/__init__.py",
            "r1plus_model_repo/backends",
            "r1plus_model_repo/built_engine.py",
            "r1plus_model_repo/delivery.py",
            "r1plus_model_repo/engine_fetch",
            "r1plus_model_repo/kv_shape.py",
        ),
        not_rooms=("r1plus_monitoring/curate", *_OF_OTHERS),
        left_out=_NEVER_RUN,
    ),
    "registry": Product(
        containerfile="addons/history/Containerfile",
        extras=("registry",),
        rooms=("r1plus_contract", "r1plus_registry"),
        left_out=_NEVER_RUN,
    ),
    "gateway": Product(
        containerfile="gateway/Containerfile",
        # Its helpers' programs as well: they run as containers of their own in the gateway's pod.
        extras=("gateway", "assistant", "calculator", "code", "documents", "embedder"),
        rooms=(
            "r1plus_contract",
            "r1plus_gateway",
            "r1plus_assistant",
            "r1plus_sandbox",
            "r1plus_calculator",
            "r1plus_documents",
            "r1plus_embedder",
        ),
        left_out=(*_NO_PROGRAM_BUT_MONTY, *_NEVER_IMPORTED, *_OPENVINO_NEVER_RUN, "openvino_telemetry*"),
    ),
    "triton-cpu": Product(
        containerfile="model_repo/Containerfile.triton",
        extras=("engine",),
        rooms=("r1plus_contract", "r1plus_model_repo/__init__.py", "r1plus_model_repo/backends"),
        not_rooms=_OF_OTHERS,
        # Without openvino-telemetry: nothing in a tenant's pod reports to anyone, and OpenVINO does without it.
        only=("numpy", "openvino", "openvino-genai", "openvino-tokenizers"),
        left_out=(
            *_NEVER_RUN,
            *_OPENVINO_NEVER_RUN,
        ),
        tritonserver=True,
    ),
}
NAMES: tuple[str, ...] = tuple(PRODUCTS)


def recipe(name: str, wheel: Path) -> Recipe:
    """How to make the product `name` out of the project's wheel."""
    product = PRODUCTS[name]
    dependencies = python_layers.locked_dependencies(product.extras, product.only, product.left_out)
    server = (triton.WHEEL,) if product.tritonserver else ()
    ingredients = (dependencies.key, python_layers.rooms_digest(wheel, product.rooms, product.not_rooms), *server)
    text = (ROOT / product.containerfile).read_text()
    assemble = partial(_assemble, product, dependencies, wheel)
    return Recipe(name, text, ingredients, assemble, rootfs.base(), layers_serve_again=True)


def _assemble(product: Product, dependencies: Dependencies, wheel: Path, context: Path, log: Path) -> None:
    """Lay out `dependencies/`, `application/` and, for Triton, `tritonserver/`."""
    link_tree(python_layers.installed(dependencies, log), context / "dependencies")
    python_layers.unpack_rooms(wheel, product.rooms, product.not_rooms, context / "application")
    if product.tritonserver:
        triton.lay_out(triton.unpacked(), context / "tritonserver")
