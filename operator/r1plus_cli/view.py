"""One R1PlusDeployment as a person reads it. Called by `r1plus status` and by the demo.

Reads the object leniently, field by field: a status written by another version of the operator is still shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from r1plus_contract.plain_text import plain

READY = "Ready"
QUALITY = "QualityVerified"
PROGRESSING = "Progressing"
ISOLATED = "IsolationVerified"
WATCHED = "AlertsWired"
UNKNOWN = "Unknown"

# The first of these that is not True says it best. All but Ready speak of what the spec asks for, so a candidate that
# is refused or still gated is told although the revision before it serves.
TELLING_ORDER = ("EngineReady", "CapacityFits", QUALITY, ISOLATED, READY, WATCHED)
NOT_SEEN = "the operator has not looked at it yet"
ROLLED_BACK = "RolledBack"
AT_REST = "Complete"
"""Progressing's reason while nothing is under way."""
PINNED, PAUSED = "Pinned", "Paused"
"""Progressing's reason while somebody holds traffic where it is."""


@dataclass(frozen=True, slots=True)
class ConditionView:
    """One condition."""

    type: str
    status: str
    reason: str
    message: str

    @property
    def holds(self) -> bool:
        """Whether its status is True."""
        return self.status == "True"


@dataclass(frozen=True, slots=True)
class IncidentView:
    """A fall as the operator tells it."""

    since: str
    revision: str
    reason: str
    before: str
    now: str
    lost: tuple[str, ...]
    tried: tuple[str, ...]
    next: str
    runbook: str


@dataclass(frozen=True, slots=True)
class RuntimeView:
    """Which images serve, and what is done about newer ones."""

    triton: str
    monitor: str
    is_outdated: bool
    is_vulnerable: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """The fields of an R1PlusDeployment that a person asks about."""

    namespace: str
    name: str
    tier: str
    gate: str
    threshold: str
    replicas_wanted: int
    engine: str
    batch: str
    context: str
    suite: str
    accuracy: str
    verdict: str
    replicas_ready: int
    revision: str
    candidate: str
    endpoint: str
    up_to_date: bool
    """Whether the operator has seen the newest spec."""
    created: datetime | None
    conditions: tuple[ConditionView, ...]
    pinned: bool = False
    paused: bool = False
    last_good: str = ""
    rollback_blockers: tuple[str, ...] = ()
    """What each earlier revision lacks to be gone back to."""
    last_request: str = ""
    requests: int = 0
    """Number of the newest request that the operator has seen."""
    request_refused: str = ""
    incident: IncidentView | None = None
    runtime: RuntimeView | None = None
    strategy: str = ""

    @property
    def rolled_back(self) -> bool:
        """Whether the revision that the spec asks for was gone back from."""
        return self.incident is not None and self.incident.reason == ROLLED_BACK

    def condition_message(self, kind: str) -> str:
        """The condition's message, or nothing."""
        found = self.condition(kind)
        return "" if found is None else found.message

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def ready(self) -> bool:
        """Whether it serves, as the operator says of the newest spec."""
        return self.up_to_date and self.status_of(READY) == "True"

    def condition(self, kind: str) -> ConditionView | None:
        """The condition of this type, if there is one."""
        return next((c for c in self.conditions if c.type == kind), None)

    def status_of(self, kind: str) -> str:
        """True, False or Unknown."""
        found = self.condition(kind)
        return UNKNOWN if found is None else found.status

    def reason_of(self, kind: str) -> str:
        """The condition's reason, or nothing."""
        found = self.condition(kind)
        return "" if found is None else found.reason

    def columns(self) -> tuple[str, ...]:
        """The cells of `kubectl get r1plusdeployments -A`, but for reason and age."""
        cells = (self.tier, self.engine, self.batch, self.accuracy, self.verdict, self.status_of(READY))
        return self.namespace, self.name, *(cell or "-" for cell in cells)

    def telling(self) -> ConditionView | None:
        """The condition that says best where this deployment stands."""
        found = [c for kind in TELLING_ORDER if (c := self.condition(kind)) is not None and not c.holds]
        # What is wrong is told before what is not known yet, which is often unknown because of it; that nobody watches
        # what does not serve, or has shown its walls, explains nothing.
        last = (WATCHED,) if self.status_of(READY) == "True" else (WATCHED, ISOLATED)
        found.sort(key=lambda c: (c.type in last, c.status != "False" or c.type == READY))
        if found:
            return found[0]
        moving = self.condition(PROGRESSING)
        return moving if moving is not None and moving.reason != AT_REST else self.condition(READY)

    def brief(self) -> str:
        """Where it stands, beside columns that already say whether it is ready."""
        told = self.telling()
        if told is None or not self.up_to_date or told.type == READY or not told.message:
            return self.headline()
        return f"{self._whose(told)}{told.reason}: {told.message}"

    def _whose(self, told: ConditionView) -> str:
        """Say that a condition is the candidate's, beside cells that are of what serves.

        During a rollback, and while traffic is pinned, the conditions speak of what serves.
        """
        speaks_of_spec = told.type not in (READY, WATCHED, ISOLATED) and self.incident is None and not self.pinned
        has_candidate = self.candidate not in ("", self.revision) and self.revision != ""
        return "candidate: " if speaks_of_spec and has_candidate else ""

    def headline(self) -> str:
        """Where it stands, in one sentence."""
        if not self.conditions:
            return NOT_SEEN
        if not self.up_to_date:
            return "the operator has not looked at the newest spec yet"
        told = self.telling()
        where = f"{self._whose(told)}{told.reason}: {told.message}" if told is not None and told.message else ""
        pods = f"{self.replicas_ready} of {self.replicas_wanted} {'pod' if self.replicas_wanted == 1 else 'pods'} ready"
        if self.ready:
            return f"serves, {pods}" + (f"; {where}" if told is not None and told.type != READY else "")
        return f"does not serve, {pods}; {where}"


COLUMNS = ("NAMESPACE", "NAME", "TIER", "ENGINE", "BATCH", "ACCURACY", "VERDICT", "READY")


def view_of(cr: Mapping[str, Any]) -> DeploymentView:
    """The view of an R1PlusDeployment as the API server returns it."""
    metadata, spec, status = _mapping(cr, "metadata"), _mapping(cr, "spec"), _mapping(cr, "status")
    accuracy = _mapping(spec, "accuracy")
    return DeploymentView(
        namespace=_text(metadata, "namespace"),
        name=_text(metadata, "name"),
        tier=_text(spec, "tier"),
        gate=_text(accuracy, "gate"),
        threshold=_text(accuracy, "threshold"),
        replicas_wanted=int(spec.get("replicas", 1)),
        engine=_text(status, "engine"),
        batch=_text(status, "batch"),
        context=_text(status, "context"),
        suite=_text(status, "suite"),
        accuracy=_text(status, "accuracy"),
        verdict=_text(status, "verdict"),
        replicas_ready=int(status.get("readyReplicas", 0)),
        revision=_text(status, "revision"),
        candidate=_text(status, "candidate"),
        endpoint=_text(status, "endpoint"),
        up_to_date=int(status.get("observedGeneration", 0)) >= int(metadata.get("generation", 1)),
        created=_time(_text(metadata, "creationTimestamp")),
        conditions=tuple(_condition(c) for c in status.get("conditions") or ()),
        pinned=_mapping(spec, "rollout").get("pinned") is True,
        paused=_mapping(spec, "rollout").get("paused") is True,
        last_good=_text(status, "lastGood"),
        rollback_blockers=_texts(status, "rollbackBlockers"),
        last_request=_text(status, "lastRequest"),
        requests=int(status.get("requests", 0)),
        request_refused=_text(status, "requestRefused"),
        incident=_incident(_mapping(status, "incident")),
        runtime=_runtime(_mapping(status, "runtime")),
        strategy=_text(_mapping(spec, "rollout"), "strategy"),
    )


def age(created: datetime | None, now: datetime) -> str:
    """As kubectl writes ages: 45s, 12m, 3h, 9d."""
    if created is None:
        return "-"
    seconds = max(0, int((now - created).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _incident(raw: Mapping[str, Any]) -> IncidentView | None:
    if not raw:
        return None
    return IncidentView(
        since=_text(raw, "since"),
        revision=_text(raw, "revision"),
        reason=_text(raw, "reason"),
        before=_text(raw, "before"),
        now=_text(raw, "now"),
        lost=_texts(raw, "lost"),
        tried=_texts(raw, "tried"),
        next=_text(raw, "next"),
        runbook=_text(raw, "runbook"),
    )


def _runtime(raw: Mapping[str, Any]) -> RuntimeView | None:
    if not raw:
        return None
    return RuntimeView(
        triton=_text(raw, "triton"),
        monitor=_text(raw, "monitor"),
        is_outdated=raw.get("outdated") is True,
        is_vulnerable=raw.get("vulnerable") is True,
        reason=_text(raw, "reason"),
        message=_text(raw, "message"),
    )


def _condition(raw: Mapping[str, Any]) -> ConditionView:
    return ConditionView(_text(raw, "type"), _text(raw, "status"), _text(raw, "reason"), _text(raw, "message"))


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, Mapping) else {}


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return "" if value is None else plain(str(value))


def _texts(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(plain(str(value)) for value in raw.get(key) or ())


def _time(text: str) -> datetime | None:
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
