"""The `messages` of a chat: roles and texts. What is not text is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import orjson

from r1plus_contract.inference import Role
from r1plus_gateway.http.body.field_tables import (
    ListField,
    OtherField,
    StringField,
    Table,
    choose,
    read_item,
)
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.serving.triton_wire import Prompt
from r1plus_gateway.settings import Capability, ModelSettings

MOST_MESSAGES: Final = 2048
MOST_PARTS: Final = 256
ROLES: Final = ("system", "developer", "user", "assistant", "tool")

PART_TEXT: Final = OtherField("text", {"type": "string"}, is_required=True)


@dataclass(frozen=True, slots=True)
class ContentField:
    """A text: a string, or a list of parts, whose texts are joined."""

    name: str
    kind: StringField
    part: Table
    """Of one part, with the kind and `PART_TEXT`."""
    is_required: bool = True

    def read(self, fields: Fields) -> str:
        """Return the text.

        Raises:
            InvalidFieldError: there is none, or it is neither a string nor a list of texts.
        """
        path, content = fields.locate(self.name), fields.get(self.name)
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise InvalidFieldError(path, "expected a string or a list of parts", code="invalid_type")
        if not 1 <= len(content) <= MOST_PARTS:
            raise InvalidFieldError(path, f"{len(content)} parts; send 1 to {MOST_PARTS}")
        return "".join(self._read_part(f"{path}[{position}]", part) for position, part in enumerate(content))

    def build_schema(self) -> dict[str, Json]:
        """See `Field`."""
        parts = {"type": "array", "items": self.part.build_schema(), "minItems": 1, "maxItems": MOST_PARTS}
        return {"anyOf": [{"type": "string"}, parts]}

    def _read_part(self, path: str, part: Json) -> str:
        fields = read_item(path, part)
        if (kind := fields.read_string(self.kind.name)) not in self.kind.values:
            raise UnsupportedFieldError(f"{path}.type", f"{kind!r:.80} is not supported; the models read text only")
        text = fields.read_text(PART_TEXT.name)
        self.part.refuse_rest(fields)
        if text is None:
            raise fields.build_missing_error(PART_TEXT.name)
        return text


PART_TYPE: Final = StringField("type", values=("text",), is_required=True)
CONTENT: Final = ContentField("content", PART_TYPE, Table((PART_TYPE, PART_TEXT)))
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
REPORTED: Final = frozenset({"reasoning_content", "reasoning", "reasoning_details", "provider_specific_fields"})
"""Of an assistant's message as other servers have it: what the model thought is no part of what it said."""


def _build_table(
    *roles: str, more: tuple[ListField | StringField, ...] = (), reported: frozenset[str] = frozenset()
) -> Table:
    role = StringField("role", values=roles, is_required=True)
    return Table((role, CONTENT, *more), ignored=IGNORED, reported=reported)


_PLAIN: Final = _build_table("system", "developer", "user")
_TABLES: Final[Mapping[str, Table]] = {
    **dict.fromkeys(("system", "developer", "user"), _PLAIN),
    "assistant": _build_table("assistant", more=(CALLS,), reported=REPORTED),
    "tool": _build_table("tool", more=(CALL_ID,)),
}
_CALLING: Final = Table(
    (
        StringField("role", values=("assistant",), is_required=True),
        replace(CONTENT, is_required=False),
        ListField("tool_calls", MOST_PARTS, CALLS.items, is_required=True),
    ),
    ignored=IGNORED,
    reported=REPORTED,
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
    is_result: bool = False
    """Whether a tool said it, in the user's place."""


def read_messages(fields: Fields) -> list[PromptMessage]:
    """Read `messages`.

    Raises:
        InvalidFieldError: there is none, or one has another form.
    """
    entries = MESSAGES.read(fields)
    return [_read_message(f"messages[{position}]", entry) for position, entry in enumerate(entries)]


def list_ignored(fields: Fields) -> list[str]:
    """Return which fields of messages are ignored, each once; the messages have been read."""
    entries = [entry for entry in MESSAGES.read(fields) if isinstance(entry, dict)]
    names = {name for entry in entries for name in REPORTED & entry.keys() if entry[name] is not None}
    return [f"messages[].{name}" for name in sorted(names)]


def find_question(messages: Sequence[PromptMessage]) -> str:
    """Return what the user says last; empty if the last to speak is someone else, or a tool."""
    last = messages[-1]
    return last.content if last.role == Role.USER and not last.is_result else ""


def build_prompt(
    messages: list[PromptMessage],
    instruction: str,
    model: ModelSettings,
    schema: bytes | None,
    *,
    param: str = MESSAGES.name,
) -> Prompt:
    """Return what the engine gets. One user message goes by the input that the gate has measured.

    `param`: the field of the request that the messages come from.

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
            param,
            f"the engine of {model.name} takes one user message, after at most one system message;"
            f" these are {', '.join(roles[:8])}{', ...' if len(roles) > 8 else ''}",
        )
    entries = [{"role": message.role, "content": message.content} for message in messages]
    return Prompt(messages=orjson.dumps(entries), response_schema=schema)


def continue_prompt(prompt: Prompt, messages: Sequence[PromptMessage], schema: bytes) -> Prompt:
    """Return the prompt with messages after it, whose answer is held to a schema."""
    if prompt.messages is not None:
        entries = orjson.loads(prompt.messages)
    else:
        system = [{"role": Role.SYSTEM, "content": prompt.system}] if prompt.system else []
        entries = [*system, {"role": Role.USER, "content": prompt.text}]
    entries += [{"role": message.role, "content": message.content} for message in messages]
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
    content = "" if calls and not fields.has(CONTENT.name) else CONTENT.read(fields)
    _TABLES[role].refuse_rest(fields)
    if role == "tool":
        return build_result_message(call_id, content)
    message = build_message(role, content)
    return add_calls(message, [_read_call(path, call) for call in calls]) if calls else message


def build_message(role: str, content: str) -> PromptMessage:
    """Return a message; developers speak as the system does."""
    return PromptMessage("system" if role == "developer" else role, content)


def add_calls(message: PromptMessage, calls: list[str]) -> PromptMessage:
    """Return the message with the calls of tools that it made: the engine reads them as text."""
    return PromptMessage(message.role, "\n".join(filter(None, [message.content, *calls])))


def build_result_message(call_id: str, content: str) -> PromptMessage:
    """Return what the engine gets of a tool's result."""
    return PromptMessage("user", f"Result of the tool call {call_id}: {content}", is_result=True)


def describe_call(name: str, arguments: Json) -> str:
    """Return what the engine gets of a past call."""
    return orjson.dumps({"name": name, "arguments": arguments}).decode()


def _read_call(path: str, call: Json) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidFieldError(f"{path}.tool_calls", "expected calls of functions", code="invalid_type")
    return describe_call(function["name"], function.get("arguments"))


def insert_quotations(messages: Sequence[PromptMessage], block: str) -> list[PromptMessage]:
    """Return the messages with quotations before what the user says last: they join it."""
    place = next((index for index in range(len(messages) - 1, -1, -1) if messages[index].role == Role.USER), None)
    if place is None:
        return [*messages, PromptMessage(Role.USER, block)]
    joined = PromptMessage(Role.USER, f"{block}\n\n{messages[place].content}")
    return [*messages[:place], joined, *messages[place + 1 :]]
