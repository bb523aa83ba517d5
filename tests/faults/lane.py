"""What happened in one tenant's namespace during one run: the trace that is learned, and the fault that is injected."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import orjson

from faults.calls import LASTS, OF_EVENTS, SOON_SECONDS, Call, Event, Fault, Json, Point
from r1plus_contract import names

Trace = Counter[tuple[str, str]]
"""(phase, what) -> how often."""
OVERTAKERS = (1, 2, 5, 10)
"""Writes of the tenant that overtake one that is held up; a phase has up to ten."""
PINNED_SECONDS = 600.0
"""For which one is held up that is to land in a certain phase."""


@dataclass
class Lane:
    """One run in one namespace."""

    namespace: str
    point: Point | None = None
    phase: str = "create"
    writes: Trace = field(default_factory=Counter)
    events: Trace = field(default_factory=Counter)
    created: Counter[str] = field(default_factory=Counter)
    deleted: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    """Events written, by their name in the cluster: none may come twice."""
    problems: list[str] = field(default_factory=list)
    passed: set[str] = field(default_factory=set)
    """Revisions whose gate has been passed so far."""
    fired_at: float | None = None
    converged: float | None = None
    """Seconds from the heal to the operator's last sign before it came to rest."""
    last_sign: float = 0.0
    """When the operator last wrote, had an answer, or was shown an event."""
    under_way: int = 0
    """Writes that have not been answered."""
    broken_by: str = ""
    """The write that came since the last `hush`, unless an event came before it."""
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the first sign since the last `hush`."""
    held: Call | None = None
    """A write on its way that others may overtake."""
    lands_in: str = ""
    """The phase in whose first answer to a write it is done; else when so many writes have overtaken it."""
    lands_after: int = 1
    landed: asyncio.Event = field(default_factory=asyncio.Event)
    isolated: bool = False
    late: bool = False
    """Whether something did not come in time."""

    @property
    def unreached(self) -> bool:
        """Whether the point never came."""
        return self.point is not None and self.fired_at is None

    def request(self, call: Call) -> Fault | None:
        """Count a write; the fault if this is the point."""
        key = (self.phase, call.what)
        self.writes[key] += 1
        self.under_way += 1
        self._sign(call.what)
        return self._fault(key, self.writes[key], of_events=False)

    def read(self) -> None:
        """The operator reads: a pass is under way, and may write yet."""
        self._sign()

    def over(self) -> None:
        """A write has been answered, or never will be."""
        self.under_way -= 1
        self.last_sign = asyncio.get_running_loop().time()

    def event(self, event: Event) -> Fault | None:
        """Count a watch event; the fault if this is the point."""
        key = (self.phase, event.what)
        self.events[key] += 1
        self._sign()
        return self._fault(key, self.events[key], of_events=True)

    async def overtaken(self, call: Call) -> None:
        """Until a write that is held up lands, at the latest when nothing overtakes it."""
        if call.makes:
            # Of a new object nothing else is written for minutes, though here within seconds: no write is kept so long.
            await asyncio.sleep(SOON_SECONDS)
            return
        self.held = call
        with suppress(TimeoutError):
            await asyncio.wait_for(self.landed.wait(), PINNED_SECONDS if self.lands_in else LASTS[Fault.OVERTAKEN])
        self.held = None

    def _overtake(self, call: Call) -> None:
        """A write was done; whether it overtook the one that is held."""
        held = self.held
        if held is None or (call.target == held.target and call.body == held.body):
            return
        if self.lands_in:
            lands = self.phase == self.lands_in
        else:
            self.lands_after -= 1
            lands = self.lands_after <= 0
        if lands:
            self.landed.set()

    def hush(self) -> None:
        """From now on it should be silent."""
        self.broken_by = ""
        self.stirred.clear()

    def _sign(self, written: str = "") -> None:
        self.last_sign = asyncio.get_running_loop().time()
        if not self.stirred.is_set():
            self.broken_by = written
            self.stirred.set()

    def calmed(self) -> None:
        """The operator has come to rest; if that is the first time since the fault, so long did it take."""
        if self.point is not None and self.fired_at is not None and self.converged is None:
            self.converged = max(0.0, self.last_sign - self.fired_at - LASTS.get(self.point.fault, 0.0))

    def done(self, call: Call, status: int, body: bytes) -> None:
        """Count what was made and removed, and look whether a promise was broken at any instant."""
        self._overtake(call)
        thing = call.what.split(" ", 1)[1]
        if status == 201 and call.plural == "events":
            self.told[call.name] += 1
        elif status == 201:
            self.created[thing] += 1
        elif status == 200 and call.verb == "delete":
            self.deleted[thing] += 1
        if call.plural == "networkpolicies" and status in (200, 201):
            self.isolated = True
        if call.plural == "deployments" and status == 201 and not self.isolated:
            self.problems.append(f"{thing} was made before its walls")
        if call.plural == "services" and status in (200, 201):
            self._check_switch(orjson.loads(body))

    def _check_switch(self, service: Json) -> None:
        chosen, name = service["spec"]["selector"].get(names.LABEL_REVISION, ""), service["metadata"]["name"]
        passed = {revision for revision in self.passed if revision.rpartition("-")[0] == name}
        if passed and chosen not in passed:  # a first revision is selected from the start; its pods are not Ready
            self.problems.append(f"traffic went to {chosen}, which has not passed its gate")

    def _fault(self, key: tuple[str, str], nth: int, *, of_events: bool) -> Fault | None:
        point = self.point
        if point is None or self.fired_at is not None or (point.fault in OF_EVENTS) is not of_events:
            return None
        if (point.phase, point.what, point.nth) != (*key, nth):
            return None
        self.fired_at = asyncio.get_running_loop().time()
        return point.fault


class Traffic:
    """The proxy's director: one lane per namespace, and rules for whole kinds that a single scenario sets."""

    def __init__(self, seed: int) -> None:
        self.lanes: dict[str, Lane] = {}
        self.rule: Callable[[Call], Fault | None] = lambda _: None
        """A rule that comes before the lanes'."""
        self.restart: Callable[[], Awaitable[None]] | None = None
        self.writers: list[str] = []
        """Who wrote, in turn; one that writes on is named once."""
        self.released = asyncio.Event()
        self._rand = random.Random(seed)

    def request(self, call: Call) -> Fault | None:
        """See `Director`."""
        fault = self.rule(call)
        lane = self.lanes.get(call.namespace)
        if lane is not None and call.verb in ("get", "list"):
            lane.read()
        if lane is None or not call.is_write:
            return fault
        if self.writers[-1:] != [call.agent]:
            self.writers.append(call.agent)
        return lane.request(call) or fault

    def over(self, call: Call) -> None:
        """See `Director`."""
        lane = self.lanes.get(call.namespace)
        if lane is not None and call.is_write:
            lane.over()

    def event(self, event: Event) -> Fault | None:
        """See `Judge`."""
        lane = self.lanes.get(event.namespace)
        return lane.event(event) if lane else None

    def jitter(self) -> float:
        """Most events come at once, some a little later: never in the same order twice."""
        return self._rand.choice((0.0, 0.0, 0.0, 0.02, 0.1))

    def done(self, call: Call, status: int, body: bytes) -> None:
        """See `Director`."""
        if (lane := self.lanes.get(call.namespace)) is not None:
            lane.done(call, status, body)

    async def overtaken(self, call: Call) -> None:
        """See `Director`."""
        lane = self.lanes[call.namespace]
        lane.lands_after = self._rand.choice(OVERTAKERS)
        await lane.overtaken(call)

    async def kill(self) -> None:
        """See `Director`."""
        assert self.restart is not None
        # Sometimes at once, sometimes when the writes beside this one have been done, too.
        await asyncio.sleep(self._rand.choice((0.0, 0.005, 0.05)))
        await self.restart()
