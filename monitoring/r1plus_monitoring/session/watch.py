"""The watch over an admitted pod: endless sweeps, detectors that observe them, a confirming sweep after an alarm.

Called by the evaluation session once the gate is decided. `r1plus_policies.watch.memory` decides; this module asks,
stores and reports.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from r1plus_contract.monitor.settings import MonitorSettings
from r1plus_contract.verdict import GateReport, Verdict, WatchStanding
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.probes import OUTCOMES, ProbePace, Prompter, Result
from r1plus_monitoring.probe.sweeps import sweep
from r1plus_monitoring.session.store import MonitorContext, SessionStore
from r1plus_monitoring.store.journal import Journal
from r1plus_monitoring.store.state import PartialSweep
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import Detector, DetectorKey, restore_detector
from r1plus_policies.gate.verdict import GateItem, Score, VerdictSubject, max_lost_items
from r1plus_policies.watch.confirmation import next_item, record_answer
from r1plus_policies.watch.memory import (
    WatchState,
    derive_standing,
    new_watch,
    observe_outcome,
    record_confirmation,
    recount,
    round_evidence,
)

RAISED_PER_MINUTE: Final = 600
"""Probes a minute in a confirming sweep, one at a time: it takes a minute or two."""

RerunGate = Callable[[ProbePace, str], Awaitable[GateReport]]
"""Takes the pace, and the acknowledgement that requests it."""


class SubjectWatch:
    """The watch of one subject."""

    def __init__(
        self,
        context: MonitorContext,
        session_store: SessionStore,
        prompter: Prompter,
        subject: VerdictSubject,
        items: Sequence[GateItem],
        settings: Callable[[], MonitorSettings],
        *,
        recover: Callable[[], Awaitable[None]],
        rerun_gate: RerunGate,
    ) -> None:
        """`recover` returns once the model is ready again; `rerun_gate` runs the gate's sweeps again."""
        self._context = context
        self._session_store = session_store
        self._prompter = prompter
        self._subject = subject
        self._items = items
        self._settings = settings
        self._threshold = settings().threshold
        self._recover = recover
        self._rerun_gate = rerun_gate
        self._pace = ProbePace(
            lambda: settings().probes_per_minute,
            prompter.is_busy,
            clock=context.monotonic,
            look_interval=context.poll_interval,
        )
        self._fast_pace = ProbePace(
            lambda: max(RAISED_PER_MINUTE, settings().probes_per_minute), clock=context.monotonic
        )
        self._rerun_gate_at = float("-inf")
        self._recounted_seed = -1
        self._last_published: object = None
        self._state: WatchState | None = None

    async def run(self, gate: GateReport | None, is_admitted: Callable[[], bool], announce: Callable[[], None]) -> None:
        """Watch while admitted. `announce` is called whenever the meaning of gate or watch changes.

        `gate` is None where a watch is stored and no verdict holds under the threshold: then the gate is repeated.
        """
        self.gate, self._announce = gate, announce
        self._journal = Journal(self._context.state_dir, self._subject, lambda: secrets.token_hex(8))
        self._context.publisher.journal = self._journal
        self._resume(gate)
        self._publish()
        while is_admitted():
            await self._handle_requests()
            await self._run_sweep()

    # -- Observations ------------------------------------------------------------------------------------------------

    def _resume(self, gate: GateReport | None) -> None:
        """Load the stored watch of this subject and apply what the journal has since; otherwise start a new one."""
        state = self._session_store.state.watch
        if state is None or state.subject != self._subject:
            assert gate is not None
            state = self._new_watch(gate)
        key, alarm_at = self._build_detector_key()
        state = replace(
            state,
            accuracy=restore_detector(state.accuracy, key, alarm_at),
            errors=restore_detector(state.errors, key, alarm_at),
        )
        if state.epoch != self._journal.header.epoch:
            state = replace(state, epoch=self._journal.header.epoch, sequence=0, acknowledged_after=0)
        for outcome in self._journal.outcomes_after(state.sequence):
            state = observe_outcome(state, outcome, self._session_store.format_now(), self._context.seed())
        self._store_state(state)

    def _new_watch(self, gate: GateReport) -> WatchState:
        key, alarm_at = self._build_detector_key()
        detector = Detector(key, alarm_at)
        return new_watch(self._subject, detector, detector, gate, self._settings().acknowledged)

    def _build_detector_key(self) -> tuple[DetectorKey, float]:
        settings = self._settings()
        revision = self._context.publisher.report.revision
        key = DetectorKey(self._context.pod, revision, self._subject.suite_hash, settings.steadiness)
        return key, Budget(settings.probes_per_minute, settings.most_pods, settings.false_alarm_days).pod

    def _observe_result(self, item: str, result: Result) -> None:
        state = self.state
        outcome = OUTCOMES.get(result)
        if outcome is None or state.unwatched is None or item in state.unwatched:
            return
        numbered = self._journal.append(item, outcome)
        after = observe_outcome(state, numbered, self._session_store.format_now(), self._context.seed())
        self._state = after
        if after.counting is not state.counting:
            log("warning", "Detector alarmed", accuracy=after.accuracy.alarmed, errors=after.errors.alarmed)
            self._store_state(after)
        self._publish()

    # -- Sweeps ------------------------------------------------------------------------------------------------------

    async def _run_sweep(self) -> None:
        """Run one more sweep, or the rest of an interrupted one."""
        stored_sweep = self._session_store.state.sweep
        partial = stored_sweep if stored_sweep and stored_sweep.subject == self._subject else None
        seed = partial.seed if partial else self._context.seed()
        scores = {item: score == Score.CORRECT for item, score in (partial.scores if partial else {}).items()}

        async def on_score(item: str, result: Result) -> None:
            self._observe_result(item, result)
            if self._session_store.should_save():
                stored_scores = {i: (Score.CORRECT if right else Score.FAILED).value for i, right in scores.items()}
                self._session_store.save(sweep=PartialSweep(self._subject, seed, stored_scores), watch=self._state)
            self._escalate(seed, scores)
            await self._handle_requests()

        await sweep(
            [item.id for item in self._items],
            seed,
            scores,
            ask=self._prompter.ask,
            pace=self._pace,
            until_ready=self._recover,
            on_score=on_score,
        )
        self._session_store.save(sweep=None)
        self._session_store.record_sweep(scores)
        if self.state.unwatched is None:
            # The gate stopped early: this sweep shows what was lost from the start.
            self._store_state(
                replace(self.state, unwatched=tuple(sorted(i for i, right in scores.items() if not right)))
            )
        self._publish()

    def _escalate(self, seed: int, scores: dict[str, bool]) -> None:
        """Count again where a sweep after the alarm loses too much; the detectors cannot alarm twice."""
        wrong = len(scores) - sum(scores.values())
        can_recount = self.state.confirmed is not None and self._recounted_seed != seed
        if not can_recount or wrong <= max_lost_items(len(self._items), self._threshold):
            return
        if derive_standing(self.state, self._items, self._threshold) is not WatchStanding.BELOW_THRESHOLD:
            self._recounted_seed = seed
            self._store_state(recount(self.state, self._context.seed()))

    # -- After an alarm ----------------------------------------------------------------------------------------------

    async def _handle_requests(self) -> None:
        """Handle what comes before the next probe: an acknowledgement, a gate under a new threshold, a count."""
        acknowledged, is_due = self._settings().acknowledged, self._context.monotonic() >= self._rerun_gate_at
        if acknowledged != self.state.acknowledged and is_due:
            await self._acknowledge(acknowledged)
        elif self.gate is None and is_due:
            await self._decide_gate()
        if self.state.counting is not None:
            await self._run_confirming_sweep()

    async def _run_confirming_sweep(self) -> None:
        """Run the confirming sweep, or the rest of an interrupted one."""
        await self._context.recheck.wait_until_confirmed()
        log("info", "Confirming sweep started", items=len(self._items))
        p0 = self.state.errors.key.p0
        while self.state.counting and (item := next_item(self._items, self.state.counting, p0)) is not None:
            await self._fast_pace.wait()
            result = await self._prompter.ask(item)
            if result is Result.TRANSPORT:
                await self._recover()
                continue
            # Where the scorer failed, the item stays without an answer.
            outcome = OUTCOMES.get(result, OUTCOMES[Result.SERVER_ERROR])
            self._state = replace(self.state, counting=record_answer(self.state.counting, item, outcome))
            if self._session_store.should_save():
                self._store_state(self.state)
        self._store_state(
            record_confirmation(self.state, self._items, self._threshold, self._session_store.format_now())
        )
        result_standing = derive_standing(self.state, self._items, self._threshold)
        log("warning", "Confirming sweep ended", standing=result_standing)
        self._publish()

    async def _decide_gate(self) -> None:
        """Repeat the gate under another threshold. An alarm remains: only an acknowledgement ends it."""
        gate_report = await self._rerun_gate(self._fast_pace, "")
        if gate_report.verdict is Verdict.INCONCLUSIVE:
            self._rerun_gate_at = self._context.monotonic() + self._context.retry_after
            return
        self.gate = gate_report
        self._publish()

    async def _acknowledge(self, token: str) -> None:
        """Run the gate's sweeps again for an acknowledgement; only a Pass ends the alarm."""
        log("info", "Alarm acknowledged, repeating the sweeps of the gate", token=token)
        gate_report = await self._rerun_gate(self._fast_pace, token)
        if gate_report.verdict is Verdict.INCONCLUSIVE:
            self._rerun_gate_at = self._context.monotonic() + self._context.retry_after
            return
        state = replace(self.state, acknowledged=token, acknowledged_after=self.state.sequence)
        if gate_report.verdict is Verdict.FAIL and state.alarmed_at:
            state = recount(state, self._context.seed())
        if gate_report.verdict is Verdict.PASS:
            state = replace(
                self._new_watch(gate_report),
                epoch=state.epoch,
                sequence=state.sequence,
                acknowledged=token,
                acknowledged_after=state.acknowledged_after,
            )
        self.gate = gate_report
        self._store_state(state)
        self._publish()

    # -- Small things ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> WatchState:
        """The current state; set before `announce` is first called."""
        assert self._state is not None
        return self._state

    def _store_state(self, state: WatchState) -> None:
        self._state = state
        self._journal.acknowledged, self._journal.acknowledged_after = state.acknowledged, state.acknowledged_after
        self._session_store.save(watch=state)

    def _publish(self) -> None:
        """Set metrics at every probe; change the report where its meaning changes."""
        state = self.state
        ratios = state.accuracy.ratio, state.errors.ratio
        self._context.exposition.set_evidence(*ratios)
        # Announcing is expensive: only where the report changes.
        alarms = state.alarmed_at, state.errors.alarmed, state.confirmed
        meaning = (*map(round_evidence, ratios), *alarms, state.unwatched, state.acknowledged)
        if (meaning, self.gate) != self._last_published:
            self._last_published = (meaning, self.gate)
            self._announce()
