"""Rate limit for keys that a tenant changes: so many of a group at once, then so many a second.

Turns alone do not shield others from a group that never stops: its writes keep the API server busy. A key that waits
here is reconciled later with all that has changed meanwhile. Used from one event loop only.
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
    due_at: dict[K, float] = field(default_factory=dict)
    """Key -> when it is due. A time in the past means nothing."""
    last: float = 0.0
    """The latest of these times."""


class GroupRateLimiter(Generic[K]):
    """Rate limiter before a work queue. A key that waits already takes no second place."""

    def __init__(
        self,
        add_after: Callable[[K, float], None],
        group: Callable[[K], Hashable],
        *,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allow `rate` keys of a group per second on average, `burst` of them at once."""
        self._add_after = add_after
        self._group = group
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._groups: dict[Hashable, _Group[K]] = {}

    def add(self, key: K) -> None:
        """Ask for a pass over the key: now, or as soon as its group has a turn again."""
        now = self._clock()
        group = self._get_group(self._group(key), now)
        if (due_at := group.due_at.get(key, now)) > now:
            # The queue keeps the earliest of several times; an earlier one of another caller may have passed.
            self._add_after(key, due_at - now)
            return
        delay = group.bucket.reserve()
        group.due_at[key] = group.last = now + delay
        self._add_after(key, delay)

    def _get_group(self, name: Hashable, now: float) -> _Group[K]:
        """Return the state of a group. States whose times have all passed are dropped."""
        if name not in self._groups:
            full_again = self._burst / self._rate
            self._groups = {k: group for k, group in self._groups.items() if group.last + full_again > now}
            self._groups[name] = _Group(TokenBucket(self._rate, self._burst, clock=self._clock))
        group = self._groups[name]
        if group.last <= now:
            group.due_at.clear()
        return group
