"""The fields of an R1PlusEngine of a model whose files are served as they are. Called by `manifest`.

Sources of the figures: the head of catalog/r1plus.yaml; for vLLM on CPU, `make test-long NAME=vllm` (tests/vllm_cpu).
"""

from collections.abc import Mapping
from typing import Any, Final

from r1plus_model_repo.catalog.quantity import mebibytes
from r1plus_model_repo.catalog.types import TORCH_BITS, VLLM_CPU_BITS, VLLM_ON_CPU
from r1plus_model_repo.importing.model import STEP_TOKENS, TENSORRT_LLM, TORCH, GpuDetails, SourceModel
from r1plus_model_repo.importing.options import GPUS, PRODUCTS, STEP, ImportOptions
from r1plus_model_repo.importing.tensorrt_llm.checkpoint import RUNTIME

RUNTIME_MEMORY: Final = "972Mi"
"""CUDA context, libraries and server, without activations."""
RUNTIME_MEMORY_ON_CPU: Final = "3Gi"
"""Server and vLLM's three processes, of which 1 GiB is pages of their libraries."""
VLLM_ON_CPU_TRIED: Final = "0.32"
"""Oldest version of vLLM for CPU that was tried."""
STEP_TOKENS_ON_CPU: Final = 2048
"""Tokens of all requests in one step of vLLM on CPU (SchedulerConfig.DEFAULT_MAX_NUM_BATCHED_TOKENS, 0.32)."""
RUNTIME_MEMORY_OF_TORCH: Final = "700Mi"
"""Server, torch, transformers and activations: 560 MiB with SmolLM2 at batch 32 and 1024 tokens."""
TORCH_TRIED: Final = "2.13"
"""Oldest version of torch that was tried."""
STEP_TOKENS_OF_TORCH: Final = 256
"""Tokens of a prompt in one step (`r1plus_model.sampling.continuous_batch`)."""
MIN_CAPABILITY: Final = "8.0"
BEST_BATCH, MAX_BATCH = 32, 64
BEST_BATCH_ON_CPU, MAX_BATCH_ON_CPU = 16, 32
BEST_BATCH_OF_TORCH, MAX_BATCH_OF_TORCH, BEST_BATCH_OF_SPARSE = 4, 8, 1
_ELEMENT_BYTES, _ELEMENT_BYTES_ON_CPU = 2, VLLM_CPU_BITS // 8
"""Bytes of an activation: computing is in 16 bits on GPUs, and in 32 on CPU, whatever the precision of the weights."""


def find_gpu_problems(options: ImportOptions, model: SourceModel) -> tuple[str, ...]:
    """Return where the options do not fit the model, as `spec.field: what is wrong; what to do`."""
    gpu, problems = model.gpu, []
    if gpu is None:
        return ()
    count, heads = _or_default(options.gpus, 1), model.shape.kv_heads
    if count > 0 and heads % count and count % heads:
        problems.append(
            f"{GPUS}: {heads} KV heads cannot be divided evenly over {count} GPUs; use a"
            f" divisor or a multiple of {heads}"
        )
    elif count > 0 and gpu.heads % count:
        problems.append(f"{GPUS}: {gpu.heads} attention heads cannot be divided evenly over {count} GPUs; use fewer")
    if gpu.built and not options.gpu_products:
        problems.append(
            f"{PRODUCTS}: missing, and a built engine only runs on the GPU that it was built for;"
            " name it as the node label nvidia.com/gpu.product says"
        )
    if gpu.built and options.max_num_tokens is not None:
        problems.append(f"{STEP}: the engine is already built; omit it")
    for field, batch in (("max", options.max_batch), ("best", options.best_batch)):
        if gpu.most_batch is not None and batch is not None and batch > gpu.most_batch:
            problems.append(
                f"spec.batch.{field}: {batch} exceeds {gpu.most_batch}, what it was built for; give at most that"
            )
    return tuple(problems)


def choose_batches(options: ImportOptions, gpu: GpuDetails) -> tuple[int, int]:
    """Return best and largest batch: from the options, else the defaults within the limits of a plan."""
    best, most = BEST_BATCH, MAX_BATCH
    if options.runtime == VLLM_ON_CPU:
        best, most = BEST_BATCH_ON_CPU, MAX_BATCH_ON_CPU
    elif gpu.backend == TORCH:
        best, most = BEST_BATCH_OF_SPARSE if gpu.is_sparse else BEST_BATCH_OF_TORCH, MAX_BATCH_OF_TORCH
    largest = _or_default(options.max_batch, min(most, gpu.most_batch or most))
    return _or_default(options.best_batch, min(best, largest)), largest


def choose_runtime_memory(options: ImportOptions) -> str:
    """Return the memory of server, backend and libraries."""
    memory = {VLLM_ON_CPU: RUNTIME_MEMORY_ON_CPU, TORCH: RUNTIME_MEMORY_OF_TORCH}
    return memory.get(options.runtime, RUNTIME_MEMORY)


def build_architecture_fields(gpu: GpuDetails) -> Mapping[str, Any]:
    """Return the fields of `spec.architecture`."""
    fields = {"window": gpu.window, "globalLayers": gpu.global_layers}
    return {key: value for key, value in fields.items() if value is not None}


def build_requirement_fields(options: ImportOptions, gpu: GpuDetails) -> Mapping[str, Any]:
    """Return the fields of `spec.requirements`."""
    if options.runtime == VLLM_ON_CPU:
        activations = _compute_activation_bytes(gpu, STEP_TOKENS_ON_CPU, _ELEMENT_BYTES_ON_CPU)
        return {"activationMemory": mebibytes(activations), "runtime": {"min": VLLM_ON_CPU_TRIED}}
    if gpu.backend == TORCH:
        activations = _compute_activation_bytes(gpu, STEP_TOKENS_OF_TORCH, TORCH_BITS // 8)
        return {"activationMemory": mebibytes(activations), "runtime": {"min": TORCH_TRIED}}
    products = {"products": options.gpu_products} if options.gpu_products else {}
    # Two cores serve one GPU. One of them is requested, if the limit is in whole cores.
    cores = {"cpuRequest": "1"} if options.cpu.isdecimal() else {}
    runtime = {"runtime": {"min": RUNTIME, "max": RUNTIME}} if gpu.backend == TENSORRT_LLM else {}
    return {
        **cores,
        "activationMemory": mebibytes(
            _compute_activation_bytes(gpu, _choose_step_tokens(options, gpu), _ELEMENT_BYTES)
        ),
        "gpu": {"count": _or_default(options.gpus, 1), "minCapability": MIN_CAPABILITY, **products},
        **runtime,
    }


def build_spec_fields(options: ImportOptions, gpu: GpuDetails) -> Mapping[str, Any]:
    """Return the fields of `spec` itself."""
    kv_precision = {"kvPrecision": gpu.kv_precision} if gpu.kv_precision else {}
    build = gpu.backend == TENSORRT_LLM and not gpu.built
    return {**kv_precision, **({"build": {"maxNumTokens": _choose_step_tokens(options, gpu)}} if build else {})}


def _compute_activation_bytes(gpu: GpuDetails, tokens: int, element_bytes: int) -> int:
    """Return the bytes of a step: the residual, the normalised input, gate, up and product exist for all its tokens."""
    return tokens * element_bytes * (2 * gpu.hidden_size + 3 * gpu.intermediate)


def _choose_step_tokens(options: ImportOptions, gpu: GpuDetails) -> int:
    """Return the tokens in one step."""
    return _or_default(options.max_num_tokens, gpu.step_tokens or STEP_TOKENS)


def _or_default(value: int | None, default: int) -> int:
    """Return the value if it is given, 0 too (validation rejects it with its field), else the default."""
    return default if value is None else value
