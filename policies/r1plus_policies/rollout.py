"""Which revision takes traffic and which pods run: verdict -> promote, hold, refuse or give up.

Pure: called by the operator's plan with what it observed. Only a Pass promotes under `Enforce`.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from r1plus_contract.verdict import Gate, Verdict

DRAIN_SECONDS = 20.0
"""How long the previous revision's pods stay after the switch, for connections that are still open."""


RETRY_SECONDS, MAX_RETRY_SECONDS = 600.0, 21_600.0
"""Until a candidate is tried again that found no room: doubled each time, up to a maximum."""
UNSCHEDULABLE_SECONDS = 300.0
"""How long a candidate may look for a node in place of what serves: nothing serves meanwhile."""


class Strategy(StrEnum):
    """`spec.rollout.strategy`."""

    BLUE_GREEN = "BlueGreen"
    """The candidate runs beside what serves; traffic never stops."""
    IN_PLACE = "InPlace"
    """For want of a second GPU: stop, start, gate, serve; a declared outage. What served is restored on a refusal."""


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
    """Since when it has been asked for without taking traffic, seconds since the epoch."""
    has_dropped: bool = False
    """Whether its accuracy was below the threshold when its pods were counted last."""
    has_room: bool = True
    """Whether a node takes its pods once what serves has stopped."""
    unschedulable_since: float | None = None
    """Since when one of its pods has found no node, seconds since the epoch."""
    retry_at: float | None = None
    """When it is tried again, seconds since the epoch; None unless it was withdrawn for lack of room."""


class Stage(StrEnum):
    """What the candidate is going through."""

    NONE = "None"
    GATING = "Gating"
    NO_ROOM = "NoRoom"
    """In place no node has room for it, so what serves is not stopped."""
    SCALING = "Scaling"
    PROMOTE = "Promote"
    REFUSED = "Refused"
    EXPIRED = "Expired"
    """Not promoted within the deadline, or no node found in place; its pods are gone, what served before goes on."""
    BLOCKED = "Blocked"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the user asked of a rollout."""

    replicas: int
    gate: Gate = Gate.ENFORCE
    strategy: Strategy = Strategy.BLUE_GREEN
    deadline: float = 3600.0
    """Seconds from a candidate's first pod to its promotion."""
    is_held: bool = False
    """Whether nothing new may take traffic, since the spec cannot be served at present."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The decision: replicas of every revision that shall run; who takes traffic; what to write down."""

    current: str | None
    stage: Stage
    replicas: dict[str, int] = field(default_factory=dict)
    promote: str | None = None
    """It takes traffic from now on; what follows from that, the drain included, the next decision says."""
    overdue: bool = False
    """The deadline has passed for a first revision; it goes on trying, since there is nothing to go back to."""
    requeue_after: float | None = None


def decide(*, target: str | None, revisions: tuple[RevisionState, ...], terms: Terms, now: float) -> Rollout:
    """Decide for the `target` revision (None: the spec yields none and nothing serves, so what runs goes on)."""
    current = _current(revisions)
    if target is None:
        running = {s.name: s.replicas for s in revisions if s.replicas}
        return Rollout(None, Stage.BLOCKED, running)
    if current and target == current.name:
        return _steady(current, revisions, terms.replicas, now)
    candidate = next((state for state in revisions if state.name == target), RevisionState(target))
    if current and terms.is_held:
        return _hold(current, candidate, terms)
    stable = {current.name: terms.replicas} if current else {}
    serving = current.name if current else None
    if terms.replicas == 0:
        return Rollout(serving, Stage.BLOCKED, {**stable, target: 0})
    left = terms.deadline - (now - candidate.candidate_since if candidate.candidate_since is not None else 0.0)
    stage = _stage(candidate, terms.gate, _needed(current, terms))
    patience = _patience(candidate, terms, now)
    if stage in (Stage.GATING, Stage.SCALING) and current and (left <= 0 or patience <= 0 or candidate.retry_at):
        again = candidate.retry_at - now if candidate.retry_at else None
        return Rollout(serving, Stage.EXPIRED, stable, requeue_after=again)
    if stage is Stage.REFUSED:
        return Rollout(serving, stage, stable)
    beside = {current.name: 0} if current and terms.strategy is Strategy.IN_PLACE else stable
    if stage is Stage.PROMOTE:
        return Rollout(target, stage, {**beside, target: terms.replicas}, promote=target)
    count = _needed(current, terms) if stage is Stage.SCALING else 1
    if beside is not stable and current and current.pods:
        count = 0
    ends = min(left, patience) if 0 < min(left, patience) < math.inf else None
    if beside is not stable and current and current.replicas and not candidate.has_room:
        return Rollout(serving, Stage.NO_ROOM, stable, requeue_after=ends)
    return Rollout(serving, stage, {**beside, target: count}, overdue=left <= 0, requeue_after=ends)


def _patience(candidate: RevisionState, terms: Terms, now: float) -> float:
    """Return the seconds for which a candidate may still look for a node; a way back, without a deadline, looks on."""
    since = candidate.unschedulable_since
    if since is None or terms.strategy is not Strategy.IN_PLACE or terms.deadline == math.inf:
        return math.inf
    return since + UNSCHEDULABLE_SECONDS - now


def retry_delay(times: int, strategy: Strategy) -> float:
    """Return the seconds until a candidate is tried again that found no room so many times.

    In place each try is an outage, so there it is the maximum.
    """
    doubled = RETRY_SECONDS * 2.0 ** min(times - 1, 16)
    return MAX_RETRY_SECONDS if strategy is Strategy.IN_PLACE else min(doubled, MAX_RETRY_SECONDS)


def _needed(current: RevisionState | None, terms: Terms) -> int:
    """Ready pods before the switch: of a first revision what the user asked for, of a later one what stable carries."""
    return max(1, min(terms.replicas, current.ready) if current else terms.replicas)


def _stage(candidate: RevisionState, gate: Gate, needed: int) -> Stage:
    if gate is Gate.ENFORCE and candidate.verdict is Verdict.FAIL:
        return Stage.REFUSED
    admitted = gate is Gate.OBSERVE or candidate.verdict is Verdict.PASS
    if not admitted or candidate.ready == 0:
        return Stage.GATING
    return Stage.PROMOTE if candidate.ready >= needed else Stage.SCALING


def _current(revisions: tuple[RevisionState, ...]) -> RevisionState | None:
    promoted = [state for state in revisions if state.promoted_at is not None]
    return max(promoted, key=lambda state: (state.promoted_at or 0.0, state.name), default=None)


def _hold(current: RevisionState, candidate: RevisionState, terms: Terms) -> Rollout:
    """Return what runs while nothing new may take traffic: what serves, and the candidate whose gate is in progress.

    In place there is room for one, so what served is restored; unless its accuracy had dropped when it was stopped.
    """
    is_refused = _stage(candidate, terms.gate, 1) is Stage.REFUSED
    running = {candidate.name: candidate.replicas} if candidate.replicas and not is_refused else {}
    if terms.strategy is Strategy.IN_PLACE:
        if running and current.has_dropped and not current.replicas:
            return Rollout(current.name, Stage.BLOCKED, {current.name: 0, **running})
        running = {}
    return Rollout(current.name, Stage.BLOCKED, {current.name: terms.replicas, **running})


def _steady(current: RevisionState, revisions: tuple[RevisionState, ...], replicas: int, now: float) -> Rollout:
    running = {current.name: replicas}
    left = (current.promoted_at or 0.0) + DRAIN_SECONDS - now
    draining = {s.name: s.replicas for s in revisions if s.replicas and s.name != current.name and s.promoted_at}
    if left > 0 and draining:
        return Rollout(current.name, Stage.NONE, running | draining, requeue_after=left)
    return Rollout(current.name, Stage.NONE, running)
