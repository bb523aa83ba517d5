"""Whether a request fits its caller's limits: pure arithmetic. Called by the repository, in its transaction.

What a caller used of a limit per minute leaks at the limit's rate (a leaky bucket). So a limit of 60 requests per
minute admits 60 at once, and then one per second.
"""

from dataclasses import dataclass, replace

from r1plus_gateway.access.caller import AccessError, Caller, CallerKind, Limits, Remaining

INSUFFICIENT_QUOTA = "insufficient_quota"
LEAST_TOKENS = 2
"""Of any request: one of the prompt, one of the answer."""
_ROUNDING = 1e-6
_RETRY_SECONDS = 1.0
"""For a limit of concurrent requests: it is not known when one ends."""
_SPENT_SECONDS = 5.0
"""A budget that is spent stays so until the month ends."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request needs: tokens, within the month's budget."""

    tokens: int
    month: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller uses now: of the minute, at once, and of the month."""

    requests: float
    tokens: float
    running: int
    used_tokens: int
    reserved_tokens: int


def leak(level: float, per_minute: int | None, seconds: float) -> float:
    """Return what is left of a level after some time; without a limit, nothing."""
    return 0.0 if per_minute is None else max(0.0, level - max(0.0, seconds) * per_minute / 60)


def check_demand(caller: Caller, demand: Demand, standing: Standing) -> None:
    """Raise AccessError (429) if the request does not fit; the message names limit, use and remedy."""
    limits = caller.limits
    _check_budget(caller, demand, standing)
    if limits.tokens_per_minute is not None and demand.tokens > limits.tokens_per_minute:
        raise _refuse(
            caller,
            f"this request may use {demand.tokens} tokens, more than its limit of {limits.tokens_per_minute} per"
            " minute. Lower max_tokens, or ask the tenant's administrator to raise the limit",
        )
    if 0 in (limits.requests_per_minute, limits.concurrent_requests):
        message = "it may not send requests: its limit is 0. Ask the tenant's administrator to raise the limit"
        raise _refuse(caller, message, hold_seconds=_SPENT_SECONDS)
    rates = (
        ("requests", limits.requests_per_minute, standing.requests, 1.0),
        ("tokens", limits.tokens_per_minute, standing.tokens, float(demand.tokens)),
    )
    waits = [(_compute_wait(limit, level, amount), what, limit) for what, limit, level, amount in rates]
    seconds, what, limit = max(waits, key=lambda wait: wait[0])
    if seconds > 0:
        message = f"its limit of {limit} {what} per minute is used up. Try again in {seconds:.1f} s"
        raise _refuse(caller, message, seconds, hold_seconds=waits[0][0])
    if limits.concurrent_requests is not None and standing.running >= limits.concurrent_requests:
        message = f"{standing.running} of its requests run, which is its limit. Try again when one has ended"
        raise _refuse(caller, message, _RETRY_SECONDS)


def charge_refusal(limits: Limits, standing: Standing) -> Standing:
    """Return what a caller uses after a refusal for its budget: it costs a request, as the prompt was counted."""
    most = float(limits.requests_per_minute or 0)
    return replace(standing, requests=max(standing.requests, min(standing.requests + 1, most)))


def compute_remaining(limits: Limits, standing: Standing) -> Remaining:
    """Return what is left for the headers."""
    waits = (
        _compute_wait(limits.requests_per_minute, standing.requests, float(limits.requests_per_minute or 0)),
        _compute_wait(limits.tokens_per_minute, standing.tokens, float(limits.tokens_per_minute or 0)),
    )
    used = standing.used_tokens + standing.reserved_tokens
    return Remaining(
        requests=_subtract(limits.requests_per_minute, standing.requests),
        tokens=_subtract(limits.tokens_per_minute, standing.tokens),
        budget_tokens=_subtract(limits.budget_tokens, used),
        reset_seconds=max(waits),
    )


def _check_budget(caller: Caller, demand: Demand, standing: Standing) -> None:
    budget = caller.limits.budget_tokens
    if budget is None or standing.used_tokens + standing.reserved_tokens + demand.tokens <= budget:
        return
    is_spent = standing.used_tokens + LEAST_TOKENS > budget
    requests_wait = _compute_wait(caller.limits.requests_per_minute, standing.requests, 1.0)
    raise AccessError(
        429,
        INSUFFICIENT_QUOTA,
        f"{_name(caller)}: this request may use {demand.tokens} tokens, more than is left of its budget for"
        f" {demand.month}. Lower max_tokens, wait for the next month (UTC), or ask the tenant's administrator to raise"
        f" the budget: {standing.used_tokens} of {budget} used, {standing.reserved_tokens} set aside for requests that"
        " run",
        hold_seconds=_SPENT_SECONDS if is_spent else requests_wait,
        left_tokens=max(0, budget - standing.used_tokens - standing.reserved_tokens),
    )


def _refuse(
    caller: Caller, message: str, retry_after: float | None = None, *, hold_seconds: float = 0.0
) -> AccessError:
    text = f"{_name(caller)}: {message}"
    return AccessError(429, "rate_limit_exceeded", text, retry_after=retry_after, hold_seconds=hold_seconds)


def _name(caller: Caller) -> str:
    return f"Key {caller.id}" if caller.kind is CallerKind.API_KEY else f"ServiceAccount {caller.id}"


def _compute_wait(per_minute: int | None, level: float, amount: float) -> float:
    """Return the seconds until `amount` fits."""
    if per_minute is None:
        return 0.0
    excess = level + amount - per_minute
    if excess <= _ROUNDING:
        return 0.0
    return excess * 60 / per_minute if per_minute else 60.0


def _subtract(limit: int | None, used: float) -> int | None:
    return None if limit is None else max(0, int(limit - used + _ROUNDING))
