"""Sampling fields, common to all forms of a request: bounds, presets, stop strings, limits of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from r1plus_contract import inference
from r1plus_gateway.http.body.field_tables import IntegerField, NumberField, OtherField
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.presets import NO_PRESET, PRESETS
from r1plus_gateway.http.errors import InvalidFieldError
from r1plus_gateway.serving.triton_wire import Sampling
from r1plus_gateway.settings import ModelSettings

MOST_NEW_TOKENS: Final = 2**31 - 1
"""That a request may ask for; many programs send a number that exceeds any context."""
MOST_STOP_STRINGS: Final = 16
MOST_STOP_CHARACTERS: Final = 256
TEMPERATURE: Final = NumberField("temperature", 0.0, 2.0)
TOP_P: Final = NumberField("top_p", 0.0, 1.0, is_low_open=True)
REPETITION_PENALTY: Final = NumberField("repetition_penalty", 0.0, 10.0, is_low_open=True)
SEED: Final = IntegerField("seed", -(2**63), 2**64 - 1)
_STOP_STRING: Final = {"type": "string", "minLength": 1, "maxLength": MOST_STOP_CHARACTERS}
STOP: Final = OtherField(
    "stop", {"anyOf": [_STOP_STRING, {"type": "array", "items": _STOP_STRING, "maxItems": MOST_STOP_STRINGS}]}
)
SAMPLING: Final = (TEMPERATURE, TOP_P, REPETITION_PENALTY, SEED, STOP)


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """How many tokens an answer may have."""

    tokens: int
    """At most the context."""
    is_explicit: bool
    """Whether the request says so; else it is the default, or what the context leaves."""
    name: str = ""
    """Of the field; empty without one."""
    requested: int | None = None
    """As the request has it."""


def read_sampling(fields: Fields, preset: str, *, has_tools: bool = False) -> Sampling:
    """Read how to generate; `max_new_tokens` is set later. Explicit values win over the preset's.

    `has_tools`: the engine writes JSON, which no stop string of the answer's text may cut: it gets none.
    """
    values = PRESETS.get(preset, NO_PRESET)
    temperature = TEMPERATURE.read(fields)
    top_p = TOP_P.read(fields)
    penalty = REPETITION_PENALTY.read(fields)
    seed = SEED.read(fields)
    stop = () if has_tools else read_stop(fields)
    return Sampling(
        max_new_tokens=None,
        temperature=values.temperature if temperature is None else temperature,
        top_p=values.top_p if top_p is None else top_p,
        repetition_penalty=values.repetition_penalty if penalty is None else penalty,
        seed=None if seed is None else seed & (2**64 - 1),
        stop=orjson.dumps(stop) if stop else None,
    )


def build_limit_fields(*names: str) -> tuple[IntegerField, ...]:
    """Return the fields of a limit of new tokens. One above what the context leaves is lowered to that."""
    return tuple(IntegerField(name, 1, MOST_NEW_TOKENS) for name in names)


def read_token_limit(fields: Fields, model: ModelSettings, names: Sequence[IntegerField]) -> TokenLimit:
    """Read the limit of new tokens, which may have several names. One above the context asks for all that is left.

    Raises:
        InvalidFieldError: a value is out of bounds, or two names contradict each other.
    """
    read = {field.name: field.read(fields) for field in names}
    values = {name: value for name, value in read.items() if value is not None}
    if len(set(values.values())) > 1:
        (first, one), (second, other) = list(values.items())[:2]
        raise InvalidFieldError(second, f"{other} contradicts {first}, which is {one}; send one of them")
    for name, value in values.items():
        context = model.context_tokens
        return TokenLimit(min(value, context), is_explicit=value <= context, name=name, requested=value)
    return TokenLimit(min(model.max_new_tokens, model.context_tokens), is_explicit=False)


def find_lowered(limit: TokenLimit, new_tokens: int | None) -> dict[str, int]:
    """Return the field of a limit that was lowered, and to what; nothing if it was not, or the engine has done it."""
    is_lowered = limit.requested is not None and new_tokens is not None and new_tokens < limit.requested
    return {limit.name: new_tokens} if is_lowered and new_tokens is not None else {}


def resolve_new_tokens(limit: TokenLimit, model: ModelSettings, prompt_tokens: int | None) -> int | None:
    """Return the `max_new_tokens` that the engine gets; None lets it take its default, or what the context leaves."""
    if prompt_tokens is not None:
        return max(1, min(limit.tokens, model.context_tokens - prompt_tokens))
    if limit.is_explicit:
        return limit.tokens
    return None if limit.tokens >= inference.DEFAULT_MAX_NEW_TOKENS else limit.tokens


def read_stop(fields: Fields) -> tuple[str, ...]:
    """Read the strings before which an answer ends."""
    value = fields.get(STOP.name)
    if value is None:
        return ()
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(item, str) for item in strings):
        raise fields.build_type_error("stop", "a string or a list of strings", value)
    if len(strings) > MOST_STOP_STRINGS:
        raise InvalidFieldError("stop", f"{len(strings)} strings exceed {MOST_STOP_STRINGS}")
    for item in strings:
        if not 1 <= len(item) <= MOST_STOP_CHARACTERS:
            raise InvalidFieldError("stop", f"a string has {len(item)} characters, not 1 to {MOST_STOP_CHARACTERS}")
    return tuple(strings)
