"""The `input` of a response: a text, or items, which are read into the messages that a chat would have."""

from dataclasses import dataclass
from typing import Final

from r1plus_gateway.http.errors import UnsupportedFieldError
from r1plus_gateway.http.field_tables import OtherField, StringField, Table, choose, read_item
from r1plus_gateway.http.fields import Fields
from r1plus_gateway.http.json_body import Json
from r1plus_gateway.http.messages import (
    MOST_MESSAGES,
    PART_TEXT,
    ContentField,
    PromptMessage,
    add_calls,
    build_message,
    build_result_message,
    describe_call,
)

PART_TYPE: Final = StringField("type", values=("input_text", "output_text"), is_required=True)
PART: Final = Table((PART_TYPE, PART_TEXT), ignored=frozenset({"annotations", "logprobs", "prompt_cache_breakpoint"}))
ROLE: Final = StringField("role", values=("user", "assistant", "system", "developer"), is_required=True)
CONTENT: Final = ContentField("content", PART_TYPE, PART)
CALL_ID: Final = StringField("call_id", most=64, is_required=True)
CALL_NAME: Final = StringField("name", most=64, is_required=True)
ARGUMENTS: Final = OtherField("arguments", {"type": "string"}, is_required=True)
OUTPUT: Final = ContentField("output", PART_TYPE, PART)
IGNORED: Final = frozenset({"id", "status"})
"""Of every item: an answer's item can be sent back as it is."""
MESSAGE: Final = Table((StringField("type", values=("message",)), ROLE, CONTENT), ignored=IGNORED | {"phase"})
CALL: Final = Table(
    (StringField("type", values=("function_call",), is_required=True), CALL_ID, CALL_NAME, ARGUMENTS), ignored=IGNORED
)
RESULT: Final = Table(
    (StringField("type", values=("function_call_output",), is_required=True), CALL_ID, OUTPUT),
    ignored=IGNORED | {"name"},
)


@dataclass(frozen=True, slots=True)
class InputField:
    """What to answer."""

    name: str = "input"
    is_required: bool = True

    def read(self, fields: Fields) -> list[PromptMessage]:
        """Return the messages.

        Raises:
            InvalidFieldError: there is none, or an item is not a text, a call of a function, or its result.
        """
        value = fields.get(self.name)
        if value is None or value in ("", []):
            raise fields.build_missing_error(self.name)
        if isinstance(value, str):
            return [build_message("user", value)]
        if not isinstance(value, list):
            raise fields.build_type_error(self.name, "a string or a list of items", value)
        if len(value) > MOST_MESSAGES:
            raise fields.build_value_error(self.name, f"{len(value)} items exceed {MOST_MESSAGES}")
        messages: list[PromptMessage] = []
        for position, item in enumerate(value):
            _append_item(messages, read_item(f"{self.name}[{position}]", item))
        return messages

    def build_schema(self) -> dict[str, Json]:
        """See `Field`."""
        items = {"type": "array", "items": choose([MESSAGE, CALL, RESULT]), "minItems": 1, "maxItems": MOST_MESSAGES}
        return {"anyOf": [{"type": "string", "minLength": 1}, items]}


INPUT: Final = InputField()


def _append_item(messages: list[PromptMessage], item: Fields) -> None:
    """Add an item to the messages. A call joins the message before it, as the calls of a chat's message do."""
    kind = _read_kind(item)
    if kind == "function_call":
        call = _read_call(item)
        is_joined = bool(messages) and messages[-1].role == "assistant"
        before = messages.pop() if is_joined else build_message("assistant", "")
        messages.append(add_calls(before, [call]))
    elif kind == "function_call_output":
        call_id, output = CALL_ID.read(item), OUTPUT.read(item)
        RESULT.refuse_rest(item)
        messages.append(build_result_message(call_id, output))
    else:
        role, content = ROLE.read(item), CONTENT.read(item)
        MESSAGE.refuse_rest(item)
        messages.append(build_message(role, content))


def _read_kind(item: Fields) -> str:
    """Return the type of an item. Without one it is a message, or a reference if it has nothing but an id."""
    is_reference = item.has("id") and not item.has("role")
    kind = item.read_string("type") or ("item_reference" if is_reference else "message")
    if kind == "item_reference":
        message = "item_reference names a stored item, and nothing is stored; send the item itself"
        raise UnsupportedFieldError(item.locate("type"), message)
    if kind not in ("message", "function_call", "function_call_output"):
        message = f"{kind!r:.80} is not supported; send message, function_call or function_call_output"
        raise UnsupportedFieldError(item.locate("type"), message)
    return kind


def _read_call(item: Fields) -> str:
    CALL_ID.read(item)
    name, arguments = CALL_NAME.read(item), item.read_text(ARGUMENTS.name)
    CALL.refuse_rest(item)
    if arguments is None:
        raise item.build_missing_error(ARGUMENTS.name)
    return describe_call(name, arguments)
