"""Storage of responses: what a request continues is read before its prompt is made, what it says is stored at its end.

The client learns of an answer's end after it was stored, and the answer says whether it was. What cannot be stored is
answered all the same: it was generated, and is billed.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import orjson

from r1plus_assistant.conversations.content_handlers import (
    NOT_STORED,
    ContentTurns,
    check_id,
    convert_content_errors,
    require,
)
from r1plus_assistant.conversations.recall import Continued, Recall
from r1plus_assistant.conversations.statement_embedding import StatementEmbedder
from r1plus_assistant.knowledge.quotation import QuotedPassages
from r1plus_assistant.knowledge.stored_results import build_references
from r1plus_assistant.responses.response_items import INPUT, SEARCH_CALL, Item, strip_answer_item
from r1plus_assistant.responses.response_memory import LONG_TERM, MEMORY, find_question, read_memory_options
from r1plus_assistant.responses.response_requests import (
    CONVERSATION,
    PREVIOUS,
    Continuation,
    read_continuation_names,
)
from r1plus_assistant.responses.stored_programs import refer_to_logs
from r1plus_assistant.store.content_reader import ContentReader
from r1plus_assistant.store.content_writer import ContentWriter
from r1plus_assistant.store.tenant_content import TenantContent
from r1plus_contract.inference import MOST_PROMPT_BYTES_PER_TOKEN
from r1plus_gateway.access.caller import AccessError, Caller
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.answers import AnswerHead, StorageOutcome
from r1plus_gateway.http.completions.requests import StorageRequest
from r1plus_gateway.http.errors import InvalidFieldError, RequestError
from r1plus_gateway.settings import GatewaySettings, ModelSettings
from r1plus_gateway.store.content.content import (
    ContentLimitError,
    HistoryBrokenError,
    HistoryTooLongError,
    StoredResponse,
)

log = logging.getLogger(__name__)
LEAST_HISTORY_BYTES: Final = 256 * 2**10
HISTORY_FACTOR: Final = 4
"""What is read to be continued has at most so many times the bytes of the largest prompt, and these: a stored response
has more than its text, and what is longer fits into no context."""


class ResponseStorage:
    """Reads and stores responses of each caller."""

    def __init__(
        self,
        content: TenantContent,
        turns: ContentTurns,
        read_settings: Callable[[], GatewaySettings],
        statements: StatementEmbedder | None = None,
    ) -> None:
        """`statements`: what searches memory by vectors, too."""
        self._content = content
        self._turns = turns
        self._read_settings = read_settings
        self._recall = Recall(content, statements)

    async def read_continuation(self, fields: Fields, model: ModelSettings, caller: Caller) -> Continuation:
        """Return what a request continues.

        Raises:
            RequestError: it is not there, or longer than any context.
        """
        previous, conversation = read_continuation_names(fields)
        memory = read_memory_options(fields, model)
        keeps = memory is not None and memory.keeps
        if (conversation or keeps) and not self._content.is_stored:
            field = CONVERSATION.name if conversation else f"{MEMORY.name}.{LONG_TERM.name}"
            raise RequestError(403, "storage_disabled", NOT_STORED, param=field)
        recalls = memory is not None and memory.recalls
        earlier = Continuation(
            previous, conversation, is_storing=self._content.is_stored, audit_seq=self._content.audit_seq
        )
        if not (previous or conversation or recalls):
            return earlier
        most = LEAST_HISTORY_BYTES + HISTORY_FACTOR * MOST_PROMPT_BYTES_PER_TOKEN * model.context_tokens
        field = PREVIOUS.name if previous else CONVERSATION.name
        check_id(previous or conversation)
        try:
            with self._turns.take(caller, self._read_settings().limits.queue_per_key), convert_content_errors():
                if memory is not None:
                    question = find_question(INPUT.read(fields))
                    continued = Continued(previous, conversation, most, recalls, question)
                    recollection, remembered = await self._recall.recall(caller, continued)
                    return replace(earlier, recollection=recollection, remembered=remembered)
                items = await self._content.read(
                    caller, lambda content: _read_items(content, previous, conversation, most)
                )
                return replace(earlier, items=items)
        except HistoryBrokenError as error:
            message = "so it cannot be continued: that one was deleted, or its time is over. Send what was said"
            raise RequestError(404, "not_found", f"{error}, {message} in input", param=field) from error
        except HistoryTooLongError as error:
            message = f"{error}, which fits into no context; begin a new one, or send memory"
            raise InvalidFieldError(field, message, code="context_length_exceeded") from error

    async def store(self, caller: Caller, head: AnswerHead, answer: bytes) -> AnswerHead:
        """Store a whole answer, the JSON of a response; return the head of what the client gets."""
        request = head.request.storage
        if request is None:
            return head
        stored = replace(head, storage=StorageOutcome.STORED)
        response = orjson.loads(answer)
        if isinstance(quoted := head.request.knowledge, QuotedPassages):
            _refer_to_passages(response["output"], quoted)
        try:
            with convert_content_errors():
                days = self._content.days
                is_there = await self._content.write(caller, lambda content: _store(content, request, response, days))
        except RequestError as error:
            is_limit = isinstance(error.__cause__, ContentLimitError)
            return _build_unstored(head, StorageOutcome.LIMIT_EXCEEDED if is_limit else StorageOutcome.FAILED)
        except AccessError as error:
            log.warning("Response %s is not stored: %s", head.request_id, error.code)
            return _build_unstored(head, StorageOutcome.FAILED)
        return stored if is_there else _build_unstored(head, StorageOutcome.GONE)


def _refer_to_passages(output: Sequence[dict[str, object]], quoted: QuotedPassages) -> None:
    """Put references in place of the texts of passages, where an answer has them."""
    for item in output:
        if item["type"] == SEARCH_CALL and item["results"] is not None:
            item["results"] = build_references(quoted)


def _build_unstored(head: AnswerHead, outcome: StorageOutcome) -> AnswerHead:
    request = replace(head.request, echo={**head.request.echo, "store": False})
    return replace(head, request=request, storage=outcome)


def _store(content: ContentWriter, request: StorageRequest, response: dict[str, object], days: float) -> bool:
    """Store a response in one transaction, memories for so many days.

    Return False, and store nothing, if its conversation is gone, or its owner was erased since the request began: the
    answer may quote what was erased.
    """
    if content.is_erased_since(request.audit_seq):
        return False
    items = [dict(item) for item in request.items]
    output = [strip_answer_item(item) for item in response["output"]]  # type: ignore[attr-defined]
    if request.conversation_id and content.append_items(request.conversation_id, [*items, *output]) is None:
        return False
    if request.keeps_response:
        answer = {**response, "r1plus": {**response["r1plus"], "storage": StorageOutcome.STORED}}  # type: ignore[dict-item]
        content.store_response(StoredResponse(str(response["id"]), request.previous_id, items, refer_to_logs(answer)))
    if request.memories is not None:
        content.change_memories(request.memories, days)
    return True


def _read_items(content: ContentReader, previous_id: str, conversation_id: str, most_bytes: int) -> Sequence[Item]:
    """Return all that was said before. Raises RequestError 404."""
    if previous_id:
        history = require(content.read_history(previous_id, most_bytes), previous_id)
        return [item for one in history for item in (*one.input, *map(strip_answer_item, one.answer["output"]))]
    require(content.find_conversation(conversation_id), conversation_id)
    return [item.content for item in content.read_items(conversation_id, most_bytes)]
