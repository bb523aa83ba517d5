"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from r1plus_contract import inference
from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.serving.errors import (
    AnswerFailedError,
    CallerRevokedError,
    ModelUnavailableError,
    QueueFullError,
    RefusedByEngineError,
    SchemaMemoryFullError,
    ServingError,
)

INSUFFICIENT_QUOTA: Final = "insufficient_quota"
DO_NOT_RETRY: Final[Mapping[str, str]] = {"x-should-retry": "false"}
"""OpenAI's client tries again after a 429 or 503 without it."""
CHALLENGE: Final[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}
"""Of each 401."""
MOST_PATH_CHARACTERS: Final = 120
SCHEMA_MEMORY_SECONDS: Final = 60
"""Wait before a schema is tried again: OpenAI's client waits no longer, and an engine empties its memory in minutes."""
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class RequestError(Exception):
    """An error answer. `param` names the field that is wrong; `headers` go with it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """The error as JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        if self.code == INSUFFICIENT_QUOTA:
            kind = INSUFFICIENT_QUOTA
        return orjson.dumps({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})

    def build_response(self) -> web.Response:
        """Return the answer."""
        return web.Response(status=self.status, body=self.body, content_type="application/json", headers=self.headers)


class InvalidFieldError(RequestError):
    """400: one field of the body is wrong."""

    def __init__(self, param: str, message: str, *, code: str = "invalid_value") -> None:
        super().__init__(400, code, f"{param}: {message}", param=param)


class UnsupportedFieldError(InvalidFieldError):
    """400: a field that would change the answer, and that is not supported."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message, code="unsupported_parameter")


class NotConfiguredError(RequestError):
    """503: the gateway has no such part, and another try would not find one."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(503, code, message, param=param, headers=DO_NOT_RETRY)


def convert_access_error(error: AccessError) -> RequestError:
    """Return the answer of a refusal. Without `retry_after`, clients are told that another try does not help."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after + 0.499)))
    elif error.status == 429:
        headers |= DO_NOT_RETRY
    if error.status == 401:
        headers |= CHALLENGE
    return RequestError(error.status, error.code, str(error), headers=headers)


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Which fields of a request became what the engine gets."""

    prompt: str = ""
    """The prompt's."""
    schema: str = ""
    """Of the answer's schema."""
    limit: str = ""
    """Of the most new tokens."""


def build_context_error(excess: inference.ContextExcess, names: FieldNames) -> InvalidFieldError:
    """Return the error of a prompt that leaves no room for the answer."""
    remedy = "shorten it" if excess.new_tokens == 1 else f"shorten it or lower {names.limit}"
    return InvalidFieldError(names.prompt, excess.explain(remedy), code="context_length_exceeded")


def convert_serving_error(error: ServingError, retry_after_seconds: int, names: FieldNames) -> RequestError:
    """Return the answer of a model that did not answer."""
    later = {"Retry-After": str(retry_after_seconds)}
    if isinstance(error, RefusedByEngineError):
        return _convert_refusal(str(error), names)
    if isinstance(error, SchemaMemoryFullError):
        later = {"Retry-After": str(max(retry_after_seconds, SCHEMA_MEMORY_SECONDS))}
        return RequestError(503, "schema_memory_full", str(error), param=names.schema or None, headers=later)
    if isinstance(error, QueueFullError):
        return RequestError(503, "queue_full", str(error), headers=later)
    if isinstance(error, ModelUnavailableError):
        return RequestError(503, "model_unavailable", str(error), headers=later)
    if isinstance(error, CallerRevokedError):
        return RequestError(401, "key_revoked", str(error), headers=CHALLENGE)
    code = "answer_failed" if isinstance(error, AnswerFailedError) else "server_error"
    return RequestError(502, code, str(error))


def _convert_refusal(message: str, names: FieldNames) -> RequestError:
    """Return the answer of what the engine refused. It names its own inputs; the answer, the request's fields."""
    name, place, reason = inference.split_refusal(message)
    if (excess := inference.read_context_excess(reason)) is not None:
        return build_context_error(excess, names)
    if not name:
        return RequestError(400, "invalid_value", message)
    is_too_long = "context of" in reason or "tokens of the context" in reason  # also as older images say it
    code = "context_length_exceeded" if is_too_long else "invalid_value"
    own = {
        **dict.fromkeys((inference.PROMPT, inference.SYSTEM, inference.MESSAGES), names.prompt),
        inference.RESPONSE_SCHEMA: names.schema,
        inference.MAX_NEW_TOKENS: names.limit,
    }
    has_place = name == inference.RESPONSE_SCHEMA and not place.startswith(".anyOf[")
    return InvalidFieldError(own.get(name, name) + (place if has_place else ""), reason, code=code)


def convert_http_error(request: web.Request, error: web.HTTPException) -> RequestError:
    """Return the answer of what aiohttp refuses; that of an unknown path names it."""
    if error.status == 404:
        path = "".join(one if one.isprintable() else "?" for one in request.path[:MOST_PATH_CHARACTERS])
        about = "Paths begin with /v1, once; GET /openapi.json lists them"
        return RequestError(404, "not_found", f"{request.method[:16]} {path} is no endpoint. {about}")
    codes = {405: "method_not_allowed", 413: "request_too_large"}
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return RequestError(error.status, codes.get(error.status, "invalid_request"), error.reason, headers=headers)
