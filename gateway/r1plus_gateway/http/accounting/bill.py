"""The bill of one request: tokens are set aside before it runs, and settled exactly once when it has ended."""

import asyncio
import logging
from collections.abc import Sequence

from r1plus_gateway.access.caller import AnswerEvidence, Caller, Ledger, Outcome, Reservation, Usage
from r1plus_gateway.http.accounting.tasks import TaskKeeper
from r1plus_gateway.http.metrics import GatewayMetrics, classify_end
from r1plus_gateway.serving.generation import Generation, State

log = logging.getLogger(__name__)
NOTHING = Usage(0, 0)


class Bill:
    """Of one request. Every path ends in `settle`; only the first call counts."""

    def __init__(self, ledger: Ledger, metrics: GatewayMetrics, tasks: TaskKeeper, reservation: Reservation) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._tasks = tasks
        self._settlement: asyncio.Task[None] | None = None
        self._earlier: list[Generation] = []
        """Generations that were begun before the one that answers, in their order; that one too, once it is added."""
        self.reservation = reservation

    def add(self, generation: Generation) -> None:
        """Bill a generation besides the one that answers, too: it is ended and counted with that one."""
        if generation not in self._earlier:
            self._earlier.append(generation)

    async def extend(self, tokens: int) -> None:
        """Set more tokens aside. Raises AccessError; what was set aside before stays so."""
        used = self.sum_usage(None)
        self.reservation = await self._ledger.extend(
            self.reservation, tokens, used.prompt_tokens + used.completion_tokens
        )

    def sum_usage(self, generation: Generation | None) -> Usage:
        """Return what has been used, with the generation that answers."""
        parts = [one.usage for one in self._list(generation)]
        return Usage(sum(one.prompt_tokens for one in parts), sum(one.completion_tokens for one in parts))

    def _list(self, generation: Generation | None) -> list[Generation]:
        """Return all generations, the newest last."""
        if generation is None or generation in self._earlier:
            return self._earlier
        return [*self._earlier, generation]

    async def settle(
        self,
        outcome: Outcome,
        generation: Generation | None,
        *,
        usage: Usage = NOTHING,
        evidence: AnswerEvidence | None = None,
    ) -> None:
        """End the request, and record what was used, cut or not; a cancellation does not stop it.

        Usage and evidence are the generation's, where there is one.
        """
        if self._settlement is None:
            self._settlement = self._tasks.start(self._settle(outcome, generation, usage, evidence))
        await asyncio.shield(self._settlement)

    async def _settle(
        self, outcome: Outcome, generation: Generation | None, usage: Usage, evidence: AnswerEvidence | None
    ) -> None:
        state = State.QUEUED
        generations = self._list(generation)
        for earlier in generations[:-1]:
            await earlier.end()
        if generations:
            generation = generations[-1]
            state = generation.state
            await generation.end()
            usage, evidence = self.sum_usage(generation), _find_evidence(generations)
        try:
            await self._ledger.settle(self.reservation, usage, outcome, evidence)
        except Exception as error:  # noqa: BLE001 - the tokens stay reserved, so no budget is exceeded
            self._metrics.count_unsettled()
            log.error("Request %s could not be settled: %s", self.reservation.request_id, type(error).__name__)
        try:
            self._count(outcome, usage, generation, state)
        except Exception as error:  # noqa: BLE001 - the answer is whole and billed
            log.error("Request %s could not be counted: %s", self.reservation.request_id, type(error).__name__)

    def _count(self, outcome: Outcome, usage: Usage, generation: Generation | None, state: State) -> None:
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


async def open_bill(
    ledger: Ledger,
    metrics: GatewayMetrics,
    tasks: TaskKeeper,
    request_id: str,
    caller: Caller,
    model: str,
    tokens: int,
) -> Bill:
    """Reserve tokens. A client that leaves meanwhile gets them back.

    Raises:
        AccessError: what `Ledger.reserve` raises.
    """
    task = tasks.start(ledger.reserve(request_id, caller, model, tokens))
    try:
        return Bill(ledger, metrics, tasks, await asyncio.shield(task))
    except asyncio.CancelledError:
        tasks.start(_give_back(ledger, metrics, tasks, task))
        raise


async def _give_back(
    ledger: Ledger, metrics: GatewayMetrics, tasks: TaskKeeper, task: asyncio.Task[Reservation]
) -> None:
    await asyncio.wait([task])
    if task.exception() is None:
        await Bill(ledger, metrics, tasks, task.result()).settle(Outcome.CANCELLED, None)
