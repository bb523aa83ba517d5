"""The way back from a revision, as it is written on the ControllerRevision of the one that fell.

Nothing else remembers it: every pass derives from these annotations and from when each revision was promoted where the
way back stands, so an operator that dies at any step is followed by one that goes on from that step.
"""

import hashlib
from dataclasses import dataclass, field, replace

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.verdict import Verdict

REQUESTED, BELOW_THRESHOLD = "Requested", "BelowThreshold"
"""Causes of a rollback; the metric's label `reason`."""
MOST_TEXT = 500
"""Characters kept of what fell and of what the control said."""


@dataclass(frozen=True, slots=True)
class RollbackTerms:
    """What it was begun under. Under others it is void: they may make the fall no fall, or the Pass no Pass."""

    asked_for: str
    """The revision that the spec asked for, most often the one that fell."""
    suite_hash: str
    """Of the suite that was asked for, and behind a `+` of the one that counted beside it, if any did."""
    threshold: float
    released: str
    """The last `ack` and the last `unpin`: another one than now means that a person has looked since."""

    @property
    def spec_terms(self) -> "RollbackTerms":
        """What people asked for, whichever of two suites counts meanwhile."""
        return replace(self, suite_hash=self.suite_hash.partition("+")[0])


@dataclass(frozen=True, slots=True)
class AccuracyDrop:
    """What fell, from what to what, as it was counted when the way back was begun."""

    before: str = ""
    """Right / all items at the gate."""
    now: str = ""
    lost: tuple[str, ...] = ()
    """Items lost since the gate, a line per stratum."""
    text: str = ""
    """In one line; of a request, who asked and why."""


@dataclass(frozen=True, slots=True)
class RollbackRecord:
    """The annotation. Seconds since the epoch."""

    to: str
    terms: RollbackTerms
    started_at: float
    cause: str
    """BelowThreshold, or Requested."""
    fell: AccuracyDrop
    request: str = ""
    """The moment of the request that it answers."""
    control: Verdict | None = None
    said: str = ""
    blocked: str = ""
    """Why the control's monitor could decide nothing."""
    fallen: bool = False
    """Something was counted below the threshold, whoever asked for the way back."""
    switched_at: float | None = None
    lifted: bool = False
    """The spec asked for something else, or for less, since the switch: what fell may be asked for again."""
    released: str = ""
    """The acts of people (as in the terms) that let it come back: what they forgave counts for nothing more."""
    before: tuple[str, ...] = field(default=())
    """To what else it was gone back from this revision."""

    @property
    def token(self) -> str:
        """Names this attempt to the monitors of the control."""
        return f"{self.to}@{self.started_at:.3f}"

    @property
    def has_voided_gates(self) -> bool:
        """Whether what the revision passed before the switch says nothing any more."""
        return self.switched_at is not None and (self.fallen or self.cause == BELOW_THRESHOLD)

    @property
    def regate_token(self) -> str:
        """Names to its monitors the gate by which alone it comes back; another one each time somebody lets it."""
        more = f"+{hashlib.sha256(self.released.encode()).hexdigest()[:8]}" if self.released else ""
        return self.token + more

    @property
    def is_in_force(self) -> bool:
        """Whether the revision that bears this record is kept from coming back."""
        return self.switched_at is not None and not self.lifted

    @property
    def targets(self) -> frozenset[str]:
        """Every revision that traffic went back to from the one that bears this record."""
        if self.released:
            return frozenset()
        return frozenset((*self.before, self.to) if self.switched_at is not None else self.before)


def read_rollback_record(text: str | None) -> RollbackRecord | None:
    """The record of an annotation; None where there is none or it is unreadable (then a fall is judged afresh)."""
    try:
        return loads(RollbackRecord, text, tolerant=True) if text else None
    except ContractError:
        return None
