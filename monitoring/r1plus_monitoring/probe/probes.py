"""One probe: ask, score, count. Called by the gate and by the sweeps; the only place that holds an answer's text."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.monitor.outcomes import ProbeResult
from r1plus_contract.suites.suite import Item, SuiteSampling
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.client import EngineClient, Failure, ProbeReply
from r1plus_monitoring.report.exposition import SKIPPED_BUSY, SKIPPED_NOT_READY, Exposition
from r1plus_monitoring.scoring.scorers import score
from r1plus_policies.gate.verdict import Score


class Result(StrEnum):
    """Outcome of a probe, in more detail than the label of the metric: the cause decides whether it counts."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    SERVER_ERROR = "server error"
    TIMEOUT = "timeout"
    TRANSPORT = "transport"
    UNSCORABLE = "unscorable"


LABELS = {
    Result.CORRECT: OutcomeLabel.CORRECT,
    Result.INCORRECT: OutcomeLabel.INCORRECT,
    Result.SERVER_ERROR: OutcomeLabel.ERROR,
    Result.TIMEOUT: OutcomeLabel.TIMEOUT,
    Result.TRANSPORT: OutcomeLabel.ERROR,
    Result.UNSCORABLE: OutcomeLabel.UNSCORABLE,
}
SCORES = {
    Result.CORRECT: Score.CORRECT,
    Result.INCORRECT: Score.FAILED,
    Result.SERVER_ERROR: Score.FAILED,
    Result.TIMEOUT: Score.FAILED,
    Result.TRANSPORT: Score.UNSCORED,
    Result.UNSCORABLE: Score.UNSCORED,
}
"""A server that errs has failed the item; one that is not there has answered nothing."""

_FAILURES = {
    Failure.SERVER_ERROR: Result.SERVER_ERROR,
    Failure.TIMEOUT: Result.TIMEOUT,
    Failure.TRANSPORT: Result.TRANSPORT,
}
_SCORE_RESULTS = {OutcomeLabel.CORRECT: Result.CORRECT, OutcomeLabel.INCORRECT: Result.INCORRECT}

OUTCOMES = {
    Result.CORRECT: ProbeResult.CORRECT,
    Result.INCORRECT: ProbeResult.INCORRECT,
    Result.SERVER_ERROR: ProbeResult.SERVER_ERROR,
    Result.TIMEOUT: ProbeResult.SERVER_ERROR,
}
"""What a detector observes. Absent: the probe says nothing of the engine (not reachable, or the scorer failed)."""

MOST_SKIPPED: Final = 4
"""Turns in a row that are skipped for a busy engine: at least one in five is used."""

RecordProbe = Callable[[str, str, float, int, int], None]
"""Records a probe: stratum, outcome, seconds, tokens of prompt and of completion."""
Ask = Callable[[str], Awaitable[Result]]
"""Asks the item with this id."""


class Prompter:
    """Asks items of one suite."""

    def __init__(
        self,
        engine: EngineClient,
        items: dict[str, Item],
        sampling: SuiteSampling,
        exposition: Exposition,
        record_probe: RecordProbe | None = None,
    ) -> None:
        """`items` by id; `probed` counts a probe, by default as one of the suite that counts."""
        self._record_probe = record_probe or exposition.record_probe
        self._engine = engine
        self._items = items
        self._sampling = sampling
        self._exposition = exposition

    async def ask(self, item_id: str) -> Result:
        """Ask one item and return the result. Raises nothing but cancellation and bugs."""
        item = self._items[item_id]
        start = time.monotonic()
        reply = await self._engine.ask(item.prompt, self._sampling)
        seconds = time.monotonic() - start
        result = classify_reply(item, reply)
        self._record_probe(item.stratum, LABELS[result], seconds, reply.prompt_tokens, reply.completion_tokens)
        if reply.failure is not None:
            log("warning", "Probe got no answer", item=item_id, failure=reply.failure, detail=reply.detail)
        return result

    async def is_busy(self) -> bool:
        """Return whether requests wait for a slot; a turn that is skipped for that is counted."""
        is_busy = (await self._engine.count_waiting_requests() or 0) > 0
        if is_busy:
            self._exposition.record_skip(SKIPPED_BUSY)
        return is_busy

    async def wait_until_ready(self, poll: float) -> None:
        """Return once the model answers readiness."""
        await wait_until_ready(self._engine, self._exposition, poll)


async def wait_until_ready(engine: EngineClient, exposition: Exposition, poll: float) -> None:
    """Return once the model is ready; look every `poll` seconds."""
    while not await engine.is_model_ready():
        exposition.record_skip(SKIPPED_NOT_READY)
        await asyncio.sleep(poll)


def classify_reply(item: Item, reply: ProbeReply) -> Result:
    """Return the failure or the score of a reply. Pure."""
    if reply.failure is not None:
        return _FAILURES[reply.failure]
    return _SCORE_RESULTS.get(score(item, reply.text, reply.finish_reason), Result.UNSCORABLE)


class ProbePace:
    """A token bucket of one: never faster than `per_minute`, and no burst after a pause.

    Once traffic may flow, probes run one at a time at this rate. The rate is read again during a long wait, since the
    operator may change it at any time. While requests wait for a slot, a turn is skipped before an item is drawn, so
    that load does not choose the items. At most MOST_SKIPPED turns in a row are skipped, since some faults show under
    load alone.
    """

    def __init__(
        self,
        per_minute: Callable[[], int],
        is_busy: Callable[[], Awaitable[bool]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        look_interval: float = 1.0,
    ) -> None:
        """`per_minute` is called for every probe, and every `look_interval` seconds of a wait; it returns 1 or more.

        `is_busy` is awaited once a turn.
        """
        self._per_minute = per_minute
        self._is_busy = is_busy
        self._clock = clock
        self._look_interval = look_interval
        self._last = float("-inf")

    async def wait(self) -> None:
        """Return when the next probe may go."""
        for _ in range(MOST_SKIPPED):
            await self._wait_for_turn()
            if self._is_busy is None or not await self._is_busy():
                return
        await self._wait_for_turn()

    async def _wait_for_turn(self) -> None:
        while True:
            rest = self._last + 60.0 / self._per_minute() - self._clock()
            if rest <= 0:
                break
            await asyncio.sleep(min(rest, self._look_interval))
        self._last = self._clock()
