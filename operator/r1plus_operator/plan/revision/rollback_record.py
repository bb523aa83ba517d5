"""The rollback from a revision, as it is stored on the ControllerRevision whose accuracy dropped.

Nothing else remembers it: every pass derives the state of a rollback from these annotations and from the promotions.
So an operator that dies at any step is followed by one that continues from that step.
"""

import hashlib
from dataclasses import dataclass, field, replace

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.verdict import Verdict

USER_REQUEST, BELOW_THRESHOLD = "Requested", "BelowThreshold"
"""Causes of a rollback; the metric's label `reason`."""
MOST_TEXT = 500
"""Characters kept of the accuracy drop and of the control's message."""


@dataclass(frozen=True, slots=True)
class RollbackTerms:
    """What a rollback was begun under. Under other terms it is void: the drop, or the Pass, may be none under them."""

    asked_for: str
    """The revision that the spec asked for, usually the one whose accuracy dropped."""
    suite_hash: str
    """Of the spec's suite, and behind a `+` of the effective one where that was another."""
    threshold: float
    released: str
    """The last `ack` and the last `unpin`: if they differ from now, a user has acted since."""

    @property
    def spec_terms(self) -> "RollbackTerms":
        """The terms that the spec sets, whichever of two suites is effective meanwhile."""
        return replace(self, suite_hash=self.suite_hash.partition("+")[0])


@dataclass(frozen=True, slots=True)
class AccuracyDrop:
    """An accuracy drop as it was counted when the rollback began."""

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
    """Token of the request that it answers."""
    control: Verdict | None = None
    said: str = ""
    blocked: str = ""
    """Why the control's monitor could decide nothing."""
    fallen: bool = False
    """Whether something was counted below the threshold, also where a user asked for the rollback."""
    switched_at: float | None = None
    lifted: bool = False
    """Whether the spec has asked for something else, or for less, since the switch: the revision may come back."""
    released: str = ""
    """The user actions (as in the terms) that let the revision come back; earlier rollbacks no longer count."""
    before: tuple[str, ...] = field(default=())
    """Earlier rollback targets from this revision."""

    @property
    def token(self) -> str:
        """Name of this rollback for the monitors of the control."""
        return f"{self.to}@{self.started_at:.3f}"

    @property
    def has_voided_gates(self) -> bool:
        """Whether the revision's gates from before the switch no longer count."""
        return self.switched_at is not None and (self.fallen or self.cause == BELOW_THRESHOLD)

    @property
    def regate_token(self) -> str:
        """Name of the gate by which alone the revision comes back; another one each time a user lets it."""
        suffix = f"+{hashlib.sha256(self.released.encode()).hexdigest()[:8]}" if self.released else ""
        return self.token + suffix

    @property
    def is_in_force(self) -> bool:
        """Whether the revision that has this record is kept from coming back."""
        return self.switched_at is not None and not self.lifted

    @property
    def targets(self) -> frozenset[str]:
        """Every revision that traffic was rolled back to from the one that has this record."""
        if self.released:
            return frozenset()
        return frozenset((*self.before, self.to) if self.switched_at is not None else self.before)


def read_rollback_record(text: str | None) -> RollbackRecord | None:
    """Return the record of an annotation; None where there is none or it is unreadable: a drop is then judged again."""
    try:
        return loads(RollbackRecord, text, tolerant=True) if text else None
    except ContractError:
        return None
