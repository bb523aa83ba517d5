"""What is done when a served revision falls: nothing yet, one pod out of traffic, a control, a switch back, a page.

Pure: called by the operator's plan with what it observed (ACCURACY.md, section 4). A chain of named checks over one
`Given`; the first that speaks decides. Every way not to roll back has a reason of its own and names the remedy. No
message holds a figure that drifts, so that the same situation is always told in the same words.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from r1plus_contract.requests import Verb, format_command
from r1plus_contract.verdict import Standing, Verdict
from r1plus_policies.rollback.response import NO_ROOM_SECONDS, Action, Given, OnBreach, PastRevision, Response, Why

Check = Callable[[Given], Response | None]


def respond(given: Given) -> Response:
    """Decide. Something always speaks: the last check has an answer to everything."""
    found = next(found for check in CHECKS if (found := check(given)) is not None)
    if given.not_tenant and found.action in (Action.QUARANTINE, Action.CONTROL, Action.SWITCH):
        text = f"nothing is moved in a namespace that is no tenant ({given.not_tenant}); otherwise: {found.message}"
        started = given.control.revision if given.control else ""
        return Response(Action.BLOCKED, Why.NAMESPACE_NOT_TENANT, text, revision=started)
    return found


def steady(given: Given) -> Response | None:
    """Nothing alarms, nobody asks, nothing is under way."""
    bad = (Standing.CONFIRMING, Standing.CHANGED, Standing.BELOW_THRESHOLD, Standing.ERRORS)
    alarms = any(p.standing in bad for p in given.pods) or given.pool.without_worst >= 1
    if alarms or given.control or given.requested:
        return None
    return Response(Action.NOTHING, Why.STEADY, f"Revision {given.current} answers as it did at its gate")


def scorer_changed(given: Given) -> Response | None:
    """The scorer or the suite judges otherwise than when the answers were recorded: nothing it says counts."""
    if given.replayed is not False:
        return None
    text = (
        "recorded answers no longer get their recorded scores: the scorer or the suite has changed under an unchanged"
        " hash, so nothing is moved; restore the suite (`r1plus suite verify`) or the monitor's image"
    )
    return Response(Action.PAGE, Why.SUITE_MISMATCH, text)


def not_confirmed(given: Given) -> Response | None:
    """An alarm says that something changed; whether too much is counted first."""
    if given.control or given.requested or given.fallen or given.revision_fell or given.erring:
        return None
    counting = any(p.standing is Standing.CONFIRMING for p in given.pods)
    if counting or (given.pool.below is None and given.pool.without_worst >= 1):
        text = f"Revision {given.current} has alarmed; a sweep counts how many items are lost under what holds now"
        return Response(Action.NOTHING, Why.CONFIRMING, text)
    text = (
        f"Revision {given.current} answers otherwise than at its gate and is still above its threshold: nothing is"
        f" moved; see which items were lost, then {format_command(Verb.ACK)} to take the new behaviour as the measure"
    )
    return Response(Action.NOTHING, Why.CHANGED, text)


def paused(given: Given) -> Response | None:
    """People work on the deployment by hand: neither a pod nor traffic is moved."""
    if not given.paused:
        return None
    remedy = f"{format_command(Verb.RESUME)} lets the operator act again"
    text = f"spec.rollout.paused: neither a pod nor traffic is moved; {remedy}"
    return Response(Action.BLOCKED, Why.PAUSED, text)


def alert_only(given: Given) -> Response | None:
    """The user wants to be told, and no more."""
    if given.requested or given.on_breach is OnBreach.ROLLBACK:
        return None
    text = (
        "spec.accuracy.onBreach is Alert, so nothing is moved; spec.accuracy.onBreach: Rollback lets the operator go"
        " back where it can"
    )
    return Response(Action.BLOCKED, Why.ALERT_ONLY, text)


def one_bad_pod(given: Given) -> Response | None:
    """One pod alone is at fault: its node, its GPU, its copy. Its revision is not."""
    if given.control or given.requested or given.revision_fell:
        return None
    if given.fallen and all(p.quarantined for p in given.fallen) and not given.erring:
        text = f"Pod {given.fallen[0].name} is in quarantine; the other pods of revision {given.current} are not bad"
        return Response(Action.NOTHING, Why.ONE_BAD_POD, text)
    pod = given.bad_pod
    if pod is None:
        return None
    if any(p.quarantined for p in given.pods):
        text = f"Pod {pod.name} is bad, and one pod is in quarantine already; look at both nodes, then delete a pod"
        return Response(Action.BLOCKED, Why.ALREADY_QUARANTINED, text)
    if not pod.serves:
        text = f"Pod {pod.name} is bad and not in traffic; delete it, so that another one is made"
        return Response(Action.NOTHING, Why.ONE_BAD_POD, text)
    if not any(p.serves for p in given.pods if p is not pod):
        text = f"Pod {pod.name} is bad and the only one that is Ready; it is quarantined once another one is"
        return Response(Action.BLOCKED, Why.LAST_THAT_SERVES, text)
    text = f"Pod {pod.name} alone is bad: it is taken out of traffic and replaced"
    return Response(Action.QUARANTINE, Why.ONE_BAD_POD, text, pod=pod.name)


def only_errors(given: Given) -> Response | None:
    """Several pods err and none answers wrongly: load, most often, which another revision would bear no better."""
    if given.control or given.requested or given.revision_fell or given.fallen:
        return None
    text = (
        f"Engines of revision {given.current} fail or time out in more than one pod, or in the only one: nothing is"
        " moved; see `kubectl logs -c triton` and the load, and raise spec.replicas or lower the batch"
    )
    return Response(Action.NOTHING, Why.SERVER_ERRORS, text)


def not_the_revision(given: Given) -> Response | None:
    """One pod fell and no other tells whether the revision did: a pod is missing, or errs instead of answering."""
    if given.control or given.requested or given.revision_fell:
        return None
    text = (
        f"pod {given.fallen[0].name} is bad, and no other pod answers, by which pod and revision could be told apart;"
        " see why the others are not Ready"
    )
    return Response(Action.BLOCKED, Why.LAST_THAT_SERVES, text)


def one_node(given: Given) -> Response | None:
    """Where pods are spread over nodes and all bad ones share one, the node is at fault."""
    if given.control or given.requested or not given.fallen:
        return None
    nodes, bad = {p.node for p in given.pods if p.node}, {p.node for p in given.fallen}
    pool_alone = given.pool.without_worst >= 1 and given.pool.below is True
    if len(nodes) < 2 or len(bad) > 1 or pool_alone:
        return None
    text = (
        f"every pod that fell is on node {next(iter(bad))}, pods on other nodes did not; drain that node:"
        " another revision would fall there as well"
    )
    return Response(Action.BLOCKED, Why.ONE_NODE, text)


def pinned(given: Given) -> Response | None:
    """Nobody moves traffic past a pin."""
    if not given.pinned:
        return None
    text = f"spec.rollout.pinned holds traffic at revision {given.current}; {format_command(Verb.UNPIN)} lets it go"
    return Response(Action.BLOCKED, Why.PINNED, text)


def rollout_first(given: Given) -> Response | None:
    """The spec's own candidate may be the very remedy; both at once would be two candidates."""
    if not given.rollout_under_way or given.control:
        return None
    text = "a candidate that the spec asks for is being gated; it is waited for, and refused or not, looked at again"
    return Response(Action.BLOCKED, Why.ROLLOUT_UNDER_WAY, text)


def cooling_down(given: Given) -> Response | None:
    """Two rollbacks within the hour: not the revisions are at fault, or not they alone."""
    if given.control or given.requested or given.last_rollback is None:
        return None
    left = given.last_rollback + given.cooldown - given.now
    if left <= 0:
        return None
    until = datetime.fromtimestamp(given.last_rollback + given.cooldown, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = (
        f"this deployment was rolled back within the last {given.cooldown / 60:g} minutes, so not before {until};"
        " look at nodes, drivers and the suite"
    )
    return Response(Action.BLOCKED, Why.COOLDOWN, text, look_again=left)


def control_done(given: Given) -> Response | None:
    """What the control said."""
    control = given.control
    if control is not None and control.blocked:
        text = (
            f"the control of revision {control.revision} can decide nothing, since its monitor scores otherwise than"
            f" when the suite was recorded ({control.blocked}), so nothing is moved; restore the suite"
            f" (`r1plus suite verify`) or the monitor's image, then {format_command(Verb.ACK)}"
        )
        return Response(Action.PAGE, Why.SUITE_MISMATCH, text)
    if control is None or control.verdict is None:
        return None
    if control.verdict is Verdict.PASS:
        text = f"Revision {control.revision} passed the suite anew ({control.said}); traffic goes back to it"
        return Response(Action.SWITCH, Why.CONTROL_PASSED, text, revision=control.revision)
    text = (
        f"Revision {control.revision}, the last good one, was swept anew and fails as well ({control.said}): not the"
        " revision is at fault but what both share: node, driver, image or the suite. Nothing is moved"
    )
    return Response(
        Action.PAGE, Why.ROLLBACK_TARGET_ALSO_FAILED, f"{text}; {format_command(Verb.ACK)} lets it be tried again"
    )


def control_waits(given: Given) -> Response | None:
    """A control without an answer yet: swept, waiting for room, or given up."""
    control = given.control
    if control is None:
        return None
    age = given.now - control.since
    if age >= given.deadline:
        text = (
            f"the control of revision {control.revision} came to no verdict within spec.rollout.deadline"
            f"{': ' + control.no_room if control.no_room else ''}; mend what held it up, then"
            f" {format_command(Verb.ACK)}"
        )
        return Response(Action.BLOCKED, Why.CONTROL_OVERDUE, text)
    if control.no_room and age >= NO_ROOM_SECONDS:
        text = (
            f"revision {control.revision} must be swept anew before traffic goes back to it, and its pod finds no"
            f" room: {control.no_room}; free capacity, or set spec.rollout.strategy: InPlace. It goes on waiting"
        )
        left = given.deadline - age
        return Response(Action.BLOCKED, Why.NO_CAPACITY, text, revision=control.revision, look_again=left)
    text = f"Revision {control.revision} is being swept anew, without traffic; if it passes, traffic goes back to it"
    left = (NO_ROOM_SECONDS if control.no_room else given.deadline) - age
    return Response(Action.CONTROL, Why.CONTROL_RUNNING, text, revision=control.revision, look_again=left)


def last_good(given: Given) -> Response | None:
    """The newest revision that passed this suite, has baked, and can still be started; always speaks."""
    found = _choose(given)
    if isinstance(found, Response):
        return found
    if found.name in given.gone_back_to and not given.requested:
        text = (
            f"revision {given.current} was rolled back to {found.name} before, and came back; once is enough:"
            f" change the spec, or {format_command(Verb.ACK)} to let it happen again"
        )
        return Response(Action.BLOCKED, Why.ALREADY_ROLLED_BACK, text)
    text = f"Revision {found.name} is brought up without traffic and swept anew; if it passes, traffic goes back to it"
    return Response(Action.CONTROL, Why.CONTROL_RUNNING, text, revision=found.name)


def _choose(given: Given) -> PastRevision | Response:
    """Sieve by sieve, so that the answer names the one that nothing passed."""
    remedy = "set spec.engine, batch or context to what passes; its gate decides"

    def none(what: str, why: Why = Why.NO_LAST_GOOD) -> Response:
        return Response(Action.BLOCKED, why, f"there is nothing to go back to: {what}; {remedy}")

    left = [r for r in given.past if r.name != given.current]
    if not left:
        return none("no revision served before this one")
    if not (left := [r for r in left if r.passed]):
        return none("no earlier revision holds a Pass on the suite that is in force")
    if not (left := [r for r in left if not r.given_up]):
        return none("what passed before was itself rolled back from")
    if not (left := [r for r in left if r.served_seconds >= given.bake]):
        return none(f"no earlier revision that passed has carried traffic for {given.bake:g} s")
    if not (left := [r for r in left if r.engine_there]):
        gone = "the engine of every revision that passed is gone from the catalog, or another one bears its name"
        return none(gone, Why.ARTIFACT_GONE)
    if not (left := [r for r in left if r.is_placed]):
        away = "the place of every revision that passed is not allowed to this tenant any more (R1PlusTenant)"
        return none(away, Why.PLACEMENT_NOT_ALLOWED)
    if not (left := [r for r in left if r.takes_orders]):
        old = "the monitor of every revision that passed is of an older version, which cannot sweep it anew"
        return none(old, Why.MONITOR_TOO_OLD)
    return max(left, key=lambda r: (r.promoted_at, r.name))


CHECKS: Final[tuple[Check, ...]] = (
    steady,
    scorer_changed,
    not_confirmed,
    paused,
    alert_only,
    one_bad_pod,
    only_errors,
    not_the_revision,
    one_node,
    pinned,
    rollout_first,
    control_done,
    control_waits,
    cooling_down,
    last_good,
)
"""In order: is there anything, can it be believed, may anything be done, a pod before a revision, then the way back."""
