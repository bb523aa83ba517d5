"""The types of the response to an accuracy drop: the health of a deployment, the response to it. `decision` decides."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from r1plus_contract.verdict import Verdict, WatchStanding

BAKE_SECONDS: Final = 600.0
"""How long a revision must carry traffic before it can be a rollback target."""
COOLDOWN_SECONDS: Final = 3600.0
"""From one rollback of a deployment to the next: a second drop within it has another cause than the revision."""
ALONE_SECONDS: Final = 600.0
"""How long a counted pod may be the only one that serves before it stands for its revision."""
CANDIDATE_SECONDS: Final = 600.0
"""How long a rollback waits for a candidate that was there before the accuracy drop."""
NO_ROOM_SECONDS: Final = 60.0
"""How long a control pass may find no node before that is reported; it still waits."""


class OnBreach(StrEnum):
    """`spec.accuracy.onBreach`."""

    ALERT = "Alert"
    """Alerts fire; the operator moves no pod and no traffic."""
    ROLLBACK = "Rollback"
    """A single bad pod is quarantined and replaced; a bad revision is rolled back to the last good one."""


class Action(StrEnum):
    """What to do."""

    NOTHING = "Nothing"
    QUARANTINE = "Quarantine"
    """Take `pod` out of traffic."""
    CONTROL = "Control"
    """Start `revision` without traffic and sweep it again: the control pass."""
    SWITCH = "Switch"
    """The control pass succeeded: traffic goes to `revision`."""
    BLOCKED = "Blocked"
    """An action is needed and blocked; where `revision` is named, its control pass still waits."""
    PAGE = "Page"
    """The revision is not the cause: a person has to look, and nothing is moved."""


class RollbackReason(StrEnum):
    """Reasons, stable: users and alerts see them."""

    STEADY = "Steady"
    CONFIRMING = "Confirming"
    CHANGED = "AccuracyChanged"
    SERVER_ERRORS = "ServerErrors"
    SUITE_MISMATCH = "SuiteMismatch"
    ALERT_ONLY = "AlertOnly"
    PINNED = "Pinned"
    PAUSED = "Paused"
    ONE_BAD_POD = "OneBadPod"
    LAST_THAT_SERVES = "LastThatServes"
    ALREADY_QUARANTINED = "AlreadyQuarantined"
    ONE_NODE = "OneNode"
    ROLLOUT_UNDER_WAY = "RolloutUnderWay"
    ACK_UNDER_WAY = "AckUnderWay"
    COOLDOWN = "Cooldown"
    NO_LAST_GOOD = "NoLastGood"
    ARTIFACT_GONE = "ArtifactGone"
    PLACEMENT_NOT_ALLOWED = "PlacementNotAllowed"
    MONITOR_TOO_OLD = "MonitorTooOld"
    ALREADY_ROLLED_BACK = "AlreadyRolledBack"
    ROLLBACK_TARGET_ALSO_FAILED = "RollbackTargetAlsoFailed"
    NO_CAPACITY = "NoCapacity"
    ROLLBACK_TARGET_OVERDUE = "RollbackTargetOverdue"
    NAMESPACE_NOT_TENANT = "NamespaceNotTenant"
    CONTROL_RUNNING = "ControlRunning"
    CONTROL_PASSED = "ControlPassed"


BLOCK_REASONS: Final = (
    RollbackReason.ALERT_ONLY,
    RollbackReason.PINNED,
    RollbackReason.PAUSED,
    RollbackReason.LAST_THAT_SERVES,
    RollbackReason.ALREADY_QUARANTINED,
    RollbackReason.ONE_NODE,
    RollbackReason.ROLLOUT_UNDER_WAY,
    RollbackReason.ACK_UNDER_WAY,
    RollbackReason.COOLDOWN,
    RollbackReason.NO_LAST_GOOD,
    RollbackReason.ARTIFACT_GONE,
    RollbackReason.ALREADY_ROLLED_BACK,
    RollbackReason.ROLLBACK_TARGET_ALSO_FAILED,
    RollbackReason.NO_CAPACITY,
    RollbackReason.ROLLBACK_TARGET_OVERDUE,
    RollbackReason.SUITE_MISMATCH,
    RollbackReason.MONITOR_TOO_OLD,
    RollbackReason.NAMESPACE_NOT_TENANT,
    RollbackReason.PLACEMENT_NOT_ALLOWED,
)
"""Reasons that block a rollback or a quarantine: the values of the metric label `reason`."""


@dataclass(frozen=True, slots=True)
class PodHealth:
    """One pod of the serving revision."""

    name: str
    standing: WatchStanding | None = None
    """As its monitor reports; None without a report, which is no evidence."""
    evidence: float = 0.0
    """Of its own detector, as a share of what raises the alarm."""
    node: str = ""
    serves: bool = True
    """Ready and in the Service."""
    is_quarantined: bool = False
    counted_at: float | None = None
    """When its standing was counted, seconds since the epoch; None where that is not known."""
    is_acknowledged: bool = False
    """Counted below the threshold before an acknowledgement, and its monitor may still be repeating the sweeps."""

    @property
    def has_dropped(self) -> bool:
        """Counted exactly, and below the threshold."""
        return self.standing is WatchStanding.BELOW_THRESHOLD


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """The pooled detector of the serving revision. Evidence is a share of what raises the alarm."""

    evidence: float = 0.0
    without_worst: float = 0.0
    """The same pool without its worst pod: the one without which the least is left."""
    below: bool | None = None
    """Whether the others' sweeps that ended since the alarm are below the threshold; None before one has."""
    worst: str = ""
    """That pod's name."""
    counted_at: float | None = None
    """When the first of those sweeps ended, seconds since the epoch; None before one has."""


@dataclass(frozen=True, slots=True)
class PastRevision:
    """A revision other than the serving one."""

    name: str
    promoted_at: float
    """When it last took traffic, seconds since the epoch."""
    served_seconds: float
    """How long it then carried traffic."""
    has_passed: bool
    """At the serving batch, on exactly the suite in force. Where it was never asked that one: on a former suite that
    the
        serving revision was judged by as well."""
    has_engine: bool
    """The catalog has no other engine under the name of its engine."""
    given_up: bool = False
    """It was itself rolled back from, and that was not acknowledged."""
    supports_control: bool = True
    """Its monitor can run a control pass; one that an older version rendered cannot."""
    is_placed: bool = True
    """Its pods may still run where they would be placed."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control pass, running or done. It continues when the breach is not seen any more: in place, its pods are
    gone."""

    revision: str
    since: float
    verdict: Verdict | None = None
    """Of the sweep of this control pass, never an older one."""
    summary: str = ""
    no_room: str = ""
    """Why its pod cannot be placed, in the words of the scheduler or the API server."""
    blocked_reason: str = ""
    """Why the scorer or the suite of its monitor gives no verdict, in the monitor's words."""


@dataclass(frozen=True, slots=True)
class DeploymentHealth:
    """What is observed of one deployment."""

    current: str
    pods: tuple[PodHealth, ...]
    now: float
    replicas: int = 1
    """Pods that the spec requires."""
    on_breach: OnBreach = OnBreach.ALERT
    is_pinned: bool = False
    not_tenant: str = ""
    """Why nothing may be written in the namespace; empty where it is a tenant."""
    is_paused: bool = False
    pool: PoolHealth = PoolHealth()
    past: tuple[PastRevision, ...] = ()
    control: Control | None = None
    rollback_request: str = ""
    """Who requested a rollback and why; empty without a request."""
    replay_passed: bool | None = None
    """Whether recorded answers still get their recorded scores; None where that is not known."""
    rollout_under_way: bool = False
    """A candidate of the current spec is in its gate or being scaled."""
    candidate_since: float | None = None
    """Since when it is the candidate, seconds since the epoch; None: it begins now."""
    earlier_targets: frozenset[str] = frozenset()
    """Revisions that this one was rolled back to before."""
    last_rollback: float | None = None
    deadline: float = 3600.0
    """Seconds that a control pass may take."""
    bake: float = BAKE_SECONDS
    cooldown: float = COOLDOWN_SECONDS
    ack_seconds_left: float = 0.0
    """Seconds for which the monitors may still repeat the gate's sweeps after an acknowledgement."""

    @property
    def pods_below_threshold(self) -> tuple[PodHealth, ...]:
        """Pods below the threshold, in quarantine or not; the worst first."""
        return tuple(sorted((p for p in self.pods if p.has_dropped), key=lambda p: (-p.evidence, p.name)))

    @property
    def erring_pods(self) -> tuple[PodHealth, ...]:
        """Pods in traffic whose engine returns errors too often."""
        return tuple(p for p in self.pods if p.standing is WatchStanding.ERRORS and not p.is_quarantined)

    @property
    def has_only_errors(self) -> bool:
        """Whether pods err, none answers wrongly, and no rollback is asked for: an outage."""
        is_about_answers = bool(self.pods_below_threshold) or self.has_revision_dropped
        return bool(self.erring_pods) and not (is_about_answers or self.control or self.rollback_request)

    @property
    def bad_pod(self) -> PodHealth | None:
        """The only bad pod in traffic, where healthy pods have traffic, too."""
        bad = [p for p in (*self.pods_below_threshold, *self.erring_pods) if not p.is_quarantined]
        others = [p for p in self.pods if not p.is_quarantined and p not in bad]
        return bad[0] if len(bad) == 1 and others else None

    @property
    def is_decided(self) -> bool:
        """Whether something was counted or requested that calls for a response."""
        has_count = bool(self.pods_below_threshold or self.erring_pods) or self.has_revision_dropped
        return has_count or self.control is not None or bool(self.rollback_request)

    @property
    def awaits_ack(self) -> bool:
        """Whether a drop of a pod in traffic is acknowledged and not counted again, and nothing else decides.

        Until then no other pod is known to be the only inaccurate one. New counts that show the revision's drop decide,
        and errors, which nobody has acknowledged.
        """
        if self.control or self.rollback_request or self.has_revision_dropped or self.erring_pods:
            return False
        return any(p.is_acknowledged and not p.is_quarantined for p in self.pods)

    @property
    def has_revision_dropped(self) -> bool:
        """The revision and not a pod: two pods, the pool without its worst pod, or the only pod there is.

        A pod beside which no other one serves is the only one ALONE_SECONDS after its count.
        """
        in_traffic = [p for p in self.pods if not p.is_quarantined]
        alone = max(self.replicas, len(in_traffic)) <= 1 and any(p.has_dropped for p in in_traffic)
        alone |= self.seconds_until_alone is not None and self.seconds_until_alone <= 0
        return alone or len(self.pods_below_threshold) >= 2 or self._has_pool_dropped(in_traffic)

    @property
    def seconds_for_candidate(self) -> float:
        """Seconds for which a rollback still waits for the candidate: none for one that came after the count."""
        if not self.rollout_under_way:
            return 0.0
        since = self.now if self.candidate_since is None else self.candidate_since
        counted = [p.counted_at for p in self.pods_below_threshold if p.counted_at is not None]
        if self.pool.below and self.pool.counted_at is not None:
            counted.append(self.pool.counted_at)
        is_later = bool(counted) and since > min(counted)
        return 0.0 if is_later else since + CANDIDATE_SECONDS - self.now

    @property
    def seconds_until_alone(self) -> float | None:
        """Seconds until the only pod that serves, counted below the threshold, stands for its revision; None: none."""
        serving = [p for p in self.pods if p.serves and not p.is_quarantined]
        if len(serving) != 1 or not serving[0].has_dropped or serving[0].counted_at is None:
            return None
        return serving[0].counted_at + ALONE_SECONDS - self.now

    def _has_pool_dropped(self, in_traffic: list[PodHealth]) -> bool:
        """Compare the pool. Sweeps ask once, so flips may lower one; a pod's own exact count outweighs them."""
        counted_above = any(p.standing is WatchStanding.CHANGED for p in in_traffic if p.name != self.pool.worst)
        return self.pool.without_worst >= 1 and self.pool.below is True and not counted_above


@dataclass(frozen=True, slots=True)
class BreachResponse:
    """The decision and its message."""

    action: Action
    reason: RollbackReason
    message: str
    pod: str = ""
    revision: str = ""
    recheck_after: float | None = None
    """Seconds after which time alone may change the decision."""
