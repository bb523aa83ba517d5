"""Headers of answers: what the caller has left, and what has answered."""

from collections.abc import Mapping

from r1plus_gateway.access.caller import AnswerEvidence, Caller, Remaining
from r1plus_gateway.http.completions.operating_points import OperatingPoint


def build_evidence_headers(evidence: AnswerEvidence, point: OperatingPoint) -> Mapping[str, str]:
    """Return the headers that say what answers: revision and verdict of the pod, and what its gate measured.

    `point`: whether that was at this request's operating point.
    """
    headers = {"x-r1plus-verdict": evidence.verdict}
    if evidence.revision:
        headers["x-r1plus-revision"] = evidence.revision
    if evidence.gate is not None:
        gate = evidence.gate
        # A string with parameters, as RFC 9651 writes them.
        figures = f"items={gate.items};lost={gate.lost};allowed={gate.allowed};point={point}"
        headers["x-r1plus-gate"] = f'"{gate.suite}";{figures}'
    return headers


def build_limit_headers(caller: Caller, remaining: Remaining | None) -> dict[str, str]:
    """Return `x-ratelimit-*` headers: what the caller may use, and what it has left."""
    limits, left = caller.limits, remaining or Remaining()
    values = {
        "x-ratelimit-limit-requests": limits.requests_per_minute,
        "x-ratelimit-limit-tokens": limits.tokens_per_minute,
        "x-ratelimit-limit-budget-tokens": limits.budget_tokens,
        "x-ratelimit-remaining-requests": left.requests,
        "x-ratelimit-remaining-tokens": left.tokens,
        "x-ratelimit-remaining-budget-tokens": left.budget_tokens,
    }
    headers = {name: str(value) for name, value in values.items() if value is not None}
    if remaining is None:
        return headers
    reset = f"{left.reset_seconds:.3f}s"
    resets = {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}
    return headers | {f"x-ratelimit-reset-{name}": reset for name, limit in resets.items() if limit is not None}
