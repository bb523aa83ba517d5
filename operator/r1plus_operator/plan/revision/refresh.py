"""When what serves moves to the images that the operator has now, and to a newer engine: on request, or in waves.

A revision that a refresh or a wave began has a `Refresh`, by which slots are counted: at most
`rollout.maxConcurrent` of the cluster roll out at once. A user's own edit has none. Part of the plan.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.remedies import Remedy, word
from r1plus_contract.requests import Verb, format_command
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import WaveView
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_policies.rollout import RolloutStage, Strategy

SLOT_SECONDS: Final = 4 * 3600.0
"""Then a slot goes to the next deployment, whatever deadline a tenant has set; the rollout itself continues."""


class Cause(StrEnum):
    """Why a candidate was begun."""

    USER_REQUEST = "Requested"
    AUTOMATIC = "Automatic"
    CATALOG = "Catalog"


class RefreshOutcome(StrEnum):
    """How a candidate of a wave ended."""

    PROMOTED = "Promoted"
    FAILED = "Failed"
    """Its gate refused it, or it missed its deadline: nothing more of its wave begins."""
    NO_ROOM = "NoRoom"
    """No node had room for it within its deadline, which says nothing of its runtime."""
    SUPERSEDED = "Superseded"
    """The spec asks for something else, or lets nothing be rolled out."""
    OVERDUE = "Overdue"
    """It has taken so long that its slot went to the next one; it may still be promoted, or fail."""
    NOTHING_NEWER = "Answered"
    """It was no candidate of a wave: a request found nothing newer than it."""
    USER_ACK = "Acknowledged"
    """It failed, and a user has acknowledged that (`r1plus ack`): its wave continues."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """The annotation `r1plus.ai/refresh` of a ControllerRevision."""

    cause: Cause
    wave: str
    """What is rolled out: one that fails stops those that have the same."""
    began_at: float
    """Seconds since the epoch."""
    request: str = ""
    """Token of the request that it answers."""
    outcome: RefreshOutcome | None = None
    """None: it is on its way, and holds a slot."""
    acknowledged: str = ""
    """Token of the newest acknowledgement when it began: another one means that a user has acted since."""


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """A deployment waits for a slot of this wave; what a user has asked for goes first."""

    wave: str
    is_requested: bool


@dataclass(frozen=True, slots=True)
class DueRefresh:
    """What is newer than what serves, and why it does not begin in this pass; `wait_reason` is empty where it does."""

    cause: Cause
    wave: str
    request: str = ""
    wait_reason: str = ""
    slot: SlotRequest | None = field(default=None)
    """What it waits for, where that is a slot."""


def read_refresh(text: str | None) -> Refresh | None:
    """Return the record of an annotation; None where there is none, or it is unreadable."""
    try:
        return loads(Refresh, text, tolerant=True) if text else None
    except ContractError:
        return None


def find_refresh_blocker(
    cause: Cause, spec: R1PlusDeploymentSpec, asked_for: RollbackRecord | None, under_way: RollbackRecord | None
) -> str:
    """Return what keeps a candidate from beginning, whatever slots there are; empty: nothing does.

    `asked_for`: the rollback from what the spec asks for; `under_way`: the one from what serves.
    """
    if spec.rollout.paused:
        return f"spec.rollout.paused keeps the operator from acting; {word(Remedy.RESUME)} lets it begin"
    if spec.rollout.pinned:
        return f"spec.rollout.pinned holds traffic where it is; {word(Remedy.UNPIN)} lets it begin"
    if asked_for is not None and asked_for.is_in_force:
        remedy = f"{word(Remedy.ACKNOWLEDGE)} allows it to be gated again"
        return f"traffic was rolled back from what the spec asks for; {remedy}"
    if under_way is not None:
        return "traffic is being rolled back; the update begins after that"
    if cause is not Cause.USER_REQUEST and spec.rollout.strategy is Strategy.IN_PLACE:
        remedy = f"{format_command(Verb.REFRESH)} allows that outage"
        return f"spec.rollout.strategy is InPlace, so the update would stop the serving pods; {remedy}"
    if cause is not Cause.USER_REQUEST and spec.replicas == 0:
        remedy = f"{format_command(Verb.REFRESH)} requests one for later"
        return f"spec.replicas is 0, so no candidate can be gated; {remedy}"
    return ""


def take_slot(view: WaveView, cause: Cause, wave: str, request: str) -> DueRefresh:
    """Return what is due: now, or once there is a slot for it."""
    wait_reason = ""
    if wave in view.stopped_waves:
        wait_reason = (
            "another deployment failed with these images, and nobody has acknowledged it; see `r1plus rollouts -A`"
        )
    elif not view.is_granted:
        wait_reason = "other deployments are updated first"
    return DueRefresh(
        cause, wave, request, wait_reason, SlotRequest(wave, cause is Cause.USER_REQUEST) if wait_reason else None
    )


@dataclass(frozen=True, slots=True)
class RefreshProgress:
    """How far a candidate of a refresh or a wave has come in this pass."""

    stage: RolloutStage
    serves: bool
    is_asked_for: bool
    """Whether the spec asks for it, and lets it be rolled out."""
    is_expired: bool
    """Whether it is withdrawn, and not tried again yet."""
    has_no_room: bool
    """Whether it was withdrawn for want of room."""


def next_outcome(record: Refresh, progress: RefreshProgress, acknowledged: str, now: float) -> RefreshOutcome | None:
    """Return how it has ended by now; None: it is on its way, and holds a slot."""
    before = record.outcome
    if before is RefreshOutcome.NOTHING_NEWER or progress.serves:
        return before if before is RefreshOutcome.NOTHING_NEWER else RefreshOutcome.PROMOTED
    if before is RefreshOutcome.FAILED and acknowledged != record.acknowledged:
        return RefreshOutcome.USER_ACK
    if before is RefreshOutcome.NO_ROOM and not progress.is_expired:
        before = None  # It is tried again, if it is still asked for.
    if before not in (None, RefreshOutcome.OVERDUE, RefreshOutcome.SUPERSEDED):
        return before
    return _end_of(progress, before, is_late=now - record.began_at >= SLOT_SECONDS)


def _end_of(progress: RefreshProgress, before: RefreshOutcome | None, *, is_late: bool) -> RefreshOutcome | None:
    if progress.stage is RolloutStage.REFUSED:
        return RefreshOutcome.FAILED
    if progress.stage is RolloutStage.EXPIRED:
        return RefreshOutcome.NO_ROOM if progress.has_no_room else RefreshOutcome.FAILED
    if progress.stage is RolloutStage.BLOCKED or not progress.is_asked_for:
        return RefreshOutcome.SUPERSEDED
    return RefreshOutcome.OVERDUE if is_late else before
