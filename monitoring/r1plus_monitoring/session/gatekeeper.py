"""Runs the gates of one subject, whole or what is left of one that a restart cut off, and remembers what they decided.

Called by the episode for the suite that counts, and by the shadow for the one that does not count yet.
"""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from r1plus_contract.verdict import GateReport, Verdict
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.gate import drive
from r1plus_monitoring.probe.probes import Prompter
from r1plus_monitoring.session.store import Ledger, Parts
from r1plus_monitoring.store.state import MOST_REPORTS, HalfGate, OwnGate
from r1plus_policies.gate.run import GateRecord, GateRun
from r1plus_policies.gate.verdict import GateItem, Judgement, Rules, Subject, report

Slot = Literal["gate", "shadow"]
"""Where half of a gate is stored: two of one pod may be under way, each of a suite of its own."""
Paced = Callable[[], Awaitable[None]]


class Gatekeeper:
    """One subject's gates."""

    def __init__(
        self, parts: Parts, ledger: Ledger, prompter: Prompter, subject: Subject, items: Sequence[GateItem], slot: Slot
    ) -> None:
        self._parts = parts
        self._ledger = ledger
        self._prompter = prompter
        self._subject = subject
        self._items = items
        self._slot = slot

    async def gated(
        self,
        rules: Rules,
        pace: Paced,
        scored: Callable[[GateRun], None],
        *,
        control: str = "",
        acknowledged: str = "",
    ) -> GateReport:
        """One whole gate. `scored` is called once before the first probe and after every score."""
        half = self._half(rules, acknowledged or control)
        run = GateRun(self._items, rules, half.record)
        before, started = half.seconds, time.monotonic()
        log("info", "Gate started", items=len(self._items), batch=rules.batch, done=run.done, total=run.total)

        def seconds() -> float:
            return before + time.monotonic() - started

        def each() -> None:
            scored(run)
            if self._ledger.due():
                stored = dataclasses.replace(half, record=run.snapshot(), seconds=seconds())
                self._ledger.save(**{self._slot: stored})

        scored(run)
        judgement = await self.drive(run, pace, each)
        if judgement.verdict is Verdict.FAIL:
            await self._parts.doubt.settled()
        found = report(judgement, rules, self._subject, seconds=seconds(), decided_at=self._ledger.now())
        found = dataclasses.replace(found, control=control, acknowledged=acknowledged)
        self._keep(found, half.ran_under)
        log("info", "Gate decided", verdict=found.verdict, reason=found.reason, detail=found.message)
        return found

    async def drive(self, run: GateRun, pace: Paced, scored: Callable[[], None]) -> Judgement:
        """Ask until the run has decided; nothing is stored."""
        return await drive(run, ask=self._prompter.ask, pace=pace, until_ready=self.recover, scored=scored)

    async def recover(self) -> None:
        """Nobody was there: a breath, then until the model is ready."""
        await asyncio.sleep(self._parts.poll_interval)
        await self._prompter.until_ready(self._parts.poll_interval)

    def _half(self, rules: Rules, order: str) -> HalfGate:
        """The one that was cut off, if it is of the same subject, rules and order; else a new one."""
        half: HalfGate | None = getattr(self._ledger.state, self._slot)
        record, under = GateRecord(self._parts.seed()), self._parts.config_digest()
        new = HalfGate(self._subject, rules.threshold, rules.batch, record, 0.0, order, under)
        # Files that changed meanwhile change nothing of a gate whose suite, threshold, batch and order are the same.
        same = half and dataclasses.replace(half, record=record, seconds=0.0, ran_under=under) == new
        return half if half and same else new

    def _keep(self, found: GateReport, ran_under: str) -> None:
        """Remember a verdict. An Inconclusive one is no verdict: only the half gate goes."""
        kept = self._ledger.state.gates
        if found.verdict in (Verdict.PASS, Verdict.FAIL):
            kept = (OwnGate(found, ran_under), *kept)[:MOST_REPORTS]
        self._ledger.save(**{self._slot: None}, gates=kept)
