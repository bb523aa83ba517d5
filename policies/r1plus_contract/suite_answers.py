"""What form an item's answer must have, so that its scorer can judge by it at all. Judging is the monitor's business.

Called by `suite_check`, so that the command line and the operator refuse what would make an item unanswerable, or its
scorer run for ever. A JSON schema may use the words of KEYWORDS and no others. No regular expressions: one that
backtracks would hold the prober up for ever. No references: they may lead in a circle or out into the network. What is
left is a tree, judged in time proportional to schema and answer.
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
"""What `exact` takes off either end of an answer."""
MAX_EXPONENT: Final = 300
"""Of a number: powers of ten beyond it are no figures of an answer, and calculating with them may fail."""
_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")


def answer_problem(scorer: str, answer: str) -> str:
    """Why this scorer cannot judge by this answer, with the remedy; empty where it can."""
    check = ANSWERS.get(scorer)
    if check is None:
        return f"there is no scorer {scorer!r:.40}; there are {', '.join(ANSWERS)}"
    if len(answer) > MAX_ANSWER:
        return f"{len(answer)} characters, at most {MAX_ANSWER} are taken"
    return check(answer)


def number(text: str) -> Decimal | None:
    """A finite number as people write it: thousands grouped, a typographic minus; None where it is none."""
    plain = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace(",", "").strip()
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return None
    return value if value.is_finite() and abs(value.adjusted()) <= MAX_EXPONENT else None


def near(text: str) -> tuple[Decimal, Decimal] | None:
    """`42 +- 0.5`, `42 ± 0.5` or `42 +- 1%` as the least and the greatest right number; None where it is neither."""
    middle, _, margin = text.replace("±", "+-").replace("+/-", "+-").partition("+-")
    value, width = number(middle), number(margin.strip().removesuffix("%"))
    if value is None or width is None or width < 0:
        return None
    if margin.rstrip().endswith("%"):
        width = abs(value) * width / 100
    return value - width, value + width


def schema_problem(schema: Any, path: str = "schema", depth: int = 0) -> str:
    """Why a JSON schema is not taken, with the place; empty where it is."""
    if isinstance(schema, bool):
        return ""
    if not isinstance(schema, dict):
        return f"{path}: {schema!r:.40} is neither an object nor true or false"
    if depth > MAX_DEPTH:
        return f"{path}: nested deeper than {MAX_DEPTH}"
    for key, value in schema.items():
        if key in _REFUSED:
            return f"{path}.{key}: {_REFUSED[key]}"
        if key not in KEYWORDS:
            return f"{path}.{key}: unknown or not taken; known: {', '.join(KEYWORDS)}"
        if problem := KEYWORDS[key](value, f"{path}.{key}", depth + 1):
            return problem
    return ""


def _text(answer: str) -> str:
    return "" if answer.replace("*", "").replace("`", "").strip(PUNCTUATION) else "nothing but punctuation: say a word"


def _numeric(answer: str) -> str:
    return "" if number(answer) is not None else "not a number: write digits, such as 42 or -3.5"


def _near(answer: str) -> str:
    return "" if near(answer) else "not a number with its tolerance: write 42 +- 0.5 or 42 +- 1%"


def _json(answer: str) -> str:
    try:
        return schema_problem(json.loads(answer, parse_constant=_no_constant))
    except (ValueError, RecursionError) as error:
        return f"not a JSON schema: {error}"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


ANSWERS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {"exact": _text, "contains": _text, "numeric": _numeric, "near": _near, "choice": _text, "json": _json}
)
"""By `Item.scorer`: why an answer cannot be judged by, or nothing."""

Check = Callable[[Any, str, int], str]
_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(
        ("pattern", "patternProperties", "format", "propertyNames"),
        "regular expressions are not taken, since one that backtracks would hold the prober up for ever; use enum, "
        "const, minLength or maxLength",
    )
    | dict.fromkeys(
        ("$ref", "$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor", "$defs", "definitions"),
        "references are not taken, since they may lead in a circle or into the network; write the schema out",
    )
)


def _simple(holds: Callable[[Any], bool], wanted: str) -> Check:
    return lambda value, path, _depth: "" if holds(value) else f"{path}: {value!r:.40} is not {wanted}"


def _each(value: Any, path: str, depth: int) -> str:
    if not isinstance(value, list) or not value:
        return f"{path}: {value!r:.40} is not a list of schemas"
    return next((p for i, one in enumerate(value) if (p := schema_problem(one, f"{path}[{i}]", depth))), "")


def _properties(value: Any, path: str, depth: int) -> str:
    if not isinstance(value, dict):
        return f"{path}: {value!r:.40} is not an object of schemas"
    return next((p for key, one in value.items() if (p := schema_problem(one, f"{path}.{key}", depth))), "")


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


_COUNT: Final = _simple(_is_count, "a whole number of 0 or more")
_NUMBER: Final = _simple(_is_number, "a number")
_STRING: Final = _simple(lambda value: isinstance(value, str), "a string")
KEYWORDS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "$schema": _simple(lambda value: value == DIALECT, DIALECT),
        "title": _STRING,
        "description": _STRING,
        "type": _simple(_is_type, f"one or more of {', '.join(_TYPES)}"),
        "enum": _simple(lambda value: isinstance(value, list) and bool(value), "a list of values"),
        "const": _simple(lambda _value: True, "a value"),
        "properties": _properties,
        "required": _simple(_is_names, "a list of names, each once"),
        "additionalProperties": schema_problem,
        "minProperties": _COUNT,
        "maxProperties": _COUNT,
        "items": schema_problem,
        "prefixItems": _each,
        "minItems": _COUNT,
        "maxItems": _COUNT,
        "uniqueItems": _simple(lambda value: isinstance(value, bool), "true or false"),
        "minLength": _COUNT,
        "maxLength": _COUNT,
        "minimum": _NUMBER,
        "maximum": _NUMBER,
        "exclusiveMinimum": _NUMBER,
        "exclusiveMaximum": _NUMBER,
        "multipleOf": _simple(lambda value: _is_number(value) and value > 0, "a number above 0"),
        "allOf": _each,
        "anyOf": _each,
        "oneOf": _each,
        "not": schema_problem,
    }
)
"""The words of JSON Schema (draft 2020-12) that are taken, each with the check of its value."""
