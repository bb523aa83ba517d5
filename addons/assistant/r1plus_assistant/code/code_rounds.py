"""The rounds of an answer with `code_interpreter`: the model writes a program, the gateway runs it, the model reads on.

Each round is a request to the engine like any other: it takes a slot, and its tokens are reserved before it begins.
Between two rounds no slot is held. The number of programs is bounded, and after the last one the model has to answer.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from r1plus_assistant.calculation.client import CalculatorUnavailableError
from r1plus_assistant.calculation.desk import CalculatorDesk, CallerBusyError
from r1plus_assistant.code.code_interpreter import quote_output, read_code
from r1plus_contract.calculator import MOST_REQUEST_BYTES, CalculatorReply, CodeRequest, FailureCode
from r1plus_contract.jsonable import dumps
from r1plus_gateway.http.accounting.bill import Bill
from r1plus_gateway.http.body.json_body import LONE_SURROGATE
from r1plus_gateway.http.completions.estimated_tokens import TEMPLATE_TOKENS
from r1plus_gateway.http.completions.messages import build_message, build_result_message, continue_prompt, describe_call
from r1plus_gateway.http.completions.requests import GenerateRequest
from r1plus_gateway.http.completions.sampling_fields import resolve_new_tokens
from r1plus_gateway.http.errors import RequestError
from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.http.schemas.code_tool import KIND, CodeCall, CodeFailure
from r1plus_gateway.http.schemas.schema_owners import choose_schema_owner
from r1plus_gateway.http.schemas.tools import ToolAnswer, parse_tool_answer
from r1plus_gateway.serving.generation import Generation
from r1plus_gateway.serving.models import Models
from r1plus_gateway.serving.pods import PodPool
from r1plus_gateway.serving.running_requests import RunningRequest
from r1plus_gateway.serving.triton_wire import Prompt, build_request, name_round
from r1plus_gateway.settings import Capability

LAST_ONE: Final = "No further program is run; answer now."
_LIMITS: Final = (FailureCode.LIMIT, FailureCode.TIME_LIMIT, FailureCode.MEMORY_LIMIT, FailureCode.INVALID_REQUEST)
"""Failures that the program is the cause of."""
Executor = Callable[[CodeCall], Coroutine[Any, Any, CodeCall]]
Counter = Callable[[PodPool, str, Prompt], Awaitable[int | None]]


class RoundsListener(Protocol):
    """What an answer does while its rounds run."""

    async def read(self, generation: Generation) -> str:
        """Return the whole text of a generation."""

    async def run(self, call: CodeCall, execute: Executor) -> CodeCall:
        """Let a program run; return it with what came of it."""


@dataclass(slots=True)
class CodeRounds:
    """The rounds of one answer."""

    desk: CalculatorDesk
    models: Models
    metrics: GatewayMetrics
    count: Counter
    pool: PodPool
    request: GenerateRequest
    bill: Bill
    running: RunningRequest
    calls: list[CodeCall] = field(default_factory=list)
    """The programs so far."""
    revisions: set[str] = field(default_factory=set)
    """What has answered the rounds so far; empty text: not verified."""
    is_cut: bool = False
    """Whether the limit of new tokens was used up by programs, so that no round was left to answer."""

    async def finish(self, generation: Generation, listener: RoundsListener) -> tuple[Generation, str]:
        """Return the generation that answers, and its text. The caller looks at its error.

        Raises:
            AccessError: a limit of the caller leaves no room for another round.
            RequestError: the context leaves none.
            CallerRevokedError: the caller was revoked while a program ran.
        """
        plan = self.request.code
        assert plan is not None
        prompt = self.request.prompt
        while True:
            text = await listener.read(generation)
            self.revisions.add(generation.evidence.revision)
            answer = _find_program(generation, text)
            if answer is None or len(self.calls) >= plan.most_runs:
                return generation, text
            call = await self._run(answer, listener)
            if self.bill.sum_usage().completion_tokens >= self.request.limit.tokens:
                self.is_cut = True
                return generation, ""
            has_more = len(self.calls) < plan.most_runs
            result = quote_output(call.logs, self.pool.model.context_tokens) + ("" if has_more else f"\n{LAST_ONE}")
            messages = [
                build_message("assistant", describe_call(KIND, {"code": call.text})),
                build_result_message(KIND, result),
            ]
            schema = plan.next_schema if has_more else plan.last_schema
            prompt = continue_prompt(prompt, messages, schema)
            generation = await self._begin(prompt)

    @property
    def _request_id(self) -> str:
        return self.bill.reservation.request_id

    async def _run(self, answer: ToolAnswer, listener: RoundsListener) -> CodeCall:
        assert answer.call is not None
        call = CodeCall(f"ci_{self._request_id}_{len(self.calls)}", read_code(answer.call.arguments))
        call = await listener.run(call, _refuse_surrogate if answer.has_lone_surrogate else self._ask_calculator)
        self.calls.append(call)
        reservation = self.bill.reservation
        self.metrics.count_code_run(reservation.model, reservation.caller.group_id, classify_run(call))
        return call

    async def _ask_calculator(self, call: CodeCall) -> CodeCall:
        if (size := len(dumps(CodeRequest(call.code)).encode())) > MOST_REQUEST_BYTES:
            message = f"it has {size} bytes as JSON, more than {MOST_REQUEST_BYTES}; write a shorter one"
            return replace(call, failure=CodeFailure("code_limit", message))
        try:
            return _add_reply(call, await self.desk.run_code(call.code, self.bill.reservation.caller.group_id))
        except CallerBusyError as error:
            return replace(call, failure=CodeFailure("calculator_busy", str(error)))
        except CalculatorUnavailableError as error:
            return replace(call, failure=CodeFailure("calculator_unavailable", str(error)))

    async def _begin(self, prompt: Prompt) -> Generation:
        """Reserve the tokens of another round, and begin it."""
        model, used = self.pool.model, self.bill.sum_usage()
        round_id = name_round(self._request_id, len(self.calls))
        counted = None
        if model.can(Capability.COUNT_ONLY):
            counted = await self.count(self.pool, round_id, prompt)
        tokens = prompt.size + TEMPLATE_TOKENS if counted is None else counted
        new_tokens = self._resolve_new_tokens(counted, used.completion_tokens)
        most = min(tokens + (new_tokens or self.request.limit.tokens), model.context_tokens)
        more = used.prompt_tokens + used.completion_tokens + most - self.bill.reservation.tokens
        if more > 0:
            await self.bill.extend(more)
        sampling = replace(self.request.sampling, max_new_tokens=new_tokens)
        owner = choose_schema_owner(prompt, self.running.caller)
        wire = build_request(round_id, prompt, sampling, owner)
        generation = self.models.begin(self.pool, self.running, wire, counted_prompt_tokens=counted or 0)
        self.bill.add(generation)
        return generation

    def _resolve_new_tokens(self, counted: int | None, used: int) -> int | None:
        """Return what a round may generate: the limit is for all rounds together."""
        limit, model = self.request.limit, self.pool.model
        if counted is not None and counted >= model.context_tokens:
            message = f"the programs and what they print have {counted} tokens with the prompt, and the context has"
            remedy = "ask for programs that print less, or send a smaller max_tool_calls"
            raise RequestError(
                400, "context_length_exceeded", f"{message} {model.context_tokens}; {remedy}", param="tools"
            )
        return resolve_new_tokens(replace(limit, tokens=limit.tokens - used), model, counted)


def _find_program(generation: Generation, text: str) -> ToolAnswer | None:
    """Return the answer of a generation that asks for a program; None: it asks for none, or is not whole."""
    if generation.error is not None or generation.finish_reason != "stop":
        return None
    answer = parse_tool_answer(text)
    return answer if answer.call is not None and answer.call.name == KIND else None


async def _refuse_surrogate(call: CodeCall) -> CodeCall:
    return replace(call, failure=CodeFailure(f"code_{FailureCode.INVALID_REQUEST.value}", f"code: {LONE_SURROGATE}"))


def _add_reply(call: CodeCall, reply: CalculatorReply) -> CodeCall:
    if reply.run is not None:
        return replace(call, run=reply.run)
    if reply.failure is None:
        return replace(call, failure=CodeFailure("code_failed", "the calculator gave no result; try again"))
    prefix = "calculator" if reply.failure.code is FailureCode.BUSY else "code"
    return replace(call, failure=CodeFailure(f"{prefix}_{reply.failure.code.value}", reply.failure.message))


def classify_run(call: CodeCall) -> str:
    """Return the outcome of a program, for the metrics."""
    if call.run is not None:
        return "completed" if call.run.error is None else "error"
    assert call.failure is not None
    return "limit" if call.failure.code in [f"code_{one.value}" for one in _LIMITS] else "unavailable"
