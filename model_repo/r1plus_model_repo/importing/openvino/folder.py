"""A folder with an OpenVINO model, as `optimum-cli export openvino` writes it; it is imported unchanged."""

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
from r1plus_model_repo.importing.model import Claims, ImportFindings, SourceModel
from r1plus_model_repo.importing.openvino.ir import FILES
from r1plus_model_repo.kv_shape import KvShape, read_kv_shape

OPENVINO_CONFIG = "openvino_config.json"
COPIED_FILES = (TEMPLATE, CONFIG, GENERATION_CONFIG, OPENVINO_CONFIG, SPECIAL_TOKENS, TOKENIZER_CONFIG)
"""Optional files of the folder, in addition to the model's six."""
_PRECISIONS = {"int8": "INT8", "int4": "INT4", "nf4": "NF4", "fp16": "FP16", "fp32": "FP32", "f8e4m3": "FP8"}


def read_folder(source: Path, claims: Claims) -> SourceModel:
    """Read the model in the folder. Raise WeightsError with everything that is wrong or missing."""
    findings = ImportFindings()
    _check_files(source, findings)
    findings.raise_problems(source)
    config = read_json(source, CONFIG, findings)
    try:
        shape = read_kv_shape(source)
    except ValueError as error:
        findings.problems.append(f"{error}; export it stateful: optimum-cli export openvino")
        shape = KvShape(0, 0, 0)
    _check_config(config, shape, findings)
    has_tokenizer_template = b"chat_template" in (source / "openvino_tokenizer.xml").read_bytes()
    check_template(source, findings, is_optional=has_tokenizer_template)
    length = config.get("max_position_embeddings")
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    limit = min((n for n in (length, window) if type(n) is int and n > 0), default=None)
    context = findings.choose_context(claims.context_length, limit)
    precision = claims.precision or _read_precision(source, findings)
    if precision is None:
        findings.problems.append(f"--precision: no {OPENVINO_CONFIG} has it; give it, such as INT8, INT4 or FP16")
    if claims.parameters is None:
        findings.problems.append(
            "--parameters: an OpenVINO model does not have it; give the number of weights, such as 135000000"
        )
    findings.raise_problems(source)
    size = (source / "openvino_model.bin").stat().st_size
    files = (*FILES, *(name for name in COPIED_FILES if (source / name).is_file()))
    return SourceModel(source, files, shape, context, claims.parameters or 0, precision or "", size)


def _check_files(source: Path, findings: ImportFindings) -> None:
    missing_files = [name for name in FILES if not (source / name).is_file()]
    if missing_files and any(source.glob("*.gguf")):
        one = sorted(source.glob("*.gguf"))[0].name
        findings.problems.append(f"contains GGUF files: import one of them, such as {source / one}")
    elif missing_files:
        checkpoint = (source / CONFIG).is_file()
        kind = "a Hugging Face checkpoint" if checkpoint else "not a known model"
        gpu = "; or import it for GPUs as it is: --backend vllm" if checkpoint else ""
        findings.problems.append(
            f"is {kind}, and the backend openvino serves OpenVINO IR; missing: {', '.join(missing_files)}. Convert it:"
            f" optimum-cli export openvino --model DIR OUT, then import OUT{gpu}"
        )
    check_links(source, (*FILES, *COPIED_FILES), findings)


def _check_config(config: Mapping[str, Any], shape: KvShape, findings: ImportFindings) -> None:
    """Check that config.json describes this model."""
    heads = config.get("num_key_value_heads", config.get("num_attention_heads"))
    for key, config_value, model_value in (
        ("num_hidden_layers", config.get("num_hidden_layers"), shape.layers),
        ("num_key_value_heads", heads, shape.kv_heads),
        ("head_dim", config.get("head_dim"), shape.head_size),
    ):
        if type(config_value) is int and shape.layers and config_value != model_value:
            findings.problems.append(f"{CONFIG}: {key}: {config_value}, the model has {model_value}; export both again")


def _read_precision(source: Path, findings: ImportFindings) -> str | None:
    config = read_json(source, OPENVINO_CONFIG, findings)
    quantisation = config.get("quantization_config")
    if isinstance(quantisation, dict) and quantisation.get("bits") in (4, 8):
        return f"INT{quantisation['bits']}"
    return _PRECISIONS.get(str(config.get("dtype", "")).lower())
