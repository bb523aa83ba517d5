"""Tables of a body's fields: they read a field, refuse what they do not list, and describe both.

So what the OpenAPI document says is what is enforced: each bound is written once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.errors import InvalidFieldError

Schema = dict[str, Json]
NULL: Final[Schema] = {"type": "null"}


class Field(Protocol):
    """One row of a table."""

    @property
    def name(self) -> str:
        """Its key in the object."""

    @property
    def is_required(self) -> bool:
        """Whether the object has to have it; otherwise null counts as absent."""

    def build_schema(self) -> Schema:
        """Return the schema of its values, without null."""


@dataclass(frozen=True, slots=True)
class OtherField:
    """A field that its module reads; the schema says what it takes."""

    name: str
    schema: Mapping[str, Json] = field(default_factory=dict)
    is_required: bool = False

    def build_schema(self) -> Schema:
        """See `Field`."""
        return dict(self.schema)


@dataclass(frozen=True, slots=True)
class StringField:
    """A string of at most `most` characters."""

    name: str
    most: int = 256
    values: tuple[str, ...] = ()
    """If not empty, the only ones."""
    is_required: bool = False

    def read(self, fields: Fields) -> str:
        """Return the string; empty without it."""
        value = fields.read_string(self.name, most=self.most)
        if not value and self.is_required:
            raise fields.build_missing_error(self.name)
        if self.values and fields.has(self.name) and value not in self.values:
            raise fields.build_value_error(self.name, f"{value!r:.80} is not one of {', '.join(self.values)}")
        return value

    def build_schema(self) -> Schema:
        """See `Field`."""
        if self.values:
            return {"type": "string", "enum": list(self.values)}
        return {"type": "string", "maxLength": self.most, **({"minLength": 1} if self.is_required else {})}


@dataclass(frozen=True, slots=True)
class TextField:
    """A text; only the body's size and the model's context bound it."""

    name: str
    is_required: bool = False

    def read(self, fields: Fields) -> str | None:
        """Return the text; None without it."""
        value = fields.read_text(self.name)
        if not value and self.is_required:
            raise fields.build_missing_error(self.name)
        return value

    def build_schema(self) -> Schema:
        """See `Field`."""
        return {"type": "string", **({"minLength": 1} if self.is_required else {})}


@dataclass(frozen=True, slots=True)
class FlagField:
    """True or false."""

    name: str
    is_required: bool = False

    def read(self, fields: Fields) -> bool:
        """Return the flag; False without it."""
        return fields.read_flag(self.name)

    def build_schema(self) -> Schema:
        """See `Field`."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class IntegerField:
    """An integer. Without `high`, the bound is the reader's to give, such as the model's context."""

    name: str
    low: int
    high: int | None
    is_required: bool = False

    def read(self, fields: Fields, high: int | None = None) -> int | None:
        """Return the integer; None without it."""
        most = self.high if high is None else high
        assert most is not None
        return fields.read_integer(self.name, self.low, most)

    def build_schema(self) -> Schema:
        """See `Field`."""
        bound = {} if self.high is None else {"maximum": self.high}
        return {"type": "integer", "minimum": self.low, **bound}


@dataclass(frozen=True, slots=True)
class NumberField:
    """A number."""

    name: str
    low: float
    high: float
    is_low_open: bool = False
    is_required: bool = False

    def read(self, fields: Fields) -> float | None:
        """Return the number; None without it."""
        return fields.read_number(self.name, self.low, self.high, is_low_open=self.is_low_open)

    def build_schema(self) -> Schema:
        """See `Field`."""
        low = "exclusiveMinimum" if self.is_low_open else "minimum"
        return {"type": "number", low: self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class ListField:
    """A list of at most `most` items; its module reads the items."""

    name: str
    most: int
    items: Mapping[str, Json]
    least: int = 0
    is_required: bool = False

    def read(self, fields: Fields) -> list[Json]:
        """Return the items; none without it."""
        value = fields.read_list(self.name, self.most)
        if not value and self.is_required:
            raise fields.build_missing_error(self.name)
        if len(value) < self.least and fields.has(self.name):
            raise fields.build_value_error(self.name, f"{len(value)} items are fewer than {self.least}")
        return value

    def build_schema(self) -> Schema:
        """See `Field`."""
        least = max(self.least, 1 if self.is_required else 0)
        return {"type": "array", "items": dict(self.items), "minItems": least, "maxItems": self.most}


@dataclass(frozen=True, slots=True)
class ObjectField:
    """An object with a table of its own."""

    name: str
    table: "Table"
    is_required: bool = False

    def read(self, fields: Fields) -> Fields | None:
        """Return the object's fields; None without it."""
        value = fields.read_object(self.name)
        if value is None and self.is_required:
            raise fields.build_missing_error(self.name)
        return value

    def build_schema(self) -> Schema:
        """See `Field`."""
        return self.table.build_schema()


@dataclass(frozen=True, slots=True)
class Table:
    """All fields of an object."""

    fields: tuple[Field, ...]
    ignored: frozenset[str] = frozenset()
    """Fields of any value that cannot change the answer."""
    unsupported: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    """Fields that are not supported -> values that ask for nothing, besides null."""
    reported: frozenset[str] = frozenset()
    """Fields of other servers that are ignored as well; the answer names them."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why some of those that are not supported are refused."""

    @property
    def names(self) -> frozenset[str]:
        """Of the fields that are read."""
        return frozenset(entry.name for entry in self.fields)

    def refuse_rest(self, fields: Fields) -> None:
        """Refuse every field of an object that the table does not have.

        Raises:
            InvalidFieldError: there is one.
        """
        fields.refuse_rest(self.names | self.ignored | self.reported, self.unsupported, self.reasons)

    def build_schema(self) -> Schema:
        """Return the object's schema. Null stands for absence, also of fields that do not exist."""
        properties: Schema = {name: {} for name in sorted(self.ignored | self.reported)}
        properties |= {
            name: {"enum": [*values, None]} if values else NULL for name, values in sorted(self.unsupported.items())
        }
        for entry in self.fields:
            schema = entry.build_schema()
            properties[entry.name] = schema if entry.is_required else allow_null(schema)
        required = [entry.name for entry in self.fields if entry.is_required]
        return {
            "type": "object",
            "properties": properties,
            "additionalProperties": NULL,
            **({"required": required} if required else {}),
        }


def allow_null(schema: Schema) -> Schema:
    """Return a schema that takes null as well."""
    if not schema:
        return schema
    if "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    if isinstance(kind := schema.get("type"), str):
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [*schema["anyOf"], NULL]} if set(schema) == {"anyOf"} else {"anyOf": [schema, NULL]}


def read_item(path: str, item: Json) -> Fields:
    """Return the fields of an object within a list.

    Raises:
        InvalidFieldError: it is no object.
    """
    if not isinstance(item, dict):
        raise InvalidFieldError(path, "expected an object", code="invalid_type")
    return Fields(item, path)


def choose(tables: Iterable[Table]) -> dict[str, Any]:
    """Return the schema of an object that follows one of these tables."""
    return {"anyOf": [table.build_schema() for table in tables]}
