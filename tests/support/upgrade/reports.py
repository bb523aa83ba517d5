"""What a monitor of this version says of a revision: verdicts by the gate's own judge, figures by the sweeps' own count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from r1plus_contract.jsonable import to_jsonable
from r1plus_contract.monitor.outcomes import OutcomePage, ProbeOutcome, ProbeResult
from r1plus_contract.suites.suite import Item, Suite
from r1plus_contract.verdict import (
    GateProgress,
    GateReport,
    MonitorReport,
    Phase,
    Shadow,
    StratumFigures,
    Verdict,
    Watch,
    WatchStanding,
)
from r1plus_monitoring.probe.sweeps import compute_figures
from r1plus_operator.plan.revision.record import Revision
from r1plus_policies.gate.verdict import (
    GateItem,
    GateStage,
    ItemScores,
    Rules,
    Score,
    VerdictSubject,
    build_report,
    judge_gate,
    max_lost_in_stratum,
)

Json = dict[str, Any]
FULL_SWEEPS = 3


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Monitored:
    """A revision and the settings of its monitors: all that their reports are about."""

    revision: Revision
    suite: Suite
    settings: Json
    """`settings.json` of the deployment."""
    config_digest: str
    """Of its ConfigMap, as its monitors mount it."""

    def gate(self, *, lost: int = 0, batch: int | None = None, control: str = "", acknowledged: str = "") -> GateReport:
        """Return a whole gate that lost the first `lost` items, at the serving batch unless another is given."""
        header, threshold = self.suite.header, self.settings["threshold"]
        rules = Rules(threshold, batch or self.revision.batch)
        scores = [_scores(item, Score.FAILED if place < lost else Score.CORRECT) for place, item in self._numbered]
        judgement = judge_gate(scores, rules, GateStage(FULL_SWEEPS, single=True))
        assert judgement is not None
        about = VerdictSubject(self.revision.identity_digest, header.name, header.sha256, header.scorer_version)
        decided = build_report(judgement, rules, about, seconds=41.7, decided_at=_now())
        return replace(decided, control=control, acknowledged=acknowledged)

    def gating(self, percent: int) -> Json:
        """Return the report of a gate that is so far."""
        total = (FULL_SWEEPS + 1) * len(self.suite.items)
        text = f"sweep 2 of {FULL_SWEEPS} at batch {self.revision.batch}: {percent} of 100"
        progress = GateProgress(total * percent // 100, total, text)
        return self._report(Phase.GATING, Verdict.NO_DATA, "GateRunning", text, progress=progress)

    def watching(self, gate: GateReport, *, is_admitted: bool | None = None, shadow: Shadow | None = None) -> Json:
        """Return the report after a gate, when nothing has changed since."""
        passed = gate.verdict is Verdict.PASS
        lost = {item.id for item in self.suite.items[: gate.lost]}
        sweep = compute_figures({item.id: item.id not in lost for item in self.suite.items}, _now())
        return self._report(
            Phase.WATCHING,
            gate.verdict,
            gate.reason,
            gate.message,
            gate=gate,
            admitted=passed if is_admitted is None else is_admitted,
            watch=Watch(WatchStanding.STEADY, len(self.suite.items) - gate.lost),
            sweep=sweep,
            acknowledged=self.settings["acknowledged"],
            shadow=shadow,
        )

    def fallen(self, gate: GateReport, lost: int) -> Json:
        """Return the report after a count that found the first `lost` items lost since the gate."""
        items, now = self.suite.items, _now()
        gone = [item.id for item in items[:lost]]
        count = compute_figures({item.id: item.id not in gone for item in items}, now)
        sizes = self.suite.strata()
        by_stratum = {name: sum(item.stratum == name for item in items[:lost]) for name in sizes}
        strata = tuple(
            StratumFigures(name, sizes[name], n, max_lost_in_stratum(sizes[name], self.settings["threshold"]))
            for name, n in by_stratum.items()
            if n
        )
        text = f"{lost} items lost since the gate; {lost} of {len(items)} lost in all, {gate.allowed} allowed"
        return self._report(
            Phase.WATCHING,
            Verdict.FAIL,
            "BelowThreshold",
            text,
            gate=gate,
            admitted=True,
            watch=Watch(WatchStanding.BELOW_THRESHOLD, len(items), 1.0, 0.0, now, count, tuple(gone), strata),
            sweep=count,
            acknowledged=self.settings["acknowledged"],
        )

    def outcomes(self, results: Sequence[ProbeResult]) -> Json:
        """Return the whole page of `/outcomes`: these results, item after item."""
        items, header = self.suite.items, self.suite.header
        outcomes = tuple(ProbeOutcome(n, items[n % len(items)].id, result) for n, result in enumerate(results, 1))
        page = OutcomePage(
            epoch="7c1f",
            revision=self.revision.name,
            identity=self.revision.identity_digest,
            suite_hash=header.sha256,
            scorer_version=header.scorer_version,
            watched=len(items),
            oldest=1,
            newest=len(outcomes),
            outcomes=outcomes,
            acknowledged=self.settings["acknowledged"],
        )
        return dict(to_jsonable(page))

    @property
    def _numbered(self) -> list[tuple[int, Item]]:
        return list(enumerate(self.suite.items))

    def _report(self, phase: Phase, verdict: Verdict, reason: str, message: str, **more: Any) -> Json:
        header = self.suite.header
        report = MonitorReport(
            self.revision.name,
            self.revision.identity_digest,
            phase,
            verdict,
            reason,
            message,
            header.name,
            header.sha256,
            sequence=int(datetime.now(UTC).timestamp()),
            threshold=self.settings["threshold"],
            ran_under=self.config_digest if more.get("gate") else "",
            user_requests=0,
            **more,
        )
        return dict(to_jsonable(report))


def _scores(item: Item, score: Score) -> ItemScores:
    return ItemScores(GateItem(item.id, item.stratum), (score,) * FULL_SWEEPS, (score,))
