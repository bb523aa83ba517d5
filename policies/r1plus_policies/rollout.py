"""Which revision takes traffic and which pods run: verdict -> promote, hold, refuse or give up.

Pure: called by the operator's plan with what it observed. Only a Pass promotes under `Enforce`.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from r1plus_contract.verdict import Gate, Verdict
from r1plus_policies.backoff import double_delay

DRAIN_SECONDS = 20.0
"""How long the previous revision's pods stay after the switch in any case, for clients that do not know of it yet."""
GATEWAY_DRAIN_SECONDS = 40.0
"""The same where a gateway calls them. It finds pods by DNS, whose answers may be 30 s old."""
DRAIN_LOOK_SECONDS = 5.0
"""How often it is looked whether the previous revision's pods still run requests."""

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
    is_over_quota: bool = False
    """Whether a ResourceQuota refuses its pods."""
    retry_at: float | None = None
    """When it is tried again, seconds since the epoch; None unless it was withdrawn for lack of room."""
    user_requests: int | None = 0
    """Requests that its pods run, without probes; None: a pod does not report them."""

    @property
    def finds_no_room(self) -> bool:
        """Whether the scheduler or a quota leaves one of its pods out."""
        return self.unschedulable_since is not None or self.is_over_quota


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
    least_drain: float = DRAIN_SECONDS
    """Seconds for which pods stay after the switch in any case."""
    drain: float = 600.0
    """Most seconds for which they stay while they run requests."""

    @property
    def is_rollback(self) -> bool:
        """Whether the rollout is a rollback: only that has no deadline here."""
        return self.deadline == math.inf


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
    restarts_deadline: bool = False
    """The candidate's deadline begins again: it has passed while pods that drain had the room."""
    requeue_after: float | None = None
    draining: dict[str, float] = field(default_factory=dict)
    """Revisions whose pods stay for the requests that they run -> until when at the latest, seconds since the epoch."""
    drained_out: frozenset[str] = frozenset()
    """Revisions whose pods end at once, whatever they run: their time is over, or another revision needs the room."""


def decide(*, target: str | None, revisions: tuple[RevisionState, ...], terms: RolloutSettings, now: float) -> Rollout:
    """Decide for the `target` revision (None: the spec yields none and nothing serves, so running pods stay)."""
    return _drain(_decide(target, revisions, terms, now), target, revisions, terms, now)


def _decide(target: str | None, revisions: tuple[RevisionState, ...], terms: RolloutSettings, now: float) -> Rollout:
    current = _find_current(revisions)
    if target is None:
        replicas = {s.name: s.replicas for s in revisions if s.replicas}
        return Rollout(None, RolloutStage.BLOCKED, replicas)
    if current and target == current.name:
        return Rollout(current.name, RolloutStage.NONE, {current.name: terms.replicas})
    candidate = next((state for state in revisions if state.name == target), RevisionState(target))
    if current and terms.is_held:
        return _hold_rollout(current, candidate, terms)
    stable = {current.name: terms.replicas} if current else {}
    serving_name = current.name if current else None
    if terms.replicas == 0:
        return Rollout(serving_name, RolloutStage.BLOCKED, {**stable, target: 0})
    seconds_left = terms.deadline - (now - candidate.candidate_since if candidate.candidate_since is not None else 0.0)
    restarts_deadline = seconds_left <= 0 and _waits_for_drain(candidate, current, revisions)
    seconds_left = terms.deadline if restarts_deadline else seconds_left
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
        serving_name,
        stage,
        {**other_replicas, target: count},
        overdue=seconds_left <= 0,
        restarts_deadline=restarts_deadline,
        requeue_after=ends_in,
    )


def _waits_for_drain(
    candidate: RevisionState, current: RevisionState | None, revisions: tuple[RevisionState, ...]
) -> bool:
    """Whether the candidate's pods find no room, or none may be made, while an older revision's pods drain."""
    has_no_room = candidate.finds_no_room or (bool(candidate.replicas) and not candidate.pods)
    older = [
        s for s in revisions if s.promoted_at is not None and s.name not in (candidate.name, current and current.name)
    ]
    return current is not None and has_no_room and any(s.pods for s in older)


def _remaining_patience(candidate: RevisionState, terms: RolloutSettings, now: float) -> float:
    """Return the seconds for which a candidate may still look for a node; unlimited for a rollback without a
    deadline."""
    since = candidate.unschedulable_since
    if since is None or terms.strategy is not Strategy.IN_PLACE or terms.is_rollback:
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


def _drain(
    rollout: Rollout, target: str | None, revisions: tuple[RevisionState, ...], terms: RolloutSettings, now: float
) -> Rollout:
    """Return the rollout with the pods of revisions that have lost traffic: they stay for the requests that they run.

    In place there is room for one revision, so a candidate does not wait for them: what was stopped ends at once, also
    where its pods were made under another strategy and would wait by themselves. Without replicas nothing stays.
    """
    current = _find_current(revisions)
    if current is None or target is None:
        return rollout
    if terms.strategy is Strategy.IN_PLACE and target != current.name:
        return replace(
            rollout, drained_out=frozenset(s.name for s in revisions if s.pods and not rollout.replicas.get(s.name))
        )
    ends = {s.name: end for s in revisions if (end := _find_end_of_traffic(s, revisions)) is not None}
    limits = {s.name: _limit_drain(s, target, revisions, terms) for s in revisions}
    late = {s.name for s in revisions if s.pods and s.name in ends and ends[s.name] + limits[s.name] <= now}
    drained_out = frozenset(late - rollout.replicas.keys())
    if terms.replicas == 0:
        return replace(rollout, drained_out=drained_out)
    waits, replicas, draining = [rollout.requeue_after], dict(rollout.replicas), {}
    for state in revisions:
        if state.name not in ends or not state.replicas or state.name == rollout.current:
            continue
        wait = _remaining_drain(state, now - ends[state.name], limits[state.name], terms)
        if wait > 0:
            # A rollback target may drain still: its control needs one pod, its requests all that they run on.
            replicas[state.name] = max(replicas.get(state.name, 0), state.replicas)
            waits.append(wait)
            if now - ends[state.name] >= terms.least_drain:
                draining[state.name] = ends[state.name] + limits[state.name]
    requeue_after = min((wait for wait in waits if wait is not None), default=None)
    return replace(
        rollout,
        replicas=replicas,
        requeue_after=requeue_after,
        draining=draining,
        drained_out=drained_out - replicas.keys(),
    )


def _find_end_of_traffic(state: RevisionState, revisions: tuple[RevisionState, ...]) -> float | None:
    """Return when the next revision was promoted; None while it serves, and for one that never did."""
    since = state.promoted_at
    if since is None:
        return None
    return min((s.promoted_at for s in revisions if s.promoted_at is not None and s.promoted_at > since), default=None)


def _limit_drain(
    state: RevisionState, target: str, revisions: tuple[RevisionState, ...], terms: RolloutSettings
) -> float:
    """Return the seconds for which its pods stay at most after it has lost traffic.

    Where its accuracy had dropped, new requests on open connections would go on getting wrong answers. A rollback
    target that finds no node, or no quota, gets the room.
    """
    is_in_the_way = terms.is_rollback and state.name != target and _finds_no_room(target, revisions)
    return terms.least_drain if state.has_dropped or is_in_the_way else max(terms.drain, terms.least_drain)


def _finds_no_room(name: str, revisions: tuple[RevisionState, ...]) -> bool:
    return any(s.name == name and s.finds_no_room for s in revisions)


def _remaining_drain(state: RevisionState, age: float, limit: float, terms: RolloutSettings) -> float:
    """Return the seconds until its pods are looked at again, `age` seconds after it lost traffic; 0 or less: they end
    now."""
    if age < terms.least_drain:
        return terms.least_drain - age
    return min(DRAIN_LOOK_SECONDS, limit - age) if state.user_requests != 0 else 0.0
