"""The operator's metrics of each tenant's gateway. The reconciler records them after a namespace's pass.

A series exists while the gateway is enabled, and is removed with it. Scraped from another thread.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from r1plus_contract import metrics

_VALUES: Final[Mapping[str, int]] = MappingProxyType({"True": 1, "False": 0})


class GatewayMetrics(Collector):
    """Series of all gateways."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._values: dict[str, int] = {}
        registry.register(self)

    def record(self, namespace: str, status: str) -> None:
        """Record the status of condition GatewayReady; empty: there is no gateway."""
        if status:
            self._values[namespace] = _VALUES.get(status, -1)
        else:
            self.forget(namespace)

    def forget(self, namespace: str) -> None:
        """Drop the series of a namespace that is gone."""
        self._values.pop(namespace, None)

    def describe(self) -> Iterable[Metric]:
        """Return the family without samples."""
        return self._build_families({})

    def collect(self) -> Iterable[Metric]:
        """Return the family with its samples."""
        return self._build_families(dict(self._values))

    def _build_families(self, values: Mapping[str, int]) -> Iterable[Metric]:
        gauge = GaugeMetricFamily(
            metrics.GATEWAY_READY, "GatewayReady: 1 True, 0 False, -1 Unknown.", labels=["namespace"]
        )
        for namespace, value in values.items():
            gauge.add_metric([namespace], value)
        yield gauge
