"""The monitor's report on the engine that it probes: `GET /verdict` returns a `MonitorReport`."""

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
    """`spec.accuracy.gate`: whether a revision must pass before it serves, or is only watched."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class Phase(StrEnum):
    """State of the monitor."""

    WAITING_FOR_MODEL = "WaitingForModel"
    GATING = "Gating"
    WATCHING = "Watching"
    BLOCKED = "Blocked"
    """It cannot score: no suite, a suite with a wrong hash, unreadable settings. `reason` says which."""


@dataclass(frozen=True, slots=True)
class StratumFigures:
    """One stratum of the suite after the gate."""

    name: str
    items: int
    lost: int
    allowed: int


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's verdict with its figures; stored on the ControllerRevision as an annotation."""

    verdict: Verdict
    reason: str
    """CamelCase, stable: Passed, TooManyLost, StratumLost, Unstable, TooManyWrong, ItemsUnscored, ..."""
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
    """Batch of the full sweeps. A gate during traffic runs at 1, so its Pass does not cover the serving batch."""
    control: str = ""
    """Token of the `ControlOrder` that requested this gate; empty where the rollout did."""
    acknowledged: str = ""
    """The acknowledgement that requested this gate. Its Pass replaces an earlier Fail."""

    def admits_at(self, batch: int) -> bool:
        """Return whether this report admits a revision of that batch to traffic."""
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


class WatchStanding(StrEnum):
    """The result of the watch over an admitted pod, in addition to the gate's verdict."""

    STEADY = "Steady"
    CONFIRMING = "Confirming"
    """A detector has raised an alarm; a sweep at a higher rate is counting."""
    CHANGED = "Changed"
    """Something changed since the gate, and the exact count is still above the threshold."""
    BELOW_THRESHOLD = "BelowThreshold"
    """Confirmed: the exact count is below the threshold."""
    ERRORS = "Errors"
    """The engine errs or times out too often; the count of answered items is not below the threshold."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The detectors of one pod. It changes when its meaning changes: evidence is given in powers of ten."""

    standing: WatchStanding
    watched: int
    """Items that the revision passed in its gate."""
    evidence: float = 0.0
    """Of the accuracy detector, as a share of what raises its alarm, rounded to a power of ten; 1 or more from the
    alarm on."""
    error_evidence: float = 0.0
    """The same for the detector of server errors."""
    alarmed_at: str = ""
    confirmation: SweepFigures | None = None
    """The sweep that followed the alarm."""
    lost_since_gate: tuple[str, ...] = ()
    """Ids of watched items that the confirmation lost, at most 50."""
    strata: tuple[StratumFigures, ...] = ()
    """How many watched items the confirmation lost, by stratum: all of them, even where fewer ids are named. Empty
        where it lost none, and from an older monitor."""


@dataclass(frozen=True, slots=True)
class GateProgress:
    """How far the gate is, in probes."""

    done: int
    total: int
    text: str
    is_short_check: bool = False
    """Whether it is only the check of a sample, by a pod of a revision that has passed its gate."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A suite in its shadow gate, while the former one counts."""

    suite: str
    suite_hash: str
    percent: int = 0
    """Of its scored probes, in steps of ten."""
    gate: GateReport | None = None
    """Once it is decided: then the suite counts."""
    problem: str = ""
    """Why it cannot be asked."""
    ran_under: str = ""
    """As `MonitorReport.ran_under`, of this gate."""


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """The whole report. `sequence` grows with every change, so that readers can skip what they know."""

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
    progress: GateProgress | None = None
    sweep: SweepFigures | None = None
    watch: Watch | None = None
    """None until the pod is admitted and its gate is decided."""
    sequence: int = 0
    prober_restarts: int = 0
    threshold: float | None = None
    """The threshold of the verdict. None without one, and from an older monitor, which does not report it."""
    acknowledged: str | None = None
    """The newest acknowledgement that the watch has acted on; empty before any. None without a watch, and from an
    older
        monitor: then the report is used as it is."""
    shadow: Shadow | None = None
    """The suite that the deployment asks for, while the former one counts."""
    ran_under: str = ""
    """`settings.hash_config` of what was mounted when this pod began to run `gate`. Empty: it read `gate` in
    `verdicts.json`, or the monitor is an older one."""
    user_requests: int | None = None
    """Requests that the engine runs or has queued, without the monitor's probes; counted when the report is read, and
    no change of the report. None: the engine does not say, or the monitor is an older one."""
