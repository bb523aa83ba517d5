"""The withdrawal of a candidate, as it is stored on its ControllerRevision, and when it is tried again."""

from dataclasses import dataclass

from r1plus_contract.jsonable import ContractError, loads
from r1plus_operator.api.types import RolloutTerms
from r1plus_policies.rollout import retry_delay

MOST_TEXT = 500
"""Characters kept of what the scheduler or a quota reports."""


@dataclass(frozen=True, slots=True)
class RevisionExpiry:
    """The annotation. Seconds since the epoch."""

    at: float
    times: int
    """How often it was withdrawn in a row."""
    deadline: float
    """The spec's, seconds."""
    no_room: str = ""
    """What the scheduler or a quota reports; empty: room was not the cause, so it is not tried again by itself."""
    retry_at: float | None = None

    def is_over(self, now: float, deadline: float) -> bool:
        """Whether the candidate is tried again: its back-off is over, or people have changed its deadline."""
        has_new_deadline = deadline > self.deadline or (self.no_room != "" and deadline != self.deadline)
        return has_new_deadline or (self.retry_at is not None and self.retry_at <= now)


def expire(before: RevisionExpiry | None, now: float, no_room: str, terms: RolloutTerms) -> RevisionExpiry:
    """Return the record of one more withdrawal."""
    times = before.times + 1 if before else 1
    retry_at = now + retry_delay(times, terms.strategy) if no_room else None
    return RevisionExpiry(now, times, terms.deadline_seconds, no_room[:MOST_TEXT], retry_at)


def read_expiry(text: str | None) -> RevisionExpiry | None:
    """Return the record of an annotation; None where there is none or it is unreadable."""
    try:
        return loads(RevisionExpiry, text, tolerant=True) if text else None
    except ContractError:
        return None
