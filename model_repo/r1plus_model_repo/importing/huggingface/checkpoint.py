"""A Hugging Face checkpoint, which vLLM loads as it is: what of the folder is taken, and what engine it makes.

Only what is named here goes into an engine: no program, no pickle, no file in another format that vLLM would prefer.
"""

from pathlib import Path
from typing import Final

from r1plus_model_repo.importing.folder_files import CONFIG, Values, check_links, read_json
from r1plus_model_repo.importing.huggingface.config import read_shape
from r1plus_model_repo.importing.huggingface.safetensors_header import SUFFIX
from r1plus_model_repo.importing.huggingface.tokenizer_files import tokenizer_files
from r1plus_model_repo.importing.huggingface.weights import MISTRAL, check_tensors, read_shards, served
from r1plus_model_repo.importing.model import VLLM, Claims, Findings, Model, OnGpu
from r1plus_model_repo.kv_shape import KvShape

PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_checkpoint(source: Path, claims: Claims) -> Model:
    """The checkpoint in the folder; WeightsError lists everything that is wrong or missing."""
    found = Findings()
    _kind(source, found)
    check_links(source, (CONFIG,), found)
    found.stop(source)
    config = Values(read_json(source, CONFIG, found), CONFIG, found)
    found.stop(source)
    shape = read_shape(config, claims, found)
    weights, tensors = read_shards(source, found)
    tokenizer = tokenizer_files(source, found)
    if tensors and not found.problems:
        check_tensors(shape, config, tensors, found)
    is_served = served(config, shape.tied, tensors, claims, found)
    found.stop(source)
    return Model(
        source,
        (CONFIG, *weights, *tokenizer),
        KvShape(shape.layers, shape.kv_heads, shape.head_size),
        shape.context,
        is_served.parameters,
        is_served.precision,
        is_served.bytes,
        tuple(found.notes),
        OnGpu(VLLM, shape.heads, shape.hidden, shape.intermediate, shape.window, shape.global_layers),
    )


def _kind(source: Path, found: Findings) -> None:
    """Is it a checkpoint at all, and one without programs?"""
    if files := sorted(path.name for path in source.glob("*.gguf")):
        found.problems.append(
            f"{files[0]}: a GGUF file in the folder: vLLM serves checkpoints; import that file with --backend openvino,"
            " or take it away"
        )
    if files := sorted(path.name for path in source.glob("*.py")):
        found.problems.append(
            f"{files[0]}: a program in the folder: the model's own code is never trusted; take a model that"
            " transformers and vLLM know without it, or take it away if it is not the model's"
        )
    if not any(not path.name.startswith(MISTRAL) for path in source.glob(f"*{SUFFIX}")):
        found.problems.append(_no_weights(source))
    if not (source / CONFIG).exists() and not (source / CONFIG).is_symlink():
        adapter = (source / "adapter_config.json").exists()
        what = "this is an adapter: merge it into its model first" if adapter else "get the model's checkpoint"
        found.problems.append(f"{CONFIG}: missing, so this is no Hugging Face checkpoint; {what}")


def _no_weights(source: Path) -> str:
    pickles = sorted(path.name for pattern in PICKLES for path in source.glob(pattern))
    if pickles:
        executes = "a pickle, which executes what its author wrote when it is loaded"
        return f"{pickles[0]}: {executes}; get the model in safetensors, or convert it where that may happen"
    if other := sorted(path.name for path in source.glob(f"{MISTRAL}*{SUFFIX}")):
        return f"{other[0]}: weights in Mistral's own format; get the model's model*{SUFFIX}"
    return f"*{SUFFIX}: missing, so there are no weights; get the model's checkpoint"
