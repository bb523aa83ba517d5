"""When this leader read what monitors report: their nodes' clocks may be wrong, and ours bounds how old it is."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from r1plus_operator.observe.pod_projection import ServingPod
from r1plus_operator.plan.observation import AgeBounds


@dataclass(slots=True)
class Reading:
    """What one pod reports, by the time at which its monitor says that it ended."""

    ended: str
    first: float
    """When it was first read, by our clock."""
    before: float
    """When something else was read last; minus infinity: never, since this leader began."""
    last: float
    """When it was read last."""


class ReadingTimes:
    """Readings of all pods."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.by_uid: dict[str, Reading] = {}

    def record(self, uid: str, ended: str) -> None:
        """Record that a pod reports what ended at `ended` by its monitor's clock; empty: nothing has ended."""
        now, reading = self._clock(), self.by_uid.get(uid)
        if reading is not None and reading.ended == ended:
            reading.last = now
        else:
            self.by_uid[uid] = Reading(ended, now, reading.last if reading else -math.inf, now)

    def list_ages(self, pods: Iterable[ServingPod]) -> dict[str, AgeBounds]:
        """Return pod -> how long ago what it reports ended: after the reading before it, and before the first of it."""
        now = self._clock()
        readings = ((pod.name, self.by_uid.get(pod.uid)) for pod in pods)
        return {name: AgeBounds(now - one.first, now - one.before) for name, one in readings if one}
