"""Errors that the API server answers. Raised by the client, handled by reflectors and reconcilers.

ApiError
├── UnauthorizedError      401  the credentials are absent or expired
├── ForbiddenError         403  RBAC, Pod Security, a quota or an admission policy says no
├── NotFoundError          404  the object, its namespace or its whole kind is not there
├── ConflictError          409  it exists already, or changed since it was read
├── GoneError              410  the resourceVersion is too old: list again
├── InvalidError           422  the object breaks its schema; `causes` names every field
├── TooManyRequestsError   429  the server sheds load; `retry_after` says for how long
├── ServerError            5xx  the server's own failure
├── TransportError           0  no answer, or only a part of one: the write may have happened
└── FencedError              0  not sent: this process does not hold the Lease
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

_SHOWN_BODY_CHARS = 300


@dataclass(frozen=True, slots=True)
class FieldCause:
    """One field's fault in an InvalidError, for example `spec.replicas` and why."""

    field: str
    message: str


class ApiError(Exception):
    """A request that did not succeed. `reason` is the server's CamelCase word, for example AlreadyExists."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        retry_after: float | None = None,
        causes: tuple[FieldCause, ...] = (),
        request: str = "",
    ) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.causes = causes
        self.request = request

    def __str__(self) -> str:
        answer = f"{self.status} {self.reason}: {self.message}"
        return f"{self.request} -> {answer}" if self.request else answer


class UnauthorizedError(ApiError):
    """401."""


class ForbiddenError(ApiError):
    """403. Asking again gives the same answer until the API server sees other rights, quotas or policies."""


class NotFoundError(ApiError):
    """404."""


class ConflictError(ApiError):
    """409. Read again, decide again."""


class GoneError(ApiError):
    """410. The requested history is compacted away."""


class InvalidError(ApiError):
    """422. Asking again with the same object gives the same answer."""


class TooManyRequestsError(ApiError):
    """429. The server did nothing with the request."""


class ApiServerError(ApiError):
    """Any 5xx."""


class TransportError(ApiError):
    """No complete answer came. Only what may safely happen twice may be sent again."""

    def __init__(self, message: str, *, reason: str = "Transport", request: str = "") -> None:
        super().__init__(0, reason, message, request=request)


class FencedError(ApiError):
    """A write that was not sent, since another process may be the writer by now."""

    def __init__(self, *, request: str = "") -> None:
        super().__init__(0, "Fenced", "not sent: this process does not hold the Lease", request=request)


_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


def from_status(
    status: Mapping[str, Any], *, code: int = 0, retry_after: float | None = None, request: str = ""
) -> ApiError:
    """Return the error for a `v1.Status` object from a response's body or a watch's ERROR event.

    Args:
        code: the HTTP status, which counts where the object carries none.
        retry_after: seconds, from the header of that name; the object's own `retryAfterSeconds` is the fallback.
    """
    code = int(status.get("code") or code or 500)
    details = status.get("details") or {}
    if retry_after is None and (seconds := details.get("retryAfterSeconds")):
        retry_after = float(seconds)
    return _select_error_type(code)(
        code,
        str(status.get("reason") or "Unknown"),
        str(status.get("message") or ""),
        retry_after=retry_after,
        causes=tuple(FieldCause(c.get("field", ""), c.get("message", "")) for c in details.get("causes") or ()),
        request=request,
    )


def from_response(code: int, body: bytes, headers: Mapping[str, str], *, request: str = "") -> ApiError:
    """Return the error for an HTTP answer of 400 or more.

    A body that is no Status (a proxy's page) is quoted briefly.
    """
    retry_after = _parse_seconds(headers.get("Retry-After"))
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"code": code, "message": body.decode(errors="replace")[:_SHOWN_BODY_CHARS]}
    return from_status(status, code=code, retry_after=retry_after, request=request)


def _select_error_type(code: int) -> type[ApiError]:
    return ApiServerError if code >= 500 else _BY_STATUS.get(code, ApiError)


def _parse_seconds(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header; None for an HTTP date, which only proxies send."""
    return float(header) if header and header.isdecimal() else None
