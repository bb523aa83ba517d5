"""Which reported gates are recorded on their revisions, and which verdicts monitors read. Steps of the plan."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from r1plus_contract.jsonable import dumps
from r1plus_contract.verdict import GateReport, MonitorReport, Verdict, WatchStanding
from r1plus_operator.api.conditions import Reason
from r1plus_operator.plan.accuracy.gate_tries import build_repeat_token
from r1plus_operator.plan.accuracy.identity_verdicts import find_recording_revision
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelection
from r1plus_operator.plan.accuracy.verdict_order import record_verdict
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.requests import read_ack_token
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.storage import clip_report
from r1plus_policies.gate.verdict import rejudge

MOST_VERDICT_BYTES: Final = 64 * 1024
"""Of verdicts in the ConfigMap that monitors read: it holds 1 MiB, and a suite may take 948 KiB of that."""


def list_gates(report: MonitorReport) -> tuple[GateReport, ...]:
    """Return the report's gates: of the effective suite, and of the one that shadows it.

    The latter says nothing of the revision while something is wrong with the pod: its scorer has changed, or it answers
    otherwise than at its gate. A monitor that has just restarted does not know that yet.
    """
    is_steady = report.watch is not None and report.watch.standing is WatchStanding.STEADY
    is_sound = is_steady and report.reason != Reason.SUITE_MISMATCH
    shadow_gate = report.shadow.gate if report.shadow and is_sound else None
    return tuple(gate for gate in (report.gate, shadow_gate) if gate is not None)


@dataclass(frozen=True, slots=True)
class RecordTerms:
    """By what a reported gate is recorded or not."""

    suites: Collection[str]
    """Hashes of the spec's and of the effective suite."""
    threshold: float
    acknowledged: str = ""
    """Token of the newest acknowledgement."""
    revisions: Collection[Revision] = ()
    """The deployment's, among which the verdict gets its number."""

    def has_acted(self, report: MonitorReport) -> bool:
        """Whether a monitor has acted on the newest acknowledgement, or has no watch that could."""
        return report.acknowledged in (None, self.acknowledged)


def record_gate_result(revision: Revision, gate: GateReport, terms: RecordTerms, *, has_acted: bool = True) -> Revision:
    """Return the revision with this gate, where it is decided, is about exactly what is in force, and is news.

    A gate under another threshold counts where its own figures make it a Pass: monitors go by it, too. `has_acted`:
    whether its monitor has acted on the newest acknowledgement.
    """
    threshold = terms.threshold
    is_decided = rejudge(gate, threshold) in (Verdict.PASS, Verdict.FAIL)
    is_in_force = gate.identity == revision.identity_digest and gate.suite_hash in terms.suites
    is_expected = revision.regate_token in ("", gate.control)
    if is_decided and is_in_force and is_expected and _is_news(revision, gate, terms, has_acted=has_acted):
        return record_verdict(revision, gate, terms.revisions)
    return revision


def record_gate_results(
    inputs: PassInputs, revisions: Mapping[str, Revision], suites: SuiteSelection | None
) -> Mapping[str, Revision]:
    """Return the revisions with every decided gate that their monitors report: about exactly what was scored, once.

    A pod in quarantine is at fault itself: what it reports says nothing of its revision.
    """
    if suites is None:
        return revisions
    observed, threshold = inputs.observed, inputs.spec.accuracy.threshold
    after, hashes = dict(revisions), suites.hashes
    terms = RecordTerms(hashes, threshold, read_ack_token(observed.cr), after.values())
    for pod in observed.pods:
        report = observed.reports.get(pod.name)
        if report is None or pod.quarantine is not None or pod.revision not in after:
            continue
        for gate in list_gates(report):
            before = after[pod.revision]
            revision = record_gate_result(before, gate, terms, has_acted=terms.has_acted(report))
            # Later the pod's containers may have been restarted on images that were not gated.
            is_new = revision is not before or not before.images
            if is_new and before.can_prove_gates and has_passed_gate(before, gate, hashes):
                source = find_recording_revision(gate, before, tuple(after.values()))
                revision = revision.add_images(pod) if source is None else revision.share_images(source, pod)
            after[pod.revision] = revision
    return after


def has_passed_gate(revision: Revision, gate: GateReport, suites: Collection[str]) -> bool:
    """Whether the pod that reports this has passed a gate of its revision, at the batch that it serves at."""
    of_ours = gate.identity == revision.identity_digest and gate.suite_hash in suites
    return of_ours and gate.admits_at(revision.batch)


def _is_news(revision: Revision, gate: GateReport, terms: RecordTerms, *, has_acted: bool) -> bool:
    """Whether no verdict stands under this suite and threshold, or the gate outranks it.

    A gate at the serving batch outranks a Pass of batch 1, except a Fail from before that Pass: one that was recorded,
    that is under another threshold, or whose monitor has not acted on the acknowledgement. A Pass for the newest
    acknowledgement outranks the Fail that was acknowledged. Two pods with different results do not take turns: an
    acknowledgement is answered once. A Pass that has to be repeated is followed by the gate that was ordered.
    """
    threshold = terms.threshold
    verdict = revision.verdict_for(gate.suite_hash, threshold)
    if verdict is None:
        return True
    if gate.control and gate.control == build_repeat_token(revision, gate.suite_hash, threshold):
        return gate.batch == revision.batch
    if verdict.verdict is Verdict.PASS:
        is_new = has_acted and gate.threshold == threshold and clip_report(gate) not in revision.verdicts
        return (gate.verdict is Verdict.PASS or is_new) and gate.batch == revision.batch != verdict.batch
    if gate.verdict is not Verdict.PASS or gate.threshold != threshold:
        return False
    return gate.acknowledged == terms.acknowledged != "" and not _has_passed_since(revision, gate)


def _has_passed_since(revision: Revision, gate: GateReport) -> bool:
    """Whether this suite was passed already for the acknowledgement that the gate answers."""
    passes = (v for v in revision.valid_verdicts if v.verdict is Verdict.PASS and v.suite_hash == gate.suite_hash)
    return any((v.threshold, v.acknowledged) == (gate.threshold, gate.acknowledged) for v in passes)


def append_control_pass(revision: Revision, gate: GateReport, revisions: Collection[Revision]) -> Revision:
    """Return the revision with the control's new Pass behind the old one: further pods need no gate of their own."""
    if any(verdict.control == gate.control for verdict in revision.verdicts):
        return revision
    return record_verdict(revision, gate, revisions)


def select_known_verdicts(
    revisions: Iterable[Revision], running: Collection[str], suites: Collection[str]
) -> tuple[GateReport, ...]:
    """Return the verdicts on these suites that monitors read: of each revision the newest first, running ones first.

    At most MOST_VERDICT_BYTES; older ones are left out first. A pod that reads none is gated once more.
    """
    candidates = [
        (rank, revision.name not in running, revision.name, verdict)
        for revision in revisions
        for rank, verdict in enumerate(v for v in reversed(revision.valid_verdicts) if v.suite_hash in suites)
    ]
    verdicts: list[GateReport] = []
    room = MOST_VERDICT_BYTES
    for *_, verdict in sorted(candidates, key=lambda candidate: candidate[:3]):
        if (size := len(dumps(verdict).encode()) + 1) <= room:
            room -= size
            verdicts.append(verdict)
    return tuple(verdicts)
