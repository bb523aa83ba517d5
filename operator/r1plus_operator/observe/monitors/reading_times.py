"""When this leader read what monitors report: their nodes' clocks may be wrong, and ours bounds how old it is."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from r1plus_operator.observe.pod_projection import ServingPod
from r1plus_operator.plan.observation import AgeBounds

MOST_KEPT: Final = 8
"""Ends of one pod that are remembered. A monitor that starts again reports nothing at first, and an old gate next."""

MOST_CHARACTERS: Final = 64
"""Of an end: a compromised monitor may report any text."""


@dataclass(slots=True)
class Readings:
    """What one pod has reported, by the times at which its monitor says that it ended."""

    ended: str = ""
    """Of the last reading; empty: nothing had ended."""
    last: float = -math.inf
    """When the pod was read last, by our clock; minus infinity: never, since this leader began."""
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    """End -> when the pod was read last before it was reported, and when it was first read."""


class ReadingTimes:
    """Readings of all pods."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.by_uid: dict[str, Readings] = {}

    def record(self, uid: str, ended: str) -> None:
        """Record that a pod reports what ended at `ended` by its monitor's clock; empty: nothing has ended."""
        now, readings, ended = self._clock(), self.by_uid.setdefault(uid, Readings()), ended[:MOST_CHARACTERS]
        readings.bounds.setdefault(ended, (readings.last, now))
        if len(readings.bounds) > MOST_KEPT:
            del readings.bounds[next(iter(readings.bounds))]
        readings.ended, readings.last = ended, now

    def list_ages(self, pods: Iterable[ServingPod]) -> dict[str, AgeBounds]:
        """Return pod -> how long ago what it reports ended: after the reading before it, and before the first of it."""
        now, ages = self._clock(), {}
        for pod in pods:
            if readings := self.by_uid.get(pod.uid):
                before, first = readings.bounds[readings.ended]
                ages[pod.name] = AgeBounds(now - first, now - before)
        return ages
