"""The monitor's own gate against a server: what it decides, and the answers to its items. Used by benches."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_contract.suites.suite import Suite
from r1plus_monitoring.probe.client import TritonEngine
from r1plus_monitoring.probe.gate import drive_gate
from r1plus_monitoring.probe.probes import Result, classify_reply
from r1plus_policies.gate.run import GateRecord, GateRun
from r1plus_policies.gate.verdict import GateItem, Judgement, Rules
from support.engine.server import Server

SEED: Final = 1
"""Of the order of the sweeps."""
REPORT_SECONDS: Final = 30.0
"""Between two lines of progress."""
PROBE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The newest answer to an item."""

    result: Result
    text: str


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """A gate's decision, and the newest answers to the items that it asked."""

    judgement: Judgement
    answers: Mapping[str, Answer]
    seconds: float

    @property
    def correct(self) -> int:
        """Items that were right when they were asked last: at batch 1, in a short check at the full batch."""
        return sum(answer.result is Result.CORRECT for answer in self.answers.values())


def run_gate(server: Server, suite: Suite, rules: Rules) -> GateOutcome:
    """Gate what the server serves on a suite.

    Raises:
        RuntimeError: the server has ended; with the end of its log.
    """
    return asyncio.run(_run_gate(server, suite, rules))


async def _run_gate(server: Server, suite: Suite, rules: Rules) -> GateOutcome:
    engine = TritonEngine(server.http, server.grpc, PROBE_SECONDS, server.metrics)
    items = {item.id: item for item in suite.items}
    run = GateRun([GateItem(item.id, item.stratum) for item in suite.items], rules, GateRecord(SEED))
    answers: dict[str, Answer] = {}

    async def ask(item_id: str) -> Result:
        reply = await engine.ask(items[item_id].prompt, suite.header.sampling)
        answers[item_id] = Answer(classify_reply(items[item_id], reply), reply.text)
        return answers[item_id].result

    async def go_on() -> None:
        """Neither pace nor restarts: no user asks, and a server that ends does not come back."""
        if server.has_ended():
            raise RuntimeError(f"the server ended: {server.last_words()}")

    began = reported = time.monotonic()

    def report() -> None:
        nonlocal reported
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            print(f"gate on {suite.header.name}: {run.progress_text}", flush=True)

    try:
        judgement = await drive_gate(run, ask=ask, pace=go_on, until_ready=go_on, on_score=report)
    finally:
        await engine.close()
    return GateOutcome(judgement, answers, time.monotonic() - began)
