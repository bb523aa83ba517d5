"""The watch over an admitted pod: sweeps for ever, detectors that hear them, a count after an alarm.

Called by the episode once the gate is decided. `r1plus_policies.watch.memory` says what follows from what; here is
asking, storing and telling.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from r1plus_contract.settings import MonitorSettings
from r1plus_contract.verdict import GateReport, Standing, Verdict
from r1plus_monitoring.logs import log
from r1plus_monitoring.probe.probes import OUTCOMES, Pace, Prompter, Result
from r1plus_monitoring.probe.sweeps import sweep
from r1plus_monitoring.session.store import Ledger, Parts
from r1plus_monitoring.store.journal import Journal
from r1plus_monitoring.store.state import HalfSweep
from r1plus_policies.detector.budget import Budget
from r1plus_policies.detector.detector import Detector, DetectorKey, kept
from r1plus_policies.gate.verdict import GateItem, Score, Subject, allowed_lost
from r1plus_policies.watch.confirmation import answered, next_item
from r1plus_policies.watch.memory import WatchState, born, confirmed, heard, recount, standing, told

RAISED_PER_MINUTE: Final = 600
"""Probes a minute while counting, one at a time: a count takes a minute or two, and is worth it."""

Regate = Callable[[Pace, str], Awaitable[GateReport]]
"""(how fast, the acknowledgement that asks for it)."""


class Watcher:
    """One subject's watch."""

    def __init__(
        self,
        parts: Parts,
        ledger: Ledger,
        prompter: Prompter,
        subject: Subject,
        items: Sequence[GateItem],
        settings: Callable[[], MonitorSettings],
        *,
        recover: Callable[[], Awaitable[None]],
        regate: Regate,
    ) -> None:
        """`recover` returns once the model is ready again; `regate` runs the gate's sweeps anew."""
        self._parts = parts
        self._ledger = ledger
        self._prompter = prompter
        self._subject = subject
        self._items = items
        self._settings = settings
        self._threshold = settings().threshold
        self._recover = recover
        self._regate = regate
        self._pace = Pace(lambda: settings().probes_per_minute, prompter.busy)
        self._raised = Pace(lambda: max(RAISED_PER_MINUTE, settings().probes_per_minute))
        self._regate_at = float("-inf")
        self._recounted = -1
        self._told: object = None
        self._state: WatchState | None = None

    async def run(self, gate: GateReport, admitted: Callable[[], bool], announce: Callable[[], None]) -> None:
        """Watch while admitted. `announce` is called whenever gate or watch say something else."""
        self.gate, self._announce = gate, announce
        self._journal = Journal(self._parts.state_dir, self._subject, lambda: secrets.token_hex(8))
        self._parts.bulletin.journal = self._journal
        self._resume(gate)
        self._tell()
        while admitted():
            await self._attend()
            await self._sweep()

    # -- What was heard ----------------------------------------------------------------------------------------------

    def _resume(self, gate: GateReport) -> None:
        """The stored watch, if it is ours, brought up to what the journal holds; else a new one."""
        stored = self._ledger.state.watch
        state = stored if stored and stored.subject == self._subject else self._born(gate)
        key, alarm_at = self._terms()
        state = replace(state, accuracy=kept(state.accuracy, key, alarm_at), errors=kept(state.errors, key, alarm_at))
        if state.epoch != self._journal.head.epoch:
            state = replace(state, epoch=self._journal.head.epoch, sequence=0, acknowledged_after=0)
        for outcome in self._journal.after(state.sequence):
            state = heard(state, outcome, self._ledger.now(), self._parts.seed())
        self._keep(state)

    def _born(self, gate: GateReport) -> WatchState:
        key, alarm_at = self._terms()
        fresh = Detector(key, alarm_at)
        return born(self._subject, fresh, fresh, gate, self._settings().acknowledged)

    def _terms(self) -> tuple[DetectorKey, float]:
        settings = self._settings()
        revision = self._parts.bulletin.report.revision
        key = DetectorKey(self._parts.pod, revision, self._subject.suite_hash, settings.steadiness)
        return key, Budget(settings.probes_per_minute, settings.most_pods, settings.false_alarm_days).pod

    def _hear(self, item: str, result: Result) -> None:
        state = self.state
        outcome = OUTCOMES.get(result)
        if outcome is None or state.unwatched is None or item in state.unwatched:
            return
        numbered = self._journal.append(item, outcome)
        after = heard(state, numbered, self._ledger.now(), self._parts.seed())
        self._state = after
        if after.counting is not state.counting:
            log("warning", "Detector alarmed", accuracy=after.accuracy.alarmed, errors=after.errors.alarmed)
            self._keep(after)
        self._tell()

    # -- Sweeps ------------------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """One more sweep, or the rest of one that a restart cut off."""
        found = self._ledger.state.sweep
        half = found if found and found.subject == self._subject else None
        seed = half.seed if half else self._parts.seed()
        scores = {item: score == Score.CORRECT for item, score in (half.scores if half else {}).items()}

        async def scored(item: str, result: Result) -> None:
            self._hear(item, result)
            if self._ledger.due():
                stored = {i: (Score.CORRECT if right else Score.FAILED).value for i, right in scores.items()}
                self._ledger.save(sweep=HalfSweep(self._subject, seed, stored), watch=self._state)
            self._escalate(seed, scores)
            await self._attend()

        await sweep(
            [item.id for item in self._items],
            seed,
            scores,
            ask=self._prompter.ask,
            pace=self._pace,
            until_ready=self._recover,
            scored=scored,
        )
        self._ledger.save(sweep=None)
        self._ledger.swept(scores)
        if self.state.unwatched is None:
            # The gate did not count to its end: this sweep tells what was lost from the start.
            self._keep(replace(self.state, unwatched=tuple(sorted(i for i, right in scores.items() if not right))))
        self._tell()

    def _escalate(self, seed: int, scores: dict[str, bool]) -> None:
        """After an alarm the detectors have said their word: a sweep that loses too much calls for another count."""
        wrong = len(scores) - sum(scores.values())
        counted = self.state.confirmed is not None and self._recounted != seed
        if not counted or wrong <= allowed_lost(len(self._items), self._threshold):
            return
        if standing(self.state, self._items, self._threshold) is not Standing.BELOW_THRESHOLD:
            self._recounted = seed
            self._keep(recount(self.state, self._parts.seed()))

    # -- After an alarm ----------------------------------------------------------------------------------------------

    async def _attend(self) -> None:
        """What comes before the next probe: an acknowledgement, a count."""
        if self._settings().acknowledged != self.state.acknowledged and time.monotonic() >= self._regate_at:
            await self._acknowledge(self._settings().acknowledged)
        if self.state.counting is not None:
            await self._count()

    async def _count(self) -> None:
        """The confirming sweep, or the rest of one that a restart cut off."""
        await self._parts.doubt.settled()
        log("info", "Confirming sweep started", items=len(self._items))
        p0 = self.state.errors.key.p0
        while self.state.counting and (item := next_item(self._items, self.state.counting, p0)) is not None:
            await self._raised.wait()
            result = await self._prompter.ask(item)
            if result is Result.TRANSPORT:
                await self._recover()
                continue
            # A scorer that failed has said nothing: the item stays without an answer.
            outcome = OUTCOMES.get(result, OUTCOMES[Result.SERVER_ERROR])
            self._state = replace(self.state, counting=answered(self.state.counting, item, outcome))
            if self._ledger.due():
                self._keep(self.state)
        self._keep(confirmed(self.state, self._items, self._threshold, self._ledger.now()))
        found = standing(self.state, self._items, self._threshold)
        log("warning", "Confirming sweep ended", standing=found)
        self._tell()

    async def _acknowledge(self, token: str) -> None:
        """Somebody says that it is mended: the gate's sweeps decide, and only a Pass ends the alarm."""
        log("info", "Alarm acknowledged, the gate's sweeps are run anew", token=token)
        found = await self._regate(self._raised, token)
        if found.verdict is Verdict.INCONCLUSIVE:
            self._regate_at = time.monotonic() + self._parts.retry_after
            return
        state = replace(self.state, acknowledged=token, acknowledged_after=self.state.sequence)
        if found.verdict is Verdict.FAIL and state.alarmed_at:
            state = recount(state, self._parts.seed())
        if found.verdict is Verdict.PASS:
            state = replace(
                self._born(found),
                epoch=state.epoch,
                sequence=state.sequence,
                acknowledged=token,
                acknowledged_after=state.acknowledged_after,
            )
        self.gate = found
        self._keep(state)
        self._tell()

    # -- Small things ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> WatchState:
        """As it is now; there is one as soon as `announce` is called."""
        assert self._state is not None
        return self._state

    def _keep(self, state: WatchState) -> None:
        self._state = state
        self._journal.acknowledged, self._journal.acknowledged_after = state.acknowledged, state.acknowledged_after
        self._ledger.save(watch=state)

    def _tell(self) -> None:
        """Metrics at every probe; the report where its meaning changes."""
        state = self.state
        ratios = state.accuracy.ratio, state.errors.ratio
        self._parts.exposition.evidence(*ratios)
        # Counting is work: only where something differs that the report tells of.
        alarms = state.alarmed_at, state.errors.alarmed, state.confirmed
        meaning = (*map(told, ratios), *alarms, state.unwatched, state.acknowledged)
        if (meaning, self.gate) != self._told:
            self._told = (meaning, self.gate)
            self._announce()
