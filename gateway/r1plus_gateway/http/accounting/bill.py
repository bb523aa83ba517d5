"""The bill of one request: tokens are set aside before it runs, and settled exactly once when it has ended."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from r1plus_gateway.access.caller import AnswerEvidence, Caller, Ledger, Outcome, Reservation, TokenUsage
from r1plus_gateway.http.accounting.tasks import TaskKeeper
from r1plus_gateway.http.metrics import GatewayMetrics, classify_end
from r1plus_gateway.http.parts import LEFT, GatewayParts
from r1plus_gateway.http.request_keys import IS_BILLED, REMAINING, REQUEST_ID
from r1plus_gateway.serving.errors import CallerRevokedError
from r1plus_gateway.serving.generation import Generation, State

log = logging.getLogger(__name__)
NOTHING = TokenUsage(0, 0)


class SlowReaderError(Exception):
    """The client did not read, and was cut off."""


class Bill:
    """The bill of one request: what is added to it is ended, summed and recorded when it is settled."""

    def __init__(self, ledger: Ledger, metrics: GatewayMetrics, tasks: TaskKeeper, reservation: Reservation) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._tasks = tasks
        self._settlement: asyncio.Task[None] | None = None
        self._generations: list[Generation] = []
        self._other: tuple[TokenUsage, AnswerEvidence | None] = (NOTHING, None)
        self.reservation = reservation

    @property
    def generations(self) -> Sequence[Generation]:
        """All generations of the request, the newest last."""
        return self._generations

    def add(self, generation: Generation) -> None:
        """Bill a generation that has begun."""
        self._generations.append(generation)

    def record(self, usage: TokenUsage, evidence: AnswerEvidence | None) -> None:
        """Note what was used by a request that generates nothing, and what has answered it."""
        self._other = usage, evidence

    async def extend(self, tokens: int) -> None:
        """Set more tokens aside. Raises AccessError; what was set aside before stays so."""
        used = self.sum_usage()
        self.reservation = await self._ledger.extend(
            self.reservation, tokens, used.prompt_tokens + used.completion_tokens
        )

    def sum_usage(self) -> TokenUsage:
        """Return what has been used by all generations."""
        parts = [one.usage for one in self._generations]
        return TokenUsage(sum(one.prompt_tokens for one in parts), sum(one.completion_tokens for one in parts))

    async def settle(self, outcome: Outcome) -> None:
        """End the request, and record what was used, cut or not; a cancellation does not stop it.

        Only the first call counts.
        """
        if self._settlement is None:
            self._settlement = self._tasks.start(self._settle(outcome))
        await asyncio.shield(self._settlement)

    async def _settle(self, outcome: Outcome) -> None:
        state, newest = State.QUEUED, None
        usage, evidence = self._other
        for generation in self._generations:
            newest, state = generation, generation.state
            await generation.end()
        if newest is not None:
            usage, evidence = self.sum_usage(), _find_evidence(self._generations)
        try:
            await self._ledger.settle(self.reservation, usage, outcome, evidence)
        except Exception as error:  # noqa: BLE001 - the tokens stay reserved, so no budget is exceeded
            self._metrics.count_unsettled()
            log.error("Request %s could not be settled: %s", self.reservation.request_id, type(error).__name__)
        try:
            self._count(outcome, usage, newest, state)
        except Exception as error:  # noqa: BLE001 - the answer is whole and billed
            log.error("Request %s could not be counted: %s", self.reservation.request_id, type(error).__name__)

    def _count(self, outcome: Outcome, usage: TokenUsage, generation: Generation | None, state: State) -> None:
        """Count the request in the metrics; `state` is how far it was when it was ended."""
        model, key = self.reservation.model, self.reservation.caller.group_id
        if generation is not None:
            self._metrics.observe(model, key, generation)
        if outcome is Outcome.CANCELLED or (outcome is Outcome.SLOW_READER and generation is not None):
            self._metrics.count_cancelled(model, key, state)
        self._metrics.count_request(model, key, classify_end(outcome, generation.error if generation else None))
        self._metrics.count_usage(model, key, usage)


def _find_evidence(generations: Sequence[Generation]) -> AnswerEvidence | None:
    """Return what answered: of the newest generation that has begun."""
    return next((one.evidence for one in reversed(generations) if one.evidence.revision), None)


def classify_outcome(error: BaseException) -> Outcome:
    """Return how a request has ended that this error ends. An error answer is classified by its cause."""
    if isinstance(error, SlowReaderError):
        return Outcome.SLOW_READER
    if isinstance(error, LEFT):
        return Outcome.CANCELLED
    is_revoked = isinstance(error, CallerRevokedError) or isinstance(error.__cause__, CallerRevokedError)
    return Outcome.REVOKED if is_revoked else Outcome.FAILED


@asynccontextmanager
async def reservation(
    parts: GatewayParts, request: web.Request, caller: Caller, model: str, tokens: int
) -> AsyncIterator[Bill]:
    """Reserve tokens for the block, and settle its bill when the block ends, by whatever. A block that just ends has
    answered. A client that leaves while tokens are reserved gets them back.

    Raises:
        AccessError: what `Ledger.reserve` raises.
    """
    bill = await _open_bill(parts, request[REQUEST_ID], caller, model, tokens)
    request[REMAINING], request[IS_BILLED] = bill.reservation.remaining, True
    try:
        yield bill
    except BaseException as error:
        await bill.settle(classify_outcome(error))
        raise
    await bill.settle(Outcome.ANSWERED)


async def _open_bill(parts: GatewayParts, request_id: str, caller: Caller, model: str, tokens: int) -> Bill:
    task = parts.tasks.start(parts.ledger.reserve(request_id, caller, model, tokens))
    try:
        return Bill(parts.ledger, parts.metrics, parts.tasks, await asyncio.shield(task))
    except asyncio.CancelledError:
        parts.tasks.start(_give_back(parts, task))
        raise


async def _give_back(parts: GatewayParts, task: asyncio.Task[Reservation]) -> None:
    await asyncio.wait([task])
    if task.exception() is None:
        await Bill(parts.ledger, parts.metrics, parts.tasks, task.result()).settle(Outcome.CANCELLED)
