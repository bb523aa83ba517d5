"""Turns for what a tenant changes and may change without end: a few at once, then fewer and fewer while it goes on.

Turns of a work queue alone do not shield others from a group that never stops: its passes and writes keep the operator
and the API server busy. What waits here is done once, in its state at its turn. Used from one event loop only.
"""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from r1plus_operator.runtime.queue import Clock
from r1plus_operator.runtime.throttle import TokenBucket

K = TypeVar("K", bound=Hashable)
MOST_REMEMBERED = 1000
"""Keys of a group whose last turns are remembered, for the order of those that wait."""


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """How many turns a group has. A group that changes what waits already gets fewer."""

    at_once: int = 10
    burst_per_second: float = 2.0
    """After those at once."""
    burst: int = 50
    """Turns at this rate, those at once included."""
    per_second: float = 0.5
    """After the burst, on average."""
    longest_seconds: float = 16.0
    """Between two turns of a group that goes on changing what waits: from `1 / per_second` on, doubling."""


@dataclass(slots=True)
class _Group(Generic[K]):
    buckets: tuple[TokenBucket, TokenBucket]
    waiting: dict[K, Callable[[], None]] = field(default_factory=dict)
    """Key -> what to do at its turn."""
    last_turns: dict[K, float] = field(default_factory=dict)
    """Key -> its last turn, the oldest first."""
    interval: float = 0.0
    """Seconds between two turns, beyond what the buckets ask for."""
    last: float = 0.0
    """The last turn."""
    has_timer: bool = False
    """Whether a turn is taken for the next key that waits."""
    first: set[K] = field(default_factory=set)
    """Of those that wait, the keys that go first."""
    has_repeats: bool = False
    """Whether a key that waited has changed again since the last turn."""


class GroupPace(Generic[K]):
    """Bound the turns of groups of keys. Of a group that waits, the key whose last turn is longest ago is next."""

    def __init__(
        self, group: Callable[[K], Hashable], limits: PaceLimits | None = None, *, clock: Clock | None = None
    ) -> None:
        """Use the event loop of the first key that waits as clock, unless one is given."""
        self._group = group
        self._limits = limits or PaceLimits()
        self._clock = clock
        self._groups: dict[Hashable, _Group[K]] = {}

    def take_turn(self, key: K, later: Callable[[], None], *, is_first: bool = False) -> bool:
        """Return whether the key has its turn now; else call `later` at its turn, or the `later` of a newer change.

        `is_first`: at the group's next turn.
        """
        clock = self._clock = self._clock or asyncio.get_running_loop()
        name, now = self._group(key), clock.time()
        group = self._get_group(name, now, clock)
        if group.has_timer:
            group.has_repeats |= key in group.waiting
        else:
            delay = self._reserve(group, now)
            if delay <= 0:
                self._record_turn(group, key, now)
                return True
            self._set_timer(name, now + delay, clock)
        group.waiting[key] = later
        if is_first:
            group.first.add(key)
        return False

    def withdraw(self, key: K) -> None:
        """Drop what waits for the key's turn."""
        group = self._groups.get(self._group(key))
        if group is not None:
            # The turn is kept for the next key: a timer runs for it.
            group.waiting.pop(key, None)
            group.first.discard(key)

    def _set_timer(self, name: Hashable, at: float, clock: Clock) -> None:
        self._groups[name].has_timer = True
        clock.call_at(at, lambda: self._end_wait(name, clock))

    def _reserve(self, group: _Group[K], now: float) -> float:
        """Take a turn for the next key, and return after how many seconds it may be used."""
        return max(group.last + group.interval - now, *(bucket.reserve() for bucket in group.buckets))

    def _end_wait(self, name: Hashable, clock: Clock) -> None:
        """Give a turn to a group's next key."""
        group, now = self._groups[name], clock.time()
        group.has_timer = False
        if not group.waiting:
            return
        key = min(group.waiting, key=lambda k: (k not in group.first, group.last_turns.get(k, 0.0)))
        later = group.waiting.pop(key)
        group.first.discard(key)
        first = 1.0 / self._limits.per_second
        if group.has_repeats:
            group.interval = min(max(first, 2.0 * group.interval), self._limits.longest_seconds)
        else:
            group.interval = group.interval / 2.0 if group.interval > first else 0.0
        group.has_repeats = False
        self._record_turn(group, key, now)
        if group.waiting:
            self._set_timer(name, now + self._reserve(group, now), clock)
        later()

    def _record_turn(self, group: _Group[K], key: K, now: float) -> None:
        group.last = now
        group.last_turns.pop(key, None)
        group.last_turns[key] = now
        if len(group.last_turns) > MOST_REMEMBERED:
            del group.last_turns[next(iter(group.last_turns))]

    def _get_group(self, name: Hashable, now: float, clock: Clock) -> _Group[K]:
        """Return the state of a group. Groups that have rested are forgotten."""
        limits = self._limits
        if name not in self._groups:
            rest = max(limits.burst / limits.per_second, 2.0 * limits.longest_seconds)
            self._groups = {k: group for k, group in self._groups.items() if group.has_timer or group.last + rest > now}
            self._groups[name] = _Group(
                (
                    TokenBucket(limits.burst_per_second, limits.at_once, clock=clock.time),
                    TokenBucket(limits.per_second, limits.burst, clock=clock.time),
                ),
                last=now,
            )
        group = self._groups[name]
        if not group.has_timer and group.last + 2.0 * group.interval <= now:
            group.interval = 0.0
        return group
