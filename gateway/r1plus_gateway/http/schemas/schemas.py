"""JSON schemas that constrain an answer: `response_format`, `text.format` and the parameters of tools."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import orjson

from r1plus_contract.engine.schema_constraints import (
    MOST_BYTES,
    ConstraintError,
    SchemaCost,
    SchemaWalk,
    fit_schema,
    loosen_wholly,
)
from r1plus_gateway.http.body.field_tables import FlagField, ObjectField, OtherField, StringField, Table, choose
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.settings import Capability, ModelSettings

FORMAT_TYPE: Final = StringField("type", values=("text", "json_object", "json_schema"), is_required=True)
SCHEMA: Final = OtherField("schema", {"type": "object"}, is_required=True)
STRICT: Final = FlagField("strict")
"""Whether what the engine cannot enforce is refused; else the answer is only validated against it."""
DESCRIPTION: Final = ObjectField(
    "json_schema", Table((SCHEMA, STRICT), ignored=frozenset({"name", "description"})), is_required=True
)
MOST_NAMED: Final = 64
"""Dropped fields that an answer names."""
_PLAIN: Final = Table((StringField("type", values=("text", "json_object"), is_required=True),))


@dataclass(frozen=True, slots=True)
class SchemaCheck:
    """What an answer is validated against when it is whole: schemas of which the engine enforces a part."""

    dropped: Sequence[str]
    """Fields of the request that the engine does not enforce; of many, the first."""
    more: int
    """How many others it does not enforce."""
    answer: Mapping[str, Json] | None = None
    """The schema of the answer; None: it is of calls."""
    arguments: Mapping[str, Mapping[str, Json]] | None = None
    """The schemas of a call's arguments, by the name of the function, where something was dropped."""


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """What an answer is held to."""

    text: bytes
    """JSON, as the engine gets it."""
    check: SchemaCheck | None = None
    """None: the engine enforces all of it."""


def build_check(
    dropped: Sequence[str],
    answer: Mapping[str, Json] | None = None,
    arguments: Mapping[str, Mapping[str, Json]] | None = None,
) -> SchemaCheck | None:
    """Return what an answer is validated against if anything was dropped; None if nothing was."""
    named = dropped[:MOST_NAMED]
    return SchemaCheck(named, len(dropped) - len(named), answer, arguments) if dropped else None


ANY_OBJECT: Final = AnswerSchema(b'{"type":"object"}')


@dataclass(frozen=True, slots=True)
class FormatField:
    """Which form an answer has: free text, any JSON object, or one that follows a schema."""

    name: str
    described: Table
    """Of a format with a schema."""
    is_flat: bool = False
    """Whether the schema is a field of the format; else it is in an object `json_schema`."""
    is_required: bool = False

    def read(self, fields: Fields, model: ModelSettings) -> AnswerSchema | None:
        """Return what the answer is held to; None for free text.

        Raises:
            InvalidFieldError: it is none of these, or the engine cannot follow a schema.
        """
        form = fields.read_object(self.name)
        if form is None:
            return None
        kind = FORMAT_TYPE.read(form)
        (self.described if kind == "json_schema" else _PLAIN).refuse_rest(form)
        if kind == "text":
            return None
        require_schemas(fields.locate(self.name), model)
        if kind == "json_object":
            return ANY_OBJECT
        return self._read_schema(form)

    def build_schema(self) -> dict[str, Json]:
        """See `Field`."""
        return choose([_PLAIN, self.described])

    def _read_schema(self, form: Fields) -> AnswerSchema:
        description = form if self.is_flat else DESCRIPTION.read(form)
        assert description is not None
        if self.is_flat:
            FORMAT_NAME.read(form)
            FORMAT_DESCRIPTION.read(form)
        else:
            DESCRIPTION.table.refuse_rest(description)
        place, schema = description.locate(SCHEMA.name), description.get(SCHEMA.name)
        if not isinstance(schema, dict):
            raise InvalidFieldError(place, "expected an object, a JSON schema", code="invalid_type")
        return hold_answer(place, schema, is_strict=STRICT.read(description))


_WITH_SCHEMA: Final = StringField("type", values=("json_schema",), is_required=True)
RESPONSE_FORMAT: Final = FormatField("response_format", Table((_WITH_SCHEMA, DESCRIPTION)))
FORMAT_NAME: Final = StringField("name", most=64, is_required=True)
FORMAT_DESCRIPTION: Final = StringField("description", most=4096)
TEXT_FORMAT: Final = FormatField(
    "format",
    Table((_WITH_SCHEMA, SCHEMA, FORMAT_NAME, FORMAT_DESCRIPTION, STRICT)),
    is_flat=True,
)
"""`text.format` of a response."""


def require_schemas(param: str, model: ModelSettings) -> None:
    """Refuse a field that needs constrained decoding where the engine has none."""
    if not model.can(Capability.RESPONSE_SCHEMA):
        raise UnsupportedFieldError(param, f"the engine of {model.name} cannot follow a schema; leave it out")


def hold_answer(place: str, schema: Mapping[str, Json], *, is_strict: bool) -> AnswerSchema:
    """Return what an answer is held to.

    Raises:
        InvalidFieldError: it is no schema, or it is strict and the engine cannot enforce it.
    """
    with convert_constraint_errors():
        check_references(place, schema)
        if is_strict:
            SchemaWalk(schema, place).visit(schema, place, 1, ())
            return AnswerSchema(encode_schema(place, schema))
        fitting, dropped = fit_schema(schema, place, SchemaCost(), 1)
    text = orjson.dumps(fitting if dropped else schema)
    if len(text) > MOST_BYTES:
        text = orjson.dumps(fitting)
    if len(text) > MOST_BYTES:
        text, dropped = orjson.dumps(loosen_wholly(schema)), [place]
    return AnswerSchema(text, build_check(dropped, answer=schema))


def encode_schema(place: str, schema: Mapping[str, Json]) -> bytes:
    """Return a schema as JSON.

    Raises:
        InvalidFieldError: it is too large.
    """
    text = orjson.dumps(schema)
    if len(text) > MOST_BYTES:
        raise InvalidFieldError(place, f"{len(text)} bytes exceed {MOST_BYTES}; simplify it")
    return text


@contextmanager
def convert_constraint_errors() -> Iterator[None]:
    """Turn what is wrong with a schema into an error of the field at that place."""
    try:
        yield
    except ConstraintError as error:
        raise InvalidFieldError(error.place, error.reason) from error


def check_references(place: str, schema: Json) -> None:
    """Refuse references to other documents."""
    if isinstance(schema, list):
        for item in schema:
            check_references(place, item)
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        if keyword in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str) and not value.startswith("#"):
            raise InvalidFieldError(place, f"{keyword} {value!r:.80} leads outside of the schema; put it below $defs")
        check_references(place, value)
