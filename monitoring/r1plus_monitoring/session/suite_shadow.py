"""The shadow of a new suite version: its whole gate runs before the suite counts.

A suite may have errors. One that takes effect at once would page for its author's error, and what serves would be
unwatched while it is counted. So the pod is still judged by the former suite. The gate of the new one runs during the
watch and the traffic, one probe at a time and at the same pace. With its report the operator lets the new suite
count.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from r1plus_contract.monitor.settings import KnownVerdicts, MonitorSettings
from r1plus_contract.verdict import GateReport, Shadow, Verdict
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.client import EngineClient
from r1plus_monitoring.probe.probes import ProbePace, Prompter
from r1plus_monitoring.scoring.sources import ShadowSuite, Sources
from r1plus_monitoring.session.evaluation import is_admitted
from r1plus_monitoring.session.gatekeeper import Gatekeeper
from r1plus_monitoring.session.store import MonitorContext, SessionStore
from r1plus_policies.gate.run import GateRun
from r1plus_policies.gate.verdict import GateItem, Rules, VerdictSubject, rejudge

STEP: Final = 10
"""Percent between two changes of the report, since each change costs the operator a pass."""
LONGEST_PAUSE: Final = 20
"""Longest pause between two inconclusive gates, in multiples of `retry_after`."""

Settings = Callable[[], MonitorSettings]


class SuiteShadow:
    """At most one suite in the shadow of the one that counts. Owned by the prober."""

    def __init__(self, context: MonitorContext, engine: EngineClient, identity: str) -> None:
        self._context = context
        self._engine = engine
        self._identity = identity
        self._topic: object = None
        self._task: asyncio.Task[None] | None = None

    async def follow(self, sources: Sources, settings: Settings) -> None:
        """Start the shadow that the sources name; nothing happens where it already runs."""
        shadow = sources.shadow
        now = settings()
        topic = (shadow.name, shadow.suite_hash, shadow.problem, now.threshold, now.acknowledged) if shadow else None
        if topic == self._topic:
            return
        await self.stop()
        self._topic = topic
        if shadow is None:
            return
        self._forget_failures(shadow, now.acknowledged)
        self._report(shadow)
        if shadow.suite is not None:
            self._task = asyncio.create_task(self._ask(shadow, settings, sources.verdicts))

    async def stop(self) -> None:
        """Stop asking; the state is stored, so that another prober continues from there."""
        task, self._task, self._topic = self._task, None, None
        self._context.publisher.update(shadow=None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def check(self) -> None:
        """Raise the error of a task that failed."""
        if self._task is not None and self._task.done():
            self._task.result()

    def _forget_failures(self, shadow: ShadowSuite, acknowledged: str) -> None:
        """Drop Fails and partial results of this suite after an alarm, until the watch has acted on an
        acknowledgement.

        The fault of the pod may have caused them too; they must not count once the watch is steady again.
        """
        state = self._context.store.state
        if state.watch is None or not state.watch.alarmed_at or state.watch.acknowledged == acknowledged:
            return
        remaining_gates = tuple(
            gate
            for gate in state.gates
            if gate.report.verdict is Verdict.PASS or gate.report.suite_hash != shadow.suite_hash
        )
        self._context.store.save(replace(state, gates=remaining_gates, shadow=None))

    async def _ask(self, shadow: ShadowSuite, settings: Settings, verdicts: KnownVerdicts) -> None:
        assert shadow.suite is not None
        suite, threshold = shadow.suite, settings().threshold
        header = suite.header
        subject = VerdictSubject(self._identity, header.name, header.sha256, header.scorer_version)
        items = {item.id: item for item in suite.items}
        exposition = self._context.exposition
        prompter = Prompter(self._engine, items, header.sampling, exposition, exposition.record_shadow_probe)
        order = [GateItem(item.id, item.stratum) for item in suite.items]
        keeper = Gatekeeper(self._context, SessionStore(self._context, subject), prompter, subject, order, "shadow")
        while not is_admitted(self._context, self._identity):  # noqa: ASYNC110 - a token is a file
            await asyncio.sleep(self._context.poll_interval)
        pace = ProbePace(
            lambda: settings().probes_per_minute,
            prompter.is_busy,
            clock=self._context.monotonic,
            look_interval=self._context.poll_interval,
        )
        gate_report, pause = self._find_known_report(subject, threshold, verdicts), self._context.retry_after
        log("info", "Shadow gate of a new suite started", suite=header.name, known=gate_report is not None)
        while gate_report is None:
            await prompter.wait_until_ready(self._context.poll_interval)
            gate_report = await keeper.run_gate(
                Rules(threshold, batch=1), pace.wait, partial(self._report_progress, shadow)
            )
            if gate_report.verdict is Verdict.INCONCLUSIVE:
                gate_report = None
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._context.retry_after * LONGEST_PAUSE)
        self._report(shadow, percent=100, gate=gate_report)

    def _find_known_report(
        self, subject: VerdictSubject, threshold: float, verdicts: KnownVerdicts
    ) -> GateReport | None:
        """Return the report that this pod, or another of its revision, already has."""
        reports = (*self._context.store.state.reports, *verdicts.reports)
        ours = [r for r in reports if VerdictSubject(r.identity, r.suite, r.suite_hash, r.scorer_version) == subject]
        exact = next((r for r in ours if r.threshold == threshold), None)
        return exact or next((r for r in ours if rejudge(r, threshold) is Verdict.PASS), None)

    def _report_progress(self, shadow: ShadowSuite, run: GateRun) -> None:
        percent = 100 * run.probe_count // max(1, run.probe_total)
        self._report(shadow, percent=min(percent - percent % STEP, 100 - STEP))

    def _report(self, shadow: ShadowSuite, percent: int = 0, gate: GateReport | None = None) -> None:
        problem = f"{shadow.problem.reason}: {shadow.problem.message}" if shadow.problem else ""
        ran_under = self._context.store.state.find_config_digest(gate)
        self._context.publisher.update(shadow=Shadow(shadow.name, shadow.suite_hash, percent, gate, problem, ran_under))
