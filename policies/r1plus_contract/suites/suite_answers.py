"""The form of an item's answer, so that its scorer can judge by it. The monitor does the judging.

Called by `suite_check`, so that the command line and the operator reject answers that no engine can give, and those
that keep a scorer busy for ever. A JSON schema may use the words of KEYWORDS only. No regular expressions: one that
backtracks would block the prober. No references: they may be circular or lead into the network. The rest is a tree,
judged in time proportional to schema and answer.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final

MAX_ANSWER: Final = 4096
"""Characters of one answer or schema."""
MAX_DEPTH: Final = 16
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
PUNCTUATION: Final = " .,;:!?\"'()[]{}"
"""What `exact` strips at either end of an answer."""
MAX_EXPONENT: Final = 300
"""Of a number: larger powers of ten are no sensible answers, and calculating with them may fail."""
_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")


def find_answer_problem(scorer: str, answer: str) -> str:
    """Return why this scorer cannot judge by this answer, with the remedy; empty where it can."""
    check = ANSWERS.get(scorer)
    if check is None:
        return f"there is no scorer {scorer!r:.40}; there are {', '.join(ANSWERS)}"
    if len(answer) > MAX_ANSWER:
        return f"{len(answer)} characters, at most {MAX_ANSWER} are allowed"
    return check(answer)


def parse_number(text: str) -> Decimal | None:
    """Parse a finite number as people write it: thousands grouped, a typographic minus; None where it is none."""
    plain = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace(",", "").strip()
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return None
    return value if value.is_finite() and abs(value.adjusted()) <= MAX_EXPONENT else None


def parse_near(text: str) -> tuple[Decimal, Decimal] | None:
    """Parse `42 +- 0.5`, `42 ± 0.5` or `42 +- 1%` to the least and the greatest right number; None otherwise."""
    middle, _, margin = text.replace("±", "+-").replace("+/-", "+-").partition("+-")
    value, width = parse_number(middle), parse_number(margin.strip().removesuffix("%"))
    if value is None or width is None or width < 0:
        return None
    if margin.rstrip().endswith("%"):
        width = abs(value) * width / 100
    return value - width, value + width


def find_schema_problem(schema: Any, path: str = "schema", depth: int = 0) -> str:
    """Return why a JSON schema is rejected, with the place; empty where it is accepted."""
    if isinstance(schema, bool):
        return ""
    if not isinstance(schema, dict):
        return f"{path}: {schema!r:.40} is neither an object nor true or false"
    if depth > MAX_DEPTH:
        return f"{path}: nested deeper than {MAX_DEPTH}"
    for key, value in schema.items():
        if key in _REFUSALS:
            return f"{path}.{key}: {_REFUSALS[key]}"
        if key not in KEYWORDS:
            return f"{path}.{key}: unknown or not supported; known: {', '.join(KEYWORDS)}"
        if problem := KEYWORDS[key](value, f"{path}.{key}", depth + 1):
            return problem
    return ""


def _check_text(answer: str) -> str:
    return "" if answer.replace("*", "").replace("`", "").strip(PUNCTUATION) else "nothing but punctuation: say a word"


def _check_number(answer: str) -> str:
    return "" if parse_number(answer) is not None else "not a number: write digits, such as 42 or -3.5"


def _check_near(answer: str) -> str:
    return "" if parse_near(answer) else "not a number with its tolerance: write 42 +- 0.5 or 42 +- 1%"


def _check_json(answer: str) -> str:
    try:
        return find_schema_problem(json.loads(answer, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        return f"not a JSON schema: {error}"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


ANSWERS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "exact": _check_text,
        "contains": _check_text,
        "numeric": _check_number,
        "near": _check_near,
        "choice": _check_text,
        "json": _check_json,
    }
)
"""By `Item.scorer`: the check of an answer."""

Check = Callable[[Any, str, int], str]
_REFUSALS: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(
        ("pattern", "patternProperties", "format", "propertyNames"),
        "regular expressions are not supported, since one that backtracks would block the prober for ever; use enum, "
        "const, minLength or maxLength",
    )
    | dict.fromkeys(
        ("$ref", "$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor", "$defs", "definitions"),
        "references are not supported, since they may be circular or lead into the network; write the schema out",
    )
)


def _build_check(holds: Callable[[Any], bool], expected: str) -> Check:
    return lambda value, path, _depth: "" if holds(value) else f"{path}: {value!r:.40} is not {expected}"


def _check_each(value: Any, path: str, depth: int) -> str:
    if not isinstance(value, list) or not value:
        return f"{path}: {value!r:.40} is not a list of schemas"
    return next((p for i, one in enumerate(value) if (p := find_schema_problem(one, f"{path}[{i}]", depth))), "")


def _check_properties(value: Any, path: str, depth: int) -> str:
    if not isinstance(value, dict):
        return f"{path}: {value!r:.40} is not an object of schemas"
    return next((p for key, one in value.items() if (p := find_schema_problem(one, f"{path}.{key}", depth))), "")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(name in _TYPES for name in names) and len(set(names)) == len(names)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value) and len(set(value)) == len(value)


_COUNT: Final = _build_check(_is_count, "a whole number of 0 or more")
_NUMBER: Final = _build_check(_is_number, "a number")
_STRING: Final = _build_check(lambda value: isinstance(value, str), "a string")
KEYWORDS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "$schema": _build_check(lambda value: value == DIALECT, DIALECT),
        "title": _STRING,
        "description": _STRING,
        "type": _build_check(_is_type, f"one or more of {', '.join(_TYPES)}"),
        "enum": _build_check(lambda value: isinstance(value, list) and bool(value), "a list of values"),
        "const": _build_check(lambda _value: True, "a value"),
        "properties": _check_properties,
        "required": _build_check(_is_names, "a list of names, each once"),
        "additionalProperties": find_schema_problem,
        "minProperties": _COUNT,
        "maxProperties": _COUNT,
        "items": find_schema_problem,
        "prefixItems": _check_each,
        "minItems": _COUNT,
        "maxItems": _COUNT,
        "uniqueItems": _build_check(lambda value: isinstance(value, bool), "true or false"),
        "minLength": _COUNT,
        "maxLength": _COUNT,
        "minimum": _NUMBER,
        "maximum": _NUMBER,
        "exclusiveMinimum": _NUMBER,
        "exclusiveMaximum": _NUMBER,
        "multipleOf": _build_check(lambda value: _is_number(value) and value > 0, "a number above 0"),
        "allOf": _check_each,
        "anyOf": _check_each,
        "oneOf": _check_each,
        "not": find_schema_problem,
    }
)
"""The accepted words of JSON Schema (draft 2020-12), each with the check of its value."""
