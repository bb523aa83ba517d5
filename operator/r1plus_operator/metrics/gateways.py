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


class GatewayFleetMetrics(Collector):
    """Series of all gateways."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._values: dict[str, tuple[int, int]] = {}
        """Namespace -> status of GatewayReady, ready pods."""
        registry.register(self)

    def record(self, namespace: str, status: str, ready_pods: int) -> None:
        """Record the status of condition GatewayReady and how many pods are ready; empty: there is no gateway."""
        if status:
            self._values[namespace] = _VALUES.get(status, -1), ready_pods
        else:
            self.forget(namespace)

    def forget(self, namespace: str) -> None:
        """Drop the series of a namespace that is gone."""
        self._values.pop(namespace, None)

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples."""
        return self._build_families({})

    def collect(self) -> Iterable[Metric]:
        """Return the families with their samples."""
        return self._build_families(dict(self._values))

    def _build_families(self, values: Mapping[str, tuple[int, int]]) -> Iterable[Metric]:
        gauge = GaugeMetricFamily(
            metrics.GATEWAY_READY, "GatewayReady: 1 True, 0 False, -1 Unknown.", labels=["namespace"]
        )
        pods = GaugeMetricFamily(
            metrics.GATEWAY_READY_PODS, "Pods of the gateway that take requests.", labels=["namespace"]
        )
        for namespace, (value, ready_pods) in values.items():
            gauge.add_metric([namespace], value)
            pods.add_metric([namespace], ready_pods)
        yield gauge
        yield pods
