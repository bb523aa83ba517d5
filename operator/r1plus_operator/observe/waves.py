"""Which deployments may begin a candidate that no spec asks for: at most so many of the cluster are on their way.

Who holds a slot, and which waves are stopped, follows from the ControllerRevisions as the observer sees them come and
go. Who waits is what the last pass over each deployment said; a new leader hears it from its first passes.
"""

import heapq
from bisect import bisect_left, insort
from collections import Counter
from itertools import chain

from r1plus_operator.plan.observation import WaveView
from r1plus_operator.plan.revision.refresh import Refresh, RefreshOutcome, SlotRequest

Key = tuple[str, str]
_Place = tuple[bool, Key]
"""Where a deployment stands in the line: what a person has asked for comes first, then the names decide."""


class Waves:
    """Slots and lines, kept up to date by increments: a pass costs the same however many deployments wait."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._records: dict[Key, tuple[Key, Refresh]] = {}
        """Revision -> whose it is, and its record."""
        self._holders: Counter[Key] = Counter()
        self._failures: Counter[str] = Counter()
        self._stopped: frozenset[str] = frozenset()
        self._waiting: dict[Key, SlotRequest] = {}
        self._lines: dict[str, list[_Place]] = {}
        self._granted: set[Key] = set()
        """Who has a slot in the pass that is being made, and has not written so yet."""

    def note(self, revision: Key, deployment: Key, record: Refresh | None) -> list[Key]:
        """Take in what a ControllerRevision says; None: it says nothing, or is gone.

        Returns those who wait for a wave that is stopped by that, or goes on.
        """
        stopped = self._stopped
        if before := self._records.pop(revision, None):
            self._count(*before, by=-1)
        if record is not None:
            self._records[revision] = deployment, record
            self._count(deployment, record, by=1)
        return [key for wave in stopped ^ self._stopped for _, key in self._lines.get(wave, ())]

    def view(self, key: Key) -> WaveView:
        """What a pass over a deployment plans from; where it is its turn, the slot is kept for it until `release`.

        Who is on its way already may begin again: the newer candidate takes the older one's place.
        """
        if self._holders[key] > 0 or (key in self._waiting and key in self.turns()):
            self._granted.add(key)
        return WaveView(key in self._granted, self._stopped)

    def wait(self, key: Key, slot: SlotRequest | None) -> None:
        """Take in what a deployment waits for after a pass; None: for nothing."""
        before = self._waiting.pop(key, None)
        if before is not None:
            line, place = self._lines[before.wave], _place(key, before)
            del line[bisect_left(line, place)]
            if not line:
                del self._lines[before.wave]
        if slot is not None:
            self._waiting[key] = slot
            insort(self._lines.setdefault(slot.wave, []), _place(key, slot))

    def release(self, key: Key) -> None:
        """The pass is over: either a ControllerRevision tells of a candidate by now, or none was begun."""
        self._granted.discard(key)

    def turns(self) -> list[Key]:
        """Return whose turn it is: as many as there are free slots, of waves that go on."""
        free = self._slots - len(self._granted | self._holders.keys())
        if free <= 0:
            return []
        most = free + len(self._granted)
        lines = (line[:most] for wave, line in self._lines.items() if wave not in self._stopped)
        first = heapq.nsmallest(most, chain.from_iterable(lines))
        return [key for _, key in first if key not in self._granted][:free]

    def _count(self, deployment: Key, record: Refresh, *, by: int) -> None:
        if record.outcome is None:
            self._holders[deployment] += by
            if not self._holders[deployment]:
                del self._holders[deployment]
        if record.outcome is RefreshOutcome.FAILED:
            self._failures[record.wave] += by
            self._stopped = frozenset(wave for wave, count in self._failures.items() if count > 0)


def _place(key: Key, slot: SlotRequest) -> _Place:
    return not slot.is_requested, key
