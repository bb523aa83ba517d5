"""The queue before the models: bounded for each caller and for the tenant, round robin between callers.

A slot is held until its answer ends, so turns alone would let one caller hold all of them for minutes. So a caller has
a share of the slots, and some slots are kept for callers that have none.
"""

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from r1plus_gateway.serving.errors import ModelUnavailableError, QueueFullError

RESERVED_PART: Final = 4
"""One slot of so many is kept for callers that have none. A model with fewer slots keeps none."""
_Ticket = asyncio.Future[None]


@dataclass(slots=True)
class _Lane:
    capacity: int = 0
    running_of: Counter[str] = field(default_factory=Counter)
    """Caller -> its requests that hold a slot."""
    waiting: OrderedDict[str, deque[_Ticket]] = field(default_factory=OrderedDict)
    """Caller -> tickets, the oldest first; the caller whose turn is next comes first."""

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return self.running_of.total()

    def has_slot(self, caller: str) -> bool:
        """Return whether a request of this caller may take a slot now."""
        mine, running = self.running_of[caller], self.running
        if not mine:
            return running < self.capacity
        if running >= self.capacity - self.capacity // RESERVED_PART:
            return False
        callers = len(self.running_of.keys() | self.waiting.keys())
        return mine < math.ceil(self.capacity / callers)


class FairQueue:
    """One lane for each model; the bounds hold over all lanes."""

    def __init__(self, read_bounds: Callable[[], tuple[int, int]]) -> None:
        """`read_bounds` returns the most waiting requests of one caller, and of all together."""
        self._read_bounds = read_bounds
        self._lanes: dict[str, _Lane] = {}
        self._waiting_of: dict[str, int] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Requests that wait, in all lanes."""
        return self._waiting

    def count_slots(self, model: str) -> int:
        """Return how many requests of a model run at once."""
        return self._lanes[model].capacity if model in self._lanes else 0

    def count_running(self, model: str) -> int:
        """Return how many requests of a model hold a slot."""
        return self._lanes[model].running if model in self._lanes else 0

    def count_waiting(self, model: str) -> int:
        """Return how many requests of a model wait for a slot."""
        return sum(map(len, self._lanes[model].waiting.values())) if model in self._lanes else 0

    def set_capacity(self, model: str, capacity: int) -> None:
        """Let so many requests of a model run at once; those that run stay."""
        lane = self._lanes.setdefault(model, _Lane())
        lane.capacity = capacity
        self._grant(lane)

    def check_room(self, model: str, caller: str) -> None:
        """Raise QueueFullError if a request would be refused now: before anything is reserved for it."""
        lane = self._lanes.setdefault(model, _Lane())
        if lane.has_slot(caller):
            return
        per_caller, per_tenant = self._read_bounds()
        mine = self._waiting_of.get(caller, 0)
        if mine >= per_caller:
            raise QueueFullError(f"{mine} of your requests wait already, which is the most; wait for answers")
        if self._waiting >= per_tenant:
            raise QueueFullError(f"{self._waiting} requests wait already, which is the most; try again later")

    def refuse_waiting(self, model: str) -> None:
        """Refuse all that wait for this model: its pods are gone, or are elsewhere now."""
        lane = self._lanes.setdefault(model, _Lane())
        for caller, tickets in lane.waiting.items():
            for ticket in tickets:
                if not ticket.done():
                    self._count(caller, -1)
                    ticket.set_exception(ModelUnavailableError(f"{model} is served elsewhere now; try again"))
        lane.waiting.clear()

    async def enter(self, model: str, caller: str) -> None:
        """Wait for a slot; `leave` gives it back.

        Raises:
            QueueFullError: a bound is reached.
            ModelUnavailableError: the model is gone meanwhile.
        """
        self.check_room(model, caller)
        lane = self._lanes[model]
        if lane.has_slot(caller):  # then no caller that waits may take it: it would have it already
            lane.running_of[caller] += 1
            return
        ticket: _Ticket = asyncio.get_running_loop().create_future()
        lane.waiting.setdefault(caller, deque()).append(ticket)
        self._count(caller, 1)
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():
                if ticket.exception() is None:
                    self.leave(model, caller)  # granted and cancelled in the same moment
            else:
                self._withdraw(lane, caller, ticket)
            raise

    def leave(self, model: str, caller: str) -> None:
        """Give a slot back."""
        lane = self._lanes[model]
        lane.running_of[caller] -= 1
        if not lane.running_of[caller]:
            del lane.running_of[caller]
        self._grant(lane)

    def _grant(self, lane: _Lane) -> None:
        """Give free slots to those whose turn it is and whose share is not used up."""
        while lane.running < lane.capacity and (caller := next(filter(lane.has_slot, lane.waiting), None)) is not None:
            tickets = lane.waiting[caller]
            ticket = tickets.popleft()
            lane.waiting.move_to_end(caller)
            if not tickets:
                del lane.waiting[caller]
            if ticket.done():
                continue  # cancelled: it is withdrawn when its task runs
            self._count(caller, -1)
            lane.running_of[caller] += 1
            ticket.set_result(None)

    def _withdraw(self, lane: _Lane, caller: str, ticket: _Ticket) -> None:
        self._count(caller, -1)
        tickets = lane.waiting.get(caller)
        if tickets is not None and ticket in tickets:
            tickets.remove(ticket)
            if not tickets:
                del lane.waiting[caller]
                self._grant(lane)  # the others' shares are larger now

    def _count(self, caller: str, change: int) -> None:
        self._waiting += change
        count = self._waiting_of.get(caller, 0) + change
        if count:
            self._waiting_of[caller] = count
        else:
            self._waiting_of.pop(caller, None)
