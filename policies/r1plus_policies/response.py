"""What is done when a served revision falls: nothing yet, one pod out of traffic, a control, a switch back, a page.

Pure: called by the operator's plan with what it observed (ACCURACY.md, section 4). A chain of named checks over one
`Given`; the first that speaks decides. Every way not to roll back has a reason of its own and names the remedy. No
message holds a figure that drifts, so that the same situation is always told in the same words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from r1plus_contract.verdict import Standing, Verdict

BAKE_SECONDS: Final = 600.0
"""How long a revision must have carried traffic before it counts as one to go back to."""
COOLDOWN_SECONDS: Final = 3600.0
"""From one rollback of a deployment to the next: what falls again within it is no matter of revisions."""
NO_ROOM_SECONDS: Final = 60.0
"""How long a control's pod may find no node before that is told; it goes on waiting."""


class OnBreach(StrEnum):
    """`spec.accuracy.onBreach`."""

    ALERT = "Alert"
    """Alerts fire; the operator moves no pod and no traffic."""
    ROLLBACK = "Rollback"
    """A single bad pod is quarantined and replaced; a bad revision gives way to the last good one."""


class Action(StrEnum):
    """What to do."""

    NOTHING = "Nothing"
    QUARANTINE = "Quarantine"
    """Take `pod` out of traffic."""
    CONTROL = "Control"
    """Bring `revision` up without traffic and sweep it anew."""
    SWITCH = "Switch"
    """The control passed: traffic goes to `revision`."""
    BLOCKED = "Blocked"
    """Something ought to be done and is not; where `revision` is named, its control goes on waiting."""
    PAGE = "Page"
    """Not the revision is at fault: a person has to look, and nothing is moved."""


class Why(StrEnum):
    """Reasons, stable: users and alerts see them."""

    STEADY = "Steady"
    CONFIRMING = "Confirming"
    CHANGED = "AccuracyChanged"
    SERVER_ERRORS = "ServerErrors"
    SUITE_MISMATCH = "SuiteMismatch"
    ALERT_ONLY = "AlertOnly"
    PINNED = "Pinned"
    ONE_BAD_POD = "OneBadPod"
    LAST_THAT_SERVES = "LastThatServes"
    ALREADY_QUARANTINED = "AlreadyQuarantined"
    ONE_NODE = "OneNode"
    ROLLOUT_UNDER_WAY = "RolloutUnderWay"
    COOLDOWN = "Cooldown"
    NO_LAST_GOOD = "NoLastGood"
    ARTIFACT_GONE = "ArtifactGone"
    ALREADY_ROLLED_BACK = "AlreadyRolledBack"
    BOTH_ARMS_BAD = "BothArmsBad"
    NO_CAPACITY = "NoCapacity"
    CONTROL_OVERDUE = "ControlOverdue"
    CONTROL_RUNNING = "ControlRunning"
    CONTROL_PASSED = "ControlPassed"


BLOCKING: Final = (
    Why.ALERT_ONLY, Why.PINNED, Why.LAST_THAT_SERVES, Why.ALREADY_QUARANTINED, Why.ONE_NODE, Why.ROLLOUT_UNDER_WAY,
    Why.COOLDOWN, Why.NO_LAST_GOOD, Why.ARTIFACT_GONE, Why.ALREADY_ROLLED_BACK, Why.BOTH_ARMS_BAD, Why.NO_CAPACITY,
    Why.CONTROL_OVERDUE, Why.SUITE_MISMATCH,
)  # fmt: skip
"""Reasons that stand in the way of a rollback or a quarantine: the values of the metric's label `reason`."""


@dataclass(frozen=True, slots=True)
class PodHealth:
    """One pod of the revision that serves."""

    name: str
    standing: Standing | None = None
    """What its monitor says; None while it says nothing, which is never evidence of anything."""
    evidence: float = 0.0
    """Of its own detector, as a share of what raises the alarm."""
    node: str = ""
    serves: bool = True
    """Ready and in the Service."""
    quarantined: bool = False

    @property
    def fell(self) -> bool:
        """Counted exactly, and below the threshold."""
        return self.standing is Standing.BELOW_THRESHOLD


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """The pooled detector of the revision that serves. Evidence is a share of what raises the alarm."""

    evidence: float = 0.0
    without_worst: float = 0.0
    """The same pool without the pod of highest evidence."""
    below: bool | None = None
    """Whether the sweeps that ended since the alarm are below the threshold; None before one has."""


@dataclass(frozen=True, slots=True)
class PastRevision:
    """A revision beside the one that serves."""

    name: str
    promoted_at: float
    """When it last took traffic, seconds since the epoch."""
    served_seconds: float
    """How long it then carried traffic."""
    passed: bool
    """It holds a Pass of the serving batch on the very suite, hash for hash, that is in force."""
    engine_there: bool
    """Its engine is in the catalog with the same digest."""
    given_up: bool = False
    """It was itself rolled back from, and nobody has said otherwise."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control under way or done. It stands although the breach is not seen any more: in place, its pods are gone."""

    revision: str
    since: float
    verdict: Verdict | None = None
    """Of the sweep that was made since, never an older one."""
    said: str = ""
    no_room: str = ""
    """Why its pod runs nowhere, in the scheduler's or the API server's words."""


@dataclass(frozen=True, slots=True)
class Given:
    """What is observed of one deployment."""

    current: str
    pods: tuple[PodHealth, ...]
    now: float
    replicas: int = 1
    """Pods that the user wants."""
    on_breach: OnBreach = OnBreach.ALERT
    pinned: bool = False
    pool: PoolHealth = PoolHealth()
    past: tuple[PastRevision, ...] = ()
    control: Control | None = None
    requested: str = ""
    """Who asked for a rollback and why; empty where nobody did."""
    replayed: bool | None = None
    """Whether recorded answers still get their recorded scores; None where that is not known."""
    rollout_under_way: bool = False
    """A candidate that the spec asks for is being gated or scaled."""
    gone_back_to: frozenset[str] = frozenset()
    """Revisions that this one was rolled back to before."""
    last_rollback: float | None = None
    deadline: float = 3600.0
    """Seconds that a control may take."""
    bake: float = BAKE_SECONDS
    cooldown: float = COOLDOWN_SECONDS

    @property
    def fallen(self) -> tuple[PodHealth, ...]:
        """Pods below the threshold, in quarantine or not; the worst first."""
        return tuple(sorted((p for p in self.pods if p.fell), key=lambda p: (-p.evidence, p.name)))

    @property
    def erring(self) -> tuple[PodHealth, ...]:
        """Pods in traffic whose engine errs too often."""
        return tuple(p for p in self.pods if p.standing is Standing.ERRORS and not p.quarantined)

    @property
    def bad_pod(self) -> PodHealth | None:
        """The only one in traffic that is bad, where others carry traffic that are not."""
        bad = [p for p in (*self.fallen, *self.erring) if not p.quarantined]
        others = [p for p in self.pods if not p.quarantined and p not in bad]
        return bad[0] if len(bad) == 1 and others else None

    @property
    def revision_fell(self) -> bool:
        """Not a pod but the revision: two pods, or the pool without its worst pod, or the only pod there is."""
        in_traffic = [p for p in self.pods if not p.quarantined]
        alone = max(self.replicas, len(in_traffic)) <= 1 and any(p.fell for p in in_traffic)
        return alone or len(self.fallen) >= 2 or self._pool_fell(in_traffic)

    def _pool_fell(self, in_traffic: list[PodHealth]) -> bool:
        """Sweeps ask once, and healthy flips sink one now and then: a pod's own exact count outweighs them."""
        others = sorted(in_traffic, key=lambda p: (-p.evidence, p.name))[1:]
        counted_above = any(p.standing is Standing.CHANGED for p in others)
        return self.pool.without_worst >= 1 and self.pool.below is True and not counted_above


@dataclass(frozen=True, slots=True)
class Response:
    """The decision and what to tell of it."""

    action: Action
    why: Why
    message: str
    pod: str = ""
    revision: str = ""
    look_again: float | None = None
    """Seconds after which time alone may change the decision."""


Check = Callable[[Given], Response | None]


def respond(given: Given) -> Response:
    """Decide. Something always speaks: the last check has an answer to everything."""
    return next(found for check in CHECKS if (found := check(given)) is not None)


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
        text = f"A detector of revision {given.current} has alarmed; a sweep is counting how many items are lost"
        return Response(Action.NOTHING, Why.CONFIRMING, text)
    text = (
        f"Revision {given.current} answers otherwise than at its gate and is still above its threshold: nothing is"
        " moved; see which items were lost, then `r1plus ack` to take the new behaviour as the measure"
    )
    return Response(Action.NOTHING, Why.CHANGED, text)


def alert_only(given: Given) -> Response | None:
    """The user wants to be told, and no more."""
    if given.requested or given.on_breach is OnBreach.ROLLBACK:
        return None
    text = (
        "spec.accuracy.onBreach is Alert, so nothing is moved; spec.accuracy.onBreach: Rollback lets the operator"
        " go back"
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
    text = f"spec.rollout.pinned holds traffic at revision {given.current}; `r1plus unpin` lets it go"
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
    if control is None or control.verdict is None:
        return None
    if control.verdict is Verdict.PASS:
        text = f"Revision {control.revision} passed the suite anew ({control.said}); traffic goes back to it"
        return Response(Action.SWITCH, Why.CONTROL_PASSED, text, revision=control.revision)
    text = (
        f"Revision {control.revision}, the last good one, was swept anew and fails as well ({control.said}): not the"
        " revision is at fault but what both share: node, driver, image or the suite. Nothing is moved"
    )
    return Response(Action.PAGE, Why.BOTH_ARMS_BAD, f"{text}; `r1plus ack` lets it be tried again")


def control_waits(given: Given) -> Response | None:
    """A control without an answer yet: swept, waiting for room, or given up."""
    control = given.control
    if control is None:
        return None
    age = given.now - control.since
    if age >= given.deadline:
        text = (
            f"the control of revision {control.revision} came to no verdict within spec.rollout.deadline"
            f"{': ' + control.no_room if control.no_room else ''}; mend what held it up, then `r1plus ack`"
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
            " change the spec, or `r1plus ack` to let it happen again"
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
    return max(left, key=lambda r: (r.promoted_at, r.name))


CHECKS: Final[tuple[Check, ...]] = (
    steady,
    scorer_changed,
    not_confirmed,
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
