"""The choice of a reader for a model: by backend, and by whether the source is a file or a folder.

Called by `engine`.
"""

from pathlib import Path

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.model import read_model
from r1plus_model_repo.importing.huggingface.checkpoint import read_checkpoint
from r1plus_model_repo.importing.model import OPENVINO, TENSORRT_LLM, VLLM, Claims, ImportFindings, SourceModel
from r1plus_model_repo.importing.openvino.folder import read_folder
from r1plus_model_repo.importing.tensorrt_llm.checkpoint import read_trtllm
from r1plus_model_repo.kv_shape import KvShape

_FOLDERS = {OPENVINO: read_folder, VLLM: read_checkpoint, TENSORRT_LLM: read_trtllm}
_EXPECTED_SOURCES = {
    VLLM: "a folder with a Hugging Face checkpoint",
    TENSORRT_LLM: "a folder with checkpoint/ and tokenizer/",
}


def read_source(source: Path, claims: Claims, backend: str = OPENVINO) -> SourceModel:
    """Read the model at `source` for one of `BACKENDS`. Raise WeightsError with everything that is wrong or missing."""
    if source.is_dir():
        return _FOLDERS[backend](source, claims)
    if backend == OPENVINO:
        return _read_gguf(source, claims)
    kind = "is a file" if source.exists() else "does not exist"
    remedy = f"give {_EXPECTED_SOURCES[backend]}; a .gguf file is imported with --backend {OPENVINO}"
    raise WeightsError(str(source), (f"--backend: {backend}: {kind}; {remedy}",))


def _read_gguf(source: Path, claims: Claims) -> SourceModel:
    facts, findings = read_model(source), ImportFindings()
    context = findings.choose_context(claims.context_length, facts.context_length)
    findings.check_claims(claims, facts.parameters, facts.precision)
    findings.raise_problems(source)
    shape = KvShape(facts.layers, facts.kv_heads, facts.head_size)
    return SourceModel(source, (), shape, context, facts.parameters, facts.precision, facts.weights_bytes, facts.notes)
