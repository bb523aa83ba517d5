"""A Hugging Face checkpoint, which vLLM loads as it is: which files are copied, and what engine they make.

Only the files named here go into an engine: no program, no pickle, no other format that vLLM would prefer.
"""

from pathlib import Path
from typing import Final

from r1plus_contract.engine.llama_architecture import R1PLUS
from r1plus_model_repo.importing.folder_files import CONFIG, Values, check_links, read_json
from r1plus_model_repo.importing.huggingface.config import read_shape
from r1plus_model_repo.importing.huggingface.config_numbers import check_numbers, check_token_ids
from r1plus_model_repo.importing.huggingface.safetensors_header import SUFFIX
from r1plus_model_repo.importing.huggingface.tokenizer_files import list_tokenizer_files
from r1plus_model_repo.importing.huggingface.weights import (
    MISTRAL,
    SERVED_PRECISION,
    check_tensors,
    check_vocabulary,
    describe_served_weights,
    read_shards,
)
from r1plus_model_repo.importing.model import VLLM, Claims, GpuDetails, ImportFindings, SourceModel
from r1plus_model_repo.kv_shape import KvShape

PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_checkpoint(source: Path, claims: Claims, served: str = SERVED_PRECISION) -> SourceModel:
    """Read the checkpoint in the folder, whose floating weights are served in the precision `served`.

    Raise WeightsError with everything that is wrong or missing.
    """
    findings = ImportFindings()
    _check_kind(source, findings)
    check_links(source, (CONFIG,), findings)
    findings.raise_problems(source)
    config = Values(read_json(source, CONFIG, findings), CONFIG, findings)
    findings.raise_problems(source)
    shape = read_shape(config, claims, findings, is_float16=served == SERVED_PRECISION)
    check_numbers(config)
    check_token_ids(source, config, findings)
    weight_files, tensors = read_shards(source, findings)
    tokenizer = list_tokenizer_files(source, findings)
    if tensors and not findings.problems:
        check_tensors(shape, config, tensors, findings)
        check_vocabulary(source, tensors, findings)
    weights_served = describe_served_weights(config, shape.has_tied_embeddings, tensors, claims, findings, served)
    findings.raise_problems(source)
    return SourceModel(
        source,
        (CONFIG, *weight_files, *tokenizer),
        KvShape(shape.layers, shape.kv_heads, shape.head_size),
        shape.context,
        weights_served.parameters,
        weights_served.precision,
        weights_served.bytes,
        tuple(findings.notes),
        GpuDetails(VLLM, shape.heads, shape.hidden_size, shape.intermediate, shape.window, shape.global_layers),
    )


def read_vllm_checkpoint(source: Path, claims: Claims, served: str = SERVED_PRECISION) -> SourceModel:
    """Read a checkpoint for vLLM, as `read_checkpoint` does. It would serve R1+'s own architecture as another one."""
    model, findings = read_checkpoint(source, claims, served), ImportFindings()
    config = Values(read_json(source, CONFIG, findings), CONFIG, findings)
    if config.fields.get(R1PLUS) is not None or config.fields.get("model_type") == R1PLUS:
        what = "the options of R1+'s own architecture, which vLLM does not compute"
        config.add_problem(R1PLUS, what, "import the checkpoint with --backend torch")
    findings.raise_problems(source)
    return model


def _check_kind(source: Path, findings: ImportFindings) -> None:
    """Check that the folder is a checkpoint and has no programs."""
    if files := sorted(path.name for path in source.glob("*.gguf")):
        findings.problems.append(
            f"{files[0]}: a GGUF file in the folder: vLLM serves checkpoints; import that file with --backend openvino,"
            " or remove it"
        )
    if files := sorted(path.name for path in source.glob("*.py")):
        findings.problems.append(
            f"{files[0]}: a program in the folder: the model's own code is never trusted; use a model that"
            " transformers and vLLM support without it, or remove the file if the model does not need it"
        )
    if not any(not path.name.startswith(MISTRAL) for path in source.glob(f"*{SUFFIX}")):
        findings.problems.append(_explain_missing_weights(source))
    if not (source / CONFIG).exists() and not (source / CONFIG).is_symlink():
        adapter = (source / "adapter_config.json").exists()
        what = "this is an adapter: merge it into its model first" if adapter else "get the model's checkpoint"
        findings.problems.append(f"{CONFIG}: missing, so this is not a Hugging Face checkpoint; {what}")


def _explain_missing_weights(source: Path) -> str:
    pickles = sorted(path.name for pattern in PICKLES for path in source.glob(pattern))
    if pickles:
        danger = "a pickle, which executes code when it is loaded"
        return f"{pickles[0]}: {danger}; get the model in safetensors, or convert it in a sandbox"
    if other := sorted(path.name for path in source.glob(f"{MISTRAL}*{SUFFIX}")):
        return f"{other[0]}: weights in Mistral's own format; get the model's model*{SUFFIX}"
    return f"*{SUFFIX}: missing, so there are no weights; get the model's checkpoint"
