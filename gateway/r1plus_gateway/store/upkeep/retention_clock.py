"""The time that retention goes by: a gateway that starts with a clock far ahead deletes nothing for that alone.

Nor does one into which a backup is restored, however long its own data have seen that clock: `restart`.

It follows the earlier of ledger time and the machine's clock, ahead and back. Where that is further from what was seen
than a gateway is switched off for, only the time counts that passes while a gateway runs: until the clock is corrected,
an administrator confirms it, or, for a clock ahead, it has been the same for a day of running.
"""

import json
import logging
from dataclasses import dataclass
from typing import Final

from r1plus_contract.remedies import DataProblem, Remedy
from r1plus_gateway.store.clock import LedgerClock, format_day
from r1plus_gateway.store.ledger.repository import LedgerRepository, MetaName, read_meta, write_meta

log = logging.getLogger(__name__)
MOST_AHEAD_SECONDS: Final = 7 * 86400.0
"""Of a clock, ahead of what was seen, which is believed: an outage, or a machine that is used once a week."""
HOLD_SECONDS: Final = 86400.0
"""Of running, after which a time further ahead is believed, too: nothing is kept for ever."""


@dataclass(frozen=True, slots=True)
class RetentionTime:
    """What is older than its retention by `moment`, in epoch seconds, may be deleted."""

    moment: float
    held_from: float | None = None
    """The moment at which a time too far ahead was met; None: `moment` follows the clocks."""

    def find_hold(self, target: float) -> DataProblem | None:
        """Return why deletion waits, and what to do; None if it does not."""
        if self.held_from is None:
            return None
        days, hours = (target - self.moment) / 86400, max(0.0, HOLD_SECONDS - (self.moment - self.held_from)) / 3600
        problem = (
            f"Retention deletes as of {format_day(self.moment)} only: this machine's clock says {format_day(target)},"
            f" {days:.0f} days ahead of what was seen. If the clock is wrong, set it"
        )
        return DataProblem(Remedy.CONFIRM_TIME, {"problem": problem, "hours": f"{hours:.0f}"})


class RetentionClock:
    """One gateway's view of retention time. Replicas share the stored one, and add the time that passes once."""

    def __init__(self, clock: LedgerClock) -> None:
        self._clock = clock
        self._last: tuple[float, float] | None = None
        """Retention time, and the machine's seconds since boot, when it was looked at last."""
        self.problem: DataProblem | None = None
        """Why deletion waits, and what to do; None: it does not."""

    def begin(self, ledger: LedgerRepository) -> None:
        """Count from now on; data that have no retention time yet begin with the newest time that they have seen."""
        stored = _read(ledger)
        if stored is None:
            stored = RetentionTime(ledger.seen_at or ledger.now)
            _write(ledger, stored)
        self._last = stored.moment, self._clock.read_elapsed()

    def advance(self, ledger: LedgerRepository) -> RetentionTime:
        """Return what retention goes by now; store it."""
        stored = _read(ledger) or RetentionTime(ledger.now)
        elapsed = self._clock.read_elapsed()
        if self._last is None or stored.moment < self._last[0]:  # by `confirm`, or another replica's clock
            self._last = stored.moment, elapsed
        moment = max(stored.moment, self._last[0] + elapsed - self._last[1])
        target = min(ledger.now, self._clock.read_wall())
        present = _follow(RetentionTime(moment, stored.held_from), target)
        self._last = present.moment, elapsed
        if (present.held_from is None) != (stored.held_from is None):
            log.warning("%s", present.find_hold(target) or "Retention goes by this machine's clock again")
        self.problem = present.find_hold(target)
        _write(ledger, present)
        return present

    def estimate(self) -> float:
        """Return by when what has an end of its own is over, in epoch seconds, without a look at what is stored.

        Ledger time may be ahead for ever of a clock that was corrected: what retention keeps would not be shown.
        """
        target = min(self._clock.read(), self._clock.read_wall())
        if self._last is None:
            return target
        moment, elapsed = self._last
        return max(target, moment + self._clock.read_elapsed() - elapsed)

    def confirm(self, ledger: LedgerRepository) -> None:
        """Go on with the ledger's time: an administrator says that it is right."""
        self._last, self.problem = None, None
        _write(ledger, RetentionTime(ledger.now))


def restart(ledger: LedgerRepository, clock: LedgerClock, made_at: float) -> str:
    """Let restored data go on with the time that they have seen; return why deletion waits, and what to do.

    This machine's clock may be wrong, and nothing that is stored here says otherwise. `made_at`: the newest time that a
    backup without a retention time has seen, at least; its gateway was of an earlier release.
    """
    stored = _read(ledger)
    target = min(ledger.now, clock.read_wall())
    newest = stored.moment if stored is not None else max(ledger.seen_at, made_at)
    present = _follow(RetentionTime(min(newest, target)), target)
    _write(ledger, present)
    return str(present.find_hold(target) or "")


def _follow(before: RetentionTime, target: float) -> RetentionTime:
    """Return the next retention time: the target, unless that is too far ahead and not confirmed."""
    if abs(target - before.moment) <= MOST_AHEAD_SECONDS:
        return RetentionTime(target)
    if target < before.moment:
        return RetentionTime(before.moment)
    if before.held_from is None:
        return RetentionTime(before.moment, before.moment)
    if before.moment - before.held_from >= HOLD_SECONDS:
        return RetentionTime(target)
    return before


def _read(ledger: LedgerRepository) -> RetentionTime | None:
    for name in (MetaName.RETENTION_TIME, MetaName.EARLIER_RETENTION_TIME):
        if (stored := read_meta(ledger.connection, name)) is not None:
            return RetentionTime(**json.loads(stored))
    return None


def _write(ledger: LedgerRepository, present: RetentionTime) -> None:
    value = json.dumps({"moment": present.moment, "held_from": present.held_from})
    write_meta(ledger.connection, MetaName.RETENTION_TIME, value)
