"""Who is next: one group of keys (the namespace of a tenant) must not make the others wait.

A key meets three rules, in this order:

1. **Pace**, for what a tenant may edit without end: a few turns at once, then fewer and fewer while it goes on. What
   waits for its turn is done once, in its newest state. The other rules alone would not shield the other groups: passes
   and writes without end keep the operator and the API server busy.
2. **Order** in the queue: by priority, within a priority the groups in turn, each in its own order. Keys of a higher
   priority without end delay the others by a few.
3. **Bounds** on the keys of a group that are out, so that a worker is free for the group that comes next. The room of a
   key that came in bulk rests after it: the writes of a pass delay all others at the API server, whatever the order.

Where nobody else waits this costs nothing: a group that is alone has a pace beyond what workers can follow, wide
bounds, and no rests. It is alone if for `ALONE_AFTER_SECONDS` nobody has waited for a key of another group.
Called by the work queue and by the edit filter, from one event loop only.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeVar

from r1plus_operator.runtime.throttle import TokenBucket

K = TypeVar("K", bound=Hashable)

ALONE_AFTER_SECONDS = 5.0


class Priority(IntEnum):
    """The lowest number is taken first. As in controller-runtime, what a list brings has low priority."""

    URGENT = 0
    """What protects: network policies that were changed, accuracy drops, requests of people."""
    NORMAL = 1
    """What somebody waits for: an edit, a pod's event."""
    LOW = 2
    """What comes in bulk: first passes after a start, all deployments of a namespace or of the cluster."""


MOST_IN_A_ROW = {Priority.NORMAL: 3, Priority.LOW: 8}
"""Keys of a higher priority that are taken in a row, before one of this priority is."""

WIDE_SHARES = 3
"""As a multiple of what one group may have out beside others: what a group that is alone has, and the keys of low
priority of all groups together."""
REST = 3.0
"""After a key of low priority its room stays taken, for so many times the seconds that the key was out."""
LONGEST_REST_SECONDS = 1.0
"""Longer ones would wait for an API server that does not answer."""


class Cancellable(Protocol):
    """A timer that has not fired yet."""

    def cancel(self) -> None:
        """Cancel the timer."""


class Clock(Protocol):
    """Time as this module sees it. An asyncio event loop is one; tests bring their own."""

    def time(self) -> float:
        """Return seconds that never go backwards."""

    def call_at(self, when: float, callback: Callable[[], Any], /) -> Cancellable:
        """Call back once `time()` has reached `when`."""


@dataclass(slots=True)
class Contention:
    """For which group somebody waited last, and when last for another group than that."""

    group: Hashable = None
    last: float = -math.inf
    last_of_others: float = -math.inf

    def record(self, group: Hashable, now: float) -> None:
        """Record that somebody waits for a key of a group."""
        if group != self.group:
            self.group, self.last_of_others = group, self.last
        self.last = now

    def is_alone(self, group: Hashable, now: float) -> bool:
        """Return whether nobody has waited for another group lately."""
        last = self.last_of_others if group == self.group else self.last
        return now - last >= ALONE_AFTER_SECONDS

    def find_next_alone(self, now: float) -> float | None:
        """Return when the next group may be alone; None if any is by now."""
        times = (self.last_of_others + ALONE_AFTER_SECONDS, self.last + ALONE_AFTER_SECONDS)
        return next((at for at in times if at > now), None)


@dataclass(frozen=True, slots=True)
class Lane:
    """The lane in which a key waits."""

    group: Hashable = ""
    """Groups take turns."""
    is_urgent: bool = False
    """Urgent whatever priority it is added with."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a key that is out takes of the bounds of its group and priority."""

    priority: Priority
    group: Hashable


@dataclass(frozen=True, slots=True, eq=False)
class _Place(Generic[K]):
    """A place in a lane. Compared by identity: the same key may have waited there before."""

    key: K
    priority: Priority


class Lanes(Generic[K]):
    """The keys that wait, each once: order and bounds."""

    def __init__(self, lane: Callable[[K], Lane], most_of_group: int | None, contention: Contention) -> None:
        """Bound the keys of one group that are out at once.

        Beside other groups it has `most_of_group` urgent ones, as many normal ones, and one of low priority. Alone it
        has `WIDE_SHARES` times as many together, and all groups together as many of low priority. None: any.
        """
        self._lane = lane
        self._most = most_of_group
        self._contention = contention
        self._waiting: dict[K, _Place[K]] = {}
        """Key -> its place. Any other place of the key is stale: the key has got a higher priority since."""
        self._lanes: dict[Priority, dict[Hashable, deque[_Place[K]]]] = {priority: {} for priority in Priority}
        self._out: dict[Priority, Counter[Hashable]] = {priority: Counter() for priority in Priority}
        self._priority_by_key: dict[K, Priority] = {}
        """Key that is out -> its priority."""
        self._in_a_row = dict.fromkeys(Priority, 0)
        """Priority -> how many keys of a higher one were taken since the last of this one."""

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Drop all keys that wait."""
        self._waiting.clear()
        for lane in self._lanes.values():
            lane.clear()

    def push(self, key: K, priority: Priority = Priority.NORMAL) -> None:
        """Add a key; one that waits already gets the higher one of both priorities."""
        lane = self._lane(key)
        if lane.is_urgent:
            priority = Priority.URGENT
        before = self._waiting.get(key)
        if before is None or priority < before.priority:
            place = self._waiting[key] = _Place(key, priority)
            self._lanes[priority].setdefault(lane.group, deque()).append(place)

    def pop(self, now: float = 0.0) -> K | None:
        """Take the next key at a time in seconds; return None if no key may be taken."""
        overtaken = [priority for priority, most in MOST_IN_A_ROW.items() if self._in_a_row[priority] >= most]
        for priority in (*overtaken, *(priority for priority in Priority if priority not in overtaken)):
            group = self._find_group(priority, now)
            if group is not None:
                return self._take(priority, group)
        return None

    def return_key(self, key: K) -> Room:
        """Return a key that was out. Its room stays taken until `free`."""
        return Room(self._priority_by_key.pop(key), self._lane(key).group)

    def compute_rest(self, room: Room, seconds_out: float, now: float) -> float:
        """Return for how many seconds the room of a key that was out for so long stays taken."""
        if self._most is None or room.priority is not Priority.LOW or self._contention.is_alone(room.group, now):
            return 0.0
        return min(REST * seconds_out, LONGEST_REST_SECONDS)

    def free(self, room: Room) -> bool:
        """Free the room of a key that was returned; return whether another key may be taken for that."""
        out = self._out[room.priority]
        out[room.group] -= 1
        if not out[room.group]:
            del out[room.group]
        return bool(self._waiting) and self._most is not None

    def _has_room(self, priority: Priority, group: Hashable, now: float) -> bool:
        """Return whether one more key of the group may be out."""
        if self._most is None:
            return True
        if priority is Priority.LOW and not self._has_room_for_low():
            return False
        if self._out[priority][group] < (1 if priority is Priority.LOW else self._most):
            return True
        if priority is Priority.URGENT or not self._contention.is_alone(group, now):
            return False
        return sum(out[group] for out in self._out.values()) < WIDE_SHARES * self._most

    def _has_room_for_low(self) -> bool:
        """Return whether one more key of low priority may be out, of whatever group."""
        return self._most is None or self._out[Priority.LOW].total() < WIDE_SHARES * self._most

    def _find_group(self, priority: Priority, now: float) -> Hashable | None:
        lane, empty, next_group = self._lanes[priority], [], None
        if priority is Priority.LOW and not self._has_room_for_low():
            return None  # Of thousands of groups none has room, and each pop would look at all of them.
        for group, places in lane.items():
            while places and self._waiting.get(places[0].key) is not places[0]:
                places.popleft()
            if not places:
                empty.append(group)
            elif self._has_room(priority, group, now):
                next_group = group
                break
        for group in empty:
            del lane[group]
        return next_group

    def _take(self, priority: Priority, group: Hashable) -> K:
        lane = self._lanes[priority]
        places = lane.pop(group)
        key = places.popleft().key
        if places:
            lane[group] = places  # Behind all others: it has had its turn.
        del self._waiting[key]
        self._out[priority][group] += 1
        self._priority_by_key[key] = priority
        self._in_a_row[priority] = 0
        for lower in MOST_IN_A_ROW:
            if lower > priority:
                self._in_a_row[lower] += 1
        return key


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """How many turns a group has. Beside others one that changes what waits already gets fewer."""

    at_once_alone: int = 16
    """More than workers can take: what is changed again while it waits is done once."""
    per_second_alone: float = 160.0

    at_once: int = 10
    """Beside others."""
    burst_per_second: float = 2.0
    """After those at once."""
    burst: int = 50
    """Turns at this rate, those at once included."""
    per_second: float = 0.5
    """After the burst, on average."""
    longest_seconds: float = 16.0
    """Between two turns of a group that goes on changing what waits: from `1 / per_second` on, doubling."""


LOOK_AGAIN_SECONDS = 0.1
"""While edits of a group wait, it is looked so often whether it is alone by now."""
MOST_REMEMBERED = 1000
"""Keys of a group whose last turns are remembered, for the order of those that wait."""


@dataclass(slots=True)
class _Group(Generic[K]):
    """What a group waits for, and what it has had."""

    buckets: tuple[TokenBucket, TokenBucket]
    """Beside others."""
    bucket_alone: TokenBucket
    waiting: dict[K, Callable[[], None]] = field(default_factory=dict)
    """Key -> what to do at its turn."""
    first: set[K] = field(default_factory=set)
    """Of those that wait, the keys that go first."""
    last_turns: dict[K, float] = field(default_factory=dict)
    """Key -> its last turn, the oldest first."""
    last: float = 0.0
    """The last turn."""
    interval: float = 0.0
    """Seconds between two turns, beyond what the buckets ask for."""
    turn_at: float | None = None
    """When the next turn is, which is taken for one of those that wait."""
    has_repeats: bool = False
    """Whether a key that waited has changed again since the last turn."""


class Pace(Generic[K]):
    """Turns for what a tenant may edit without end. Of the keys that wait, the longest without a turn goes first."""

    def __init__(
        self,
        group: Callable[[K], Hashable],
        contention: Contention,
        limits: PaceLimits | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Use the event loop of the first key as clock, unless one is given."""
        self._group = group
        self._contention = contention
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
        self._contention.record(name, now)
        if group.turn_at is not None:
            group.has_repeats |= key in group.waiting
        elif (turn_at := now + self._reserve(name, group, now)) <= now:
            self._record_turn(group, key, now)
            return True
        else:
            group.turn_at = turn_at
            self._look_again(name, clock)
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

    def _take_alone(self, name: Hashable, group: _Group[K], now: float) -> bool:
        """Take a turn that a group has because it is alone; return whether there was one."""
        if not self._contention.is_alone(name, now) or not group.bucket_alone.take(1):
            return False
        for bucket in group.buckets:
            bucket.take(1)  # Nobody waits for it, but it has been had once somebody comes.
        return True

    def _reserve(self, name: Hashable, group: _Group[K], now: float) -> float:
        """Take a turn for the next key, and return after how many seconds it may be used."""
        if self._contention.is_alone(name, now):
            return 0.0 if self._take_alone(name, group, now) else LOOK_AGAIN_SECONDS
        return max(group.last + group.interval - now, *(bucket.reserve() for bucket in group.buckets))

    def _look_again(self, name: Hashable, clock: Clock) -> None:
        """Look at a group that waits at its next turn, or earlier: it may be alone by then."""
        turn_at, now = self._groups[name].turn_at, clock.time()
        if turn_at is not None:
            clock.call_at(min(turn_at, now + LOOK_AGAIN_SECONDS), lambda: self._give_turns(name, clock))

    def _give_turns(self, name: Hashable, clock: Clock) -> None:
        """Give a group's next key its turn if that has come; where the group is alone, to as many as may be ahead."""
        group, now = self._groups[name], clock.time()
        try:
            while group.waiting and self._has_turn(name, group, now):
                key = min(group.waiting, key=lambda k: (k not in group.first, group.last_turns.get(k, 0.0)))
                later = group.waiting.pop(key)
                group.first.discard(key)
                self._adapt_interval(group)
                self._record_turn(group, key, now)
                group.turn_at = now + self._reserve(name, group, now) if group.waiting else None
                later()
        finally:
            if not group.waiting and group.turn_at is not None and group.turn_at <= now:
                group.turn_at = None  # All was withdrawn.
            self._look_again(name, clock)

    def _has_turn(self, name: Hashable, group: _Group[K], now: float) -> bool:
        return group.turn_at is None or group.turn_at <= now or self._take_alone(name, group, now)

    def _adapt_interval(self, group: _Group[K]) -> None:
        first = 1.0 / self._limits.per_second
        if group.has_repeats:
            group.interval = min(max(first, 2.0 * group.interval), self._limits.longest_seconds)
        else:
            group.interval = group.interval / 2.0 if group.interval > first else 0.0
        group.has_repeats = False

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
            self._groups = {
                k: group for k, group in self._groups.items() if group.turn_at is not None or group.last + rest > now
            }
            self._groups[name] = _Group(
                (
                    TokenBucket(limits.burst_per_second, limits.at_once, clock=clock.time),
                    TokenBucket(limits.per_second, limits.burst, clock=clock.time),
                ),
                TokenBucket(limits.per_second_alone, limits.at_once_alone, clock=clock.time),
                last=now,
            )
        group = self._groups[name]
        if group.turn_at is None and group.last + 2.0 * group.interval <= now:
            group.interval = 0.0
        return group
