"""The `messages` of a chat: roles and texts. What is not text is refused."""

from dataclasses import dataclass
from typing import Final

import orjson

from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.fields import Fields
from r1plus_gateway.http.json_body import Json
from r1plus_gateway.serving.triton_wire import Prompt
from r1plus_gateway.settings import Capability, ModelSettings

MOST_MESSAGES: Final = 2048
MOST_PARTS: Final = 256
ROLES: Final = ("system", "developer", "user", "assistant", "tool")


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
    entries = fields.read_list("messages", MOST_MESSAGES)
    if not entries:
        raise InvalidFieldError("messages", "send at least one message", code="missing_required_parameter")
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
    if not isinstance(entry, dict):
        raise InvalidFieldError(path, "expected an object", code="invalid_type")
    fields = Fields(entry, path)
    role = fields.read_string("role")
    if role not in ROLES:
        raise InvalidFieldError(f"{path}.role", f"{role!r:.80} is not one of {', '.join(ROLES)}")
    calls = fields.read_list("tool_calls", MOST_PARTS) if role == "assistant" else []
    call_id = fields.read_string("tool_call_id") if role == "tool" else ""
    content = _read_content(path, fields.get("content"), is_optional=bool(calls))
    fields.refuse_rest(("name", "refusal", "annotations"))
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
    if not isinstance(part, dict):
        raise InvalidFieldError(path, "expected an object", code="invalid_type")
    fields = Fields(part, path)
    if (kind := fields.read_string("type")) != "text":
        raise UnsupportedFieldError(f"{path}.type", f"{kind!r:.80} is not supported; the models read text only")
    text = fields.read_text("text")
    fields.refuse_rest()
    if text is None:
        raise InvalidFieldError(f"{path}.text", "is missing", code="missing_required_parameter")
    return text


def _describe_call(path: str, call: Json) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidFieldError(f"{path}.tool_calls", "expected calls of functions", code="invalid_type")
    return orjson.dumps({"name": function["name"], "arguments": function.get("arguments")}).decode()
