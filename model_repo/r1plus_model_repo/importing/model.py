"""A model to import, whatever form it comes in: a GGUF file, or a folder with an OpenVINO model.

Everything that can be read is read; nothing is written here. What a folder does not tell is asked for by an option.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_model_repo.importing import chat_template
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf_model import read_model
from r1plus_model_repo.importing.openvino_ir import FILES
from r1plus_model_repo.kv_shape import KvShape, kv_shape

MOST_JSON_BYTES = 16 * 2**20
COPIED = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "openvino_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""Of a folder, beside the model's six files."""
_QUANTISED = {"int8": "INT8", "int4": "INT4", "nf4": "NF4", "fp16": "FP16", "fp32": "FP32", "f8e4m3": "FP8"}


@dataclass(frozen=True, slots=True)
class Claims:
    """What the options say of the model: needed where it does not say it itself, refused where it says otherwise."""

    context_length: int | None = None
    """May be less than the model's."""
    parameters: int | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """What an engine's catalog entry says of the model, and the files that it is made from."""

    source: Path
    files: tuple[str, ...]
    """Of a folder; empty for a GGUF file."""
    shape: KvShape
    context_length: int
    parameters: int
    precision: str
    weights_bytes: int
    notes: tuple[str, ...] = ()


def read(source: Path, claims: Claims) -> Model:
    """The model at `source`; WeightsError lists everything that is wrong or missing."""
    return _folder(source, claims) if source.is_dir() else _gguf(source, claims)


def _gguf(source: Path, claims: Claims) -> Model:
    facts = read_model(source)
    problems: list[str] = []
    context = _at_most("--context", claims.context_length, facts.context_length, problems)
    for option, said, found in (
        ("--parameters", claims.parameters, facts.parameters),
        ("--precision", claims.precision, facts.precision),
    ):
        if said is not None and said != found:
            problems.append(f"{option}: {said} is not what the file holds, {found}; leave the option out")
    _stop(source, problems)
    shape = KvShape(facts.layers, facts.kv_heads, facts.head_size)
    return Model(source, (), shape, context, facts.parameters, facts.precision, facts.weights_bytes, facts.notes)


def _folder(source: Path, claims: Claims) -> Model:
    problems: list[str] = []
    _all_there(source, problems)
    _stop(source, problems)
    config = _json(source / "config.json", problems)
    try:
        shape = kv_shape(source)
    except ValueError as error:
        problems.append(f"{error}; export it stateful: optimum-cli export openvino")
        shape = KvShape(0, 0, 0)
    _agree(config, shape, problems)
    _template(source, problems)
    length = config.get("max_position_embeddings")
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    known = min((n for n in (length, window) if type(n) is int and n > 0), default=None)
    context = _at_most("--context", claims.context_length, known, problems)
    precision = claims.precision or _precision(source, problems)
    if precision is None:
        problems.append("--precision: no openvino_config.json says it; give it, such as INT8, INT4 or FP16")
    if claims.parameters is None:
        problems.append(
            "--parameters: an OpenVINO model does not say it; give the number of weights, such as 135000000"
        )
    _stop(source, problems)
    size = (source / "openvino_model.bin").stat().st_size
    files = (*FILES, *(name for name in COPIED if (source / name).is_file()))
    return Model(source, files, shape, context, claims.parameters or 0, precision or "", size)


def _all_there(source: Path, problems: list[str]) -> None:
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing and any(source.glob("*.gguf")):
        one = sorted(source.glob("*.gguf"))[0].name
        problems.append(f"holds GGUF files: import one of them, such as {source / one}")
    elif missing:
        kind = "a Hugging Face checkpoint" if (source / "config.json").is_file() else "no model that is known"
        problems.append(
            f"is {kind}, and the backend openvino serves OpenVINO IR; missing: {', '.join(missing)}. Convert it:"
            " optimum-cli export openvino --model DIR OUT, then import OUT"
        )
    root = source.resolve()
    for name in (*FILES, *COPIED):
        if (source / name).is_symlink() and not (source / name).resolve().is_relative_to(root):
            problems.append(f"{name}: is a link to {(source / name).readlink()}, out of the folder; put the file there")


def _json(path: Path, problems: list[str]) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, at most {MOST_JSON_BYTES} are read")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name}: not JSON: {error}; get the file again")
        return {}
    if isinstance(found, dict):
        return found
    problems.append(f"{path.name}: no JSON object; get the file again")
    return {}


def _agree(config: Mapping[str, Any], shape: KvShape, problems: list[str]) -> None:
    """config.json is a claim about the model, too."""
    heads = config.get("num_key_value_heads", config.get("num_attention_heads"))
    for key, said, found in (
        ("num_hidden_layers", config.get("num_hidden_layers"), shape.layers),
        ("num_key_value_heads", heads, shape.kv_heads),
        ("head_dim", config.get("head_dim"), shape.head_size),
    ):
        if type(said) is int and shape.layers and said != found:
            problems.append(f"config.json: {key}: {said}, the model has {found}; export both anew")


def _template(source: Path, problems: list[str]) -> None:
    name, text = "chat_template.jinja", None
    if (source / name).is_file():
        with (source / name).open("rb") as stream:
            text = stream.read(chat_template.MOST_BYTES + 1).decode(errors="replace")
    else:
        name = "tokenizer_config.json"
        text = _json(source / name, problems).get("chat_template")
    if isinstance(text, str):
        wrong = chat_template.problem(text)
    elif b"chat_template" in (source / "openvino_tokenizer.xml").read_bytes():
        wrong = None
    else:
        wrong = "no chat template, so no question could be put; add the model's chat_template.jinja"
    if wrong:
        problems.append(f"{name}: {wrong}")


def _precision(source: Path, problems: list[str]) -> str | None:
    config = _json(source / "openvino_config.json", problems)
    quantisation = config.get("quantization_config")
    if isinstance(quantisation, dict) and quantisation.get("bits") in (4, 8):
        return f"INT{quantisation['bits']}"
    return _QUANTISED.get(str(config.get("dtype", "")).lower())


def _at_most(option: str, said: int | None, known: int | None, problems: list[str]) -> int:
    if said is None and known is None:
        problems.append(f"{option}: no config.json says it (max_position_embeddings); give the model's context length")
    if said is not None and known is not None and said > known:
        problems.append(f"{option}: {said} exceeds {known}, what the model was trained for; give at most that")
    return said or known or 0


def _stop(source: Path, problems: list[str]) -> None:
    if problems:
        raise WeightsError(str(source), tuple(problems))
