"""The newest outcomes of the continuous check, numbered without gap or repetition: what `GET /outcomes` returns.

A file of lines: a header that says what they belong to, then one outcome each. An outcome is written before it is
served, so a killed prober finds all of them again. A half written line was never served, so its number is free.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.monitor.outcomes import MOST_OUTCOMES, OutcomePage, ProbeOutcome, ProbeResult
from r1plus_monitoring.logs import log
from r1plus_policies.gate.verdict import VerdictSubject

OUTCOMES_FILE: Final = "outcomes.jsonl"


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """The first line."""

    epoch: str
    subject: VerdictSubject


class Journal:
    """The journal of one subject. One prober at a time owns it."""

    def __init__(self, folder: Path, subject: VerdictSubject, new_epoch: Callable[[], str]) -> None:
        """Continue the file if it belongs to this subject; otherwise a new epoch begins."""
        self._path = folder / OUTCOMES_FILE
        self.acknowledged, self.acknowledged_after = "", 0
        """Copied from the watch, which sets it again whenever it starts; not stored here."""
        self._ring: deque[ProbeOutcome] = deque(maxlen=MOST_OUTCOMES)
        header = self._read()
        if header is not None and header.subject == subject:
            self.header = header
        else:
            self._ring.clear()
            self.header = JournalHeader(new_epoch(), subject)
        # Removes a half written line, and compacts the file.
        self._rewrite()

    @property
    def newest(self) -> int:
        """Number of the newest outcome; 0 without any."""
        return self._ring[-1].sequence if self._ring else 0

    def append(self, item: str, result: ProbeResult) -> ProbeOutcome:
        """Number one outcome, write it and return it."""
        outcome = ProbeOutcome(self.newest + 1, item, result)
        if self._lines >= 2 * MOST_OUTCOMES:
            self._rewrite()
        with self._path.open("ab", buffering=0) as file:
            file.write(dumps(outcome).encode() + b"\n")
        self._lines += 1
        self._ring.append(outcome)
        return outcome

    def outcomes_after(self, sequence: int) -> tuple[ProbeOutcome, ...]:
        """Return the later outcomes that are still stored."""
        return tuple(outcome for outcome in self._ring if outcome.sequence > sequence)

    def build_page(self, since: int, revision: str, watched: int) -> OutcomePage:
        """Build the page that the operator reads."""
        subject = self.header.subject
        return OutcomePage(
            epoch=self.header.epoch,
            revision=revision,
            identity=subject.identity,
            suite_hash=subject.suite_hash,
            scorer_version=subject.scorer_version,
            watched=watched,
            oldest=self._ring[0].sequence if self._ring else 1,
            newest=self.newest,
            outcomes=self.outcomes_after(since),
            acknowledged=self.acknowledged,
            acknowledged_after=self.acknowledged_after,
        )

    def _read(self) -> JournalHeader | None:
        """Fill the ring. Damage before the last line starts a new epoch, since a number could repeat."""
        try:
            whole, _, _ = self._path.read_bytes().rpartition(b"\n")
            header, *outcomes = whole.split(b"\n")
            for line in outcomes:
                outcome = loads(ProbeOutcome, line)
                if self._ring and outcome.sequence != self.newest + 1:
                    raise ContractError(f"sequence: {outcome.sequence} follows {self.newest}")
                self._ring.append(outcome)
            return loads(JournalHeader, header)
        except FileNotFoundError:
            return None
        except ContractError as error:
            log("warning", "Outcomes were unreadable, started without them", error=str(error))
            return None

    def _rewrite(self) -> None:
        replace_text(self._path, "".join(dumps(line) + "\n" for line in (self.header, *self._ring)))
        self._lines = len(self._ring)
