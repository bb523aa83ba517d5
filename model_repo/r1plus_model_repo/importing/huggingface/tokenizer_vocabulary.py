"""The vocabulary of a Hugging Face tokenizer as a GGUF file has it: the way back of `gguf_tokenizer`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.folder_files import GENERATION_CONFIG, TEMPLATE, TOKENIZER_CONFIG, read_json
from r1plus_model_repo.importing.huggingface.gguf_tokenizer import (
    CONTROL,
    NORMAL,
    SPLITTERS,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    build_tokenizer,
    find_splitter,
    find_vocabulary_problems,
)
from r1plus_model_repo.importing.huggingface.tokenizer_files import TOKENIZER
from r1plus_model_repo.importing.model import ImportFindings

_COMPARED: Final = ("added_tokens", "normalizer", "pre_tokenizer", "model")
_ROLES: Final = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
_FURTHER_ENDS: Final = ("eot", "eom")
"""Roles of the tokens that end an answer in addition to eos."""
_ADDED_OPTIONS: Final = ("special", "single_word", "lstrip", "rstrip")
"""What decides where an added token is found in a text."""
_OTHER_TOOL: Final = "convert the model to OpenVINO IR with optimum-intel and import the folder"


def read_vocabulary(source: Path, size: int) -> tuple[Vocabulary, str]:
    """Return the vocabulary, filled up to `size` tokens, and the chat template.

    Raises:
        WeightsError: it is no byte-level BPE, or a GGUF file has no word for a part of it.
    """
    findings = ImportFindings()
    tokenizer = read_json(source, TOKENIZER, findings)
    config = read_json(source, TOKENIZER_CONFIG, findings)
    generation = read_json(source, GENERATION_CONFIG, findings)
    problems = [*findings.problems, *_find_problems(tokenizer, size)]
    problems += [*_find_prefix_problems(tokenizer, config), *_find_end_problems(generation, config)]
    if problems:
        raise WeightsError(str(source), tuple(problems))
    vocabulary = _build_vocabulary(tokenizer, config, generation, size)
    problems = [*find_vocabulary_problems(vocabulary), *_compare(tokenizer, build_tokenizer(vocabulary))]
    template = (source / TEMPLATE).read_text("utf-8") if (source / TEMPLATE).is_file() else config.get("chat_template")
    if not isinstance(template, str):
        problems.append(f"{TOKENIZER_CONFIG}: chat_template: not one text; keep the one that is to be served")
    if problems:
        raise WeightsError(str(source), tuple(problems))
    return vocabulary, str(template)


def _find_problems(tokenizer: Mapping[str, Any], size: int) -> Iterator[str]:
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        yield f"{TOKENIZER}: model: not BPE with a vocabulary; {_OTHER_TOOL}"
        return
    if find_splitter(tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")) is None:
        known = ", ".join(SPLITTERS)
        yield f"{TOKENIZER}: pre_tokenizer: how it splits text is none of {known}; {_OTHER_TOOL}"
    added = tokenizer.get("added_tokens", [])
    if not isinstance(added, list) or not all(map(_is_added_token, added)):
        yield f"{TOKENIZER}: added_tokens: not a list of tokens with id and content; get the file again"
        return
    numbers = [*model["vocab"].values(), *(one["id"] for one in added)]
    if not all(type(number) is int and 0 <= number < size for number in numbers):
        yield f"{TOKENIZER}: a token has an id beyond the model's {size}; get tokenizer and weights of the same model"
    if not isinstance(merges := model.get("merges"), list) or not all(map(_is_merge, merges)):
        yield f"{TOKENIZER}: model: merges: not a list of pairs of tokens; get the file again"


def _is_added_token(token: object) -> bool:
    return isinstance(token, dict) and type(token.get("id")) is int and isinstance(token.get("content"), str)


def _is_merge(merge: object) -> bool:
    if isinstance(merge, list):
        return len(merge) == 2 and all(isinstance(part, str) for part in merge)
    return isinstance(merge, str)


def _find_prefix_problems(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    prefix = _list_prefix(tokenizer)
    if prefix not in ([], [_read_token(config.get("bos_token"))]):
        yield (
            f"{TOKENIZER}: post_processor: adds other tokens than bos_token before a text, which a GGUF file has no"
            f" word for; {_OTHER_TOOL}"
        )


def _list_prefix(tokenizer: Mapping[str, Any]) -> list[str] | None:
    """Return the tokens that the post-processor adds before a text; None: it does something else."""
    processor = tokenizer.get("post_processor")
    try:
        steps = processor["processors"] if processor and processor["type"] == "Sequence" else [processor]
        templates = [step for step in steps if step and step["type"] != "ByteLevel"]  # that one moves offsets only
        if not templates:
            return []
        (template,) = templates
        *prefix, text = template["single"]
        is_plain = template["type"] == "TemplateProcessing" and text["Sequence"]["id"] == "A"
        return [one["SpecialToken"]["id"] for one in prefix] if is_plain else None
    except (TypeError, KeyError, ValueError):
        return None


def _find_end_problems(generation: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    ends = _list_ends(generation)
    most = len(_FURTHER_ENDS) + (config.get("eos_token") is not None)
    if len(ends) > most:
        yield (
            f"{GENERATION_CONFIG}: eos_token_id: {len(ends)} tokens end an answer, and a GGUF file has words for"
            f" {most}; keep those that the chat template ends with"
        )


def _list_ends(generation: Mapping[str, Any]) -> list[Any]:
    ends = generation.get("eos_token_id")
    return [] if ends is None else ends if isinstance(ends, list) else [ends]


def _build_vocabulary(
    tokenizer: Mapping[str, Any], config: Mapping[str, Any], generation: Mapping[str, Any], size: int
) -> Vocabulary:
    tokens, types = [f"[PAD{number}]" for number in range(size)], [UNUSED] * size
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], types[number] = token, NORMAL
    for one in tokenizer.get("added_tokens", []):
        tokens[one["id"]] = str(one.get("content"))
        types[one["id"]] = CONTROL if one.get("special") else USER_DEFINED
    numbers = {token: number for number, token in enumerate(tokens)}
    special = {
        role: numbers[text] for role, name in _ROLES.items() if (text := _read_token(config.get(name))) in numbers
    }
    further = [end for end in _list_ends(generation) if end != special.get("eos")]
    special |= dict(zip(_FURTHER_ENDS, further, strict=False))
    merges = [one if isinstance(one, str) else " ".join(one) for one in tokenizer["model"]["merges"]]
    splitter = find_splitter(tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")) or ""
    return Vocabulary(splitter, tokens, types, merges, special, adds_bos=bool(_list_prefix(tokenizer)))


def _compare(original: Mapping[str, Any], translated: Mapping[str, Any]) -> Iterator[str]:
    """Yield parts that the GGUF file would change."""
    for part in _COMPARED:
        if _simplify(part, original.get(part)) != _simplify(part, translated.get(part)):
            yield f"{TOKENIZER}: {part}: a GGUF file has no word for a part of it, so ids would change; {_OTHER_TOOL}"


def _simplify(part: str, value: Any) -> Any:
    """Return what decides ids: older files write merges as text, and leave out what is off."""
    if part == "added_tokens":
        return sorted(
            (one["id"], one["content"], *(bool(one.get(option)) for option in _ADDED_OPTIONS)) for one in value or []
        )
    if part != "model":
        return value
    merges = [one if isinstance(one, str) else " ".join(one) for one in value["merges"]]
    options = {key: one for key, one in value.items() if key not in ("vocab", "merges", "type") and one}
    return value["vocab"], merges, options


def _read_token(value: object) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None
