"""The loop's meters as Triton custom metrics on its /metrics endpoint: Triton's own are wrong for a decoupled model.

(It records the time until `execute` returned, counts error responses as successes and shows nothing pending.)
"""

from typing import Any

import triton_python_backend_utils as pb_utils

from r1plus_contract import metrics

RESULTS = ("ok", "counted", "refused", "queue_full", "schema_memory_full", "cancelled", "error")
TTFT_BUCKETS = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]


class TritonMeters:
    """See `Meters`. Every label set exists from the start, so that rate() sees the first increment."""

    def __init__(self) -> None:
        counter, gauge, histogram = (
            pb_utils.MetricFamily.COUNTER,
            pb_utils.MetricFamily.GAUGE,
            pb_utils.MetricFamily.HISTOGRAM,
        )
        self._families = {
            name: pb_utils.MetricFamily(name=name, description=text, kind=kind)
            for name, text, kind in (
                (metrics.ENGINE_TOKENS_TOTAL, "Tokens processed, by direction.", counter),
                (metrics.ENGINE_TIME_TO_FIRST_TOKEN_SECONDS, "Arrival to first token.", histogram),
                (metrics.ENGINE_RUNNING_REQUESTS, "Requests in the running batch.", gauge),
                (metrics.ENGINE_WAITING_REQUESTS, "Requests waiting for a slot.", gauge),
                (metrics.ENGINE_SCHEMA_BYTES, "Bytes of compiled schemas and grammars.", gauge),
                (metrics.ENGINE_SCHEMA_USED_RATIO, "The part of their limit.", gauge),
                (metrics.ENGINE_REQUESTS_TOTAL, "Requests ended, by result.", counter),
            )
        }
        self._tokens = {
            direction: self._create_metric(metrics.ENGINE_TOKENS_TOTAL, direction=direction)
            for direction in ("prompt", "completion")
        }
        self._results = {
            result: self._create_metric(metrics.ENGINE_REQUESTS_TOTAL, result=result) for result in RESULTS
        }
        family = self._families[metrics.ENGINE_TIME_TO_FIRST_TOKEN_SECONDS]
        self._first_token = family.Metric(labels={}, buckets=TTFT_BUCKETS)
        self._running = self._create_metric(metrics.ENGINE_RUNNING_REQUESTS)
        self._waiting = self._create_metric(metrics.ENGINE_WAITING_REQUESTS)
        self._load = (0, 0)
        self._schema_bytes = self._create_metric(metrics.ENGINE_SCHEMA_BYTES)
        self._schema_share = self._create_metric(metrics.ENGINE_SCHEMA_USED_RATIO)
        self._schema_memory = (0, 0.0)

    def count_tokens(self, direction: str, count: int) -> None:
        """See `Meters`."""
        self._tokens[direction].increment(count)

    def observe_first_token(self, seconds: float) -> None:
        """See `Meters`."""
        self._first_token.observe(seconds)

    def count_request(self, result: str) -> None:
        """See `Meters`."""
        self._results[result].increment(1)

    def set_load(self, running: int, waiting: int) -> None:
        """See `Meters`. Each write is a message to the server, so only changes are sent."""
        if (running, waiting) != self._load:
            self._load = (running, waiting)
            self._running.set(running)
            self._waiting.set(waiting)

    def set_schema_memory(self, used: int, share: float) -> None:
        """See `Meters`."""
        if (used, share) != self._schema_memory:
            self._schema_memory = (used, share)
            self._schema_bytes.set(used)
            self._schema_share.set(share)

    def _create_metric(self, family: str, **labels: str) -> Any:
        return self._families[family].Metric(labels=labels)
