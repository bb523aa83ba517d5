"""A value is validated against a client's schema in bounded time: a hostile schema is not checked, and stalls nobody."""

from typing import Any

import orjson

from r1plus_gateway.http.schemas.validation import MOST_STEPS, SchemaFinding, validate
from support.tables import for_each

Json = Any
NODE: Json = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}


def check(schema: Json, value: Json) -> SchemaFinding:
    return validate(schema, value, len(orjson.dumps(value)))


CLOSED: Json = {"unevaluatedProperties": False}
UNEVALUATED: Json = {
    **CLOSED,
    "anyOf": [{"properties": {"b": {"type": "number"}}}, {"properties": {"b": False, "a": {}}}],
}
FOUND: dict[str, tuple[Json, Json, bool, str]] = {
    "a text that fits": ({"maxLength": 3}, "abc", True, ""),
    "a text that is too long": (
        {"properties": {"a": {"maxLength": 3}}},
        {"a": "abcd"},
        False,
        "$.a: 'abcd' is too long",
    ),
    "a pattern": ({"pattern": "^a+$"}, "aab", False, "$: 'aab' does not match '^a+$'"),
    "classes as JavaScript has them": ({"pattern": r"^[\w.-]+ \d\D\W\\w$"}, "a.b 1x-\\w", True, ""),
    "a letter that JavaScript has in no class": ({"pattern": r"^\w$"}, "é", False, "does not match"),
    "a pattern within a text": ({"pattern": "b"}, "abc", True, ""),
    "another property": (
        {"properties": {"a": {}}, "additionalProperties": False},
        {"a": 1, "b": 2},
        False,
        "$: 'b' is no",
    ),
    "another property of a kind": (
        {"additionalProperties": {"type": "number"}},
        {"a": "x"},
        False,
        "$.a: 'x' is not of",
    ),
    "a name by a pattern": ({"patternProperties": {"^x": {"type": "number"}}}, {"xa": "b"}, False, "$.xa: 'b' is not"),
    "a name that only a pattern allows": (
        {"patternProperties": {"^x": {}}, "additionalProperties": False},
        {"xa": 1},
        True,
        "",
    ),
    "no name by a pattern": (
        {"patternProperties": {"^x": {}}, "additionalProperties": False},
        {"a": 1},
        False,
        "$: 'a' is no property",
    ),
    "twice the same": ({"uniqueItems": True}, [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}], False, "$: {'b': [2.0]"),
    "the same number of another type": ({"uniqueItems": True}, [1, True, "1", None], True, ""),
    "a name": ({"propertyNames": {"maxLength": 2}}, {"abc": 1}, False, "'abc' is too long"),
    "a multiple": ({"multipleOf": 0.5}, 1.25, False, "$: 1.25 is not a multiple of 0.5"),
    "a chain that ends": ({"$ref": "#/$defs/n", "$defs": {"n": {**NODE, "required": []}}}, {"next": {}}, True, ""),
    "a chain that breaks off": (NODE, {"next": {"next": {}}}, False, "$.next.next: 'next' is a required property"),
    "what may not be": ({"not": {"const": 1}}, 1, False, "$: 1 should not be valid"),
    "a name that a part allows, and its reference": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {}}}}, **UNEVALUATED},
        {"a": 1, "b": 2},
        True,
        "",
    ),
    "a name that no part allows": (UNEVALUATED, {"a": 1, "c": 2}, False, "$: 'c' is allowed by no part"),
    "a name of another kind": (
        {"properties": {"a": {}}, "unevaluatedProperties": {"type": "null"}},
        {"a": 1, "b": None, "c": 2},
        False,
        "$: 'c' is allowed by no part",
    ),
    "names by a condition": (
        {"if": {"required": ["a"], "properties": {"a": {}}}, "then": {"properties": {"b": {}}}, **CLOSED},
        {"a": 1, "b": 2},
        True,
        "",
    ),
    "names by its opposite": (
        {"if": {"required": ["a"]}, "then": {"properties": {"b": {}}}, "else": {"properties": {"c": {}}}, **CLOSED},
        {"b": 1},
        False,
        "$: 'b' is allowed by no part",
    ),
    "an item too many": (
        {"prefixItems": [{}], "contains": {"const": 7}, "unevaluatedItems": False},
        [1, 7, 2],
        False,
        "$: 2 is allowed by no part",
    ),
    "items that all are": ({"allOf": [{"items": {}}], "unevaluatedItems": False}, [1, 2], True, ""),
    "an old schema": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"a": {"type": "null"}},
            "$ref": "#/definitions/a",
        },
        1,
        False,
        "$: 1 is not of type 'null'",
    ),
}


@for_each("schema, value, is_valid, problem", FOUND)
def test_a_value_is_validated_against_the_whole_schema(schema: Json, value: Json, is_valid: bool, problem: str) -> None:
    found = check(schema, value)
    assert found.is_valid is is_valid
    assert problem in found.problem
    assert bool(problem) == bool(found.problem)


FANNING = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 9} for n in range(9)}
OPTIONAL = "a?" * 100 + "a" * 100
"""Takes a backtracking matcher for ever on a hundred a's."""
DOUBLING = {
    f"d{n}": {"dependentSchemas": {name: {"$ref": f"#/$defs/d{n + 1}"} for name in ("a", "b")}} for n in range(16)
}
HOSTILE: dict[str, tuple[Json, Json, str]] = {
    "references that multiply": ({"$ref": "#/$defs/d0", "$defs": {**FANNING, "d9": {}}}, 1, "steps"),
    "a reference to itself": ({"$ref": "#"}, 1, "nested too deep"),
    "a long list of values for many items": ({"items": {"enum": list(range(2000))}}, [1999] * 4000, "steps"),
    "large values to compare": (
        {"items": {"enum": [[0] * 4000 + [n] for n in range(2000)]}},
        [[0] * 4000 + [1999]] * 9,
        "steps",
    ),
    "many patterns": ({"allOf": [{"pattern": f"^a{{1,{n}}}"} for n in range(1, 5000)]}, "a" * 9, "steps"),
    "a pattern on a long text, often": ({"allOf": [{"pattern": "b|a"}] * 5000}, "a" * 16_000, "steps"),
    "a pattern that looks ahead": ({"pattern": "(?=a)b"}, "b", "leave out what looks ahead"),
    "a pattern too large to compile": ({"pattern": r"(\w{1000}){1000}"}, "b", "is longer than 512 characters"),
    "a long pattern": ({"pattern": "a" * 600}, "b", "is longer than 512 characters"),
    "a pattern of properties": ({"pattern": r"^\p{L}+$"}, "b", "names properties of characters"),
    "another document": (
        {"$id": "http://a.test/s", "properties": {"a": {"$id": "http://b.test/s", "$ref": "#/c"}}},
        {"a": 1},
        "the schema is wrong",
    ),
    "keywords that are none": ({"uniqueItems": "x", "multipleOf": "5"}, 1, "the schema is wrong"),
    "names by a pattern where others are unevaluated": (
        {"patternProperties": {OPTIONAL: {}}, "unevaluatedProperties": False},
        {"a" * 100: 1},
        "unevaluatedProperties",
    ),
    "references that double where others are unevaluated": (
        {"unevaluatedProperties": False, "$ref": "#/$defs/d0", "$defs": {**DOUBLING, "d16": {}}},
        {"a": 1, "b": 1},
        "dependentSchemas",
    ),
    "many names that each part of many allows": (
        {"unevaluatedProperties": False, "allOf": [{"additionalProperties": True}] * 2000},
        {f"n{number}": 1 for number in range(2000)},
        "steps",
    ),
    "a long text that is repeated in each message": ({"anyOf": [{"type": "null"}] * 3000}, "a" * 10_000, "steps"),
    "many items, often": ({"allOf": [{"items": {}}] * 5000}, [0] * 1000, "steps"),
    "a name that is looked for in a large schema, often": (
        {"items": {"$ref": "#a"}, "$defs": {**{f"d{n}": {} for n in range(2000)}, "a": {"$anchor": "a"}}},
        [0] * 100,
        "steps",
    ),
    "names that need many others, often": (
        {"items": {"dependentRequired": {"a": ["a"] * 2000}}},
        [{"a": 1}] * 100,
        "steps",
    ),
}


@for_each("schema, value, reason", HOSTILE)
def test_a_hostile_schema_is_not_checked(schema: Json, value: Json, reason: str) -> None:
    found = check(schema, value)
    assert found.is_valid is None
    assert found.problem.startswith("not checked: ")
    assert reason in found.problem


@for_each(
    "schema",
    {
        "as a pattern": {"items": {"pattern": f"^{OPTIONAL}$"}},
        "as a name": {"items": {"patternProperties": {f"^{OPTIONAL}$": False}}},
        "as a name that others are not": {
            "items": {"patternProperties": {f"^{OPTIONAL}$": {}}, "additionalProperties": False}
        },
    },
)
def test_a_pattern_that_backtracks_for_ever_is_matched_in_linear_time(schema: Json) -> None:
    text = "a" * 99 + "b"
    assert check(schema, [text if "pattern" in schema["items"] else {text: 1}]).is_valid is not None


def test_names_are_not_compared_with_each_other() -> None:
    """Names that a part of the schema allows were looked up in a list, for each name of the value."""
    count = 4000
    Name.compared = 0
    value = {Name(f"n{number}"): 1 for number in range(count)}
    known = {f"n{number}": {} for number in range(count // 2)}
    assert validate({"allOf": [{"properties": known}], "unevaluatedProperties": {"type": "number"}}, value, 1).is_valid
    assert Name.compared < 4 * count


class Name(str):
    """A name that counts with how many others it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)


def test_a_validation_takes_a_bounded_number_of_steps() -> None:
    schema = {"items": {"anyOf": [{"type": "null"}, {"type": "string"}]}}
    assert check(schema, ["a"] * (MOST_STEPS // 10)).is_valid
    assert check(schema, ["a"] * MOST_STEPS).is_valid is None
