"""Tools: the answer is held to a schema that allows one call of a tool, or text where the model may choose.

The engine knows no tools: a system message describes them, and past calls and results become text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from r1plus_gateway.http.code_interpreter import FUNCTION as CODE_FUNCTION
from r1plus_gateway.http.code_interpreter import KIND as CODE_KIND
from r1plus_gateway.http.code_interpreter import CodeTool
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.field_tables import (
    ListField,
    ObjectField,
    OtherField,
    StringField,
    Table,
    read_item,
)
from r1plus_gateway.http.fields import Fields
from r1plus_gateway.http.json_body import Json
from r1plus_gateway.http.schemas import check_schema, encode_schema, require_schemas
from r1plus_gateway.settings import Capability, ModelSettings

MOST_TOOLS: Final = 128
TOOL_NAME: Final = StringField("name", most=64, is_required=True)
TOOL_DESCRIPTION: Final = StringField("description", most=4096)
PARAMETERS: Final = OtherField("parameters", {"type": "object"})
FUNCTION: Final = ObjectField(
    "function", Table((TOOL_NAME, TOOL_DESCRIPTION, PARAMETERS), ignored=frozenset({"strict"})), is_required=True
)
TOOL_TYPE: Final = StringField("type", values=("function",), is_required=True)


@dataclass(frozen=True, slots=True)
class ToolFields:
    """The fields `tools` and `tool_choice` of an endpoint."""

    tool: Table
    tools: ListField
    choice: OtherField
    is_flat: bool
    """Whether name and parameters are fields of the tool; else they are in an object `function`."""


def _build_tool_fields(tool: Table, named: Mapping[str, Json], *, is_flat: bool) -> ToolFields:
    """Return the fields; `named`: what names a function in `tool_choice`, besides its type."""
    properties = {"type": {"const": "function"}, **named}
    one = {"type": "object", "properties": properties, "required": list(properties)}
    choice = OtherField("tool_choice", {"anyOf": [{"enum": ["none", "auto", "required"]}, one]})
    return ToolFields(tool, ListField("tools", MOST_TOOLS, tool.build_schema()), choice, is_flat)


_NAME: Final[Json] = {"name": {"type": "string"}}
_FUNCTION: Final[Json] = {"type": "object", "properties": _NAME, "required": ["name"]}
CHAT_TOOLS: Final = _build_tool_fields(Table((TOOL_TYPE, FUNCTION)), {"function": _FUNCTION}, is_flat=False)
FLAT_TOOLS: Final = _build_tool_fields(
    Table((TOOL_TYPE, TOOL_NAME, TOOL_DESCRIPTION, PARAMETERS), ignored=frozenset({"strict"})), _NAME, is_flat=True
)
"""Those of a response."""
_CONTENT: Final[Json] = {
    "type": "object",
    "properties": {"content": {"type": "string"}},
    "required": ["content"],
    "additionalProperties": False,
}


_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape of JSON: a character's two surrogates, a lone one, which is the group, or any other."""


@dataclass(frozen=True, slots=True)
class CodeRoundsPlan:
    """How many programs of the model are run, and what it may answer in between."""

    most_runs: int
    next_schema: bytes
    """After a program: another one, or what else the tools allow."""
    last_schema: bytes
    """After the last one: no further program."""


@dataclass(frozen=True, slots=True)
class ToolSet:
    """The tools that an answer may call."""

    schema: bytes
    """Of the answer."""
    instruction: str
    """System message that describes them."""
    code: CodeRoundsPlan | None = None
    """None: the gateway runs no program."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for: an answer has one at most, so it is named after the request."""

    name: str
    arguments: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """An answer under a `ToolSet`: text, or one call."""

    content: str
    call: ToolCall | None = None
    has_lone_surrogate: bool = False
    """Whether the engine has written one, for which U+FFFD stands here: it is no character, so no text may have it."""


def read_tools(
    fields: Fields, model: ModelSettings, form: ToolFields = CHAT_TOOLS, code: CodeTool | None = None
) -> ToolSet | None:
    """Read `tools` and `tool_choice`; None where no tool may be called. `code`: the tool of the gateway itself."""
    entries = form.tools.read(fields)
    choice = fields.get(form.choice.name)
    if not entries and code is None:
        if choice not in (None, "none", "auto"):
            raise InvalidFieldError("tool_choice", "needs tools")
        return None
    require_schemas("tools", model)
    functions = [_read_function(f"tools[{position}]", entry, form) for position, entry in enumerate(entries)]
    if choice == "none":
        return None
    named = _read_choice(choice, form)
    if named is not None:
        functions = [function for function in functions if function["name"] == named]
        if not functions:
            raise InvalidFieldError("tool_choice", f"{named!r:.80} is not one of the tools")
    must_call = named is not None or choice == "required"
    if code is not None:
        return _add_code(code, functions, model, must_call=must_call)
    return ToolSet(_build_answer_schema(functions, must_call=must_call), _describe_tools(functions, must_call))


def _add_code(code: CodeTool, functions: list[dict[str, Json]], model: ModelSettings, *, must_call: bool) -> ToolSet:
    """Return the tools with `code_interpreter`. After a program the model may always answer."""
    if any(function["name"] == CODE_KIND for function in functions):
        raise InvalidFieldError("tools", f"a function has the name of the tool {CODE_KIND}; rename it")
    if not model.can(Capability.MESSAGES):
        raise UnsupportedFieldError("tools", f"the engine of {model.name} takes no conversation; leave {CODE_KIND} out")
    every = [*functions, dict(CODE_FUNCTION)]
    next_schema = _build_answer_schema(every, must_call=False)
    schema = next_schema
    if code.is_forced or must_call:
        schema = _build_answer_schema([dict(CODE_FUNCTION)] if code.is_forced else every, must_call=True)
    plan = CodeRoundsPlan(code.most_runs, next_schema, _build_answer_schema(functions, must_call=False))
    return ToolSet(schema, _describe_tools(every, must_call=False), plan)


def _build_answer_schema(functions: list[dict[str, Json]], *, must_call: bool) -> bytes:
    options = [_build_option(position, function) for position, function in enumerate(functions)]
    return encode_schema("tools", {"anyOf": options if must_call else [*options, _CONTENT]})


def _read_function(path: str, entry: Json, form: ToolFields) -> dict[str, Json]:
    fields = read_item(path, entry)
    if (kind := fields.read_string(TOOL_TYPE.name)) not in TOOL_TYPE.values:
        elsewhere = f"; {CODE_KIND} is a tool of POST /v1/responses" if kind == CODE_KIND else ""
        raise UnsupportedFieldError(f"{path}.type", f"{kind!r:.80} is not supported; only function is{elsewhere}")
    function = fields if form.is_flat else FUNCTION.read(fields)
    assert function is not None
    form.tool.refuse_rest(fields)
    parameters = function.get(PARAMETERS.name)
    read = {
        "name": TOOL_NAME.read(function),
        "description": TOOL_DESCRIPTION.read(function),
        "parameters": {"type": "object"} if parameters is None else parameters,
    }
    if not form.is_flat:
        FUNCTION.table.refuse_rest(function)
    if not isinstance(read["parameters"], dict):
        raise InvalidFieldError(function.locate(PARAMETERS.name), "expected a JSON schema", code="invalid_type")
    check_schema(function.locate(PARAMETERS.name), read["parameters"])
    return read


def _read_choice(choice: Json, form: ToolFields) -> str | None:
    """Return the name of the one tool that must be called, if one is named."""
    if choice in (None, "auto", "required"):
        return None
    named = choice if isinstance(choice, dict) and choice.get("type") == "function" else {}
    function = named if form.is_flat else named.get("function")
    if isinstance(function, dict) and isinstance(name := function.get("name"), str):
        return name
    raise InvalidFieldError("tool_choice", "is not one of none, auto, required, or the name of a function")


def _build_option(position: int, function: Mapping[str, Json]) -> Json:
    arguments = _move_references(function["parameters"], f"#/anyOf/{position}/properties/arguments")
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _move_references(schema: Json, base: str) -> Json:
    """Return a schema whose references lead to its new place in a larger one."""
    if isinstance(schema, list):
        return [_move_references(item, base) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: base + value[1:] if key == "$ref" and isinstance(value, str) else _move_references(value, base)
        for key, value in schema.items()
    }


def _describe_tools(functions: list[dict[str, Json]], must_call: bool) -> str:
    lines = ["You can call these tools:", *(orjson.dumps(function).decode() for function in functions)]
    lines.append('To call one, answer with the JSON object {"name": NAME, "arguments": ARGUMENTS}.')
    if not must_call:
        lines.append('To answer without a tool, answer with the JSON object {"content": TEXT}.')
    return "\n".join(lines)


def parse_tool_answer(text: str, stop: Sequence[str] = ()) -> ToolAnswer:
    """Read the engine's answer. Text that is no whole JSON object, because it was cut or nests too deep, is content.

    `stop`: content that the model wrote in place of a call ends before the first of these strings.
    """
    try:
        value, has_lone_surrogate = _load(text)
        arguments = orjson.dumps(value.get("arguments") if isinstance(value, dict) else None).decode()
    except (ValueError, orjson.JSONEncodeError):
        return ToolAnswer(text)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return ToolAnswer("", ToolCall(value["name"], arguments), has_lone_surrogate)
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str):
        return ToolAnswer(text, has_lone_surrogate=has_lone_surrogate)
    end = min((place for one in stop if (place := content.find(one)) >= 0), default=None)
    return ToolAnswer(content[:end], has_lone_surrogate=has_lone_surrogate)


def _load(text: str) -> tuple[Json, bool]:
    """Return a value, and whether U+FFFD stands for a lone surrogate in it. Raises ValueError."""
    try:
        return orjson.loads(text), False
    except ValueError:
        valid = _ESCAPE.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], text)
        if valid == text:
            raise
        return orjson.loads(valid), True
