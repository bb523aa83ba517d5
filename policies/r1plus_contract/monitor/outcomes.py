"""Results of the monitor's continuous check, probe by probe: `GET /outcomes?since=SEQUENCE` returns an `OutcomePage`.

The operator folds the pages of a revision's pods into one pooled detector. Item ids and results only, never a text.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MOST_OUTCOMES: Final = 2000
"""Outcomes in a page, and the newest that a monitor stores: five hours at 6 probes a minute."""


class ProbeResult(StrEnum):
    """Result of one probe of the continuous check. A probe that says nothing of the engine has none."""

    CORRECT = "1"
    INCORRECT = "0"
    SERVER_ERROR = "e"
    """An error or a time-out that the server caused: a failure to the detector of errors. The accuracy detector
    observes
        answers only, so that an overload does not count as an accuracy drop."""


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """One scored probe of an item that the revision passed in its gate."""

    sequence: int
    """1, 2, 3, ... within an epoch; no number is used twice, none is left out."""
    item: str
    result: ProbeResult


@dataclass(frozen=True, slots=True)
class OutcomePage:
    """Outcomes after `since`, oldest first, with what they belong to."""

    epoch: str
    """A new one means that this monitor lost its state and counts from 1 again."""
    revision: str
    identity: str
    suite_hash: str
    scorer_version: str
    watched: int
    """How many items the detector watches: those that the revision passed in its gate, in both conditions."""
    oldest: int
    """Sequence of the oldest stored outcome; a reader whose `since` is below `oldest` - 1 missed some."""
    newest: int
    """Sequence of the newest outcome; 0 without any."""
    outcomes: tuple[ProbeOutcome, ...] = ()
    acknowledged: str | None = None
    """The newest acknowledgement that the monitor has acted on; empty before any. None from an older monitor, which
    does
        not report it: its outcomes are used as they come."""
    acknowledged_after: int = 0
    """Sequence of the newest outcome at that moment: outcomes up to it are no evidence."""
