"""What the operator's metrics tell of each deployment. Written by the reconciler after every pass that was carried out.

Every label set exists from the first pass on, so that a first increment is one, and goes with the deployment. Series
are made when somebody scrapes: there are two dozen of each deployment, and a pass makes none.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from r1plus_contract import metrics
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.rollback_record import BELOW_THRESHOLD, REQUESTED
from r1plus_operator.plan.status.metrics import PlanMetrics
from r1plus_operator.plan.status.runtime import FAILED
from r1plus_policies.bounds import Interval
from r1plus_policies.detector.pool import Pool
from r1plus_policies.rollback.response import BLOCK_REASONS

Key = tuple[str, str]
_WHOSE: Final = ("namespace", "deployment")
_VALUES: Final = {"True": 1, "False": 0}
_CONDITIONS: Final = tuple(kind.value for kind in ConditionType)


@dataclass(slots=True)
class _Told:
    """Of one deployment, what its last pass said and what all its passes did."""

    revision: str
    engine: str
    facts: PlanMetrics
    conditions: tuple[int, ...]
    """In the order of `ConditionType`."""
    refused: bool
    overdue: bool
    rollbacks: Counter[str] = field(default_factory=Counter)
    quarantines: int = 0


@dataclass(frozen=True, slots=True)
class _Pooled:
    """What the pooled detectors of a deployment have."""

    revision: str
    accuracy: float
    errors: float
    counts: tuple[int, int]
    """Right answers and all, of which the interval was made: making one is work."""
    interval: Interval | None
    """None without an answer: 0 to 1 would look like one."""


class DeploymentMetrics(Collector):
    """Series of all deployments, each gone with its deployment. Scraped from another thread than it is written from."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._told: dict[Key, _Told] = {}
        self._pooled: dict[Key, _Pooled] = {}
        registry.register(self)

    def record(self, key: Key, status: Json, facts: PlanMetrics) -> None:
        """Take in a pass: the status that it wrote and what it did."""
        found = {c["type"]: c for c in status.get("conditions", ())}
        before = self._told.get(key)
        told = self._told[key] = _Told(
            revision=status.get("revision", ""),
            engine=status.get("engine", ""),
            facts=facts,
            conditions=tuple(_VALUES.get(found.get(kind, {}).get("status", ""), -1) for kind in _CONDITIONS),
            refused=any(c["reason"] == Reason.CANDIDATE_REFUSED for c in found.values()),
            overdue=any(c["reason"] == Reason.DEADLINE_EXCEEDED for c in found.values()),
        )
        if before is not None:
            told.rollbacks, told.quarantines = before.rollbacks, before.quarantines
        if facts.rolled_back:
            told.rollbacks[facts.rolled_back] += 1
        told.quarantines += facts.quarantined

    def evidence(self, key: Key, pool: Pool) -> None:
        """`Pools` says what the pooled detectors of a deployment have."""
        counts, before = (pool.right, pool.answered), self._pooled.get(key)
        known = before is not None and (before.revision, before.counts) == (pool.key.revision, counts)
        interval = before.interval if before and known else pool.interval
        self._pooled[key] = _Pooled(pool.key.revision, pool.accuracy, pool.errors, counts, interval)

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._pooled.pop(key, None)
        self._told.pop(key, None)

    def describe(self) -> Iterable[Metric]:
        """The families without samples: by their names a scrape may choose."""
        return self._families([], [])

    def collect(self) -> Iterable[Metric]:
        """For the registry. Copies first, since passes go on meanwhile."""
        return self._families(list(self._told.items()), list(self._pooled.items()))

    def _families(self, told: list[tuple[Key, _Told]], pooled: list[tuple[Key, _Pooled]]) -> Iterator[Metric]:
        info = _gauge(metrics.DEPLOYMENT_INFO, "1 for the revision that takes traffic.", "revision", "tier", "engine")
        condition = _gauge(metrics.DEPLOYMENT_CONDITION, "1 True, 0 False, -1 Unknown.", "type")
        threshold = _gauge(metrics.DEPLOYMENT_THRESHOLD_RATIO, "spec.accuracy.threshold.")
        blocked = _gauge(metrics.ROLLBACK_BLOCKED, "1 while this blocks a rollback or quarantine.", "reason")
        refused = _gauge(metrics.CANDIDATE_REFUSED, "1 while the spec's revision has failed its gate.")
        overdue = _gauge(metrics.ROLLOUT_OVERDUE, "1 while the spec's revision is past its deadline.")
        outdated = _gauge(metrics.RUNTIME_OUTDATED, "1 while newer images are available.", "triton", "monitor")
        vulnerable = _gauge(metrics.RUNTIME_VULNERABLE, "1 while runtime.vulnerable names a serving image.")
        failed = _gauge(metrics.REFRESH_FAILED, "1 while a candidate on the operator's images has failed.")
        rollbacks = CounterMetricFamily(metrics.ROLLBACKS_TOTAL, "Rollbacks made.", labels=[*_WHOSE, "reason"])
        quarantines = CounterMetricFamily(metrics.QUARANTINES_TOTAL, "Pods quarantined.", labels=_WHOSE)
        for key, one in told:
            info.add_metric([*key, one.revision, one.facts.tier, one.engine], 1)
            threshold.add_metric(key, one.facts.threshold)
            refused.add_metric(key, one.refused)
            overdue.add_metric(key, one.overdue)
            quarantines.add_metric(key, one.quarantines)
            if runtime := one.facts.runtime:
                outdated.add_metric([*key, runtime["triton"], runtime["monitor"]], runtime["outdated"])
                vulnerable.add_metric(key, runtime["vulnerable"])
                failed.add_metric(key, runtime["reason"] == FAILED)
            for kind, value in zip(_CONDITIONS, one.conditions, strict=True):
                condition.add_metric([*key, kind], value)
            for why in BLOCK_REASONS:
                blocked.add_metric([*key, why.value], why.value == one.facts.blocked)
            for cause in (BELOW_THRESHOLD, REQUESTED):
                rollbacks.add_metric([*key, cause], one.rollbacks[cause])
        yield from (info, condition, threshold, blocked, refused, overdue, rollbacks, quarantines)
        yield from (outdated, vulnerable, failed)
        evidence = _gauge(metrics.POOL_EVIDENCE_RATIO, "Evidence of all pods; 1 alarms.", "revision", "detector")
        lower = _gauge(metrics.POOL_ACCURACY_LOWER_RATIO, "Lower bound of the share right, alpha 0.001.", "revision")
        upper = _gauge(metrics.POOL_ACCURACY_UPPER_RATIO, "Upper bound of the share right, alpha 0.001.", "revision")
        for key, pool in pooled:
            evidence.add_metric([*key, pool.revision, "accuracy"], pool.accuracy)
            evidence.add_metric([*key, pool.revision, "errors"], pool.errors)
            if pool.interval:
                lower.add_metric([*key, pool.revision], pool.interval.lower)
                upper.add_metric([*key, pool.revision], pool.interval.upper)
        yield from (evidence, lower, upper)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=[*_WHOSE, *labels])
