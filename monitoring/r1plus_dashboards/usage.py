"""What a tenant's callers use of its gateway: requests, tokens, errors, latency, waits and what is left of budgets."""

from r1plus_contract import metrics
from r1plus_contract.gateway import GATEWAY_ERRORS, GatewayOutcome
from r1plus_dashboards.build import RANGE, WIDTH, Board, Panel, PanelKind, Query, of_tenant, per_second, quantile

_REQUESTS, _TOKENS = metrics.GATEWAY_REQUESTS_TOTAL, metrics.GATEWAY_TOKENS_TOTAL
_BAD = f'outcome=~"{"|".join(GATEWAY_ERRORS)}"'
_SERVED = f'outcome=~"{"|".join((GatewayOutcome.ANSWERED, *GATEWAY_ERRORS))}"'
_LIMITED = f'outcome=~"{GatewayOutcome.BUDGET_EXHAUSTED}|{GatewayOutcome.RATE_LIMITED}|{GatewayOutcome.REFUSED}"'
_PROMPT, _COMPLETION = (f'direction="{direction}"' for direction in ("prompt", "completion"))


def _of_models(metric: str) -> str:
    return of_tenant(metric, labels=("model",))


def _of_keys(metric: str) -> str:
    return of_tenant(metric, labels=("key",))


def _in_range(metric: str, *matchers: str) -> str:
    return f"increase({of_tenant(metric, *matchers)}[{RANGE}])"


def _number(title: str, meaning: str, expr: str, unit: str = "short") -> Panel:
    return Panel(title, meaning, (Query(expr),), PanelKind.STAT, unit=unit, width=WIDTH // 4)


def _or_zero(by_key: str) -> str:
    """Return the expression with 0 for keys that have requests and no series of their own here."""
    return f"{by_key} or 0 * sum by (key) ({_in_range(_REQUESTS)})"


def _quantiles(histogram: str) -> tuple[Query, ...]:
    buckets = _of_models(f"{histogram}_bucket")
    return tuple(Query(quantile(q, buckets, "le, model"), f"{{{{model}}}}, {q:.0%}") for q in (0.5, 0.95, 0.99))


def _mean(summary: str) -> tuple[Query, ...]:
    total, count = (f"sum by (key) ({per_second(of_tenant(f'{summary}_{part}'))})" for part in ("sum", "count"))
    return (Query(f"{total} / {count}", "{{key}}"),)


def _latency(title: str, meaning: str, by_model: str, by_key: str) -> tuple[Panel, Panel]:
    return (
        Panel(title, meaning, _quantiles(by_model), unit="s"),
        Panel(f"{title}, mean of each key", "To compare keys: percentiles are by model.", _mean(by_key), unit="s"),
    )


_USE = (
    _number("Requests", "Ended in the time shown.", f"sum({_in_range(_REQUESTS)})"),
    _number("Tokens", "Of prompts and answers, as billed, in the time shown.", f"sum({_in_range(_TOKENS)})"),
    _number("Keys", "That have called in the time shown.", f"count(sum by (key) ({_in_range(_REQUESTS)}) > 0)"),
    _number(
        "Failed",
        "Share of requests that failed for no fault of the caller, in the time shown.",
        f"(sum({_in_range(_REQUESTS, _BAD)}) or vector(0)) / sum({_in_range(_REQUESTS, _SERVED)})",
        "percentunit",
    ),
    Panel(
        "Requests a second, by how they ended",
        "Monitors' probes do not pass the gateway, so none is counted.",
        (Query(f"sum by (outcome) ({per_second(of_tenant(_REQUESTS))})", "{{outcome}}"),),
        PanelKind.STACKED,
    ),
    Panel(
        "Requests a second by key",
        "By id; `r1plus key list` has the names. other: more callers than have series of their own.",
        (Query(f"sum by (key) ({per_second(of_tenant(_REQUESTS))})", "{{key}}"),),
        PanelKind.STACKED,
    ),
    Panel(
        "Tokens a second by model",
        "prompt: read; completion: written.",
        (
            Query(
                f"sum by (model, direction) ({per_second(of_tenant(_TOKENS))})",
                "{{model}} {{direction}}",
            ),
        ),
        PanelKind.STACKED,
    ),
    Panel(
        "Tokens a second by key",
        "Prompt and completion.",
        (Query(f"sum by (key) ({per_second(of_tenant(_TOKENS))})", "{{key}}"),),
        PanelKind.STACKED,
    ),
    Panel(
        "Key by key",
        "In the time shown. Left: of this month's budget, for keys that have one.",
        (
            Query(f"sum by (key) ({_in_range(_REQUESTS)})", "requests"),
            Query(f"sum by (key) ({_in_range(_TOKENS, _PROMPT)})", "prompt tokens"),
            Query(f"sum by (key) ({_in_range(_TOKENS, _COMPLETION)})", "completion tokens"),
            Query(_or_zero(f"sum by (key) ({_in_range(_REQUESTS, _BAD)})"), "failed"),
            Query(_or_zero(f"sum by (key) ({_in_range(metrics.GATEWAY_CANCELLED_TOTAL)})"), "cancelled"),
            Query(f"min by (key) ({_of_keys(metrics.GATEWAY_BUDGET_LEFT_TOKENS)})", "tokens left"),
        ),
        PanelKind.TABLE,
        width=WIDTH,
    ),
)
REFUSED = Query(f"sum by (key, outcome) ({per_second(of_tenant(_REQUESTS, _LIMITED))})", "{{key}} {{outcome}}")
CANCELLED = Query(
    f"sum by (key, state) ({per_second(of_tenant(metrics.GATEWAY_CANCELLED_TOTAL))})", "{{key}} {{state}}"
)
_BUDGETS = (
    Panel(
        "Share of the budget that is left",
        "At 0 the key gets 429 until the next month (UTC) begins.",
        (
            Query(
                f"min by (key) ({_of_keys(metrics.GATEWAY_BUDGET_LEFT_TOKENS)}"
                f" / ({_of_keys(metrics.GATEWAY_BUDGET_LIMIT_TOKENS)} > 0))",
                "{{key}}",
            ),
        ),
        unit="percentunit",
        highest=1,
    ),
    Panel(
        "Refused a second",
        "budget_exhausted, rate_limited: the key's limits; refused: the request or its credential is wrong.",
        (REFUSED,),
        PanelKind.STACKED,
    ),
)
_LATENCY = (
    *_latency(
        "Time to first token",
        "From the request's arrival, waiting included. The alert is about 95 %.",
        metrics.GATEWAY_TIME_TO_FIRST_TOKEN_SECONDS,
        metrics.GATEWAY_KEY_FIRST_TOKEN_SECONDS,
    ),
    *_latency(
        "Time per output token",
        "Mean of one answer.",
        metrics.GATEWAY_TIME_PER_OUTPUT_TOKEN_SECONDS,
        metrics.GATEWAY_KEY_OUTPUT_TOKEN_SECONDS,
    ),
)
_QUEUE = (
    *_latency(
        "Wait for a slot",
        "In the gateway's queue, also of requests that were cancelled there.",
        metrics.GATEWAY_QUEUE_SECONDS,
        metrics.GATEWAY_KEY_QUEUE_SECONDS,
    ),
    Panel(
        "Requests that wait and run",
        "Waiting above 0 for long: more requests come than are answered.",
        (
            Query(f"sum by (model) ({_of_models(metrics.GATEWAY_WAITING_REQUESTS)})", "{{model}} wait"),
            Query(f"sum by (model) ({_of_models(metrics.GATEWAY_RUNNING_REQUESTS)})", "{{model}} run"),
        ),
    ),
    Panel(
        "Cancelled a second, by how far they were",
        "queued, waiting (no token yet), streaming: the client left, or did not read.",
        (CANCELLED,),
        PanelKind.STACKED,
    ),
)
_DATA_STATE = of_tenant(metrics.GATEWAY_DATA_STATE, labels=())
_HEALTH = (
    Panel(
        "Share of requests that failed",
        "For no fault of the caller: a pod failed, a queue was full, no pod or no data could be used. Without a model:"
        " before it was known.",
        (
            Query(
                f"(sum by (model) ({per_second(of_tenant(_REQUESTS, _BAD))})"
                f" or 0 * sum by (model) ({per_second(of_tenant(_REQUESTS, _SERVED))}))"
                f" / sum by (model) ({per_second(of_tenant(_REQUESTS, _SERVED))})",
                "{{model}}",
            ),
        ),
        unit="percentunit",
    ),
    Panel(
        "State of the tenant's data",
        "Of each of the gateway's pods. Ready: requests can be counted, so served.",
        (Query(f"max by (pod, reason) ({_DATA_STATE}) == 1", "{{pod}} {{reason}}"),),
        PanelKind.STATES,
    ),
    Panel(
        "Stored conversations",
        "Of all keys, encrypted. At the limit answers go on, and are not stored.",
        (
            Query(f"max by (namespace) ({of_tenant(metrics.GATEWAY_CONTENT_BYTES, labels=())})", "stored"),
            Query(f"max by (namespace) ({of_tenant(metrics.GATEWAY_CONTENT_LIMIT_BYTES, labels=())})", "limit"),
        ),
        unit="bytes",
    ),
    Panel(
        "Gateway pods that are ready",
        "Pods that take requests. 0: every call over HTTP fails.",
        (Query(f"max by (namespace) ({of_tenant(metrics.GATEWAY_READY_PODS, labels=())})", "{{namespace}}"),),
    ),
    Panel(
        "Pods of each model",
        "That the gateway sends requests to.",
        (Query(f"max by (model) ({_of_models(metrics.GATEWAY_PODS)})", "{{model}}"),),
    ),
)
USAGE = Board(
    uid="r1plus-usage",
    title="R1+ / usage",
    meaning="One tenant's gateway: what its callers use, and what they get. Callers appear by the ids of their keys.",
    of_tenant=True,
    rows=(
        ("Use", _USE),
        ("Budgets and limits", _BUDGETS),
        ("Latency", _LATENCY),
        ("Queue", _QUEUE),
        ("Health", _HEALTH),
    ),
)
