"""The request's tensors as checked values. Errors name the input, the value and the limit."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from r1plus_contract import inference

MAX_STOP_STRINGS: Final = 16
MAX_STOP_CHARACTERS: Final = 256
MAX_STOP_BYTES: Final = 64 * 1024
"""Largest JSON array: the maximum number of strings, with each character escaped."""
MAX_TEMPERATURE: Final = 100.0


class RefusedError(ValueError):
    """An invalid request; the message goes to the client."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request. None: the client did not set it."""

    prompt: str
    system: str = ""
    raw_prompt: bool = False
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


def parse_request(inputs: Mapping[str, Any], context: int) -> GenerationRequest:
    """Read the inputs that are present (one value each, BYTES as bytes).

    Reject sizes that no engine can take before decoding.

    Raises:
        RefusedError: the request is invalid; the message lists all problems.
    """
    check_size(inputs.get(inference.PROMPT, b""), inputs.get(inference.SYSTEM, b""), context)
    problems: list[str] = []
    request = GenerationRequest(
        prompt=_parse_text(inputs, inference.PROMPT, problems),
        system=_parse_text(inputs, inference.SYSTEM, problems),
        raw_prompt=bool(inputs.get(inference.RAW_PROMPT, False)),
        max_new_tokens=_parse_new_tokens(inputs, problems),
        temperature=_parse_number(inputs, inference.TEMPERATURE, 0.0, problems, low=0.0, high=MAX_TEMPERATURE),
        top_p=_parse_number(inputs, inference.TOP_P, 1.0, problems, low=0.0, high=1.0, low_open=True),
        repetition_penalty=_parse_number(inputs, inference.REPETITION_PENALTY, 1.0, problems, low=0.0, low_open=True),
        seed=int(inputs[inference.SEED]) if inference.SEED in inputs else None,
        stop=_parse_stop(inputs, problems),
    )
    if inference.PROMPT not in inputs:
        problems.append(f"{inference.PROMPT}: missing")
    if problems:
        raise RefusedError("; ".join(problems))
    return request


def check_size(prompt: str | bytes, system: str | bytes, context: int) -> None:
    """Reject a prompt whose length no tokenizer fits into the context: tokenising takes time and memory."""
    length, limit = len(prompt) + len(system), inference.MOST_PROMPT_BYTES_PER_TOKEN * context
    if length > limit:
        unit = "bytes" if isinstance(prompt, bytes) else "characters"
        raise RefusedError(
            f"{inference.PROMPT}: prompt and system message have {length} {unit}, more than {limit}, which is"
            f" {inference.MOST_PROMPT_BYTES_PER_TOKEN} for each of the {context} tokens of the context;"
            " shorten the prompt"
        )


def limit_new_tokens(request: GenerationRequest, prompt_tokens: int, context: int) -> int:
    """Return how many tokens may be generated. Without `max_new_tokens` it is the default, or the rest of the context.

    Raises:
        RefusedError: prompt and answer exceed the context; the message has both lengths.
    """
    if prompt_tokens == 0:
        raise RefusedError(f"{inference.PROMPT}: is empty; send at least one token")
    room = context - prompt_tokens
    new_tokens = request.max_new_tokens or min(inference.DEFAULT_MAX_NEW_TOKENS, max(room, 1))
    if new_tokens > room:
        tokens = "token" if new_tokens == 1 else "tokens"
        raise RefusedError(
            f"{inference.PROMPT}: prompt has {prompt_tokens} tokens; with {new_tokens} new {tokens} that is"
            f" {prompt_tokens + new_tokens}, more than the context of {context};"
            f" shorten the prompt or lower {inference.MAX_NEW_TOKENS}"
        )
    return new_tokens


def _parse_text(inputs: Mapping[str, Any], name: str, problems: list[str]) -> str:
    value = inputs.get(name, b"")
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        problems.append(f"{name}: not UTF-8: byte {error.start} is 0x{value[error.start]:02x}")
        return ""


def _parse_new_tokens(inputs: Mapping[str, Any], problems: list[str]) -> int | None:
    if inference.MAX_NEW_TOKENS not in inputs:
        return None
    value = int(inputs[inference.MAX_NEW_TOKENS])
    if value < 1:
        problems.append(f"{inference.MAX_NEW_TOKENS}: {value} is less than 1")
    return value


def _parse_number(
    inputs: Mapping[str, Any],
    name: str,
    default: float,
    problems: list[str],
    *,
    low: float,
    high: float = math.inf,
    low_open: bool = False,
) -> float:
    value = float(inputs.get(name, default))
    if not math.isfinite(value):
        problems.append(f"{name}: {value} is not a finite number")
    elif value < low or (low_open and value == low):
        problems.append(f"{name}: {value:g} must be {'greater than' if low_open else 'at least'} {low:g}")
    elif value > high:
        problems.append(f"{name}: {value:g} exceeds {high:g}")
    return value


def _parse_stop(inputs: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    name = inference.STOP
    if (size := len(inputs.get(name, b""))) > MAX_STOP_BYTES:
        problems.append(f"{name}: {size} bytes exceed {MAX_STOP_BYTES}")
        return ()
    text = _parse_text(inputs, name, problems)
    if not text:
        return ()
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        problems.append(f'{name}: {text!r:.80} is not a JSON array of non-empty strings such as ["\\n"]')
        return ()
    if len(value) > MAX_STOP_STRINGS:
        problems.append(f"{name}: {len(value)} strings exceed {MAX_STOP_STRINGS}")
    longest = max((len(item) for item in value), default=0)
    if longest > MAX_STOP_CHARACTERS:
        problems.append(f"{name}: a string of {longest} characters exceeds {MAX_STOP_CHARACTERS}")
    return tuple(value)
