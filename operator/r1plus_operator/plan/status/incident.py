"""A fall as it is told: the conditions it decides, and `status.incident`, which `r1plus status` reads out.

What fell, from what to what, which items by stratum, what was tried, what comes next, where the runbook is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from r1plus_contract import metrics
from r1plus_contract.requests import Verb, format_command
from r1plus_contract.verdict import Verdict
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.observation import Json, PodFacts
from r1plus_operator.plan.revision.record import rfc3339
from r1plus_operator.plan.revision.rollback_record import REQUESTED, Fell, Record
from r1plus_operator.plan.rollback import eligibility, quarantine
from r1plus_operator.plan.settings import AlertTerms
from r1plus_policies.rollback.response import Action, Response, Why

ROLLED_BACK = "RolledBack"
MOST_NEXT, MOST_TRIED = 2000, 500
_REASONS: Mapping[Why, tuple[str, Reason]] = {
    Why.CHANGED: ("True", Reason.ACCURACY_CHANGED),
    Why.SERVER_ERRORS: ("Unknown", Reason.SERVER_ERRORS),
    Why.ONE_BAD_POD: ("True", Reason.BAD_POD),
    Why.LAST_THAT_SERVES: ("False", Reason.BAD_POD),
    Why.ALREADY_QUARANTINED: ("False", Reason.BAD_POD),
    Why.CONTROL_RUNNING: ("False", Reason.ROLLING_BACK),
    Why.CONTROL_PASSED: ("False", Reason.ROLLING_BACK),
    Why.SUITE_MISMATCH: ("False", Reason.SUITE_MISMATCH),
    Why.ROLLBACK_TARGET_ALSO_FAILED: ("False", Reason.ROLLBACK_TARGET_ALSO_FAILED),
    Why.ALERT_ONLY: ("False", Reason.BELOW_THRESHOLD),
}
"""What QualityVerified says of the revision that serves; any other way not to go back is RollbackBlocked."""
_QUIET = frozenset({Why.STEADY, Why.CONFIRMING})
_TOLD_ELSEWHERE = frozenset({Why.ALERT_ONLY, Why.ROLLOUT_UNDER_WAY})
"""What bars an answer and is no news of Progressing's: the user's own wish, or a rollout that is told there."""
_BY_HAND = frozenset({Why.ALERT_ONLY, Why.COOLDOWN, Why.LAST_THAT_SERVES})
"""The operator moves nothing, and a person could."""
_RUNBOOKS: Mapping[Why, str] = {
    Why.CHANGED: metrics.ALERT_CHANGED,
    Why.SERVER_ERRORS: metrics.ALERT_SERVER_ERRORS,
    Why.SUITE_MISMATCH: metrics.ALERT_SUITE_MISMATCH,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """What a pass decided about the revision that serves, and what an earlier one did about the revision asked for."""

    serving: str
    response: Response
    fell: Fell
    record: Record | None = None
    """Of the revision that serves: the way back that is under way."""
    returned: Record | None = None
    """Of the revision that the spec asks for: it was gone back from, and is kept from returning."""
    held: tuple[PodFacts, ...] = ()
    """Pods in quarantine."""
    last_good: str = ""
    """The revision to which traffic would go back if somebody asked for it now."""
    lacking: tuple[str, ...] = ()
    """What each earlier revision lacks to be that one."""
    has_dropped: bool = False
    """Whether a pod in traffic was counted below the threshold last."""
    alerts: AlertTerms = field(default_factory=AlertTerms)
    control_progress: str = ""
    """How far the control that is under way is; empty while its monitors do not say."""

    @property
    def only_asked(self) -> bool:
        """A person wants to go back; nothing fell."""
        return not self.fell.now and (self.record is None or self.record.cause == REQUESTED)


def quality(said: Answered, target: str) -> Finding | None:
    """QualityVerified of the revision that the spec asks for; None where the fall does not decide it."""
    response = said.response
    if said.returned is not None:
        more = (
            f". {said.serving} has fallen as well: {response.why}"
            if said.fell.now and response.why not in _QUIET
            else ""
        )
        return Finding("False", Reason.ROLLED_BACK, _gone_back(target, said.returned) + more)
    if target != said.serving or response.why in _QUIET:
        return None
    if said.only_asked and response.why not in (Why.SUITE_MISMATCH, Why.SERVER_ERRORS, Why.CHANGED, Why.ONE_BAD_POD):
        return None
    status, reason = _REASONS.get(response.why, ("False", Reason.ROLLBACK_BLOCKED))
    if response.action is Action.QUARANTINE:
        status = "False"
    name = f"{response.why}: " if reason is Reason.ROLLBACK_BLOCKED else ""
    figures = f"Revision {said.serving}: {said.fell.text}; " if said.fell.text else ""
    return Finding(status, reason, f"{figures}{name}{words(said)}; runbook: {runbook(said)}")


def words(said: Answered) -> str:
    """The decision, how far its control is, and whether somebody could go back by hand where the operator does not."""
    response = said.response
    if response.why is Why.CONTROL_RUNNING and said.control_progress:
        return f"{response.message}; {said.control_progress}"
    if response.why not in _BY_HAND:
        return response.message
    by_hand = eligibility.told(said.last_good, said.lacking)
    if said.last_good:
        sweeps = f"It sweeps {said.last_good} again first, which takes minutes"
        by_hand += f". {sweeps}; applying the spec of {said.last_good} again sweeps nothing while its Pass counts"
    return f"{response.message}; {by_hand}"


def progress(said: Answered, target: str) -> Finding | None:
    """Progressing, where a way back is under way, done or barred."""
    response = said.response
    if response.action in (Action.CONTROL, Action.SWITCH):
        return Finding("True", Reason.ROLLING_BACK, words(said))
    barred = response.action in (Action.BLOCKED, Action.PAGE) and response.why not in _TOLD_ELSEWHERE
    if barred and (response.revision or said.only_asked or target != said.serving):
        return Finding("False", Reason.ROLLBACK_BLOCKED, f"{response.why}: {words(said)}")
    if said.returned is not None:
        return Finding("False", Reason.ROLLED_BACK, f"Revision {target} was rolled back from; see QualityVerified")
    return None


def _gone_back(target: str, record: Record) -> str:
    requested = record.cause == REQUESTED
    why = f"the rollback was asked for by {record.fell.text}" if requested else f"it fell: {record.fell.text}"
    return (
        f"Revision {target} does not come back: {why}; traffic went back to {record.to} at"
        f" {rfc3339(record.switched_at or 0.0)}. Change the spec, or {format_command(Verb.ACK)} to let {target} be"
        " gated anew"
    )


def runbook(said: Answered) -> str:
    """Where it is written what to do."""
    why, blocked = said.response.why, said.response.action in (Action.BLOCKED, Action.PAGE)
    page = _RUNBOOKS.get(why, metrics.ALERT_ROLLBACK_BLOCKED if blocked else metrics.ALERT_BELOW_THRESHOLD)
    if (said.returned is not None and why in _QUIET) or (said.only_asked and not blocked and why not in _RUNBOOKS):
        page = metrics.ALERT_ROLLED_BACK
    elif why is Why.ALERT_ONLY:
        page = metrics.ALERT_BELOW_THRESHOLD
    return said.alerts.build_runbook_url(page)


def told(said: Answered, target: str, before: Json, now: float) -> Json | None:
    """`status.incident`; None while there is nothing to tell. `before`: the status that stands, for since when."""
    returned, response = said.returned, said.response
    if response.why in _QUIET and returned is None and not said.held:
        return None
    over = response.why in _QUIET and returned is not None
    revision, record = (target, returned) if over else (said.serving, said.record)
    fell = record.fell if record else said.fell
    old = before.get("incident") or {}
    found = {
        "since": old["since"] if old.get("revision") == revision and "since" in old else rfc3339(now),
        "revision": revision,
        "reason": ROLLED_BACK if over else response.why.value,
        "before": fell.before,
        "now": fell.now,
        "lost": list(fell.lost),
        "tried": [line[:MOST_TRIED] for line in (*_held(said.held), *(_steps(record) if record else ()))],
        "next": (_gone_back(target, returned) if over and returned else words(said))[:MOST_NEXT],
        "runbook": runbook(said),
    }
    return {key: value for key, value in found.items() if value}


def _held(pods: tuple[PodFacts, ...]) -> list[str]:
    held = [(pod.name, found) for pod in pods if (found := quarantine.read(pod))]
    return [f"{rfc3339(q.since)} pod {name} was quarantined, until {rfc3339(q.until)}: {q.why}" for name, q in held]


def _steps(record: Record) -> list[str]:
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
