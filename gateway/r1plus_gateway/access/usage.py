"""What `GET /v1/usage` shows: the store implements the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from r1plus_gateway.access.caller import Caller, Remaining

_UNLIMITED: Final = Remaining()


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Of one model, since the month began (UTC)."""

    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """Usage of one caller, and what it has left."""

    models: tuple[ModelUsage, ...] = ()
    remaining: Remaining = _UNLIMITED


@dataclass(frozen=True, slots=True)
class KeyBudget:
    """A valid API key, and its budget of this month if it has one."""

    id: str
    limit_tokens: int | None = None
    left_tokens: int = 0


class UsageReader(Protocol):
    """Reads what was settled."""

    async def read_usage(self, caller: Caller) -> UsageSummary:
        """Return the caller's usage in this calendar month (UTC).

        Raises:
            AccessError: 503 while nothing can be read.
        """
