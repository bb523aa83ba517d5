"""config.pbtxt of an engine, through Triton's own protobuf: a typo or a wrong type is an error here, not a failed load.

Called by the operator's plan. The text is part of the serving identity, so the same engine, batch and context always
give the same bytes. Only fields that every supported server knows are used: an unknown field fails the load.
"""

import math
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from r1plus_contract import inference, names
from r1plus_model_repo import config_gpu
from r1plus_model_repo.catalog.quantity import cores_of
from r1plus_model_repo.catalog.types import Backend, EngineSpec


def _model_config_pb2() -> Any:
    """tritonclient's generated module alone, which needs nothing but protobuf.

    The package around it imports gRPC and numpy: 45 MB and half a second of each start of the operator, which calls no
    Triton.
    """
    package = find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pb = _model_config_pb2()
_INPUTS = (
    (inference.PROMPT, pb.TYPE_STRING, False),
    (inference.SYSTEM, pb.TYPE_STRING, True),
    (inference.RAW_PROMPT, pb.TYPE_BOOL, True),
    (inference.MAX_NEW_TOKENS, pb.TYPE_INT32, True),
    (inference.TEMPERATURE, pb.TYPE_FP32, True),
    (inference.TOP_P, pb.TYPE_FP32, True),
    (inference.REPETITION_PENALTY, pb.TYPE_FP32, True),
    (inference.SEED, pb.TYPE_UINT64, True),
    (inference.STOP, pb.TYPE_STRING, True),
)
_OUTPUTS = (
    (inference.TEXT, pb.TYPE_STRING),
    (inference.FINISH_REASON, pb.TYPE_STRING),
    (inference.PROMPT_TOKENS, pb.TYPE_INT32),
    (inference.COMPLETION_TOKENS, pb.TYPE_INT32),
)


def render(
    engine: EngineSpec, *, batch: int, context: int, kv_cache_bytes: int, engine_path: str = "", built: str = ""
) -> str:
    """The config.pbtxt that serves `engine` with `batch` slots of `context` tokens; bytes of KV cache as sized.

    `engine_path` is where the files lie; in the pod that is the contract's place. `built` is the key of the build that
    made them (`building.Recipe.key`); empty: they are the artifact's own.
    """
    if engine.backend is Backend.TENSORRT:
        return str(text_format.MessageToString(config_gpu.tensorrt(pb, engine, batch)))
    given = {
        "backend": engine.backend.value,
        "engine_path": engine_path or names.DIR_ENGINE,
        "max_batch": str(batch),
        "context": str(context),
    }
    if engine.backend is Backend.VLLM:
        given |= config_gpu.vllm(engine)
    elif engine.backend is Backend.TENSORRT_LLM:
        given |= config_gpu.tensorrt_llm(engine, batch, context)
    else:
        del given["backend"]  # Absent it means this one: a parameter more would be another identity, to be gated anew.
        given |= _openvino(engine, kv_cache_bytes)
    if built:
        given["built"] = built
    return str(text_format.MessageToString(_in_process(engine, given)))


def _in_process(engine: EngineSpec, parameters: dict[str, str]) -> Any:
    """The model of Triton's Python backend that owns the engine."""
    on_gpu = engine.requirements.gpu is not None
    group = pb.ModelInstanceGroup
    config = pb.ModelConfig(
        name=inference.MODEL_NAME,
        backend="python",
        # No dynamic batcher: requests join and leave the running batch inside the engine.
        max_batch_size=0,
        input=[pb.ModelInput(name=n, data_type=kind, dims=[1], optional=open_) for n, kind, open_ in _INPUTS],
        output=[pb.ModelOutput(name=n, data_type=kind, dims=[1]) for n, kind in _OUTPUTS],
        # KIND_MODEL: the engine itself takes the GPUs that the pod has.
        instance_group=[group(count=1, kind=group.KIND_MODEL if on_gpu else group.KIND_CPU)],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


def parse(text: str) -> Any:
    """Read a config.pbtxt back; text_format.ParseError names line and column."""
    return text_format.Parse(text, pb.ModelConfig())


def _openvino(engine: EngineSpec, kv_cache_bytes: int) -> dict[str, str]:
    return {
        "kv_cache_bytes": str(kv_cache_bytes),
        "kv_bytes_per_token": str(engine.shape.kv_bytes_per_token),
        "threads": str(threads(engine.requirements.cpu)),
    }


def threads(cpu: str) -> int:
    """Whole threads for a CPU limit: more than it allows would only be throttled."""
    return max(1, math.floor(cores_of(cpu)))
