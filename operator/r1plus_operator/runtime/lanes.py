"""In which order keys that wait are taken: what is urgent first, then the groups in turn, each in its own order.

One group that adds keys without end delays the others by one key each time, and no more; and urgent keys without end,
somebody's who knows how to make some, delay the others by a few. With one group and nothing urgent this is a plain
queue. Called by the work queue, from one event loop only.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
URGENT_IN_A_ROW = 3
"""So many urgent keys are taken before one that is not, where such a one waits."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Where a key waits."""

    group: Hashable = ""
    """Whose turn it is when it is taken."""
    at_once: bool = False
    """Before everything that is not."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place(Generic[K]):
    """Told apart by identity: the same key may have waited there before."""

    key: K
    urgent: bool


class Lanes(Generic[K]):
    """The keys that wait. None of them twice."""

    def __init__(self, lane: Callable[[K], Lane], most_of_group: int | None) -> None:
        """`most_of_group`: so many keys of one group may be out at once, and as many urgent ones; None: any number."""
        self._lane = lane
        self._most = most_of_group
        self._waiting: dict[K, _Place[K]] = {}
        """Key -> where it waits. Another place of the same key is of the past: it has become urgent since."""
        self._lanes: dict[bool, dict[Hashable, deque[_Place[K]]]] = {True: {}, False: {}}
        self._out: dict[bool, Counter[Hashable]] = {True: Counter(), False: Counter()}
        self._taken: dict[K, bool] = {}
        """Key that is out -> whether it was urgent."""
        self._in_a_row = 0
        """Urgent keys that were taken one after the other."""

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()
        for lane in self._lanes.values():
            lane.clear()

    def push(self, key: K, *, at_once: bool = False) -> None:
        """The key waits; one that waited already may have become urgent by it."""
        lane = self._lane(key)
        urgent = at_once or lane.at_once
        before = self._waiting.get(key)
        if before is None or (urgent and not before.urgent):
            place = self._waiting[key] = _Place(key, urgent)
            self._lanes[urgent].setdefault(lane.group, deque()).append(place)

    def pop(self) -> K | None:
        """Take the next key; None where none may be taken."""
        for urgent in (True, False) if self._in_a_row < URGENT_IN_A_ROW else (False, True):
            group = self._next_group(urgent)
            if group is not None:
                return self._take(urgent, group)
        return None

    def put_back(self, key: K) -> bool:
        """A key that was out has been dealt with; whether it made room for another of its group."""
        urgent, group = self._taken.pop(key), self._lane(key).group
        out = self._out[urgent]
        was_full = self._most is not None and out[group] >= self._most
        out[group] -= 1
        if not out[group]:
            del out[group]
        return was_full and group in self._lanes[urgent]

    def _next_group(self, urgent: bool) -> Hashable | None:
        lane, empty, found = self._lanes[urgent], [], None
        for group, places in lane.items():
            while places and self._waiting.get(places[0].key) is not places[0]:
                places.popleft()
            if not places:
                empty.append(group)
            elif self._most is None or self._out[urgent][group] < self._most:
                found = group
                break
        for group in empty:
            del lane[group]
        return found

    def _take(self, urgent: bool, group: Hashable) -> K:
        lane = self._lanes[urgent]
        places = lane.pop(group)
        key = places.popleft().key
        if places:
            lane[group] = places  # Behind all others: it has had its turn.
        del self._waiting[key]
        self._out[urgent][group] += 1
        self._taken[key] = urgent
        self._in_a_row = self._in_a_row + 1 if urgent else 0
        return key
