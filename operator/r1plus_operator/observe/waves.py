"""Slots of waves: how many deployments of the cluster may begin a candidate that no spec asks for.

Which deployments hold a slot, and which waves are stopped, follows from the ControllerRevisions. Which deployments wait
was recorded by their last passes; a new leader learns it from its first passes.
"""

import heapq
from bisect import bisect_left, insort
from collections import Counter
from itertools import chain

from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.plan.observation import WaveView
from r1plus_operator.plan.revision.refresh import Refresh, RefreshOutcome, SlotRequest

_Revision = tuple[str, str]
"""Namespace and name of a ControllerRevision."""
_Place = tuple[bool, DeploymentKey]
"""A deployment's place in the line: a person's request comes first, then the names decide."""


class Waves:
    """Slots and lines, updated by increments: a pass costs the same however many deployments wait."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._records: dict[_Revision, tuple[DeploymentKey, Refresh]] = {}
        """Revision -> its deployment and its record."""
        self._holders: Counter[DeploymentKey] = Counter()
        self._failures: Counter[str] = Counter()
        self._stopped: frozenset[str] = frozenset()
        self._waiting: dict[DeploymentKey, SlotRequest] = {}
        self._lines: dict[str, list[_Place]] = {}
        self._granted: set[DeploymentKey] = set()
        """Deployments with a slot in the current pass, before a ControllerRevision shows it."""

    def record(self, revision: _Revision, deployment: DeploymentKey, record: Refresh | None) -> list[DeploymentKey]:
        """Record a ControllerRevision's refresh; None: it has none.

        Returns the deployments that wait for a wave which that stops or resumes.
        """
        return self._replace(revision, (deployment, record) if record is not None else None)

    def forget(self, revision: _Revision) -> list[DeploymentKey]:
        """Forget a ControllerRevision that is gone; return the same as `record`."""
        return self._replace(revision, None)

    def _replace(self, revision: _Revision, record: tuple[DeploymentKey, Refresh] | None) -> list[DeploymentKey]:
        previously_stopped = self._stopped
        if previous := self._records.pop(revision, None):
            self._count(*previous, by=-1)
        if record is not None:
            self._records[revision] = record
            self._count(*record, by=1)
        return [key for wave in previously_stopped ^ self._stopped for _, key in self._lines.get(wave, ())]

    def grant_slot(self, key: DeploymentKey) -> WaveView:
        """Return what a pass plans from; if it is the deployment's turn, it has the slot until `release`.

        A deployment that holds a slot may begin again: the newer candidate takes the older one's place.
        """
        if self._holders[key] > 0 or (key in self._waiting and key in self.list_turns()):
            self._granted.add(key)
        return WaveView(key in self._granted, self._stopped)

    def set_waiting(self, key: DeploymentKey, slot: SlotRequest | None) -> None:
        """Record what a deployment waits for after a pass; None: for nothing."""
        previous = self._waiting.pop(key, None)
        if previous is not None:
            line, place = self._lines[previous.wave], _build_place(key, previous)
            del line[bisect_left(line, place)]
            if not line:
                del self._lines[previous.wave]
        if slot is not None:
            self._waiting[key] = slot
            insort(self._lines.setdefault(slot.wave, []), _build_place(key, slot))

    def release(self, key: DeploymentKey) -> None:
        """End the pass's grant: a ControllerRevision shows the candidate by now, or none was begun."""
        self._granted.discard(key)

    def list_turns(self) -> list[DeploymentKey]:
        """Return the deployments whose turn it is: as many as there are free slots, of waves that are not stopped."""
        free = self._slots - len(self._granted | self._holders.keys())
        if free <= 0:
            return []
        most = free + len(self._granted)
        lines = (line[:most] for wave, line in self._lines.items() if wave not in self._stopped)
        first = heapq.nsmallest(most, chain.from_iterable(lines))
        return [key for _, key in first if key not in self._granted][:free]

    def _count(self, deployment: DeploymentKey, record: Refresh, *, by: int) -> None:
        if record.outcome is None:
            self._holders[deployment] += by
            if not self._holders[deployment]:
                del self._holders[deployment]
        if record.outcome is RefreshOutcome.FAILED:
            self._failures[record.wave] += by
            self._stopped = frozenset(wave for wave, count in self._failures.items() if count > 0)


def _build_place(key: DeploymentKey, slot: SlotRequest) -> _Place:
    return not slot.is_requested, key
