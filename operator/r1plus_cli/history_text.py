"""What the registry recorded, told as a person would. Called by `history_verbs`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from r1plus_contract.history import (
    AlarmFact,
    EngineFact,
    Evaluation,
    History,
    RecordedEngine,
    RevisionFact,
    RolloutEvent,
    RolloutFact,
)
from r1plus_contract.plain_text import plain
from r1plus_contract.verdict import Gate, GateReport, Verdict

Row = Sequence[str]
_BAD = {RolloutEvent.CONTROL_FAILED, RolloutEvent.ROLLED_BACK}
_ASKED = {
    "rollback": "rollback asked for",
    "pin": "pinned",
    "unpin": "unpinned",
    "pause": "paused",
    "resume": "resumed",
    "ack": "acknowledged",
    "refresh": "refresh asked for",
}
"""By verb."""
REASONS: Final[Mapping[str, str]] = {
    "BelowThreshold": "accuracy is below the threshold",
    "AlertOnly": "accuracy is below the threshold (onBreach: Alert, so alerts and nothing else)",
    "AccuracyChanged": "answers changed since the gate",
    "Changed": "answers changed since the gate",
    "ServerErrors": "too many questions got no answer",
    "Errors": "too many questions got no answer",
    "SuiteMismatch": "the recorded answers no longer get their recorded scores",
    "OneBadPod": "one pod is bad and leaves traffic",
    "LastThatServes": "one pod is bad and stays in traffic, because it cannot be spared",
    "AlreadyQuarantined": "one pod is bad and stays in traffic, because another is in quarantine",
    "OneNode": "not rolled back, because all bad pods share one node",
    "Pinned": "not rolled back, because traffic is pinned",
    "Paused": "not rolled back, because the deployment is paused",
    "RolloutUnderWay": "not rolled back, because a new revision is being gated",
    "Cooldown": "not rolled back, because that happened within the last hour",
    "AlreadyRolledBack": "not rolled back, because that happened before between these revisions",
    "NoLastGood": "not rolled back, because there is no earlier revision that qualifies",
    "ArtifactGone": "not rolled back, because the earlier revision's engine is gone",
    "PlacementNotAllowed": "not rolled back, because the earlier revision's nodes are not allowed any more",
    "MonitorTooOld": "not rolled back, because the earlier revision's monitor is too old",
    "NoCapacity": "not rolled back yet, because no node has room for the earlier revision",
    "ControlOverdue": "not rolled back, because the earlier revision was not gated in time",
    "NamespaceNotTenant": "not rolled back, because the namespace is no tenant",
    "RollbackTargetAlsoFailed": "not rolled back, because the earlier revision failed as well",
    "BothArmsBad": "not rolled back, because the earlier revision failed as well",  # Recorded by earlier versions.
    "ControlRunning": "the earlier revision is gated before traffic goes back to it",
    "ControlPassed": "the earlier revision passed its gate",
    "RolledBack": "traffic was rolled back",
    "Requested": "somebody asked for it",
}
"""By reason of an alarm or cause of a rollback."""
_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red"}


def show_histories(console: Console, histories: Sequence[History]) -> None:
    """One after the other, the newest deployment of the name first."""
    for history in histories:
        where = f"{history.deployment.namespace}/{history.deployment.name}"
        ended = ", which has ended" if history.ended else ""
        console.print(Text.assemble((plain(where), "bold"), f"  uid {plain(history.deployment.uid)}{ended}"))
        heads = ("REVISION", "NO", "ENGINE", "BATCH", "CONTEXT", "LAST GATE")
        show_rows(console, heads, [_revision(one, history) for one in history.revisions])
        console.print()
        for at, revision, text, style in story(history):
            console.print(Text.assemble((f"{at:<21}", "dim"), f"{plain(revision):<24}", (plain(text), style)))


def _revision(one: RevisionFact, history: History) -> Row:
    reports = [fact.report for fact in history.evaluations if fact.revision == one.name]
    last = f"{reports[-1].verdict.value} {figures(reports[-1])}" if reports else "none yet"
    return one.name, str(one.number), one.engine, str(one.batch), str(one.context), last


def story(history: History) -> list[tuple[str, str, str, str]]:
    """(when, revision, what happened, style), oldest first."""
    engines = {one.name: one.engine for one in history.revisions}
    decided = {fact.report.control: fact.report.decided_at for fact in history.evaluations if fact.report.control}
    told = [(_when(one, decided), one.revision, *_rollout(one, engines)) for one in history.rollouts]
    told += [
        (one.report.decided_at or "-", one.revision, gate(one.report), _COLOURS.get(one.report.verdict, "yellow"))
        for one in history.evaluations
    ]
    told += [(one[0].since or "-", one[0].revision, _alarm(one), "red") for one in _falls(history.alarms)]
    return sorted(told, key=lambda entry: entry[0][:19])


def gate(report: GateReport) -> str:
    """A gate in a line: verdict, figures, suite, where the losses were."""
    lost = [f"{s.name} {s.lost} of {s.items}" for s in report.strata if s.lost]
    where = f"; lost: {', '.join(lost)}" if lost else ""
    wanted = f"at most {report.allowed} lost for {report.threshold:g}"
    what = "gate before the rollback" if report.control else "gate"
    why = "" if report.verdict is Verdict.PASS else f" ({report.reason}: {report.message})"
    return (
        f"{what} {report.verdict.value}: {figures(report)} right at batch {report.batch} on {report.suite},"
        f" {wanted}{where}{why}"
    )


def figures(report: GateReport) -> str:
    """Right of all items."""
    return f"{report.items - report.lost}/{report.items}"


def _rollout(one: RolloutFact, engines: dict[str, str]) -> tuple[str, str]:
    engine = f" with engine {engines[one.revision]}" if one.revision in engines else ""
    why = f": {one.text}" if one.text else ""
    observed = ", because gate: Observe waits for no Pass" if one.cause == Gate.OBSERVE else ""
    text = {
        RolloutEvent.CANDIDATE: f"asked for{engine}",
        RolloutEvent.PROMOTED: f"took traffic{engine}{observed}",
        RolloutEvent.CONTROL_BEGAN: f"a rollback to {one.to} began, because {plain_reason(one.cause)}{why}",
        RolloutEvent.CONTROL_PASSED: f"{one.to} passed the suite again{why}",
        RolloutEvent.CONTROL_FAILED: f"{one.to} failed the suite, too{why}",
        RolloutEvent.ROLLED_BACK: f"traffic went back to {one.to}, because {plain_reason(one.cause)}{why}",
        RolloutEvent.REQUESTED: f"{_ASKED.get(one.cause, one.cause)} by {one.text}",
    }[one.event]
    return text, "red" if one.event in _BAD else ""


def _when(one: RolloutFact, decided: Mapping[str, str]) -> str:
    """A control's outcome is kept under the moment that it began; it came with the gate that bears its token."""
    if one.event in (RolloutEvent.CONTROL_PASSED, RolloutEvent.CONTROL_FAILED):
        return decided.get(f"{one.to}@{one.at:.3f}") or _instant(one.at)
    return _instant(one.at)


def _falls(alarms: Sequence[AlarmFact]) -> list[list[AlarmFact]]:
    """What is told of one fall under several reasons, one after the other, is one entry."""
    found: dict[tuple[str, str, str], list[AlarmFact]] = {}
    for one in alarms:
        found.setdefault((one.revision, one.source, one.since), []).append(one)
    return list(found.values())


def _alarm(fall: Sequence[AlarmFact]) -> str:
    one = fall[0]
    counted = f": {one.before} right at its gate, now {one.now}" if one.now and one.before else ""
    counted = counted or (f": {one.now} right" if one.now else "")
    lost = f"; lost {', '.join(one.lost[:5])}{' ...' if len(one.lost) > 5 else ''}" if one.lost else ""
    source = "" if one.source == "deployment" else f" of {one.source}"
    return f"{', then '.join(plain_reason(each.reason) for each in fall)}{source}{counted}{lost}"


def plain_reason(reason: str) -> str:
    """Return what a reason means; as it is where another version gave it."""
    return REASONS.get(reason, reason)


def show_engines(console: Console, engines: Sequence[RecordedEngine]) -> None:
    """A line for each."""
    heads = ("ENGINE", "VERSION", "TIER", "PRECISION", "BACKEND", "REFERENCE", "GATES PASSED", "SINCE", "SHA256")
    rows = [
        (
            one.engine.name,
            one.engine.version,
            one.engine.tier,
            one.engine.precision,
            one.engine.backend,
            _reference(one.engine),
            f"{one.passed} of {one.evaluations}",
            one.recorded_at,
            one.engine.sha256[:12],
        )
        for one in engines
    ]
    show_rows(console, heads, rows)


def _reference(engine: EngineFact) -> str:
    """On whose word its reference stands."""
    if engine.inherited_from:
        return f"of {engine.inherited_from}"
    return f"claimed by {engine.claimed_by}" if engine.claimed_by else "measured"


def show_evaluations(console: Console, evaluations: Sequence[Evaluation]) -> None:
    """A line for each; with items, what was lost below it."""
    heads = ("DECIDED", "DEPLOYMENT", "REVISION", "ENGINE", "VERDICT", "RIGHT", "THRESHOLD", "BATCH", "SUITE")
    rows = [_evaluation(one) for one in evaluations]
    below = [list(_items(one)) for one in evaluations]
    show_rows(console, heads, rows, below)


def _evaluation(one: Evaluation) -> Row:
    report = one.report
    return (
        report.decided_at or "-",
        f"{one.namespace}/{one.deployment}",
        one.revision,
        one.engine,
        report.verdict.value,
        figures(report),
        f"{report.threshold:g}",
        str(report.batch),
        f"{report.suite} {report.suite_hash[:12]}",
    )


def _items(one: Evaluation) -> Iterator[str]:
    strata = sorted({item.stratum for item in one.items})
    for stratum in strata:
        members = [item for item in one.items if item.stratum == stratum]
        lost = [item.item for item in members if item.right is False]
        right = sum(item.right is True for item in members)
        unknown = sum(item.right is None for item in members)
        more = f", {unknown} not told" if unknown else ""
        named = f": {', '.join(lost)}" if lost else ""
        yield f"{stratum or 'no stratum known'}: {right} right{more}, {len(lost)} lost{named}"


def show_rows(console: Console, heads: Row, rows: Sequence[Row], below: Sequence[Sequence[str]] = ()) -> None:
    """Columns as wide as they need to be; `below` holds lines to stand under each row."""
    cells = [heads, *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    console.print(Text(lines[0], style="bold"))
    for number, line in enumerate(lines[1:]):
        console.print(Text(line))
        for more in below[number] if below else ():
            console.print(Text(f"  {plain(more)}", style="dim"))


def _instant(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
