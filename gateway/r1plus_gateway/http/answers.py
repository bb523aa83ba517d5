"""Answers as bytes: whole ones, and the events of a stream around a part that is built once."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from r1plus_gateway.access.caller import AnswerEvidence, Usage
from r1plus_gateway.http.requests import Form, GenerateRequest
from r1plus_gateway.http.tools import ToolAnswer, parse_tool_answer

HEARTBEAT: Final = b": heartbeat\n\n"
DONE: Final = b"data: [DONE]\n\n"
_ID_PREFIXES: Final = {Form.CHAT: "chatcmpl-", Form.TEXT: "cmpl-", Form.GENERATE: "gen-"}
_CHUNK_OBJECTS: Final = {
    Form.CHAT: "chat.completion.chunk",
    Form.TEXT: "text_completion",
    Form.GENERATE: "generation.chunk",
}


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What all parts of one answer repeat."""

    request_id: str
    created: int
    """Seconds since the epoch."""
    request: GenerateRequest
    evidence: AnswerEvidence

    def build(self, kind: str) -> dict[str, Any]:
        """Return the fields before the choices."""
        return {
            "id": _ID_PREFIXES[self.request.form] + self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.request.model.id,
            "system_fingerprint": build_fingerprint(self.evidence),
        }


def build_fingerprint(evidence: AnswerEvidence) -> str | None:
    """Return revision and engine in one word; None where it is not verified what answered.

    A serving identity has the engine's digest without the name of the algorithm.
    """
    return f"{evidence.revision}@sha256:{evidence.engine_digest[:12]}" if evidence.revision else None


def build_usage(usage: Usage) -> dict[str, int]:
    """Return the usage as OpenAI's clients read it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def build_answer(head: AnswerHead, text: str, finish_reason: str, usage: Usage) -> bytes:
    """Return a whole answer."""
    answer = head.build(head.request.form.value)
    if head.request.form is Form.GENERATE:
        answer |= {"text": text, "finish_reason": finish_reason}
    elif head.request.form is Form.TEXT:
        answer["choices"] = [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}]
    else:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        if head.request.has_tools:
            parsed = parse_tool_answer(text)
            message["content"] = parsed.content
            if parsed.calls:
                message["tool_calls"] = parsed.calls
                finish_reason = "tool_calls"
        answer["choices"] = [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}]
    answer["usage"] = build_usage(usage)
    return orjson.dumps(answer)


class EventEnvelope:
    """The events of one stream. Only the text differs between pieces, so only the text is encoded for each."""

    def __init__(self, head: AnswerHead) -> None:
        self._form = head.request.form
        self._includes_usage = head.request.includes_usage
        self._fields = head.build(_CHUNK_OBJECTS[self._form])
        self._has_tools = head.request.has_tools
        marker = "\x1aTEXT\x1a"
        event = self._encode(self._build_choice({"content": marker}, None))
        self._before, self._after = event.split(orjson.dumps(marker))

    def build_first(self) -> bytes:
        """Return the event before all text."""
        if self._form is not Form.CHAT:
            return b""
        return self._encode(self._build_choice({"role": "assistant", "content": None if self._has_tools else ""}, None))

    def build_piece(self, text: bytes) -> bytes:
        """Return the event of a piece of text: whole UTF-8 characters."""
        return self._before + orjson.dumps(text.decode("utf-8", "replace")) + self._after

    def build_tool_answer(self, answer: ToolAnswer) -> bytes:
        """Return the event of an answer that had to be read whole."""
        if not answer.calls:
            return self.build_piece((answer.content or "").encode())
        calls = [{"index": position, **call} for position, call in enumerate(answer.calls)]
        return self._encode(self._build_choice({"tool_calls": calls}, None))

    def build_end(self, finish_reason: str, usage: Usage) -> bytes:
        """Return the last events of an answer that is whole."""
        end = self._encode(self._build_choice({}, finish_reason, usage))
        if self._includes_usage and self._form is not Form.GENERATE:
            end += b"data: " + orjson.dumps({**self._fields, "choices": [], "usage": build_usage(usage)}) + b"\n\n"
        return end + DONE

    def _build_choice(self, delta: dict[str, Any], finish_reason: str | None, usage: Usage | None = None) -> Any:
        if self._form is Form.GENERATE:
            counts = {"usage": build_usage(usage)} if usage else {}
            return {"text": delta.get("content", ""), "finish_reason": finish_reason, **counts}
        if self._form is Form.TEXT:
            choice: dict[str, Any] = {"index": 0, "text": delta.get("content", "")}
        else:
            choice = {"index": 0, "delta": delta}
        choice |= {"logprobs": None, "finish_reason": finish_reason}
        return {"choices": [choice], **({"usage": None} if self._includes_usage else {})}

    def _encode(self, fields: Any) -> bytes:
        return b"data: " + orjson.dumps({**self._fields, **fields}) + b"\n\n"
