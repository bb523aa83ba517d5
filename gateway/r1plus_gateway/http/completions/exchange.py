"""One request while it is answered, and what all handlers work with."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from r1plus_gateway.access.caller import Authenticator, Caller, CallerKind, Ledger, Remaining
from r1plus_gateway.assistant.code.code_rounds import CodeRounds
from r1plus_gateway.assistant.math.math_answers import MathOutcome
from r1plus_gateway.http.accounting.admission import RefusalAllowance
from r1plus_gateway.http.accounting.tasks import TaskKeeper
from r1plus_gateway.http.completions.operating_points import OperatingPoint
from r1plus_gateway.http.errors import FieldNames
from r1plus_gateway.http.metrics import GatewayMetrics
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


@dataclass(slots=True)
class Exchange:
    """One request while it is answered."""

    request: web.Request
    id: str
    caller: Caller | None = None
    model: str = ""
    remaining: Remaining | None = None
    names: FieldNames = field(default_factory=FieldNames)
    is_taken: bool = False
    """Whether the caller's requests are read, so that a refusal of this one counts for it."""
    is_billed: bool = False
    """Whether the request is counted when its bill is settled."""
    point: OperatingPoint = OperatingPoint.UNMEASURED
    has_answer: bool = False
    """Whether an answer has begun: its status is said."""
    math: MathOutcome | None = None
    """What was calculated for the answer."""
    rounds: CodeRounds | None = None
    """The rounds of the answer, if the gateway runs programs for it."""
    arrived: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> str:
        """Whose series of metrics counts the request: the caller's or its group's; empty before it is known."""
        return self.caller.group_id if self.caller else ""


def create_request_id() -> str:
    """Return an id for one request."""
    return uuid.uuid4().hex


async def authenticate(parts: GatewayParts, exchange: Exchange) -> Caller:
    """Return the caller.

    Raises:
        AccessError: 401 or 403; 429 if too many of its requests were refused.
    """
    headers = exchange.request.headers
    caller = exchange.caller = await parts.authenticator.authenticate(
        headers.get("Authorization", ""), headers.get(HEADER_END_USER, "")
    )
    if caller.kind is not CallerKind.ADMIN:
        parts.refusals.check(caller)
    exchange.is_taken = True
    return caller
