"""The operator's metrics of each deployment. The reconciler records them after every pass that was applied.

Every label set exists from the first pass on, so that a first increment is visible, and is removed with the deployment.
Series are built at each scrape: a deployment has two dozen, and a pass builds none.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from r1plus_contract import metrics
from r1plus_operator.api.conditions import DEPLOYMENT_CONDITIONS, Reason
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.rollback_record import BELOW_THRESHOLD, USER_REQUEST
from r1plus_operator.plan.status.metrics import PlanMetrics
from r1plus_operator.plan.status.runtime import FAILED
from r1plus_policies.bounds import Interval
from r1plus_policies.detector.pool import Pool
from r1plus_policies.rollback.response import BLOCK_REASONS

Key = tuple[str, str]
_LABELS: Final = ("namespace", "deployment")
_VALUES: Final = {"True": 1, "False": 0}
_CONDITIONS: Final = tuple(kind.value for kind in DEPLOYMENT_CONDITIONS)


@dataclass(slots=True)
class _DeploymentState:
    """A deployment: what its last pass reported and what all its passes did."""

    revision: str
    engine: str
    facts: PlanMetrics
    conditions: tuple[int, ...]
    """In the order of `DEPLOYMENT_CONDITIONS`."""
    is_refused: bool
    is_overdue: bool
    is_lost: bool
    rollbacks: Counter[str] = field(default_factory=Counter)
    quarantines: int = 0


@dataclass(frozen=True, slots=True)
class _PoolState:
    """The state of a deployment's pooled detectors."""

    revision: str
    accuracy: float
    errors: float
    counts: tuple[int, int]
    """Right answers and all, from which the interval was computed: computing one is expensive."""
    interval: Interval | None
    """None without an answer: 0 to 1 would look like a result."""


class DeploymentMetrics(Collector):
    """Series of all deployments, each removed with its deployment. Scraped from another thread than the writer's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._states: dict[Key, _DeploymentState] = {}
        self._pools: dict[Key, _PoolState] = {}
        registry.register(self)

    def record(self, key: Key, status: Json, facts: PlanMetrics) -> None:
        """Record a pass: the status that it wrote and what it did."""
        conditions = {c["type"]: c for c in status.get("conditions", ())}
        previous = self._states.get(key)
        state = self._states[key] = _DeploymentState(
            revision=status.get("revision", ""),
            engine=status.get("engine", ""),
            facts=facts,
            conditions=tuple(_VALUES.get(conditions.get(kind, {}).get("status", ""), -1) for kind in _CONDITIONS),
            is_refused=any(c["reason"] == Reason.CANDIDATE_REFUSED for c in conditions.values()),
            is_overdue=any(c["reason"] == Reason.DEADLINE_EXCEEDED for c in conditions.values()),
            is_lost=any(c["reason"] == Reason.REVISION_LOST for c in conditions.values()),
        )
        if previous is not None:
            state.rollbacks, state.quarantines = previous.rollbacks, previous.quarantines
        if facts.rolled_back:
            state.rollbacks[facts.rolled_back] += 1
        state.quarantines += facts.quarantined

    def record_pool(self, key: Key, pool: Pool) -> None:
        """Record a deployment's pooled detectors. `Pools` calls it whenever it reads them."""
        counts, previous = (pool.right, pool.answered), self._pools.get(key)
        is_unchanged = previous is not None and (previous.revision, previous.counts) == (pool.key.revision, counts)
        interval = previous.interval if previous and is_unchanged else pool.interval
        self._pools[key] = _PoolState(pool.key.revision, pool.accuracy, pool.errors, counts, interval)

    def forget(self, key: Key) -> None:
        """Drop the series of a deployment that is gone."""
        self._pools.pop(key, None)
        self._states.pop(key, None)

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples: a scrape may select by their names."""
        return self._build_families([], [])

    def collect(self) -> Iterable[Metric]:
        """Return all families with their samples. Copies the states first, since passes go on meanwhile."""
        return self._build_families(list(self._states.items()), list(self._pools.items()))

    def _build_families(
        self, states: list[tuple[Key, _DeploymentState]], pools: list[tuple[Key, _PoolState]]
    ) -> Iterator[Metric]:
        info = _build_gauge(
            metrics.DEPLOYMENT_INFO, "1 for the revision that takes traffic.", "revision", "tier", "engine"
        )
        condition = _build_gauge(metrics.DEPLOYMENT_CONDITION, "1 True, 0 False, -1 Unknown.", "type")
        threshold = _build_gauge(metrics.DEPLOYMENT_THRESHOLD_RATIO, "spec.accuracy.threshold.")
        blocked_gauge = _build_gauge(
            metrics.ROLLBACK_BLOCKED, "1 while this blocks a rollback or quarantine.", "reason"
        )
        refused_gauge = _build_gauge(metrics.CANDIDATE_REFUSED, "1 while the spec's revision has failed its gate.")
        overdue_gauge = _build_gauge(metrics.ROLLOUT_OVERDUE, "1 while the spec's revision is past its deadline.")
        lost_gauge = _build_gauge(metrics.REVISION_LOST, "1 while what serves has no readable revision.")
        outdated_gauge = _build_gauge(
            metrics.RUNTIME_OUTDATED, "1 while newer images are available.", "triton", "monitor"
        )
        vulnerable = _build_gauge(metrics.RUNTIME_VULNERABLE, "1 while runtime.vulnerable names a serving image.")
        failed_gauge = _build_gauge(metrics.REFRESH_FAILED, "1 while a candidate on the operator's images has failed.")
        rollbacks = CounterMetricFamily(metrics.ROLLBACKS_TOTAL, "Rollbacks made.", labels=[*_LABELS, "reason"])
        quarantines = CounterMetricFamily(metrics.QUARANTINES_TOTAL, "Pods quarantined.", labels=_LABELS)
        for key, state in states:
            info.add_metric([*key, state.revision, state.facts.tier, state.engine], 1)
            threshold.add_metric(key, state.facts.threshold)
            refused_gauge.add_metric(key, state.is_refused)
            overdue_gauge.add_metric(key, state.is_overdue)
            lost_gauge.add_metric(key, state.is_lost)
            quarantines.add_metric(key, state.quarantines)
            if runtime := state.facts.runtime:
                outdated_gauge.add_metric([*key, runtime["triton"], runtime["monitor"]], runtime["outdated"])
                vulnerable.add_metric(key, runtime["vulnerable"])
                failed_gauge.add_metric(key, runtime["reason"] == FAILED)
            for kind, value in zip(_CONDITIONS, state.conditions, strict=True):
                condition.add_metric([*key, kind], value)
            for why in BLOCK_REASONS:
                blocked_gauge.add_metric([*key, why.value], why.value == state.facts.blocked)
            for cause in (BELOW_THRESHOLD, USER_REQUEST):
                rollbacks.add_metric([*key, cause], state.rollbacks[cause])
        yield from (info, condition, threshold, blocked_gauge, refused_gauge, overdue_gauge, rollbacks, quarantines)
        yield from (outdated_gauge, vulnerable, failed_gauge, lost_gauge)
        evidence = _build_gauge(metrics.POOL_EVIDENCE_RATIO, "Evidence of all pods; 1 alarms.", "revision", "detector")
        lower = _build_gauge(
            metrics.POOL_ACCURACY_LOWER_RATIO, "Lower bound of the share right, alpha 0.001.", "revision"
        )
        upper = _build_gauge(
            metrics.POOL_ACCURACY_UPPER_RATIO, "Upper bound of the share right, alpha 0.001.", "revision"
        )
        for key, pool in pools:
            evidence.add_metric([*key, pool.revision, "accuracy"], pool.accuracy)
            evidence.add_metric([*key, pool.revision, "errors"], pool.errors)
            if pool.interval:
                lower.add_metric([*key, pool.revision], pool.interval.lower)
                upper.add_metric([*key, pool.revision], pool.interval.upper)
        yield from (evidence, lower, upper)


def _build_gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=[*_LABELS, *labels])
