"""The words of an answer to a fall: what is observed of a deployment, what is done about it. `answering` decides."""

from dataclasses import dataclass
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
    PAUSED = "Paused"
    ONE_BAD_POD = "OneBadPod"
    LAST_THAT_SERVES = "LastThatServes"
    ALREADY_QUARANTINED = "AlreadyQuarantined"
    ONE_NODE = "OneNode"
    ROLLOUT_UNDER_WAY = "RolloutUnderWay"
    COOLDOWN = "Cooldown"
    NO_LAST_GOOD = "NoLastGood"
    ARTIFACT_GONE = "ArtifactGone"
    PLACEMENT_NOT_ALLOWED = "PlacementNotAllowed"
    MONITOR_TOO_OLD = "MonitorTooOld"
    ALREADY_ROLLED_BACK = "AlreadyRolledBack"
    ROLLBACK_TARGET_ALSO_FAILED = "RollbackTargetAlsoFailed"
    NO_CAPACITY = "NoCapacity"
    CONTROL_OVERDUE = "ControlOverdue"
    NAMESPACE_NOT_TENANT = "NamespaceNotTenant"
    CONTROL_RUNNING = "ControlRunning"
    CONTROL_PASSED = "ControlPassed"


BLOCKING: Final = (
    Why.ALERT_ONLY, Why.PINNED, Why.PAUSED, Why.LAST_THAT_SERVES, Why.ALREADY_QUARANTINED, Why.ONE_NODE,
    Why.ROLLOUT_UNDER_WAY,
    Why.COOLDOWN, Why.NO_LAST_GOOD, Why.ARTIFACT_GONE, Why.ALREADY_ROLLED_BACK, Why.ROLLBACK_TARGET_ALSO_FAILED,
    Why.NO_CAPACITY,
    Why.CONTROL_OVERDUE, Why.SUITE_MISMATCH, Why.MONITOR_TOO_OLD,
    Why.NAMESPACE_NOT_TENANT, Why.PLACEMENT_NOT_ALLOWED,
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
    """The same pool without its worst pod: the one without which the least is left."""
    below: bool | None = None
    """Whether the others' sweeps that ended since the alarm are below the threshold; None before one has."""
    worst: str = ""
    """That pod's name."""


@dataclass(frozen=True, slots=True)
class PastRevision:
    """A revision beside the one that serves."""

    name: str
    promoted_at: float
    """When it last took traffic, seconds since the epoch."""
    served_seconds: float
    """How long it then carried traffic."""
    passed: bool
    """At the serving batch, and on the very suite, hash for hash, that is in force; or, where it was never asked that
    one, on a former one by which what serves was judged as well."""
    engine_there: bool
    """Its engine is in the catalog with the same digest."""
    given_up: bool = False
    """It was itself rolled back from, and nobody has said otherwise."""
    takes_orders: bool = True
    """Its monitor can be told to sweep it anew; one that an older version rendered cannot."""
    is_placed: bool = True
    """Its pods may still run where they would be placed."""


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
    blocked: str = ""
    """Why its monitor's scorer or suite can decide nothing, in the monitor's words."""


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
    not_tenant: str = ""
    """Why nothing may be written in the namespace; empty where it is a tenant."""
    paused: bool = False
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
        counted_above = any(p.standing is Standing.CHANGED for p in in_traffic if p.name != self.pool.worst)
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
