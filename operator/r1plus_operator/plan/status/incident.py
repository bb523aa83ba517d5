"""Report an accuracy drop: the conditions that it decides, and `status.incident`, which `r1plus status` prints.

The incident has the figures before and now, the lost items by stratum, what was tried, what comes next and the runbook.
"""

from collections.abc import Mapping

from r1plus_contract import metrics
from r1plus_contract.remedies import Remedy, append_remedy, word
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import Verdict
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.observation import Json, PodFacts
from r1plus_operator.plan.revision.rollback_record import USER_REQUEST, RollbackRecord
from r1plus_operator.plan.rollback import eligibility, quarantine
from r1plus_operator.plan.rollback.outcome import BreachOutcome
from r1plus_policies.rollback.response import Action, RollbackReason

ROLLED_BACK = "RolledBack"
MAX_NEXT, MAX_TRIED = 2000, 500
MAX_COUNT = 32
"""Characters of `right/all`, in all of the status: a stored report may have any numbers."""
_REASONS: Mapping[RollbackReason, tuple[str, Reason]] = {
    RollbackReason.CHANGED: ("True", Reason.ACCURACY_CHANGED),
    RollbackReason.SERVER_ERRORS: ("Unknown", Reason.SERVER_ERRORS),
    RollbackReason.ONE_BAD_POD: ("True", Reason.BAD_POD),
    RollbackReason.LAST_THAT_SERVES: ("False", Reason.BAD_POD),
    RollbackReason.ALREADY_QUARANTINED: ("False", Reason.BAD_POD),
    RollbackReason.CONTROL_RUNNING: ("False", Reason.ROLLING_BACK),
    RollbackReason.CONTROL_PASSED: ("False", Reason.ROLLING_BACK),
    RollbackReason.SUITE_MISMATCH: ("False", Reason.SUITE_MISMATCH),
    RollbackReason.ROLLBACK_TARGET_ALSO_FAILED: ("False", Reason.ROLLBACK_TARGET_ALSO_FAILED),
    RollbackReason.ALERT_ONLY: ("False", Reason.BELOW_THRESHOLD),
    RollbackReason.ACK_UNDER_WAY: ("False", Reason.BELOW_THRESHOLD),
}
"""Status and reason of QualityVerified for what serves; any other decision not to roll back is RollbackBlocked."""
_QUIET = frozenset({RollbackReason.STEADY, RollbackReason.CONFIRMING})
_REPORTED_ELSEWHERE = frozenset(
    {RollbackReason.ALERT_ONLY, RollbackReason.ROLLOUT_UNDER_WAY, RollbackReason.ACK_UNDER_WAY}
)
"""Reasons that Progressing does not report: the user's own choices, and a rollout that it reports otherwise."""
_MANUAL = frozenset({RollbackReason.ALERT_ONLY, RollbackReason.COOLDOWN, RollbackReason.LAST_THAT_SERVES})
"""Reasons for which the operator moves nothing, but a person can roll back manually."""
_RUNBOOKS: Mapping[RollbackReason, str] = {
    RollbackReason.CHANGED: metrics.ALERT_CHANGED,
    RollbackReason.SERVER_ERRORS: metrics.ALERT_SERVER_ERRORS,
    RollbackReason.SUITE_MISMATCH: metrics.ALERT_SUITE_MISMATCH,
}


def derive_quality(outcome: BreachOutcome, target: str) -> Finding | None:
    """Return QualityVerified where a rollback or an accuracy drop decides it; None: neither does.

    `target`: what the spec asks for. An accuracy drop of what serves comes before the gate of another revision.
    """
    response = outcome.response
    if outcome.spec_rollback is not None:
        more = (
            f". The accuracy of revision {outcome.current} dropped as well: {response.reason}"
            if outcome.drop.now and response.reason not in _QUIET
            else ""
        )
        return Finding("False", Reason.ROLLED_BACK, _describe_rollback(target, outcome.spec_rollback) + more)
    if response.reason in _QUIET:
        return None
    if outcome.is_only_requested and response.reason not in (
        RollbackReason.SUITE_MISMATCH,
        RollbackReason.SERVER_ERRORS,
        RollbackReason.CHANGED,
        RollbackReason.ONE_BAD_POD,
    ):
        return None
    status, reason = _REASONS.get(response.reason, ("False", Reason.ROLLBACK_BLOCKED))
    if response.action is Action.QUARANTINE:
        status = "False"
    if target != outcome.current and status != "False":
        return None
    name = f"{response.reason}: " if reason is Reason.ROLLBACK_BLOCKED else ""
    figures = f"Revision {outcome.current}: {outcome.drop.text}; " if outcome.drop.text else ""
    text = append_remedy(
        f"{figures}{name}{describe_decision(outcome)}", Remedy.READ_RUNBOOK, url=choose_runbook(outcome)
    )
    return Finding(status, reason, text)


def describe_decision(outcome: BreachOutcome) -> str:
    """Return the decision, the progress of its control, and whether a manual rollback is possible."""
    response = outcome.response
    if response.reason is RollbackReason.CONTROL_RUNNING and outcome.control_progress:
        return f"{response.message}; {outcome.control_progress}"
    if response.reason not in _MANUAL:
        return response.message
    manual = eligibility.describe_manual_rollback(outcome.rollback_target, outcome.rollback_blockers)
    if outcome.rollback_target:
        manual = append_remedy(manual, Remedy.ROLL_BACK_FASTER, ". ", target=outcome.rollback_target)
    return f"{response.message}; {manual}"


def derive_progress(outcome: BreachOutcome, target: str) -> Finding | None:
    """Return Progressing while a rollback is under way, done or blocked; None: it is none of these."""
    response = outcome.response
    if response.action in (Action.CONTROL, Action.SWITCH):
        return Finding("True", Reason.ROLLING_BACK, describe_decision(outcome))
    is_blocked = response.action in (Action.BLOCKED, Action.PAGE) and response.reason not in _REPORTED_ELSEWHERE
    if is_blocked and (response.revision or outcome.is_only_requested or target != outcome.current):
        return Finding("False", Reason.ROLLBACK_BLOCKED, f"{response.reason}: {describe_decision(outcome)}")
    if outcome.spec_rollback is not None:
        return Finding("False", Reason.ROLLED_BACK, f"Revision {target} was rolled back; see QualityVerified")
    return None


def _describe_rollback(target: str, record: RollbackRecord) -> str:
    is_request = record.cause == USER_REQUEST
    why = (
        f"the rollback was requested by {record.fell.text}"
        if is_request
        else f"its accuracy dropped: {record.fell.text}"
    )
    return (
        f"Revision {target} was rolled back to {record.to} at {format_timestamp(record.switched_at or 0.0)} and is not"
        f" redeployed automatically. Change the spec, or use {word(Remedy.ACKNOWLEDGE)} to gate {target} again."
        f" Cause: {why}"
    )


def choose_runbook(outcome: BreachOutcome) -> str:
    """Return the URL of the runbook."""
    why, is_blocked = outcome.response.reason, outcome.response.action in (Action.BLOCKED, Action.PAGE)
    page = _RUNBOOKS.get(why, metrics.ALERT_ROLLBACK_BLOCKED if is_blocked else metrics.ALERT_BELOW_THRESHOLD)
    if (outcome.spec_rollback is not None and why in _QUIET) or (
        outcome.is_only_requested and not is_blocked and why not in _RUNBOOKS
    ):
        page = metrics.ALERT_ROLLED_BACK
    elif why is RollbackReason.ALERT_ONLY:
        page = metrics.ALERT_BELOW_THRESHOLD
    return outcome.alerts.build_runbook_url(page)


def build_incident(outcome: BreachOutcome, target: str, before: Json, now: float) -> Json | None:
    """Return `status.incident`; None: there is none. `before` is the previous status, which has the start time."""
    target_record, response = outcome.spec_rollback, outcome.response
    if response.reason in _QUIET and target_record is None and not outcome.quarantined_pods:
        return None
    is_over = response.reason in _QUIET and target_record is not None
    revision, record = (target, target_record) if is_over else (outcome.current, outcome.rollback_record)
    drop = record.fell if record else outcome.drop
    old = before.get("incident") or {}
    incident = {
        "since": old["since"] if old.get("revision") == revision and "since" in old else format_timestamp(now),
        "revision": revision,
        "reason": ROLLED_BACK if is_over else response.reason.value,
        "before": drop.before[:MAX_COUNT],
        "now": drop.now[:MAX_COUNT],
        "lost": list(drop.lost),
        "tried": [
            line[:MAX_TRIED]
            for line in (*_list_quarantines(outcome.quarantined_pods), *(_list_steps(record) if record else ()))
        ],
        "next": (
            _describe_rollback(target, target_record) if is_over and target_record else describe_decision(outcome)
        )[:MAX_NEXT],
        "runbook": choose_runbook(outcome),
    }
    return {key: value for key, value in incident.items() if value}


def _list_quarantines(pods: tuple[PodFacts, ...]) -> list[str]:
    records = [(pod.name, record) for pod in pods if (record := quarantine.read(pod))]
    return [
        f"{format_timestamp(q.since)} pod {name} was quarantined, until {format_timestamp(q.until)}: {q.why}"
        for name, q in records
    ]


def _list_steps(record: RollbackRecord) -> list[str]:
    cause = (
        f"requested by {record.fell.text}" if record.cause == USER_REQUEST else "accuracy dropped below the threshold"
    )
    steps = [f"{format_timestamp(record.started_at)} revision {record.to} began to repeat the suite: {cause}"]
    if record.control is not None:
        result = "passed" if record.control is Verdict.PASS else "failed"
        steps.append(f"revision {record.to} {result} the suite again: {record.said}")
    if record.blocked:
        steps.append(f"the monitor of revision {record.to} could not score it: {record.blocked}")
    if record.switched_at is not None:
        steps.append(f"{format_timestamp(record.switched_at)} traffic went back to revision {record.to}")
    return steps
