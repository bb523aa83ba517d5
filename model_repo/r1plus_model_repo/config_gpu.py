"""config.pbtxt of the GPU backends. Called by `config_pbtxt.render`.

vLLM and TensorRT-LLM run in process, behind the same tensors as the CPU backend: here is what their engines are told. A
TensorRT plan is loaded by Triton itself (the tensor names are those of Optimum's ONNX export): it is generated, judged
by Triton's rules and golden-tested; what would turn its logits into answers is not written, so nothing serves it yet.
"""

from typing import Any

from r1plus_contract import inference
from r1plus_model_repo.catalog.types import Backend, EngineSpec, KvPrecision
from r1plus_policies.engine.accelerators import USABLE_PERCENT

MAX_QUEUE = 1024
"""Requests that may wait; the next is answered 503 at once, rather than after everybody's patience."""
_VLLM_KV = (KvPrecision.FP16, KvPrecision.FP8)


def vllm(engine: EngineSpec) -> dict[str, str]:
    """What vLLM is told beside batch and context. Of a GPU it takes what the fit planned with."""
    gpu = engine.requirements.gpu
    return {
        "gpu_memory_fraction": f"{USABLE_PERCENT / 100:g}",
        "gpus": str(gpu.count if gpu else 1),
        "kv_precision": (engine.kv_precision or KvPrecision.FP16).value,
    }


def tensorrt_llm(engine: EngineSpec, batch: int, context: int) -> dict[str, str]:
    """What TensorRT-LLM is told beside batch and context: the KV cache is paged, and sized as the fit says."""
    kept = context if engine.architecture.global_layers else min(context, engine.architecture.window or context)
    return {
        "gpu_memory_fraction": f"{USABLE_PERCENT / 100:g}",
        "kv_tokens": str(batch * kept),
        "windows": ",".join(map(str, _windows(engine, context))),
    }


def unservable(engine: EngineSpec) -> str | None:
    """What the backend has against the engine, as `field: value: why`; None: nothing."""
    kv = engine.kv_precision or KvPrecision.FP16
    if engine.backend is Backend.VLLM and kv not in _VLLM_KV:
        return f"spec.kvPrecision: {kv}: vLLM's KV cache is {' or '.join(_VLLM_KV)}"
    gpu = engine.requirements.gpu
    if engine.backend is Backend.TENSORRT_LLM and gpu is not None and gpu.count > 1:
        return f"spec.requirements.gpu.count: {gpu.count}: tensorrtllm is served on one GPU; vllm splits over several"
    return None


def _windows(engine: EngineSpec, context: int) -> list[int]:
    """Tokens kept, per layer; one number where all layers keep as many. Global layers come last of each period."""
    shape = engine.architecture
    window = min(context, shape.window or context)
    keep_all = min(shape.global_layers or 0, shape.layers)
    if window == context or keep_all == 0:
        return [window]
    whole = {(i + 1) * shape.layers // keep_all - 1 for i in range(keep_all)}
    return [context if layer in whole else window for layer in range(shape.layers)]


def tensorrt(pb: Any, engine: EngineSpec, batch: int) -> Any:
    """A TensorRT plan with its KV cache in and out of each step, key and value of every layer by name."""
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
