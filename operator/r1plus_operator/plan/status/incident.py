"""A fall as it is told: the conditions it decides, and `status.incident`, which `r1plus status` reads out.

What fell, from what to what, which items by stratum, what was tried, what comes next, where the runbook is.
"""

from collections.abc import Mapping

from r1plus_contract import metrics
from r1plus_contract.requests import Verb, format_command
from r1plus_contract.verdict import Verdict
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.observation import Json, PodFacts
from r1plus_operator.plan.revision.record import rfc3339
from r1plus_operator.plan.revision.rollback_record import REQUESTED, RollbackRecord
from r1plus_operator.plan.rollback import eligibility, quarantine
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_policies.rollback.response import Action, RollbackReason

ROLLED_BACK = "RolledBack"
MOST_NEXT, MOST_TRIED = 2000, 500
_REASONS: Mapping[RollbackReason, tuple[str, Reason]] = {
    RollbackReason.CHANGED: ("True", Reason.ACCURACY_CHANGED),
    RollbackReason.SERVER_ERRORS: ("Unknown", Reason.SERVER_ERRORS),
    RollbackReason.ONE_BAD_POD: ("True", Reason.BAD_POD),
    RollbackReason.LAST_THAT_SERVES: ("False", Reason.BAD_POD),
    RollbackReason.ALREADY_QUARANTINED: ("False", Reason.BAD_POD),
    RollbackReason.CONTROL_RUNNING: ("False", Reason.ROLLING_BACK),
    RollbackReason.CONTROL_PASSED: ("False", Reason.ROLLING_BACK),
    RollbackReason.SUITE_MISMATCH: ("False", Reason.SUITE_MISMATCH),
    RollbackReason.BOTH_ARMS_BAD: ("False", Reason.BOTH_ARMS_BAD),
    RollbackReason.ALERT_ONLY: ("False", Reason.BELOW_THRESHOLD),
}
"""What QualityVerified says of the revision that serves; any other way not to go back is RollbackBlocked."""
_QUIET = frozenset({RollbackReason.STEADY, RollbackReason.CONFIRMING})
_TOLD_ELSEWHERE = frozenset({RollbackReason.ALERT_ONLY, RollbackReason.ROLLOUT_UNDER_WAY})
"""What bars an answer and is no news of Progressing's: the user's own wish, or a rollout that is told there."""
_BY_HAND = frozenset({RollbackReason.ALERT_ONLY, RollbackReason.COOLDOWN, RollbackReason.LAST_THAT_SERVES})
"""The operator moves nothing, and a person could."""
_RUNBOOKS: Mapping[RollbackReason, str] = {
    RollbackReason.CHANGED: metrics.ALERT_CHANGED,
    RollbackReason.SERVER_ERRORS: metrics.ALERT_SERVER_ERRORS,
    RollbackReason.SUITE_MISMATCH: metrics.ALERT_SUITE_MISMATCH,
}


def quality(said: BreachOutcome, target: str) -> Finding | None:
    """QualityVerified of the revision that the spec asks for; None where the fall does not decide it."""
    response = said.response
    if said.spec_rollback is not None:
        more = (
            f". {said.current} has fallen as well: {response.reason}"
            if said.drop.now and response.reason not in _QUIET
            else ""
        )
        return Finding("False", Reason.ROLLED_BACK, _gone_back(target, said.spec_rollback) + more)
    if target != said.current or response.reason in _QUIET:
        return None
    if said.is_only_requested and response.reason not in (
        RollbackReason.SUITE_MISMATCH,
        RollbackReason.SERVER_ERRORS,
        RollbackReason.CHANGED,
        RollbackReason.ONE_BAD_POD,
    ):
        return None
    status, reason = _REASONS.get(response.reason, ("False", Reason.ROLLBACK_BLOCKED))
    if response.action is Action.QUARANTINE:
        status = "False"
    name = f"{response.reason}: " if reason is Reason.ROLLBACK_BLOCKED else ""
    figures = f"Revision {said.current}: {said.drop.text}; " if said.drop.text else ""
    return Finding(status, reason, f"{figures}{name}{words(said)}; runbook: {runbook(said)}")


def words(said: BreachOutcome) -> str:
    """The decision, how far its control is, and whether somebody could go back by hand where the operator does not."""
    response = said.response
    if response.reason is RollbackReason.CONTROL_RUNNING and said.control_progress:
        return f"{response.message}; {said.control_progress}"
    if response.reason not in _BY_HAND:
        return response.message
    by_hand = eligibility.describe_manual_rollback(said.rollback_target, said.rollback_blockers)
    if said.rollback_target:
        sweeps = f"It sweeps {said.rollback_target} again first, which takes minutes"
        by_hand += f". {sweeps}; applying the spec of {said.rollback_target} again sweeps nothing while its Pass counts"
    return f"{response.message}; {by_hand}"


def progress(said: BreachOutcome, target: str) -> Finding | None:
    """Progressing, where a way back is under way, done or barred."""
    response = said.response
    if response.action in (Action.CONTROL, Action.SWITCH):
        return Finding("True", Reason.ROLLING_BACK, words(said))
    barred = response.action in (Action.BLOCKED, Action.PAGE) and response.reason not in _TOLD_ELSEWHERE
    if barred and (response.revision or said.is_only_requested or target != said.current):
        return Finding("False", Reason.ROLLBACK_BLOCKED, f"{response.reason}: {words(said)}")
    if said.spec_rollback is not None:
        return Finding("False", Reason.ROLLED_BACK, f"Revision {target} was rolled back from; see QualityVerified")
    return None


def _gone_back(target: str, record: RollbackRecord) -> str:
    requested = record.cause == REQUESTED
    why = f"the rollback was asked for by {record.fell.text}" if requested else f"it fell: {record.fell.text}"
    return (
        f"Revision {target} does not come back: {why}; traffic went back to {record.to} at"
        f" {rfc3339(record.switched_at or 0.0)}. Change the spec, or {format_command(Verb.ACK)} to let {target} be"
        " gated anew"
    )


def runbook(said: BreachOutcome) -> str:
    """Where it is written what to do."""
    why, blocked = said.response.reason, said.response.action in (Action.BLOCKED, Action.PAGE)
    page = _RUNBOOKS.get(why, metrics.ALERT_ROLLBACK_BLOCKED if blocked else metrics.ALERT_BELOW_THRESHOLD)
    if (said.spec_rollback is not None and why in _QUIET) or (
        said.is_only_requested and not blocked and why not in _RUNBOOKS
    ):
        page = metrics.ALERT_ROLLED_BACK
    elif why is RollbackReason.ALERT_ONLY:
        page = metrics.ALERT_BELOW_THRESHOLD
    return said.alerts.runbook(page)


def told(said: BreachOutcome, target: str, before: Json, now: float) -> Json | None:
    """`status.incident`; None while there is nothing to tell. `before`: the status that stands, for since when."""
    returned, response = said.spec_rollback, said.response
    if response.reason in _QUIET and returned is None and not said.quarantined_pods:
        return None
    over = response.reason in _QUIET and returned is not None
    revision, record = (target, returned) if over else (said.current, said.rollback_record)
    fell = record.fell if record else said.drop
    old = before.get("incident") or {}
    found = {
        "since": old["since"] if old.get("revision") == revision and "since" in old else rfc3339(now),
        "revision": revision,
        "reason": ROLLED_BACK if over else response.reason.value,
        "before": fell.before,
        "now": fell.now,
        "lost": list(fell.lost),
        "tried": [line[:MOST_TRIED] for line in (*_held(said.quarantined_pods), *(_steps(record) if record else ()))],
        "next": (_gone_back(target, returned) if over and returned else words(said))[:MOST_NEXT],
        "runbook": runbook(said),
    }
    return {key: value for key, value in found.items() if value}


def _held(pods: tuple[PodFacts, ...]) -> list[str]:
    held = [(pod.name, found) for pod in pods if (found := quarantine.read(pod))]
    return [f"{rfc3339(q.since)} pod {name} was quarantined, until {rfc3339(q.until)}: {q.why}" for name, q in held]


def _steps(record: RollbackRecord) -> list[str]:
    begun = f"asked for by {record.fell.text}" if record.cause == REQUESTED else "the revision fell"
    steps = [f"{rfc3339(record.started_at)} control of revision {record.to} began: {begun}"]
    if record.control is not None:
        said = "passed" if record.control is Verdict.PASS else "failed"
        steps.append(f"revision {record.to} {said} the suite anew: {record.said}")
    if record.blocked:
        steps.append(f"the monitor of revision {record.to} could decide nothing: {record.blocked}")
    if record.switched_at is not None:
        steps.append(f"{rfc3339(record.switched_at)} traffic went back to revision {record.to}")
    return steps
