"""Schemas and grammars are held to bounds before an engine sees them: what is out of them is an error of one request."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.engine.schema_constraints import (
    MOST_BYTES,
    MOST_DEPTH,
    MOST_NODES,
    MOST_PROPERTIES,
)
from r1plus_model_repo.backends.constraint.compiled_size import KIB_PER_REPETITION
from r1plus_model_repo.backends.constraint.constraints import Constraint, parse_constraint

Json = dict[str, Any]
PERSON: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 64, "pattern": "^[a-z]{1,20}$"},
        "age": {"type": ["integer", "null"], "minimum": 0},
        "home": {"$ref": "#/$defs/address"},
        "work": {"$ref": "#/$defs/address"},
        "enum": {"enum": ["a", {"$ref": "http://only.data"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 1000},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"address": {"type": "object", "properties": {"street": {"anyOf": [{"type": "string"}, {"const": 1}]}}}},
}
"""As pydantic writes schemas, with what looks like a reference in data."""


def read(**texts: str | Json) -> tuple[Constraint | None, list[str]]:
    problems: list[str] = []
    as_text = {name: text if isinstance(text, str) else json.dumps(text) for name, text in texts.items()}
    return parse_constraint(as_text, problems), problems


def nest(levels: int) -> Json:
    schema: Json = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_a_schema_within_the_bounds_is_taken() -> None:
    constraint, problems = read(response_schema=PERSON)
    assert problems == []
    assert constraint is not None
    assert constraint.is_schema
    assert constraint.compiled_kib > 84 * KIB_PER_REPETITION


def test_a_grammar_within_the_bounds_is_taken() -> None:
    text = 'root ::= "((((" [({] a{2,9}  # ((((\na ::= "\\"" | ("b" "c")\n'
    constraint, problems = read(grammar=text)
    assert problems == []
    assert constraint is not None
    assert (constraint.is_schema, constraint.text) == (False, text)
    assert constraint.compiled_kib > 27 * KIB_PER_REPETITION


GRAMMARS = {
    "a choice": 'root ::= "yes" | "no"',
    "a list": 'root ::= item (", " item)*\nitem ::= [a-z ]+',
    "lines": 'root ::= line+\nline ::= "- " [^\\n]+ "\\n"',
    "free text before a word": 'root ::= [a-zA-Z ]* "END"',
    "keys and values": 'root ::= (key ": " value "\\n")+\nkey ::= [a-z]+\nvalue ::= [a-z]+ (" " [a-z]+)*',
    "other scripts": 'root ::= ("ä" | [\\u4e00-\\u9fff])+ "\\x41"',
    "rules before the root": 'word ::= [a-z]+\nroot ::= "a ::= b" word',
}


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS.keys())
def test_a_grammar_that_costs_little_is_taken(grammar: str) -> None:
    constraint, problems = read(grammar=grammar)
    assert problems == []
    assert constraint is not None


PATTERNS = (
    r"^\d{4}-\d{2}-\d{2}$",
    r"^(\d{3}-){2}\d{4}$",
    r"^[\w.+-]+@[\w-]+(\.[\w-]+)+$",
    "^#[0-9a-fA-F]{6}$",
    "(?:a|b)*?c",
    r"[^\]]+",
    r"^\+?[1-9]\d{1,14}$",
    "^[a-z]+( [a-z]+)*$",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_that_costs_little_is_taken(pattern: str) -> None:
    assert read(response_schema={"type": "string", "pattern": pattern})[1] == []


def test_no_constraint_is_none() -> None:
    assert read(response_schema="", grammar="") == (None, [])


FANNING = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 6} for n in range(5)}
WRONG: dict[str, tuple[str | Json, str]] = {
    "no JSON": ("{", "response_schema: is not JSON: "),
    "a key twice": ('{"type": "string", "type": "integer"}', "response_schema: has the key 'type' twice"),
    "no object": ("[]", "response_schema: is no JSON object"),
    "nesting without end": ("[" * 30_000, "response_schema: is nested too deeply"),
    "half a character": ({"const": "\ud800"}, "response_schema: has half a character"),
    "too many bytes": ({"description": "x" * MOST_BYTES}, f"bytes exceed {MOST_BYTES}"),
    "too deep": (nest(MOST_DEPTH // 2), f"response_schema: is nested more than {MOST_DEPTH} levels deep"),
    "data too deep": ({"const": json.loads("[" * 40 + "]" * 40)}, "levels deep"),
    "too many values": ({"enum": list(range(MOST_NODES))}, f"exceed {MOST_NODES}"),
    "too many properties": (
        {"properties": {str(n): True for n in range(MOST_PROPERTIES + 1)}},
        f"response_schema.properties: {MOST_PROPERTIES + 1} properties exceed {MOST_PROPERTIES}",
    ),
    "references that multiply": ({"$ref": "#/$defs/d0", "$defs": {**FANNING, "d5": True}}, f"exceed {MOST_NODES}"),
    "itself": ({"properties": {"a": {"$ref": "#"}}}, "response_schema.properties.a.$ref: '#' is recursive"),
    "a recursive definition": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}},
        "response_schema.$ref.items.$ref: '#/$defs/a' is recursive; write out as many levels as you need",
    ),
    "two that refer to each other": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "is recursive",
    ),
    "a remote reference": ({"$ref": "https://example.com/a.json"}, "is outside of the schema; write what it names"),
    "a file": (
        {"items": {"$ref": "file:///etc/passwd"}},
        "response_schema.items.$ref: 'file:///etc/passwd' is outside",
    ),
    "a reference to nothing": ({"$ref": "#/$defs/a"}, "'#/$defs/a' names nothing in the schema"),
    "a reference that is no text": ({"$ref": 1}, "response_schema.$ref: 1 is outside of the schema"),
    "what no compiler enforces": ({"uniqueItems": True}, "response_schema.uniqueItems: the engine cannot enforce it"),
    "several schemas at once": (
        {"allOf": [{}, {}]},
        "response_schema.allOf: the engine cannot enforce several at once",
    ),
    "a long text": ({"maxLength": 129}, "response_schema.maxLength: 129 characters"),
    "long texts together": ({"prefixItems": [{"maxLength": 65}, {"minLength": 64}]}, "129 characters"),
    "a pattern that repeats": ({"pattern": "(a{100}b{1,29}c)+"}, "response_schema.pattern: 129 characters"),
    "a pattern that can be split in many ways": (
        {"pattern": "(a+)+$"},
        "response_schema.pattern: repeats an expression",
    ),
    "a pattern over two lines of the same": (
        {"pattern": r"^(\w+\s?)*$"},
        "response_schema.pattern: repeats an expression",
    ),
    "a pattern that does not parse": ({"pattern": "("}, "response_schema.pattern: cannot be read at character 1"),
    "a count that is none": ({"pattern": "a{99999999999}"}, "response_schema.pattern: cannot be read at character 1"),
    "a deep pattern": ({"pattern": "(" * 120 + ")" * 120}, "response_schema.pattern: 120 parentheses exceed 32"),
    "a look ahead": ({"pattern": "(?=a)b"}, "response_schema.pattern: cannot be read at character 0; leave out"),
    "a long pattern": ({"pattern": "a" * 257}, "response_schema.pattern: 257 characters exceed 256"),
    "many items": ({"maxItems": 1001}, "response_schema.maxItems: 1001 items exceed 1000"),
    "a length that is no number": ({"maxLength": "5"}, "response_schema.maxLength: '5' is no whole number"),
    "a negative length": ({"minItems": -1}, "response_schema.minItems: -1 is no whole number"),
    "properties that are a list": ({"properties": []}, "response_schema.properties: is no object of schemas"),
    "a choice of nothing": ({"anyOf": []}, "response_schema.anyOf: is no array of schemas"),
    "a schema that is a number": ({"items": 3}, "response_schema.items: is no schema; send an object"),
}


@pytest.mark.parametrize("schema, message", WRONG.values(), ids=WRONG.keys())
def test_a_schema_out_of_bounds_is_refused_with_its_place(schema: str | Json, message: str) -> None:
    constraint, problems = read(response_schema=schema)
    assert constraint is None
    assert len(problems) == 1
    assert message in problems[0]
    assert problems[0].startswith("response_schema")
    assert len(problems[0]) < 500


WRONG_GRAMMARS = {
    "too many bytes": ("root ::= " + "a " * MOST_BYTES, f"bytes exceed {MOST_BYTES}"),
    "too deep": ("root ::= " + "(" * 33 + ")" * 33, f"grammar: is nested more than {MOST_DEPTH} levels deep"),
    "too many symbols": ("root ::= " + "a " * MOST_NODES, f"symbols exceed {MOST_NODES}"),
    "too many repetitions": ("root ::= [a-z]{100} [a-z]{3,29}", "129 characters in counted repetitions exceed 128"),
    "repetitions that multiply": ("root ::= a{12}\na ::= b{11}\nb ::= [a-z]", "143 characters in counted repetitions"),
    "repetitions without end": ("root ::= [a]{99999999999999999999}", "rule 'root' cannot be read at character 12"),
    "no root": ('a ::= "b"', "grammar: rule 'root' is not defined"),
    "an undefined rule": ("root ::= a", "grammar: rule 'a' is not defined"),
    "a recursive rule": ('root ::= "(" root ")" | "x"', "grammar: rule 'root' is recursive; write it as a repetition"),
    "rules that name each other": ("root ::= a\na ::= b\nb ::= a", "grammar: rule 'a' is recursive"),
    "a repetition of a repetition": (
        "root ::= ([a-z]+ [a-z]+)+",
        "grammar: rule 'root' repeats an expression that itself",
    ),
    "over two rules": ("root ::= a*\na ::= [a-z ]*", "rule 'root' repeats an expression that itself repeats"),
    "many ways to go on": (
        "root ::= ([a-z]+ | [a-f] [0-9]*)*",
        "rule 'root' repeats an expression that itself repeats",
    ),
    "a string without an end": ('root ::= "a', "grammar: rule 'root' has a string without an end"),
    "a parenthesis without an end": ('root ::= ("a"', "grammar: rule 'root' cannot be read at character"),
    "what is no grammar": ("root ::= <yes>", "grammar: rule 'root' cannot be read at character 9"),
    "NUL": ("root ::= \0", "grammar: has a NUL character"),
}


@pytest.mark.parametrize("grammar, message", WRONG_GRAMMARS.values(), ids=WRONG_GRAMMARS.keys())
def test_a_grammar_out_of_bounds_is_refused(grammar: str, message: str) -> None:
    constraint, problems = read(grammar=grammar)
    assert constraint is None
    assert message in "".join(problems)


SYMBOLS = (
    "root",
    " ::= ",
    "a",
    "|",
    "(",
    ")",
    "[",
    "]",
    "^",
    "-",
    "*",
    "+",
    "?",
    "{2}",
    "{",
    "}",
    '"',
    "\\",
    "#",
    "\n",
    "é",
    "x4",
)


@given(st.lists(st.sampled_from(SYMBOLS), max_size=20).map("".join))
def test_whatever_is_sent_is_taken_or_refused(text: str) -> None:
    for texts in ({"grammar": f"root ::= {text}"}, {"response_schema": {"pattern": text}}, {"response_schema": text}):
        constraint, problems = read(**texts)
        assert (constraint is None) == bool(problems) or text == ""


def test_both_at_once_are_refused() -> None:
    assert read(response_schema="{}", grammar="root ::= a") == (
        None,
        ["response_schema: excludes grammar; send one of them"],
    )
