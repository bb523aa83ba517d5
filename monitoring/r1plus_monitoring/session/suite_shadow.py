"""A suite's new version, asked beside the one that counts: what it says of a served revision, before it says anything.

Whoever writes a suite errs now and then, and a suite that takes effect at once would page for its author's error and
leave what serves unwatched while it is counted. So the pod goes on being judged by the former suite, and the whole gate
of the new one is run beside the watch and the traffic, one probe at a time and as politely. The report that it ends
with is what the new suite begins with: with it the operator lets the new one count.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from r1plus_contract.settings import KnownVerdicts, MonitorSettings
from r1plus_contract.verdict import GateReport, Shadow, Verdict
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.client import Engine
from r1plus_monitoring.probe.probes import Pace, Prompter
from r1plus_monitoring.scoring.sources import Beside, Sources
from r1plus_monitoring.session.evaluation import admitted
from r1plus_monitoring.session.gatekeeper import Gatekeeper
from r1plus_monitoring.session.store import Ledger, Parts
from r1plus_policies.gate.run import GateRun
from r1plus_policies.gate.verdict import GateItem, Rules, Subject, rejudge

STEP: Final = 10
"""Percent: the report changes so often and no more, since each change asks for a pass of the operator."""
LONGEST_PAUSE: Final = 20
"""Times `retry_after`, between two gates that decided nothing."""

Settings = Callable[[], MonitorSettings]


class Shadowing:
    """At most one suite beside the one that counts. Owned by the prober."""

    def __init__(self, parts: Parts, engine: Engine, identity: str) -> None:
        self._parts = parts
        self._engine = engine
        self._identity = identity
        self._about: object = None
        self._task: asyncio.Task[None] | None = None

    async def follow(self, sources: Sources, settings: Settings) -> None:
        """Ask what the sources name beside; nothing happens where that is what is asked already."""
        beside = sources.beside
        now = settings()
        about = (beside.name, beside.suite_hash, beside.problem, now.threshold, now.acknowledged) if beside else None
        if about == self._about:
            return
        await self.stop()
        self._about = about
        if beside is None:
            return
        self._forget(beside, now.acknowledged)
        self._tell(beside)
        if beside.suite is not None:
            self._task = asyncio.create_task(self._ask(beside, settings, sources.verdicts))

    async def stop(self) -> None:
        """Ask no more; what was asked is stored, so that another prober goes on from there."""
        task, self._task, self._about = self._task, None, None
        self._parts.bulletin.update(shadow=None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def check(self) -> None:
        """Raise what a bug raised there."""
        if self._task is not None and self._task.done():
            self._task.result()

    def _forget(self, beside: Beside, acknowledged: str) -> None:
        """After an alarm: what was failed of this suite or half asked, until the watch has acted on an acknowledgement.

        What was wrong with the pod may have lost that as well; once the watch is steady again it would be believed.
        """
        state = self._parts.store.state
        if state.watch is None or not state.watch.alarmed_at or state.watch.acknowledged == acknowledged:
            return
        kept = tuple(
            gate
            for gate in state.gates
            if gate.report.verdict is Verdict.PASS or gate.report.suite_hash != beside.suite_hash
        )
        self._parts.store.save(replace(state, gates=kept, shadow=None))

    async def _ask(self, beside: Beside, settings: Settings, verdicts: KnownVerdicts) -> None:
        assert beside.suite is not None
        suite, threshold = beside.suite, settings().threshold
        header = suite.header
        subject = Subject(self._identity, header.name, header.sha256, header.scorer_version)
        items = {item.id: item for item in suite.items}
        exposition = self._parts.exposition
        prompter = Prompter(self._engine, items, header.sampling, exposition, exposition.shadowed)
        order = [GateItem(item.id, item.stratum) for item in suite.items]
        keeper = Gatekeeper(self._parts, Ledger(self._parts, subject), prompter, subject, order, "shadow")
        while not admitted(self._parts, self._identity):  # noqa: ASYNC110 - a token is a file
            await asyncio.sleep(self._parts.poll_interval)
        pace = Pace(lambda: settings().probes_per_minute, prompter.busy)
        found, pause = self._known(subject, threshold, verdicts), self._parts.retry_after
        log("info", "New suite is asked beside the one that counts", suite=header.name, known=found is not None)
        while found is None:
            await prompter.until_ready(self._parts.poll_interval)
            found = await keeper.gated(Rules(threshold, batch=1), pace.wait, partial(self._progress, beside))
            if found.verdict is Verdict.INCONCLUSIVE:
                found = None
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._parts.retry_after * LONGEST_PAUSE)
        self._tell(beside, percent=100, gate=found)

    def _known(self, subject: Subject, threshold: float, verdicts: KnownVerdicts) -> GateReport | None:
        """What this pod, or another of its revision, found already."""
        reports = (*self._parts.store.state.reports, *verdicts.reports)
        ours = [r for r in reports if Subject(r.identity, r.suite, r.suite_hash, r.scorer_version) == subject]
        exact = next((r for r in ours if r.threshold == threshold), None)
        return exact or next((r for r in ours if rejudge(r, threshold) is Verdict.PASS), None)

    def _progress(self, beside: Beside, run: GateRun) -> None:
        percent = 100 * run.done // max(1, run.total)
        self._tell(beside, percent=min(percent - percent % STEP, 100 - STEP))

    def _tell(self, beside: Beside, percent: int = 0, gate: GateReport | None = None) -> None:
        problem = f"{beside.problem.reason}: {beside.problem.message}" if beside.problem else ""
        ran_under = self._parts.store.state.ran_under(gate)
        self._parts.bulletin.update(shadow=Shadow(beside.name, beside.suite_hash, percent, gate, problem, ran_under))
