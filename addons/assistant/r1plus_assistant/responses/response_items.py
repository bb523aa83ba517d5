"""Items: what is said in a response or a conversation, and what tools are called with and answer.

A request's items are checked and brought into one form, which is stored as it is. Messages for a prompt are made of
that form, so a stored conversation gives the same prompt as one that is sent whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r1plus_assistant.code.code_interpreter import CALL as CODE_CALL
from r1plus_assistant.code.code_interpreter import NO_CONTAINER, quote_output, read_logs
from r1plus_gateway.http.body.field_tables import ListField, OtherField, StringField, Table, choose, read_item
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.body.json_body import Json
from r1plus_gateway.http.completions.messages import (
    MOST_MESSAGES,
    PART_TEXT,
    ContentField,
    PromptMessage,
    add_calls,
    build_message,
    build_result_message,
    describe_call,
)
from r1plus_gateway.http.errors import InvalidFieldError, UnsupportedFieldError
from r1plus_gateway.http.schemas.code_tool import KIND as CODE_KIND

Item = Mapping[str, Any]
"""An item in the one form, without an id: a message has one part of text, a result is a text."""
PART_TYPE: Final = StringField("type", values=("input_text", "output_text"), is_required=True)
PART: Final = Table((PART_TYPE, PART_TEXT), ignored=frozenset({"annotations", "logprobs", "prompt_cache_breakpoint"}))
ROLE: Final = StringField("role", values=("user", "assistant", "system", "developer"), is_required=True)
CONTENT: Final = ContentField("content", PART_TYPE, PART)
CALL_ID: Final = StringField("call_id", most=64, is_required=True)
CALL_NAME: Final = StringField("name", most=64, is_required=True)
ARGUMENTS: Final = OtherField("arguments", {"type": "string"}, is_required=True)
OUTPUT: Final = ContentField("output", PART_TYPE, PART)
SEARCH_CALL: Final = "file_search_call"
COMPLETED, INCOMPLETE = "completed", "incomplete"
FAILED: Final = "failed"
"""Status of a program without a result."""
_KEPT: Final = {"message": INCOMPLETE, CODE_CALL: FAILED}
"""The status with which an item of a kind is kept; each other one is completed."""
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
MOST_QUERY_CHARACTERS: Final = 4_096
QUERIES: Final = ListField("queries", 8, {"type": "string", "maxLength": MOST_QUERY_CHARACTERS})
SEARCH: Final = Table(
    (
        StringField("type", values=(SEARCH_CALL,), is_required=True),
        QUERIES,
    ),
    ignored=IGNORED | {"results"},
)
CODE: Final = OtherField("code", {"type": "string"}, is_required=True)
"""Empty where the model has written nothing."""
LOGS: Final = Table(
    (StringField("type", values=("logs",), is_required=True), OtherField("logs", {"type": "string"}, is_required=True))
)
OUTPUTS: Final = ListField("outputs", 8, LOGS.build_schema())
PROGRAM: Final = Table(
    (StringField("type", values=(CODE_CALL,), is_required=True), CODE, OUTPUTS), ignored=IGNORED | {"container_id"}
)
"""A program that the model has written, with what came of it."""
REASONING: Final = "reasoning"
REASONED: Final = Table(
    (StringField("type", values=(REASONING,), is_required=True),),
    ignored=IGNORED | {"summary", "content", "encrypted_content"},
)
"""What another model has thought: clients send it back with the answer. It is left out, and not stored."""
KINDS: Final = ("message", "function_call", "function_call_output", SEARCH_CALL, CODE_CALL)
ITEM_SCHEMA: Final = choose([MESSAGE, CALL, RESULT, SEARCH, PROGRAM])
INPUT_SCHEMA: Final = choose([MESSAGE, CALL, RESULT, SEARCH, PROGRAM, REASONED])


@dataclass(frozen=True, slots=True)
class InputField:
    """What to answer."""

    name: str = "input"
    is_required: bool = True

    def read(self, fields: Fields) -> list[Item]:
        """Return the items.

        Raises:
            InvalidFieldError: there is none, one has another form, or all are searches, which say nothing.
        """
        value = fields.get(self.name)
        if value is None or value in ("", []):
            raise fields.build_missing_error(self.name)
        if isinstance(value, str):
            return [_build_message("user", value)]
        if not isinstance(value, list):
            raise fields.build_type_error(self.name, "a string or a list of items", value)
        if len(value) > MOST_MESSAGES:
            raise fields.build_value_error(self.name, f"{len(value)} items exceed {MOST_MESSAGES}")
        items = [
            read_response_item(path, item)
            for position, item in enumerate(value)
            if not _is_reasoning(path := f"{self.name}[{position}]", item)
        ]
        if not drop_searches(items):
            message = f"all items are a {SEARCH_CALL}, or {REASONING}; send a message, too"
            raise fields.build_value_error(self.name, message)
        return items

    def build_schema(self) -> dict[str, Json]:
        """See `Field`."""
        items = {"type": "array", "items": INPUT_SCHEMA, "minItems": 1, "maxItems": MOST_MESSAGES}
        return {"anyOf": [{"type": "string", "minLength": 1}, items]}


INPUT: Final = InputField()


def _is_reasoning(path: str, value: Json) -> bool:
    """Return whether an item is one of reasoning, which is left out. Raises UnsupportedFieldError."""
    if not isinstance(value, dict) or value.get("type") != REASONING:
        return False
    REASONED.refuse_rest(read_item(path, value))
    return True


def read_response_item(path: str, value: Json) -> Item:
    """Read one item at `path` of a body.

    Raises:
        InvalidFieldError: it is not a text, a call of a function, or its result.
    """
    item = read_item(path, value)
    kind = _read_kind(item)
    if kind == "function_call":
        call_id, name, arguments = CALL_ID.read(item), CALL_NAME.read(item), item.read_text(ARGUMENTS.name)
        CALL.refuse_rest(item)
        if arguments is None:
            raise item.build_missing_error(ARGUMENTS.name)
        return {"type": kind, "call_id": call_id, "name": name, "arguments": arguments}
    if kind == "function_call_output":
        call_id, output = CALL_ID.read(item), OUTPUT.read(item)
        RESULT.refuse_rest(item)
        return {"type": kind, "call_id": call_id, "output": output}
    if kind == SEARCH_CALL:
        queries = QUERIES.read(item)
        SEARCH.refuse_rest(item)
        if not all(isinstance(one, str) for one in queries):
            raise item.build_type_error(QUERIES.name, "a list of texts", queries)
        if any(len(one) > MOST_QUERY_CHARACTERS for one in queries):
            raise item.build_value_error(QUERIES.name, f"one has more than {MOST_QUERY_CHARACTERS} characters")
        return {"type": kind, "queries": queries}
    if kind == CODE_CALL:
        return _read_program(item)
    role, content = ROLE.read(item), CONTENT.read(item)
    MESSAGE.refuse_rest(item)
    return {**_build_message(role, content), **_keep_status("message", item.get("status"))}


def _read_program(item: Fields) -> Item:
    code, outputs = item.read_text(CODE.name), OUTPUTS.read(item)
    PROGRAM.refuse_rest(item)
    if code is None:
        raise item.build_missing_error(CODE.name)
    for position, output in enumerate(outputs):
        path = f"{item.locate(OUTPUTS.name)}[{position}]"
        if not (isinstance(output, dict) and output.get("type") == "logs" and isinstance(output.get("logs"), str)):
            raise InvalidFieldError(path, "expected an object of type logs with a text", code="invalid_type")
        LOGS.refuse_rest(read_item(path, output))
    logs = [{"type": "logs", "logs": output["logs"]} for output in outputs if isinstance(output, dict)]
    own = {"type": CODE_CALL, "code": code, "container_id": NO_CONTAINER, "outputs": logs}
    return {**own, **_keep_status(CODE_CALL, item.get("status"))}


def drop_searches(items: Sequence[Item]) -> list[Item]:
    """Return the items without searches: what those found is no part of what was said."""
    return [item for item in items if item["type"] != SEARCH_CALL]


def drop_tool_runs(items: Sequence[Item]) -> list[Item]:
    """Return the items without what the gateway's own tools have done: it is no part of what was said."""
    return [item for item in drop_searches(items) if item["type"] != CODE_CALL]


def quote_outputs(items: Sequence[Item], context_tokens: int) -> list[Item]:
    """Return the items with as much of each program's outputs as the model read while it answered."""
    return [_quote_program(item, context_tokens) if item["type"] == CODE_CALL else item for item in items]


def _quote_program(item: Item, context_tokens: int) -> Item:
    return {**item, "outputs": [{"type": "logs", "logs": quote_output(read_logs(item["outputs"]), context_tokens)}]}


def strip_answer_item(item: Item) -> Item:
    """Return an answer's item in the one form, without what only an answer says."""
    own = ("id", "status", *(["results"] if item["type"] == SEARCH_CALL else []))
    said = {name: value for name, value in item.items() if name not in own}
    return {**said, **_keep_status(item["type"], item.get("status"))}


def _keep_status(kind: str, status: Json) -> Mapping[str, Json]:
    """Return the status of an item that is kept with it: that a message was cut, or a program has no result."""
    return {"status": status} if status is not None and status == _KEPT.get(kind) else {}


def read_item_text(item: Item) -> str:
    """Return the text of a message."""
    return "".join(part["text"] for part in item["content"])


def build_messages(items: Sequence[Item]) -> list[PromptMessage]:
    """Return the messages that a chat would have. A call joins the message before it, as a chat's calls do."""
    messages: list[PromptMessage] = []
    calls: list[str] = []
    """Of the last message. They join it together: one by one each would copy all before it."""
    for item in drop_searches(items):
        if item["type"] in ("function_call", CODE_CALL):
            if not calls and not (messages and messages[-1].role == "assistant"):
                messages.append(build_message("assistant", ""))
            calls.append(_describe_call_item(item))
            if item["type"] == CODE_CALL:
                _join_calls(messages, calls)
                messages.append(build_result_message(CODE_KIND, read_logs(item["outputs"])))
            continue
        _join_calls(messages, calls)
        if item["type"] == "function_call_output":
            messages.append(build_result_message(item["call_id"], item["output"]))
        else:
            messages.append(build_message(item["role"], read_item_text(item)))
    _join_calls(messages, calls)
    return messages


def _describe_call_item(item: Item) -> str:
    if item["type"] == CODE_CALL:
        return describe_call(CODE_KIND, {"code": item["code"]})
    return describe_call(item["name"], item["arguments"])


def _join_calls(messages: list[PromptMessage], calls: list[str]) -> None:
    if calls:
        messages.append(add_calls(messages.pop(), calls))
        calls.clear()


def _build_message(role: str, text: str) -> Item:
    if role == "assistant":
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    else:
        part = {"type": "input_text", "text": text}
    return {"type": "message", "role": role, "content": [part]}


def _read_kind(item: Fields) -> str:
    """Return the type of an item. Without one it is a message, or a reference if it has nothing but an id."""
    is_reference = item.has("id") and not item.has("role")
    kind = item.read_string("type") or ("item_reference" if is_reference else "message")
    if kind == "item_reference":
        message = "item_reference is not supported; send the item itself, or name its conversation"
        raise UnsupportedFieldError(item.locate("type"), message)
    if kind not in KINDS:
        message = f"{kind!r:.80} is not supported; send message, function_call or function_call_output"
        raise UnsupportedFieldError(item.locate("type"), message)
    return kind
