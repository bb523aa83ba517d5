"""Tells the registry what was observed: level-triggered, beside the passes, and nobody waits for it.

The reconciler says after a pass whose state was looked at (`noticed`, which only remembers the key). A task of main
looks at those again, takes what is not known to be recorded, and delivers it; what could not be delivered stays. Facts
that wait are bounded in number: beyond that a key just stays noticed, and its facts are found again where the cluster
keeps them. A restart begins with everything noticed, and recording is idempotent, so nothing needs to be remembered.
"""

import asyncio
import hashlib
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from r1plus_contract.history import (
    MOST_BODY_BYTES,
    AlarmFact,
    DeploymentFact,
    EngineFact,
    EvaluationFact,
    Facts,
    RevisionFact,
    RolloutFact,
    SuiteFact,
)
from r1plus_contract.jsonable import dumps
from r1plus_operator.observe.observer import CATALOG_KEY, Key
from r1plus_operator.observe.projections import EngineObject
from r1plus_operator.plan.observation import Json, NamespaceFacts, Observation
from r1plus_operator.plan.revision import registry_facts as told
from r1plus_operator.registry.client import Courier, DeliveryError, RefusedError

log = logging.getLogger(__name__)
MOST_WAITING = 20_000
"""Facts that wait for the service: of a kilobyte each at most, most of them a third of that."""
AT_ONCE = 200
"""Facts in a delivery."""
BYTES_AT_ONCE = MOST_BODY_BYTES // 2
"""Of those facts; the deployments that go along with them have room in the other half."""
LOOKED_AT_ONCE = 20
"""Deployments that are looked at before passes get their turn again."""
GATHER_SECONDS = 1.0
"""A rollout causes several passes: their facts go together."""
SETTLE_SECONDS = 30.0
"""From the start to the first list of what lives: kopf's first events have come by then."""
AGAIN_SECONDS = 3600.0
"""Everything is delivered again that often: a database may have been restored from a backup."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 30.0

Item = DeploymentFact | EngineFact | SuiteFact | RevisionFact | EvaluationFact | RolloutFact | AlarmFact
_FIELDS = {
    DeploymentFact: "deployments",
    EngineFact: "engines",
    SuiteFact: "suites",
    RevisionFact: "revisions",
    EvaluationFact: "evaluations",
    RolloutFact: "rollouts",
    AlarmFact: "alarms",
}


class World(Protocol):
    """Of `observe.Observer`, what is looked at."""

    crs: dict[Key, Json]

    def observed(self, key: Key) -> Observation | None:
        """Everything about one CR."""

    def namespace(self, name: str) -> NamespaceFacts | None:
        """A namespace; None where it is not known."""

    def catalog(self) -> Sequence[EngineObject]:
        """Every R1PlusEngine as it lies in the cluster, and read."""


class Meter(Protocol):
    """Of `instruments.Instruments`, what is told."""

    def delivered(self, count: int) -> None:
        """So many facts are recorded."""

    def refused(self, count: int) -> None:
        """So many facts cannot be recorded, ever."""

    def waiting(self, count: int) -> None:
        """So many facts wait."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A fact, and the deployment that it needs to be known first."""

    item: Item
    owner: DeploymentFact | None
    size: int
    """Bytes of the item in a delivery."""


class Historian:
    """Notices, gathers, delivers."""

    def __init__(
        self,
        world: World,
        shipped: frozenset[str],
        meter: Meter,
        rand: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`shipped`: digests of the suites that this version ships."""
        self._world = world
        self._shipped = shipped
        self._meter = meter
        self._rand = rand
        self._clock = clock
        self._noticed: dict[Key, None] = {CATALOG_KEY: None}
        self._wake = asyncio.Event()
        self._waiting: dict[int, _Waiting] = {}
        self._recorded: dict[str, set[int]] = {}
        """uid -> fingerprints of its facts that are recorded, of those that can still be seen."""
        self._shared: set[int] = set()
        """Of engines and suites."""
        self._lives: frozenset[str] | None = None
        """What the registry was told last."""
        self._retry = FIRST_RETRY_SECONDS
        self._problem = ""

    def noticed(self, key: Key) -> None:
        """This one was looked at; its facts are due. Costs nothing, waits for nothing."""
        self._noticed[key] = None
        self._wake.set()

    @property
    def backlog(self) -> int:
        """Facts that wait."""
        return len(self._waiting)

    async def run(self, courier: Courier) -> None:
        """For ever."""
        began = renewed = self._clock()
        due = began
        while True:
            await self._woken(due)
            await self.gather()
            now = self._clock()
            if now - renewed >= AGAIN_SECONDS:
                renewed = now
                self.forget()
            if now >= due:
                due = now + await self.deliver(courier, tell_lives=now - began >= SETTLE_SECONDS)

    async def _woken(self, due: float) -> None:
        """Until there is something to look at or to deliver, and a little longer, for what belongs to it."""
        left = max(due - self._clock(), 0.0)
        try:
            # No `wait_for`: until Python 3.12 it forgets that it was cancelled where the event has just been set.
            async with asyncio.timeout(min(left or SETTLE_SECONDS, SETTLE_SECONDS)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
        await asyncio.sleep(GATHER_SECONDS)

    def forget(self) -> None:
        """Take nothing for recorded."""
        self._recorded.clear()
        self._shared.clear()
        self._lives = None
        self._noticed.update(dict.fromkeys((CATALOG_KEY, *self._world.crs)))

    async def gather(self) -> None:
        """Look at whom a pass looked at, as far as there is room for what is found."""
        for number, key in enumerate(list(self._noticed)):
            if len(self._waiting) >= MOST_WAITING:
                log.debug("%d facts wait for the registry, others stay in the cluster", len(self._waiting))
                break
            del self._noticed[key]
            self._look_at(key)
            if number % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1:
                await asyncio.sleep(0)
        self._meter.waiting(len(self._waiting))

    def _look_at(self, key: Key) -> None:
        """Whatever is wrong with one object keeps nobody else's facts back, and ends no operator."""
        try:
            self._look(key)
        except Exception:
            log.exception("Facts of %s/%s could not be collected for the registry", *key)

    def _look(self, key: Key) -> None:
        if key == CATALOG_KEY:
            for found in self._world.catalog():
                if found.engine is not None:
                    self._await(self._shared, told.build_engine_fact(found.engine, found.live), None)
            return
        observed = self._world.observed(key)
        if observed is None:
            return
        owner = told.build_deployment_fact(observed.cr, self._world.namespace(key[0]))
        facts = told.collect_facts(observed)
        recorded = self._recorded.setdefault(owner.uid, set())
        recorded &= {_fingerprint(item) for item in (owner, *facts)}
        hashes = {fact.report.suite_hash for fact in facts if isinstance(fact, EvaluationFact)}
        for suite in told.collect_suite_facts(observed, self._shipped, hashes):
            self._await(self._shared, suite, None)
        for item in (owner, *facts):
            self._await(recorded, item, owner)

    def _await(self, recorded: set[int], item: Item, owner: DeploymentFact | None) -> None:
        key = _fingerprint(item)
        if key not in recorded and key not in self._waiting:
            self._waiting[key] = _Waiting(item, owner, len(dumps(item).encode()))

    async def deliver(self, courier: Courier, *, tell_lives: bool) -> float:
        """Deliver what waits; for how long to wait before the next try, 0 after success."""
        try:
            while self._waiting:
                await self._deliver_some(courier, self._first())
                self._meter.waiting(len(self._waiting))
            if tell_lives:
                await self._tell_lives(courier)
        except DeliveryError as error:
            self._tell(str(error))
            delay, self._retry = self._retry, min(self._retry * 2, LAST_RETRY_SECONDS)
            return delay * self._rand.uniform(0.8, 1.2)
        self._tell("")
        self._retry = FIRST_RETRY_SECONDS
        if self._noticed:
            self._wake.set()  # There was no room for them, and there is now.
        return 0.0

    def _first(self) -> list[int]:
        """What goes into the next delivery, at least one."""
        chosen: list[int] = []
        room = BYTES_AT_ONCE
        for key, waiting in itertools.islice(self._waiting.items(), AT_ONCE):
            room -= waiting.size
            if chosen and room < 0:
                break
            chosen.append(key)
        return chosen

    async def _deliver_some(self, courier: Courier, keys: list[int]) -> None:
        """Those of these that can be recorded; one that cannot holds up no other."""
        chosen = [self._waiting[key] for key in keys]
        try:
            await courier.deliver(_document(chosen))
        except RefusedError as error:
            if len(keys) > 1:
                half = len(keys) // 2
                await self._deliver_some(courier, keys[:half])
                await self._deliver_some(courier, keys[half:])
                return
            log.warning("Registry refused a %s, which stays unrecorded: %s", type(chosen[0].item).__name__, error)
            self._meter.refused(1)
        else:
            self._meter.delivered(len(keys))
        for key in keys:
            self._settle(key)

    def _settle(self, key: int) -> None:
        """It waits no more; and is not sent again as long as it can be seen."""
        owner = self._waiting.pop(key).owner
        if owner is None:
            self._shared.add(key)
        elif (recorded := self._recorded.get(owner.uid)) is not None:
            recorded.add(key)

    async def _tell_lives(self, courier: Courier) -> None:
        """Which deployments there are: every other one has ended."""
        lives = frozenset(str(cr["metadata"]["uid"]) for cr in self._world.crs.values())
        if lives == self._lives:
            return
        try:
            await courier.deliver(Facts(live=tuple(sorted(lives))))
        except RefusedError as error:
            log.warning("Registry refused the list of existing objects: %s", error)
        self._lives = lives
        for uid in self._recorded.keys() - lives:
            del self._recorded[uid]

    def _tell(self, problem: str) -> None:
        """Log it once, and its end."""
        if problem and not self._problem:
            log.warning("Registry does not record, facts wait and serving goes on: %s", problem)
        elif self._problem and not problem:
            log.info("Registry records again")
        self._problem = problem


def _document(chosen: Iterable[_Waiting]) -> Facts:
    """One delivery; each fact's deployment comes with it, since the registry may not know it yet."""
    items: dict[str, dict[int, Any]] = {field.name: {} for field in fields(Facts) if field.name != "live"}
    for one in chosen:
        for item in (one.owner, one.item):
            if item is not None:
                items[_FIELDS[type(item)]][_fingerprint(item)] = item
    return Facts(**{name: tuple(found.values()) for name, found in items.items()})


def _fingerprint(item: Item) -> int:
    """Tells facts apart; the same fact has the same one in every look."""
    text = f"{type(item).__name__} {dumps(item)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
