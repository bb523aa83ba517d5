"""Order of the keys that wait: urgent ones first, then the groups in turn, each in its own order.

A group that adds keys without end delays the others by one key each time. Urgent keys without end delay the others by
a few. With one group and nothing urgent this is a plain queue. Called by the work queue, from one event loop only.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
URGENT_IN_A_ROW = 3
"""Urgent keys in a row, before one that is not urgent is taken."""


@dataclass(frozen=True, slots=True)
class Lane:
    """The lane in which a key waits."""

    group: Hashable = ""
    """Groups take turns."""
    is_urgent: bool = False
    """Taken before everything that is not urgent."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place(Generic[K]):
    """A place in a lane. Compared by identity: the same key may have waited there before."""

    key: K
    is_urgent: bool


class Lanes(Generic[K]):
    """The keys that wait, each once."""

    def __init__(self, lane: Callable[[K], Lane], most_of_group: int | None) -> None:
        """Bound the keys of one group that are out at once by `most_of_group`, and its urgent ones as well.

        None: any.
        """
        self._lane = lane
        self._most = most_of_group
        self._waiting: dict[K, _Place[K]] = {}
        """Key -> its place. Any other place of the key is stale: the key has become urgent since."""
        self._lanes: dict[bool, dict[Hashable, deque[_Place[K]]]] = {True: {}, False: {}}
        self._out: dict[bool, Counter[Hashable]] = {True: Counter(), False: Counter()}
        self._urgency_by_key: dict[K, bool] = {}
        """Key that is out -> whether it was urgent."""
        self._in_a_row = 0
        """Urgent keys that were taken in a row."""

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Drop all keys that wait."""
        self._waiting.clear()
        for lane in self._lanes.values():
            lane.clear()

    def push(self, key: K, *, urgent: bool = False) -> None:
        """Add a key; one that waits already becomes urgent if `urgent` or its lane says so."""
        lane = self._lane(key)
        is_urgent = urgent or lane.is_urgent
        before = self._waiting.get(key)
        if before is None or (is_urgent and not before.is_urgent):
            place = self._waiting[key] = _Place(key, is_urgent)
            self._lanes[is_urgent].setdefault(lane.group, deque()).append(place)

    def pop(self) -> K | None:
        """Take the next key; return None if no key may be taken."""
        for is_urgent in (True, False) if self._in_a_row < URGENT_IN_A_ROW else (False, True):
            group = self._find_group(is_urgent)
            if group is not None:
                return self._take(is_urgent, group)
        return None

    def return_key(self, key: K) -> bool:
        """Return a key that was out; return whether that makes room for another key of its group."""
        is_urgent, group = self._urgency_by_key.pop(key), self._lane(key).group
        out = self._out[is_urgent]
        was_full = self._most is not None and out[group] >= self._most
        out[group] -= 1
        if not out[group]:
            del out[group]
        return was_full and group in self._lanes[is_urgent]

    def _find_group(self, is_urgent: bool) -> Hashable | None:
        lane, empty, next_group = self._lanes[is_urgent], [], None
        for group, places in lane.items():
            while places and self._waiting.get(places[0].key) is not places[0]:
                places.popleft()
            if not places:
                empty.append(group)
            elif self._most is None or self._out[is_urgent][group] < self._most:
                next_group = group
                break
        for group in empty:
            del lane[group]
        return next_group

    def _take(self, is_urgent: bool, group: Hashable) -> K:
        lane = self._lanes[is_urgent]
        places = lane.pop(group)
        key = places.popleft().key
        if places:
            lane[group] = places  # Behind all others: it has had its turn.
        del self._waiting[key]
        self._out[is_urgent][group] += 1
        self._urgency_by_key[key] = is_urgent
        self._in_a_row = self._in_a_row + 1 if is_urgent else 0
        return key
