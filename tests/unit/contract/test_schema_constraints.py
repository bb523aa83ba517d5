"""What an engine can enforce of a schema is kept; the rest is named, and nothing becomes stricter by it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from r1plus_contract.engine.schema_constraints import (
    MOST_NODES,
    MOST_PROPERTIES,
    MOST_VISITS,
    MOST_VISITS_TOGETHER,
    MOST_WRITTEN,
    ConstraintError,
    SchemaCost,
    SchemaWalk,
    fit_schema,
)
from support.tables import for_each

Json = Any
TEXT: Json = {"type": "string"}
NODE: Json = {"type": "object", "properties": {"value": TEXT, "next": {"$ref": "#/$defs/node"}}, "required": ["value"]}
DROPPED: dict[str, tuple[Json, Json, list[str]]] = {
    "a long text": (
        {"type": "object", "properties": {"text": {"type": "string", "maxLength": 500}}},
        {"type": "object", "properties": {"text": TEXT}},
        ["p.properties.text.maxLength"],
    ),
    "only what exceeds the sum": (
        {"prefixItems": [{"maxLength": 100}, {"maxLength": 100}, {"maxLength": 28}]},
        {"prefixItems": [{"maxLength": 100}, {}, {"maxLength": 28}]},
        ["p.prefixItems[1].maxLength"],
    ),
    "a set": (
        {"type": "array", "items": TEXT, "uniqueItems": True},
        {"type": "array", "items": TEXT},
        ["p.uniqueItems"],
    ),
    "a record": (
        {"type": "object", "propertyNames": TEXT, "additionalProperties": {"type": "number"}},
        {"type": "object", "additionalProperties": {"type": "number"}},
        ["p.propertyNames"],
    ),
    "names by a pattern, which would be forbidden without it": (
        {"properties": {"a": TEXT}, "patternProperties": {"^x-": TEXT}, "additionalProperties": False},
        {"properties": {"a": TEXT}, "additionalProperties": True},
        ["p.patternProperties"],
    ),
    "too many properties, and what would forbid them": (
        {
            "properties": {str(n): True for n in range(MOST_PROPERTIES + 1)},
            "required": ["1"],
            "additionalProperties": False,
            "minItems": 1,
        },
        {"minItems": 1, "additionalProperties": True},
        ["p.properties"],
    ),
    "the first items, and what would forbid them": (
        {"prefixItems": [{"enum": list(range(MOST_NODES))}, {"const": list(range(MOST_NODES))}], "items": False},
        {"prefixItems": [{}, {}], "items": False},
        ["p.prefixItems[0].enum", "p.prefixItems[1].const"],
    ),
    "a definition that is recursive": (
        {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
        {"type": "object", "properties": {"value": TEXT, "next": {}}, "required": ["value"]},
        ["p.$ref.properties.next.$ref"],
    ),
    "itself": ({"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {}}}, ["p.properties.a.$ref"]),
    "a name that is no path": (
        {"properties": {"a": {"$ref": "#b"}}, "$defs": {"b": {"$anchor": "b"}}},
        {"properties": {"a": {}}},
        ["p.properties.a.$ref"],
    ),
    "what stands next to a reference": (
        {"$ref": "#/$defs/a", "minLength": 1, "$defs": {"a": TEXT}, "title": "A"},
        TEXT,
        ["p.minLength"],
    ),
    "a pattern that looks ahead": ({"pattern": "^(?!x)"}, {}, ["p.pattern"]),
    "several at once, with all that is in them": (
        {"type": "object", "allOf": [{"properties": {"a": {"uniqueItems": True}}}, {}], "maxItems": 2000},
        {"type": "object"},
        ["p.allOf", "p.maxItems"],
    ),
}


@for_each("schema, fitting, dropped", DROPPED)
def test_what_cannot_be_enforced_is_dropped_and_named(schema: Json, fitting: Json, dropped: list[str]) -> None:
    assert fit_schema(schema, "p", SchemaCost(), 1) == (fitting, dropped)


WRONG: dict[str, tuple[Json, str]] = {
    "no schema": ({"items": 3}, "p.items: is no schema"),
    "a choice of nothing": ({"anyOf": []}, "p.anyOf: is no array of schemas"),
    "a reference to nothing": ({"$ref": "#/$defs/a"}, "p.$ref: '#/$defs/a' names nothing"),
    "a length that is no number": ({"maxLength": "5"}, "p.maxLength: '5' is no whole number"),
}


@for_each("schema, message", WRONG)
def test_what_is_no_schema_is_refused_also_where_it_need_not_be_enforced(schema: Json, message: str) -> None:
    with pytest.raises(ConstraintError) as refused:
        fit_schema(schema, "p", SchemaCost(), 1)
    assert str(refused.value).startswith(message)
    assert refused.value.place == message.partition(":")[0]


def test_what_takes_too_long_to_fit_is_dropped_as_a_whole_and_costs_nothing() -> None:
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 9} for n in range(9)}
    cost = SchemaCost(7, 3)
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**definitions, "d9": True}}
    walk = SchemaWalk(schema, "p", is_strict=False)
    with pytest.raises(ConstraintError, match=f"more than {MOST_VISITS} values"):
        walk.visit(schema, "p", 1, ())
    assert fit_schema(schema, "p", cost, 1) == ({"type": "object"}, ["p"])
    assert cost == SchemaCost(7, 3)


def refer(definition: Json, times: int) -> Json:
    return {"anyOf": [{"$ref": "#/$defs/a"}] * times, "$defs": {"a": definition}}


NAMED_OFTEN: dict[str, Json] = {
    "a value": refer({"const": "x" * 10_000}, 300),
    "a name": refer({"properties": {"x" * 10_000: True}}, 300),
    "names in a value": refer({"enum": [{"x" * 10_000: 1}]}, 300),
}


@for_each("schema", NAMED_OFTEN)
def test_what_is_named_often_is_written_out_within_a_bound(schema: Json) -> None:
    fitting, dropped = fit_schema(schema, "p", SchemaCost(), 1)
    assert len(json.dumps(fitting)) < 1.1 * MOST_WRITTEN
    assert len(dropped) >= 300 - MOST_WRITTEN // 10_000


def test_unknown_keywords_that_are_named_often_are_looked_at_within_a_bound() -> None:
    cost = SchemaCost()
    unknown = refer({f"x{number}": 1 for number in range(MOST_VISITS // 10)}, 9)
    assert len(fit_schema(unknown, "p", cost, 1)[1]) == 9 * MOST_VISITS // 10
    for _ in range(9):
        fit_schema(unknown, "p", cost, 1)
    assert fit_schema({"type": "string", "title": "A", "maxLength": 3}, "p", cost, 1) == ({"type": "string"}, ["p"])
    assert MOST_VISITS_TOGETHER < cost.visits < MOST_VISITS_TOGETHER + 20


LONG_NAME = "x" * 100_000
LONG_REFERENCES: dict[str, Json] = {
    "to a name": {"items": {"$ref": f"#/$defs/{LONG_NAME}"}, "$defs": {LONG_NAME: {"uniqueItems": True}}},
    "to itself": {"items": {"$ref": f"#/$defs/{LONG_NAME}"}, "$defs": {LONG_NAME: {"$ref": f"#/$defs/{LONG_NAME}"}}},
    "to an anchor": {"items": {"$ref": f"#{LONG_NAME}"}},
}


@for_each("schema", LONG_REFERENCES)
def test_long_references_that_are_named_often_are_followed_within_a_bound(schema: Json) -> None:
    cost, named = SchemaCost(), {**schema, "anyOf": [schema["items"]] * 1000}
    assert fit_schema({**named, "type": "object"}, "p", cost, 1) == ({"type": "object"}, ["p"])
    assert MOST_VISITS < cost.visits < MOST_VISITS + len(LONG_NAME)


SCALARS = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": 0, "multipleOf": 5},
        {"type": "string", "maxLength": 100},
        {"enum": ["a", 1, None]},
        {"const": 1},
        True,
        {"$ref": "#"},
        {"$ref": "#/$defs/a"},
        {"type": "string", "pattern": "^(a+)+$"},
    ]
)


def _combine(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    names = st.sampled_from(["a", "b"])
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array"]),
            "properties": st.dictionaries(names, inner, max_size=2),
            "required": st.lists(names, unique=True, max_size=2),
            "additionalProperties": st.booleans(),
            "patternProperties": st.dictionaries(names, inner, max_size=1),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "uniqueItems": st.just(True),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "maxProperties": st.just(1),
        },
    )


SCHEMAS = st.recursive(SCALARS, _combine, max_leaves=12).map(
    lambda schema: {**(schema if isinstance(schema, dict) else {}), "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}
)
VALUES = st.recursive(
    st.sampled_from([None, 1, 5, "a", "aaa"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=6,
)


@given(SCHEMAS, VALUES)
def test_what_is_left_is_enforceable_and_allows_all_that_the_schema_allows(schema: Json, value: Json) -> None:
    fitting, dropped = fit_schema(schema, "p", SchemaCost(), 1)
    SchemaWalk(fitting, "p").visit(fitting, "p", 1, ())
    assert "$ref" not in json.dumps(fitting)
    try:
        is_valid = Draft202012Validator(schema).is_valid(value)
    except RecursionError:  # a schema that is only itself says nothing
        return
    if is_valid:
        assert Draft202012Validator(fitting).is_valid(value), dropped
