"""Which revision takes traffic and which pods run: verdict -> promote, hold, refuse or give up.

Pure: called by the operator's plan with what it observed. Only a Pass promotes under `Enforce`.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from r1plus_contract.verdict import Gate, Verdict
from r1plus_policies.backoff import double_delay

DRAIN_SECONDS = 20.0
"""How long the previous revision's pods stay after the switch, for open connections."""


RETRY_SECONDS, MAX_RETRY_SECONDS = 600.0, 21_600.0
"""Until a candidate that found no room is tried again: doubled each time, up to a maximum."""
UNSCHEDULABLE_SECONDS = 300.0
"""How long an in-place candidate may look for a node: nothing serves meanwhile."""


class Strategy(StrEnum):
    """`spec.rollout.strategy`."""

    BLUE_GREEN = "BlueGreen"
    """The candidate runs in addition to the serving revision; traffic never stops."""
    IN_PLACE = "InPlace"
    """Without a second GPU: stop, start, gate, serve; a declared outage. A refusal restores what served."""


@dataclass(frozen=True, slots=True)
class RevisionState:
    """One revision as observed."""

    name: str
    ready: int = 0
    """Ready pods."""
    pods: int = 0
    """Pods that hold room, those that are ending included."""
    replicas: int | None = None
    """`spec.replicas` of its Deployment; None where it has none."""
    verdict: Verdict | None = None
    """The gate's, on the suite that is in force; None while undecided."""
    promoted_at: float | None = None
    """Seconds since the epoch; None if it never took traffic."""
    candidate_since: float | None = None
    """Since when it is a candidate without traffic, seconds since the epoch."""
    has_dropped: bool = False
    """Whether its accuracy was below the threshold when its pods were counted last."""
    has_room: bool = True
    """Whether a node takes its pods once what serves has stopped."""
    unschedulable_since: float | None = None
    """Since when one of its pods has found no node, seconds since the epoch."""
    retry_at: float | None = None
    """When it is tried again, seconds since the epoch; None unless it was withdrawn for lack of room."""


class RolloutStage(StrEnum):
    """State of the candidate."""

    NONE = "None"
    GATING = "Gating"
    NO_ROOM = "NoRoom"
    """In place, no node has room for it, so the serving revision is not stopped."""
    SCALING = "Scaling"
    PROMOTE = "Promote"
    REFUSED = "Refused"
    EXPIRED = "Expired"
    """Not promoted within the deadline, or no node in place; its pods are gone, the previous revision serves."""
    BLOCKED = "Blocked"


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """The rollout settings of the spec."""

    replicas: int
    gate: Gate = Gate.ENFORCE
    strategy: Strategy = Strategy.BLUE_GREEN
    deadline: float = 3600.0
    """Seconds from a candidate's first pod to its promotion."""
    is_held: bool = False
    """Whether no new revision may take traffic, since the spec cannot be served at present."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The decision: replicas of every revision that shall run; which one takes traffic; what to record."""

    current: str | None
    stage: RolloutStage
    replicas: dict[str, int] = field(default_factory=dict)
    promote: str | None = None
    """It takes traffic from now on; the next decision handles what follows, the drain included."""
    overdue: bool = False
    """The deadline of a first revision has passed; it still tries, since there is no rollback target."""
    requeue_after: float | None = None


def decide(*, target: str | None, revisions: tuple[RevisionState, ...], terms: RolloutSettings, now: float) -> Rollout:
    """Decide for the `target` revision (None: the spec yields none and nothing serves, so running pods stay)."""
    current = _find_current(revisions)
    if target is None:
        replicas = {s.name: s.replicas for s in revisions if s.replicas}
        return Rollout(None, RolloutStage.BLOCKED, replicas)
    if current and target == current.name:
        return _keep_steady(current, revisions, terms.replicas, now)
    candidate = next((state for state in revisions if state.name == target), RevisionState(target))
    if current and terms.is_held:
        return _hold_rollout(current, candidate, terms)
    stable = {current.name: terms.replicas} if current else {}
    serving_name = current.name if current else None
    if terms.replicas == 0:
        return Rollout(serving_name, RolloutStage.BLOCKED, {**stable, target: 0})
    seconds_left = terms.deadline - (now - candidate.candidate_since if candidate.candidate_since is not None else 0.0)
    stage = _choose_stage(candidate, terms.gate, _count_needed(current, terms))
    patience = _remaining_patience(candidate, terms, now)
    if (
        stage in (RolloutStage.GATING, RolloutStage.SCALING)
        and current
        and (seconds_left <= 0 or patience <= 0 or candidate.retry_at)
    ):
        retry_in = candidate.retry_at - now if candidate.retry_at else None
        return Rollout(serving_name, RolloutStage.EXPIRED, stable, requeue_after=retry_in)
    if stage is RolloutStage.REFUSED:
        return Rollout(serving_name, stage, stable)
    other_replicas = {current.name: 0} if current and terms.strategy is Strategy.IN_PLACE else stable
    if stage is RolloutStage.PROMOTE:
        return Rollout(target, stage, {**other_replicas, target: terms.replicas}, promote=target)
    count = _count_needed(current, terms) if stage is RolloutStage.SCALING else 1
    if other_replicas is not stable and current and current.pods:
        count = 0
    ends_in = min(seconds_left, patience) if 0 < min(seconds_left, patience) < math.inf else None
    if other_replicas is not stable and current and current.replicas and not candidate.has_room:
        return Rollout(serving_name, RolloutStage.NO_ROOM, stable, requeue_after=ends_in)
    return Rollout(
        serving_name, stage, {**other_replicas, target: count}, overdue=seconds_left <= 0, requeue_after=ends_in
    )


def _remaining_patience(candidate: RevisionState, terms: RolloutSettings, now: float) -> float:
    """Return the seconds for which a candidate may still look for a node; unlimited for a rollback without a
    deadline."""
    since = candidate.unschedulable_since
    if since is None or terms.strategy is not Strategy.IN_PLACE or terms.deadline == math.inf:
        return math.inf
    return since + UNSCHEDULABLE_SECONDS - now


def retry_delay(times: int, strategy: Strategy) -> float:
    """Return the seconds until the next try of a candidate that found no room so many times.

    In place each try is an outage, so there it is the maximum.
    """
    if strategy is Strategy.IN_PLACE:
        return MAX_RETRY_SECONDS
    return double_delay(times, RETRY_SECONDS, MAX_RETRY_SECONDS)


def _count_needed(current: RevisionState | None, terms: RolloutSettings) -> int:
    """Return the ready pods before the switch: all replicas for a first revision, what the current one has for a
    later one."""
    return max(1, min(terms.replicas, current.ready) if current else terms.replicas)


def _choose_stage(candidate: RevisionState, gate: Gate, needed_pods: int) -> RolloutStage:
    if gate is Gate.ENFORCE and candidate.verdict is Verdict.FAIL:
        return RolloutStage.REFUSED
    is_admitted = gate is Gate.OBSERVE or candidate.verdict is Verdict.PASS
    if not is_admitted or candidate.ready == 0:
        return RolloutStage.GATING
    return RolloutStage.PROMOTE if candidate.ready >= needed_pods else RolloutStage.SCALING


def _find_current(revisions: tuple[RevisionState, ...]) -> RevisionState | None:
    promoted_revisions = [state for state in revisions if state.promoted_at is not None]
    return max(promoted_revisions, key=lambda state: (state.promoted_at or 0.0, state.name), default=None)


def _hold_rollout(current: RevisionState, candidate: RevisionState, terms: RolloutSettings) -> Rollout:
    """Return what runs while no new revision may take traffic: the serving one, and a candidate in its gate.

    In place there is room for one, so the serving one is restored, unless its accuracy had dropped when it was
    stopped.
    """
    is_refused = _choose_stage(candidate, terms.gate, 1) is RolloutStage.REFUSED
    replicas = {candidate.name: candidate.replicas} if candidate.replicas and not is_refused else {}
    if terms.strategy is Strategy.IN_PLACE:
        if replicas and current.has_dropped and not current.replicas:
            return Rollout(current.name, RolloutStage.BLOCKED, {current.name: 0, **replicas})
        replicas = {}
    return Rollout(current.name, RolloutStage.BLOCKED, {current.name: terms.replicas, **replicas})


def _keep_steady(current: RevisionState, revisions: tuple[RevisionState, ...], replicas: int, now: float) -> Rollout:
    replica_counts = {current.name: replicas}
    seconds_left = (current.promoted_at or 0.0) + DRAIN_SECONDS - now
    draining_replicas = {
        s.name: s.replicas for s in revisions if s.replicas and s.name != current.name and s.promoted_at
    }
    if seconds_left > 0 and draining_replicas:
        return Rollout(current.name, RolloutStage.NONE, replica_counts | draining_replicas, requeue_after=seconds_left)
    return Rollout(current.name, RolloutStage.NONE, replica_counts)
