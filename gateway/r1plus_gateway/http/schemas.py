"""JSON schemas that constrain an answer: `response_format` and the parameters of tools."""

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
_WITH_SCHEMA: Final = Table((StringField("type", values=("json_schema",), is_required=True), DESCRIPTION))
RESPONSE_FORMAT: Final = OtherField("response_format", choose([_PLAIN, _WITH_SCHEMA]))


def read_response_format(fields: Fields, model: ModelSettings) -> bytes | None:
    """Return the schema that `response_format` asks for; None for free text."""
    form = fields.read_object(RESPONSE_FORMAT.name)
    if form is None:
        return None
    kind = FORMAT_TYPE.read(form)
    (_WITH_SCHEMA if kind == "json_schema" else _PLAIN).refuse_rest(form)
    if kind == "text":
        return None
    require_schemas("response_format", model)
    description = DESCRIPTION.read(form) if kind == "json_schema" else None
    if description is None:
        return _ANY_OBJECT
    schema = description.get(SCHEMA.name)
    DESCRIPTION.table.refuse_rest(description)
    return encode_schema("response_format.json_schema.schema", schema)


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
