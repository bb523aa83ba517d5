"""What is done about an accuracy drop: nothing yet, quarantine of one pod, a control pass, a switch back, a page.

Pure: called by the operator's plan with what it observed. A chain of named checks over one `DeploymentHealth`; the
first that returns a response decides. Every reason not to roll back is distinct and names the remedy. No message has
a figure that drifts, so that the same state always has the same message.
"""

from collections.abc import Callable
from typing import Final

from r1plus_contract.names import CONTAINER_TRITON
from r1plus_contract.remedies import Remedy, word
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_policies.rollback.response import (
    CANDIDATE_SECONDS,
    NO_ROOM_SECONDS,
    Action,
    BreachResponse,
    DeploymentHealth,
    OnBreach,
    PastRevision,
    RollbackReason,
)

MOST_NAMED_PODS: Final = 5
"""Pods that the text about an outage names."""
Check = Callable[[DeploymentHealth], BreachResponse | None]


def respond(health: DeploymentHealth) -> BreachResponse:
    """Return the response. The last check always has one."""
    response = next(response for check in CHECKS if (response := check(health)) is not None)
    if health.not_tenant and response.action in (Action.QUARANTINE, Action.CONTROL, Action.SWITCH):
        text = f"the operator moves nothing, because the namespace is not a tenant ({health.not_tenant})"
        text += f". Once it is one: {response.message}"
        control_revision = health.control.revision if health.control else ""
        return BreachResponse(Action.BLOCKED, RollbackReason.NAMESPACE_NOT_TENANT, text, revision=control_revision)
    return response


def check_steady(health: DeploymentHealth) -> BreachResponse | None:
    """Respond that nothing is wrong: no alarm, no request, no control pass."""
    bad = (WatchStanding.CONFIRMING, WatchStanding.CHANGED, WatchStanding.BELOW_THRESHOLD, WatchStanding.ERRORS)
    alarms = any(p.standing in bad for p in health.pods) or health.pool.without_worst >= 1
    if alarms or health.control or health.rollback_request:
        return None
    return BreachResponse(Action.NOTHING, RollbackReason.STEADY, f"Revision {health.current} answers as at its gate")


def check_scorer(health: DeploymentHealth) -> BreachResponse | None:
    """Respond where scorer or suite score otherwise than when the answers were recorded: no score counts."""
    if health.replay_passed is not False:
        return None
    text = (
        "accuracy cannot be measured: recorded answers no longer get their recorded scores, so scorer or suite changed."
        " Traffic stays where it is; restore the suite (`r1plus suite verify FOLDER`) or the monitor's image"
    )
    return BreachResponse(Action.PAGE, RollbackReason.SUITE_MISMATCH, text)


def check_confirmed(health: DeploymentHealth) -> BreachResponse | None:
    """Wait for the confirming sweep of an alarm; respond also where it found accuracy above the threshold."""
    if health.is_decided or health.awaits_ack:
        return None
    is_counting = any(p.standing is WatchStanding.CONFIRMING for p in health.pods)
    if is_counting or (health.pool.below is None and health.pool.without_worst >= 1):
        text = (
            f"Revision {health.current} raised an alarm; its monitor now asks the whole suite to count the lost items"
        )
        return BreachResponse(Action.NOTHING, RollbackReason.CONFIRMING, text)
    text = (
        f"Revision {health.current} answers differently than at its gate, but still above its threshold. Traffic stays"
        f" where it is; see which items were lost, then {word(Remedy.ACKNOWLEDGE)} to accept the new behaviour"
    )
    return BreachResponse(Action.NOTHING, RollbackReason.CHANGED, text)


def check_outage(health: DeploymentHealth) -> BreachResponse | None:
    """Report errors without wrong answers as an outage where the operator moves nothing anyway."""
    may_act = health.on_breach is OnBreach.ROLLBACK and not health.is_paused
    return None if may_act or not health.has_only_errors else _report_outage(health)


def check_paused(health: DeploymentHealth) -> BreachResponse | None:
    """Move neither a pod nor traffic while people work on the deployment."""
    if not health.is_paused:
        return None
    remedy = f"run {word(Remedy.RESUME)} to let the operator act again"
    text = f"spec.rollout.paused: the operator neither rolls back nor removes a bad pod; {remedy}"
    return BreachResponse(Action.BLOCKED, RollbackReason.PAUSED, text)


def check_alert_only(health: DeploymentHealth) -> BreachResponse | None:
    """Move nothing where the user wants alerts only."""
    if health.rollback_request or health.on_breach is OnBreach.ROLLBACK:
        return None
    text = (
        "spec.accuracy.onBreach is Alert, so the operator does not roll back; set it to Rollback to allow automatic"
        " rollback"
    )
    return BreachResponse(Action.BLOCKED, RollbackReason.ALERT_ONLY, text)


def check_acknowledged(health: DeploymentHealth) -> BreachResponse | None:
    """Wait for the sweeps that follow an acknowledgement: only a Pass ends the drop that was counted before it."""
    if not health.awaits_ack:
        return None
    text = (
        f"the accuracy drop of revision {health.current} was acknowledged, and its monitors repeat the gate's sweeps."
        " Traffic stays where it is; a drop that has not ended within spec.rollout.deadline of the acknowledgement is"
        f" answered again. Run {word(Remedy.ROLL_BACK)} to go back now"
    )
    return BreachResponse(Action.BLOCKED, RollbackReason.ACK_UNDER_WAY, text, recheck_after=health.ack_seconds_left)


def check_single_pod(health: DeploymentHealth) -> BreachResponse | None:
    """Quarantine a single bad pod: its node, its GPU or its copy is at fault, not its revision."""
    if health.control or health.rollback_request or health.has_revision_dropped:
        return None
    if (
        health.pods_below_threshold
        and all(p.is_quarantined for p in health.pods_below_threshold)
        and not health.erring_pods
    ):
        pod_name = health.pods_below_threshold[0].name
        text = f"Pod {pod_name} is in quarantine: no traffic, kept for inspection; the other pods are healthy"
        return BreachResponse(Action.NOTHING, RollbackReason.ONE_BAD_POD, text)
    pod = health.bad_pod
    if pod is None:
        return None
    if any(p.is_quarantined for p in health.pods):
        text = (
            f"Pod {pod.name} fails too many probes, but another pod is in quarantine already; check both nodes, then"
            " delete a pod"
        )
        return BreachResponse(Action.BLOCKED, RollbackReason.ALREADY_QUARANTINED, text)
    if not pod.serves:
        text = f"Pod {pod.name} fails too many probes and has no traffic; delete it to replace it"
        return BreachResponse(Action.NOTHING, RollbackReason.ONE_BAD_POD, text)
    if not any(p.serves for p in health.pods if p is not pod):
        text = (
            f"Pod {pod.name} fails too many probes but is the only Ready one, so it keeps its traffic until another pod"
            f" is Ready; {word(Remedy.ADD_POD)}"
        )
        wait = health.seconds_until_alone
        return BreachResponse(Action.BLOCKED, RollbackReason.LAST_THAT_SERVES, text, recheck_after=wait)
    text = f"Only pod {pod.name} fails too many probes: it is taken out of traffic and replaced; check its node"
    return BreachResponse(Action.QUARANTINE, RollbackReason.ONE_BAD_POD, text, pod=pod.name)


def check_only_errors(health: DeploymentHealth) -> BreachResponse | None:
    """Move nothing where several pods err and none answers wrongly: mostly load, which another revision would have
    too."""
    return _report_outage(health) if health.has_only_errors else None


def _report_outage(health: DeploymentHealth) -> BreachResponse:
    """Return the response to pods that err, of which none answers wrongly."""
    pods = ", ".join(sorted(p.name for p in health.erring_pods)[:MOST_NAMED_PODS])
    text = (
        f"this is an outage, not an accuracy drop: too many probes of revision {health.current} fail or time out, in"
        f" {len(health.erring_pods)} of {len(health.pods)} pods ({pods}). Traffic stays where it is, since load is the"
        f" usual cause; check {word(Remedy.READ_LOG, container=CONTAINER_TRITON)}, {word(Remedy.LOWER_LOAD)}"
    )
    return BreachResponse(Action.NOTHING, RollbackReason.SERVER_ERRORS, text)


def check_other_pods(health: DeploymentHealth) -> BreachResponse | None:
    """Move nothing where no other pod shows whether pod or revision is at fault."""
    if health.control or health.rollback_request or health.has_revision_dropped:
        return None
    text = (
        f"pod {health.pods_below_threshold[0].name} fails too many probes and no other pod answers, so pod or revision"
        " may be at fault; check why the others are not Ready"
    )
    wait = health.seconds_until_alone
    return BreachResponse(Action.BLOCKED, RollbackReason.LAST_THAT_SERVES, text, recheck_after=wait)


def check_single_node(health: DeploymentHealth) -> BreachResponse | None:
    """Move nothing where pods run on several nodes and all bad ones share one: the node is at fault."""
    if health.control or health.rollback_request or not health.pods_below_threshold:
        return None
    judged = [p for p in health.pods if p.serves or p.has_dropped]
    nodes, bad = {p.node for p in judged if p.node}, {p.node for p in health.pods_below_threshold}
    pool_alone = health.pool.without_worst >= 1 and health.pool.below is True
    if len(nodes) < 2 or len(bad) > 1 or pool_alone:
        return None
    text = (
        f"all bad pods are on node {next(iter(bad))} and pods on other nodes are healthy, so the revision is not the"
        " cause; drain that node"
    )
    return BreachResponse(Action.BLOCKED, RollbackReason.ONE_NODE, text)


def check_pinned(health: DeploymentHealth) -> BreachResponse | None:
    """Move no traffic past a pin."""
    if not health.is_pinned:
        return None
    remedy = f"run {word(Remedy.UNPIN)} to release it"
    text = f"spec.rollout.pinned holds traffic at revision {health.current}; {remedy}"
    return BreachResponse(Action.BLOCKED, RollbackReason.PINNED, text)


def check_rollout(health: DeploymentHealth) -> BreachResponse | None:
    """Wait a while for a candidate from before the drop: it may be the remedy, and there is one candidate at a time."""
    seconds = health.seconds_for_candidate
    if seconds <= 0 or health.control:
        return None
    text = (
        f"a candidate of the current spec is in its gate; the rollback begins {CANDIDATE_SECONDS / 60:g} minutes after"
        " the candidate at the latest"
    )
    return BreachResponse(Action.BLOCKED, RollbackReason.ROLLOUT_UNDER_WAY, text, recheck_after=seconds)


def check_cooldown(health: DeploymentHealth) -> BreachResponse | None:
    """Allow no second rollback within the cooldown: then more than the revision is at fault."""
    if health.control or health.rollback_request or health.last_rollback is None:
        return None
    seconds_left = health.last_rollback + health.cooldown - health.now
    if seconds_left <= 0:
        return None
    until = format_timestamp(health.last_rollback + health.cooldown)
    text = (
        f"already rolled back within the last {health.cooldown / 60:g} minutes, so not again before {until}; check"
        " nodes, drivers and the suite"
    )
    return BreachResponse(Action.BLOCKED, RollbackReason.COOLDOWN, text, recheck_after=seconds_left)


def check_control_result(health: DeploymentHealth) -> BreachResponse | None:
    """Respond to the result of the control pass."""
    control = health.control
    if control is not None and control.blocked_reason:
        text = (
            f"rollback target {control.revision} cannot be tested: its monitor does not give recorded answers their"
            f" recorded scores ({control.blocked_reason}). Traffic stays where it is; restore the suite"
            f" (`r1plus suite verify FOLDER`) or the monitor's image, then {word(Remedy.ACKNOWLEDGE)}"
        )
        return BreachResponse(Action.PAGE, RollbackReason.SUITE_MISMATCH, text)
    if control is None or control.verdict is None:
        return None
    if control.verdict is Verdict.PASS:
        text = f"Revision {control.revision} passed the suite again ({control.summary}); traffic goes back to it"
        return BreachResponse(Action.SWITCH, RollbackReason.CONTROL_PASSED, text, revision=control.revision)
    text = (
        f"Rollback target {control.revision} fails the suite as well ({control.summary}), so the revision is not the"
        " cause. Traffic stays where it is; check what both share: node, driver, image or the suite"
    )
    return BreachResponse(
        Action.PAGE, RollbackReason.ROLLBACK_TARGET_ALSO_FAILED, f"{text}; then {word(Remedy.ACKNOWLEDGE)} to try again"
    )


def check_control_wait(health: DeploymentHealth) -> BreachResponse | None:
    """Respond to a control pass without a result: running, waiting for room, or overdue."""
    control = health.control
    if control is None:
        return None
    age = health.now - control.since
    if age >= health.deadline:
        text = (
            f"rollback target {control.revision} did not finish the suite within spec.rollout.deadline"
            f"{': ' + control.no_room if control.no_room else ''}; fix what delayed it, then"
            f" {word(Remedy.ACKNOWLEDGE)} to try again"
        )
        return BreachResponse(Action.BLOCKED, RollbackReason.ROLLBACK_TARGET_OVERDUE, text)
    if control.no_room and age >= NO_ROOM_SECONDS:
        text = (
            f"no node has room for rollback target {control.revision}, which must pass the suite before traffic goes"
            f" back; free capacity, or set spec.rollout.strategy: InPlace ({control.no_room})"
        )
        seconds_left = health.deadline - age
        return BreachResponse(
            Action.BLOCKED, RollbackReason.NO_CAPACITY, text, revision=control.revision, recheck_after=seconds_left
        )
    text = f"Revision {control.revision} repeats the suite without traffic; if it passes, traffic goes back to it"
    seconds_left = (NO_ROOM_SECONDS if control.no_room else health.deadline) - age
    return BreachResponse(
        Action.CONTROL, RollbackReason.CONTROL_RUNNING, text, revision=control.revision, recheck_after=seconds_left
    )


def start_control(health: DeploymentHealth) -> BreachResponse | None:
    """Start the control pass of the rollback target; always returns a response."""
    target = _choose_target(health)
    if isinstance(target, BreachResponse):
        return target
    if target.name in health.earlier_targets and not health.rollback_request:
        text = (
            f"revision {health.current} was already rolled back to {target.name} once, so not again automatically."
            f" Change the spec, or run {word(Remedy.ACKNOWLEDGE)} to allow it"
        )
        return BreachResponse(Action.BLOCKED, RollbackReason.ALREADY_ROLLED_BACK, text)
    text = f"Revision {target.name} starts without traffic and repeats the suite; if it passes, traffic goes back to it"
    return BreachResponse(Action.CONTROL, RollbackReason.CONTROL_RUNNING, text, revision=target.name)


def _choose_target(health: DeploymentHealth) -> PastRevision | BreachResponse:
    """Choose the newest revision that passed this suite, has baked and can be started; name the first unmet
    criterion."""
    remedy = "set spec.engine, batch or context to values that pass the gate"

    def block(what: str, why: RollbackReason = RollbackReason.NO_LAST_GOOD) -> BreachResponse:
        return BreachResponse(Action.BLOCKED, why, f"there is no rollback target: {what}; {remedy}")

    candidates = [r for r in health.past if r.name != health.current]
    if not candidates:
        return block("no revision served before this one")
    if not (candidates := [r for r in candidates if r.has_passed]):
        return block("no earlier revision has passed the current suite")
    if not (candidates := [r for r in candidates if not r.given_up]):
        return block("every earlier revision with a Pass was itself rolled back")
    if not (candidates := [r for r in candidates if r.served_seconds >= health.bake]):
        return block(f"no earlier revision with a Pass carried traffic for {health.bake:g} s")
    if not (candidates := [r for r in candidates if r.has_engine]):
        engine_replaced = "the engine of every revision with a Pass was replaced by another of the same name"
        return block(engine_replaced, RollbackReason.ARTIFACT_GONE)
    if not (candidates := [r for r in candidates if r.is_placed]):
        not_placed = "spec.placement of the R1PlusTenant no longer allows the nodes of any revision with a Pass"
        return block(not_placed, RollbackReason.PLACEMENT_NOT_ALLOWED)
    if not (candidates := [r for r in candidates if r.supports_control]):
        too_old = "the monitor of every revision with a Pass is of an older version, which cannot repeat the suite"
        return block(too_old, RollbackReason.MONITOR_TOO_OLD)
    return max(candidates, key=lambda r: (r.promoted_at, r.name))


CHECKS: Final[tuple[Check, ...]] = (
    check_steady,
    check_scorer,
    check_confirmed,
    check_outage,
    check_paused,
    check_alert_only,
    check_acknowledged,
    check_single_pod,
    check_only_errors,
    check_other_pods,
    check_single_node,
    check_pinned,
    check_rollout,
    check_control_result,
    check_control_wait,
    check_cooldown,
    start_control,
)
"""In order: is there a problem, can it be trusted, may anything be done, a pod before a revision, then the rollback."""
