"""The operator's own metrics, created once by main and passed to what they measure."""

import time
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from r1plus_contract import metrics
from r1plus_operator.metrics.deployments import DeploymentMetrics
from r1plus_operator.metrics.gateways import GatewayFleetMetrics
from r1plus_operator.metrics.isolation import IsolationMetrics
from r1plus_operator.runtime.lease import Elector
from r1plus_operator.runtime.queue import WorkQueue
from r1plus_operator.runtime.resources import Resource

K = TypeVar("K", bound=Hashable)


class OperatorMetrics:
    """Counters of passes and writes, gauges of the queue's depth and of the leader."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, read_time: Callable[[], float] = time.time
    ) -> None:
        """`clock`: measures passes; `read_time`: dates them, in seconds since the epoch."""
        self._clock = clock
        self._read_time = read_time
        self.registry = CollectorRegistry()
        self._passes = Counter(metrics.RECONCILE_TOTAL, "Reconciles, by result.", ["result"], registry=self.registry)
        self._seconds = Histogram(
            metrics.RECONCILE_DURATION_SECONDS, "Duration of a reconcile.", registry=self.registry
        )
        self._writes = Counter(metrics.API_WRITES_TOTAL, "Writes to the API server.", ["kind"], registry=self.registry)
        self._depth = Gauge(metrics.QUEUE_DEPTH, "Deployments that wait for a reconcile.", registry=self.registry)
        self._leads = Gauge(metrics.LEADER, "1 where the Lease is held, else 0.", registry=self.registry)
        self._last = Gauge(
            metrics.LAST_PASS_TIMESTAMP_SECONDS, "Time of the last successful reconcile.", registry=self.registry
        )
        self._facts_waiting = Gauge(metrics.FACTS_WAITING, "Facts that wait for the registry.", registry=self.registry)
        self._facts_delivered = Counter(metrics.FACTS_DELIVERED_TOTAL, "Facts recorded.", registry=self.registry)
        self._facts_refused = Counter(
            metrics.FACTS_REFUSED_TOTAL, "Facts that the registry could not record.", registry=self.registry
        )
        self.deployments = DeploymentMetrics(self.registry)
        self.isolation = IsolationMetrics(self.registry)
        self.gateways = GatewayFleetMetrics(self.registry)
        self._of_result = {result: self._passes.labels(result) for result in ("ok", "error")}
        self._of_kind: dict[str, Counter] = {}
        """Cached: looking up a metric's labels costs more than counting."""

    def watch(self, queue: WorkQueue[K], elector: Elector) -> None:
        """Read the queue's depth and the leader at each scrape."""
        self._depth.set_function(lambda: queue.depth)
        self._leads.set_function(lambda: elector.is_leader)

    def count_delivered(self, count: int) -> None:
        """Count facts that the registry recorded (`recorder.FactMetrics`)."""
        self._facts_delivered.inc(count)

    def count_refused(self, count: int) -> None:
        """Count facts that the registry cannot record (`recorder.FactMetrics`)."""
        self._facts_refused.inc(count)

    def set_waiting(self, count: int) -> None:
        """Set how many facts wait for the registry (`recorder.FactMetrics`)."""
        self._facts_waiting.set(count)

    def count_write(self, _verb: str, resource: Resource) -> None:
        """Count a write to the API server (`ApiClient.on_write`)."""
        kind = resource.kind
        if kind not in self._of_kind:
            self._of_kind[kind] = self._writes.labels(kind)
        self._of_kind[kind].inc()

    def time_pass(self, handle: Callable[[K], Awaitable[None]]) -> Callable[[K], Awaitable[None]]:
        """Return `handle` with its passes counted and timed."""

        async def measure(key: K) -> None:
            start, result = self._clock(), "error"
            try:
                await handle(key)
                result = "ok"
                self._last.set(self._read_time())
            finally:
                self._of_result[result].inc()
                self._seconds.observe(self._clock() - start)

        return measure
