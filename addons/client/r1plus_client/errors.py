"""What can go wrong between an application and the gateway, as types to catch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class R1PlusError(Exception):
    """Base of every error that this package raises, except for wrong arguments (ValueError)."""


class GatewayConnectionError(R1PlusError):
    """No answer: the gateway cannot be reached, or took longer than the timeout."""


class StreamInterruptedError(R1PlusError):
    """A stream ended before its answer was complete.

    `text` is what arrived. It is never retried, since the tokens have been counted.
    """

    def __init__(self, message: str, *, text: str = "", code: str = "") -> None:
        super().__init__(message)
        self.text = text
        self.code = code


class APIError(R1PlusError):
    """The gateway refused a request or failed.

    `status` is the HTTP status; `code`, `type` and `param` are the gateway's, empty where it gives none. Quote
    `request_id` to the platform team: its logs carry it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        type: str = "",
        param: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} (request {request_id})" if request_id else message)
        self.message = message
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after
        """Seconds, as the gateway asks for; None where it does not."""


class InvalidRequestError(APIError):
    """400, 413, 415 or 422: `param` names the field to change."""


class AuthenticationError(APIError):
    """401: the key or token is missing, malformed, unknown, expired or revoked."""


class PermissionDeniedError(APIError):
    """403: the caller is known, and may not do this."""


class NotFoundError(APIError):
    """404: there is no such model for this caller, or no such path."""


class RateLimitError(APIError):
    """429: more requests or tokens per minute than the key allows. Another try helps after `retry_after` seconds."""


class BudgetExhaustedError(APIError):
    """429 with `insufficient_quota`: the key's budget is used up. Another try does not help."""


class OverloadedError(APIError):
    """503: the queue is full, or no pod of the model is ready."""


class ServerError(APIError):
    """Any other status from 500 on."""


_BY_STATUS: Mapping[int, type[APIError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
    503: OverloadedError,
}


def build_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """Return the error of a response, typed by status and code. A body that is no error of the gateway is quoted."""
    fields = _read_error(body)
    code = str(fields.get("code") or "")
    if code == "insufficient_quota":
        kind: type[APIError] = BudgetExhaustedError
    elif status >= 500:
        kind = _BY_STATUS.get(status, ServerError)
    else:
        kind = _BY_STATUS.get(status, InvalidRequestError)
    excerpt = body[:200].decode("utf-8", "replace").strip()
    return kind(
        str(fields.get("message") or f"the gateway answered {status}: {excerpt or 'no text'}"),
        status=status,
        code=code,
        type=str(fields.get("type") or ""),
        param=str(fields.get("param") or ""),
        request_id=headers.get("x-request-id", ""),
        retry_after=read_retry_after(headers),
    )


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of `Retry-After`; None where it is absent or a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _read_error(body: bytes) -> Mapping[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, Mapping) else {}
