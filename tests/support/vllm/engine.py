"""SmolLM2 as vLLM serves it on CPU: the checkpoint that `r1plus engine convert` makes, and its model repository."""

from pathlib import Path
from typing import Final

from google.protobuf import text_format

from devcluster.cache import cache_dir
from r1plus_model_repo.config_pbtxt import parse_config, render_config
from r1plus_model_repo.delivery import assemble
from r1plus_model_repo.importing import smollm2
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from r1plus_model_repo.importing.source import fetch_weights
from support.engine.server import ENGINES

OPENVINO_TWIN: Final = "smollm2-full-f16"
"""The shipped engine with the same numbers."""
_TEMPLATE: Final = "r1plus-edge-fp16-vllm"
"""A shipped engine whose configuration is changed to one for CPU: an R1PlusEngine for vLLM on CPU does not exist."""
_NUMBER_BYTES: Final = 4
"""Of a key or value: vLLM computes in 32 bits here."""
_BLOCK_TOKENS: Final = 128
"""vLLM's block on CPU; one block stays empty."""


def convert_smollm2(target: Path) -> Path:
    """Write the checkpoint to the folder `target`; return that."""
    source = fetch_weights(smollm2.WEIGHTS, cache_dir() / "engines" / ".source", print)
    return convert_gguf_to_checkpoint(source, target, "F16", print).folder


def compute_kv_cache_bytes(batch: int, context: int) -> int:
    """Return the size of a KV cache that holds `batch` full contexts."""
    shape = ENGINES[OPENVINO_TWIN].architecture
    per_token = 2 * shape.layers * shape.kv_heads * shape.head_size * _NUMBER_BYTES
    return (batch * context + _BLOCK_TOKENS) * per_token


def deliver_vllm(root: Path, checkpoint: Path, batch: int, context: int, threads: int = 1) -> Path:
    """Configure the checkpoint for vLLM on CPU in a model repository below `root`; return that.

    Several threads wait for each other hundreds of times per token: on busy cores one thread is faster.
    """
    config = parse_config(render_config(ENGINES[_TEMPLATE], batch=batch, context=context, kv_cache_bytes=0))
    for group in config.instance_group:
        group.kind = group.KIND_CPU
    for name in ("gpus", "gpu_memory_fraction", "kv_precision"):
        del config.parameters[name]
    changed = {
        "engine_path": str(checkpoint),
        "kv_cache_bytes": str(compute_kv_cache_bytes(batch, context)),
        "threads": str(threads),
    }
    for name, value in changed.items():
        config.parameters[name].string_value = value
    assemble(str(text_format.MessageToString(config)).encode(), root)
    return root / "models"
