"""What the monitor says of the engine it probes: `GET /verdict` returns a `MonitorReport`."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Only PASS promotes. NO_DATA is never good news."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    NO_DATA = "NoData"
    ERROR = "Error"


class Gate(StrEnum):
    """`spec.accuracy.gate`: must a revision pass before it serves, or is it only watched?"""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class Phase(StrEnum):
    """Where the monitor stands."""

    WAITING_FOR_MODEL = "WaitingForModel"
    GATING = "Gating"
    WATCHING = "Watching"
    BLOCKED = "Blocked"
    """It cannot score: no suite, a suite whose hash is wrong, settings it cannot read. `reason` says which."""


@dataclass(frozen=True, slots=True)
class StratumFigures:
    """One stratum of the suite after the gate."""

    name: str
    items: int
    lost: int
    allowed: int


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's verdict with the figures that led to it; kept on the ControllerRevision as an annotation."""

    verdict: Verdict
    reason: str
    """CamelCase, stable: Passed, TooManyLost, StratumLost, Unstable, ItemsUnscored, ..."""
    message: str
    identity: str
    suite: str
    suite_hash: str
    scorer_version: str
    threshold: float
    items: int
    lost: int
    allowed: int
    """Most items that may be lost: floor(N(1-t))."""
    strata: tuple[StratumFigures, ...] = ()
    failures: int = 0
    """Failed probes over all full sweeps (flips included)."""
    probes: int = 0
    sweeps: int = 0
    lost_at_batch_1: int = 0
    lost_items: tuple[str, ...] = ()
    """Ids of lost items, at most 50 (ids only, never text)."""
    seconds: float = 0.0
    decided_at: str = ""
    batch: int = 0
    """What the full sweeps ran at. A gate beside traffic runs at 1, so its Pass says nothing of the serving batch."""
    control: str = ""
    """Token of the `ControlOrder` that asked for this gate; empty where the rollout did."""
    acknowledged: str = ""
    """The acknowledgement that asked for this gate. A Pass of one stands in place of an earlier Fail."""

    def admits_at(self, batch: int) -> bool:
        """Whether this report lets a revision of that batch take traffic."""
        return self.verdict is Verdict.PASS and self.batch == batch


@dataclass(frozen=True, slots=True)
class SweepFigures:
    """The last complete continuous sweep: an exact count, with a Clopper-Pearson interval for flips."""

    correct: int
    total: int
    lower: float
    upper: float
    finished_at: str
    lost_items: tuple[str, ...] = ()


class Standing(StrEnum):
    """What the watch over an admitted pod says, beside the gate's verdict."""

    STEADY = "Steady"
    CONFIRMING = "Confirming"
    """A detector has alarmed; a sweep at a raised rate is counting."""
    CHANGED = "Changed"
    """Something changed since the gate, and the exact count is still above the threshold."""
    BELOW_THRESHOLD = "BelowThreshold"
    """Confirmed: the exact count is below the threshold."""
    ERRORS = "Errors"
    """The engine errs or times out too often; the count of those that it answers is not below the threshold."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The detectors of one pod. Changes when its meaning changes: evidence is told in powers of ten."""

    standing: Standing
    watched: int
    """Items that the revision passed in its gate."""
    evidence: float = 0.0
    """Of the accuracy detector, as a share of what raises its alarm, rounded to a power of ten; 1 or more from the
    alarm on."""
    error_evidence: float = 0.0
    """Likewise of the detector of server errors."""
    alarmed_at: str = ""
    confirmation: SweepFigures | None = None
    """The sweep that followed the alarm."""
    lost_since_gate: tuple[str, ...] = ()
    """Ids of watched items that the confirmation lost, at most 50."""
    strata: tuple[StratumFigures, ...] = ()
    """How many watched items the confirmation lost, stratum by stratum: all of them, however few ids are named. Empty
    where it lost none, and of an older monitor."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the gate is, in probes."""

    done: int
    total: int
    text: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """A suite that is asked beside the one that counts."""

    suite: str
    suite_hash: str
    percent: int = 0
    """Of its probes that are scored, in steps of ten."""
    gate: GateReport | None = None
    """Once it is decided: with it the suite counts."""
    problem: str = ""
    """Why it cannot be asked."""
    ran_under: str = ""
    """As `MonitorReport.ran_under`, of this gate."""


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """All that a monitor knows. `sequence` grows with every change, so that readers can skip what they have seen."""

    revision: str
    identity: str
    phase: Phase
    verdict: Verdict
    reason: str
    message: str
    suite: str = ""
    suite_hash: str = ""
    admitted: bool = False
    gate: GateReport | None = None
    progress: Progress | None = None
    sweep: SweepFigures | None = None
    watch: Watch | None = None
    """None until the pod is admitted and its gate is decided."""
    sequence: int = 0
    prober_restarts: int = 0
    threshold: float | None = None
    """What it was judged by. None while nothing is, and of an older monitor, which does not say."""
    acknowledged: str | None = None
    """The newest acknowledgement that the watch has acted on; empty before any. None without a watch, and of an older
    monitor: then the report is taken at its word."""
    shadow: Shadow | None = None
    """The suite that the deployment asks for, while another one counts."""
    ran_under: str = ""
    """`settings.hash_config` of what was mounted when this pod began to run `gate`. Empty: it read `gate` in
    `verdicts.json`, or the monitor is an older one."""
