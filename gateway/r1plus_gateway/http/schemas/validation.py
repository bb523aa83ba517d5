"""Validation of what a model wrote against the whole schema of a client, in bounded time.

The schema is the client's, and nobody has checked it: references may go in circles or multiply, and a pattern may take
a backtracking matcher for ever. So each keyword costs steps, patterns are matched in linear time, and nothing is
fetched. What cannot be decided within that is said not to be checked.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast
from urllib.parse import unquote

import orjson

from r1plus_contract.engine.constraint_shape import ShapeError, measure_pattern
from r1plus_gateway.http.body.json_body import Json

MOST_STEPS: Final = 20_000
"""Of one validation: about 0.2 s."""
MOST_PATTERN_WEIGHT: Final = 512
"""Characters of a pattern, with counted repetitions written out."""
MOST_PROBLEM_CHARACTERS: Final = 300
_STEPS_PER_WEIGHT: Final = 4
"""To compile a pattern."""
_BYTES_PER_STEP: Final = 64
"""Of what a step compares, names or writes into a message."""
_ITEMS_PER_STEP: Final = 8
"""Of an object or a list, which most keywords go through."""
_BYTES_PER_LOOKUP_STEP: Final = 16
"""Of a schema in which a name is looked for: each time all of it is read."""
_MATCHES_PER_STEP: Final = 2048
"""Of a pattern's characters with those of a text."""
_CLASS: Final = re.compile(r"\\.", re.DOTALL)
_CLASSES: Final = {r"\w": "[0-9A-Za-z_]", r"\W": "[^0-9A-Za-z_]", r"\d": "[0-9]", r"\D": "[^0-9]"}
"""As JavaScript has them. Those of Unicode take a thousand times as long to compile."""
_PROPERTY: Final = re.compile(r"\\[pP]")
_COMPARING: Final = ("enum", "const")
_REFERRING: Final = ("$ref", "$dynamicRef")
_UNCOUNTED: Final = re.compile(rb'"(patternProperties|dependentSchemas|\$dynamicRef|\$anchor|\$dynamicAnchor|\$id)"')
"""What the library follows for unevaluated parts beside the keywords, without an end that is near."""
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_Errors = Iterator[Any]
_Keyword = Callable[[Any, Any, Any, Mapping[str, Any]], _Errors | None]


@dataclass(frozen=True, slots=True)
class SchemaFinding:
    """Whether a value follows a schema, and why not. `is_valid` None: it was not checked."""

    is_valid: bool | None
    problem: str = ""


class _UncheckedError(Exception):
    """It takes too long to say, or cannot be said."""


def validate(schema: Mapping[str, Json], value: Json, size: int) -> SchemaFinding:
    """Return whether a value of `size` bytes of JSON follows a schema, by JSON Schema 2020-12 without formats."""
    from jsonschema import Draft202012Validator  # late: 10 MB that most gateways need not spend
    from jsonschema.validators import extend
    from referencing import Registry

    steps, keywords = _Steps(schema, size), cast("Mapping[str, _Keyword]", Draft202012Validator.VALIDATORS)
    own: dict[str, Any] = {
        "pattern": steps.match_pattern,
        "patternProperties": steps.match_properties,
        "additionalProperties": steps.find_additional,
        "uniqueItems": steps.find_double,
        **{name: partial(steps.find_unevaluated, name) for name in _UNEVALUATED},
    }
    counted = {name: partial(steps.count, name, own.get(name, keyword)) for name, keyword in keywords.items()}
    build = cast("Callable[..., Any]", extend)
    validator = build(Draft202012Validator, counted)(schema, registry=Registry())
    try:
        error = next(validator.iter_errors(value), None)
    except (_UncheckedError, RecursionError) as unchecked:
        reason = str(unchecked) if isinstance(unchecked, _UncheckedError) else "it is nested too deep"
        return SchemaFinding(None, f"not checked: {reason}")
    except Exception as failure:  # noqa: BLE001 - only what the engine enforces was checked of the schema
        return SchemaFinding(None, f"not checked: the schema is wrong ({type(failure).__name__})")
    if error is None:
        return SchemaFinding(True)
    return SchemaFinding(False, f"{_shorten(error.json_path)}: {_shorten(error.message)}")


def _shorten(text: str) -> str:
    """Return a text without its middle: a message begins with the value, and ends with what is wrong with it."""
    half = MOST_PROBLEM_CHARACTERS // 4
    return text if len(text) <= 2 * half else f"{text[:half]}…{text[-half:]}"


class _Steps:
    """The steps of one validation, and the keywords that need their own way to stay within them."""

    def __init__(self, schema: Mapping[str, Json], size: int) -> None:
        self._left = MOST_STEPS
        self._weight = 1 + size // _BYTES_PER_STEP
        """Steps to compare the whole value once."""
        self._patterns: dict[str, _Pattern] = {}
        self._schema = schema
        text = orjson.dumps(schema)
        self._uncounted = _UNCOUNTED.search(text)
        self._has_ids = b'"$id"' in text
        self._lookup_steps = len(text) // _BYTES_PER_LOOKUP_STEP

    def count(
        self, name: str, keyword: _Keyword, validator: Any, value: Any, instance: Any, schema: Mapping[str, Any]
    ) -> _Errors:
        """Run a keyword, once its steps are paid; a message, which may repeat all of the value, once it is written."""
        parts = _count_parts(value)
        self._pay(parts * self._weigh(instance) if name in _COMPARING else 1 + parts)
        if isinstance(instance, list | dict):
            self._pay(len(instance) // _ITEMS_PER_STEP)
        if name in _REFERRING and (self._has_ids or not str(value).startswith("#/")) and value != "#":
            self._pay(self._lookup_steps)
        for error in keyword(validator, value, instance, schema) or ():
            self._pay(len(error.message) // _BYTES_PER_STEP)
            yield error

    def match_pattern(self, validator: Any, pattern: str, instance: Any, _: Mapping[str, Any]) -> _Errors:
        """See JSON Schema."""
        from jsonschema import ValidationError

        if validator.is_type(instance, "string") and not self._matches(pattern, instance):
            yield ValidationError(f"{instance!r:.80} does not match {pattern!r:.80}")

    def match_properties(
        self, validator: Any, patterns: Mapping[str, Any], instance: Any, _: Mapping[str, Any]
    ) -> _Errors:
        """See JSON Schema."""
        if not validator.is_type(instance, "object"):
            return
        for pattern, schema in patterns.items():
            for name, item in instance.items():
                if self._matches(pattern, name):
                    yield from validator.descend(item, schema, path=name, schema_path=pattern)

    def find_additional(self, validator: Any, more: Any, instance: Any, schema: Mapping[str, Any]) -> _Errors:
        """See JSON Schema."""
        from jsonschema import ValidationError

        if not validator.is_type(instance, "object"):
            return
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, item in instance.items():
            if name in known or any(self._matches(pattern, name) for pattern in patterns):
                continue
            if more is False:
                yield ValidationError(f"{name!r:.80} is no property of the schema")
            else:
                yield from validator.descend(item, more, path=name)

    def find_double(self, validator: Any, is_unique: bool, instance: Any, _: Mapping[str, Any]) -> _Errors:
        """See JSON Schema."""
        from jsonschema import ValidationError

        if not is_unique or not validator.is_type(instance, "array"):
            return
        self._pay(self._weight)
        seen: set[bytes] = set()
        for item in instance:
            text = orjson.dumps(_unify(item), option=orjson.OPT_SORT_KEYS)
            if text in seen:
                yield ValidationError(f"{item!r:.80} is there twice")
                return
            seen.add(text)

    def find_unevaluated(
        self, name: str, validator: Any, more: Any, instance: Any, schema: Mapping[str, Any]
    ) -> _Errors:
        """See JSON Schema. The library's own keyword looks each part up in a list, and counts none of it."""
        from jsonschema import ValidationError

        if not validator.is_type(instance, "object" if name == "unevaluatedProperties" else "array"):
            return
        if self._uncounted is not None:
            raise _UncheckedError(f"it has both {name} and {self._uncounted[1].decode()}")
        evaluated = self._find_evaluated(validator, instance, schema)
        left = next((place for place, _ in _list_parts(instance) if place not in evaluated), None)
        if left is not None:
            yield ValidationError(f"{left!r:.80} is allowed by no part of the schema")

    def _find_evaluated(self, validator: Any, instance: Any, schema: Any) -> set[Any]:
        """Return the names, or the positions, of the parts of an instance that a schema allows."""
        if not isinstance(schema, dict):
            return set()
        self._pay(1 + len(instance) // _ITEMS_PER_STEP)
        if isinstance(instance, dict):
            properties, keywords = schema.get("properties", {}), ("additionalProperties", "unevaluatedProperties")
            evaluated: set[Any] = {name for name in instance if name in properties}
        else:
            most, keywords = len(schema.get("prefixItems", ())), ("contains", "unevaluatedItems")
            evaluated = set(range(len(instance) if "items" in schema else min(most, len(instance))))
        for keyword in keywords:
            if keyword in schema:
                of_keyword = schema[keyword]
                evaluated.update(
                    place for place, item in _list_parts(instance) if self._is_valid(validator, item, of_keyword)
                )
        for one in self._list_applied(validator, instance, schema):
            evaluated |= self._find_evaluated(validator, instance, one)
        return evaluated

    def _list_applied(self, validator: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the schemas within a schema that say something of the same instance, which follows them."""
        if "$ref" in schema:
            yield self._resolve(schema["$ref"])
        for keyword in ("allOf", "anyOf", "oneOf"):
            yield from (one for one in schema.get(keyword, ()) if self._is_valid(validator, instance, one))
        if "if" in schema:
            is_valid = self._is_valid(validator, instance, schema["if"])
            yield from (schema["if"], schema.get("then")) if is_valid else (schema.get("else"),)

    def _is_valid(self, validator: Any, instance: Any, schema: Any) -> bool:
        self._pay(1)
        return schema if isinstance(schema, bool) else bool(validator.evolve(schema=schema).is_valid(instance))

    def _resolve(self, reference: str) -> Any:
        """Return what a reference names. The library has resolved it before: anchors and ids are not followed here."""
        self._pay(1 + len(reference) // _BYTES_PER_STEP)
        at: Any = self._schema
        for step in unquote(reference.removeprefix("#")).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            at = at[int(name)] if isinstance(at, list) else at[name]
        return at

    def _weigh(self, instance: Any) -> int:
        """Return the steps to compare something with an instance."""
        if isinstance(instance, str):
            return 1 + len(instance) // _BYTES_PER_STEP
        return self._weight if isinstance(instance, list | dict) else 1

    def _pay(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _UncheckedError(f"it takes more than {MOST_STEPS} steps")

    def _matches(self, pattern: str, text: str) -> bool:
        if pattern not in self._patterns:
            self._patterns[pattern] = _compile(pattern)
            self._pay(1 + _STEPS_PER_WEIGHT * self._patterns[pattern].weight)
        compiled = self._patterns[pattern]
        self._pay(1 + compiled.weight * len(text) // _MATCHES_PER_STEP)
        return bool(compiled.matcher.isinstance_python(text))


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A pattern that matches in linear time: without look-around, and without references back."""

    weight: int
    """Characters in it, with counted repetitions written out."""
    matcher: Any


def _compile(pattern: str) -> _Pattern:
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    shown = f"the pattern {pattern!r:.80}"
    try:
        if _PROPERTY.search(pattern):
            raise _UncheckedError(f"{shown} names properties of characters")
        if len(pattern) > MOST_PATTERN_WEIGHT or (weight := measure_pattern(pattern).weight) > MOST_PATTERN_WEIGHT:
            raise _UncheckedError(f"{shown} is longer than {MOST_PATTERN_WEIGHT} characters, repetitions written out")
        text = _CLASS.sub(lambda match: _CLASSES.get(match[0], match[0]), pattern)
        return _Pattern(weight, SchemaValidator(core_schema.str_schema(pattern=text, regex_engine="rust-regex")))
    except ShapeError as error:
        raise _UncheckedError(f"{shown} {error}") from None
    except SchemaError:
        raise _UncheckedError(f"{shown} has no match in linear time") from None


def _list_parts(instance: Any) -> Iterable[tuple[Any, Any]]:
    """Return the parts of an object by their names, or of a list by their positions."""
    return instance.items() if isinstance(instance, dict) else enumerate(instance)


def _count_parts(value: Any) -> int:
    """Return the parts of a keyword's value that the keyword may go through."""
    if isinstance(value, dict):
        return len(value) + sum(len(one) for one in value.values() if isinstance(one, list))
    if isinstance(value, str):
        return 1 + len(value) // _BYTES_PER_STEP
    return len(value) if isinstance(value, list) else 1


def _unify(value: Any) -> Any:
    """Return a value in which numbers that are equal are written alike."""
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**63 else value
    if isinstance(value, list):
        return [_unify(item) for item in value]
    if isinstance(value, dict):
        return {name: _unify(item) for name, item in value.items()}
    return value
