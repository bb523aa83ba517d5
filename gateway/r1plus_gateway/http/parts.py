"""What all handlers work with, and how they learn who calls."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from r1plus_gateway.access.caller import Authenticator, Caller, CallerKind, Ledger
from r1plus_gateway.http.accounting.admission import RefusalAllowance
from r1plus_gateway.http.accounting.tasks import TaskKeeper
from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.http.request_keys import CALLER, IS_READ
from r1plus_gateway.serving.models import Models
from r1plus_gateway.settings import GatewaySettings

HEADER_REQUEST_ID: Final = "x-request-id"
HEADER_END_USER: Final = "x-r1plus-end-user"
LEFT: Final = (asyncio.CancelledError, ConnectionError)
"""What a client that leaves raises in its handler."""


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """What the handlers work with."""

    read_settings: Callable[[], GatewaySettings]
    models: Models
    authenticator: Authenticator
    ledger: Ledger
    metrics: GatewayMetrics
    tasks: TaskKeeper
    read_time: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    refusals: RefusalAllowance = field(default_factory=RefusalAllowance)


def create_request_id() -> str:
    """Return an id for one request."""
    return uuid.uuid4().hex


async def authenticate(parts: GatewayParts, request: web.Request) -> Caller:
    """Return the caller, and note it for the answer.

    Raises:
        AccessError: 401 or 403; 429 if too many of its requests were refused.
    """
    headers = request.headers
    caller = request[CALLER] = await parts.authenticator.authenticate(
        headers.get("Authorization", ""), headers.get(HEADER_END_USER, "")
    )
    if caller.kind is not CallerKind.ADMIN:
        parts.refusals.check(caller)
    request[IS_READ] = True
    return caller
