"""The newest outcomes of the continuous check, numbered without gap or repetition: what `GET /outcomes` returns.

A file of lines: a head that says what they belong to, then an outcome each, appended before anybody hears of it. A
prober that is killed finds all of them again; a line that was half written was never served, so its number is free.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.outcomes import MOST_OUTCOMES, OutcomePage, ProbeOutcome, ProbeResult
from r1plus_monitoring.logs import log
from r1plus_policies.gate.verdict import Subject

OUTCOMES_FILE: Final = "outcomes.jsonl"


@dataclass(frozen=True, slots=True)
class Head:
    """The first line."""

    epoch: str
    subject: Subject


class Journal:
    """One prober at a time owns it."""

    def __init__(self, folder: Path, subject: Subject, new_epoch: Callable[[], str]) -> None:
        """Goes on with the file if it belongs to this subject; else a new epoch begins."""
        self._path = folder / OUTCOMES_FILE
        self.acknowledged, self.acknowledged_after = "", 0
        """As the watch has it; not stored here, since the watch says it again whenever it starts."""
        self._ring: deque[ProbeOutcome] = deque(maxlen=MOST_OUTCOMES)
        found = self._read()
        if found is not None and found.subject == subject:
            self.head = found
        else:
            self._ring.clear()
            self.head = Head(new_epoch(), subject)
        # What was half written goes, and the file is short again.
        self._rewrite()

    @property
    def newest(self) -> int:
        """Number of the newest outcome; 0 without any."""
        return self._ring[-1].sequence if self._ring else 0

    def append(self, item: str, result: ProbeResult) -> ProbeOutcome:
        """Number one outcome and keep it."""
        outcome = ProbeOutcome(self.newest + 1, item, result)
        if self._lines >= 2 * MOST_OUTCOMES:
            self._rewrite()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(dumps(outcome) + "\n")
        self._lines += 1
        self._ring.append(outcome)
        return outcome

    def after(self, sequence: int) -> tuple[ProbeOutcome, ...]:
        """What came later, as far as it is kept."""
        return tuple(outcome for outcome in self._ring if outcome.sequence > sequence)

    def page(self, since: int, revision: str, watched: int) -> OutcomePage:
        """What the operator reads."""
        subject = self.head.subject
        return OutcomePage(
            epoch=self.head.epoch,
            revision=revision,
            identity=subject.identity,
            suite_hash=subject.suite_hash,
            scorer_version=subject.scorer_version,
            watched=watched,
            oldest=self._ring[0].sequence if self._ring else 1,
            newest=self.newest,
            outcomes=self.after(since),
            acknowledged=self.acknowledged,
            acknowledged_after=self.acknowledged_after,
        )

    def _read(self) -> Head | None:
        """Fill the ring. A file that is damaged elsewhere than at its end would give a number twice: a new epoch."""
        try:
            whole, _, _ = self._path.read_bytes().rpartition(b"\n")
            head, *outcomes = whole.split(b"\n")
            for line in outcomes:
                outcome = loads(ProbeOutcome, line)
                if self._ring and outcome.sequence != self.newest + 1:
                    raise ContractError(f"sequence: {outcome.sequence} follows {self.newest}")
                self._ring.append(outcome)
            return loads(Head, head)
        except FileNotFoundError:
            return None
        except ContractError as error:
            log("warning", "Outcomes were unreadable, started without them", error=str(error))
            return None

    def _rewrite(self) -> None:
        part = self._path.with_name(f".{OUTCOMES_FILE}.part")
        part.write_text("".join(dumps(line) + "\n" for line in (self.head, *self._ring)), encoding="utf-8")
        part.replace(self._path)
        self._lines = len(self._ring)
