"""Derive condition Progressing: where the rollout to what the spec asks for stands."""

from r1plus_contract.remedies import Remedy, word
from r1plus_contract.timestamps import format_timestamp
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.status import incident
from r1plus_operator.plan.status.context import StatusContext
from r1plus_operator.plan.status.explanations import append_problem, suggest_write_remedy
from r1plus_policies.rollout import RolloutStage


def derive_progressing(s: StatusContext) -> Finding:
    """Return Progressing: True while a rollout moves by itself, with what it waits for."""
    if error := s.observation.write_objection or s.observation.write_error:
        text = f"A write of the operator is refused: {error}; {suggest_write_remedy(error)}"
        return Finding("False", Reason.WRITE_REFUSED, text)
    if s.is_paused:
        text = (
            "spec.rollout.paused: the operator moves and repairs nothing but network policies; probes and alerts go on"
        )
        paused_finding = Finding("False", Reason.PAUSED, f"{text}; {word(Remedy.RESUME)} resumes it")
        return append_problem(paused_finding, s.problem) if s.problem else paused_finding
    rollback_finding = incident.derive_progress(s.outcome, s.subject or "") if s.outcome else None
    if s.problem and (rollback_finding is None or rollback_finding.reason is Reason.ROLLED_BACK):
        return _report_blocked(s.problem)
    if rollback_finding:
        return append_problem(rollback_finding, s.problem) if s.problem else rollback_finding
    return _report_rollout(s)


def _report_rollout(s: StatusContext) -> Finding:
    assert s.rollout is not None
    if s.current and s.spec_revision != s.subject:
        text = f"spec.rollout.pinned holds traffic at revision {s.current.name}; the spec asks for {s.spec_revision}"
        return Finding("False", Reason.PINNED, f"{text}; {word(Remedy.UNPIN)} rolls it out")
    if s.delivery_finding:
        status = "True" if s.delivery_finding.status == "Unknown" else "False"
        return Finding(status, s.delivery_finding.reason, f"Revision {s.subject} waits for its engine; see EngineReady")
    stage = s.rollout.stage
    if stage is RolloutStage.REFUSED:
        text = f"Revision {s.subject} failed its gate; see QualityVerified"
        if s.current:
            text += f". Traffic stays with revision {s.current.name}"
        return Finding("False", Reason.CANDIDATE_REFUSED, text)
    if stage is RolloutStage.BLOCKED:
        return Finding("False", Reason.BLOCKED, "spec.replicas: 0, so no candidate is started; raise it to roll out")
    if stage in (RolloutStage.NONE, RolloutStage.PROMOTE):
        engine = f" ({s.current.engine})" if s.current else ""
        text = f"Revision {s.rollout.current}{engine} takes traffic"
        for name, end in s.rollout.draining.items():
            text += f"; pods of {name} stay for the requests that they run, until {format_timestamp(end)} at the latest"
        return Finding("False", Reason.COMPLETE, text)
    if stage is RolloutStage.EXPIRED or s.rollout.overdue:
        return _report_overdue(s)
    no_room_text = f"waits: no node takes its pod now, so {s.rollout.current} is not stopped for it; free or add a node"
    states = {
        RolloutStage.GATING: "is being gated",
        RolloutStage.SCALING: "passed and is being scaled",
        RolloutStage.NO_ROOM: no_room_text,
    }
    return Finding("True", Reason.ROLLING_OUT, f"Revision {s.subject} {states[stage]}")


def _report_blocked(problem: Problem) -> Finding:
    if problem.reason is Reason.INVALID_SPEC:
        return Finding(
            "False",
            Reason.INVALID_SPEC,
            f"{problem.message}. The serving revision keeps the last valid spec; correct the fields",
        )
    return Finding(
        "False", Reason.BLOCKED, f"{problem.condition} blocks the rollout ({problem.reason}); see its message"
    )


def _report_overdue(s: StatusContext) -> Finding:
    assert s.spec is not None
    revision = s.revisions.get(s.subject or "")
    expiry = revision.expiry if revision and revision.is_expired else None
    if s.current and expiry and expiry.retry_at:
        why, retry_at = expiry.no_room, format_timestamp(expiry.retry_at)
        text = (
            f"Revision {s.subject} was withdrawn because it has no room: {why}; {s.current.name} goes on serving."
            f" {s.subject} is retried at {retry_at}; free capacity, or lower batch, context or replicas"
        )
        return Finding("False", Reason.DEADLINE_EXCEEDED, text)
    limit = f"Revision {s.subject} was not promoted within spec.rollout.deadline ({s.spec.rollout.deadline})"
    remedy = "see the other conditions for the cause; raise the deadline or change the spec to retry"
    result = (
        f"it was withdrawn and {s.current.name} goes on serving"
        if s.current
        else "it keeps trying, because nothing else serves"
    )
    return Finding("False", Reason.DEADLINE_EXCEEDED, f"{limit}; {result}; {remedy}")
