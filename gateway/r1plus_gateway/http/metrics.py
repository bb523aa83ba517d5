"""The gateway's metrics. Names are in the contract; no label holds a prompt, an answer or an end user."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from r1plus_contract import metrics as names
from r1plus_gateway.access.caller import Usage
from r1plus_gateway.serving.generation import Generation, State

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class GatewayMetrics:
    """All series of one gateway."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(name, text, ("model",), registry=registry, buckets=buckets)

        self._requests = counter(names.GATEWAY_REQUESTS_TOTAL, "Ended requests", ("model", "key", "outcome"))
        self._tokens = counter(names.GATEWAY_TOKENS_TOTAL, "Settled tokens", ("model", "key", "direction"))
        self._cancelled = counter(
            names.GATEWAY_CANCELLED_TOTAL, "Requests that were cancelled, by how far they were", ("model", "state")
        )
        self._unsettled = counter(names.GATEWAY_UNSETTLED_TOTAL, "Reservations that could not be settled")
        self._first_token = histogram(names.GATEWAY_TIME_TO_FIRST_TOKEN_SECONDS, "From arrival to the first response")
        self._per_token = histogram(
            names.GATEWAY_TIME_PER_OUTPUT_TOKEN_SECONDS, "Mean time between tokens of one answer", _TOKEN_SECONDS
        )
        self._queue = histogram(names.GATEWAY_QUEUE_SECONDS, "Wait for a slot in the gateway's queue")
        self._pods = Gauge(names.GATEWAY_PODS, "Pods that take requests", ("model",), registry=registry)
        self._settings = Gauge(names.GATEWAY_SETTINGS_VALID, "1: the settings' file is in use", registry=registry)

    def set_pods(self, model: str, pods: int) -> None:
        """Set how many pods a model has."""
        self._pods.labels(model).set(pods)

    def set_settings_validity(self, is_valid: bool) -> None:
        """Set whether the settings' file can be used."""
        self._settings.set(is_valid)

    def count_request(self, model: str, key: str, outcome: str) -> None:
        """Count an ended request. `model` and `key` are empty where the request was refused before they were known."""
        self._requests.labels(model, key, outcome).inc()

    def count_usage(self, model: str, key: str, usage: Usage) -> None:
        """Count settled tokens."""
        self._tokens.labels(model, key, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(model, key, "completion").inc(usage.completion_tokens)

    def count_unsettled(self) -> None:
        """Count a reservation whose settlement failed."""
        self._unsettled.inc()

    def count_cancelled(self, model: str, state: State) -> None:
        """Count a request that ended before its answer did, because of its client."""
        self._cancelled.labels(model, state.value).inc()

    def observe(self, model: str, generation: Generation) -> None:
        """Record the times of an ended request."""
        times = generation.times
        if times.started:
            self._queue.labels(model).observe(times.started - times.arrived)
        if times.first_token:
            self._first_token.labels(model).observe(times.first_token - times.arrived)
            tokens = generation.usage.completion_tokens
            if tokens > 1 and times.ended:
                self._per_token.labels(model).observe((times.ended - times.first_token) / (tokens - 1))

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._registry)
