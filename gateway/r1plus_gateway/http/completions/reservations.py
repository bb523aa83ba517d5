"""The step `reserve`: a prompt is counted where the engine can, and its tokens are set aside until it has ended."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from r1plus_contract.inference import ContextExcess
from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.http.accounting.admission import CountAllowance
from r1plus_gateway.http.accounting.bill import Bill, reservation
from r1plus_gateway.http.completions.estimated_tokens import TEMPLATE_TOKENS
from r1plus_gateway.http.completions.requests import GenerateRequest
from r1plus_gateway.http.completions.sampling_fields import resolve_new_tokens
from r1plus_gateway.http.completions.steps import Draft, PromptContext, PromptCounter, ReservedDraft
from r1plus_gateway.http.errors import FieldNames, build_context_error
from r1plus_gateway.http.parts import GatewayParts
from r1plus_gateway.serving.errors import ServingError
from r1plus_gateway.serving.generation import count_tokens
from r1plus_gateway.serving.pods import PodPool
from r1plus_gateway.serving.triton_wire import Prompt, build_request
from r1plus_gateway.settings import Capability, ModelSettings

COUNT_SECONDS: Final = 10.0


def count_most_waiting(parts: GatewayParts, pool: PodPool) -> int:
    """Return how many requests of a caller may wait to be read: as many as could run or wait for a slot."""
    return parts.read_settings().limits.queue_per_key + parts.models.queue.count_slots(pool.model.name)


async def count_prompt(pool: PodPool, request_id: str, prompt: Prompt) -> int | None:
    """Return the prompt's tokens; None if the pod does not say."""
    try:
        return await count_tokens(pool, build_request(request_id, prompt, None), COUNT_SECONDS)
    except ServingError:
        return None  # what is wrong with the request, the request itself will show


class Reservations:
    """Reserves what requests that generate may use at most.

    A caller whose requests were refused after too many counts gets none for a while: its prompts are reserved by
    their size, as where the engine cannot count. So a flood of refused requests costs the pods little, and takes
    nothing from the caller's requests that its budget has room for.

    A few requests of a caller are counted or reserved at one time, so others find room in the store's writer.
    """

    def __init__(self, parts: GatewayParts) -> None:
        self._parts = parts
        self._counts = CountAllowance(parts.clock)

    @asynccontextmanager
    async def reserve(self, draft: Draft, on_admitted: Callable[[], Awaitable[None]]) -> AsyncIterator[ReservedDraft]:
        """Reserve a draft's tokens for the block, and settle its bill at the block's end; see `reservation`.

        Raises:
            AccessError: a limit of the caller leaves no room.
            QueueFullError: too many of its requests wait.
            RequestError: the context leaves no room for an answer.
        """
        pool, group = draft.pool, draft.call.caller.group_id
        most = self._parts.read_settings().limits.queue_per_key
        waiting = count_most_waiting(self._parts, pool)
        async with AsyncExitStack() as reserved:
            async with self._counts.wait_for_turn(f"{group} {pool.model.name}", most, waiting):
                self._parts.models.queue.check_room(pool.model.name, group)
                job = await self._admit(draft, most, reserved)
            await on_admitted()
            yield job

    async def _admit(self, draft: Draft, most: int, reserved: AsyncExitStack) -> ReservedDraft:
        group = draft.call.caller.group_id
        if not draft.pool.model.can(Capability.COUNT_ONLY):
            return await reserved.enter_async_context(self._open(draft, draft.request, draft.contexts, None))
        if self._counts.take(group, most):
            count = partial(count_prompt, draft.pool, draft.call.id)
            contexts = [await context.measure(draft.pool.model, count) for context in draft.contexts]
            request, prompt_tokens = await _count_fitting(draft.request, count)
            job = await reserved.enter_async_context(self._open(draft, request, contexts, prompt_tokens))
            self._counts.give_back(group)
            return job
        try:
            return await reserved.enter_async_context(self._open(draft, draft.request, draft.contexts, None))
        except AccessError as error:
            if _depends_on_size(error, draft.request):
                raise _refuse_uncounted(error, self._counts.compute_wait(group, most), most) from error
            raise

    @asynccontextmanager
    async def _open(
        self, draft: Draft, request: GenerateRequest, contexts: Sequence[PromptContext], prompt_tokens: int | None
    ) -> AsyncIterator[ReservedDraft]:
        """Reserve prompt and maximum answer. A text has at most as many tokens as bytes, and never more than fit."""
        model, caller = draft.pool.model, draft.call.caller
        note = sum(context.note_bytes for context in contexts)
        more = sum(context.own_tokens for context in contexts)
        _check_prompt_tokens(prompt_tokens, model, draft.names)
        new_tokens = resolve_new_tokens(request.limit, model, prompt_tokens and prompt_tokens + note)
        prompt = prompt_tokens if prompt_tokens is not None else request.prompt.size + TEMPLATE_TOKENS
        tokens = min(prompt + note + (new_tokens or request.limit.tokens), model.context_tokens) + more
        bill: Bill | None = None
        try:
            async with reservation(self._parts, draft.call.http, caller, model.name, tokens) as bill:
                limited = replace(request, sampling=replace(request.sampling, max_new_tokens=new_tokens))
                yield ReservedDraft(draft, limited, contexts, bill, prompt_tokens or 0)
        finally:
            if bill is not None and prompt_tokens and not _has_billed_count(bill):
                self._counts.charge(caller.group_id, self._parts.read_settings().limits.queue_per_key)


async def _count_fitting(request: GenerateRequest, count: PromptCounter) -> tuple[GenerateRequest, int | None]:
    """Count a prompt; what was packed by an estimate is packed again, once, by what the engine counts."""
    prompt_tokens = await count(request.prompt)
    if request.packing is not None and prompt_tokens is not None:
        smaller = await asyncio.to_thread(request.packing.shrink, prompt_tokens)
        if smaller is not None:
            return smaller, await count(smaller.prompt)
    return request, prompt_tokens


def _has_billed_count(bill: Bill) -> bool:
    """Return whether a prompt that was counted has begun to run, so that its tokens are billed."""
    return any(one.is_counted and one.usage.prompt_tokens for one in bill.generations)


def _check_prompt_tokens(prompt_tokens: int | None, model: ModelSettings, names: FieldNames) -> None:
    """Refuse a prompt that leaves no token of the context for the answer, as the engine does."""
    if prompt_tokens is not None and prompt_tokens >= model.context_tokens:
        raise build_context_error(ContextExcess(prompt_tokens, 1, model.context_tokens), names)


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
