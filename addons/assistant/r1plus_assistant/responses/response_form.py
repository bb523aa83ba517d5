"""`POST /v1/responses`: OpenAI's Responses API, as a whole object and as typed events."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from r1plus_assistant.code.code_interpreter import build_call_item, split_code_interpreter
from r1plus_assistant.files.file_search import (
    KnowledgeFinder,
    build_results,
    has_file_search,
    refuse_search,
    split_file_search,
)
from r1plus_assistant.knowledge.quotation import QuotedPassages
from r1plus_assistant.responses.response_items import COMPLETED, FAILED, INCOMPLETE, INPUT, SEARCH_CALL
from r1plus_assistant.responses.response_memory import find_question
from r1plus_assistant.responses.response_requests import (
    RESPONSE,
    ContinuationReader,
    parse_response,
    refuse_continuation,
)
from r1plus_gateway.access.caller import AnswerEvidence, Caller, TokenUsage
from r1plus_gateway.access.turns import ThreadTurns
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.answers import DONE, AnswerEnd, AnswerHead, EventWriter, split_event
from r1plus_gateway.http.completions.forms import FormDescription
from r1plus_gateway.http.completions.requests import GenerateRequest, ModelName, has_schema
from r1plus_gateway.http.errors import FieldNames, RequestError
from r1plus_gateway.http.schemas.code_tool import KIND as CODE_KIND
from r1plus_gateway.http.schemas.code_tool import CodeCall
from r1plus_gateway.http.schemas.tools import ToolAnswer, ToolCall, parse_tool_answer, read_cut_text
from r1plus_gateway.settings import ModelSettings

IN_PROGRESS: Final = "in_progress"
MOST_SENTENCES_AT_ONCE: Final = 64
"""Said before, above which memory is packed in a thread: it takes milliseconds for a few hundred."""
MOST_PACKING: Final = 2
"""Requests whose memory or documents are packed, or schemas fitted, at once: it takes processor time from streams.
A caller has one of them at a time."""
SEARCH_STATES: Final = ("in_progress", "searching", "completed")
"""Of the events of a search."""
MARK: Final = 10**15
"""Number of an event that is only there to be taken apart."""
_CONSTANTS: Final[Mapping[str, Any]] = {
    "background": False,
    "truncation": "disabled",
    "parallel_tool_calls": False,
    "max_tool_calls": None,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_logprobs": 0,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
}
"""What holds of every response, whatever was asked: an answer has at most one call."""


class ResponseForm:
    """`POST /v1/responses`."""

    description: Final = FormDescription(
        "/v1/responses",
        "Answer a conversation, by the engine's chat template: OpenAI's Responses API.",
        body=RESPONSE,
        answer="Response",
        events="ResponseEvent",
        names=FieldNames("input", "text.format.schema", "max_output_tokens"),
    )

    def __init__(
        self,
        read_continuation: ContinuationReader = refuse_continuation,
        find_knowledge: KnowledgeFinder = refuse_search,
        *,
        runs_code: bool = False,
    ) -> None:
        """`read_continuation`: looks up what a request continues; `find_knowledge`: what its file_search finds."""
        self._runs_code = runs_code
        self._read_continuation = read_continuation
        self._find_knowledge = find_knowledge
        self._packing = ThreadTurns(MOST_PACKING)

    def has_search(self, fields: Fields) -> bool:
        """See `Form`."""
        return has_file_search(fields)

    async def read_request(
        self, fields: Fields, name: ModelName, model: ModelSettings, caller: Caller
    ) -> GenerateRequest:
        """See `Form`."""
        fields, search = split_file_search(fields)
        fields, code = split_code_interpreter(fields, runs_code=self._runs_code)
        earlier = await self._read_continuation(fields, model, caller)
        found = None
        if search is not None:
            found = await self._find_knowledge(search, find_question(INPUT.read(fields)), caller)
        recollection = earlier.recollection
        has_much = recollection is not None and recollection.sentence_count > MOST_SENTENCES_AT_ONCE
        if found is None and not has_much and not has_schema(fields):
            return parse_response(fields, name, model, earlier, found, code)
        return await self._packing.run(caller.group_id, parse_response, fields, name, model, earlier, found, code)

    def build_answer(self, head: AnswerHead, text: str, end: AnswerEnd) -> bytes:
        """See `Form`."""
        content, call = text, None
        if head.request.has_tools:
            answer = _read_tool_answer(head, text)
            content, call = answer.content, answer.call
        status = _read_status(end, call)
        item = _build_message(head, status, content) if call is None else _build_call(head, status, call)
        output = [*_build_searches(head), *_build_programs(head.code), item]
        return orjson.dumps(_build_response(head, status, output, end.usage, end.at, content))

    def open_events(self, head: AnswerHead) -> EventWriter:
        """See `Form`."""
        return ResponseEvents(head)


class ResponseEvents:
    """The events of one stream. For a piece only its text is encoded, and its number."""

    def __init__(self, head: AnswerHead) -> None:
        self._head = head
        self._number = 0
        """Of the next event."""
        self._text: list[str] = []
        """Pieces of the message, which its last events repeat."""
        self._is_open = False
        """Whether a message has begun."""
        self._call: ToolCall | None = None
        self._index = len(_build_searches(head))
        """Of the message, or of the call of a function, among the items."""
        self._programs: list[CodeCall] = []
        self._set_place()

    def _set_place(self) -> None:
        """Take apart the event of a piece of text at the present index."""
        self._place = {"item_id": _name_item(self._head, "msg"), "output_index": self._index, "content_index": 0}
        marker, number = "\x1aTEXT\x1a", self._number
        self._number = MARK
        event = self._encode("response.output_text.delta", **self._place, delta=marker, logprobs=[])
        self._before, self._middle, self._after = split_event(event, b"%d" % MARK, orjson.dumps(marker))
        self._number = number

    def build_code_begin(self, call: CodeCall) -> bytes:
        """See `CodeEventWriter`."""
        place = {"item_id": call.id, "output_index": self._index}
        begun = build_call_item(CodeCall(call.id, ""), IN_PROGRESS)
        kind = f"response.{CODE_KIND}_call"
        return b"".join(
            (
                self._encode("response.output_item.added", output_index=self._index, item=begun),
                self._encode(f"{kind}.in_progress", **place),
                self._encode(f"{kind}_code.delta", **place, delta=call.text),
                self._encode(f"{kind}_code.done", **place, code=call.text),
                self._encode(f"{kind}.interpreting", **place),
            )
        )

    def build_code_end(self, call: CodeCall) -> bytes:
        """See `CodeEventWriter`."""
        (item,) = _build_programs([call])
        data = self._encode(f"response.{CODE_KIND}_call.completed", item_id=call.id, output_index=self._index)
        data += self._encode("response.output_item.done", output_index=self._index, item=item)
        self._programs.append(call)
        self._index += 1
        self._set_place()
        return data

    def build_first(self) -> bytes:
        """See `EventWriter`."""
        begun = _build_response(self._head, IN_PROGRESS, [])
        data = self._encode("response.created", response=begun) + self._encode("response.in_progress", response=begun)
        data += self._build_search_events()
        return data if self._head.request.has_tools else data + self._open_message()

    def build_piece(self, text: bytes) -> bytes:
        """See `EventWriter`."""
        piece = text.decode("utf-8", "replace")
        self._text.append(piece)
        number = self._number
        self._number = number + 1
        return b"".join((self._before, orjson.dumps(number), self._middle, orjson.dumps(piece), self._after))

    def build_tool_answer(self, text: str) -> bytes:
        """See `EventWriter`."""
        answer = _read_tool_answer(self._head, text)
        if answer.call is None:
            return self._open_message() + self.build_piece(answer.content.encode())
        self._call = call = answer.call
        place = {"item_id": _name_item(self._head, "fc"), "output_index": self._index}
        item = _build_call(self._head, COMPLETED, call)
        begun = {**item, "status": IN_PROGRESS, "arguments": ""}
        return b"".join(
            (
                self._encode("response.output_item.added", output_index=self._index, item=begun),
                self._encode("response.function_call_arguments.delta", **place, delta=call.arguments),
                self._encode(
                    "response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments
                ),
                self._encode("response.output_item.done", output_index=self._index, item=item),
            )
        )

    def read_text(self) -> str:
        """See `EventWriter`."""
        return "".join(self._text)

    def build_end(self, head: AnswerHead, end: AnswerEnd) -> bytes:
        """See `EventWriter`."""
        self._head = head
        status = _read_status(end, self._call)
        data = self._close_message(status) if self._is_open else b""
        response = _build_response(
            self._head, status, self._build_output(status), end.usage, end.at, "".join(self._text)
        )
        return data + self._encode(f"response.{status}", response=response) + DONE

    def build_error(self, error: RequestError, usage: TokenUsage) -> bytes:
        """See `EventWriter`. The first event is the one that OpenAI's client raises; many programs read no other."""
        body = orjson.loads(error.body)["error"]
        flat = {name: body[name] for name in ("code", "message", "param")}
        head = replace(self._head, code=tuple(self._programs))
        response = _build_response(head, FAILED, self._build_output(INCOMPLETE), usage)
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        response["error"] = {"code": code, "message": error.message}
        return self._encode("error", **flat, error=body) + self._encode("response.failed", response=response)

    def _build_search_events(self) -> bytes:
        """Return the events of a search, which was made before the model began."""
        events = []
        for item in _build_searches(self._head):
            place = {"item_id": item["id"], "output_index": 0}
            begun = {**item, "status": IN_PROGRESS, "results": None}
            events += [
                self._encode("response.output_item.added", output_index=0, item=begun),
                *(self._encode(f"response.file_search_call.{state}", **place) for state in SEARCH_STATES),
                self._encode("response.output_item.done", output_index=0, item=item),
            ]
        return b"".join(events)

    def _open_message(self) -> bytes:
        self._is_open = True
        item = {**_build_message(self._head, IN_PROGRESS, ""), "content": []}
        return self._encode("response.output_item.added", output_index=self._index, item=item) + self._encode(
            "response.content_part.added", **self._place, part=_build_part("")
        )

    def _close_message(self, status: str) -> bytes:
        item = _build_message(self._head, status, "".join(self._text))
        (part,) = item["content"]
        added = "response.output_text.annotation.added"
        return b"".join(
            (
                *(
                    self._encode(added, **self._place, annotation_index=number, annotation=one)
                    for number, one in enumerate(part["annotations"])
                ),
                self._encode("response.output_text.done", **self._place, text=part["text"], logprobs=[]),
                self._encode("response.content_part.done", **self._place, part=part),
                self._encode("response.output_item.done", output_index=self._index, item=item),
            )
        )

    def _build_output(self, status: str) -> list[dict[str, Any]]:
        done = [*_build_searches(self._head), *_build_programs(self._programs)]
        if self._call is not None:
            return [*done, _build_call(self._head, COMPLETED, self._call)]
        return [*done, *([_build_message(self._head, status, "".join(self._text))] if self._is_open else [])]

    def _encode(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event))


def _read_tool_answer(head: AnswerHead, text: str) -> ToolAnswer:
    """Read an answer under tools. Of one that was cut where programs are run, only its text is shown."""
    answer = parse_tool_answer(text, head.request.text_stop)
    if head.request.code is None or (answer.call is not None and answer.call.name != CODE_KIND):
        return answer
    is_cut = answer.call is not None or answer.content == text
    return ToolAnswer(read_cut_text(text)) if is_cut else answer


def _build_programs(calls: Sequence[CodeCall]) -> list[dict[str, Any]]:
    """Return the items of programs that were run. One without a result is failed; one with an error has a result."""
    return [build_call_item(call, COMPLETED if call.run is not None else FAILED) for call in calls]


def _read_status(end: AnswerEnd, call: ToolCall | None) -> str:
    """Return how a response has ended. A call that can be read is whole."""
    return COMPLETED if call is not None or end.finish_reason == "stop" else INCOMPLETE


def _name_item(head: AnswerHead, prefix: str) -> str:
    return f"{prefix}_{head.request_id}"


def _build_part(text: str, annotations: Sequence[Any] = ()) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}


def _build_searches(head: AnswerHead) -> list[dict[str, Any]]:
    """Return the item of the search that was made; none without one."""
    quoted = _find_quoted(head)
    if quoted is None:
        return []
    results = build_results(quoted) if head.request.includes_results else None
    own = {"queries": [quoted.question], "results": results}
    return [{"type": SEARCH_CALL, "id": _name_item(head, "fs"), "status": COMPLETED, **own}]


def _find_quoted(head: AnswerHead) -> QuotedPassages | None:
    quoted = head.request.knowledge
    assert quoted is None or isinstance(quoted, QuotedPassages)
    return quoted


def _build_message(head: AnswerHead, status: str, text: str) -> dict[str, Any]:
    quoted = _find_quoted(head)
    annotations = quoted.describe(text)[0] if quoted is not None else ()
    own = {"role": "assistant", "content": [_build_part(text, annotations)]}
    return {"type": "message", "id": _name_item(head, "msg"), "status": status, **own}


def _build_call(head: AnswerHead, status: str, call: ToolCall) -> dict[str, Any]:
    own = {"call_id": _name_item(head, "call"), "name": call.name, "arguments": call.arguments}
    return {"type": "function_call", "id": _name_item(head, "fc"), "status": status, **own}


def _build_response(
    head: AnswerHead,
    status: str,
    output: list[dict[str, Any]],
    usage: TokenUsage | None = None,
    ended: int | None = None,
    text: str = "",
) -> dict[str, Any]:
    """Return a response object; `ended`: seconds since the epoch; `text`: of the message, which may cite."""
    return {
        "id": _name_item(head, "resp"),
        "object": "response",
        "created_at": head.created,
        "completed_at": ended if status == COMPLETED else None,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == INCOMPLETE else None,
        "model": head.request.model.id,
        **_CONSTANTS,
        **head.request.echo,
        "output": output,
        "usage": None if usage is None else _build_usage(usage),
        "r1plus": {**_build_evidence(head.evidence), "storage": head.storage, **_build_more(head, text)},
    }


def _build_more(head: AnswerHead, text: str) -> dict[str, Any]:
    """Return what memory and documents put into the prompt, and what is said of the answer."""
    code = {} if head.request.code is None else {"code": [call.describe() for call in head.code]}
    return {**_build_memory(head.request), **_build_knowledge(head, text), **head.describe(), **code}


def _build_memory(request: GenerateRequest) -> dict[str, Any]:
    if request.memory is None:
        return {}
    changes = request.storage.memories if request.storage else None
    kept = {} if changes is None else {"kept": len(changes.said)}
    return {"memory": {**request.memory.build_figures(), **kept}}


def _build_knowledge(head: AnswerHead, text: str) -> dict[str, Any]:
    """Return what was searched and quoted, where the request asks for it."""
    quoted = _find_quoted(head)
    return {} if quoted is None else {"knowledge": quoted.describe(text)[1]}


def _build_usage(usage: TokenUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _build_evidence(evidence: AnswerEvidence) -> dict[str, str | None]:
    """Return what answers, as the headers say it too; null where it is not verified."""
    return {
        "revision": evidence.revision or None,
        "engine_digest": f"sha256:{evidence.engine_digest}" if evidence.engine_digest else None,
        "verdict": evidence.verdict,
    }
