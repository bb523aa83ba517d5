"""The step `run`: a reserved request generates, and its text is sent whole, or as it arrives."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

from aiohttp import web

from r1plus_gateway.access.caller import AccessError, AnswerEvidence, Caller
from r1plus_gateway.access.turns import ThreadTurns
from r1plus_gateway.http.accounting.admission import Holds
from r1plus_gateway.http.accounting.bill import SlowReaderError
from r1plus_gateway.http.answer_headers import build_evidence_headers
from r1plus_gateway.http.completions.answers import (
    AnswerEnd,
    AnswerHead,
    StorageOutcome,
    judge_answer,
)
from r1plus_gateway.http.completions.contexts import ContextReport
from r1plus_gateway.http.completions.event_stream import EventStream, read_whole, write_text
from r1plus_gateway.http.completions.kept_events import KeptEvents
from r1plus_gateway.http.completions.steps import AnswerRounds, Draft, ReservedDraft, RoundsOpener, StoreAnswer
from r1plus_gateway.http.errors import FieldNames, RequestError, convert_access_error, convert_serving_error
from r1plus_gateway.http.parts import GatewayParts
from r1plus_gateway.http.request_keys import ARRIVED, REMAINING
from r1plus_gateway.http.schemas.code_tool import TOOLS
from r1plus_gateway.http.schemas.schema_owners import choose_schema_owner
from r1plus_gateway.serving.errors import AnswerFailedError, ServingError
from r1plus_gateway.serving.evidence import UNVERIFIED
from r1plus_gateway.serving.generation import Generation, State
from r1plus_gateway.serving.triton_wire import build_request

Reserving = AbstractAsyncContextManager[ReservedDraft]


@dataclass(frozen=True, slots=True)
class Run:
    """A request whose first generation has begun."""

    job: ReservedDraft
    generation: Generation
    reports: Sequence[ContextReport]
    """What contexts have added to the prompt."""
    rounds: AnswerRounds | None
    """The rounds of the answer; None: the gateway runs no programs for it."""

    @property
    def names(self) -> FieldNames:
        """Fields to blame for an error of the engine: once programs have run, they made the prompt longer."""
        names = self.job.draft.names
        return replace(names, prompt=TOOLS) if self.rounds is not None and self.rounds.calls else names

    def build_headers(self, evidence: AnswerEvidence) -> Mapping[str, str]:
        """Return the headers of an answer by this evidence."""
        return {**build_evidence_headers(evidence, self.job.draft.point), **self.job.request.headers}

    def build_head(self, generation: Generation, created: int) -> AnswerHead:
        """Return the head of an answer whose newest generation this is."""
        storage = StorageOutcome.PENDING if self.job.request.storage else StorageOutcome.NOT_REQUESTED
        calls = () if self.rounds is None else tuple(self.rounds.calls)
        evidence = self.find_evidence(generation)
        return AnswerHead(self.job.draft.call.id, created, self.job.request, evidence, storage, self.reports, calls)

    def build_end(self, generation: Generation, at: int) -> AnswerEnd:
        """Return the end of an answer whose newest generation this is, once its bill is settled."""
        reason = "length" if self.rounds is not None and self.rounds.is_cut else generation.finish_reason
        return AnswerEnd(reason, self.job.bill.sum_usage(), at)

    def find_evidence(self, generation: Generation) -> AnswerEvidence:
        """Return what has answered: nothing of it is verified where a revision was replaced between two rounds."""
        is_mixed = self.rounds is not None and self.rounds.is_mixed
        return UNVERIFIED if is_mixed else generation.evidence


class StreamedAnswer:
    """The text of one answer on its way to the client."""

    def __init__(self, run: Run, stream: EventStream, head: AnswerHead) -> None:
        self._run = run
        self._stream = stream
        self._unsent = b""
        events = run.job.draft.call.form.open_events(head)
        if not run.job.request.has_tools and (head.reports or run.job.request.schema_check is not None):
            events = KeptEvents(events)
        self._events = events
        self._whole = ""
        self.head = head
        self.generation = run.generation
        """The generation that answers: the newest, where programs run between several."""

    @property
    def text(self) -> str:
        """The text of the answer, where its form or its checks repeat it."""
        return self._whole if self._run.job.request.has_tools else self._events.read_text()

    async def write_text(self) -> None:
        """Send text as it arrives, or read it whole where only the whole says whether it is a call of a tool."""
        rounds = self._run.rounds
        if rounds is not None:
            await self._stream.write(self._events.build_first())
            self.generation, self._whole = await rounds.finish_stream(self.generation, self._stream, self._events)
            evidence = self._run.find_evidence(self.generation)
            self.head = replace(self.head, evidence=evidence, code=tuple(rounds.calls))
        elif self._run.job.request.has_tools:
            await self._stream.write(self._events.build_first())
            self._whole = await read_whole(self.generation, self._stream)
        else:
            self._unsent = await write_text(self._stream, self.generation, self._events)
        _check_end(self.generation)

    def take_call(self) -> None:
        """Make the events of an answer under tools, which is whole."""
        if self._run.job.request.has_tools:
            self._unsent += self._events.build_tool_answer(self._whole)

    async def write_end(self, head: AnswerHead, end: AnswerEnd) -> web.StreamResponse:
        """Send the last events of an answer that is whole."""
        await self._stream.write(self._unsent + self._events.build_end(head, end))
        return await self._stream.finish()

    async def write_error(self, error: RequestError) -> web.StreamResponse:
        """Send the last events of an answer that broke off."""
        await self._stream.write(self._unsent + self._events.build_error(error, self._run.job.bill.sum_usage()))
        return await self._stream.finish()


class Runs:
    """Runs requests that generate."""

    def __init__(self, parts: GatewayParts, open_rounds: RoundsOpener, store: StoreAnswer, holds: Holds) -> None:
        self._parts = parts
        self._open_rounds = open_rounds
        self._store = store
        self._holds = holds
        self._judging = ThreadTurns()

    async def answer_whole(self, reserving: Reserving, on_start: Callable[[], None]) -> web.Response:
        """Answer when all text has arrived; `on_start` is called once the request has a slot."""
        async with reserving as job:
            run = await self._begin(job, on_start)
            with self._convert_failures(run):
                if run.rounds is None:
                    generation, text = run.generation, await read_whole(run.generation)
                else:
                    generation, text = await run.rounds.finish(run.generation)
                _check_end(generation)
        call = job.draft.call
        call.http[REMAINING] = job.bill.reservation.remaining  # programs may have reserved more
        head, end = run.build_head(generation, self._read_time()), run.build_end(generation, self._read_time())
        head = await judge_answer(head, text, self._judging, call.caller.group_id)
        body = call.form.build_answer(head, text, end)
        if run.job.request.storage is not None:
            body = call.form.build_answer(await self._store(call.caller, head, body), text, end)
        return web.Response(body=body, content_type="application/json", headers=run.build_headers(head.evidence))

    async def answer_stream(self, reserving: Reserving, on_start: Callable[[], None]) -> web.StreamResponse:
        """Answer as text arrives. What fails once the stream has begun, its last event says."""
        try:
            with ExitStack() as streams:
                return await self._stream(reserving, on_start, streams)
        except SlowReaderError:
            raise asyncio.CancelledError from None

    async def _stream(
        self, reserving: Reserving, on_start: Callable[[], None], streams: ExitStack
    ) -> web.StreamResponse:
        answer: StreamedAnswer | None = None
        try:
            async with reserving as job:
                run, call = await self._begin(job, on_start), job.draft.call
                stream = streams.enter_context(
                    EventStream(call.http, run.generation, self._parts.read_settings().limits)
                )
                run.generation.on_overflow = stream.cut
                with self._convert_failures(run), stream.blame_slow_reader():
                    await _await_first(run, stream)
                    answer = StreamedAnswer(run, stream, run.build_head(run.generation, self._read_time()))
                    await answer.write_text()
        except (RequestError, AccessError) as error:
            if answer is None:
                raise
            with stream.blame_slow_reader():
                return await answer.write_error(self._describe_failure(call.caller, error))
        with stream.blame_slow_reader():
            answer.take_call()
            end = run.build_end(answer.generation, self._read_time())
            text = answer.text
            head = await judge_answer(answer.head, text, self._judging, call.caller.group_id)
            if run.job.request.storage is not None:
                head = await self._store(call.caller, head, call.form.build_answer(head, text, end))
            return await answer.write_end(head, end)

    async def _begin(self, job: ReservedDraft, on_start: Callable[[], None]) -> Run:
        """Let contexts enter the prompt, and begin the first generation.

        Raises:
            RequestError: the caller was revoked.
        """
        draft, request, reports = job.draft, job.request, list[ContextReport]()
        prompt = request.prompt
        call, pool, models = draft.call, draft.pool, self._parts.models
        with self._convert_failures(draft):
            for context in job.contexts:
                prompt, report = await context.enter(prompt, job)
                reports.append(report)
            owner = choose_schema_owner(prompt, call.running.caller)
            wire = build_request(call.id, prompt, request.sampling, owner)
            generation = models.begin(pool, call.running, wire, call.http[ARRIVED], job.prompt_tokens)
        generation.on_start = on_start
        job.bill.add(generation)
        rounds = self._open_rounds(job, prompt) if request.code is not None else None
        return Run(job, generation, reports, rounds)

    @contextmanager
    def _convert_failures(self, named: Draft | Run) -> Iterator[None]:
        """Turn what a model did not do into an error answer, in the names of the request's fields."""
        try:
            yield
        except ServingError as error:
            retry_after = self._parts.read_settings().limits.retry_after_seconds
            raise convert_serving_error(error, retry_after, named.names) from error

    def _describe_failure(self, caller: Caller, error: RequestError | AccessError) -> RequestError:
        """Return what a stream that has begun says of its failure."""
        if isinstance(error, RequestError):
            return error
        self._holds.remember(caller, error)
        return convert_access_error(error)

    def _read_time(self) -> int:
        return int(self._parts.read_time())


async def _await_first(run: Run, stream: EventStream) -> None:
    """Wait for the first response. Headers go out with it, or with the first heartbeat before it."""
    generation = run.generation
    while generation.state in (State.QUEUED, State.WAITING):
        await generation.wait()
        if stream.needs_heartbeat and generation.state in (State.QUEUED, State.WAITING):
            if not stream.is_started:
                await stream.start(run.build_headers(generation.evidence))
            await stream.write_heartbeat()
    if not stream.is_started:
        if generation.error is not None:
            raise generation.error
        await stream.start(run.build_headers(generation.evidence))


def _check_end(generation: Generation) -> None:
    """Raise what the request ended with, unless the answer is whole."""
    if generation.error is not None:
        raise generation.error
    if generation.finish_reason not in ("stop", "length"):
        raise AnswerFailedError("the answer broke off; try again")
