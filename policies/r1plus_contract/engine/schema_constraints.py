"""JSON schemas that an engine can hold an answer to: which keywords, and how much of them.

An engine compiles a schema into masks over its vocabulary. That takes time and memory, and a compiler that fails
inside an engine's step would end the engine for everybody. So sizes are bounded here. The backends refuse what is out
of bounds; the gateway drops it from schemas that are not strict, names it, and validates the answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from r1plus_contract.engine.constraint_shape import ShapeError, measure_pattern

MOST_BYTES: Final = 32 * 1024
MOST_DEPTH: Final = 32
"""Nested objects and arrays of a schema with its references resolved; nested parentheses of a grammar."""
MOST_NODES: Final = 2000
"""Values in a schema with its references resolved; symbols in a grammar."""
MOST_VISITS: Final = 10 * MOST_NODES
"""Values and unknown keywords that are looked at to find out what of a schema fits."""
MOST_VISITS_TOGETHER: Final = 5 * MOST_VISITS
"""Of several schemas that become one."""
_CHARACTERS_PER_VISIT: Final = 256
"""Of a reference, which take as long as one look at a value."""
MOST_PLACE: Final = 256
"""Characters of the place of what was dropped."""
MOST_WRITTEN: Final = 2**20
"""Characters of names and values of what fits, with its references written out: one may be named many times."""
MOST_PROPERTIES: Final = 100
"""Properties of one object: the time to compile optional ones grows with their square."""
MOST_REPETITIONS: Final = 128
"""Characters that lengths and counted repetitions repeat, together: 200 of them take seconds to compile."""
MOST_ITEMS: Final = 1000
MOST_PATTERN: Final = 256
"""Characters of a regular expression in a schema."""
_DEFINITIONS: Final = frozenset({"$defs", "definitions"})
_SCHEMA_MAPS: Final = frozenset({"properties"}) | _DEFINITIONS
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


class ConstraintError(ValueError):
    """A constraint that is wrong or out of bounds."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class UnenforceableError(ConstraintError):
    """A keyword that may be right, and that no engine can enforce within the bounds."""


class _CostlySchemaError(ConstraintError):
    """A schema of which it takes too long to find out what fits."""


@dataclass(slots=True)
class SchemaCost:
    """What a compiler has to take so far, of one schema or of several that become one."""

    nodes: int = 0
    """Values, with what references name."""
    repetitions: int = 0
    """Characters that lengths and patterns repeat."""
    written: int = 0
    """Characters of names and values; a strict schema's, which is sent as it is, are not counted."""
    visits: int = field(default=0, compare=False)
    """What was looked at, also where it was dropped."""

    def take(self, other: "SchemaCost") -> None:
        """Become what another one is, but for what was looked at."""
        self.nodes, self.repetitions, self.written = other.nodes, other.repetitions, other.written


@dataclass(slots=True)
class SchemaWalk:
    """A walk over a schema as the compiler sees it: into each reference, wherever it stands."""

    document: Mapping[str, Any]
    """What references name something in."""
    place: str
    """Of the document, for errors."""
    cost: SchemaCost = field(default_factory=SchemaCost)
    is_strict: bool = True
    """Whether what cannot be enforced is an error; else it is dropped."""
    dropped: list[str] = field(default_factory=list)
    """Places of what was dropped."""
    _visits: int = 0

    def visit(self, schema: Any, place: str, depth: int, references: tuple[str, ...]) -> Any:
        """Check a schema and those within; return what an engine can enforce of it, without references.

        `references` are those that lead here.

        Raises:
            ConstraintError: it is no schema, or, of a strict walk, cannot be enforced.
        """
        self._count(depth)
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise ConstraintError(place, "is no schema; send an object")
        enforced: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _ANNOTATIONS:
                continue
            if keyword not in _ENFORCED:
                self._look()
            where = f"{place}.{keyword!s:.40}"
            before, count = replace(self.cost), len(self.dropped)
            try:
                enforced[keyword] = self._visit_keyword(schema, keyword, value, where, depth + 1, references)
            except UnenforceableError:
                if self.is_strict:
                    raise
                self.cost.take(before)
                self.dropped[count:] = [where[:MOST_PLACE]]
        return _loosen(schema, enforced)

    def _visit_keyword(
        self, schema: dict[str, Any], keyword: str, value: Any, place: str, depth: int, references: tuple[str, ...]
    ) -> Any:
        if keyword not in _ENFORCED:
            raise UnenforceableError(place, "the engine cannot enforce it; leave it out")
        if not self.is_strict and "$ref" in schema and keyword not in _DEFINITIONS | {"$ref"}:
            raise UnenforceableError(place, "compilers read nothing next to a reference")
        if keyword == "$ref":
            return self._visit_reference(value, place, depth, references)
        if keyword in _SCHEMA_MAPS:
            return self._visit_map(keyword, value, place, depth, references)
        if keyword in _SCHEMA_LISTS:
            return self._visit_list(keyword, value, place, depth, references)
        if keyword in _SCHEMAS:
            return self.visit(value, place, depth, references)
        if keyword in _LENGTHS | _COUNTS:
            self._visit_number(keyword, value, place)
        elif keyword == "pattern":
            self._visit_pattern(value, place)
        else:
            self._visit_data(value, place, depth)
        return value

    def _visit_map(self, keyword: str, value: Any, place: str, depth: int, references: tuple[str, ...]) -> Any:
        if not isinstance(value, dict):
            raise ConstraintError(place, "is no object of schemas")
        if keyword in _DEFINITIONS:
            return value  # Counted where they are referred to.
        check_limit(place, "properties", len(value), MOST_PROPERTIES)
        self._write(value, place)
        return {name: self.visit(item, f"{place}.{name!s:.40}", depth + 1, references) for name, item in value.items()}

    def _visit_list(self, keyword: str, value: Any, place: str, depth: int, references: tuple[str, ...]) -> Any:
        if not isinstance(value, list) or not value:
            raise ConstraintError(place, "is no array of schemas")
        if keyword == "allOf" and len(value) > 1:
            raise UnenforceableError(place, "the engine cannot enforce several at once; merge them into one schema")
        return [self.visit(item, f"{place}[{number}]", depth + 1, references) for number, item in enumerate(value)]

    def _visit_reference(self, value: Any, place: str, depth: int, references: tuple[str, ...]) -> Any:
        if not isinstance(value, str) or not value.startswith("#"):
            raise ConstraintError(place, f"{value!r:.80} is outside of the schema; write what it names under $defs")
        self._look(len(value) // _CHARACTERS_PER_VISIT)  # Each time that it is followed, all of it is read.
        if value[1:2] not in ("", "/"):
            raise UnenforceableError(place, f"{value!r:.80} names an anchor; write it as a path, such as #/$defs/name")
        if value == "#" or value in references:
            raise UnenforceableError(place, f"{value!r:.80} is recursive; write out as many levels as you need")
        return self.visit(self._resolve(value, place), place, depth, (*references, value))

    def _resolve(self, reference: str, place: str) -> Any:
        at: Any = self.document
        for step in reference.removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(at, dict) or key not in at:
                raise ConstraintError(place, f"{reference!r:.80} names nothing in the schema")
            at = at[key]
        return at

    def _visit_number(self, keyword: str, value: Any, place: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConstraintError(place, f"{value!r:.40} is no whole number of 0 or more")
        if keyword in _COUNTS:
            check_limit(place, "items", value, MOST_ITEMS)
        else:
            self._repeat(value, place)

    def _visit_pattern(self, value: Any, place: str) -> None:
        if not isinstance(value, str) or "\0" in value:
            raise ConstraintError(place, "is no regular expression")
        check_limit(place, "characters", len(value), MOST_PATTERN)
        check_limit(place, "parentheses", value.count("("), MOST_DEPTH)
        try:
            shape = measure_pattern(value)
        except ShapeError as error:
            raise UnenforceableError(place, str(error)) from error
        self._repeat(shape.repeated, place)

    def _visit_data(self, value: Any, place: str, depth: int) -> None:
        pending = [(value, depth)]
        while pending:
            item, level = pending.pop()
            self._count(level)
            if isinstance(item, dict):
                self._write(item, place)
                pending += [(one, level + 1) for one in item.values()]
            elif isinstance(item, list):
                pending += [(one, level + 1) for one in item]
            elif isinstance(item, str):
                self._write([item], place)

    def _write(self, texts: Iterable[str], place: str) -> None:
        if not self.is_strict:
            self.cost.written += sum(map(len, texts))
            check_limit(place, "characters, with what references name,", self.cost.written, MOST_WRITTEN)

    def _look(self, visits: int = 1) -> None:
        self._visits += visits
        self.cost.visits += visits
        if self._visits > MOST_VISITS or self.cost.visits > MOST_VISITS_TOGETHER:
            raise _CostlySchemaError(self.place, f"has more than {MOST_VISITS} values; simplify it")

    def _count(self, depth: int) -> None:
        self._look()
        self.cost.nodes += 1
        check_limit(self.place, "values, with what its references name,", self.cost.nodes, MOST_NODES)
        check_depth(self.place, depth)

    def _repeat(self, count: int, place: str) -> None:
        self.cost.repetitions += count
        what = "characters that lengths and patterns of the schema repeat"
        check_limit(place, what, self.cost.repetitions, MOST_REPETITIONS)


def _loosen(schema: Mapping[str, Any], enforced: dict[str, Any]) -> Any:
    """Return what is enforced of a schema, such that nothing in it forbids what only a dropped keyword allowed."""
    if "$ref" in enforced:
        return enforced["$ref"]
    dropped = schema.keys() - enforced.keys()
    for name in _DEFINITIONS:
        enforced.pop(name, None)
    if "properties" in dropped:
        enforced.pop("required", None)
    if dropped & {"properties", "patternProperties"}:
        enforced["additionalProperties"] = True
    if dropped & {"items", "prefixItems"}:
        enforced["items"] = True
    return enforced


def fit_schema(document: Mapping[str, Any], place: str, cost: SchemaCost, depth: int) -> tuple[Any, list[str]]:
    """Return what an engine can enforce of a schema, without annotations, and the places of what it cannot.

    `cost`: of what it becomes a part of, to which it is added; `depth`: at which it stands there.

    Raises:
        ConstraintError: it is no schema.
    """
    before = replace(cost)
    walk = SchemaWalk(document, place, cost, is_strict=False)
    try:
        fitting = walk.visit(document, place, depth, ())
    except (UnenforceableError, _CostlySchemaError):
        cost.take(before)
        return loosen_wholly(document), [place]
    return fitting if isinstance(fitting, dict) else {}, walk.dropped


def loosen_wholly(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of which only the type is left."""
    kind = document.get("type")
    return {"type": kind} if isinstance(kind, str) else {}


def check_depth(place: str, depth: int) -> None:
    """Raise UnenforceableError if a constraint is nested too deep."""
    if depth > MOST_DEPTH:
        raise UnenforceableError(place, f"is nested more than {MOST_DEPTH} levels deep; simplify it")


def check_limit(place: str, what: str, value: int, limit: int) -> None:
    """Raise UnenforceableError if a constraint has more of something than an engine takes."""
    if value > limit:
        raise UnenforceableError(place, f"{value} {what} exceed {limit}; simplify it")
