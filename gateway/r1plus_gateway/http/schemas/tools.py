"""Tools: the answer is held to a schema that allows one call of a tool, or text where the model may choose.

The engine knows no tools: a system message describes them, and past calls and results become text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import orjson

from r1plus_contract.engine.schema_constraints import MOST_BYTES, SchemaCost, SchemaWalk, fit_schema, loosen_wholly
from r1plus_gateway.http.body.field_tables import (
    ListField,
    ObjectField,
    OtherField,
    StringField,
    Table,
    read_item,
)
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.schemas.code_tool import FUNCTION as CODE_FUNCTION
from r1plus_gateway.http.schemas.code_tool import KIND as CODE_KIND
from r1plus_gateway.http.schemas.code_tool import CodeTool
from r1plus_gateway.http.schemas.schemas import (
    STRICT,
    AnswerSchema,
    SchemaCheck,
    build_check,
    check_references,
    convert_constraint_errors,
    encode_schema,
    require_schemas,
)
from r1plus_gateway.settings import Capability, ModelSettings

MOST_TOOLS: Final = 128
TOOL_NAME: Final = StringField("name", most=64, is_required=True)
TOOL_DESCRIPTION: Final = StringField("description", most=4096)
PARAMETERS: Final = OtherField("parameters", {"type": "object"})
_ARGUMENTS_DEPTH: Final = 5
"""At which a function's arguments stand in the schema of the answer."""
FUNCTION: Final = ObjectField("function", Table((TOOL_NAME, TOOL_DESCRIPTION, PARAMETERS, STRICT)), is_required=True)
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
    Table((TOOL_TYPE, TOOL_NAME, TOOL_DESCRIPTION, PARAMETERS, STRICT)), _NAME, is_flat=True
)
"""Those of a response."""
_CONTENT: Final[Json] = {
    "type": "object",
    "properties": {"content": {"type": "string"}},
    "required": ["content"],
    "additionalProperties": False,
}


_CHARACTER: Final = r'[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})'
_CUT_TEXT: Final = re.compile(rf'\s*\{{\s*"content"\s*:\s*"((?:{_CHARACTER})*)')
"""Up to the last whole character; a surrogate ends it."""
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape of JSON: a character's two surrogates, a lone one, which is the group, or any other."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that an answer may call."""

    name: str
    description: str
    parameters: Mapping[str, Json]
    """JSON schema of its arguments."""
    place: str
    """Of the parameters in the request, for errors."""
    is_strict: bool

    def describe(self) -> str:
        """Return it as the model sees it."""
        shown = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return orjson.dumps(shown).decode()


_CODE: Final = Function(
    str(CODE_FUNCTION["name"]),
    str(CODE_FUNCTION["description"]),
    cast("Mapping[str, Json]", CODE_FUNCTION["parameters"]),
    "tools",
    is_strict=True,
)


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

    schema: AnswerSchema
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
        functions = [function for function in functions if function.name == named]
        if not functions:
            raise InvalidFieldError("tool_choice", f"{named!r:.80} is not one of the tools")
    must_call = named is not None or choice == "required"
    if code is not None:
        return _add_code(code, functions, model, must_call=must_call)
    held = _hold_functions(functions)
    return ToolSet(held.build_schema(functions, must_call=must_call), _describe_tools(functions, must_call))


def _add_code(code: CodeTool, functions: list[Function], model: ModelSettings, *, must_call: bool) -> ToolSet:
    """Return the tools with `code_interpreter`. After a program the model may always answer."""
    if any(function.name == CODE_KIND for function in functions):
        raise InvalidFieldError("tools", f"a function has the name of the tool {CODE_KIND}; rename it")
    if not model.can(Capability.MESSAGES):
        raise UnsupportedFieldError("tools", f"the engine of {model.name} takes no conversation; leave {CODE_KIND} out")
    every = [*functions, _CODE]
    held = _hold_functions(every)
    schema = next_schema = held.build_schema(every, must_call=False)
    if code.is_forced or must_call:
        schema = held.build_schema([_CODE] if code.is_forced else every, must_call=True)
    last_schema = held.build_schema(functions, must_call=False)
    plan = CodeRoundsPlan(code.most_runs, next_schema.text, last_schema.text)
    return ToolSet(schema, _describe_tools(every, must_call=False), plan)


@dataclass(frozen=True, slots=True)
class _HeldFunctions:
    """Functions whose arguments fit into one schema."""

    arguments: Mapping[str, Mapping[str, Json]]
    """What the engine enforces of each, by the place of its parameters."""
    check: SchemaCheck | None

    def build_schema(self, functions: Sequence[Function], *, must_call: bool) -> AnswerSchema:
        """Return the schema of an answer that may call some of these functions."""
        options = [
            _build_option(position, function, self.arguments[function.place])
            for position, function in enumerate(functions)
        ]
        schema = {"anyOf": options if must_call else [*options, _CONTENT]}
        return AnswerSchema(encode_schema("tools", schema), self.check)


def _hold_functions(functions: Sequence[Function]) -> _HeldFunctions:
    """Fit the parameters of functions into one schema: of strict ones all, of the others as much as is left."""
    bare: Mapping[str, Json] = {"type": "object"}
    frame = {"anyOf": [*(_build_option(0, function, bare) for function in functions), _CONTENT]}
    walk = SchemaWalk(frame, "tools")
    with convert_constraint_errors():
        walk.visit(frame, "tools", 1, ())
        for function in functions:
            if function.is_strict:
                SchemaWalk(function.parameters, function.place, walk.cost).visit(
                    function.parameters, function.place, _ARGUMENTS_DEPTH, ()
                )
        return _fit_functions(functions, walk.cost, len(orjson.dumps(frame)))


def _fit_functions(functions: Sequence[Function], cost: SchemaCost, size: int) -> _HeldFunctions:
    """`cost` and `size` in bytes: of what has its place already."""
    arguments: dict[str, Mapping[str, Json]] = {}
    dropped: list[str] = []
    checked: dict[str, Mapping[str, Json]] = {}
    for position, function in sorted(enumerate(functions), key=lambda entry: not entry[1].is_strict):
        held: Mapping[str, Json] = function.parameters
        if not function.is_strict:
            fitting, places = fit_schema(function.parameters, function.place, cost, _ARGUMENTS_DEPTH)
            if places or size + _measure(position, held) > MOST_BYTES:
                held = fitting
            if size + _measure(position, held) > MOST_BYTES:
                held, places = loosen_wholly(function.parameters), [function.place]
            if places:
                dropped += places
                checked.setdefault(function.name, function.parameters)
        size += _measure(position, held)
        arguments[function.place] = held
    return _HeldFunctions(arguments, build_check(dropped, arguments=checked))


def _measure(position: int, arguments: Mapping[str, Json]) -> int:
    """Return the bytes of a function's arguments in the schema of the answer."""
    return len(orjson.dumps(_move_references(arguments, _name_arguments(position))))


def _read_function(path: str, entry: Json, form: ToolFields) -> Function:
    fields = read_item(path, entry)
    if (kind := fields.read_string(TOOL_TYPE.name)) not in TOOL_TYPE.values:
        elsewhere = f"; {CODE_KIND} is a tool of POST /v1/responses" if kind == CODE_KIND else ""
        raise UnsupportedFieldError(f"{path}.type", f"{kind!r:.80} is not supported; only function is{elsewhere}")
    function = fields if form.is_flat else FUNCTION.read(fields)
    assert function is not None
    form.tool.refuse_rest(fields)
    place, parameters = function.locate(PARAMETERS.name), function.get(PARAMETERS.name)
    if parameters is None:
        parameters = {"type": "object"}
    name, description = TOOL_NAME.read(function), TOOL_DESCRIPTION.read(function)
    is_strict = STRICT.read(function)
    if not form.is_flat:
        FUNCTION.table.refuse_rest(function)
    if not isinstance(parameters, dict):
        raise InvalidFieldError(place, "expected a JSON schema", code="invalid_type")
    check_references(place, parameters)
    return Function(name, description, parameters, place, is_strict)


def _read_choice(choice: Json, form: ToolFields) -> str | None:
    """Return the name of the one tool that must be called, if one is named."""
    if choice in (None, "auto", "required"):
        return None
    named = choice if isinstance(choice, dict) and choice.get("type") == "function" else {}
    function = named if form.is_flat else named.get("function")
    if isinstance(function, dict) and isinstance(name := function.get("name"), str):
        return name
    raise InvalidFieldError("tool_choice", "is not one of none, auto, required, or the name of a function")


def _name_arguments(position: int) -> str:
    """Return the place of a function's arguments in the schema of the answer, as a reference."""
    return f"#/anyOf/{position}/properties/arguments"


def _build_option(position: int, function: Function, arguments: Mapping[str, Json]) -> Json:
    return {
        "type": "object",
        "properties": {
            "name": {"const": function.name},
            "arguments": _move_references(arguments, _name_arguments(position)),
        },
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


def _describe_tools(functions: Sequence[Function], must_call: bool) -> str:
    lines = ["You can call these tools:", *(function.describe() for function in functions)]
    lines.append('To call one, answer with the JSON object {"name": NAME, "arguments": ARGUMENTS}.')
    if not must_call:
        lines.append('To answer without a tool, answer with the JSON object {"content": TEXT}.')
    return "\n".join(lines)


def parse_tool_answer(text: str, stop: Sequence[str] = ()) -> ToolAnswer:
    """Read the engine's answer. Of a JSON object that was cut only the content is left, as far as it was written.

    Text that is no object, or nests too deep, is content. `stop`: content that the model wrote in place of a call ends
    before the first of these strings.
    """
    try:
        value, has_lone_surrogate = _load(text)
        arguments = orjson.dumps(value.get("arguments") if isinstance(value, dict) else None).decode()
    except ValueError:
        # A part of a call is no call, and clients would read its JSON as what the model says.
        return ToolAnswer(_cut(read_cut_text(text), stop) if text.lstrip().startswith("{") else text)
    except orjson.JSONEncodeError:
        return ToolAnswer(text)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return ToolAnswer("", ToolCall(value["name"], arguments), has_lone_surrogate)
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str):
        return ToolAnswer(text, has_lone_surrogate=has_lone_surrogate)
    return ToolAnswer(_cut(content, stop), has_lone_surrogate=has_lone_surrogate)


def read_cut_text(answer: str) -> str:
    """Return the text of an answer under tools that was cut: a part of `{"content": TEXT}`; else nothing."""
    found = _CUT_TEXT.match(answer)
    if found is None:
        return ""
    text: str = orjson.loads(f'"{found[1]}"')
    return text


def _cut(content: str, stop: Sequence[str]) -> str:
    """Return what is before the first of these strings."""
    return content[: min((place for one in stop if (place := content.find(one)) >= 0), default=None)]


def _load(text: str) -> tuple[Json, bool]:
    """Return a value, and whether U+FFFD stands for a lone surrogate in it. Raises ValueError."""
    try:
        return orjson.loads(text), False
    except ValueError:
        valid = _ESCAPE.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], text)
        if valid == text:
            raise
        return orjson.loads(valid), True


def _list_code_schemas() -> frozenset[bytes]:
    """Return the schemas of answers that may call `code_interpreter` and no other tool: the same for all callers."""
    held = _hold_functions([_CODE])
    ways: tuple[tuple[list[Function], bool], ...] = (([], False), ([_CODE], False), ([_CODE], True))
    return frozenset(held.build_schema(functions, must_call=must_call).text for functions, must_call in ways)


CODE_SCHEMAS: Final = _list_code_schemas()
