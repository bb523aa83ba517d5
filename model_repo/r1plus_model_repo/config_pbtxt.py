"""config.pbtxt of an engine, through Triton's own protobuf: a typo or a wrong type is an error here, not a failed load.

Called by the operator's plan. The text is part of the serving identity, so the same engine, batch and context always
give the same bytes. Only fields of every supported server are used: an unknown field fails the load.
"""

import math
from types import SimpleNamespace
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from r1plus_contract import inference, names
from r1plus_contract.engine.openvino import SPARSE_BACKEND
from r1plus_model_repo import config_gpu
from r1plus_model_repo.catalog.attention import Attention
from r1plus_model_repo.catalog.quantity import cores_of
from r1plus_model_repo.catalog.types import Backend, EngineSpec
from r1plus_model_repo.triton_descriptor import MODEL_CONFIG_PROTO


def _load_messages() -> Any:
    """Return a namespace with the classes and the values of enums of model_config.proto.

    The pool is this module's own: tritonclient registers a file of the same name in protobuf's default pool, which
    takes no second one that differs. A process may load both, in any order and of different releases.
    """
    file = DescriptorPool().AddSerializedFile(MODEL_CONFIG_PROTO)
    classes = {name: GetMessageClass(message) for name, message in file.message_types_by_name.items()}
    values = {value.name: value.number for enum in file.enum_types_by_name.values() for value in enum.values}
    return SimpleNamespace(**classes, **values)


pb = _load_messages()
_INPUTS = (
    (inference.PROMPT, pb.TYPE_STRING),
    (inference.SYSTEM, pb.TYPE_STRING),
    (inference.RAW_PROMPT, pb.TYPE_BOOL),
    (inference.MAX_NEW_TOKENS, pb.TYPE_INT32),
    (inference.TEMPERATURE, pb.TYPE_FP32),
    (inference.TOP_P, pb.TYPE_FP32),
    (inference.REPETITION_PENALTY, pb.TYPE_FP32),
    (inference.SEED, pb.TYPE_UINT64),
    (inference.STOP, pb.TYPE_STRING),
    (inference.MESSAGES, pb.TYPE_STRING),
    (inference.COUNT_ONLY, pb.TYPE_BOOL),
    (inference.RESPONSE_SCHEMA, pb.TYPE_STRING),
    (inference.GRAMMAR, pb.TYPE_STRING),
)
"""All optional for Triton: which go together is checked by `backends.requests`."""
_OUTPUTS = (
    (inference.TEXT, pb.TYPE_STRING),
    (inference.FINISH_REASON, pb.TYPE_STRING),
    (inference.PROMPT_TOKENS, pb.TYPE_INT32),
    (inference.COMPLETION_TOKENS, pb.TYPE_INT32),
)


def render_config(
    engine: EngineSpec, *, batch: int, context: int, kv_cache_bytes: int, engine_path: str = "", build_key: str = ""
) -> str:
    """Return the config.pbtxt that serves `engine` with `batch` slots of `context` tokens.

    `engine_path` is the folder of the files; empty: its place in the pod. `build_key` is `gpu_build.Recipe.key` of the
    build; empty: the files are those of the artifact.
    """
    if engine.backend is Backend.TENSORRT:
        return str(text_format.MessageToString(config_gpu.build_tensorrt_config(pb, engine, batch)))
    parameters = {
        "backend": engine.backend.value,
        "engine_path": engine_path or names.DIR_ENGINE,
        "max_batch": str(batch),
        "context": str(context),
    }
    if engine.is_vllm_on_cpu or engine.backend is Backend.TORCH:
        parameters |= {"kv_cache_bytes": str(kv_cache_bytes), "threads": str(count_threads(engine.requirements.cpu))}
    elif engine.backend is Backend.VLLM:
        parameters |= config_gpu.build_vllm_parameters(engine)
    elif engine.backend is Backend.TENSORRT_LLM:
        parameters |= config_gpu.build_tensorrt_llm_parameters(engine, batch, context)
    else:
        del parameters["backend"]  # The default: another parameter would change the identity.
        parameters |= _build_openvino_parameters(engine, kv_cache_bytes)
        if engine.attention is not None:
            parameters |= _build_attention_parameters(engine.attention)
    if build_key:
        parameters["built"] = build_key
    return str(text_format.MessageToString(_build_python_model(engine, parameters)))


def _build_python_model(engine: EngineSpec, parameters: dict[str, str]) -> Any:
    """Return the model of Triton's Python backend that owns the engine."""
    on_gpu = engine.requirements.gpu is not None
    group = pb.ModelInstanceGroup
    config = pb.ModelConfig(
        name=inference.MODEL_NAME,
        backend="python",
        # No dynamic batcher: requests join and leave the running batch inside the engine.
        max_batch_size=0,
        input=[pb.ModelInput(name=n, data_type=kind, dims=[1], optional=True) for n, kind in _INPUTS],
        output=[pb.ModelOutput(name=n, data_type=kind, dims=[1]) for n, kind in _OUTPUTS],
        # KIND_MODEL: the engine itself selects the pod's GPUs.
        instance_group=[group(count=1, kind=group.KIND_MODEL if on_gpu else group.KIND_CPU)],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


def parse_config(text: str) -> Any:
    """Parse a config.pbtxt. text_format.ParseError has line and column."""
    return text_format.Parse(text, pb.ModelConfig())


def _build_openvino_parameters(engine: EngineSpec, kv_cache_bytes: int) -> dict[str, str]:
    return {
        "kv_cache_bytes": str(kv_cache_bytes),
        "kv_bytes_per_token": str(engine.shape.kv_bytes_per_token),
        "threads": str(count_threads(engine.requirements.cpu)),
    }


def _build_attention_parameters(attention: Attention) -> dict[str, str]:
    parameters = {"backend": SPARSE_BACKEND}
    if attention.sparse is not None:
        parameters["sparse_threshold"] = repr(attention.sparse.threshold)
    if (eviction := attention.eviction) is not None:
        parameters["eviction_start_tokens"] = str(eviction.start_tokens)
        parameters["eviction_recent_tokens"] = str(eviction.recent_tokens)
        parameters["eviction_max_tokens"] = str(eviction.max_tokens)
    return parameters


def count_threads(cpu: str) -> int:
    """Return the whole threads for a CPU limit: more would be throttled."""
    return max(1, math.floor(cores_of(cpu)))
