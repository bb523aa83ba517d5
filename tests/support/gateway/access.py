"""An authenticator and a ledger in memory: the protocols of `r1plus_gateway.access`."""

import asyncio
from dataclasses import dataclass, field, replace

from r1plus_gateway.access.caller import (
    AccessError,
    AnswerEvidence,
    Caller,
    CallerKind,
    Limits,
    Outcome,
    Remaining,
    Reservation,
    TokenUsage,
)
from r1plus_gateway.access.usage import ModelUsage, UsageSummary

KEY = "r1p_alice"
ALICE = Caller(CallerKind.API_KEY, "alice", limits=Limits(requests_per_minute=60))


class FakeAuthenticator:
    """Knows callers by their keys."""

    def __init__(self) -> None:
        self.callers = {KEY: ALICE}

    async def authenticate(self, authorization: str, end_user: str) -> Caller:
        """See `Authenticator`."""
        caller = self.callers.get(authorization.removeprefix("Bearer "))
        if caller is None:
            raise AccessError(401, "invalid_api_key", "the API key is not valid")
        return caller


@dataclass(frozen=True)
class Settlement:
    """What a reservation was replaced by."""

    reservation: Reservation
    usage: TokenUsage
    outcome: Outcome
    evidence: AnswerEvidence | None


@dataclass
class FakeLedger:
    """A budget in memory. Settling twice is an error."""

    budget: int = 1_000_000
    open: dict[str, Reservation] = field(default_factory=dict)
    settled: list[Settlement] = field(default_factory=list)
    refusal: AccessError | None = None
    extended: list[int] = field(default_factory=list)
    """Tokens that were set aside for requests that ran."""
    extension_refusal: AccessError | None = None
    gate: asyncio.Event | None = None
    """Reservations wait for it."""
    trouble: Exception | None = None
    """Raised by `settle`."""
    arrived: int = 0

    async def reserve(self, request_id: str, caller: Caller, model: str, tokens: int) -> Reservation:
        """See `Ledger`."""
        self.arrived += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        remaining = Remaining(requests=59, tokens=None, budget_tokens=self.budget - tokens, reset_seconds=1.0)
        reservation = Reservation(request_id, caller, model, tokens, remaining)
        self.open[request_id] = reservation
        return reservation

    async def extend(self, reservation: Reservation, tokens: int, used: int) -> Reservation:
        """See `Ledger`."""
        self.extended.append(tokens)
        if self.extension_refusal is not None:
            raise self.extension_refusal
        extended = replace(reservation, tokens=reservation.tokens + tokens)
        self.open[reservation.request_id] = extended
        return extended

    async def settle(
        self, reservation: Reservation, usage: TokenUsage, outcome: Outcome, evidence: AnswerEvidence | None
    ) -> None:
        """See `Ledger`."""
        del self.open[reservation.request_id]
        if self.trouble is not None:
            raise self.trouble
        self.settled.append(Settlement(reservation, usage, outcome, evidence))

    async def read_usage(self, caller: Caller) -> UsageSummary:
        """See `UsageReader`."""
        mine = [entry for entry in self.settled if entry.reservation.caller.id == caller.id]
        prompt = sum(entry.usage.prompt_tokens for entry in mine)
        completion = sum(entry.usage.completion_tokens for entry in mine)
        rows = (ModelUsage("credit", len(mine), prompt, completion),) if mine else ()
        return UsageSummary(rows, Remaining(budget_tokens=self.budget - prompt - completion))
