"""One probe: ask, score, count. Called by the gate and by the sweeps; the only place that holds an answer's text."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

from r1plus_contract.metrics import Outcome
from r1plus_contract.outcomes import ProbeResult
from r1plus_contract.suite import Item, Sampling
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.client import Engine, Failure, Reply
from r1plus_monitoring.report.exposition import SKIPPED_BUSY, SKIPPED_NOT_READY, Exposition
from r1plus_monitoring.scoring.scorers import score
from r1plus_policies.gate.verdict import Score


class Result(StrEnum):
    """What a probe gave, in more detail than the metric's label: whose fault decides whether it counts."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    SERVER_ERROR = "server error"
    TIMEOUT = "timeout"
    TRANSPORT = "transport"
    UNSCORABLE = "unscorable"


LABELS = {
    Result.CORRECT: Outcome.CORRECT,
    Result.INCORRECT: Outcome.INCORRECT,
    Result.SERVER_ERROR: Outcome.ERROR,
    Result.TIMEOUT: Outcome.TIMEOUT,
    Result.TRANSPORT: Outcome.ERROR,
    Result.UNSCORABLE: Outcome.UNSCORABLE,
}
SCORES = {
    Result.CORRECT: Score.CORRECT,
    Result.INCORRECT: Score.FAILED,
    Result.SERVER_ERROR: Score.FAILED,
    Result.TIMEOUT: Score.FAILED,
    Result.TRANSPORT: Score.UNSCORED,
    Result.UNSCORABLE: Score.UNSCORED,
}
"""Errors are not silence: a server that errs has failed the item; one that is not there has said nothing."""

_FAILURES = {
    Failure.SERVER_ERROR: Result.SERVER_ERROR,
    Failure.TIMEOUT: Result.TIMEOUT,
    Failure.TRANSPORT: Result.TRANSPORT,
}
_SCORED = {Outcome.CORRECT: Result.CORRECT, Outcome.INCORRECT: Result.INCORRECT}

OUTCOMES = {
    Result.CORRECT: ProbeResult.CORRECT,
    Result.INCORRECT: ProbeResult.INCORRECT,
    Result.SERVER_ERROR: ProbeResult.SERVER_ERROR,
    Result.TIMEOUT: ProbeResult.SERVER_ERROR,
}
"""What a detector hears. Nobody there, or a scorer that failed: nothing was said of the engine."""

MOST_SKIPPED: Final = 4
"""Turns in a row that a busy engine is spared: one in five is the floor."""

Probed = Callable[[str, str, float, int, int], None]
"""Of a probe: stratum, outcome, seconds, tokens of prompt and of completion."""
Ask = Callable[[str], Awaitable[Result]]
"""Asks the item with this id."""


class Prompter:
    """Asks items of one suite."""

    def __init__(
        self,
        engine: Engine,
        items: dict[str, Item],
        sampling: Sampling,
        exposition: Exposition,
        probed: Probed | None = None,
    ) -> None:
        """`items` by id; `probed` counts a probe, by default as one of the suite that counts."""
        self._probed = probed or exposition.probed
        self._engine = engine
        self._items = items
        self._sampling = sampling
        self._exposition = exposition

    async def ask(self, item_id: str) -> Result:
        """Ask one item and say what came of it. Raises nothing but cancellation and bugs."""
        item = self._items[item_id]
        started = time.monotonic()
        reply = await self._engine.ask(item.prompt, self._sampling)
        seconds = time.monotonic() - started
        result = judged(item, reply)
        self._probed(item.stratum, LABELS[result], seconds, reply.prompt_tokens, reply.completion_tokens)
        if reply.failure is not None:
            log("warning", "Probe got no answer", item=item_id, failure=reply.failure, detail=reply.detail)
        return result

    async def busy(self) -> bool:
        """Whether requests wait for a slot; a turn that is skipped for it is counted."""
        found = (await self._engine.waiting() or 0) > 0
        if found:
            self._exposition.skipped(SKIPPED_BUSY)
        return found

    async def until_ready(self, poll: float) -> None:
        """Return once the model answers readiness."""
        await until_ready(self._engine, self._exposition, poll)


async def until_ready(engine: Engine, exposition: Exposition, poll: float) -> None:
    """Look every `poll` seconds."""
    while not await engine.ready():
        exposition.skipped(SKIPPED_NOT_READY)
        await asyncio.sleep(poll)


def judged(item: Item, reply: Reply) -> Result:
    """Failure or score. Pure."""
    if reply.failure is not None:
        return _FAILURES[reply.failure]
    return _SCORED.get(score(item, reply.text, reply.finish_reason), Result.UNSCORABLE)


class Pace:
    """A token bucket of one: never faster than `per_minute`, and no burst after a pause.

    Once traffic may flow, probes are guests: concurrency 1 and this rate. The rate is read at every step, since the
    operator may change it at any time. While requests wait for a slot, a turn is skipped before an item is drawn, so
    that load does not choose the items; but never more than MOST_SKIPPED turns in a row, since some faults show under
    load alone.
    """

    def __init__(self, per_minute: Callable[[], int], busy: Callable[[], Awaitable[bool]] | None = None) -> None:
        """`per_minute` is called for every probe; 1 or more. `busy` is asked once a turn."""
        self._per_minute = per_minute
        self._busy = busy
        self._last = float("-inf")

    async def wait(self) -> None:
        """Return when the next probe may go."""
        for _ in range(MOST_SKIPPED):
            await self._turn()
            if self._busy is None or not await self._busy():
                return
        await self._turn()

    async def _turn(self) -> None:
        while True:
            rest = self._last + 60.0 / self._per_minute() - time.monotonic()
            if rest <= 0:
                break
            await asyncio.sleep(min(rest, 1.0))
        self._last = time.monotonic()
