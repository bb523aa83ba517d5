"""Derive condition QualityVerified: what the gate and the monitors say of the revision that the spec asks for.

An accuracy drop of what serves comes first, whatever the spec asks for.
"""

from dataclasses import replace

from r1plus_contract.verdict import Gate, GateReport, MonitorReport, Phase, Verdict
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.plan.accuracy.gate_tries import count_missing_passes
from r1plus_operator.plan.accuracy.suite_selection import hash_of
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.podspec.pod import name_accuracy_config
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.status import incident
from r1plus_operator.plan.status.context import StatusContext
from r1plus_operator.plan.status.explanations import append_problem
from r1plus_policies.rollback.response import RollbackReason
from r1plus_policies.rollout import RolloutStage

PROGRESS_STEP = 10
"""Percent: progress of a gate is reported in steps of this size."""


def derive_quality_verified(s: StatusContext) -> Finding:
    """Return QualityVerified: whether the revision has passed its gate, and its accuracy stays above the threshold."""
    if s.problem:
        return _derive_quality_despite_problem(s, s.problem)
    if s.subject is None:
        return Finding("Unknown", Reason.PENDING, "Not checked, because the spec cannot be served; see Progressing")
    gate = s.find_gate_report(s.revisions[s.subject])
    if drop := _derive_drop(s, s.subject, gate):
        return drop
    counts = s.select_suite(s.revisions[s.subject])
    report = next((r for r in s.list_reports(s.subject) if counts and r.suite_hash in (hash_of(counts), "")), None)
    if gate and gate.verdict is Verdict.FAIL:
        return Finding(
            "False",
            Reason.GATE_FAILED,
            f"Revision {s.subject} failed its gate. {gate.reason}: {gate.message}; {_explain_refusal(s)}",
        )
    if report and report.phase is Phase.WATCHING and report.verdict is Verdict.FAIL:
        return Finding("False", Reason.BELOW_THRESHOLD, report.message)
    if report and report.phase is Phase.BLOCKED:
        return _report_undecided(report)  # An earlier Pass is no news: the monitor cannot score any more.
    return _derive_gate_finding(s, s.revisions[s.subject], gate, report)


def _derive_drop(s: StatusContext, subject: str, gate: GateReport | None) -> Finding | None:
    """Return QualityVerified where an accuracy drop of what serves, or a rollback, decides it; None: neither does."""
    has_failed = gate is not None and gate.verdict is Verdict.FAIL
    serves = s.current is not None and s.current.name == subject
    # `gate: Observe` promoted a failed revision and `onBreach` is Alert: report the failed gate.
    is_let_through = serves and s.outcome is not None and s.outcome.response.reason is RollbackReason.ALERT_ONLY
    if s.outcome is None or (has_failed and is_let_through):
        return None
    drop = incident.derive_quality(s.outcome, subject)
    if drop is None or serves or gate is None or not has_failed or s.outcome.spec_rollback is not None:
        return drop
    refusal = f"Revision {subject}, which the spec asks for, failed its gate. {gate.reason}: {gate.message}"
    return replace(drop, message=f"{drop.message}. {refusal}")


def _derive_gate_finding(
    s: StatusContext, revision: Revision, gate: GateReport | None, report: MonitorReport | None
) -> Finding:
    """Return QualityVerified of a revision whose monitors report no problem."""
    if explanation := _explain_changed_image(s, revision):
        return Finding("False", Reason.IMAGE_CHANGED, explanation)
    if s.is_shadowed:
        return _report_shadowed_suite(s)
    if gate and (missing := _count_missing_passes(s, revision)):
        return _report_missing_passes(s, revision, gate, missing)
    if gate:
        return Finding("True", Reason.GATE_PASSED, gate.message)
    if unproven_pods := s.list_unproven_pods(revision.name):
        return Finding("False", Reason.PASS_UNPROVEN, _explain_unproven(s, revision, unproven_pods[0]))
    return _report_undecided(report)


def _count_missing_passes(s: StatusContext, revision: Revision) -> int:
    """Return how many more gates a candidate has to pass; 0: none."""
    suite = s.select_suite(revision)
    if s.spec is None or suite is None or revision is s.current:
        return 0
    return count_missing_passes(revision, s.revisions.values(), s.spec, hash_of(suite))


def _report_missing_passes(s: StatusContext, revision: Revision, gate: GateReport, missing: int) -> Finding:
    """Return that one Pass is not enough, why, and whether the candidate has the order to repeat its gate."""
    is_gating = s.rollout is not None and s.rollout.stage is RolloutStage.GATING
    is_repeating = is_gating and s.rollout_target == revision.name
    state = "repeats it" if is_repeating else "still has to repeat it"
    text = f"Revision {revision.name} passed its gate and {state}, {missing} more to pass in a row"
    return Finding(
        "Unknown",
        Reason.GATE_RUNNING if is_repeating else Reason.NOT_YET_KNOWN,
        f"{text}: revisions with the same engine failed this suite before. {gate.message}",
    )


def _explain_changed_image(s: StatusContext, revision: Revision) -> str:
    """Return which pod runs an image that was never gated, and what to do; empty: none does."""
    for pod in s.list_pods(revision.name):
        if container_change := revision.find_changed_image(pod):
            text = f"Pod {pod.name} runs another image than its revision passed the gate on: an image tag was moved"
            remedy = "Name images by digest in the chart's values, or push the gated one again; then delete the pod"
            return f"{text}. {remedy}. Revision {revision.name}: container {container_change}"
    return ""


def _explain_unproven(s: StatusContext, revision: Revision, pod: str) -> str:
    """Return why a Pass does not count, and what to do."""
    if not revision.can_prove_gates:
        text = f"Revision {revision.name} has a monitor of an older version, which cannot prove that it ran its gate"
        return (
            f"{text}: its Pass does not count. Change spec.engine, batch or context to get a new revision and monitor"
        )
    config = name_accuracy_config(s.observation.name)
    text = f"The Pass of pod {pod} does not count: the pod did not run the gate, or not with ConfigMap {config} as the"
    return f"{text} operator wrote it. Find in the audit log who else wrote that ConfigMap, then delete the pod"


def _derive_quality_despite_problem(s: StatusContext, problem: Problem) -> Finding:
    """Return QualityVerified while the spec has a problem. An accuracy drop is reported first."""
    drop = incident.derive_quality(s.outcome, s.subject) if s.outcome and s.subject else None
    if drop and drop.reason is not Reason.ROLLED_BACK:
        return append_problem(drop, problem)
    if problem.condition is not ConditionType.QUALITY_VERIFIED:
        return Finding("Unknown", Reason.PENDING, "Not checked, because the spec cannot be served; see Progressing")
    if s.current and s.suites is None:
        text = f"{problem.message}. The serving revision is not monitored, because its suite is gone"
        return Finding("False", problem.reason, text)
    return Finding("False", problem.reason, problem.message)


def _report_shadowed_suite(s: StatusContext) -> Finding:
    """Return the figures of the former suite, which counts, and the progress of the new one in the shadow."""
    assert s.suites is not None
    assert s.current is not None
    assert s.spec is not None
    new, old = s.suites.spec_suite, s.suites.effective_suite
    shadows = [r.shadow for r in s.list_reports(s.subject) if r.shadow and r.shadow.suite_hash == hash_of(new)]
    latest = max(shadows, key=lambda shadow: shadow.percent, default=None)
    problem = next((shadow.problem for shadow in shadows if shadow.problem), "")
    progress = f"{latest.percent} % of its gate" if latest else "not begun yet"
    gate = s.current.verdict_for(hash_of(old), s.spec.accuracy.threshold)
    figures = f". By suite {old.name}: {gate.verdict}, {gate.message}" if gate else ""
    state = f"cannot run: {problem}" if problem else f"runs in parallel ({progress})"
    if latest and latest.percent == 100 and (unproven_pods := s.list_unproven_pods(s.subject)):
        state = f"does not count. {_explain_unproven(s, s.current, unproven_pods[0])}"
    text = (
        f"Traffic is unaffected. Revision {s.current.name} still counts by suite {old.name}; suite {new.name} {state}"
    )
    rule = f"Suite {new.name} counts once its gate is decided"
    return Finding("Unknown", Reason.SUITE_SHADOWED, f"{text}. {rule}{figures}")


def _explain_refusal(s: StatusContext) -> str:
    if s.spec and s.spec.accuracy.gate is Gate.OBSERVE:
        return "it serves anyway, because spec.accuracy.gate is Observe"
    text = f"revision {s.current.name} goes on serving" if s.current else "nothing serves"
    return f"{text}; choose another engine; the lost items are in ControllerRevision {s.subject} (r1plus.ai/verdict)"


def _report_undecided(report: MonitorReport | None) -> Finding:
    if report is None:
        return Finding(
            "Unknown", Reason.NOT_YET_KNOWN, "No monitor has reported yet; it starts with the pod, see EngineReady"
        )
    if report.phase is Phase.BLOCKED or report.verdict is Verdict.ERROR:
        # The cause is the platform, so this says nothing about the engine.
        reason = Reason.SUITE_MISMATCH if report.reason == Reason.SUITE_MISMATCH.value else Reason.NO_DATA
        return Finding("False", reason, f"{report.reason}: {report.message}")
    if report.phase is Phase.GATING and report.progress:
        share = 100 * report.progress.done // max(1, report.progress.total)
        return Finding(
            "Unknown",
            Reason.GATE_RUNNING,
            f"The gate on suite {report.suite} is running: {share - share % PROGRESS_STEP} %",
        )
    if report.phase is Phase.GATING and report.reason == Reason.GATE_RUNNING.value:
        return Finding("Unknown", Reason.GATE_RUNNING, f"What serves is watched meanwhile: {report.message}")
    if report.verdict is Verdict.INCONCLUSIVE:
        return Finding("Unknown", Reason.GATE_INCONCLUSIVE, report.message)
    text = f"The monitor reports {report.phase}, and no gate result of this revision counts yet: {report.message}"
    return Finding("Unknown", Reason.NOT_YET_KNOWN, text)
