"""Which revision takes traffic and which pods run: verdict -> promote, hold or refuse.

Pure: called by the operator's plan with what it observed. Only a Pass promotes under `Enforce`.
"""

from dataclasses import dataclass
from enum import StrEnum

from r1plus_contract.verdict import Gate, Verdict

DRAIN_SECONDS = 20.0
"""How long the previous revision's pods stay after the switch, for connections that are still open."""


@dataclass(frozen=True, slots=True)
class RevisionState:
    """One revision as observed."""

    name: str
    ready: int = 0
    """Ready pods."""
    replicas: int | None = None
    """`spec.replicas` of its Deployment; None where it has none."""
    verdict: Verdict | None = None
    """The gate's, on the suite that is in force; None while undecided."""
    promoted_at: float | None = None
    """Seconds since the epoch; None if it never took traffic."""


class Stage(StrEnum):
    """What the candidate is going through."""

    NONE = "None"
    GATING = "Gating"
    SCALING = "Scaling"
    PROMOTE = "Promote"
    REFUSED = "Refused"
    BLOCKED = "Blocked"


@dataclass(frozen=True, slots=True)
class Rollout:
    """The decision: replicas of every revision that shall run; who takes traffic; what to write down."""

    current: str | None
    stage: Stage
    replicas: dict[str, int]
    promote: str | None = None
    requeue_after: float | None = None


def decide(
    *,
    target: str | None,
    revisions: tuple[RevisionState, ...],
    replicas: int,
    gate: Gate,
    now: float,
) -> Rollout:
    """Decide for the `target` revision (None: the spec yields none at present, so what runs goes on running)."""
    by_name = {state.name: state for state in revisions}
    current = _current(revisions)
    if target is None or target == (current and current.name):
        return _steady(current, revisions, replicas, now, blocked=target is None)
    candidate = by_name.get(target, RevisionState(target))
    keep = {current.name: replicas} if current else {}
    # What a first revision needs is what the user asked for; a later one must carry what stable carries.
    needed = max(1, min(replicas, current.ready) if current else replicas)
    if replicas == 0:
        return Rollout(current.name if current else None, Stage.BLOCKED, {**keep, target: 0})
    stage = _stage(candidate, gate, needed)
    if stage is Stage.REFUSED:
        return Rollout(current.name if current else None, stage, keep)
    if stage is Stage.PROMOTE:
        running = {**keep, target: replicas}
        return Rollout(target, stage, running, promote=target, requeue_after=DRAIN_SECONDS if current else None)
    count = 1 if stage is Stage.GATING else needed
    return Rollout(current.name if current else None, stage, {**keep, target: count})


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


def _steady(
    current: RevisionState | None, revisions: tuple[RevisionState, ...], replicas: int, now: float, *, blocked: bool
) -> Rollout:
    if blocked:
        # The spec yields nothing at present: everything that runs goes on, a gate in progress included.
        going_on = {s.name: s.replicas for s in revisions if s.replicas}
        serving = {current.name: replicas} if current else {}
        return Rollout(current.name if current else None, Stage.BLOCKED, going_on | serving)
    if current is None:
        return Rollout(None, Stage.NONE, {})
    running = {current.name: replicas}
    left = (current.promoted_at or 0.0) + DRAIN_SECONDS - now
    draining = {s.name: s.replicas for s in revisions if s.replicas and s.name != current.name and s.promoted_at}
    if left > 0 and draining:
        running |= draining
        return Rollout(current.name, Stage.NONE, running, requeue_after=left)
    return Rollout(current.name, Stage.NONE, running)
