"""Which reader reads a model: by its backend, and by whether it is a file or a folder. Called by `engine` alone."""

from pathlib import Path

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.model import read_model
from r1plus_model_repo.importing.huggingface.checkpoint import read_checkpoint
from r1plus_model_repo.importing.model import OPENVINO, TENSORRT_LLM, VLLM, Claims, Findings, Model
from r1plus_model_repo.importing.openvino.folder import read_folder
from r1plus_model_repo.importing.tensorrt_llm.checkpoint import read_trtllm
from r1plus_model_repo.kv_shape import KvShape

_FOLDERS = {OPENVINO: read_folder, VLLM: read_checkpoint, TENSORRT_LLM: read_trtllm}
_WANTED = {VLLM: "a folder with a Hugging Face checkpoint", TENSORRT_LLM: "a folder with checkpoint/ and tokenizer/"}


def read(source: Path, claims: Claims, backend: str = OPENVINO) -> Model:
    """The model at `source`, for one of `BACKENDS`; WeightsError lists everything that is wrong or missing."""
    if source.is_dir():
        return _FOLDERS[backend](source, claims)
    if backend == OPENVINO:
        return _gguf(source, claims)
    kind = "is a file" if source.exists() else "is not there"
    remedy = f"give {_WANTED[backend]}; a .gguf file is imported with --backend {OPENVINO}"
    raise WeightsError(str(source), (f"--backend: {backend}: {kind}; {remedy}",))


def _gguf(source: Path, claims: Claims) -> Model:
    facts, found = read_model(source), Findings()
    context = found.context(claims.context_length, facts.context_length)
    found.agrees(claims, facts.parameters, facts.precision)
    found.stop(source)
    shape = KvShape(facts.layers, facts.kv_heads, facts.head_size)
    return Model(source, (), shape, context, facts.parameters, facts.precision, facts.weights_bytes, facts.notes)
