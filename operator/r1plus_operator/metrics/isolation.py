"""What the operator's metrics tell of each tenant's walls. Written by the reconciler after a namespace's pass.

Every label set exists from the first pass on, and goes with the namespace. Scraped from another thread.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from r1plus_contract import metrics
from r1plus_operator.plan.observation import TenantView
from r1plus_operator.plan.tenancy.isolation_test_run import IsolationTestResult

_VALUES = {"True": 1, "False": 0}
_Told = tuple[int, IsolationTestResult | None]


class IsolationMetrics(Collector):
    """Series of all tenants."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._told: dict[str, _Told] = {}
        registry.register(self)

    def record(self, namespace: str, view: TenantView, newest: IsolationTestResult | None) -> None:
        """Take in a pass: what it says of the walls, and the newest run that has ended."""
        self._told[namespace] = (_VALUES.get(view.status, -1), newest)

    def forget(self, namespace: str) -> None:
        """It is no tenant, or gone."""
        self._told.pop(namespace, None)

    def describe(self) -> Iterable[Metric]:
        """The families without samples."""
        return self._families([])

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        return self._families(list(self._told.items()))

    def _families(self, told: list[tuple[str, _Told]]) -> Iterator[Metric]:
        held = GaugeMetricFamily(
            metrics.ISOLATION_VERIFIED, "IsolationVerified: 1 True, 0 False, -1 Unknown.", labels=["namespace"]
        )
        tries = GaugeMetricFamily(
            metrics.ISOLATION_TRIES, "Attempts of the newest isolation test.", labels=["namespace", "outcome"]
        )
        ended = GaugeMetricFamily(
            metrics.ISOLATION_RUN_TIMESTAMP_SECONDS, "When the newest isolation test ended.", labels=["namespace"]
        )
        for namespace, (value, newest) in told:
            held.add_metric([namespace], value)
            judged = newest.judgement if newest else None
            counts = {
                "held": len(judged.held) if judged else 0,
                "open": len(judged.open) if judged else 0,
                "unseen": len(judged.unseen) + len(judged.failed) if judged else 0,
            }
            for outcome, count in counts.items():
                tries.add_metric([namespace, outcome], count)
            if newest is not None and newest.ended_at is not None:
                ended.add_metric([namespace], newest.ended_at)
        yield from (held, tries, ended)
