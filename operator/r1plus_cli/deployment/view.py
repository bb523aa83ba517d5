"""One R1PlusDeployment in a readable form. Called by `r1plus status` and by the demo.

Reads the object field by field and tolerates missing ones, so that a status of another operator version is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from r1plus_contract.plain_text import to_printable
from r1plus_operator.api.conditions import KSTATUS_CONDITIONS

READY = "Ready"
QUALITY = "QualityVerified"
PROGRESSING = "Progressing"
ISOLATED = "IsolationVerified"
WATCHED = "AlertsWired"
UNKNOWN = "Unknown"

# The first of these that is not True describes the state best. All but Ready are about the candidate, so a rejected
# or gated candidate is reported although the current revision serves.
TELLING_ORDER = ("EngineReady", "CapacityFits", QUALITY, ISOLATED, READY, WATCHED)
NOT_SEEN = "the operator has not processed it yet"
ROLLED_BACK = "RolledBack"
AT_REST = "Complete"
"""Reason of Progressing when no rollout runs."""
PINNED, PAUSED = "Pinned", "Paused"
"""Reasons of Progressing while traffic must not move."""


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
    """An accuracy drop as the operator reports it."""

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
    """The images that serve, and the state of the refresh to newer ones."""

    triton: str
    monitor: str
    is_outdated: bool
    is_vulnerable: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """The fields of an R1PlusDeployment that users look at."""

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
    """Rollback blockers of each earlier revision."""
    last_request: str = ""
    requests: int = 0
    """Number of the newest request that the operator has seen."""
    refusals: tuple[str, ...] = ()
    """Why requests are not carried out."""
    incident: IncidentView | None = None
    runtime: RuntimeView | None = None
    strategy: str = ""

    @property
    def rolled_back(self) -> bool:
        """Whether the revision of the spec was rolled back."""
        return self.incident is not None and self.incident.reason == ROLLED_BACK

    def condition_message(self, kind: str) -> str:
        """Return the condition's message, or an empty string."""
        condition = self.condition(kind)
        return "" if condition is None else condition.message

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def ready(self) -> bool:
        """Whether it serves, as reported for the newest spec."""
        return self.up_to_date and self.status_of(READY) == "True"

    def condition(self, kind: str) -> ConditionView | None:
        """Return the condition of this type, or None."""
        return next((c for c in self.conditions if c.type == kind), None)

    def status_of(self, kind: str) -> str:
        """Return True, False or Unknown."""
        condition = self.condition(kind)
        return UNKNOWN if condition is None else condition.status

    def reason_of(self, kind: str) -> str:
        """Return the condition's reason, or an empty string."""
        condition = self.condition(kind)
        return "" if condition is None else condition.reason

    def columns(self) -> tuple[str, ...]:
        """Return the cells of `kubectl get r1plusdeployments -A`, without reason and age."""
        cells = (self.tier, self.engine, self.batch, self.accuracy, self.verdict, self.status_of(READY))
        return self.namespace, self.name, *(cell or "-" for cell in cells)

    def select_condition(self) -> ConditionView | None:
        """Return the condition that describes the state best."""
        candidates = [c for kind in TELLING_ORDER if (c := self.condition(kind)) is not None and not c.holds]
        # False comes before Unknown, which often follows from it. Alerts and isolation come last while the deployment
        # does not serve, because they do not explain why.
        deferred_types = (WATCHED,) if self.status_of(READY) == "True" else (WATCHED, ISOLATED)
        candidates.sort(key=lambda c: (c.type in deferred_types, c.status != "False" or c.type == READY))
        if candidates:
            return candidates[0]
        progressing = self.condition(PROGRESSING)
        return progressing if progressing is not None and progressing.reason != AT_REST else self.condition(READY)

    def format_brief(self) -> str:
        """Return the state for a line whose columns already show whether it is ready."""
        condition = self.select_condition()
        if condition is None or not self.up_to_date or condition.type == READY or not condition.message:
            return self.format_headline()
        return f"{self._prefix_for(condition)}{condition.reason}: {condition.message}"

    def _prefix_for(self, condition: ConditionView) -> str:
        """Return `candidate: ` if a condition is about the candidate, next to cells about the current revision.

        During a rollback, and while traffic is pinned, the conditions are about the current revision.
        """
        speaks_of_spec = condition.type not in (READY, WATCHED, ISOLATED) and self.incident is None and not self.pinned
        has_candidate = self.candidate not in ("", self.revision) and self.revision != ""
        return "candidate: " if speaks_of_spec and has_candidate else ""

    def format_headline(self) -> str:
        """Return the state in one sentence."""
        if not self.conditions:
            return NOT_SEEN
        if not self.up_to_date:
            return "the operator has not processed the newest spec yet"
        condition = self.select_condition()
        where = (
            f"{self._prefix_for(condition)}{condition.reason}: {condition.message}"
            if condition is not None and condition.message
            else ""
        )
        pods = f"{self.replicas_ready} of {self.replicas_wanted} {'pod' if self.replicas_wanted == 1 else 'pods'} ready"
        if self.ready:
            return f"serves, {pods}" + (f"; {where}" if condition is not None and condition.type != READY else "")
        return f"does not serve, {pods}; {where}"


COLUMNS = ("NAMESPACE", "NAME", "TIER", "ENGINE", "BATCH", "ACCURACY", "VERDICT", "READY")


def build_view(cr: Mapping[str, Any]) -> DeploymentView:
    """Return the view of an R1PlusDeployment as the API server returns it."""
    metadata, spec, status = _get_mapping(cr, "metadata"), _get_mapping(cr, "spec"), _get_mapping(cr, "status")
    accuracy = _get_mapping(spec, "accuracy")
    return DeploymentView(
        namespace=_get_text(metadata, "namespace"),
        name=_get_text(metadata, "name"),
        tier=_get_text(spec, "tier"),
        gate=_get_text(accuracy, "gate"),
        threshold=_get_text(accuracy, "threshold"),
        replicas_wanted=int(spec.get("replicas", 1)),
        engine=_get_text(status, "engine"),
        batch=_get_text(status, "batch"),
        context=_get_text(status, "context"),
        suite=_get_text(status, "suite"),
        accuracy=_get_text(status, "accuracy"),
        verdict=_get_text(status, "verdict"),
        replicas_ready=int(status.get("readyReplicas", 0)),
        revision=_get_text(status, "revision"),
        candidate=_get_text(status, "candidate"),
        endpoint=_get_text(status, "endpoint"),
        up_to_date=int(status.get("observedGeneration", 0)) >= int(metadata.get("generation", 1)),
        created=_parse_time(_get_text(metadata, "creationTimestamp")),
        conditions=tuple(
            _parse_condition(c) for c in status.get("conditions") or () if c.get("type") not in KSTATUS_CONDITIONS
        ),
        pinned=_get_mapping(spec, "rollout").get("pinned") is True,
        paused=_get_mapping(spec, "rollout").get("paused") is True,
        last_good=_get_text(status, "lastGood"),
        rollback_blockers=_get_texts(status, "rollbackBlockers"),
        last_request=_get_text(status, "lastRequest"),
        requests=int(status.get("requests", 0)),
        refusals=tuple(filter(None, (_get_text(status, field) for field in ("requestRefused", "refreshRefused")))),
        incident=_parse_incident(_get_mapping(status, "incident")),
        runtime=_parse_runtime(_get_mapping(status, "runtime")),
        strategy=_get_text(_get_mapping(spec, "rollout"), "strategy"),
    )


def format_age(created: datetime | None, now: datetime) -> str:
    """Return an age like kubectl: 45s, 12m, 3h, 9d."""
    if created is None:
        return "-"
    seconds = max(0, int((now - created).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _parse_incident(raw: Mapping[str, Any]) -> IncidentView | None:
    if not raw:
        return None
    return IncidentView(
        since=_get_text(raw, "since"),
        revision=_get_text(raw, "revision"),
        reason=_get_text(raw, "reason"),
        before=_get_text(raw, "before"),
        now=_get_text(raw, "now"),
        lost=_get_texts(raw, "lost"),
        tried=_get_texts(raw, "tried"),
        next=_get_text(raw, "next"),
        runbook=_get_text(raw, "runbook"),
    )


def _parse_runtime(raw: Mapping[str, Any]) -> RuntimeView | None:
    if not raw:
        return None
    return RuntimeView(
        triton=_get_text(raw, "triton"),
        monitor=_get_text(raw, "monitor"),
        is_outdated=raw.get("outdated") is True,
        is_vulnerable=raw.get("vulnerable") is True,
        reason=_get_text(raw, "reason"),
        message=_get_text(raw, "message"),
    )


def _parse_condition(raw: Mapping[str, Any]) -> ConditionView:
    return ConditionView(
        _get_text(raw, "type"), _get_text(raw, "status"), _get_text(raw, "reason"), _get_text(raw, "message")
    )


def _get_mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key)
    return value if isinstance(value, Mapping) else {}


def _get_text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return "" if value is None else to_printable(str(value))


def _get_texts(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(to_printable(str(value)) for value in raw.get(key) or ())


def _parse_time(text: str) -> datetime | None:
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
