"""One request from its body to its answer: authenticate, check, reserve, generate, write, settle."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, cast

from aiohttp import web

from r1plus_contract.inference import MOST_PROMPT_BYTES_PER_TOKEN, ContextExcess
from r1plus_gateway.access.caller import (
    AccessError,
    AnswerEvidence,
    Caller,
    CallerKind,
    Outcome,
    Remaining,
)
from r1plus_gateway.access.turns import ThreadTurns
from r1plus_gateway.assistant.calculation.desk import CalculatorDesk
from r1plus_gateway.assistant.code.code_interpreter import TOOLS
from r1plus_gateway.assistant.code.code_listeners import StreamedRounds, WholeRounds
from r1plus_gateway.assistant.code.code_rounds import CodeRounds
from r1plus_gateway.assistant.math.math_mode import MathMode, build_translation_prompt, insert_note, limit_translation
from r1plus_gateway.assistant.responses.response_storage import ResponseStorage
from r1plus_gateway.http.accounting.admission import CountAllowance, Holds, SearchTurns
from r1plus_gateway.http.accounting.bill import Bill, open_bill
from r1plus_gateway.http.body.bodies import BodyBudget
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.answers import AnswerEnd, AnswerHead, CodeEventWriter, StorageOutcome, judge_answer
from r1plus_gateway.http.completions.estimated_tokens import TEMPLATE_TOKENS
from r1plus_gateway.http.completions.event_stream import EventStream, read_whole, write_text
from r1plus_gateway.http.completions.exchange import LEFT, Exchange, GatewayParts, authenticate
from r1plus_gateway.http.completions.forms import Form
from r1plus_gateway.http.completions.kept_events import KeptEvents
from r1plus_gateway.http.completions.operating_points import OperatingPoint, find_operating_point
from r1plus_gateway.http.completions.presets import build_unknown_model_error
from r1plus_gateway.http.completions.requests import GenerateRequest, ModelName, read_model_name
from r1plus_gateway.http.completions.sampling_fields import resolve_new_tokens
from r1plus_gateway.http.errors import RequestError, build_context_error, convert_access_error, convert_serving_error
from r1plus_gateway.http.schemas.schema_owners import choose_schema_owner
from r1plus_gateway.serving.errors import AnswerFailedError, CallerRevokedError, ServingError
from r1plus_gateway.serving.evidence import UNVERIFIED
from r1plus_gateway.serving.generation import Generation, State, count_tokens
from r1plus_gateway.serving.pods import PodPool
from r1plus_gateway.serving.running_requests import RunningRequest
from r1plus_gateway.serving.triton_wire import Prompt, build_request
from r1plus_gateway.settings import Capability, ModelSettings

COUNT_SECONDS: Final = 10.0
ADMINISTERS_ONLY: Final = (
    "ServiceAccount r1plus-gateway-admin administers and does not generate: no budget holds its tokens. Call with an"
    " API key, which `r1plus key create` makes, or with a token of another ServiceAccount."
)


class Completions:
    """Answers the requests that generate."""

    def __init__(
        self,
        parts: GatewayParts,
        desk: CalculatorDesk,
        searches: SearchTurns,
        storage: ResponseStorage | None = None,
    ) -> None:
        self._parts = parts
        self._searches = searches
        self._desk = desk
        self._math = MathMode(desk, parts.models)
        self._storage = storage
        self.bodies = BodyBudget()
        self.holds = Holds(parts.clock)
        self._counts = CountAllowance(parts.clock)
        self._judging = ThreadTurns()

    async def answer(self, exchange: Exchange, form: Form) -> web.StreamResponse:
        """Answer one request of this form.

        Raises:
            RequestError: it is refused, or failed before anything was sent.
        """
        try:
            return await self._answer(exchange, form)
        except AccessError as error:
            if exchange.caller is not None:
                self.holds.remember(exchange.caller, error)
            raise convert_access_error(error) from error
        except ServingError as error:
            raise self._convert(exchange, error) from error

    async def _answer(self, exchange: Exchange, form: Form) -> web.StreamResponse:
        caller = await authenticate(self._parts, exchange)
        if caller.kind is CallerKind.ADMIN:
            raise AccessError(403, "admin_not_allowed", ADMINISTERS_ONLY)
        self.holds.check(caller)
        limits = self._parts.read_settings().limits
        with self._parts.models.requests.track(caller.group_id) as running:
            async with self.bodies.read(exchange.request, caller, limits) as body:
                pool, (request, bill, prompt_tokens) = await self._read_and_admit(exchange, form, caller, body.fields)
                return await self._generate(
                    exchange, form, pool, request, bill, running, prompt_tokens or 0, body.release
                )

    async def _read_and_admit(
        self, exchange: Exchange, form: Form, caller: Caller, fields: Fields
    ) -> tuple[PodPool, tuple[GenerateRequest, Bill, int | None]]:
        """Return the model's pods, and what `_admit` does, once it is this caller's turn to search."""
        name = read_model_name(fields)
        pool = self._parts.models.find(name.deployment, caller)
        if pool is None:
            raise build_unknown_model_error(name.id)
        exchange.model = pool.model.name
        most_waiting = self._count_waiting(pool)
        turn = self._searches.wait(caller, most_waiting) if form.has_search(fields) else contextlib.nullcontext()
        async with turn:
            self.holds.check(caller)
            self._parts.models.queue.check_room(pool.model.name, caller.group_id)
            return pool, await self._read(exchange, form, caller, pool, fields, name)

    async def _read(
        self, exchange: Exchange, form: Form, caller: Caller, pool: PodPool, fields: Fields, name: ModelName
    ) -> tuple[GenerateRequest, Bill, int | None]:
        """Read a body, with what it searches and continues, and reserve it; return what `_admit` does."""
        request = await form.read_request(fields, name, pool.model, caller)
        names = form.description.names
        exchange.names = replace(names, schema=TOOLS) if request.has_tools else names
        if request.math is not None:
            request = replace(request, math=self._math.plan(request.math, pool.model))
        exchange.point = find_operating_point(request, pool.model)
        _check_prompt_size(exchange, request, pool.model)
        self._parts.models.queue.check_room(pool.model.name, caller.group_id)
        return await self._admit(exchange, caller, pool, request)

    async def _admit(
        self, exchange: Exchange, caller: Caller, pool: PodPool, request: GenerateRequest
    ) -> tuple[GenerateRequest, Bill, int | None]:
        """Reserve a request; return it with its limit of new tokens, its bill, and its prompt's tokens if counted.

        A caller whose requests were refused after too many counts gets none for a while: its prompts are reserved by
        their size, as where the engine cannot count. So a flood of refused requests costs the pods little, and takes
        nothing from the caller's requests that its budget has room for.

        A few requests of a caller are counted or reserved at one time, so others find room in the store's writer.
        """
        group, most = caller.group_id, self._parts.read_settings().limits.queue_per_key
        async with self._counts.wait_for_turn(f"{group} {pool.model.name}", most, self._count_waiting(pool)):
            self._parts.models.queue.check_room(pool.model.name, group)
            if not pool.model.can(Capability.COUNT_ONLY):
                return await self._reserve(exchange, caller, pool, request, None)
            if self._counts.take(group, most):
                request, prompt_tokens = await self._count_fitting(pool, exchange.id, request)
                admitted = await self._reserve(exchange, caller, pool, request, prompt_tokens)
                self._counts.give_back(group)
                return admitted
            try:
                return await self._reserve(exchange, caller, pool, request, None)
            except AccessError as error:
                if _depends_on_size(error, request):
                    raise _refuse_uncounted(error, self._counts.compute_wait(group, most), most) from error
                raise

    def _count_waiting(self, pool: PodPool) -> int:
        """Return how many requests of a caller may wait to be read: as many as could run or wait for a slot."""
        limits, queue = self._parts.read_settings().limits, self._parts.models.queue
        return limits.queue_per_key + queue.count_slots(pool.model.name)

    async def _reserve(
        self, exchange: Exchange, caller: Caller, pool: PodPool, request: GenerateRequest, prompt_tokens: int | None
    ) -> tuple[GenerateRequest, Bill, int | None]:
        note = request.math.plan.note_bytes if request.math is not None else 0
        _check_prompt_tokens(exchange, request, pool.model, prompt_tokens)
        new_tokens = resolve_new_tokens(request.limit, pool.model, prompt_tokens and prompt_tokens + note)
        bill = await self._open_bill(exchange, caller, pool, request, prompt_tokens, new_tokens)
        request = replace(request, sampling=replace(request.sampling, max_new_tokens=new_tokens))
        return request, bill, prompt_tokens

    async def _count_fitting(
        self, pool: PodPool, request_id: str, request: GenerateRequest
    ) -> tuple[GenerateRequest, int | None]:
        """Count a prompt; what was packed by an estimate is packed again, once, by what the engine counts."""
        request = await self._count_translation(pool, request_id, request)
        prompt_tokens = await self._count(pool, request_id, request.prompt)
        if request.packing is not None and prompt_tokens is not None:
            smaller = await asyncio.to_thread(request.packing.shrink, prompt_tokens)
            if smaller is not None:
                smaller = replace(smaller, math=request.math)
                return smaller, await self._count(pool, request_id, smaller.prompt)
        return request, prompt_tokens

    async def _count_translation(self, pool: PodPool, request_id: str, request: GenerateRequest) -> GenerateRequest:
        """Return the request with the tokens that its translation may take, as the engine counts them."""
        if request.math is None or request.math.plan.task is None:
            return request
        counted = await self._count(pool, request_id, build_translation_prompt(request.math.plan.task))
        return (
            request if counted is None else replace(request, math=limit_translation(request.math, counted, pool.model))
        )

    async def _count(self, pool: PodPool, request_id: str, prompt: Prompt) -> int | None:
        """Return the prompt's tokens; None if the pod does not say."""
        try:
            return await count_tokens(pool, build_request(request_id, prompt, None), COUNT_SECONDS)
        except ServingError:
            return None  # what is wrong with the request, the request itself will show

    async def _open_bill(
        self,
        exchange: Exchange,
        caller: Caller,
        pool: PodPool,
        request: GenerateRequest,
        prompt_tokens: int | None,
        new_tokens: int | None,
    ) -> Bill:
        """Reserve prompt and maximum answer. A text has at most as many tokens as bytes, and never more than fit."""
        parts, context = self._parts, pool.model.context_tokens
        prompt = prompt_tokens if prompt_tokens is not None else request.prompt.size + TEMPLATE_TOKENS
        more = request.math.translation_tokens if request.math is not None else 0
        prompt += request.math.plan.note_bytes if request.math is not None else 0
        tokens = min(prompt + (new_tokens or request.limit.tokens), context) + more
        bill = await open_bill(parts.ledger, parts.metrics, parts.tasks, exchange.id, caller, pool.model.name, tokens)
        exchange.remaining, exchange.is_billed = bill.reservation.remaining, True
        return bill

    async def _generate(
        self,
        exchange: Exchange,
        form: Form,
        pool: PodPool,
        request: GenerateRequest,
        bill: Bill,
        running: RunningRequest,
        prompt_tokens: int,
        on_start: Callable[[], None],
    ) -> web.StreamResponse:
        """Answer an admitted request; `on_start` is called once it has a slot."""
        generation: Generation | None = None
        outcome = Outcome.FAILED
        try:
            if request.math is not None:
                exchange.math = await self._math.run(request.math, running, pool, bill)
                request = replace(request, prompt=insert_note(request.prompt, exchange.math.write_note()))
            owner = choose_schema_owner(request.prompt, running.caller)
            wire = build_request(exchange.id, request.prompt, request.sampling, owner)
            generation = self._parts.models.begin(pool, running, wire, exchange.arrived, prompt_tokens)
            generation.on_start = on_start
            if request.code is not None:
                exchange.rounds = CodeRounds(
                    self._desk, self._parts.models, self._parts.metrics, self._count, pool, request, bill, running
                )
            if request.is_streamed:
                return await self._stream(exchange, form, request, generation, bill)
            return await self._answer_whole(exchange, form, request, generation, bill)
        except _SlowReaderError:
            outcome = Outcome.SLOW_READER
            raise asyncio.CancelledError from None
        except LEFT:
            outcome = Outcome.CANCELLED
            raise
        except CallerRevokedError:
            outcome = Outcome.REVOKED
            raise
        finally:
            try:
                await bill.settle(outcome, generation)
            finally:
                if prompt_tokens and not (generation and generation.usage.prompt_tokens):
                    # Counted, and not billed.
                    group, most = bill.reservation.caller.group_id, self._parts.read_settings().limits.queue_per_key
                    self._counts.charge(group, most)

    async def _answer_whole(
        self, exchange: Exchange, form: Form, request: GenerateRequest, generation: Generation, bill: Bill
    ) -> web.Response:
        if exchange.rounds is None:
            text = await read_whole(generation)
        else:
            generation, text = await exchange.rounds.finish(generation, WholeRounds())
            exchange.remaining = bill.reservation.remaining
        _check_end(generation)
        await bill.settle(Outcome.ANSWERED, generation)
        head, end = self._build_head(exchange, request, generation), self._build_end(exchange, generation, bill)
        head = await judge_answer(head, text, self._judging, bill.reservation.caller.group_id)
        body = form.build_answer(head, text, end)
        if request.storage is not None:
            body = form.build_answer(await self._store(exchange, head, body), text, end)
        headers = _build_headers(exchange, request, head.evidence)
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _stream(
        self, exchange: Exchange, form: Form, request: GenerateRequest, generation: Generation, bill: Bill
    ) -> web.StreamResponse:
        with EventStream(exchange.request, generation, self._parts.read_settings().limits) as stream:
            generation.on_overflow = stream.cut
            try:
                await self._await_first(exchange, stream, request, generation)
                return await self._write_events(exchange, form, request, generation, stream, bill)
            except LEFT:
                if stream.is_slow:
                    raise _SlowReaderError from None
                raise

    async def _await_first(
        self, exchange: Exchange, stream: EventStream, request: GenerateRequest, generation: Generation
    ) -> None:
        """Wait for the first response. Headers go out with it, or with the first heartbeat before it."""
        while generation.state in (State.QUEUED, State.WAITING):
            await generation.wait()
            if stream.needs_heartbeat and generation.state in (State.QUEUED, State.WAITING):
                if not stream.is_started:
                    await stream.start(_build_headers(exchange, request, generation.evidence))
                await stream.write_heartbeat()
        if not stream.is_started:
            if generation.error is not None:
                raise generation.error
            await stream.start(_build_headers(exchange, request, generation.evidence))

    async def _write_events(
        self,
        exchange: Exchange,
        form: Form,
        request: GenerateRequest,
        generation: Generation,
        stream: EventStream,
        bill: Bill,
    ) -> web.StreamResponse:
        head = self._build_head(exchange, request, generation)
        events = form.open_events(head)
        if not request.has_tools and (head.math is not None or request.schema_check is not None):
            events = KeptEvents(events)
        whole, data = "", b""
        try:
            if exchange.rounds is not None:
                await stream.write(events.build_first())
                listener = StreamedRounds(stream, cast(CodeEventWriter, events))
                generation, whole = await exchange.rounds.finish(generation, listener)
                head = replace(head, evidence=_find_evidence(exchange, generation), code=tuple(exchange.rounds.calls))
            elif request.has_tools:  # only the whole answer says whether it is a call
                await stream.write(events.build_first())
                whole = await read_whole(generation, stream)
            else:
                data = await write_text(stream, generation, events)
            _check_end(generation)
        except (ServingError, AccessError, RequestError) as error:
            is_revoked = isinstance(error, CallerRevokedError)
            await bill.settle(Outcome.REVOKED if is_revoked else Outcome.FAILED, generation)
            problem = self._describe_failure(exchange, error)
            await stream.write(data + events.build_error(problem, bill.sum_usage(generation)))
            return await stream.finish()
        await bill.settle(Outcome.ANSWERED, generation)
        if request.has_tools:
            data += events.build_tool_answer(whole)
        end = self._build_end(exchange, generation, bill)
        text = whole if request.has_tools else events.read_text()
        head = await judge_answer(head, text, self._judging, bill.reservation.caller.group_id)
        if request.storage is not None:
            head = await self._store(exchange, head, form.build_answer(head, text, end))
        await stream.write(data + events.build_end(head, end))
        return await stream.finish()

    async def _store(self, exchange: Exchange, head: AnswerHead, answer: bytes) -> AnswerHead:
        """Store a whole answer; return the head that says whether it was."""
        assert self._storage is not None
        assert exchange.caller is not None
        return await self._storage.store(exchange.caller, head, answer)

    def _describe_failure(self, exchange: Exchange, error: ServingError | AccessError | RequestError) -> RequestError:
        """Return what a stream that has begun says of its failure."""
        if isinstance(error, RequestError):
            return error
        if isinstance(error, ServingError):
            return self._convert(exchange, error)
        assert exchange.caller is not None
        self.holds.remember(exchange.caller, error)
        return convert_access_error(error)

    def _convert(self, exchange: Exchange, error: ServingError) -> RequestError:
        retry_after = self._parts.read_settings().limits.retry_after_seconds
        has_run = exchange.rounds is not None and exchange.rounds.calls
        names = replace(exchange.names, prompt=TOOLS) if has_run else exchange.names  # programs made the prompt longer
        return convert_serving_error(error, retry_after, names)

    def _build_head(self, exchange: Exchange, request: GenerateRequest, generation: Generation) -> AnswerHead:
        storage = StorageOutcome.PENDING if request.storage else StorageOutcome.NOT_REQUESTED
        return AnswerHead(
            exchange.id,
            int(self._parts.read_time()),
            request,
            _find_evidence(exchange, generation),
            storage,
            exchange.math,
            () if exchange.rounds is None else tuple(exchange.rounds.calls),
        )

    def _build_end(self, exchange: Exchange, generation: Generation, bill: Bill) -> AnswerEnd:
        reason = "length" if exchange.rounds is not None and exchange.rounds.is_cut else generation.finish_reason
        return AnswerEnd(reason, bill.sum_usage(generation), int(self._parts.read_time()))


def _check_prompt_size(exchange: Exchange, request: GenerateRequest, model: ModelSettings) -> None:
    """Refuse a prompt that no tokenizer fits into the context, as the engine does, before anything is reserved."""
    most = MOST_PROMPT_BYTES_PER_TOKEN * model.context_tokens
    if request.prompt.size > most:
        message = f"the prompt has {request.prompt.size} bytes, more than {most}, which no tokenizer fits into the"
        raise RequestError(
            400,
            "context_length_exceeded",
            f"{message} context of {model.context_tokens} tokens; shorten it",
            param=exchange.names.prompt,
        )


def _check_prompt_tokens(
    exchange: Exchange, request: GenerateRequest, model: ModelSettings, prompt_tokens: int | None
) -> None:
    """Refuse a prompt that leaves no token of the context for the answer, as the engine does."""
    if prompt_tokens is not None and prompt_tokens >= model.context_tokens:
        raise build_context_error(ContextExcess(prompt_tokens, 1, model.context_tokens), exchange.names)


def _depends_on_size(error: AccessError, request: GenerateRequest) -> bool:
    """Return whether the request might have been admitted by its tokens, and was not by its size in bytes."""
    least = 1 + (request.limit.tokens if request.limit.is_explicit else 1)
    has_room = error.left_tokens is None or error.left_tokens >= least
    return has_room and error.status == 429 and error.retry_after is None


def _refuse_uncounted(error: AccessError, seconds: float, most: int) -> AccessError:
    """Return the refusal of a prompt that was reserved by its size, and is counted again in `seconds`."""
    seconds = max(seconds, error.hold_seconds)
    return AccessError(
        429,
        "rate_limit_exceeded",
        f"{most} prompts of yours were counted within a minute and not admitted, so this one was reserved by its size"
        " in bytes, which does not fit your limits. Send smaller requests, or lower max_tokens; this one is counted"
        f" again in {seconds:.1f} s",
        retry_after=seconds,
        hold_seconds=error.hold_seconds,
    )


class _SlowReaderError(Exception):
    """The client did not read, and was cut off."""


def _check_end(generation: Generation) -> None:
    """Raise what the request ended with, unless the answer is whole."""
    if generation.error is not None:
        raise generation.error
    if generation.finish_reason not in ("stop", "length"):
        raise AnswerFailedError("the answer broke off; try again")


def _find_evidence(exchange: Exchange, generation: Generation) -> AnswerEvidence:
    """Return what has answered: nothing of it is verified where a revision was replaced between two rounds."""
    is_mixed = exchange.rounds is not None and len(exchange.rounds.revisions) > 1
    return UNVERIFIED if is_mixed else generation.evidence


def _build_headers(exchange: Exchange, request: GenerateRequest, evidence: AnswerEvidence) -> Mapping[str, str]:
    return {**build_evidence_headers(evidence, exchange.point), **request.headers}


def build_evidence_headers(evidence: AnswerEvidence, point: OperatingPoint) -> Mapping[str, str]:
    """Return the headers that say what answers: revision and verdict of the pod, and what its gate measured.

    `point`: whether that was at this request's operating point.
    """
    headers = {"x-r1plus-verdict": evidence.verdict}
    if evidence.revision:
        headers["x-r1plus-revision"] = evidence.revision
    if evidence.gate is not None:
        gate = evidence.gate
        # A string with parameters, as RFC 9651 writes them.
        figures = f"items={gate.items};lost={gate.lost};allowed={gate.allowed};point={point}"
        headers["x-r1plus-gate"] = f'"{gate.suite}";{figures}'
    return headers


def build_limit_headers(caller: Caller, remaining: Remaining | None) -> dict[str, str]:
    """Return `x-ratelimit-*` headers: what the caller may use, and what it has left."""
    limits, left = caller.limits, remaining or Remaining()
    values = {
        "x-ratelimit-limit-requests": limits.requests_per_minute,
        "x-ratelimit-limit-tokens": limits.tokens_per_minute,
        "x-ratelimit-limit-budget-tokens": limits.budget_tokens,
        "x-ratelimit-remaining-requests": left.requests,
        "x-ratelimit-remaining-tokens": left.tokens,
        "x-ratelimit-remaining-budget-tokens": left.budget_tokens,
    }
    headers = {name: str(value) for name, value in values.items() if value is not None}
    if remaining is None:
        return headers
    reset = f"{left.reset_seconds:.3f}s"
    resets = {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}
    return headers | {f"x-ratelimit-reset-{name}": reset for name, limit in resets.items() if limit is not None}
