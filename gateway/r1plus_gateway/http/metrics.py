"""The gateway's metrics. Names are in the contract; no label holds a prompt, an answer, a key's name or an end user.

Callers appear by their ids. A caller's series end with its key, or after a day without a request, and only some callers
have series of their own: who may call can be more than a Prometheus should keep.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    disable_created_metrics,
    generate_latest,
)

from r1plus_contract import metrics as names
from r1plus_contract.gateway import DataReason, GatewayOutcome
from r1plus_gateway.access.caller import Outcome, TokenUsage
from r1plus_gateway.access.usage import KeyBudget
from r1plus_gateway.http.errors import RequestError
from r1plus_gateway.serving.errors import ModelUnavailableError, QueueFullError, RefusedByEngineError, ServingError
from r1plus_gateway.serving.generation import Generation, State

MOST_PAIRS: Final = 300
"""Pairs of a model and a caller that have series of their own."""
OTHER: Final = "other"
"""Label `key` of all callers beyond that. No caller has this id."""
IDLE_SECONDS: Final = 86400.0
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_OUTCOMES_OF_CODES: Final[Mapping[str, GatewayOutcome]] = {
    "insufficient_quota": GatewayOutcome.BUDGET_EXHAUSTED,
    "rate_limit_exceeded": GatewayOutcome.RATE_LIMITED,
    "queue_full": GatewayOutcome.OVERLOADED,
    "schema_memory_full": GatewayOutcome.OVERLOADED,
    "data_unavailable": GatewayOutcome.UNAVAILABLE,
    "model_unavailable": GatewayOutcome.UNAVAILABLE,
    "calculator_busy": GatewayOutcome.OVERLOADED,
    "calculator_not_configured": GatewayOutcome.UNAVAILABLE,
}


def classify_refusal(error: RequestError) -> GatewayOutcome:
    """Return the outcome of a request that was refused or failed before its tokens were reserved."""
    default = GatewayOutcome.REFUSED if error.status < 500 else GatewayOutcome.FAILED
    return _OUTCOMES_OF_CODES.get(error.code, default)


def classify_end(outcome: Outcome, error: ServingError | None) -> GatewayOutcome:
    """Return the outcome of a request whose tokens were reserved. `error`: what its generation ended with."""
    if outcome is Outcome.REVOKED or isinstance(error, RefusedByEngineError):
        return GatewayOutcome.REFUSED
    if outcome is Outcome.FAILED and isinstance(error, QueueFullError):
        return GatewayOutcome.OVERLOADED
    if outcome is Outcome.FAILED and isinstance(error, ModelUnavailableError):
        return GatewayOutcome.UNAVAILABLE
    return GatewayOutcome(outcome.value)


class GatewayMetrics:
    """All series of one gateway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._clock = clock
        self._used_at: dict[tuple[str, str], float] = {}
        """Model and caller that have series of their own -> when they were used last."""

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(name, text, ("model",), registry=registry, buckets=buckets)

        def summary(name: str, text: str) -> Summary:
            return Summary(name, text, ("model", "key"), registry=registry)

        self._requests = counter(names.GATEWAY_REQUESTS_TOTAL, "Ended requests", ("model", "key", "outcome"))
        self._tokens = counter(names.GATEWAY_TOKENS_TOTAL, "Settled tokens", ("model", "key", "direction"))
        self._cancelled = counter(
            names.GATEWAY_CANCELLED_TOTAL,
            "Requests that were cancelled, by how far they were",
            ("model", "key", "state"),
        )
        self._code_runs = counter(
            names.GATEWAY_CODE_RUNS_TOTAL, "Programs of models that were run", ("model", "key", "outcome")
        )
        self._unsettled = counter(names.GATEWAY_UNSETTLED_TOTAL, "Reservations that could not be settled")
        self._first_token = (
            histogram(names.GATEWAY_TIME_TO_FIRST_TOKEN_SECONDS, "From a request's arrival to the first response"),
            summary(names.GATEWAY_KEY_FIRST_TOKEN_SECONDS, "From a request's arrival to the first response, by caller"),
        )
        self._per_token = (
            histogram(
                names.GATEWAY_TIME_PER_OUTPUT_TOKEN_SECONDS, "Mean time between tokens of one answer", _TOKEN_SECONDS
            ),
            summary(names.GATEWAY_KEY_OUTPUT_TOKEN_SECONDS, "Mean time between tokens of one answer, by caller"),
        )
        self._queue = (
            histogram(names.GATEWAY_QUEUE_SECONDS, "Wait for a slot in the gateway's queue"),
            summary(names.GATEWAY_KEY_QUEUE_SECONDS, "Wait for a slot in the gateway's queue, by caller"),
        )
        self._add_gauges()
        self._of_callers = (
            self._requests, self._tokens, self._cancelled, self._code_runs,
            self._first_token[1], self._per_token[1], self._queue[1],
        )  # fmt: skip
        self._of_models = (
            self._first_token[0],
            self._per_token[0],
            self._queue[0],
            self._running,
            self._waiting,
            self._pods,
        )

    def _add_gauges(self) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=self._registry)

        self._budget_limit = gauge(names.GATEWAY_BUDGET_LIMIT_TOKENS, "A month's budget", ("key",))
        self._budget_left = gauge(names.GATEWAY_BUDGET_LEFT_TOKENS, "What is left of this month's budget", ("key",))
        self._running = gauge(names.GATEWAY_RUNNING_REQUESTS, "Requests that hold a slot", ("model",))
        self._waiting = gauge(names.GATEWAY_WAITING_REQUESTS, "Requests that wait for a slot", ("model",))
        self._content = gauge(names.GATEWAY_CONTENT_BYTES, "Stored conversations and responses, encrypted")
        self._content_limit = gauge(names.GATEWAY_CONTENT_LIMIT_BYTES, "Most that the tenant may store")
        self._pods = gauge(names.GATEWAY_PODS, "Pods that take requests", ("model",))
        self._settings = gauge(names.GATEWAY_SETTINGS_VALID, "1: the settings' file is in use")
        self._data_state = gauge(names.GATEWAY_DATA_STATE, "1 for the present state of the tenant's data", ("reason",))

    def set_pods(self, model: str, pods: int) -> None:
        """Set how many pods a model has."""
        self._pods.labels(model).set(pods)

    def set_load(self, model: str, running: int, waiting: int) -> None:
        """Set how many requests of a model hold a slot, and how many wait for one."""
        self._running.labels(model).set(running)
        self._waiting.labels(model).set(waiting)

    def set_settings_validity(self, is_valid: bool) -> None:
        """Set whether the settings' file can be used."""
        self._settings.set(is_valid)

    def set_data_state(self, present: DataReason) -> None:
        """Set the state of the tenant's data."""
        for reason in DataReason:
            self._data_state.labels(reason.value).set(reason is present)

    def set_content(self, stored_bytes: int, limit_bytes: int) -> None:
        """Set how much the tenant has stored, and may store."""
        self._content.set(stored_bytes)
        self._content_limit.set(limit_bytes)

    def count_request(self, model: str, key: str, outcome: GatewayOutcome) -> None:
        """Count an ended request. `model` and `key` are empty where the request was refused before they were known."""
        self._requests.labels(model, self._label(model, key), outcome.value).inc()

    def count_usage(self, model: str, key: str, usage: TokenUsage) -> None:
        """Count settled tokens."""
        label = self._label(model, key)
        self._tokens.labels(model, label, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(model, label, "completion").inc(usage.completion_tokens)

    def count_code_run(self, model: str, key: str, outcome: str) -> None:
        """Count a program that a model has written."""
        self._code_runs.labels(model, self._label(model, key), outcome).inc()

    def count_unsettled(self) -> None:
        """Count a reservation whose settlement failed."""
        self._unsettled.inc()

    def count_cancelled(self, model: str, key: str, state: State) -> None:
        """Count a request that ended before its answer did, because of its client."""
        self._cancelled.labels(model, self._label(model, key), state.value).inc()

    def observe(self, model: str, key: str, generation: Generation) -> None:
        """Record the times of an ended request."""
        times, label = generation.times, self._label(model, key)
        if waited_until := times.started or times.ended:
            self._observe(self._queue, model, label, waited_until - times.queued)
        if times.first_token:
            self._observe(self._first_token, model, label, times.first_token - times.arrived)
            tokens = generation.usage.completion_tokens
            if tokens > 1 and times.ended:
                self._observe(self._per_token, model, label, (times.ended - times.first_token) / (tokens - 1))

    def list_keys(self) -> list[str]:
        """Return the ids of the API keys that have series of their own."""
        return sorted({key for _, key in self._used_at if _is_api_key(key)})

    def update_keys(self, keys: Iterable[KeyBudget], asked: Collection[str]) -> None:
        """Take over which of the keys in `asked` are valid, with their budgets; series of the others of them go."""
        valid = {budget.id: budget for budget in keys}
        for budget in valid.values():
            if budget.limit_tokens is not None:
                self._budget_limit.labels(budget.id).set(budget.limit_tokens)
                self._budget_left.labels(budget.id).set(budget.left_tokens)
        for gauge in (self._budget_limit, self._budget_left):
            for labels in _list_labels(gauge):
                if labels["key"] not in valid or valid[labels["key"]].limit_tokens is None:
                    gauge.remove_by_labels(labels)
        for pair in [pair for pair in self._used_at if pair[1] in asked and pair[1] not in valid]:
            self._forget(pair)

    def forget_idle(self, models: Collection[str]) -> None:
        """Drop the series of callers without a request for a day, and of models that are not served any more."""
        start = self._clock() - IDLE_SECONDS
        for pair in [pair for pair, used_at in self._used_at.items() if used_at < start]:
            self._forget(pair)
        for metric in self._of_models:
            for labels in _list_labels(metric):
                if labels["model"] not in models:
                    metric.remove_by_labels({"model": labels["model"]})

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._registry)

    def _label(self, model: str, key: str) -> str:
        """Return the label `key` of a caller: its id, or `other` if too many have series of their own."""
        pair = (model, key)
        if key and pair not in self._used_at and len(self._used_at) >= MOST_PAIRS:
            return OTHER
        if key:
            if pair not in self._used_at:
                # A counter that begins with its first event shows no increase.
                for outcome in GatewayOutcome:
                    self._requests.labels(model, key, outcome.value)
            self._used_at[pair] = self._clock()
        return key

    def _forget(self, pair: tuple[str, str]) -> None:
        del self._used_at[pair]
        for metric in self._of_callers:
            metric.remove_by_labels({"model": pair[0], "key": pair[1]})

    def _observe(self, metrics: tuple[Histogram, Summary], model: str, label: str, seconds: float) -> None:
        by_model, by_caller = metrics
        by_model.labels(model).observe(seconds)
        by_caller.labels(model, label).observe(seconds)


def _is_api_key(key: str) -> bool:
    """Return whether an id is a key's, not `NAMESPACE/NAME` of a ServiceAccount."""
    return "/" not in key


def _list_labels(metric: Counter | Gauge | Histogram | Summary) -> list[dict[str, str]]:
    return [sample.labels for family in metric.collect() for sample in family.samples]
