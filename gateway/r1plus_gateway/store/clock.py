"""Ledger time: it advances with real time and never goes back, whatever happens to the wall clock.

It starts at the wall clock's time, or at the latest time that the ledger has recorded, and then follows the kernel's
boot-time clock. So a jump of the wall clock, in either direction, opens no new minute and no new month.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime


def read_boot_time() -> float:
    """Return seconds since the machine started, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LedgerClock:
    """One process's view of ledger time; replicas agree by the latest time that one of them has recorded."""

    def __init__(self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = read_boot_time) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._offset = wall() - elapsed()
        self._confirmation: str | None = None
        """Names the newest confirmation of the wall clock that was followed; None: none was looked at yet."""

    def read(self) -> float:
        """Return ledger time in seconds since the epoch."""
        return self._elapsed() + self._offset

    def read_wall(self) -> float:
        """Return the wall clock's time in seconds since the epoch."""
        return self._wall()

    def read_elapsed(self) -> float:
        """Return seconds since the machine started: they pass as real time does."""
        return self._elapsed()

    def follow(self, latest: float, confirmation: str) -> None:
        """Go on from `latest`, which the ledger has recorded, if this clock is behind it.

        Behind a new confirmation go back to the wall clock's time first: a replica that went on with the time from
        before would bring that back to all.
        """
        if self._confirmation not in (None, confirmation):
            self._offset = self._wall() - self._elapsed()
        self._confirmation = confirmation
        self._offset = max(self._offset, latest - self._elapsed())

    def reset(self, confirmation: str) -> None:
        """Go back to the wall clock's time, which was confirmed."""
        self._offset = self._wall() - self._elapsed()
        self._confirmation = confirmation

    @property
    def seconds_ahead(self) -> float:
        """How far ledger time is ahead of the wall clock."""
        return self.read() - self._wall()


def format_month(moment: float) -> str:
    """Return the month of a time in UTC, as `2026-11`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")


def format_day(moment: float) -> str:
    """Return the day of a time in UTC, as `2026-11-27`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
