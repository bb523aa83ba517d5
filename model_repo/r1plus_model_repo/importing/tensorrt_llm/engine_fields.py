"""What the R1PlusEngine of a model for GPUs says beside what every engine's does. Called by `manifest`.

Where the figures come from: the head of catalog/r1plus.yaml.
"""

from collections.abc import Mapping
from typing import Any, Final

from r1plus_model_repo.catalog.quantity import mebibytes
from r1plus_model_repo.importing.model import STEP_TOKENS, TENSORRT_LLM, Model, OnGpu
from r1plus_model_repo.importing.options import GPUS, PRODUCTS, STEP, Wish
from r1plus_model_repo.importing.tensorrt_llm.checkpoint import RUNTIME

RUNTIME_MEMORY: Final = "972Mi"
"""CUDA context, libraries and server; activations come on top."""
MIN_CAPABILITY: Final = "8.0"
BEST_BATCH, MAX_BATCH = 32, 64
_ELEMENT_BYTES = 2
"""Of an activation: computing is in 16 bits, whatever the weights are stored in."""


def gpu_problems(wish: Wish, model: Model) -> tuple[str, ...]:
    """Where the options do not fit the model, as `spec.field: what is wrong; what to do`."""
    gpu, problems = model.gpu, []
    if gpu is None:
        return ()
    count, heads = _given(wish.gpus, 1), model.shape.kv_heads
    if count > 0 and heads % count and count % heads:
        problems.append(
            f"{GPUS}: {heads} KV heads cannot be shared out evenly over {count} GPUs; take a"
            f" divisor or a multiple of {heads}"
        )
    elif count > 0 and gpu.heads % count:
        problems.append(
            f"{GPUS}: {gpu.heads} attention heads cannot be shared out evenly over {count} GPUs; take fewer"
        )
    if gpu.built and not wish.gpu_products:
        problems.append(
            f"{PRODUCTS}: missing, and an engine that is built runs on the GPU that it was built for;"
            " name it as the node label nvidia.com/gpu.product says"
        )
    if gpu.built and wish.max_num_tokens is not None:
        problems.append(f"{STEP}: the engine is built already; leave it out")
    for field, batch in (("max", wish.max_batch), ("best", wish.best_batch)):
        if gpu.most_batch is not None and batch is not None and batch > gpu.most_batch:
            problems.append(
                f"spec.batch.{field}: {batch} exceeds {gpu.most_batch}, what it was built for; give at most that"
            )
    return tuple(problems)


def batches(wish: Wish, gpu: OnGpu) -> tuple[int, int]:
    """Best and largest batch: what was asked for, else the defaults as far as a plan allows them."""
    largest = _given(wish.max_batch, min(MAX_BATCH, gpu.most_batch or MAX_BATCH))
    return _given(wish.best_batch, min(BEST_BATCH, largest)), largest


def architecture(gpu: OnGpu) -> Mapping[str, Any]:
    """Fields of `spec.architecture`."""
    said = {"window": gpu.window, "globalLayers": gpu.global_layers}
    return {key: value for key, value in said.items() if value is not None}


def requirements(wish: Wish, gpu: OnGpu) -> Mapping[str, Any]:
    """Fields of `spec.requirements`."""
    products = {"products": wish.gpu_products} if wish.gpu_products else {}
    # Two cores feed one GPU, and one is set aside, as long as there is one.
    cores = {"cpuRequest": "1"} if wish.cpu.isdecimal() else {}
    runtime = {"runtime": {"min": RUNTIME, "max": RUNTIME}} if gpu.backend == TENSORRT_LLM else {}
    return {
        **cores,
        "activationMemory": mebibytes(
            _step_tokens(wish, gpu) * _ELEMENT_BYTES * (2 * gpu.hidden + 3 * gpu.intermediate)
        ),
        "gpu": {"count": _given(wish.gpus, 1), "minCapability": MIN_CAPABILITY, **products},
        **runtime,
    }


def terms(wish: Wish, gpu: OnGpu) -> Mapping[str, Any]:
    """Fields of `spec` itself."""
    kv_precision = {"kvPrecision": gpu.kv_precision} if gpu.kv_precision else {}
    build = gpu.backend == TENSORRT_LLM and not gpu.built
    return {**kv_precision, **({"build": {"maxNumTokens": _step_tokens(wish, gpu)}} if build else {})}


def _step_tokens(wish: Wish, gpu: OnGpu) -> int:
    """Residual and normalised input, gate, up and their product are there for as many tokens at once."""
    return _given(wish.max_num_tokens, gpu.step_tokens or STEP_TOKENS)


def _given(said: int | None, default: int) -> int:
    """0 is said, too, and refused with its field."""
    return default if said is None else said
