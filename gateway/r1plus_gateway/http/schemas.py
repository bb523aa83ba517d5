"""JSON schemas that constrain an answer: `response_format`, `text.format` and the parameters of tools."""

from dataclasses import dataclass
from typing import Final

import orjson

from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.field_tables import ObjectField, OtherField, StringField, Table, choose
from r1plus_gateway.http.fields import Fields
from r1plus_gateway.http.json_body import Json
from r1plus_gateway.settings import Capability, ModelSettings

MOST_SCHEMA_BYTES: Final = 64 * 1024
MOST_PATTERN_CHARACTERS: Final = 512
_ANY_OBJECT: Final = b'{"type":"object"}'

FORMAT_TYPE: Final = StringField("type", values=("text", "json_object", "json_schema"), is_required=True)
SCHEMA: Final = OtherField("schema", {"type": "object"}, is_required=True)
DESCRIPTION: Final = ObjectField(
    "json_schema", Table((SCHEMA,), ignored=frozenset({"name", "description", "strict"})), is_required=True
)
_PLAIN: Final = Table((StringField("type", values=("text", "json_object"), is_required=True),))


@dataclass(frozen=True, slots=True)
class FormatField:
    """Which form an answer has: free text, any JSON object, or one that follows a schema."""

    name: str
    described: Table
    """Of a format with a schema."""
    is_flat: bool = False
    """Whether the schema is a field of the format; else it is in an object `json_schema`."""
    is_required: bool = False

    def read(self, fields: Fields, model: ModelSettings) -> bytes | None:
        """Return the schema of the answer; None for free text.

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
            return _ANY_OBJECT
        return self._read_schema(form)

    def build_schema(self) -> dict[str, Json]:
        """See `Field`."""
        return choose([_PLAIN, self.described])

    def _read_schema(self, form: Fields) -> bytes:
        description = form if self.is_flat else DESCRIPTION.read(form)
        assert description is not None
        if self.is_flat:
            FORMAT_NAME.read(form)
            FORMAT_DESCRIPTION.read(form)
        else:
            DESCRIPTION.table.refuse_rest(description)
        return encode_schema(description.locate(SCHEMA.name), description.get(SCHEMA.name))


_WITH_SCHEMA: Final = StringField("type", values=("json_schema",), is_required=True)
RESPONSE_FORMAT: Final = FormatField("response_format", Table((_WITH_SCHEMA, DESCRIPTION)))
FORMAT_NAME: Final = StringField("name", most=64, is_required=True)
FORMAT_DESCRIPTION: Final = StringField("description", most=4096)
TEXT_FORMAT: Final = FormatField(
    "format",
    Table((_WITH_SCHEMA, SCHEMA, FORMAT_NAME, FORMAT_DESCRIPTION), ignored=frozenset({"strict"})),
    is_flat=True,
)
"""`text.format` of a response: an answer is always held to its schema, strict or not."""


def require_schemas(param: str, model: ModelSettings) -> None:
    """Refuse a field that needs constrained decoding where the engine has none."""
    if not model.can(Capability.RESPONSE_SCHEMA):
        raise UnsupportedFieldError(param, f"the engine of {model.name} cannot follow a schema; leave it out")


def encode_schema(param: str, schema: Json) -> bytes:
    """Return a schema as JSON.

    Raises:
        InvalidFieldError: it is not an object, too large, or refers to something outside of itself.
    """
    if not isinstance(schema, dict):
        raise InvalidFieldError(param, "expected an object, a JSON schema", code="invalid_type")
    check_schema(param, schema)
    text = orjson.dumps(schema)
    if len(text) > MOST_SCHEMA_BYTES:
        raise InvalidFieldError(param, f"{len(text)} bytes exceed {MOST_SCHEMA_BYTES}")
    return text


def check_schema(param: str, schema: Json) -> None:
    """Refuse references to other documents, and patterns that no engine should have to compile."""
    if isinstance(schema, list):
        for item in schema:
            check_schema(param, item)
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        if keyword in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str) and not value.startswith("#"):
            raise InvalidFieldError(param, f"{keyword} {value!r:.80} leads outside of the schema; put it below $defs")
        if keyword == "pattern" and isinstance(value, str) and len(value) > MOST_PATTERN_CHARACTERS:
            raise InvalidFieldError(param, f"a pattern of {len(value)} characters exceeds {MOST_PATTERN_CHARACTERS}")
        check_schema(param, value)
