"""The forms whose streams are chunks: chat and text completions as OpenAI has them, and the native `generate`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from r1plus_contract.inference import Role
from r1plus_gateway.access.caller import Caller, TokenUsage
from r1plus_gateway.access.turns import ThreadTurns
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.answers import (
    DONE,
    AnswerEnd,
    AnswerHead,
    EventWriter,
    build_fingerprint,
    split_event,
)
from r1plus_gateway.http.completions.contexts import SourceProvider
from r1plus_gateway.http.completions.forms import FormDescription
from r1plus_gateway.http.completions.messages import read_messages
from r1plus_gateway.http.completions.requests import (
    CHAT,
    GENERATE,
    TEXT,
    GenerateRequest,
    ModelName,
    has_schema,
    parse_chat,
    parse_generate,
    parse_text,
)
from r1plus_gateway.http.errors import FieldNames, RequestError
from r1plus_gateway.http.schemas.tools import ToolCall, parse_tool_answer
from r1plus_gateway.settings import ModelSettings

MOST_PARSING: Final = 2
"""Chats whose schemas are fitted, or whose passages are quoted, at once; of a caller one."""
SCHEMA_FIELD: Final = "response_format.json_schema.schema"
CHAT_FORM: Final = FormDescription(
    "/v1/chat/completions",
    "Answer a chat, by the engine's chat template.",
    body=CHAT,
    answer="ChatCompletion",
    events="ChatCompletionChunk",
    names=FieldNames("messages", SCHEMA_FIELD, "max_tokens"),
)
TEXT_FORM: Final = FormDescription(
    "/v1/completions",
    "Continue a prompt as it is, without a template.",
    body=TEXT,
    answer="TextCompletion",
    events="TextCompletionChunk",
    names=FieldNames("prompt", limit="max_tokens"),
)
GENERATE_FORM: Final = FormDescription(
    "/v1/generate",
    "Answer a prompt: the native form.",
    body=GENERATE,
    answer="Generation",
    events="GenerationChunk",
    names=FieldNames("prompt", SCHEMA_FIELD, "max_new_tokens"),
)


def build_usage(usage: TokenUsage) -> dict[str, int]:
    """Return the usage as OpenAI's clients read it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _build_head(head: AnswerHead, prefix: str, kind: str) -> dict[str, Any]:
    """Return the fields before the choices."""
    return {
        "id": prefix + head.request_id,
        "object": kind,
        "created": head.created,
        "model": head.request.model.id,
        "system_fingerprint": build_fingerprint(head.evidence),
    }


def _build_report(head: AnswerHead) -> dict[str, Any]:
    """Return what is said of the answer, if anything is."""
    report = head.describe()
    return {"r1plus": report} if report else {}


def _merge_reports(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `r1plus` of several as one; nothing without any."""
    merged = {name: value for part in parts for name, value in part.get("r1plus", {}).items()}
    return {"r1plus": merged} if merged else {}


def _build_choice(finish_reason: str | None, **content: Any) -> dict[str, Any]:
    """Return the one choice of a whole answer or of a chunk."""
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}


def _build_call(head: AnswerHead, call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{head.request_id}", "type": "function", "function": function}


def _build_knowledge(head: AnswerHead, text: str) -> dict[str, Any]:
    """Return `annotations` and `r1plus` of an answer before which documents were searched; nothing of another."""
    quoted = head.request.knowledge
    if quoted is None:
        return {}
    annotations, figures = quoted.describe(text)
    return {"annotations": annotations, "r1plus": {"knowledge": figures}}


def _find_newest_question(fields: Fields) -> str:
    """Return the newest message of the user; empty if there is none."""
    said = [message.content for message in read_messages(fields) if message.role == Role.USER]
    return said[-1] if said else ""


class ChatForm:
    """`POST /v1/chat/completions`."""

    def __init__(self, sources: SourceProvider | None = None) -> None:
        """`sources`: what a chat may search; None: nothing."""
        self._sources = sources
        self._parsing = ThreadTurns(MOST_PARSING)
        fields = CHAT.fields if sources is None else (*CHAT.fields, sources.field)
        self.description: Final = replace(CHAT_FORM, body=replace(CHAT, fields=fields))

    def has_search(self, fields: Fields) -> bool:
        """See `Form`."""
        return self._sources is not None and fields.has(self._sources.field.name)

    async def read_request(
        self, fields: Fields, name: ModelName, model: ModelSettings, caller: Caller
    ) -> GenerateRequest:
        """See `Form`."""
        found, body = None, self.description.body
        if self._sources is not None:
            found = await self._sources.find(fields, caller, lambda: _find_newest_question(fields))
        if found is None and not has_schema(fields):
            return parse_chat(fields, name, model, table=body)
        # In a thread: a hostile schema, or fifty long passages, take as long as many events of streams.
        return await self._parsing.run(caller.group_id, parse_chat, fields, name, model, found, body)

    def build_answer(self, head: AnswerHead, text: str, end: AnswerEnd) -> bytes:
        """See `Form`."""
        finish_reason = end.finish_reason
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        if head.request.has_tools:
            parsed = parse_tool_answer(text, head.request.text_stop)
            message["content"] = parsed.content
            if parsed.call is not None:
                finish_reason = "tool_calls"
                message |= {"content": None, "tool_calls": [_build_call(head, parsed.call)]}
        cited = _build_knowledge(head, message["content"] or "")
        message["annotations"] = cited.pop("annotations", [])
        choice = _build_choice(finish_reason, message=message)
        answer = _build_head(head, "chatcmpl-", "chat.completion")
        report = _merge_reports(cited, _build_report(head))
        return orjson.dumps({**answer, "choices": [choice], "usage": build_usage(end.usage), **report})

    def open_events(self, head: AnswerHead) -> EventWriter:
        """See `Form`."""
        return ChatEvents(head, "chatcmpl-", "chat.completion.chunk")


class TextForm:
    """`POST /v1/completions`."""

    description: Final = TEXT_FORM

    def has_search(self, _: Fields) -> bool:
        """See `Form`."""
        return False

    async def read_request(self, fields: Fields, name: ModelName, model: ModelSettings, _: Caller) -> GenerateRequest:
        """See `Form`."""
        return parse_text(fields, name, model)

    def build_answer(self, head: AnswerHead, text: str, end: AnswerEnd) -> bytes:
        """See `Form`."""
        choice = _build_choice(end.finish_reason, text=text)
        answer = _build_head(head, "cmpl-", "text_completion")
        return orjson.dumps({**answer, "choices": [choice], "usage": build_usage(end.usage), **_build_report(head)})

    def open_events(self, head: AnswerHead) -> EventWriter:
        """See `Form`."""
        return TextEvents(head, "cmpl-", "text_completion")


class GenerateForm:
    """`POST /v1/generate`."""

    description: Final = GENERATE_FORM

    def __init__(self) -> None:
        self._parsing = ThreadTurns(MOST_PARSING)

    def has_search(self, _: Fields) -> bool:
        """See `Form`."""
        return False

    async def read_request(
        self, fields: Fields, name: ModelName, model: ModelSettings, caller: Caller
    ) -> GenerateRequest:
        """See `Form`."""
        if not has_schema(fields):
            return parse_generate(fields, name, model)
        return await self._parsing.run(caller.group_id, parse_generate, fields, name, model)

    def build_answer(self, head: AnswerHead, text: str, end: AnswerEnd) -> bytes:
        """See `Form`."""
        answer = _build_head(head, "gen-", "generation")
        own = {"text": text, "finish_reason": end.finish_reason, "usage": build_usage(end.usage)}
        return orjson.dumps({**answer, **own, **_build_report(head)})

    def open_events(self, head: AnswerHead) -> EventWriter:
        """See `Form`."""
        return GenerateEvents(head, "gen-", "generation.chunk")


class ChunkEvents(ABC):
    """The chunks of one stream. Only the text differs between pieces, so only the text is encoded for each."""

    def __init__(self, head: AnswerHead, prefix: str, kind: str) -> None:
        self._request = head.request
        self._head = _build_head(head, prefix, kind)
        marker = "\x1aTEXT\x1a"
        self._before, self._after = split_event(self._encode(self._build_text(marker)), orjson.dumps(marker))

    def build_first(self) -> bytes:
        """See `EventWriter`."""
        return b""

    def build_piece(self, text: bytes) -> bytes:
        """See `EventWriter`."""
        return self._before + orjson.dumps(text.decode("utf-8", "replace")) + self._after

    def build_tool_answer(self, text: str) -> bytes:
        """See `EventWriter`."""
        return self.build_piece(text.encode())

    def read_text(self) -> str:
        """See `EventWriter`."""
        return ""

    @abstractmethod
    def build_end(self, head: AnswerHead, end: AnswerEnd) -> bytes:
        """See `EventWriter`."""

    def build_error(self, error: RequestError, _: TokenUsage) -> bytes:
        """See `EventWriter`."""
        return b"data: " + error.body + b"\n\n"

    @abstractmethod
    def _build_text(self, text: str) -> dict[str, Any]:
        """Return the own fields of a chunk of text."""

    def _encode(self, fields: dict[str, Any]) -> bytes:
        return b"data: " + orjson.dumps({**self._head, **fields}) + b"\n\n"


class TextEvents(ChunkEvents):
    """The chunks of a text completion."""

    def build_end(self, head: AnswerHead, end: AnswerEnd) -> bytes:
        """See `EventWriter`."""
        report = _merge_reports(self._build_rest(), _build_report(head))
        last = self._encode({**self._wrap(self._build_last(end.finish_reason)), **report})
        if self._request.includes_usage:
            last += self._encode({"choices": [], "usage": build_usage(end.usage)})
        return last + DONE

    def _build_last(self, finish_reason: str) -> dict[str, Any]:
        """Return the choice that says why the text has ended."""
        return _build_choice(finish_reason, text="")

    def _build_rest(self) -> dict[str, Any]:
        """Return what else the last chunk has."""
        return {}

    def _build_text(self, text: str) -> dict[str, Any]:
        return self._wrap(_build_choice(None, text=text))

    def _wrap(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [choice], **({"usage": None} if self._request.includes_usage else {})}


class ChatEvents(TextEvents):
    """The chunks of a chat."""

    _has_call = False

    def __init__(self, head: AnswerHead, prefix: str, kind: str) -> None:
        super().__init__(head, prefix, kind)
        self._answer = head
        self._pieces: list[bytes] = []
        """Of an answer that may cite documents."""

    def build_piece(self, text: bytes) -> bytes:
        """See `EventWriter`."""
        if self._request.knowledge is not None:
            self._pieces.append(text)
        return super().build_piece(text)

    def build_first(self) -> bytes:
        """See `EventWriter`."""
        content = None if self._request.has_tools else ""
        return self._encode(self._wrap(_build_choice(None, delta={"role": "assistant", "content": content})))

    def build_tool_answer(self, text: str) -> bytes:
        """See `EventWriter`."""
        answer = parse_tool_answer(text, self._request.text_stop)
        if answer.call is None:
            return self.build_piece(answer.content.encode())
        self._has_call = True
        delta = {"tool_calls": [{"index": 0, **_build_call(self._answer, answer.call)}]}
        return self._encode(self._wrap(_build_choice(None, delta=delta)))

    def _build_last(self, finish_reason: str) -> dict[str, Any]:
        annotations = self._describe_knowledge().get("annotations")
        delta = {"annotations": annotations} if annotations else {}
        return _build_choice("tool_calls" if self._has_call else finish_reason, delta=delta)

    def _build_rest(self) -> dict[str, Any]:
        return {name: value for name, value in self._describe_knowledge().items() if name != "annotations"}

    def _describe_knowledge(self) -> dict[str, Any]:
        return _build_knowledge(self._answer, b"".join(self._pieces).decode("utf-8", "replace"))

    def _build_text(self, text: str) -> dict[str, Any]:
        return self._wrap(_build_choice(None, delta={"content": text}))


class GenerateEvents(ChunkEvents):
    """The chunks of the native form; the last one has the usage."""

    def build_end(self, head: AnswerHead, end: AnswerEnd) -> bytes:
        """See `EventWriter`."""
        last = {"text": "", "finish_reason": end.finish_reason, "usage": build_usage(end.usage)}
        return self._encode({**last, **_build_report(head)}) + DONE

    def _build_text(self, text: str) -> dict[str, Any]:
        return {"text": text, "finish_reason": None}
