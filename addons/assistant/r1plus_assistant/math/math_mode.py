"""`math_mode`: before the model answers, its question is calculated, and the result enters the prompt as data."""

import asyncio
from dataclasses import dataclass, replace
from typing import Final

import orjson

from r1plus_assistant.calculation.client import CalculatorUnavailableError
from r1plus_assistant.calculation.desk import CalculatorDesk, CallerBusyError
from r1plus_assistant.calculation.math_plan import ExpressionRoute, MathPlan, PlannedExpression, Skip, plan_math
from r1plus_assistant.calculation.translation import (
    MOST_NEW_TOKENS,
    TranslationError,
    TranslationTask,
    read_translation,
)
from r1plus_assistant.math.math_answers import MathEntry, MathOutcome
from r1plus_contract.calculator import DEFAULT_DIGITS, Calculation, FailureCode
from r1plus_contract.inference import GATEWAY_OWNER, Role
from r1plus_gateway.http.completions.event_stream import read_whole
from r1plus_gateway.http.completions.math_fields import NOT_CONFIGURED, build_no_calculator_error
from r1plus_gateway.http.completions.requests import GenerateRequest
from r1plus_gateway.http.completions.steps import PromptCounter, ReservedDraft
from r1plus_gateway.serving.generation import Generation
from r1plus_gateway.serving.models import Models
from r1plus_gateway.serving.triton_wire import Prompt, Sampling, build_request, name_translation
from r1plus_gateway.settings import Capability, ModelSettings

CALCULATION_SECONDS: Final = 10.0
"""For all expressions of a question together."""
TRANSLATION_SECONDS: Final = 60.0
"""For the model's translation, with its wait for a slot."""
_SAMPLING: Final = Sampling(max_new_tokens=MOST_NEW_TOKENS, temperature=0.0, stop=b'["\\n"]')


def build_translation_prompt(task: TranslationTask) -> Prompt:
    """Return what the engine gets for a translation."""
    return Prompt(task.prompt, is_raw=True, grammar=task.grammar.encode())


@dataclass(frozen=True, slots=True)
class MathContext:
    """What is calculated for one request; see `PromptContext`."""

    mode: "MathMode"
    plan: MathPlan
    own_tokens: int = 0
    """Most tokens of a translation: prompt and answer."""

    @property
    def note_bytes(self) -> int:
        """See `PromptContext`."""
        return self.plan.note_bytes

    async def measure(self, model: ModelSettings, count: PromptCounter) -> "MathContext":
        """See `PromptContext`: without a translation, where the context has no room for it."""
        if self.plan.task is None:
            return self
        counted = await count(build_translation_prompt(self.plan.task))
        if counted is None:
            return self
        tokens = counted + MOST_NEW_TOKENS
        if tokens <= model.context_tokens:
            return replace(self, own_tokens=tokens)
        message = f"nothing was calculated: a translation needs {tokens} tokens of context, and the model has"
        skip = Skip("context_too_small", f"{message} {model.context_tokens}; write the expression")
        return replace(self, plan=MathPlan(skip=skip), own_tokens=0)

    async def enter(self, prompt: Prompt, job: ReservedDraft) -> tuple[Prompt, MathOutcome]:
        """See `PromptContext`."""
        outcome = await self.mode.run(self.plan, job)
        return insert_note(prompt, outcome.write_note()), outcome


def is_negative(calculation: Calculation) -> bool:
    """Return whether a result is a number below 0, which no number of things is."""
    return (calculation.numeric or calculation.exact or "").startswith("-")


class MathMode:
    """Calculates for requests that generate."""

    def __init__(self, desk: CalculatorDesk, models: Models) -> None:
        self._desk = desk
        self._models = models

    def plan(self, request: GenerateRequest, model: ModelSettings) -> MathContext | None:
        """See `ContextProvider`.

        Raises:
            NotConfiguredError: it asks for a calculator by name, and there is none.
        """
        math = request.math
        if math is None:
            return None
        if not self._desk.is_configured:
            if math.is_explicit:
                raise build_no_calculator_error()
            return MathContext(self, MathPlan(skip=Skip("calculator_not_configured", NOT_CONFIGURED)))
        # Every engine has taken grammars since it takes schemas.
        plan = plan_math(math.text, can_translate=model.can(Capability.RESPONSE_SCHEMA))
        if plan.task is None:
            return MathContext(self, plan)
        tokens = build_translation_prompt(plan.task).size + MOST_NEW_TOKENS
        return MathContext(self, plan, min(tokens, model.context_tokens))

    async def run(self, plan: MathPlan, job: ReservedDraft) -> MathOutcome:
        """Translate if that is planned, and calculate; never raise for what cannot be calculated.

        Raises:
            CallerRevokedError: the caller was revoked before a translation began.
        """
        group = job.draft.call.caller.group_id
        if plan.task is None:
            return MathOutcome(await self._calculate_all(plan.expressions, group), plan.skip)
        generation = self._begin_translation(plan.task, job)
        planned = await _read_planned(plan.task, generation)
        usage = generation.usage
        if isinstance(planned, Skip):
            return MathOutcome(skip=planned, usage=usage)
        entries = await self._calculate_all((planned,), group)
        if plan.task.asks_for_count and (done := entries[0].calculation) is not None and is_negative(done):
            message = f"nothing was calculated: the model's expression, {done.expression}, is less than 0"
            return MathOutcome(
                skip=Skip("result_implausible", f"{message}; write the expression yourself"), usage=usage
            )
        return MathOutcome(entries, usage=usage)

    def _begin_translation(self, task: TranslationTask, job: ReservedDraft) -> Generation:
        name, prompt = name_translation(job.draft.call.id), build_translation_prompt(task)
        request = build_request(name, prompt, _SAMPLING, GATEWAY_OWNER)
        generation = self._models.begin(job.draft.pool, job.draft.call.running, request)
        job.bill.add(generation)
        return generation

    async def _calculate_all(self, expressions: tuple[PlannedExpression, ...], group: str) -> tuple[MathEntry, ...]:
        entries: list[MathEntry] = []
        seconds = CALCULATION_SECONDS + self._desk.start_seconds
        try:
            with self._desk.take_place(group):
                async with asyncio.timeout(seconds):
                    for one in expressions:
                        entries.append(await self._calculate(one))
        except CallerBusyError as error:
            entries += _fail_rest(expressions, entries, "calculator_busy", str(error))
        except TimeoutError:
            message = f"all expressions together may take {seconds:g} s; send fewer"
            entries += _fail_rest(expressions, entries, "calculation_time_limit", message)
        return tuple(entries)

    async def _calculate(self, planned: PlannedExpression) -> MathEntry:
        try:
            reply = await self._desk.calculate(planned.expression, DEFAULT_DIGITS)
        except CalculatorUnavailableError as error:
            return MathEntry(planned, error=Skip("calculator_unavailable", str(error)))
        if reply.calculation is not None:
            return MathEntry(planned, reply.calculation)
        if reply.failure is None:
            return MathEntry(planned, error=Skip("calculation_failed", "the calculator gave no result; try again"))
        prefix = "calculator" if reply.failure.code is FailureCode.BUSY else "calculation"
        return MathEntry(planned, error=Skip(f"{prefix}_{reply.failure.code.value}", reply.failure.message))


def _fail_rest(
    expressions: tuple[PlannedExpression, ...], done: list[MathEntry], code: str, message: str
) -> list[MathEntry]:
    return [MathEntry(one, error=Skip(code, message)) for one in expressions[len(done) :]]


async def _read_planned(task: TranslationTask, generation: Generation) -> PlannedExpression | Skip:
    """Return the expression that the model writes, or why there is none."""
    try:
        async with asyncio.timeout(TRANSLATION_SECONDS):
            text = await read_whole(generation)
    except TimeoutError:
        await generation.end()
        message = f"nothing was calculated: the model did not translate within {TRANSLATION_SECONDS:g} s; try again"
        return Skip("translation_timeout", message)
    if generation.error is not None or generation.finish_reason != "stop":
        reason = str(generation.error) if generation.error is not None else "it did not end"
        return Skip("translation_failed", f"nothing was calculated: the model did not translate: {reason:.200}")
    try:
        translation = read_translation(task, text)
    except TranslationError as error:
        return Skip(error.code, f"nothing was calculated: {error}")
    return PlannedExpression(translation.expression, ExpressionRoute.TRANSLATION, translation.unit)


def insert_note(prompt: Prompt, note: str) -> Prompt:
    """Return the prompt with results before what the user says last: data of the user, and no instruction."""
    if not note:
        return prompt
    if prompt.messages is None:
        return replace(prompt, text=f"{note}\n\n{prompt.text}")
    messages = orjson.loads(prompt.messages)
    for message in reversed(messages):
        if message["role"] == Role.USER:
            message["content"] = f"{note}\n\n{message['content']}"
            return replace(prompt, messages=orjson.dumps(messages))
    return prompt
