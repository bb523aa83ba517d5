"""What every form of an answer has: its head, its end, and the writer of a stream's events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from r1plus_gateway.access.caller import AnswerEvidence, TokenUsage
from r1plus_gateway.access.turns import ThreadTurns
from r1plus_gateway.http.completions.contexts import ContextReport
from r1plus_gateway.http.completions.requests import GenerateRequest
from r1plus_gateway.http.completions.sampling_fields import find_lowered
from r1plus_gateway.http.errors import RequestError
from r1plus_gateway.http.schemas.code_tool import CodeCall
from r1plus_gateway.http.schemas.schema_reports import SchemaReport, check_text

HEARTBEAT: Final = b": heartbeat\n\n"
DONE: Final = b"data: [DONE]\n\n"
"""Ends a stream whose answer is whole."""


class StorageOutcome(StrEnum):
    """Whether an answer is stored, and why not."""

    PENDING = "pending"
    """It is stored when it is whole."""
    STORED = "stored"
    NOT_REQUESTED = "not_requested"
    """The request says so, or the tenant stores nothing."""
    LIMIT_EXCEEDED = "limit_exceeded"
    GONE = "gone"
    """The conversation was deleted meanwhile, or all that its owner has stored was erased."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What all parts of one answer repeat."""

    request_id: str
    created: int
    """Seconds since the epoch."""
    request: GenerateRequest
    evidence: AnswerEvidence
    storage: StorageOutcome
    reports: Sequence[ContextReport] = ()
    """What contexts have added to the prompt."""
    code: Sequence[CodeCall] = ()
    """The programs that were run."""
    schema: SchemaReport | None = None
    """What the whole answer is by a schema that the engine enforces in part."""

    def describe(self) -> dict[str, Any]:
        """Return what every form's `r1plus` says of the answer."""
        contexts = {name: value for report in self.reports for name, value in report.describe().items()}
        schema = {} if self.schema is None else {"schema": self.schema.describe()}
        ignored = {"ignored": list(self.request.ignored)} if self.request.ignored else {}
        lowered = find_lowered(self.request.limit, self.request.sampling.max_new_tokens)
        return {**contexts, **schema, **ignored, **({"lowered": lowered} if lowered else {})}


async def judge_answer(head: AnswerHead, text: str, threads: ThreadTurns, caller: str) -> AnswerHead:
    """Return the head with what is said of a whole text: whether it has the results, and follows the schema.

    `caller`: whose turn it takes in `threads`.
    """
    if head.reports:
        head = replace(head, reports=tuple(report.compare(text) for report in head.reports))
    if (check := head.request.schema_check) is not None:
        head = replace(head, schema=await threads.run(caller, check_text, check, text))
    return head


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """How one answer has ended."""

    finish_reason: str
    """`stop` or `length`."""
    usage: TokenUsage
    at: int
    """Seconds since the epoch."""


class EventWriter(Protocol):
    """The events of one stream, in the form of its endpoint."""

    def build_first(self) -> bytes:
        """Return the events before all text."""

    def build_piece(self, text: bytes) -> bytes:
        """Return the event of a piece of text: whole UTF-8 characters."""

    def build_tool_answer(self, text: str) -> bytes:
        """Return the events of an answer under tools, which had to be read whole."""

    def read_text(self) -> str:
        """Return the text that was written, where the form repeats it at its end."""

    def build_end(self, head: AnswerHead, end: AnswerEnd) -> bytes:
        """Return the last events of an answer that is whole; `head` says whether it is stored."""

    def build_error(self, error: RequestError, usage: TokenUsage) -> bytes:
        """Return the last events of an answer that broke off; `usage` is what it has cost."""


def build_fingerprint(evidence: AnswerEvidence) -> str | None:
    """Return revision and engine in one word; None where it is not verified what answered.

    A serving identity has the engine's digest without the name of the algorithm.
    """
    return f"{evidence.revision}@sha256:{evidence.engine_digest[:12]}" if evidence.revision else None


def split_event(event: bytes, *markers: Any) -> list[bytes]:
    """Return the parts of an encoded event around the encoded markers, which it has in this order."""
    parts = []
    for marker in markers:
        before, event = event.split(marker, 1)
        parts.append(before)
    return [*parts, event]
