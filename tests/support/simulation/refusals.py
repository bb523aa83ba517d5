"""What the API server answers when it refuses: the client's error classes, and the `Status` bodies they come from."""

from collections.abc import Sequence
from typing import Any

import orjson

from r1plus_operator.runtime.errors import (
    ApiError,
    ApiServerError,
    ConflictError,
    FieldCause,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    TooManyRequestsError,
)
from r1plus_operator.runtime.resources import Resource


def not_found(resource: Resource, name: str) -> ApiError:
    """404: there is no such object."""
    return NotFoundError(404, "NotFound", f'{resource.name} "{name}" not found')


def exists(resource: Resource, name: str) -> ApiError:
    """409 of a create."""
    return ConflictError(409, "AlreadyExists", f'{resource.name} "{name}" already exists')


def changed(resource: Resource, name: str) -> ApiError:
    """409: the resourceVersion is not the object's any more."""
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    """409 for another reason."""
    return ConflictError(409, "Conflict", f'Operation cannot be fulfilled on {resource.name} "{name}": {why}')


def owned_by_others(causes: Sequence[FieldCause]) -> ApiError:
    """409 of an apply without force."""
    plural = "s" if len(causes) > 1 else ""
    listed = "".join(f"\n- {cause.field}" for cause in causes)
    text = f"Apply failed with {len(causes)} conflict{plural}: conflicts:{listed}"
    return ConflictError(409, "Conflict", text, causes=tuple(causes))


def forbidden(resource: Resource, name: str, why: str, causes: Sequence[FieldCause] = ()) -> ApiError:
    """403 by admission."""
    return ForbiddenError(403, "Forbidden", f'{resource.name} "{name}" is forbidden: {why}', causes=tuple(causes))


def invalid(resource: Resource, name: str, causes: Sequence[FieldCause]) -> ApiError:
    """422 with every field's fault."""
    faults = ", ".join(f"{cause.field}: {cause.message}" for cause in causes)
    text = f'{resource.kind}{"." if resource.group else ""}{resource.group} "{name}" is invalid: '
    return InvalidError(422, "Invalid", text + (f"[{faults}]" if len(causes) > 1 else faults), causes=tuple(causes))


def expired(why: str) -> ApiError:
    """410: the history is compacted."""
    return GoneError(410, "Expired", why)


def bad_request(why: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", why)


def internal(why: str) -> ApiError:
    """500."""
    return ApiServerError(500, "InternalError", f"Internal error occurred: {why}")


def evicted_too_many(name: str) -> ApiError:
    """429 of an eviction that a PodDisruptionBudget does not allow."""
    text = "Cannot evict pod as it would violate the pod's disruption budget."
    cause = FieldCause("", f"The disruption budget {name} does not allow it now")
    return TooManyRequestsError(429, "TooManyRequests", text, causes=(cause,))


def build_status(error: ApiError) -> bytes:
    """Return the body of an answer that is this error."""
    details: dict[str, Any] = {}
    if error.causes:
        details["causes"] = [{"field": cause.field, "message": cause.message} for cause in error.causes]
    if error.retry_after is not None:
        details["retryAfterSeconds"] = int(error.retry_after)
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason,
        "details": details,
        "code": error.status,
    }
    return orjson.dumps(status)
