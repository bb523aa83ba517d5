"""From "the model answers" to watching: what is done for one identity, suite, threshold and gate.

The prober starts an episode whenever one of these changes and cancels the one before. The order is the product's
promise: in `Enforce` nothing is admitted before a Pass; in `Observe` the pod serves first and is judged beside its
traffic; a token that stands is never taken back.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from r1plus_contract.admission import Admission, read_token, write_token
from r1plus_contract.identity import ServingIdentity
from r1plus_contract.settings import KnownVerdicts, MonitorSettings
from r1plus_contract.suite import Suite
from r1plus_contract.verdict import Gate, GateReport, Phase, Progress, Standing, Verdict
from r1plus_monitoring.logs import log, stamp
from r1plus_monitoring.probe.probes import Pace, Prompter
from r1plus_monitoring.session.gatekeeper import Gatekeeper
from r1plus_monitoring.session.store import Ledger, Parts
from r1plus_monitoring.session.watch import Watcher
from r1plus_policies.gate.run import GateRecord, GateRun
from r1plus_policies.gate.verdict import (
    SHORT_CHECK_ITEMS,
    GateItem,
    Rules,
    Score,
    Subject,
    rejudge,
    short_check_allowed,
)
from r1plus_policies.watch.memory import WatchState, watch
from r1plus_policies.watch.memory import message as told

REASONS: Final = {
    Standing.CONFIRMING: "AccuracyConfirming",
    Standing.CHANGED: "AccuracyChanged",
    Standing.BELOW_THRESHOLD: "AccuracyBelowThreshold",
    Standing.ERRORS: "ServerErrors",
}
"""Of a report whose gate passed, by what the watch says; BELOW_THRESHOLD alone is a Fail."""


def admitted(parts: Parts, identity: str) -> bool:
    """Whether a token for this identity stands."""
    token = read_token(parts.admission_dir)
    return token is not None and token.identity == identity


def admit(parts: Parts, identity: str, gate: Gate, verdict: Verdict, suite_hash: str) -> None:
    """Write the token, once: what stands is left alone, so it tells why the pod was let in first."""
    if not admitted(parts, identity):
        write_token(
            parts.admission_dir,
            Admission(
                identity=identity,
                gate=gate,
                verdict=verdict,
                suite_hash=suite_hash,
                written_at=stamp(parts.clock()),
            ),
        )
        log("info", "Pod admitted", gate=gate, verdict=verdict)
    parts.bulletin.update(admitted=True)


class Episode:
    """One subject, from first contact on."""

    def __init__(
        self,
        parts: Parts,
        prompter: Prompter,
        identity: ServingIdentity,
        suite: Suite,
        settings: Callable[[], MonitorSettings],
        verdicts: KnownVerdicts,
    ) -> None:
        """`settings` returns the newest ones: the pace may change while an episode lives."""
        self._parts = parts
        self._prompter = prompter
        self._suite = suite
        self._settings = settings
        order = settings().control
        self._control = order.token if order and order.identity == identity.digest() else ""
        """Traffic may go back to this revision if it passes now: an old verdict is none, and no request has to wait."""
        self._gate = Gate.ENFORCE if self._control else settings().gate
        self._threshold = settings().threshold
        self._verdicts = verdicts
        self._batch = identity.batch
        self._subject = Subject(identity.digest(), suite.header.name, suite.header.sha256, suite.header.scorer_version)
        self._items = {item.id: item for item in suite.items}
        self._pace = Pace(lambda: settings().probes_per_minute, prompter.busy)
        self._ledger = Ledger(parts, self._subject)
        self._keeper = Gatekeeper(parts, self._ledger, prompter, self._subject, self._gate_items(), "gate")

    async def run(self) -> None:
        """Never returns: it ends when the prober cancels it."""
        self._begin()
        await self._prompter.until_ready(self._parts.poll_interval)
        if self._gate is Gate.OBSERVE:
            self._admit(Verdict.NO_DATA)
        verdict = await self._verdict()
        if verdict.verdict is Verdict.PASS:
            self._admit(Verdict.PASS)
        self._announce(verdict, None)
        if self._admitted:
            await self._watched(verdict)
        # Refused: nothing is served here, so there is nothing to watch.
        await asyncio.Event().wait()

    # -- Verdict -----------------------------------------------------------------------------------------------------

    async def _verdict(self) -> GateReport:
        known = self._known()
        if known is not None and (known.verdict is Verdict.FAIL or self._admitted):
            return known
        if known is not None:
            if await self._short_check():
                return known
            if self._restored:
                self._admit(Verdict.PASS)
        pause = self._parts.retry_after
        while (found := await self._first_gated()).verdict is Verdict.INCONCLUSIVE:
            self._inconclusive(found)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._parts.retry_after * 20)
            await self._prompter.until_ready(self._parts.poll_interval)
        return found

    def _known(self) -> GateReport | None:
        """A verdict on exactly this: from this pod, or from another pod of the revision. Nobody retries until Pass.

        The newest one under this threshold replaced what was found before it, whether or not it lets this pod in: after
        an acknowledgement that is a Pass of batch 1, and the Fail that was acknowledged says nothing any more.
        """
        reports = (*self._parts.store.state.reports, *self._verdicts.reports)
        ours = [
            r
            for r in reports
            if Subject(r.identity, r.suite, r.suite_hash, r.scorer_version) == self._subject
            and (not self._control or r.control == self._control)
        ]
        exact = next((r for r in ours if r.threshold == self._threshold), None)
        if exact is not None:
            return exact if self._decides(exact) else None
        passed = (r for r in ours if rejudge(r, self._threshold) is Verdict.PASS)
        return next(filter(self._decides, passed), None)

    def _decides(self, known: GateReport) -> bool:
        """Whether a verdict holds for this pod: a Pass of batch 1 does where it is in traffic already or restored."""
        if known.verdict is Verdict.FAIL or known.admits_at(self._batch):
            return True
        return known.admits_at(1) and (self._admitted or self._restored)

    async def _short_check(self) -> bool:
        """Whether a further pod of a revision that passed answers alike, by a stratified sample at the batch.

        A gate of two sweeps over the sample asks; how many it may lose is the sample's own limit, so its threshold is
        next to nothing and only the count matters.
        """
        sample = self._sample()
        allowed = short_check_allowed(len(self._items), self._threshold, len(sample))
        rules = Rules(threshold=1e-9, batch=self._batch, full_sweeps=2, single_sweep=False, flip_rate=0.5)
        run = GateRun(sample, rules, GateRecord(self._parts.seed()))
        log("info", "Short check started", items=len(sample), allowed=allowed)
        found = await self._keeper.drive(run, self._pacing(), lambda: self._progress(run, "short check: "))
        lost = len(found.figures.lost)
        passed = found.verdict is Verdict.PASS and lost <= allowed
        log("info", "Short check ended", passed=passed, lost=lost, items=len(sample), allowed=allowed)
        return passed

    def _sample(self) -> list[GateItem]:
        """SHORT_CHECK_ITEMS items, each stratum by its share, at random."""
        chance = random.Random(self._parts.seed())  # noqa: S311 - a sample, not a secret
        strata: dict[str, list[GateItem]] = {}
        for item in self._suite.items:
            strata.setdefault(item.stratum, []).append(GateItem(item.id, item.stratum))
        wanted = min(SHORT_CHECK_ITEMS, len(self._items))
        sample: list[GateItem] = []
        for members in strata.values():
            sample += chance.sample(members, min(len(members), -(-wanted * len(members) // len(self._items))))
        return sample

    async def _first_gated(self) -> GateReport:
        """At the production batch before traffic; beside it one by one and at the pace that traffic leaves."""
        beside_traffic = self._admitted and not self._control
        rules = Rules(self._threshold, batch=1 if beside_traffic else self._batch)
        return await self._gated(rules, self._pacing(), lambda run: self._progress(run, ""))

    async def _gated(
        self,
        rules: Rules,
        pace: Callable[[], Awaitable[None]],
        progress: Callable[[GateRun], None],
        acknowledged: str = "",
    ) -> GateReport:
        """One whole gate, or the rest of one that a restart cut off; each of its full sweeps is one that counts."""
        shown: int | None = None

        def scored(run: GateRun) -> None:
            nonlocal shown
            progress(run)
            before, shown = shown, run.stage.full_sweeps
            if before is not None and shown > before:
                self._ledger.swept({i: s is Score.CORRECT for i, s in run.sweep_scores(shown - 1).items()})

        return await self._keeper.gated(rules, pace, scored, control=self._control, acknowledged=acknowledged)

    def _pacing(self) -> Callable[[], Awaitable[None]]:
        return self._pace.wait if self._admitted and not self._control else _at_once

    # -- Watching ----------------------------------------------------------------------------------------------------

    async def _watched(self, gate: GateReport) -> None:
        """Sweep for ever, and say what the watch says."""
        watcher = Watcher(
            self._parts,
            self._ledger,
            self._prompter,
            self._subject,
            self._gate_items(),
            self._settings,
            recover=self._keeper.recover,
            regate=self._regated,
        )
        await watcher.run(gate, lambda: self._admitted, lambda: self._announce(watcher.gate, watcher.state))

    async def _regated(self, pace: Pace, acknowledged: str) -> GateReport:
        """The gate's sweeps once more, beside traffic and beside a verdict that stands meanwhile."""
        return await self._gated(Rules(self._threshold, batch=1), pace.wait, lambda run: None, acknowledged)

    def _announce(self, gate: GateReport, state: WatchState | None) -> None:
        """The gate's verdict, unless the watch has found since that it no longer holds."""
        verdict, reason, message = gate.verdict, gate.reason, gate.message
        found = watch(state, self._gate_items(), self._threshold) if state else None
        if verdict is Verdict.PASS and state and found and found.standing in REASONS:
            reason, message = REASONS[found.standing], told(state, self._gate_items(), self._threshold)
            if found.standing is Standing.BELOW_THRESHOLD:
                verdict = Verdict.FAIL
        self._parts.exposition.progress(1)
        self._parts.bulletin.update(
            phase=Phase.WATCHING,
            verdict=verdict,
            reason=reason,
            message=message,
            gate=gate,
            progress=None,
            admitted=self._admitted,
            watch=found,
            acknowledged=state.acknowledged if state else None,
        )

    def _inconclusive(self, found: GateReport) -> None:
        """No verdict: the gate starts anew, and until then its figures are all that is known."""
        self._parts.bulletin.update(
            phase=Phase.GATING,
            verdict=found.verdict,
            reason=found.reason,
            message=found.message,
            gate=found,
            progress=None,
        )

    # -- Small things ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Report of a subject about which nothing is known yet."""
        self._parts.exposition.suite(self._suite, self._threshold)
        self._parts.exposition.progress(0)
        self._parts.exposition.accuracy(self._ledger.last())
        self._parts.bulletin.journal = None
        stored = self._parts.store.state.watch
        if stored is None or stored.subject != self._subject:
            self._parts.exposition.evidence(0, 0)
        self._parts.bulletin.update(
            phase=Phase.WAITING_FOR_MODEL,
            verdict=Verdict.NO_DATA,
            reason="WaitingForModel",
            message="the model does not answer readiness yet",
            suite=self._suite.header.name,
            suite_hash=self._suite.header.sha256,
            admitted=self._admitted,
            gate=None,
            progress=None,
            sweep=self._ledger.last(),
            watch=None,
            threshold=self._threshold,
            acknowledged=None,
        )

    def _progress(self, run: GateRun, prefix: str) -> None:
        """Where the gate is, for whoever waits."""
        self._parts.exposition.progress(run.done / run.total)
        text = prefix + run.text
        self._parts.bulletin.update(
            phase=Phase.GATING,
            verdict=Verdict.NO_DATA,
            reason="GateRunning",
            message=text,
            progress=Progress(done=run.done, total=run.total, text=text),
        )

    @property
    def _admitted(self) -> bool:
        return admitted(self._parts, self._subject.identity)

    @property
    def _restored(self) -> bool:
        """Whether the operator lets a pod of this revision in again: it passed, and nothing can serve beside it."""
        return self._settings().restored == self._subject.identity

    def _admit(self, verdict: Verdict) -> None:
        """Write the token, once: what stands is left alone."""
        admit(self._parts, self._subject.identity, self._gate, verdict, self._subject.suite_hash)

    def _gate_items(self) -> Sequence[GateItem]:
        return [GateItem(item.id, item.stratum) for item in self._suite.items]


async def _at_once() -> None:
    """No traffic yet: nothing to be polite to."""
