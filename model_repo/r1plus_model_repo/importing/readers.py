"""The choice of a reader for a model: by backend, and by whether the source is a file or a folder.

Called by `engine`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from r1plus_model_repo.catalog.types import VLLM_ON_CPU
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.model import read_model
from r1plus_model_repo.importing.huggingface.checkpoint import read_vllm_checkpoint
from r1plus_model_repo.importing.huggingface.own_architecture import read_own_architecture
from r1plus_model_repo.importing.huggingface.weights import SERVED_ON_CPU
from r1plus_model_repo.importing.model import OPENVINO, TENSORRT_LLM, TORCH, VLLM, Claims, ImportFindings, SourceModel
from r1plus_model_repo.importing.openvino.folder import read_folder
from r1plus_model_repo.importing.tensorrt_llm.checkpoint import read_trtllm
from r1plus_model_repo.kv_shape import KvShape

_FOLDERS: Final[Mapping[str, Callable[[Path, Claims], SourceModel]]] = {
    OPENVINO: read_folder,
    VLLM: read_vllm_checkpoint,
    VLLM_ON_CPU: partial(read_vllm_checkpoint, served=SERVED_ON_CPU),
    TENSORRT_LLM: read_trtllm,
    TORCH: read_own_architecture,
}
_EXPECTED_SOURCES = {
    VLLM: "a folder with a Hugging Face checkpoint",
    VLLM_ON_CPU: "a folder with a Hugging Face checkpoint",
    TENSORRT_LLM: "a folder with checkpoint/ and tokenizer/",
    TORCH: "a folder with a checkpoint of R1+'s architecture or a Llama's",
}


def read_source(source: Path, claims: Claims, runtime: str = OPENVINO) -> SourceModel:
    """Read the model at `source` for an `EngineSpec.runtime`. Raise WeightsError with all that is wrong or missing."""
    if source.is_dir():
        return _FOLDERS[runtime](source, claims)
    if runtime == OPENVINO:
        return _read_gguf(source, claims)
    kind = "is a file" if source.exists() else "does not exist"
    remedy = f"give {_EXPECTED_SOURCES[runtime]}; a .gguf file is imported with --backend {OPENVINO}"
    raise WeightsError(str(source), (f"--backend: {runtime.removesuffix('-cpu')}: {kind}; {remedy}",))


def _read_gguf(source: Path, claims: Claims) -> SourceModel:
    facts, findings = read_model(source), ImportFindings()
    context = findings.choose_context(claims.context_length, facts.context_length)
    findings.check_claims(claims, facts.parameters, facts.precision)
    findings.raise_problems(source)
    shape = KvShape(facts.layers, facts.kv_heads, facts.head_size)
    return SourceModel(source, (), shape, context, facts.parameters, facts.precision, facts.weights_bytes, facts.notes)
