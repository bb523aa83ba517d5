"""What the monitors of what serves report: standings, counts, and which items were lost.

Only reports about the very identity and suite in force count, and only monitors of the revision's own pods are heard at
all (`Revision.own_pods`).
"""

from typing import Final

from r1plus_contract.plain_text import to_printable
from r1plus_contract.suites.suite import Suite
from r1plus_contract.verdict import MonitorReport, Phase, Verdict, WatchStanding
from r1plus_operator.plan.observation import PodFacts
from r1plus_operator.plan.revision.rollback_record import MOST_TEXT, AccuracyDrop
from r1plus_operator.plan.rollback.context import BreachContext
from r1plus_policies.gate.verdict import MOST_LOST_ITEMS

SUITE_MISMATCH = "SuiteMismatch"
"""The monitor's reason where its scorer does not give recorded answers their recorded scores."""
DROPS: Final = (WatchStanding.BELOW_THRESHOLD, WatchStanding.ERRORS)
OUTAGE: Final = "probes get errors or no answer"
"""What the worst pod reports where its count shows no wrong answers: no figures, for a count of errors is none."""
MOST_STRATA, MOST_IDS, MOST_LINE = 16, 5, 200
"""Limits of the text about lost items: strata, ids of a stratum, characters of a line."""


def has_dropped(context: BreachContext, before: bool) -> bool:
    """Whether a pod in traffic was counted below the threshold; `before` while no monitor reports anything."""
    standings = [read_standing(context, context.report(pod)) for pod in context.pods_in_traffic]
    reports = [standing for standing in standings if standing is not None]
    return WatchStanding.BELOW_THRESHOLD in reports if reports else before


def has_suite_mismatch(context: BreachContext) -> bool:
    """Whether a monitor in traffic scores otherwise than when the suite was recorded, and no other one reports a drop.

    A sound monitor scores its recorded answers again before it reports a drop. So a mismatch of another pod's monitor,
    which may be compromised, does not bar the answer to that drop.
    """
    mismatches = list_mismatches(context, context.pods_in_traffic)
    others = (report for report in context.reports(context.pods_in_traffic) if report.reason != SUITE_MISMATCH)
    return bool(mismatches) and not any(read_standing(context, report) in DROPS for report in others)


def list_mismatches(context: BreachContext, pods: list[PodFacts]) -> list[MonitorReport]:
    """Return the reports of these pods whose scorer no longer judges the suite in force as it was recorded.

    A monitor that fell silent under another suite still reports that one: it keeps its reason
    (`unresponsive.build_silent_report`).
    """
    about = (SUITE_MISMATCH, context.suite_hash)
    return [report for report in context.reports(pods) if (report.reason, report.suite_hash) == about]


def measure_drop(context: BreachContext) -> AccuracyDrop:
    """Return what dropped, by the worst pod's own count."""
    reports = context.reports(context.pods(context.current.name))
    bad = [report for report in reports if read_standing(context, report) not in (None, WatchStanding.STEADY)]
    dropped = [report for report in bad if read_standing(context, report) is WatchStanding.BELOW_THRESHOLD]
    worst = max(dropped or bad, key=lambda report: report.watch.evidence if report.watch else 0.0, default=None)
    gate = context.current.verdict_for(context.suite_hash, context.spec.accuracy.threshold)
    before = f"{gate.items - gate.lost}/{gate.items}" if gate and gate.verdict is Verdict.PASS else ""
    if worst is None:
        return AccuracyDrop(before)
    if read_standing(context, worst) is WatchStanding.ERRORS:
        return AccuracyDrop(before, text=OUTAGE)
    now, lines = format_count(worst), list_lost_items(worst, context.suite)
    text = (
        f"{now} right" + (f", {before} at its gate" if before else "")
        if now
        else to_printable(worst.message[:MOST_TEXT])
    )
    if lines:
        text += f"; lost in stratum {', '.join(line.split(' (')[0] for line in lines)}"
    return AccuracyDrop(before, now, lines, text)


def list_lost_items(report: MonitorReport, suite: Suite) -> tuple[str, ...]:
    """Return a line per stratum that lost items: how many of how many, and which. Unknown ids are ignored.

    A monitor names at most MOST_LOST_ITEMS ids; the counts come from its figures by stratum.
    """
    ids = report.watch.lost_since_gate if report.watch else ()
    gate = report.gate if not ids and report.gate and report.gate.verdict is Verdict.FAIL else None
    strata = gate.strata if gate else report.watch.strata if report.watch else ()
    counts = {stratum.name: stratum.lost for stratum in strata}
    ids = gate.lost_items if gate else ids
    least = "at least " if not counts and len(ids) >= MOST_LOST_ITEMS else ""
    stratum_of, sizes = {item.id: item.stratum for item in suite.items}, suite.strata()
    items_of: dict[str, list[str]] = {name: [] for name, count in counts.items() if count and name in sizes}
    for item in dict.fromkeys(ids):
        if item in stratum_of:
            items_of.setdefault(stratum_of[item], []).append(item)
    totals = {name: min(max(counts.get(name, 0), len(items)), sizes[name]) for name, items in items_of.items()}
    worst_first = sorted(items_of, key=lambda name: (-totals[name], name))[:MOST_STRATA]
    return tuple(
        f"{name}: {least}{totals[name]} of {sizes[name]}{_format_ids(items_of[name], totals[name])}"[:MOST_LINE]
        for name in worst_first
    )


def _format_ids(items: list[str], total: int) -> str:
    some = items[:MOST_IDS]
    return f" ({', '.join([*some, '...'] if len(some) < total else some)})" if some else ""


def format_count(report: MonitorReport) -> str:
    """Return the count that decided: of the confirming sweep, of the gate, or of the last sweep."""
    if report.watch and (sweep := report.watch.confirmation):
        return f"{sweep.correct}/{sweep.total}"
    if report.gate and report.gate.verdict is Verdict.FAIL:
        return f"{report.gate.items - report.gate.lost}/{report.gate.items}"
    return f"{report.sweep.correct}/{report.sweep.total}" if report.sweep else ""


def read_standing(context: BreachContext, report: MonitorReport | None) -> WatchStanding | None:
    """Return the standing of a pod that may serve; None where its report is not about this identity and suite.

    A standing under another threshold, or from before an acknowledgement, says nothing under the present ones: the pod
    is counted again. After an acknowledgement that has `spec.rollout.deadline`; then the standing counts again. A
    monitor that does not report under which it counted is believed.
    """
    if report is None or (report.identity, report.suite_hash) != (context.identity, context.suite_hash):
        return None
    standing, threshold = _reported_standing(report), context.spec.accuracy.threshold
    is_outdated = report.threshold not in (None, threshold) or _precedes_ack(context, report)
    return WatchStanding.CONFIRMING if is_outdated and standing not in (None, WatchStanding.STEADY) else standing


def is_acknowledged(context: BreachContext, report: MonitorReport) -> bool:
    """Whether a report is of a drop that was counted before an acknowledgement, and new sweeps still have time."""
    is_about = (report.identity, report.suite_hash) == (context.identity, context.suite_hash)
    return is_about and _precedes_ack(context, report) and _reported_standing(report) is WatchStanding.BELOW_THRESHOLD


def _precedes_ack(context: BreachContext, report: MonitorReport) -> bool:
    """Whether the monitor has not yet acted on the newest acknowledgement, and still has time for that."""
    return report.acknowledged not in (None, context.acknowledgement) and context.ack_seconds_left > 0


def _reported_standing(report: MonitorReport) -> WatchStanding | None:
    gate, about = report.gate, (report.identity, report.suite_hash)
    if gate and gate.verdict is Verdict.FAIL and (gate.identity, gate.suite_hash) == about:
        return WatchStanding.BELOW_THRESHOLD
    if report.watch:
        return report.watch.standing
    if report.phase is not Phase.WATCHING:
        return None
    return WatchStanding.BELOW_THRESHOLD if report.verdict is Verdict.FAIL else WatchStanding.STEADY
