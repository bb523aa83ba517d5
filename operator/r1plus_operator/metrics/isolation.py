"""The operator's metrics of each tenant's isolation. The reconciler records them after a namespace's pass.

Every label set exists from the first pass on, and is removed with the namespace. Scraped from another thread.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from r1plus_contract import metrics
from r1plus_operator.plan.observation import TenantView
from r1plus_operator.plan.tenancy.isolation_test_run import IsolationTestResult

_VALUES = {"True": 1, "False": 0}
_TenantState = tuple[int, IsolationTestResult | None]


class IsolationMetrics(Collector):
    """Series of all tenants."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._states: dict[str, _TenantState] = {}
        registry.register(self)

    def record(self, namespace: str, view: TenantView, newest: IsolationTestResult | None) -> None:
        """Record a pass: its view of the namespace, and the newest isolation test that has ended."""
        self._states[namespace] = (_VALUES.get(view.status, -1), newest)

    def forget(self, namespace: str) -> None:
        """Drop the series of a namespace that is no tenant, or gone."""
        self._states.pop(namespace, None)

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples."""
        return self._build_families([])

    def collect(self) -> Iterable[Metric]:
        """Return all families with their samples."""
        return self._build_families(list(self._states.items()))

    def _build_families(self, states: list[tuple[str, _TenantState]]) -> Iterator[Metric]:
        isolation_gauge = GaugeMetricFamily(
            metrics.ISOLATION_VERIFIED, "IsolationVerified: 1 True, 0 False, -1 Unknown.", labels=["namespace"]
        )
        attempts_gauge = GaugeMetricFamily(
            metrics.ISOLATION_TRIES, "Attempts of the newest isolation test.", labels=["namespace", "outcome"]
        )
        timestamp_gauge = GaugeMetricFamily(
            metrics.ISOLATION_RUN_TIMESTAMP_SECONDS, "When the newest isolation test ended.", labels=["namespace"]
        )
        for namespace, (value, newest) in states:
            isolation_gauge.add_metric([namespace], value)
            judgement = newest.judgement if newest else None
            counts = {
                "held": len(judgement.held) if judgement else 0,
                "open": len(judgement.open) if judgement else 0,
                "unseen": len(judgement.unseen) + len(judgement.failed) if judgement else 0,
            }
            for outcome, count in counts.items():
                attempts_gauge.add_metric([namespace, outcome], count)
            if newest is not None and newest.ended_at is not None:
                timestamp_gauge.add_metric([namespace], newest.ended_at)
        yield from (isolation_gauge, attempts_gauge, timestamp_gauge)
