"""The registry's facts as text. Called by `verbs`."""

from collections.abc import Iterator, Mapping, Sequence
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
from r1plus_contract.plain_text import to_printable
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import Gate, GateReport, Verdict

Row = Sequence[str]
_FAILURE_EVENTS = {RolloutEvent.CONTROL_FAILED, RolloutEvent.ROLLED_BACK}
_REQUEST_TEXTS = {
    "rollback": "rollback requested",
    "pin": "pinned",
    "unpin": "unpinned",
    "pause": "paused",
    "resume": "resumed",
    "ack": "acknowledged",
    "refresh": "refresh requested",
}
"""Verb -> text."""
REASONS: Final[Mapping[str, str]] = {
    "BelowThreshold": "accuracy is below the threshold",
    "AlertOnly": "accuracy is below the threshold (onBreach: Alert, so alerts and nothing else)",
    "AccuracyChanged": "answers changed since the gate",
    "Changed": "answers changed since the gate",
    "ServerErrors": "too many questions were not answered",
    "Errors": "too many questions were not answered",
    "SuiteMismatch": "the recorded answers no longer get their recorded scores",
    "OneBadPod": "one pod is bad and leaves traffic",
    "LastThatServes": "one pod is bad and stays in traffic, because it is the only Ready one",
    "AlreadyQuarantined": "one pod is bad and stays in traffic, because another is in quarantine",
    "OneNode": "not rolled back, because all bad pods share one node",
    "Pinned": "not rolled back, because traffic is pinned",
    "Paused": "not rolled back, because the deployment is paused",
    "RolloutUnderWay": "not rolled back, because a new revision is being gated",
    "AckUnderWay": "not rolled back yet, because the monitors repeat the gate's sweeps after an `ack`",
    "Cooldown": "not rolled back, because that happened within the last hour",
    "AlreadyRolledBack": "not rolled back, because that happened before between these revisions",
    "NoLastGood": "not rolled back, because there is no earlier revision that qualifies",
    "ArtifactGone": "not rolled back, because the earlier revision's engine was replaced",
    "PlacementNotAllowed": "not rolled back, because the earlier revision's nodes are no longer allowed",
    "MonitorTooOld": "not rolled back, because the earlier revision's monitor is too old",
    "NoCapacity": "not rolled back yet, because no node has room for the earlier revision",
    "RollbackTargetOverdue": "not rolled back, because the earlier revision was not gated in time",
    "ControlOverdue": "not rolled back, because the earlier revision was not gated in time",  # Of earlier versions.
    "NamespaceNotTenant": "not rolled back, because the namespace is not a tenant",
    "RollbackTargetAlsoFailed": "not rolled back, because the earlier revision failed as well",
    "BothArmsBad": "not rolled back, because the earlier revision failed as well",  # Recorded by earlier versions.
    "ControlRunning": "the earlier revision is gated before traffic goes back to it",
    "ControlPassed": "the earlier revision passed its gate",
    "RolledBack": "traffic was rolled back",
    "Requested": "a user requested it",
}
"""Reason of an alarm or cause of a rollback -> text."""
_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red"}


def show_histories(console: Console, histories: Sequence[History]) -> None:
    """Print histories, the newest deployment of the name first."""
    for history in histories:
        where = f"{history.deployment.namespace}/{history.deployment.name}"
        ended_text = ", deleted" if history.ended else ""
        console.print(
            Text.assemble((to_printable(where), "bold"), f"  uid {to_printable(history.deployment.uid)}{ended_text}")
        )
        heads = ("REVISION", "NO", "ENGINE", "BATCH", "CONTEXT", "LAST GATE")
        show_rows(console, heads, [_format_revision(one, history) for one in history.revisions])
        console.print()
        for at, revision, text, style in list_events(history):
            console.print(
                Text.assemble(
                    (f"{to_printable(at):<21}", "dim"), f"{to_printable(revision):<24}", (to_printable(text), style)
                )
            )


def _format_revision(one: RevisionFact, history: History) -> Row:
    reports = [fact.report for fact in history.evaluations if fact.revision == one.name]
    last = f"{reports[-1].verdict.value} {format_figures(reports[-1])}" if reports else "none yet"
    return one.name, str(one.number), one.engine, str(one.batch), str(one.context), last


def list_events(history: History) -> list[tuple[str, str, str, str]]:
    """Return (time, revision, text, style) of all events, oldest first."""
    engines = {one.name: one.engine for one in history.revisions}
    decision_times = {
        fact.report.control: fact.report.decided_at for fact in history.evaluations if fact.report.control
    }
    entries = [
        (_format_time(one, decision_times), one.revision, *_format_rollout(one, engines)) for one in history.rollouts
    ]
    entries += [
        (
            one.report.decided_at or "-",
            one.revision,
            format_gate(one.report),
            _COLOURS.get(one.report.verdict, "yellow"),
        )
        for one in history.evaluations
    ]
    entries += [
        (one[0].since or "-", one[0].revision, _format_alarm(one), "red") for one in _group_alarms(history.alarms)
    ]
    return sorted(entries, key=lambda entry: entry[0][:19])


def format_gate(report: GateReport) -> str:
    """Return a gate in one line: verdict, figures, suite, and the strata with losses."""
    lost = [f"{s.name} {s.lost} of {s.items}" for s in report.strata if s.lost]
    where = f"; lost: {', '.join(lost)}" if lost else ""
    limit = f"at most {report.allowed} lost for {report.threshold:g}"
    kind = "gate before the rollback" if report.control else "gate"
    reason = "" if report.verdict is Verdict.PASS else f" ({report.reason}: {report.message})"
    return (
        f"{kind} {report.verdict.value}: {format_figures(report)} right at batch {report.batch} on {report.suite},"
        f" {limit}{where}{reason}"
    )


def format_figures(report: GateReport) -> str:
    """Return right items of all items."""
    return f"{report.items - report.lost}/{report.items}"


def _format_rollout(one: RolloutFact, engines: dict[str, str]) -> tuple[str, str]:
    engine = f" with engine {engines[one.revision]}" if one.revision in engines else ""
    detail = f": {one.text}" if one.text else ""
    observe_note = ", because gate: Observe does not wait for a Pass" if one.cause == Gate.OBSERVE else ""
    text = {
        RolloutEvent.CANDIDATE: f"candidate{engine}",
        RolloutEvent.PROMOTED: f"took traffic{engine}{observe_note}",
        RolloutEvent.CONTROL_BEGAN: f"a rollback to {one.to} began, because {explain_reason(one.cause)}{detail}",
        RolloutEvent.CONTROL_PASSED: f"{one.to} passed the suite again{detail}",
        RolloutEvent.CONTROL_FAILED: f"{one.to} also failed the suite{detail}",
        RolloutEvent.ROLLED_BACK: f"traffic went back to {one.to}, because {explain_reason(one.cause)}{detail}",
        RolloutEvent.REQUESTED: f"{_REQUEST_TEXTS.get(one.cause, one.cause)} by {one.text}",
    }[one.event]
    return text, "red" if one.event in _FAILURE_EVENTS else ""


def _format_time(one: RolloutFact, decision_times: Mapping[str, str]) -> str:
    """Return the time of an event.

    The outcome of a rollback's gate has the time of its decision, found by its token.
    """
    if one.event in (RolloutEvent.CONTROL_PASSED, RolloutEvent.CONTROL_FAILED):
        return decision_times.get(f"{one.to}@{one.at:.3f}") or format_timestamp(one.at)
    return format_timestamp(one.at)


def _group_alarms(alarms: Sequence[AlarmFact]) -> list[list[AlarmFact]]:
    """Group consecutive alarms of one accuracy drop that have several reasons."""
    groups: dict[tuple[str, str, str], list[AlarmFact]] = {}
    for one in alarms:
        groups.setdefault((one.revision, one.source, one.since), []).append(one)
    return list(groups.values())


def _format_alarm(fall: Sequence[AlarmFact]) -> str:
    one = fall[0]
    figures_text = f": {one.before} right at its gate, now {one.now}" if one.now and one.before else ""
    figures_text = figures_text or (f": {one.now} right" if one.now else "")
    lost = f"; lost {', '.join(one.lost[:5])}{' ...' if len(one.lost) > 5 else ''}" if one.lost else ""
    source = "" if one.source == "deployment" else f" of {one.source}"
    return f"{', then '.join(explain_reason(each.reason) for each in fall)}{source}{figures_text}{lost}"


def explain_reason(reason: str) -> str:
    """Return the text of a reason, or the reason itself if it is unknown."""
    return REASONS.get(reason, reason)


def show_engines(console: Console, engines: Sequence[RecordedEngine]) -> None:
    """Print a line per engine."""
    heads = ("ENGINE", "VERSION", "TIER", "PRECISION", "BACKEND", "REFERENCE", "GATES PASSED", "SINCE", "SHA256")
    rows = [
        (
            one.engine.name,
            one.engine.version,
            one.engine.tier,
            one.engine.precision,
            one.engine.backend,
            _format_reference(one.engine),
            f"{one.passed} of {one.evaluations}",
            one.recorded_at,
            one.engine.sha256[:12],
        )
        for one in engines
    ]
    show_rows(console, heads, rows)


def _format_reference(engine: EngineFact) -> str:
    """Return the source of the engine's reference."""
    if engine.inherited_from:
        return f"of {engine.inherited_from}"
    return f"claimed by {engine.claimed_by}" if engine.claimed_by else "measured"


def show_evaluations(console: Console, evaluations: Sequence[Evaluation]) -> None:
    """Print a line per gate; with items, the losses below it."""
    heads = ("DECIDED", "DEPLOYMENT", "REVISION", "ENGINE", "VERDICT", "RIGHT", "THRESHOLD", "BATCH", "SUITE")
    rows = [_format_evaluation(one) for one in evaluations]
    below = [list(_list_item_lines(one)) for one in evaluations]
    show_rows(console, heads, rows, below)


def _format_evaluation(one: Evaluation) -> Row:
    report = one.report
    return (
        report.decided_at or "-",
        f"{one.namespace}/{one.deployment}",
        one.revision,
        one.engine,
        report.verdict.value,
        format_figures(report),
        f"{report.threshold:g}",
        str(report.batch),
        f"{report.suite} {report.suite_hash[:12]}",
    )


def _list_item_lines(one: Evaluation) -> Iterator[str]:
    strata = sorted({item.stratum for item in one.items})
    for stratum in strata:
        members = [item for item in one.items if item.stratum == stratum]
        lost = [item.item for item in members if item.right is False]
        right = sum(item.right is True for item in members)
        unknown = sum(item.right is None for item in members)
        more = f", {unknown} unknown" if unknown else ""
        lost_text = f": {', '.join(lost)}" if lost else ""
        yield f"{stratum or 'unknown stratum'}: {right} right{more}, {len(lost)} lost{lost_text}"


def show_rows(console: Console, heads: Row, rows: Sequence[Row], below: Sequence[Sequence[str]] = ()) -> None:
    """Print rows in columns of their natural width; `below` has lines to print under each row."""
    cells = [heads, *([to_printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    console.print(Text(lines[0], style="bold"))
    for number, line in enumerate(lines[1:]):
        console.print(Text(line))
        for more in below[number] if below else ():
            console.print(Text(f"  {to_printable(more)}", style="dim"))
