"""The inputs `response_schema` and `grammar`: what an answer must look like, held to bounds before an engine sees it.

An engine compiles a constraint into masks over its vocabulary. That takes time and memory, and a compiler that fails
inside an engine's step would end the engine for everybody. So sizes are bounded here, and keywords that compilers
ignore are refused: a limit is enforced or refused, never dropped.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from r1plus_contract.inference import GRAMMAR, RESPONSE_SCHEMA
from r1plus_model_repo.backends.constraint_shape import ShapeError, measure_grammar, measure_pattern
from r1plus_model_repo.backends.json_input import load_json
from r1plus_model_repo.backends.messages import find_surrogate

MOST_BYTES: Final = 32 * 1024
MOST_DEPTH: Final = 32
"""Nested objects and arrays of a schema with its references resolved; nested parentheses of a grammar."""
MOST_NODES: Final = 2000
"""Values in a schema with its references resolved; symbols in a grammar."""
MOST_PROPERTIES: Final = 100
"""Properties of one object: the time to compile optional ones grows with their square."""
MOST_REPETITIONS: Final = 128
"""Characters that lengths and counted repetitions repeat, together: 200 of them take seconds to compile."""
MOST_ITEMS: Final = 1000
MOST_PATTERN: Final = 256
"""Characters of a regular expression in a schema."""
_SCHEMA_MAPS: Final = frozenset({"properties", "$defs", "definitions"})
_SCHEMA_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS: Final = frozenset({"items", "additionalProperties"})
_LENGTHS: Final = frozenset({"minLength", "maxLength"})
_COUNTS: Final = frozenset({"minItems", "maxItems"})
_PLAIN: Final = frozenset(
    {
        *("type", "required", "enum", "const", "$ref", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
_ANNOTATIONS: Final = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "discriminator"),
    }
)
_ENFORCED: Final = _SCHEMA_MAPS | _SCHEMA_LISTS | _SCHEMAS | _LENGTHS | _COUNTS | _PLAIN


@dataclass(frozen=True, slots=True)
class Constraint:
    """A JSON schema or a grammar in EBNF, within the bounds."""

    name: str
    """RESPONSE_SCHEMA or GRAMMAR."""
    text: str
    nodes: int
    """Values or symbols in it: its size for the compiler."""
    repetitions: int

    @property
    def is_schema(self) -> bool:
        """Whether it is a JSON schema."""
        return self.name == RESPONSE_SCHEMA


class ConstraintError(ValueError):
    """A constraint that is wrong or out of bounds; the message names the place."""


def parse_constraint(texts: Mapping[str, str], problems: list[str]) -> Constraint | None:
    """Return the constraint of a request, or None. `texts` are its inputs by name; add what is wrong to `problems`."""
    given = {name: text for name, text in texts.items() if text}
    if len(given) > 1:
        problems.append(f"{RESPONSE_SCHEMA}: excludes {GRAMMAR}; send one of them")
        return None
    for name, text in given.items():
        try:
            return parse_schema(text) if name == RESPONSE_SCHEMA else parse_grammar(text)
        except ConstraintError as error:
            problems.append(str(error))
    return None


def parse_schema(text: str) -> Constraint:
    """Return the schema as a constraint. Raise ConstraintError."""
    _check_bytes(RESPONSE_SCHEMA, text)
    try:
        document = load_json(text)
    except ValueError as error:
        raise ConstraintError(f"{RESPONSE_SCHEMA}: {error}") from error
    if not isinstance(document, dict):
        raise ConstraintError(f"{RESPONSE_SCHEMA}: is no JSON object; send a schema such as {{'type': 'object'}}")
    if (place := find_surrogate_in(document)) is not None:
        raise ConstraintError(f"{RESPONSE_SCHEMA}: has half a character (a lone surrogate) in {place!r:.60}")
    walk = _SchemaWalk(document)
    walk.visit(document, RESPONSE_SCHEMA, 1, ())
    return Constraint(RESPONSE_SCHEMA, text, walk.nodes, walk.repetitions)


def parse_grammar(text: str) -> Constraint:
    """Return the grammar as a constraint. Raise ConstraintError. Rules that `root` does not need are not read."""
    _check_bytes(GRAMMAR, text)
    if "\0" in text:
        raise ConstraintError(f"{GRAMMAR}: has a NUL character; remove it")
    depth = deepest = nodes = 0
    for symbol in _split_grammar(text):
        nodes += 1
        depth += {"(": 1, ")": -1}.get(symbol, 0)
        deepest = max(deepest, depth)
    _check_depth(GRAMMAR, deepest)
    _check_limit(GRAMMAR, "symbols", nodes, MOST_NODES)
    try:
        shape = measure_grammar(text)
    except ShapeError as error:
        raise ConstraintError(f"{GRAMMAR}: {error}") from error
    except RecursionError as error:
        raise ConstraintError(f"{GRAMMAR}: its rules name each other in too long a chain; simplify it") from error
    _check_limit(GRAMMAR, "symbols, with counted repetitions written out,", shape.weight, MOST_NODES)
    _check_limit(GRAMMAR, "characters in counted repetitions", shape.repeated, MOST_REPETITIONS)
    return Constraint(GRAMMAR, text, nodes, shape.repeated)


def find_surrogate_in(value: Any) -> str | None:
    """Return the first string in a JSON value with a lone surrogate; None without one."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str) and find_surrogate(item) is not None:
            return item.encode(errors="replace").decode()
        if isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list):
            pending += item
    return None


class _SchemaWalk:
    """A walk over a schema as the compiler sees it: into each reference, wherever it stands."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.nodes = 0
        self.repetitions = 0

    def visit(self, schema: Any, place: str, depth: int, references: tuple[str, ...]) -> None:
        """Check a schema and those within. `references` are those that lead here."""
        self._count(depth)
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise ConstraintError(f"{place}: is no schema; send an object")
        for keyword, value in schema.items():
            where = f"{place}.{keyword!s:.40}"
            if keyword in _ANNOTATIONS:
                continue
            if keyword not in _ENFORCED:
                raise ConstraintError(f"{where}: the engine cannot enforce it; leave it out")
            self._visit_keyword(keyword, value, where, depth + 1, references)

    def _visit_keyword(self, keyword: str, value: Any, place: str, depth: int, references: tuple[str, ...]) -> None:
        if keyword == "$ref":
            self._visit_reference(value, place, depth, references)
        elif keyword in _SCHEMA_MAPS:
            self._visit_map(keyword, value, place, depth, references)
        elif keyword in _SCHEMA_LISTS:
            if not isinstance(value, list) or not value:
                raise ConstraintError(f"{place}: is no array of schemas")
            if keyword == "allOf" and len(value) > 1:
                raise ConstraintError(f"{place}: the engine cannot enforce several at once; merge them into one schema")
            for number, item in enumerate(value):
                self.visit(item, f"{place}[{number}]", depth + 1, references)
        elif keyword in _SCHEMAS:
            self.visit(value, place, depth, references)
        elif keyword in _LENGTHS | _COUNTS:
            self._visit_number(keyword, value, place)
        elif keyword == "pattern":
            self._visit_pattern(value, place)
        else:
            self._visit_data(value, depth)

    def _visit_map(self, keyword: str, value: Any, place: str, depth: int, references: tuple[str, ...]) -> None:
        if not isinstance(value, dict):
            raise ConstraintError(f"{place}: is no object of schemas")
        if keyword != "properties":
            return  # Counted where they are referred to.
        _check_limit(place, "properties", len(value), MOST_PROPERTIES)
        for name, item in value.items():
            self.visit(item, f"{place}.{name!s:.40}", depth + 1, references)

    def _visit_reference(self, value: Any, place: str, depth: int, references: tuple[str, ...]) -> None:
        if not isinstance(value, str) or not value.startswith("#"):
            raise ConstraintError(f"{place}: {value!r:.80} is outside of the schema; write what it names under $defs")
        if value == "#" or value in references:
            raise ConstraintError(f"{place}: {value!r:.80} is recursive; write out as many levels as you need")
        self.visit(self._resolve(value, place), place, depth, (*references, value))

    def _resolve(self, reference: str, place: str) -> Any:
        at: Any = self._document
        for step in reference.removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(at, dict) or key not in at:
                raise ConstraintError(f"{place}: {reference!r:.80} names nothing in the schema")
            at = at[key]
        return at

    def _visit_number(self, keyword: str, value: Any, place: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConstraintError(f"{place}: {value!r:.40} is no whole number of 0 or more")
        if keyword in _COUNTS:
            _check_limit(place, "items", value, MOST_ITEMS)
        else:
            self._repeat(value, place)

    def _visit_pattern(self, value: Any, place: str) -> None:
        if not isinstance(value, str) or "\0" in value:
            raise ConstraintError(f"{place}: is no regular expression")
        _check_limit(place, "characters", len(value), MOST_PATTERN)
        _check_limit(place, "parentheses", value.count("("), MOST_DEPTH)
        try:
            shape = measure_pattern(value)
        except ShapeError as error:
            raise ConstraintError(f"{place}: {error}") from error
        self._repeat(shape.repeated, place)

    def _visit_data(self, value: Any, depth: int) -> None:
        pending = [(value, depth)]
        while pending:
            item, level = pending.pop()
            self._count(level)
            if isinstance(item, dict):
                pending += [(one, level + 1) for one in item.values()]
            elif isinstance(item, list):
                pending += [(one, level + 1) for one in item]

    def _count(self, depth: int) -> None:
        self.nodes += 1
        _check_limit(RESPONSE_SCHEMA, "values, with what its references name,", self.nodes, MOST_NODES)
        _check_depth(RESPONSE_SCHEMA, depth)

    def _repeat(self, count: int, place: str) -> None:
        self.repetitions += count
        _check_limit(
            place, "characters that lengths and patterns of the schema repeat", self.repetitions, MOST_REPETITIONS
        )


def _check_bytes(name: str, text: str) -> None:
    _check_limit(name, "bytes", len(text.encode(errors="replace")), MOST_BYTES)


def _check_depth(name: str, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ConstraintError(f"{name}: is nested more than {MOST_DEPTH} levels deep; simplify it")


def _check_limit(place: str, what: str, value: int, limit: int) -> None:
    if value > limit:
        raise ConstraintError(f"{place}: {value} {what} exceed {limit}; simplify it")


_LITERALS: Final = re.compile(r'#[^\n]*|"(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\])*\]')
_SYMBOLS: Final = re.compile(r"[()]|\w[\w-]*|\S")


def _blank_literals(text: str) -> str:
    """Return the grammar with its comments, strings and classes of characters replaced by a point."""
    return _LITERALS.sub(lambda match: "" if match.group().startswith("#") else ".", text)


def _split_grammar(text: str) -> Iterator[str]:
    return (match.group() for match in _SYMBOLS.finditer(_blank_literals(text)))
