"""That a candidate was withdrawn for lack of room, as written on its ControllerRevision, and when it is tried again."""

from dataclasses import dataclass

from r1plus_contract.jsonable import ContractError, loads
from r1plus_operator.api.types import RolloutTerms
from r1plus_policies.rollout import retry_delay

MOST_TEXT = 500
"""Characters kept of what the scheduler or a quota said."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """The annotation. Seconds since the epoch."""

    at: float
    times: int
    """How often it was withdrawn in a row."""
    retry_at: float
    no_room: str
    """What the scheduler or a quota said."""
    deadline: float
    """The spec's, seconds: with another one it is tried again at once."""


def expire(before: Expiry | None, now: float, no_room: str, terms: RolloutTerms) -> Expiry:
    """Return the record of one more withdrawal."""
    times = before.times + 1 if before else 1
    return Expiry(now, times, now + retry_delay(times, terms.strategy), no_room[:MOST_TEXT], terms.deadline_seconds)


def expiry_in(text: str | None) -> Expiry | None:
    """Return the record of an annotation; None where there is none or it is unreadable."""
    try:
        return loads(Expiry, text, tolerant=True) if text else None
    except ContractError:
        return None
