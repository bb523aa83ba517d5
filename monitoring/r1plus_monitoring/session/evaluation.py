"""The evaluation session: from readiness to watching, for one identity, suite, threshold and gate.

The prober starts a session whenever one of these changes and cancels the one before. In `Enforce` nothing is admitted
before a Pass. In `Observe` the pod serves first and its gate runs during traffic. A token is never removed.

A pod that is watched already, and whose stored verdicts do not decide under a new threshold, stays watched: what was
counted is judged by the new threshold at once, and its gate is repeated meanwhile.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from r1plus_contract.monitor.admission import Admission, read_token, write_token
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.monitor.settings import KnownVerdicts, MonitorSettings
from r1plus_contract.suites.suite import Suite
from r1plus_contract.verdict import Gate, GateProgress, GateReport, Phase, Verdict, WatchStanding
from r1plus_monitoring.logs import format_time, log
from r1plus_monitoring.probe.probes import ProbePace, Prompter
from r1plus_monitoring.session.gatekeeper import Gatekeeper
from r1plus_monitoring.session.store import MonitorContext, SessionStore
from r1plus_monitoring.session.watch import RAISED_PER_MINUTE, SubjectWatch
from r1plus_policies.gate.run import GateRecord, GateRun
from r1plus_policies.gate.verdict import (
    SHORT_CHECK_ITEMS,
    GateItem,
    Rules,
    Score,
    VerdictSubject,
    allows_same,
    rejudge,
    short_check_limit,
)
from r1plus_policies.watch.memory import WatchState, build_watch_report
from r1plus_policies.watch.memory import describe_watch as describe_watch

REASONS: Final = {
    WatchStanding.CONFIRMING: "AccuracyConfirming",
    WatchStanding.CHANGED: "AccuracyChanged",
    WatchStanding.BELOW_THRESHOLD: "AccuracyBelowThreshold",
    WatchStanding.ERRORS: "ServerErrors",
}
"""Reason of a report whose gate passed, by standing; only BELOW_THRESHOLD is a Fail."""


def is_admitted(context: MonitorContext, identity: str) -> bool:
    """Return whether there is a token for this identity."""
    token = read_token(context.admission_dir)
    return token is not None and token.identity == identity


def admit(context: MonitorContext, identity: str, gate: Gate, verdict: Verdict, suite_hash: str) -> None:
    """Write the token, once: an existing one stays, so it shows why the pod was first admitted."""
    if not is_admitted(context, identity):
        write_token(
            context.admission_dir,
            Admission(
                identity=identity,
                gate=gate,
                verdict=verdict,
                suite_hash=suite_hash,
                written_at=format_time(context.clock()),
            ),
        )
        log("info", "Pod admitted", gate=gate, verdict=verdict)
    context.publisher.update(admitted=True)


class EvaluationSession:
    """The session of one subject."""

    def __init__(
        self,
        context: MonitorContext,
        prompter: Prompter,
        identity: ServingIdentity,
        suite: Suite,
        settings: Callable[[], MonitorSettings],
        verdicts: KnownVerdicts,
    ) -> None:
        """`settings` returns the newest ones: the pace may change during a session."""
        self._context = context
        self._prompter = prompter
        self._suite = suite
        self._settings = settings
        order = settings().control
        self._control = order.token if order and order.identity == identity.digest() else ""
        """Token of a control pass: traffic may go back to this revision if it passes now; older verdicts are void."""
        self._gate = Gate.ENFORCE if self._control else settings().gate
        self._threshold = settings().threshold
        self._verdicts = verdicts
        self._batch = identity.batch
        self._subject = VerdictSubject(
            identity.digest(), suite.header.name, suite.header.sha256, suite.header.scorer_version
        )
        self._items = {item.id: item for item in suite.items}
        self._pace = ProbePace(
            lambda: max(RAISED_PER_MINUTE, settings().probes_per_minute), prompter.is_busy, clock=context.monotonic
        )
        self._session_store = SessionStore(context, self._subject)
        self._keeper = Gatekeeper(
            context, self._session_store, prompter, self._subject, self._build_gate_items(), "gate"
        )

    async def run(self) -> None:
        """Run until the prober cancels it; never returns."""
        self._reset_report()
        await self._prompter.wait_until_ready(self._context.poll_interval)
        if self._gate is Gate.OBSERVE:
            self._admit(Verdict.NO_DATA)
        report = None if self._is_watched_unjudged else await self._decide_verdict()
        if report is not None:
            if report.verdict is Verdict.PASS:
                self._admit(Verdict.PASS)
            self._announce(report, None)
        if self._is_admitted:
            await self._watch(report)
        # Not admitted: nothing is served here, so there is nothing to watch.
        await asyncio.Event().wait()

    # -- Verdict -----------------------------------------------------------------------------------------------------

    async def _decide_verdict(self) -> GateReport:
        known_report = self._find_known_report()
        if known_report is not None and (known_report.verdict is Verdict.FAIL or self._is_admitted):
            return known_report
        if known_report is not None:
            if await self._run_short_check():
                return known_report
            if self._is_restored:
                self._admit(Verdict.PASS)
        pause = self._context.retry_after
        while (report := await self._run_first_gate()).verdict is Verdict.INCONCLUSIVE:
            self._report_inconclusive(report)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._context.retry_after * 20)
            await self._prompter.wait_until_ready(self._context.poll_interval)
        return report

    def _find_known_report(self) -> GateReport | None:
        """Return a verdict on exactly this subject, from this pod or another one of the revision. A Fail is not
        retried.

        The newest one under this threshold replaces earlier ones, whether or not it admits this pod. After an
        acknowledgement that is a Pass of batch 1, and the acknowledged Fail no longer counts.
        """
        reports = (*self._context.store.state.reports, *self._verdicts.reports)
        ours = [
            r
            for r in reports
            if VerdictSubject(r.identity, r.suite, r.suite_hash, r.scorer_version) == self._subject
            and (not self._control or r.control == self._control)
        ]
        exact = next((r for r in ours if allows_same(r, self._threshold)), None)
        if exact is not None:
            return exact if self._is_decisive(exact) else None
        passed = (r for r in ours if rejudge(r, self._threshold) is Verdict.PASS)
        return next(filter(self._is_decisive, passed), None)

    def _is_decisive(self, known: GateReport) -> bool:
        """Return whether a verdict holds for this pod. A Pass of batch 1 does where it has traffic already or is
        restored."""
        if known.verdict is Verdict.FAIL or known.admits_at(self._batch):
            return True
        return known.admits_at(1) and (self._is_admitted or self._is_restored)

    async def _run_short_check(self) -> bool:
        """Return whether another pod of a passed revision answers the same, by a stratified sample at the batch.

        The sample's own limit says how many items it may lose, and the gate's limit of flips how many first answers
        of the other items may be wrong.
        """
        sample = self._draw_sample()
        allowed = short_check_limit(len(self._items), self._threshold, len(sample))
        rules = Rules.for_sample(self._batch)
        run = GateRun(sample, rules, GateRecord(self._context.seed()))
        log("info", "Short check started", items=len(sample), allowed=allowed)
        judgement = await self._keeper.drive(
            run, self._choose_pace(), lambda: self._report_progress(run, is_short_check=True)
        )
        figures = judgement.figures
        lost, flips, flips_allowed = len(figures.lost_items), figures.flips, figures.flips_allowed
        is_passed = judgement.verdict is Verdict.PASS and lost <= allowed
        counts = {"lost": lost, "allowed": allowed, "flips": flips, "flips_allowed": flips_allowed}
        log("info", "Short check ended", passed=is_passed, items=len(sample), **counts)
        return is_passed

    def _draw_sample(self) -> list[GateItem]:
        """Draw SHORT_CHECK_ITEMS items at random, each stratum by its share."""
        chance = random.Random(self._context.seed())  # noqa: S311 - a sample, not a secret
        strata: dict[str, list[GateItem]] = {}
        for item in self._suite.items:
            strata.setdefault(item.stratum, []).append(GateItem(item.id, item.stratum))
        size = min(SHORT_CHECK_ITEMS, len(self._items))
        sample: list[GateItem] = []
        for members in strata.values():
            sample += chance.sample(members, min(len(members), -(-size * len(members) // len(self._items))))
        return sample

    async def _run_first_gate(self) -> GateReport:
        """Run the gate: at the production batch before traffic; one by one during traffic.

        No detector watches before it has decided, so it is as fast as a count, but gives way to requests.
        """
        beside_traffic = self._is_admitted and not self._control
        rules = Rules(self._threshold, batch=1 if beside_traffic else self._batch)
        return await self._run_gate(rules, self._choose_pace(), self._report_progress)

    async def _run_gate(
        self,
        rules: Rules,
        pace: Callable[[], Awaitable[None]],
        progress: Callable[[GateRun], None],
        acknowledged: str = "",
    ) -> GateReport:
        """Run one whole gate, or the rest of an interrupted one; each of its full sweeps is recorded."""
        last_sweeps: int | None = None

        def on_score(run: GateRun) -> None:
            nonlocal last_sweeps
            progress(run)
            before, last_sweeps = last_sweeps, run.stage.full_sweeps
            if before is not None and last_sweeps > before:
                self._session_store.record_sweep(
                    {i: s is Score.CORRECT for i, s in run.sweep_scores(last_sweeps - 1).items()}
                )

        return await self._keeper.run_gate(rules, pace, on_score, control=self._control, acknowledged=acknowledged)

    def _choose_pace(self) -> Callable[[], Awaitable[None]]:
        return self._pace.wait if self._is_admitted and not self._control else _skip_wait

    # -- Watching ----------------------------------------------------------------------------------------------------

    async def _watch(self, gate: GateReport | None) -> None:
        """Sweep for ever, and report the standing. Without a gate's report the gate is repeated first."""
        watcher = SubjectWatch(
            self._context,
            self._session_store,
            self._prompter,
            self._subject,
            self._build_gate_items(),
            self._settings,
            recover=self._keeper.recover,
            rerun_gate=self._rerun_gate,
        )
        await watcher.run(gate, lambda: self._is_admitted, lambda: self._announce(watcher.gate, watcher.state))

    async def _rerun_gate(self, pace: ProbePace, acknowledged: str) -> GateReport:
        """Run the gate's sweeps again during traffic; what is reported holds meanwhile."""
        return await self._run_gate(Rules(self._threshold, batch=1), pace.wait, lambda run: None, acknowledged)

    def _announce(self, gate: GateReport | None, state: WatchState | None) -> None:
        """Report the gate's verdict, unless the watch has found that it no longer holds.

        Without a gate's report there is no Pass; a count below the threshold is a Fail all the same.
        """
        verdict, reason = (gate.verdict, gate.reason) if gate else (Verdict.PASS, "GateRunning")
        message = gate.message if gate else f"the gate is repeated, because the threshold is now {self._threshold:g}"
        watch_report = build_watch_report(state, self._build_gate_items(), self._threshold) if state else None
        if verdict is Verdict.PASS and state and watch_report and watch_report.standing in REASONS:
            reason, message = (
                REASONS[watch_report.standing],
                describe_watch(state, self._build_gate_items(), self._threshold),
            )
            if watch_report.standing is WatchStanding.BELOW_THRESHOLD:
                verdict = Verdict.FAIL
        if gate is None and verdict is Verdict.PASS:
            verdict = Verdict.NO_DATA
        self._context.exposition.set_progress(1 if gate else 0)
        self._context.publisher.update(
            phase=Phase.WATCHING if gate or verdict is Verdict.FAIL else Phase.GATING,
            verdict=verdict,
            reason=reason,
            message=message,
            gate=gate,
            progress=None,
            admitted=self._is_admitted,
            watch=watch_report,
            acknowledged=state.acknowledged if state else None,
        )

    def _report_inconclusive(self, report: GateReport) -> None:
        """Report that there is no verdict and that the gate is repeated, with its figures."""
        self._context.publisher.update(
            phase=Phase.GATING,
            verdict=report.verdict,
            reason=report.reason,
            message=report.message,
            gate=report,
            progress=None,
        )

    # -- Small things ------------------------------------------------------------------------------------------------

    def _reset_report(self) -> None:
        """Reset the report: nothing is known of this subject yet."""
        self._context.exposition.set_suite(self._suite, self._threshold)
        self._context.exposition.set_progress(0)
        self._context.exposition.set_accuracy(self._session_store.last_sweep())
        self._context.publisher.journal = None
        stored = self._context.store.state.watch
        if stored is None or stored.subject != self._subject:
            self._context.exposition.set_evidence(0, 0)
        self._context.publisher.update(
            phase=Phase.WAITING_FOR_MODEL,
            verdict=Verdict.NO_DATA,
            reason="WaitingForModel",
            message="the model is not ready yet",
            suite=self._suite.header.name,
            suite_hash=self._suite.header.sha256,
            admitted=self._is_admitted,
            gate=None,
            progress=None,
            sweep=self._session_store.last_sweep(),
            watch=None,
            threshold=self._threshold,
            acknowledged=None,
        )

    def _report_progress(self, run: GateRun, *, is_short_check: bool = False) -> None:
        """Report how far the gate, or the short check, is."""
        self._context.exposition.set_progress(run.probe_count / run.probe_total)
        text = f"short check: {run.progress_text}" if is_short_check else run.progress_text
        self._context.publisher.update(
            phase=Phase.GATING,
            verdict=Verdict.NO_DATA,
            reason="GateRunning",
            message=text,
            progress=GateProgress(run.probe_count, run.probe_total, text, is_short_check),
        )

    @property
    def _is_admitted(self) -> bool:
        return is_admitted(self._context, self._subject.identity)

    @property
    def _is_watched_unjudged(self) -> bool:
        """Whether this pod's watch is stored, and no verdict that is known decides under the threshold."""
        stored = self._session_store.state.watch
        is_watched = self._is_admitted and not self._control and stored is not None and stored.subject == self._subject
        return is_watched and self._find_known_report() is None

    @property
    def _is_restored(self) -> bool:
        """Whether the operator admits a pod of this revision again: it passed, and nothing else can serve."""
        return self._settings().restored == self._subject.identity

    def _admit(self, verdict: Verdict) -> None:
        """Write the token, once."""
        admit(self._context, self._subject.identity, self._gate, verdict, self._subject.suite_hash)

    def _build_gate_items(self) -> Sequence[GateItem]:
        return [GateItem(item.id, item.stratum) for item in self._suite.items]


async def _skip_wait() -> None:
    """Return at once: there is no traffic yet to yield to."""
