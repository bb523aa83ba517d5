"""The `messages` of a chat: roles and texts. What is not text is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.field_tables import (
    ListField,
    OtherField,
    StringField,
    Table,
    choose,
    read_item,
)
from r1plus_gateway.http.fields import Fields
from r1plus_gateway.http.json_body import Json
from r1plus_gateway.serving.triton_wire import Prompt
from r1plus_gateway.settings import Capability, ModelSettings

MOST_MESSAGES: Final = 2048
MOST_PARTS: Final = 256
ROLES: Final = ("system", "developer", "user", "assistant", "tool")

PART_TYPE: Final = StringField("type", values=("text",), is_required=True)
PART_TEXT: Final = OtherField("text", {"type": "string"}, is_required=True)
PART: Final = Table((PART_TYPE, PART_TEXT))
_CONTENT: Final = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": PART.build_schema(),
            "minItems": 1,
            "maxItems": MOST_PARTS,
        },
    ]
}
CONTENT: Final = OtherField("content", _CONTENT, is_required=True)
CALL_ID: Final = StringField("tool_call_id")
CALLS: Final = ListField(
    "tool_calls",
    MOST_PARTS,
    {
        "type": "object",
        "properties": {
            "function": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "arguments": {}},
                "required": ["name"],
            }
        },
        "required": ["function"],
    },
)
IGNORED: Final = frozenset({"name", "refusal", "annotations"})


def _build_table(*roles: str, more: tuple[ListField | StringField, ...] = (), content: OtherField = CONTENT) -> Table:
    return Table((StringField("role", values=roles, is_required=True), content, *more), ignored=IGNORED)


_PLAIN: Final = _build_table("system", "developer", "user")
_TABLES: Final[Mapping[str, Table]] = {
    **dict.fromkeys(("system", "developer", "user"), _PLAIN),
    "assistant": _build_table("assistant", more=(CALLS,)),
    "tool": _build_table("tool", more=(CALL_ID,)),
}
_CALLING: Final = Table(
    (
        StringField("role", values=("assistant",), is_required=True),
        OtherField("content", _CONTENT),
        ListField("tool_calls", MOST_PARTS, CALLS.items, is_required=True),
    ),
    ignored=IGNORED,
)
"""A message that calls tools needs no content."""
ROLE: Final = StringField("role", values=ROLES, is_required=True)
MESSAGES: Final = ListField(
    "messages", MOST_MESSAGES, choose([_PLAIN, _TABLES["assistant"], _CALLING, _TABLES["tool"]]), is_required=True
)


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message, as the engine gets it."""

    role: str
    content: str


def read_messages(fields: Fields) -> list[PromptMessage]:
    """Read `messages`.

    Raises:
        InvalidFieldError: there is none, or one has another form.
    """
    entries = MESSAGES.read(fields)
    return [_read_message(f"messages[{position}]", entry) for position, entry in enumerate(entries)]


def build_prompt(messages: list[PromptMessage], instruction: str, model: ModelSettings, schema: bytes | None) -> Prompt:
    """Return what the engine gets. One user message goes by the input that the gate has measured.

    Raises:
        UnsupportedFieldError: the engine takes no conversation.
    """
    if instruction:
        messages = _add_instruction(messages, instruction)
    roles = [message.role for message in messages]
    if roles == ["user"]:
        return Prompt(text=messages[0].content, response_schema=schema)
    if roles == ["system", "user"]:
        return Prompt(text=messages[1].content, system=messages[0].content, response_schema=schema)
    if not model.can(Capability.MESSAGES):
        raise UnsupportedFieldError(
            "messages",
            f"the engine of {model.name} takes one user message, after at most one system message;"
            f" these are {', '.join(roles[:8])}{', ...' if len(roles) > 8 else ''}",
        )
    entries = [{"role": message.role, "content": message.content} for message in messages]
    return Prompt(messages=orjson.dumps(entries), response_schema=schema)


def _add_instruction(messages: list[PromptMessage], instruction: str) -> list[PromptMessage]:
    if messages[0].role == "system":
        return [PromptMessage("system", f"{messages[0].content}\n\n{instruction}"), *messages[1:]]
    return [PromptMessage("system", instruction), *messages]


def _read_message(path: str, entry: Json) -> PromptMessage:
    fields = read_item(path, entry)
    role = ROLE.read(fields)
    calls = CALLS.read(fields) if role == "assistant" else []
    call_id = CALL_ID.read(fields) if role == "tool" else ""
    content = _read_content(path, fields.get(CONTENT.name), is_optional=bool(calls))
    _TABLES[role].refuse_rest(fields)
    if calls:
        content = "\n".join(filter(None, [content, *(_describe_call(path, call) for call in calls)]))
    if role == "tool":
        return PromptMessage("user", f"Result of the tool call {call_id}: {content}")
    return PromptMessage("system" if role == "developer" else role, content)


def _read_content(path: str, content: Json, *, is_optional: bool) -> str:
    if content is None and is_optional:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidFieldError(f"{path}.content", "expected a string or a list of parts", code="invalid_type")
    if not 1 <= len(content) <= MOST_PARTS:
        raise InvalidFieldError(f"{path}.content", f"{len(content)} parts; send 1 to {MOST_PARTS}")
    return "".join(_read_part(f"{path}.content[{position}]", part) for position, part in enumerate(content))


def _read_part(path: str, part: Json) -> str:
    fields = read_item(path, part)
    if (kind := fields.read_string(PART_TYPE.name)) not in PART_TYPE.values:
        raise UnsupportedFieldError(f"{path}.type", f"{kind!r:.80} is not supported; the models read text only")
    text = fields.read_text(PART_TEXT.name)
    PART.refuse_rest(fields)
    if text is None:
        raise fields.build_missing_error(PART_TEXT.name)
    return text


def _describe_call(path: str, call: Json) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidFieldError(f"{path}.tool_calls", "expected calls of functions", code="invalid_type")
    return orjson.dumps({"name": function["name"], "arguments": function.get("arguments")}).decode()
