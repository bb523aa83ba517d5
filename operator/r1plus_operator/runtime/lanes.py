"""Order of the keys that wait: by priority, within a priority the groups in turn, each in its own order.

A group that adds keys without end delays the others by one key each time. Keys of a higher priority without end delay
the others by a few. While others work, what comes in bulk rests between two keys: the writes of a pass that is under
way delay all others at the API server, whatever the order. With one group and one priority this is a plain queue.
Called by the work queue, from one event loop only.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


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

LOW_SHARES = 3
"""Keys of low priority that all groups together have out, as a multiple of what one group may have."""
REST = 3.0
"""After a key of low priority its room stays taken, for so many times the seconds that the key was out."""
LONGEST_REST_SECONDS = 1.0
"""Longer ones would wait for an API server that does not answer."""
REST_FOR_SECONDS = 60.0
"""Keys of low priority rest for so long after the last key of another group that somebody waited for."""


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


@dataclass(slots=True)
class _Activity:
    """When somebody last waited for a key, and when last for one of another group than that."""

    group: Hashable = None
    last: float = -math.inf
    last_of_others: float = -math.inf

    def record(self, group: Hashable, now: float) -> None:
        if group != self.group:
            self.group, self.last_of_others = group, self.last
        self.last = now

    def find_last_beside(self, group: Hashable) -> float:
        """Return when it was last for a key of a group other than this one."""
        return self.last_of_others if group == self.group else self.last


@dataclass(frozen=True, slots=True, eq=False)
class _Place(Generic[K]):
    """A place in a lane. Compared by identity: the same key may have waited there before."""

    key: K
    priority: Priority


class Lanes(Generic[K]):
    """The keys that wait, each once."""

    def __init__(self, lane: Callable[[K], Lane], most_of_group: int | None) -> None:
        """Bound the keys of one group that are out at once by `most_of_group`, and its urgent ones as well.

        Of low priority a group has one out, and all groups together `LOW_SHARES` times `most_of_group`. None: any.
        """
        self._lane = lane
        self._most = most_of_group
        self._waiting: dict[K, _Place[K]] = {}
        """Key -> its place. Any other place of the key is stale: the key has got a higher priority since."""
        self._lanes: dict[Priority, dict[Hashable, deque[_Place[K]]]] = {priority: {} for priority in Priority}
        self._out: dict[Priority, Counter[Hashable]] = {priority: Counter() for priority in Priority}
        self._priority_by_key: dict[K, Priority] = {}
        """Key that is out -> its priority."""
        self._in_a_row = dict.fromkeys(Priority, 0)
        """Priority -> how many keys of a higher one were taken since the last of this one."""
        self._activity = _Activity()

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
            group = self._find_group(priority)
            if group is not None:
                if priority is not Priority.LOW:
                    self._activity.record(group, now)
                return self._take(priority, group)
        return None

    def return_key(self, key: K) -> Room:
        """Return a key that was out. Its room stays taken until `free`."""
        return Room(self._priority_by_key.pop(key), self._lane(key).group)

    def compute_rest(self, room: Room, seconds_out: float, now: float) -> float:
        """Return for how many seconds the room of a key that was out for so long stays taken."""
        if self._most is None or room.priority is not Priority.LOW:
            return 0.0
        if now - self._activity.find_last_beside(room.group) > REST_FOR_SECONDS:
            return 0.0  # Nobody else would have anything of it.
        return min(REST * seconds_out, LONGEST_REST_SECONDS)

    def free(self, room: Room) -> bool:
        """Free the room of a key that was returned; return whether another key may be taken for that."""
        priority, group = room.priority, room.group
        out, lane = self._out[priority], self._lanes[priority]
        was_full = not self._has_room(priority, group)
        out[group] -= 1
        if not out[group]:
            del out[group]
        return was_full and (bool(lane) if priority is Priority.LOW else group in lane)

    def _has_room(self, priority: Priority, group: Hashable) -> bool:
        """Return whether one more key of the group may be out."""
        if self._most is None:
            return True
        out = self._out[priority]
        if priority is Priority.LOW:
            return not out[group] and self._has_room_for_low()
        return out[group] < self._most

    def _has_room_for_low(self) -> bool:
        """Return whether one more key of low priority may be out, of whatever group."""
        return self._most is None or self._out[Priority.LOW].total() < LOW_SHARES * self._most

    def _find_group(self, priority: Priority) -> Hashable | None:
        lane, empty, next_group = self._lanes[priority], [], None
        if priority is Priority.LOW and not self._has_room_for_low():
            return None  # Of thousands of groups none has room, and each pop would look at all of them.
        for group, places in lane.items():
            while places and self._waiting.get(places[0].key) is not places[0]:
                places.popleft()
            if not places:
                empty.append(group)
            elif self._has_room(priority, group):
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
