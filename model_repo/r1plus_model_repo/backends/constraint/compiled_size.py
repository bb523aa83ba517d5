"""About what xgrammar keeps of a compiled schema or grammar, KiB, with a vocabulary of 49,152 tokens.

Each figure is a little more than glibc's allocator showed; tests/engine/test_engine_contract.py measures the library.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from r1plus_contract.engine.constraint_shape import measure_pattern

KIB_PER_CONSTRAINT: Final = 32.0
KIB_PER_BYTE: Final = 1 / 64
KIB_PER_SCHEMA: Final = 7.0
KIB_PER_SYMBOL: Final = 1.0
"""Of a grammar."""
KIB_PER_OPTIONAL: Final = 7.0
"""Of a property that is not required, besides its schema."""
KIB_PER_VALUE: Final = 2.0
"""Of a name or a value: in `enum`, `required`, `type`."""
KIB_PER_REPETITION: Final = 16.0
KIB_PER_ITEM: Final = 1.0
"""Of `minItems` and `maxItems`."""
KIB_PER_BOUND, KIB_PER_FRACTION = 24.0, 160.0
"""Of a least or largest number: a whole one, and any other."""
KIB_PER_CLASS, KIB_PER_CHARACTER = 8.0, 0.5
"""A class of characters, and any other of a pattern."""
KIB_OF_FORMATS: Final = {"ipv6": 96.0, "uuid": 40.0}
KIB_PER_FORMAT: Final = 20.0
"""Of any other format."""
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_CLASS: Final = re.compile(r"[\[.]|\\[WDSpP]")


def estimate_schema_kib(schema: Any, text: str) -> float:
    """Return the size of a schema that is within the bounds, without references; `text`: as it was sent."""
    return KIB_PER_CONSTRAINT + KIB_PER_BYTE * len(text) + _estimate(schema)


def estimate_grammar_kib(text: str, symbols: int, classes: int, repetitions: int) -> float:
    """Return the size of a grammar with so many symbols, classes of characters, and characters that are repeated."""
    kib = KIB_PER_SYMBOL * symbols + KIB_PER_CLASS * classes + KIB_PER_REPETITION * repetitions
    return KIB_PER_CONSTRAINT + KIB_PER_BYTE * len(text) + kib


def _estimate(schema: Any) -> float:
    if not isinstance(schema, Mapping):
        return KIB_PER_SCHEMA
    return KIB_PER_SCHEMA + sum(_estimate_keyword(schema, keyword, value) for keyword, value in schema.items())


def _estimate_keyword(schema: Mapping[str, Any], keyword: str, value: Any) -> float:
    if keyword == "properties":
        return sum(map(_estimate, value.values())) + KIB_PER_OPTIONAL * len(value.keys() - set(_list_required(schema)))
    if keyword in _LISTS:
        return sum(map(_estimate, value))
    if keyword in ("items", "additionalProperties"):
        return _estimate(value)
    if keyword in ("minLength", "maxLength"):
        return KIB_PER_REPETITION * int(value)
    if keyword in ("minItems", "maxItems"):
        return KIB_PER_ITEM * int(value)
    if keyword == "pattern":
        return _estimate_pattern(value)
    return KIB_PER_VALUE * _count_values(value) + _estimate_limit(keyword, value)


def _list_required(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required")
    return [one for one in required if isinstance(one, str)] if isinstance(required, list) else []


def _estimate_pattern(pattern: str) -> float:
    kib = KIB_PER_CLASS * len(_CLASS.findall(pattern)) + KIB_PER_CHARACTER * len(pattern)
    return kib + KIB_PER_REPETITION * measure_pattern(pattern).repeated


def _estimate_limit(keyword: str, value: Any) -> float:
    """Return what a bound of numbers or a format takes; 0 for any other keyword."""
    if keyword == "format":
        return KIB_OF_FORMATS.get(str(value), KIB_PER_FORMAT)
    if keyword not in _BOUNDS:
        return 0.0
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return KIB_PER_BOUND if is_whole else KIB_PER_FRACTION


def _count_values(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(map(_count_values, value.values()))
    return 1 + sum(map(_count_values, value)) if isinstance(value, list) else 1
