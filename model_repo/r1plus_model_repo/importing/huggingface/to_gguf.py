"""A GGUF file from a Hugging Face checkpoint, the way back of `from_gguf`: the backend openvino serves such a file.

Called by `r1plus engine convert`. What a GGUF file of these architectures has no word for is refused: a model that
computes differently would be served and answer wrongly. The tokenizer is translated back and compared: the ids and the
way in which text is split are those of tokenizer.json. One tensor is in memory at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
import numpy

from r1plus_contract.engine.llama_architecture import (
    DERIVED,
    PLAIN_POSITIONS,
    POSITION_FIELDS,
    ModelError,
    find_turned_problem,
    read_position_kind,
    read_shape,
)
from r1plus_model_repo.importing.errors import ImportingError, WeightsError
from r1plus_model_repo.importing.folder_files import CONFIG, read_json
from r1plus_model_repo.importing.gguf.model import read_model
from r1plus_model_repo.importing.huggingface.checkpoint import read_checkpoint
from r1plus_model_repo.importing.huggingface.from_gguf import LAYER_NAMES, MOST_TOLD, PERMUTED, TOP_NAMES, order_rows
from r1plus_model_repo.importing.huggingface.safetensors_header import Tensor, read_tensors
from r1plus_model_repo.importing.huggingface.tokenizer_vocabulary import read_vocabulary
from r1plus_model_repo.importing.huggingface.weights import HEAD
from r1plus_model_repo.importing.model import Claims, ImportFindings
from r1plus_model_repo.importing.package.folders import lock_folder

_LLAMA, _QWEN2 = "llama", "qwen2"
_TYPES: Final[Mapping[str, tuple[gguf.GGMLQuantizationType, gguf.LlamaFileType, str]]] = {
    "F16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16, "<f2"),
    "F32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32, "<f4"),
}
PRECISIONS: Final = tuple(_TYPES)
_STORED: Final = {"F16": "<f2", "F32": "<f4", "BF16": "<u2"}
_PARTS: Final = {new: old for old, new in LAYER_NAMES.items()}
_TOPS: Final = {new: old for old, new in TOP_NAMES.items()}
_BIASED: Final = ("attn_q", "attn_k", "attn_v")
"""Parts of a Qwen2's layer that have a bias."""
_UNSUPPORTED: Final = {
    "attention_bias": "biases of a Llama's attention",
    "mlp_bias": "biases of the feed-forward layers",
    "quantization_config": "quantised weights",
    "layer_types": "layers with another attention",
    "r1plus": "the options of R1+'s own architecture",
}
"""Fields of config.json that change how the model computes, and that such a GGUF file has no word for."""
_NEEDED: Final = {
    "hidden_size": (int,),
    "intermediate_size": (int,),
    "vocab_size": (int,),
    "max_position_embeddings": (int,),
    "rms_norm_eps": (float,),
}


@dataclass(frozen=True, slots=True)
class _Weight:
    """A tensor of the checkpoint, and its place in the GGUF file."""

    file: Path
    stored: Tensor
    name: str
    rows: Any | None
    """For each of its rows, the row in the GGUF file; None: the same."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the GGUF file will have."""

    architecture: str
    keys: Mapping[str, tuple[Any, Any, Any]]
    weights: Sequence[_Weight]


def find_conversion_problems(source: Path) -> tuple[str, ...]:
    """Return why a checkpoint becomes no GGUF file, as `FILE: FIELD: what is wrong; what to do`. Reads no weights."""
    try:
        _plan(source)
    except WeightsError as error:
        return error.problems
    return ()


def convert_checkpoint_to_gguf(
    source: Path, target: Path, precision: str, progress: Callable[[str], None]
) -> tuple[str, ...]:
    """Write the GGUF file `target`, which appears when it is complete; return notes for the user.

    Raises:
        WeightsError: the folder is no checkpoint that can be converted; it has every reason.
        ImportingError: `target` exists, another process makes one beside it, or a number does not fit the precision.
    """
    if target.exists():
        raise ImportingError(f"{target}: already exists; remove it, or give another --out")
    progress(f"reading {source}")
    plan = _plan(source)
    part = target.with_name(f".part-{target.name}")
    with lock_folder(target.absolute().parent):
        try:
            _write(part, plan, precision, progress)
            progress("checking the file")
            notes = read_model(part).notes
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return notes


def _plan(source: Path) -> _Plan:
    model = read_checkpoint(source, Claims())
    findings = ImportFindings()
    config = read_json(source, CONFIG, findings)
    problems = [*findings.problems, *_find_problems(config)] or _find_number_problems(config)
    if problems:
        raise WeightsError(str(source), tuple(problems[:MOST_TOLD]))
    keys = {**_build_keys(config), **_build_tokenizer_keys(source, int(config["vocab_size"]))}
    weights = _place_weights(source, config, [name for name in model.files if name.endswith(".safetensors")])
    return _Plan(str(config["model_type"]), keys, weights)


def _find_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what such a GGUF file has no word for, and what is missing."""
    kind = config.get("model_type")
    if kind not in (_LLAMA, _QWEN2):
        remedy = "convert the model to OpenVINO IR with optimum-intel and import the folder"
        yield f"{CONFIG}: model_type: {kind!r:.40} is not one of {_LLAMA}, {_QWEN2}; {remedy}"
    if (activation := config.get("hidden_act", "silu")) != "silu":
        yield f"{CONFIG}: hidden_act: {activation!r:.40}: only silu is computed by the backend; use another model"
    for field, what in _UNSUPPORTED.items():
        value = config.get(field)
        if value and not (field == "layer_types" and set(value) == {"full_attention"}):
            yield f"{CONFIG}: {field}: {what} would be lost in a GGUF file; use another model"
    if config.get("sliding_window") and config.get("use_sliding_window", kind == _LLAMA):
        yield f"{CONFIG}: sliding_window: windows would be lost in a GGUF file; use another model"
    yield from _find_position_problems(config)
    for field, types in _NEEDED.items():
        if type(config.get(field)) not in types:
            yield f"{CONFIG}: {field}: {config.get(field)!r:.40} is not a number; get the file again"


def _find_position_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for field in POSITION_FIELDS:
        if (kind := read_position_kind(config, field)) != PLAIN_POSITIONS:
            what = f"{kind!r:.40}: scaled positions are not computed by the backend"
            yield f"{CONFIG}: {field}: {what}; use another model"
    if problem := find_turned_problem(config):
        yield f"{CONFIG}: {problem}; use another model"


def _find_number_problems(config: Mapping[str, Any]) -> list[str]:
    """Return the first number that no model of these architectures has."""
    try:
        read_shape({**config, "model_type": _LLAMA})
    except ModelError as error:
        return [f"{CONFIG}: {error}"]
    return []


def _build_keys(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any, Any]]:
    """Return what the file says of the model's shape: key -> value, type, type of its items."""
    kind, name = gguf.GGUFValueType, config["model_type"]
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    numbers = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "rope.dimension_count": head_size,
        "attention.key_length": head_size,
        "attention.value_length": head_size,
    }
    parameters = config.get("rope_parameters")
    theta = (parameters if isinstance(parameters, dict) else {}).get("rope_theta", config.get("rope_theta", 10000.0))
    return {
        **{f"{name}.{key}": (value, kind.UINT32, None) for key, value in numbers.items()},
        f"{name}.attention.layer_norm_rms_epsilon": (float(config["rms_norm_eps"]), kind.FLOAT32, None),
        f"{name}.rope.freq_base": (float(theta), kind.FLOAT32, None),
    }


def _build_tokenizer_keys(source: Path, size: int) -> dict[str, tuple[Any, Any, Any]]:
    kind = gguf.GGUFValueType
    vocabulary, template = read_vocabulary(source, size)
    roles = {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "padding": "padding", "unknown": "unknown"}
    return {
        "tokenizer.ggml.model": ("gpt2", kind.STRING, None),
        "tokenizer.ggml.pre": (vocabulary.splitter, kind.STRING, None),
        "tokenizer.ggml.tokens": (list(vocabulary.tokens), kind.ARRAY, kind.STRING),
        "tokenizer.ggml.token_type": (list(vocabulary.types), kind.ARRAY, kind.INT32),
        "tokenizer.ggml.merges": (list(vocabulary.merges), kind.ARRAY, kind.STRING),
        **{
            f"tokenizer.ggml.{key}_token_id": (vocabulary.special_ids[role], kind.UINT32, None)
            for role, key in roles.items()
            if role in vocabulary.special_ids
        },
        "tokenizer.ggml.add_bos_token": (vocabulary.adds_bos, kind.BOOL, None),
        "tokenizer.chat_template": (template, kind.STRING, None),
    }


def _place_weights(source: Path, config: Mapping[str, Any], files: Sequence[str]) -> list[_Weight]:
    """Return all tensors by their names in the GGUF file. Raise WeightsError for one that it has no place for."""
    weights, problems = [], []
    is_tied = config.get("tie_word_embeddings") is True
    for file in files:
        for name, tensor in read_tensors(source / file, file).items():
            if (name == HEAD and is_tied) or name.endswith(DERIVED):
                continue
            if (place := _translate(name, str(config["model_type"]))) is None:
                problems.append(f"{file}: tensor {name!r:.120}: a GGUF file has no place for it; use another model")
            elif tensor.dtype not in _STORED:
                problems.append(f"{file}: tensor {name!r:.120}: {tensor.dtype}; get the model in F16, BF16 or F32")
            else:
                weights.append(_Weight(source / file, tensor, place, _find_rows(place, config)))
    if problems:
        raise WeightsError(str(source), tuple(problems[:MOST_TOLD]))
    return sorted(weights, key=lambda one: one.name)


def _translate(name: str, architecture: str) -> str | None:
    if name in _TOPS:
        return _TOPS[name]
    head, _, rest = name.partition("model.layers.")
    layer, _, path = rest.partition(".")
    part, _, kind = path.rpartition(".")
    if head or not layer.isdecimal() or part not in _PARTS:
        return None
    has_place = kind == "weight" or (kind == "bias" and architecture == _QWEN2 and _PARTS[part] in _BIASED)
    return f"blk.{layer}.{_PARTS[part]}.{kind}" if has_place else None


def _find_rows(name: str, config: Mapping[str, Any]) -> Any | None:
    part = name.split(".")[2] if name.startswith("blk.") else ""
    if config["model_type"] != _LLAMA or part not in PERMUTED:
        return None
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    return order_rows(heads if part == "attn_q" else config.get("num_key_value_heads") or heads, size)


def _write(part: Path, plan: _Plan, precision: str, progress: Callable[[str], None]) -> None:
    kind, file_type, _ = _TYPES[precision]
    writer = gguf.GGUFWriter(part, plan.architecture)
    try:
        writer.add_file_type(int(file_type))
        for key, (value, type_, inner) in plan.keys.items():
            writer.add_key_value(key, value, type_, sub_type=inner)
        for one in plan.weights:
            is_matrix = len(one.stored.shape) > 1
            size = one.stored.elements * (2 if is_matrix and precision == "F16" else 4)
            stored_as = kind if is_matrix else gguf.GGMLQuantizationType.F32
            writer.add_tensor_info(one.name, one.stored.shape, numpy.dtype("float32"), size, raw_dtype=stored_as)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for number, one in enumerate(plan.weights):
            if number % 50 == 0:
                progress(f"tensor {number + 1} of {len(plan.weights)}")
            writer.write_tensor_data(_read_numbers(one, precision if len(one.stored.shape) > 1 else "F32"))
    finally:
        writer.close()


def _read_numbers(weight: _Weight, precision: str) -> Any:
    """Return a tensor's numbers in the order of the GGUF file."""
    stored = weight.stored
    with weight.file.open("rb") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
        stream.seek(begin + stored.begin)
        numbers = numpy.frombuffer(stream.read(stored.bytes), _STORED[stored.dtype])
    if stored.dtype == "BF16":  # The upper half of an F32.
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    with numpy.errstate(over="ignore"):
        result = numbers.astype(_TYPES[precision][2]).reshape(stored.shape)
    if not numpy.isfinite(result).all():
        largest = float(numpy.abs(numbers.astype("<f4")).max())
        raise ImportingError(
            f"tensor {weight.name}: {largest:g} does not fit {precision}, whose largest number is 65504; give"
            " --precision F32"
            if numpy.isfinite(largest)
            else f"tensor {weight.name}: has a number that is infinite or none; get the checkpoint again"
        )
    if weight.rows is None:
        return result
    ordered = numpy.empty_like(result)
    ordered[weight.rows] = result
    return ordered
