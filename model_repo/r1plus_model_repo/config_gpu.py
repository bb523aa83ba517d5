"""config.pbtxt of the GPU backends, and what backends cannot serve. Called by `config_pbtxt.render_config`.

vLLM and TensorRT-LLM run in process, with the same tensors as the CPU backend; this module builds their parameters. A
TensorRT plan is loaded by Triton itself (the tensor names are those of Optimum's ONNX export). Its configuration is
generated, checked by Triton's rules and golden-tested, but nothing converts its logits to answers, so nothing serves
it yet.
"""

from typing import Any

from r1plus_contract import inference
from r1plus_model_repo.catalog.quantity import bytes_of, mebibytes
from r1plus_model_repo.catalog.types import VLLM_CPU_BITS, Backend, EngineSpec, KvPrecision
from r1plus_policies.engine.accelerators import USABLE_PERCENT

MAX_QUEUE = 1024
"""Requests that may wait; the next gets 503 at once instead of a timeout."""
_VLLM_KV = (KvPrecision.FP16, KvPrecision.FP8)


def build_vllm_parameters(engine: EngineSpec) -> dict[str, str]:
    """Return vLLM's parameters on GPUs except batch and context. It may use as much GPU memory as the fit assumes."""
    gpu = engine.requirements.gpu
    return {
        "gpu_memory_fraction": f"{USABLE_PERCENT / 100:g}",
        "gpus": str(gpu.count if gpu else 1),
        "kv_precision": (engine.kv_precision or KvPrecision.FP16).value,
    }


def build_tensorrt_llm_parameters(engine: EngineSpec, batch: int, context: int) -> dict[str, str]:
    """Return TensorRT-LLM's parameters except batch and context. The KV cache is paged, with the size of the fit."""
    tokens_per_request = (
        context if engine.architecture.global_layers else min(context, engine.architecture.window or context)
    )
    return {
        "gpu_memory_fraction": f"{USABLE_PERCENT / 100:g}",
        "kv_tokens": str(batch * tokens_per_request),
        "windows": ",".join(map(str, _list_windows(engine, context))),
    }


def find_unservable_field(engine: EngineSpec) -> str | None:
    """Return why the backend cannot serve the engine, as `field: value: reason`; None if it can."""
    if engine.is_vllm_on_cpu or engine.backend is Backend.TORCH:
        return _find_small_weights(engine)
    kv_precision = engine.kv_precision or KvPrecision.FP16
    if engine.backend is Backend.VLLM and kv_precision not in _VLLM_KV:
        return f"spec.kvPrecision: {kv_precision}: not supported by vLLM; expected {' or '.join(_VLLM_KV)}"
    gpu = engine.requirements.gpu
    if engine.backend is Backend.TENSORRT_LLM and gpu is not None and gpu.count > 1:
        return f"spec.requirements.gpu.count: {gpu.count}: tensorrtllm is served on one GPU; use vllm for several"
    return None


def _find_small_weights(engine: EngineSpec) -> str | None:
    """Return why weights are larger on CPU than the engine says: those in floating point are served in 32 bits."""
    weights, least = engine.requirements.weights_memory, engine.architecture.parameters * VLLM_CPU_BITS // 8
    if not engine.precision.upper().startswith(("FP16", "BF16", "FP32", "F16", "F32")) or bytes_of(weights) >= least:
        return None
    return (
        f"spec.requirements.weightsMemory: {weights}: {engine.backend.value} computes in 32 bits on CPU, so"
        f" {engine.architecture.parameters} weights take {mebibytes(least)}; give at least that"
    )


def _list_windows(engine: EngineSpec, context: int) -> list[int]:
    """Return the tokens kept per layer; one number if all are equal. Global layers come last of each period."""
    shape = engine.architecture
    window = min(context, shape.window or context)
    global_count = min(shape.global_layers or 0, shape.layers)
    if window == context or global_count == 0:
        return [window]
    global_indexes = {(i + 1) * shape.layers // global_count - 1 for i in range(global_count)}
    return [context if layer in global_indexes else window for layer in range(shape.layers)]


def build_tensorrt_config(pb: Any, engine: EngineSpec, batch: int) -> Any:
    """Return the configuration of a TensorRT plan: each step takes and returns the KV cache, by layer and part."""
    shape = engine.architecture
    past = [f"{layer}.{part}" for layer in range(shape.layers) for part in ("key", "value")]
    element = pb.TYPE_FP16 if (engine.kv_precision or KvPrecision.FP16) is KvPrecision.FP16 else pb.TYPE_INT8
    dims = [shape.kv_heads, -1, shape.head_size]
    tokens = ("input_ids", "attention_mask", "position_ids")
    return pb.ModelConfig(
        name=inference.MODEL_NAME,
        platform="tensorrt_plan",
        max_batch_size=batch,
        input=[
            *(pb.ModelInput(name=name, data_type=pb.TYPE_INT64, dims=[-1]) for name in tokens),
            *(pb.ModelInput(name=f"past_key_values.{name}", data_type=element, dims=dims) for name in past),
        ],
        output=[
            pb.ModelOutput(name="logits", data_type=pb.TYPE_FP16, dims=[-1, -1]),
            *(pb.ModelOutput(name=f"present.{name}", data_type=element, dims=dims) for name in past),
        ],
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_GPU, profile=["0"])],
        dynamic_batching=pb.ModelDynamicBatching(
            preferred_batch_size=[batch],
            default_queue_policy=pb.ModelQueuePolicy(max_queue_size=MAX_QUEUE),
        ),
        optimization=pb.ModelOptimizationPolicy(cuda=pb.ModelOptimizationPolicy.Cuda(graphs=True)),
    )
