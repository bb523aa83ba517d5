"""config.pbtxt of the GPU backends: what NVIDIA's Triton images read. Called by `config_pbtxt.render`.

The names are the backends' own (tensorrtllm: inflight_batcher_llm; vllm: its README; tensorrt: the tensor names of
Optimum's ONNX export). They run where a GPU is; here they are generated, judged by Triton's rules and golden-tested.
"""

import json
from typing import Any

from r1plus_contract import inference
from r1plus_model_repo.catalog.types import EngineSpec, KvPrecision
from r1plus_policies.accelerators import USABLE_PERCENT

MAX_QUEUE = 1024
"""Requests that may wait; the next is answered 503 at once, rather than after everybody's patience."""


def tensorrt_llm(pb: Any, engine: EngineSpec, batch: int, context: int, path: str) -> Any:
    """The inflight batcher: requests join and leave the running batch; the KV cache is paged and sized as the fit says.

    The dynamic batcher before it only hands over what has arrived together. The engine process owns the GPUs, so the
    instance group is KIND_CPU.
    """
    kept = min(context, engine.architecture.window or context)
    config = pb.ModelConfig(
        name=inference.MODEL_NAME,
        backend="tensorrtllm",
        max_batch_size=batch,
        input=[_llm_input(pb, *row) for row in _LLM_INPUTS],
        output=[
            pb.ModelOutput(name="output_ids", data_type=pb.TYPE_INT32, dims=[-1, -1]),
            pb.ModelOutput(name="sequence_length", data_type=pb.TYPE_INT32, dims=[-1]),
        ],
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
        dynamic_batching=pb.ModelDynamicBatching(
            preferred_batch_size=[batch],
            default_queue_policy=pb.ModelQueuePolicy(max_queue_size=MAX_QUEUE),
        ),
    )
    return _with(
        config,
        {
            "gpt_model_type": "inflight_fused_batching",
            "gpt_model_path": path,
            "batch_scheduler_policy": "guaranteed_no_evict",
            "enable_chunked_context": "true",
            "kv_cache_free_gpu_mem_fraction": f"{USABLE_PERCENT / 100:g}",
            "max_tokens_in_paged_kv_cache": str(batch * context if engine.architecture.global_layers else batch * kept),
            "max_attention_window_size": ",".join(map(str, _windows(engine, context))),
            "max_beam_width": "1",
            "exclude_input_in_output": "true",
        },
    )


def _windows(engine: EngineSpec, context: int) -> list[int]:
    """Tokens kept, per layer; one number where all layers keep as many. Global layers come last of each period."""
    shape = engine.architecture
    window = min(context, shape.window or context)
    keep_all = min(shape.global_layers or 0, shape.layers)
    if window == context or keep_all == 0:
        return [window]
    whole = {(i + 1) * shape.layers // keep_all - 1 for i in range(keep_all)}
    return [context if layer in whole else window for layer in range(shape.layers)]


_LLM_INPUTS = (
    # name, type, dims, optional
    ("input_ids", "TYPE_INT32", (-1,), False),
    ("input_lengths", "TYPE_INT32", (1,), False),
    ("request_output_len", "TYPE_INT32", (1,), False),
    ("end_id", "TYPE_INT32", (1,), True),
    ("pad_id", "TYPE_INT32", (1,), True),
    ("stop_words_list", "TYPE_INT32", (2, -1), True),
    ("temperature", "TYPE_FP32", (1,), True),
    ("runtime_top_p", "TYPE_FP32", (1,), True),
    ("repetition_penalty", "TYPE_FP32", (1,), True),
    ("seed", "TYPE_UINT64", (1,), True),
    ("stop", "TYPE_BOOL", (1,), True),
    ("streaming", "TYPE_BOOL", (1,), True),
)


def _llm_input(pb: Any, name: str, kind: str, dims: tuple[int, ...], optional: bool) -> Any:
    """Lists may differ in length within a batch; single values are handed over without their dimension."""
    ragged = -1 in dims
    made = pb.ModelInput(name=name, data_type=pb.DataType.Value(kind), dims=dims, optional=optional)
    made.allow_ragged_batch = ragged
    if not ragged:
        made.reshape.SetInParent()
    return made


def vllm(pb: Any) -> Any:
    """Triton's vLLM backend: batching, lengths and memory are the engine's, in `vllm_model_json`."""
    return pb.ModelConfig(
        name=inference.MODEL_NAME,
        backend="vllm",
        max_batch_size=0,
        input=[
            pb.ModelInput(name="text_input", data_type=pb.TYPE_STRING, dims=[1]),
            pb.ModelInput(name="stream", data_type=pb.TYPE_BOOL, dims=[1], optional=True),
            pb.ModelInput(name="sampling_parameters", data_type=pb.TYPE_STRING, dims=[1], optional=True),
            pb.ModelInput(name="exclude_input_in_output", data_type=pb.TYPE_BOOL, dims=[1], optional=True),
        ],
        output=[pb.ModelOutput(name="text_output", data_type=pb.TYPE_STRING, dims=[-1])],
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_MODEL)],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )


_VLLM_KV = {KvPrecision.FP16: "auto", KvPrecision.FP8: "fp8"}


def vllm_model_json(engine: EngineSpec, *, batch: int, context: int, path: str) -> str:
    """1/model.json: the arguments of vLLM's engine, as text. Of a GPU it takes what the fit planned with.

    Raises:
        ValueError: vLLM has no KV cache of this precision.
    """
    gpu, kv = engine.requirements.gpu, engine.kv_precision or KvPrecision.FP16
    if kv not in _VLLM_KV:
        raise ValueError(f"spec.kvPrecision: {kv}: vLLM's KV cache is {' or '.join(_VLLM_KV)}")
    arguments = {
        "model": path,
        "dtype": "float16",
        "gpu_memory_utilization": USABLE_PERCENT / 100,
        "kv_cache_dtype": _VLLM_KV[kv],
        "max_model_len": context,
        "max_num_seqs": batch,
        "tensor_parallel_size": gpu.count if gpu else 1,
    }
    return json.dumps(arguments, indent=2, sort_keys=True) + "\n"


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


def _with(config: Any, parameters: dict[str, str]) -> Any:
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config
