"""The request's tensors as checked values. Errors name the input, the value and the limit."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from r1plus_contract import inference
from r1plus_model_repo.backends.constraint.constraints import Constraint, parse_constraint
from r1plus_model_repo.backends.json_input import load_json
from r1plus_model_repo.backends.text.messages import ChatMessage, measure_json_limit, parse_messages

MAX_STOP_STRINGS: Final = 16
MAX_STOP_CHARACTERS: Final = 256
MAX_STOP_BYTES: Final = 64 * 1024
"""Largest JSON array: the maximum number of strings, with each character escaped."""
MAX_TEMPERATURE: Final = 100.0


class RefusedError(ValueError):
    """An invalid request; the message goes to the client."""


class SchemaMemoryFullError(Exception):
    """A schema or grammar for which the engine has no memory now; the message goes to the client."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request. None: the client did not set it."""

    prompt: str = ""
    """Empty where there are `messages`."""
    system: str = ""
    raw_prompt: bool = False
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    messages: tuple[ChatMessage, ...] = ()
    count_only: bool = False
    constraint: Constraint | None = None
    schema_owner: str = ""
    """Who asks for the constraint; empty: the caller does not say."""

    @property
    def prompt_input(self) -> str:
        """Name of the input with the prompt, for messages."""
        return inference.MESSAGES if self.messages else inference.PROMPT

    @property
    def constraint_input(self) -> str:
        """Name of the input with the constraint; empty without one."""
        return self.constraint.name if self.constraint else ""

    @property
    def conversation(self) -> list[dict[str, str]]:
        """What a chat template is applied to; the same for `text_input` as for one message of the user."""
        if self.messages:
            return [{"role": message.role.value, "content": message.content} for message in self.messages]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.prompt}]


def parse_request(inputs: Mapping[str, Any], context: int, schema_owner: str = "") -> GenerationRequest:
    """Read the inputs that are present (one value each, BYTES as bytes).

    Reject sizes that no engine can take before decoding.

    Raises:
        RefusedError: the request is invalid; the message lists all problems.
    """
    check_size(inputs.get(inference.PROMPT, b""), inputs.get(inference.SYSTEM, b""), context)
    problems: list[str] = []
    constraints = {name: _parse_text(inputs, name, problems) for name in (inference.RESPONSE_SCHEMA, inference.GRAMMAR)}
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
        messages=_parse_messages(inputs, context, problems),
        count_only=bool(inputs.get(inference.COUNT_ONLY, False)),
        constraint=parse_constraint(constraints, problems),
        schema_owner=schema_owner,
    )
    if inference.PROMPT not in inputs and inference.MESSAGES not in inputs:
        problems.append(f"{inference.PROMPT}: missing; send it, or {inference.MESSAGES}")
    if problems:
        raise RefusedError("; ".join(problems))
    return request


def check_size(prompt: str | bytes, system: str | bytes, context: int) -> None:
    """Reject a prompt whose length no tokenizer fits into the context: tokenising takes time and memory."""
    length, limit = len(prompt) + len(system), measure_limit(context)
    if length > limit:
        unit = "bytes" if isinstance(prompt, bytes) else "characters"
        raise RefusedError(
            f"{inference.PROMPT}: prompt and system message have {length} {unit}, more than {limit}, which is"
            f" {inference.MOST_PROMPT_BYTES_PER_TOKEN} for each of the {context} tokens of the context;"
            " shorten the prompt"
        )


def check_request_size(request: GenerationRequest, context: int) -> None:
    """Reject a request whose texts no tokenizer fits into the context, as `check_size` does."""
    check_size(request.prompt, request.system, context)
    _check_contents(request.messages, context)


def _check_contents(messages: Iterable[ChatMessage], context: int) -> None:
    length, limit = sum(len(message.content.encode()) for message in messages), measure_limit(context)
    if length > limit:
        raise RefusedError(
            f"{inference.MESSAGES}: contents have {length} bytes, more than {limit}, which is"
            f" {inference.MOST_PROMPT_BYTES_PER_TOKEN} for each of the {context} tokens of the context;"
            " leave out the oldest"
        )


def measure_limit(context: int) -> int:
    """Return the most bytes of a prompt."""
    return inference.MOST_PROMPT_BYTES_PER_TOKEN * context


def limit_new_tokens(request: GenerationRequest, prompt_tokens: int, context: int) -> int:
    """Return how many tokens may be generated. Without `max_new_tokens` it is the default, or the rest of the context.

    Raises:
        RefusedError: prompt and answer exceed the context; the message has both lengths.
    """
    if prompt_tokens == 0:
        raise RefusedError(f"{request.prompt_input}: is empty; send at least one token")
    room = context - prompt_tokens
    new_tokens = request.max_new_tokens or min(inference.DEFAULT_MAX_NEW_TOKENS, max(room, 1))
    if new_tokens > room:
        excess = inference.ContextExcess(prompt_tokens, new_tokens, context)
        remedy = f"shorten the prompt or lower {inference.MAX_NEW_TOKENS}"
        raise RefusedError(f"{request.prompt_input}: {excess.explain(remedy)}")
    return new_tokens


def _parse_messages(inputs: Mapping[str, Any], context: int, problems: list[str]) -> tuple[ChatMessage, ...]:
    if inference.MESSAGES not in inputs:
        return ()
    for name in (inference.PROMPT, inference.SYSTEM, inference.RAW_PROMPT):
        if name in inputs:
            problems.append(f"{inference.MESSAGES}: excludes {name}; send one of them")
    size, limit = len(inputs[inference.MESSAGES]), measure_json_limit(measure_limit(context))
    if size > limit:
        problems.append(f"{inference.MESSAGES}: {size} bytes exceed {limit}; leave out the oldest")
        return ()
    count = len(problems)
    text = _parse_text(inputs, inference.MESSAGES, problems)
    messages = parse_messages(text, context, problems) if len(problems) == count else ()
    _check_contents(messages, context)
    return messages


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
        value = load_json(text)
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
