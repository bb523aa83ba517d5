"""Runs the gates of one subject, whole or the rest of an interrupted one, and stores their verdicts.

Called by the evaluation session for the suite that counts, and by the suite shadow for the one that does not yet.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

from r1plus_contract.verdict import GateReport, Verdict
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.gate import drive_gate
from r1plus_monitoring.probe.probes import Prompter, Result
from r1plus_monitoring.session.store import MonitorContext, SessionStore
from r1plus_monitoring.store.state import MOST_REPORTS, OwnGate, PartialGate
from r1plus_policies.gate.run import GateRecord, GateRun
from r1plus_policies.gate.verdict import GateItem, Judgement, Rules, VerdictSubject, build_report

Slot = Literal["gate", "shadow"]
"""Where a partial gate is stored: one pod may run two, each of its own suite."""
AwaitTurn = Callable[[], Awaitable[None]]


class Gatekeeper:
    """The gates of one subject."""

    def __init__(
        self,
        context: MonitorContext,
        session_store: SessionStore,
        prompter: Prompter,
        subject: VerdictSubject,
        items: Sequence[GateItem],
        slot: Slot,
    ) -> None:
        self._context = context
        self._session_store = session_store
        self._prompter = prompter
        self._subject = subject
        self._items = items
        self._slot = slot

    async def run_gate(
        self,
        rules: Rules,
        pace: AwaitTurn,
        on_score: Callable[[GateRun], None],
        *,
        control: str = "",
        acknowledged: str = "",
    ) -> GateReport:
        """Run one whole gate. `on_score` is called once before the first probe and after every score."""
        partial = self._load_partial(rules, acknowledged or control)
        run = GateRun(self._items, rules, partial.record)
        before, start = partial.seconds, self._context.monotonic()
        log(
            "info",
            "Gate started",
            items=len(self._items),
            batch=rules.batch,
            done=run.probe_count,
            total=run.probe_total,
        )

        def seconds() -> float:
            return before + self._context.monotonic() - start

        def each() -> None:
            on_score(run)
            if self._session_store.should_save():
                snapshot = dataclasses.replace(partial, record=run.snapshot(), seconds=seconds())
                self._session_store.save(**{self._slot: snapshot})

        results: Counter[Result] = Counter()

        async def ask(item_id: str) -> Result:
            result = await self._prompter.ask(item_id)
            results[result] += 1
            return result

        on_score(run)
        judgement = await drive_gate(run, ask=ask, pace=pace, until_ready=self.recover, on_score=each)
        if judgement.verdict is Verdict.FAIL:
            await self._context.recheck.wait_until_confirmed()
            judgement = dataclasses.replace(judgement, message=judgement.message + _describe_missing_answers(results))
        gate_report = build_report(
            judgement, rules, self._subject, seconds=seconds(), decided_at=self._session_store.format_now()
        )
        gate_report = dataclasses.replace(gate_report, control=control, acknowledged=acknowledged)
        self._store_verdict(gate_report, partial.ran_under)
        log("info", "Gate decided", verdict=gate_report.verdict, reason=gate_report.reason, detail=gate_report.message)
        return gate_report

    async def drive(self, run: GateRun, pace: AwaitTurn, on_score: Callable[[], None]) -> Judgement:
        """Ask until the run has decided; nothing is stored."""
        return await drive_gate(run, ask=self._prompter.ask, pace=pace, until_ready=self.recover, on_score=on_score)

    async def recover(self) -> None:
        """Wait a little, then until the model is ready."""
        await asyncio.sleep(self._context.poll_interval)
        await self._prompter.wait_until_ready(self._context.poll_interval)

    def _load_partial(self, rules: Rules, order: str) -> PartialGate:
        """Return the interrupted gate, if subject, rules and order are the same; otherwise a new one."""
        partial: PartialGate | None = getattr(self._session_store.state, self._slot)
        record, under = GateRecord(self._context.seed()), self._context.config_digest()
        new = PartialGate(self._subject, rules.threshold, rules.batch, record, 0.0, order, under)
        # Changed files do not matter to a gate whose suite, threshold, batch and order are the same.
        same = partial and dataclasses.replace(partial, record=record, seconds=0.0, ran_under=under) == new
        return partial if partial and same else new

    def _store_verdict(self, gate_report: GateReport, ran_under: str) -> None:
        """Store a verdict. An Inconclusive one is no verdict: only the partial gate is removed."""
        gates = self._session_store.state.gates
        if gate_report.verdict in (Verdict.PASS, Verdict.FAIL):
            gates = (OwnGate(gate_report, ran_under), *gates)[:MOST_REPORTS]
        self._session_store.save(**{self._slot: None}, gates=gates)


def _describe_missing_answers(results: Mapping[Result, int]) -> str:
    """Return how many probes had no answer since the monitor began, and what to look at; empty if all had one."""
    late, errors = results[Result.TIMEOUT], results[Result.SERVER_ERROR]
    if not late + errors:
        return ""
    return (
        f"; {late} probes timed out and {errors} got a server error, which count as failures: look at the pod's"
        " processor time, memory and log first"
    )
