"""The types that the HTTP handlers and the store agree on: caller, limits, reservation, usage.

The handlers depend on the two protocols here. `r1plus_gateway.store` implements them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class CallerKind(StrEnum):
    API_KEY = "api_key"
    SERVICE_ACCOUNT = "service_account"
    ADMIN = "admin"


class Outcome(StrEnum):
    """How a request ended, for usage, audit and metrics."""

    ANSWERED = "answered"
    CANCELLED = "cancelled"  # the client left
    SLOW_READER = "slow_reader"  # the client did not read, and was cut off
    FAILED = "failed"  # the pod failed, before or within the answer
    REVOKED = "revoked"  # its key was revoked meanwhile


@dataclass(frozen=True)
class Limits:
    """What one caller may use. None is no limit.

    `budget_tokens` counts prompt and completion tokens within one calendar month, UTC.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    budget_tokens: int | None = None


@dataclass(frozen=True)
class Caller:
    """An authenticated caller.

    `id` is the key's id, or `NAMESPACE/NAME` of a ServiceAccount. `models` lists the deployments it may call; None is
    all of the tenant's. `end_user` is the person on whose behalf it calls, if it may name one.
    """

    kind: CallerKind
    id: str
    namespace: str = ""
    models: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset()
    limits: Limits = Limits()
    end_user: str = ""
    group: str = ""
    """With whom it shares a turn in the queue and a series of metrics: the namespace of another tenant's account."""

    @property
    def group_id(self) -> str:
        """Who takes turns in the queue: the caller, or its group."""
        return self.group or self.id


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of one request, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class RevisionFigures:
    """What the gate of a revision measured before it took traffic."""

    suite: str
    items: int
    lost: int
    allowed: int
    """Most items that may be lost."""


@dataclass(frozen=True)
class AnswerEvidence:
    """What answered: the revision, the digest of its engine, and the verdict of the pod that answered."""

    revision: str
    engine_digest: str
    verdict: str
    gate: RevisionFigures | None = None
    """None where no gate has measured this revision, or the answer is not verified."""


@dataclass(frozen=True)
class Remaining:
    """What a caller has left, for `x-ratelimit-*` headers. None is no limit."""

    requests: int | None = None
    tokens: int | None = None
    budget_tokens: int | None = None
    reset_seconds: float = 0.0


@dataclass(frozen=True)
class Reservation:
    """Tokens that are set aside for one request until it is settled."""

    request_id: str
    caller: Caller
    model: str
    tokens: int
    remaining: Remaining = Remaining()


class AccessError(Exception):
    """A caller that is refused.

    `status` is 401, 403, 404, 429, or 503 while the tenant's data cannot be used; `code` is OpenAI's error code
    (`invalid_api_key`, `model_not_found`, `rate_limit_exceeded`, `insufficient_quota`), for 503 `data_unavailable`.
    `retry_after` is in seconds; None says that another try does not help. For `hold_seconds` every request of the
    caller would be refused for the same reason, whatever it asks for. `left_tokens` is what its budget has left, if it
    is refused for that.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        hold_seconds: float = 0.0,
        left_tokens: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.hold_seconds = hold_seconds
        self.left_tokens = left_tokens


class Authenticator(Protocol):
    async def authenticate(self, authorization: str, end_user: str) -> Caller:
        """Return the caller of an `Authorization` header's value.

        `end_user` is the value of `x-r1plus-end-user`, empty without one.

        Raises:
            AccessError: 401 for no, a malformed, an unknown, an expired or a revoked credential, all with one message
                and in the same time; 403 for an end user that this caller may not name, or a namespace that may not
                call; 503 while keys cannot be read.
        """


class Ledger(Protocol):
    async def reserve(self, request_id: str, caller: Caller, model: str, tokens: int) -> Reservation:
        """Set `tokens` (prompt + maximum completion) aside, atomically against every other reservation.

        Raises:
            AccessError: 429, `rate_limit_exceeded` with `retry_after`, or `insufficient_quota` without; 503 while
                nothing can be recorded, since what is not metered is not served.
        """

    async def extend(self, reservation: Reservation, tokens: int, used: int) -> Reservation:
        """Set `tokens` more aside for a request that runs; return the reservation of all its tokens.

        `used`: tokens that it has used so far.

        Raises:
            AccessError: as `reserve`; what was reserved before stays so.
        """

    async def settle(
        self, reservation: Reservation, usage: TokenUsage, outcome: Outcome, evidence: AnswerEvidence | None
    ) -> None:
        """Replace the reservation by what was used, and append one record to the audit log.

        Called exactly once; a second call for the same reservation changes nothing.
        """
