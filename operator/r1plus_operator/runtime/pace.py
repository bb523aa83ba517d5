"""When keys that somebody goes on changing are looked at: so many of a group at once, then so many a second.

Turns alone do not shield others from a group that never stops: what is written for it keeps the API server busy. What
waits for its time here is looked at with all that has changed meanwhile. Used from one event loop only.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from r1plus_operator.runtime.throttle import TokenBucket

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Group(Generic[K]):
    bucket: TokenBucket
    booked: dict[K, float] = field(default_factory=dict)
    """Key -> when it is to be looked at. Where that is past it says nothing."""
    last: float = 0.0
    """The latest of these times."""


class Pace(Generic[K]):
    """Before a work queue. A key that waits already takes no second place."""

    def __init__(
        self,
        add_after: Callable[[K, float], None],
        group: Callable[[K], Hashable],
        *,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate` keys of a group per second on average, `burst` of them at once."""
        self._add_after = add_after
        self._group = group
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._groups: dict[Hashable, _Group[K]] = {}

    def add(self, key: K) -> None:
        """The key needs a pass: now, or as soon as its group has a turn again."""
        now = self._clock()
        group = self._of(self._group(key), now)
        if (booked := group.booked.get(key, now)) > now:
            # Said again: of several times the queue keeps the earliest, and where that was another's it has passed.
            self._add_after(key, booked - now)
            return
        delay = group.bucket.reserve()
        group.booked[key] = group.last = now + delay
        self._add_after(key, delay)

    def _of(self, name: Hashable, now: float) -> _Group[K]:
        """A group's books. Whose time is all past begin anew, so that they are no longer than what waits."""
        if name not in self._groups:
            full_again = self._burst / self._rate
            self._groups = {k: group for k, group in self._groups.items() if group.last + full_again > now}
            self._groups[name] = _Group(TokenBucket(self._rate, self._burst, clock=self._clock))
        group = self._groups[name]
        if group.last <= now:
            group.booked.clear()
        return group
