"""Which gates that the monitors report are written down on their revisions, and which are told to monitors again.

Called by the plan.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

from r1plus_contract.jsonable import dumps
from r1plus_contract.verdict import GateReport, MonitorReport, Standing, Verdict
from r1plus_operator.api.conditions import Reason
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection
from r1plus_operator.plan.observation import Observed
from r1plus_operator.plan.requests import acknowledged_in
from r1plus_operator.plan.revision.record import Revision, clip_report
from r1plus_policies.gate.verdict import rejudge

MOST_TOLD_BYTES: Final = 64 * 1024
"""Of verdicts in the ConfigMap that monitors read: it holds 1 MiB, and a suite may take 948 KiB of that."""


def list_gates(report: MonitorReport) -> tuple[GateReport, ...]:
    """Of the suite that counts, and of the one that is asked beside it.

    The latter says nothing of the revision while something is wrong with the pod that asks: its scorer is not what it
    was, or it answers otherwise than at its gate. A monitor that has been started anew does not know that yet.
    """
    steady = report.watch is not None and report.watch.standing is Standing.STEADY
    sound = steady and report.reason != Reason.SUITE_MISMATCH
    beside = report.shadow.gate if report.shadow and sound else None
    return tuple(gate for gate in (report.gate, beside) if gate is not None)


def record_gate_result(
    revision: Revision, gate: GateReport, suites: Collection[str], threshold: float, acknowledged: str
) -> Revision:
    """The revision with this gate, where it is decided, is of exactly what is in force, and is news.

    Decided under another threshold it is taken where monitors go by it, too: where its own figures make it a Pass.
    `suites`: hashes of what is asked for and of what counts meanwhile.
    """
    decided = rejudge(gate, threshold) in (Verdict.PASS, Verdict.FAIL)
    scored = gate.identity == revision.identity_digest and gate.suite_hash in suites
    ours = scored and revision.regate_token in ("", gate.control)
    if decided and ours and _is_news(revision, gate, threshold, acknowledged):
        return replace(revision, verdicts=(*revision.verdicts, clip_report(gate)))
    return revision


def record_gate_results(
    observed: Observed, revisions: Mapping[str, Revision], suites: SuiteSelection | None, threshold: float
) -> Mapping[str, Revision]:
    """Return the revisions with every decided gate that their monitors report: of exactly what was scored, once.

    A pod in quarantine is at fault itself: what it reports says nothing of its revision.
    """
    if suites is None:
        return revisions
    after, hashes, acknowledged = dict(revisions), suites.hashes, acknowledged_in(observed.cr)
    for pod in observed.pods:
        report = observed.reports.get(pod.name)
        if report is None or pod.quarantine is not None or pod.revision not in after:
            continue
        for gate in list_gates(report):
            before = after[pod.revision]
            revision = record_gate_result(before, gate, hashes, threshold, acknowledged)
            # Later the pod's containers may have been restarted on images that were not gated.
            is_new = revision is not before or not before.images
            if is_new and before.can_prove_gates and has_passed_gate(before, gate, hashes):
                revision = revision.add_images(pod)
            after[pod.revision] = revision
    return after


def has_passed_gate(revision: Revision, gate: GateReport, suites: Collection[str]) -> bool:
    """Whether the pod that reports this has passed a gate of its revision, at the batch that it serves at."""
    of_ours = gate.identity == revision.identity_digest and gate.suite_hash in suites
    return of_ours and gate.admits_at(revision.batch)


def _is_news(revision: Revision, gate: GateReport, threshold: float, acknowledged: str) -> bool:
    """Nothing stood under this suite and threshold, or what stood is less.

    Less than what was found at the serving batch is a Pass of batch 1, but for a Fail from before that Pass; less than
    a Pass that an acknowledgement asked for, the newest, is the Fail that was acknowledged. Nothing else is asked for
    until it passes. Two pods that find different things do not take turns: an acknowledgement is answered once.
    """
    known = revision.verdict_for(gate.suite_hash, threshold)
    if known is None:
        return True
    if known.verdict is Verdict.PASS:
        since = gate.verdict is Verdict.PASS or gate.decided_at >= known.decided_at
        return since and gate.batch == revision.batch != known.batch
    if gate.verdict is not Verdict.PASS or gate.threshold != threshold:
        return False
    return gate.acknowledged == acknowledged != "" and not _answered(revision, gate)


def _answered(revision: Revision, gate: GateReport) -> bool:
    """Whether this suite was passed already for the acknowledgement that asked for this gate."""
    passed = (v for v in revision.valid_verdicts if v.verdict is Verdict.PASS and v.suite_hash == gate.suite_hash)
    return any((v.threshold, v.acknowledged) == (gate.threshold, gate.acknowledged) for v in passed)


def append_control_pass(revision: Revision, gate: GateReport) -> Revision:
    """The control's fresh Pass stands beside the old one, so that further pods need no gate of their own."""
    if any(known.control == gate.control for known in revision.verdicts):
        return revision
    return replace(revision, verdicts=(*revision.verdicts, clip_report(gate)))


def select_known_verdicts(
    revisions: Iterable[Revision], running: Collection[str], suites: Collection[str]
) -> tuple[GateReport, ...]:
    """What monitors are told of verdicts on these suites: of each revision the newest first, and first what runs.

    What does not fit is left out, older ones first: a pod that hears of none is gated once more.
    """
    ranked = [
        (rank, revision.name not in running, revision.name, verdict)
        for revision in revisions
        for rank, verdict in enumerate(v for v in reversed(revision.valid_verdicts) if v.suite_hash in suites)
    ]
    chosen: list[GateReport] = []
    left = MOST_TOLD_BYTES
    for *_, verdict in sorted(ranked, key=lambda found: found[:3]):
        if (size := len(dumps(verdict).encode()) + 1) <= left:
            left -= size
            chosen.append(verdict)
    return tuple(chosen)
