"""A folder with an OpenVINO model, as `optimum-cli export openvino` writes it: imported as it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1plus_model_repo.importing.folder_files import (
    CONFIG,
    GENERATION_CONFIG,
    SPECIAL_TOKENS,
    TEMPLATE,
    TOKENIZER_CONFIG,
    check_links,
    check_template,
    read_json,
)
from r1plus_model_repo.importing.model import Claims, Findings, Model
from r1plus_model_repo.importing.openvino.ir import FILES
from r1plus_model_repo.kv_shape import KvShape, kv_shape

OPENVINO_CONFIG = "openvino_config.json"
COPIED = (TEMPLATE, CONFIG, GENERATION_CONFIG, OPENVINO_CONFIG, SPECIAL_TOKENS, TOKENIZER_CONFIG)
"""Of a folder, beside the model's six files."""
_QUANTISED = {"int8": "INT8", "int4": "INT4", "nf4": "NF4", "fp16": "FP16", "fp32": "FP32", "f8e4m3": "FP8"}


def read_folder(source: Path, claims: Claims) -> Model:
    """The model in the folder; WeightsError lists everything that is wrong or missing."""
    found = Findings()
    _all_there(source, found)
    found.stop(source)
    config = read_json(source, CONFIG, found)
    try:
        shape = kv_shape(source)
    except ValueError as error:
        found.problems.append(f"{error}; export it stateful: optimum-cli export openvino")
        shape = KvShape(0, 0, 0)
    _agree(config, shape, found)
    in_tokenizer = b"chat_template" in (source / "openvino_tokenizer.xml").read_bytes()
    check_template(source, found, elsewhere=in_tokenizer)
    length = config.get("max_position_embeddings")
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    known = min((n for n in (length, window) if type(n) is int and n > 0), default=None)
    context = found.context(claims.context_length, known)
    precision = claims.precision or _precision(source, found)
    if precision is None:
        found.problems.append(f"--precision: no {OPENVINO_CONFIG} says it; give it, such as INT8, INT4 or FP16")
    if claims.parameters is None:
        found.problems.append(
            "--parameters: an OpenVINO model does not say it; give the number of weights, such as 135000000"
        )
    found.stop(source)
    size = (source / "openvino_model.bin").stat().st_size
    files = (*FILES, *(name for name in COPIED if (source / name).is_file()))
    return Model(source, files, shape, context, claims.parameters or 0, precision or "", size)


def _all_there(source: Path, found: Findings) -> None:
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing and any(source.glob("*.gguf")):
        one = sorted(source.glob("*.gguf"))[0].name
        found.problems.append(f"holds GGUF files: import one of them, such as {source / one}")
    elif missing:
        checkpoint = (source / CONFIG).is_file()
        kind = "a Hugging Face checkpoint" if checkpoint else "no model that is known"
        gpu = "; or import it for GPUs as it is: --backend vllm" if checkpoint else ""
        found.problems.append(
            f"is {kind}, and the backend openvino serves OpenVINO IR; missing: {', '.join(missing)}. Convert it:"
            f" optimum-cli export openvino --model DIR OUT, then import OUT{gpu}"
        )
    check_links(source, (*FILES, *COPIED), found)


def _agree(config: Mapping[str, Any], shape: KvShape, found: Findings) -> None:
    """config.json is a claim about the model, too."""
    heads = config.get("num_key_value_heads", config.get("num_attention_heads"))
    for key, said, read in (
        ("num_hidden_layers", config.get("num_hidden_layers"), shape.layers),
        ("num_key_value_heads", heads, shape.kv_heads),
        ("head_dim", config.get("head_dim"), shape.head_size),
    ):
        if type(said) is int and shape.layers and said != read:
            found.problems.append(f"{CONFIG}: {key}: {said}, the model has {read}; export both anew")


def _precision(source: Path, found: Findings) -> str | None:
    config = read_json(source, OPENVINO_CONFIG, found)
    quantisation = config.get("quantization_config")
    if isinstance(quantisation, dict) and quantisation.get("bits") in (4, 8):
        return f"INT{quantisation['bits']}"
    return _QUANTISED.get(str(config.get("dtype", "")).lower())
