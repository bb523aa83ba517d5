"""SmolLM2 as vLLM serves it on CPU: the checkpoint that `r1plus engine convert` makes, its engine, its repository."""

from pathlib import Path
from typing import Final

from devcluster.cache import cache_dir
from r1plus_model_repo.catalog.types import VLLM_ON_CPU, Engine
from r1plus_model_repo.importing import smollm2
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from r1plus_model_repo.importing.model import VLLM, Claims
from r1plus_model_repo.importing.options import ImportOptions
from r1plus_model_repo.importing.package.manifest import build_spec
from r1plus_model_repo.importing.readers import read_source
from r1plus_model_repo.importing.source import fetch_weights
from support.engine.server import deliver

OPENVINO_TWIN: Final = "smollm2-full-f16"
"""The shipped engine with the same numbers."""
NAME: Final = "smollm2-full-vllm"


def convert_smollm2(target: Path) -> Path:
    """Write the checkpoint to the folder `target`; return that."""
    source = fetch_weights(smollm2.WEIGHTS, cache_dir() / "engines" / ".source", print)
    return convert_gguf_to_checkpoint(source, target, "F16", print).folder


def describe_on_cpu(checkpoint: Path, cpu: str = "1") -> Engine:
    """Return the R1PlusEngine that `r1plus engine import --backend vllm --gpus 0` makes of the checkpoint."""
    options = ImportOptions(NAME, "full", "smollm2", cpu=cpu, backend=VLLM, gpus=0)
    model = read_source(checkpoint, Claims(), VLLM_ON_CPU)
    return Engine(NAME, build_spec(options, model, "0" * 64, checkpoint.name))


def deliver_vllm(root: Path, checkpoint: Path, batch: int, context: int, threads: int = 1) -> Path:
    """Configure the checkpoint for vLLM on CPU in a model repository below `root`; return that."""
    return deliver(root, describe_on_cpu(checkpoint, str(threads)).spec, checkpoint, batch, context)
