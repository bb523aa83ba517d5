"""Recorder of facts for the registry: level-triggered, in a task of its own, and no pass waits for it.

After a pass the reconciler calls `mark_dirty`, which only stores the key. A task of main observes these keys again,
collects the facts that are not known to be recorded, and delivers them; facts that could not be delivered stay. Their
number is bounded: beyond it a key stays dirty, and its facts are collected later from the cluster. After a restart
everything is dirty; recording is idempotent, so no state is stored.
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
from r1plus_operator.observe.keys import CATALOG, CatalogKey, DeploymentKey
from r1plus_operator.observe.projections import EngineObject
from r1plus_operator.plan.observation import Json, NamespaceFacts, Observation
from r1plus_operator.plan.revision import registry_facts
from r1plus_operator.registry.client import DeliveryError, FactRefusedError, RegistrySink

log = logging.getLogger(__name__)
MOST_WAITING = 20_000
"""Facts that wait for the service: at most a kilobyte each, most of them a third of that."""
AT_ONCE = 200
"""Facts in a delivery."""
BYTES_AT_ONCE = MOST_BODY_BYTES // 2
"""Bytes of these facts; the other half of a body has room for their deployments."""
LOOKED_AT_ONCE = 20
"""Deployments that are observed before passes get their turn again."""
GATHER_SECONDS = 1.0
"""A rollout causes several passes: their facts go together."""
SETTLE_SECONDS = 30.0
"""From the start to the first list of live deployments: kopf's first events have come by then."""
AGAIN_SECONDS = 3600.0
"""How often everything is delivered again: a database may have been restored from a backup."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 30.0

Item = DeploymentFact | EngineFact | SuiteFact | RevisionFact | EvaluationFact | RolloutFact | AlarmFact
RecordedKey = DeploymentKey | CatalogKey
"""Keys whose passes bring facts."""
_FIELDS = {
    DeploymentFact: "deployments",
    EngineFact: "engines",
    SuiteFact: "suites",
    RevisionFact: "revisions",
    EvaluationFact: "evaluations",
    RolloutFact: "rollouts",
    AlarmFact: "alarms",
}


class FactSource(Protocol):
    """What the recorder reads; `observe.Observer` has it."""

    crs: dict[DeploymentKey, Json]

    def observe(self, key: DeploymentKey) -> Observation | None:
        """Return everything about one CR; None if it is gone."""

    def find_namespace(self, name: str) -> NamespaceFacts | None:
        """Return a namespace; None if it is not known."""

    def list_engines(self) -> Sequence[EngineObject]:
        """Return every R1PlusEngine, as it is in the cluster and parsed."""


class FactMetrics(Protocol):
    """What the recorder counts with; `metrics.OperatorMetrics` has it."""

    def count_delivered(self, count: int) -> None:
        """Count facts that are recorded."""

    def count_refused(self, count: int) -> None:
        """Count facts that can never be recorded."""

    def set_waiting(self, count: int) -> None:
        """Set how many facts wait."""


@dataclass(frozen=True, slots=True)
class _PendingFact:
    """A fact, and the deployment that the registry must know first."""

    item: Item
    owner: DeploymentFact | None
    size: int
    """Bytes of the item in a delivery."""


class FactRecorder:
    """Recorder that gathers the facts of dirty keys and delivers them."""

    def __init__(
        self,
        source: FactSource,
        shipped_digests: frozenset[str],
        metrics: FactMetrics,
        rand: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the digests of the suites that this version ships."""
        self._source = source
        self._shipped = shipped_digests
        self._metrics = metrics
        self._rand = rand
        self._clock = clock
        self._dirty: dict[RecordedKey, None] = {CATALOG: None}
        self._wake = asyncio.Event()
        self._pending: dict[int, _PendingFact] = {}
        self._recorded: dict[str, set[int]] = {}
        """uid -> hashes of its facts that are recorded and still observed."""
        self._shared: set[int] = set()
        """Hashes of recorded engines and suites."""
        self._live_uids: frozenset[str] | None = None
        """The list that the registry received last."""
        self._retry = FIRST_RETRY_SECONDS
        self._problem = ""

    def mark_dirty(self, key: RecordedKey) -> None:
        """Mark a key whose facts are to be collected. Returns at once."""
        self._dirty[key] = None
        self._wake.set()

    @property
    def backlog(self) -> int:
        """How many facts wait."""
        return len(self._pending)

    async def run(self, sink: RegistrySink) -> None:
        """Gather and deliver until cancelled."""
        start = last_full_delivery = self._clock()
        due = start
        while True:
            await self._wait_for_work(due)
            await self.gather()
            now = self._clock()
            if now - last_full_delivery >= AGAIN_SECONDS:
                last_full_delivery = now
                self.forget_recorded()
            if now >= due:
                due = now + await self.deliver(sink, report_live=now - start >= SETTLE_SECONDS)

    async def _wait_for_work(self, due: float) -> None:
        """Wait until a key is dirty or a delivery is due, and GATHER_SECONDS longer for what belongs to it."""
        remaining_seconds = max(due - self._clock(), 0.0)
        try:
            # No `wait_for`: until Python 3.12 it forgets that it was cancelled where the event has just been set.
            async with asyncio.timeout(min(remaining_seconds or SETTLE_SECONDS, SETTLE_SECONDS)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
        await asyncio.sleep(GATHER_SECONDS)

    def forget_recorded(self) -> None:
        """Forget what is recorded, so that everything is delivered again."""
        self._recorded.clear()
        self._shared.clear()
        self._live_uids = None
        self._dirty.update(dict.fromkeys((CATALOG, *self._source.crs)))

    async def gather(self) -> None:
        """Collect the facts of dirty keys, as long as there is room for them."""
        for number, key in enumerate(list(self._dirty)):
            if len(self._pending) >= MOST_WAITING:
                log.debug("%d facts wait for the registry, others stay in the cluster", len(self._pending))
                break
            del self._dirty[key]
            self._collect_safely(key)
            if number % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1:
                await asyncio.sleep(0)
        self._metrics.set_waiting(len(self._pending))

    def _collect_safely(self, key: RecordedKey) -> None:
        """Collect a key's facts; an error in one object holds up no other key and does not end the operator."""
        try:
            self._collect(key)
        except Exception:
            log.exception("Facts of %s could not be collected for the registry", key)

    def _collect(self, key: RecordedKey) -> None:
        if isinstance(key, CatalogKey):
            for engine_object in self._source.list_engines():
                if engine_object.engine is not None:
                    self._enqueue(
                        self._shared, registry_facts.build_engine_fact(engine_object.engine, engine_object.live), None
                    )
            return
        observation = self._source.observe(key)
        if observation is None:
            return
        owner = registry_facts.build_deployment_fact(observation.cr, self._source.find_namespace(key.namespace))
        facts = registry_facts.collect_facts(observation)
        recorded_hashes = self._recorded.setdefault(owner.uid, set())
        recorded_hashes &= {_hash_fact(item) for item in (owner, *facts)}
        hashes = {fact.report.suite_hash for fact in facts if isinstance(fact, EvaluationFact)}
        for suite in registry_facts.collect_suite_facts(observation, self._shipped, hashes):
            self._enqueue(self._shared, suite, None)
        for item in (owner, *facts):
            self._enqueue(recorded_hashes, item, owner)

    def _enqueue(self, recorded_hashes: set[int], item: Item, owner: DeploymentFact | None) -> None:
        key = _hash_fact(item)
        if key not in recorded_hashes and key not in self._pending:
            self._pending[key] = _PendingFact(item, owner, len(dumps(item).encode()))

    async def deliver(self, sink: RegistrySink, *, report_live: bool) -> float:
        """Deliver what waits; return the seconds until the next try, 0 after success."""
        try:
            while self._pending:
                await self._deliver_batch(sink, self._select_batch())
                self._metrics.set_waiting(len(self._pending))
            if report_live:
                await self._report_live(sink)
        except DeliveryError as error:
            self._log_problem(str(error))
            delay, self._retry = self._retry, min(self._retry * 2, LAST_RETRY_SECONDS)
            return delay * self._rand.uniform(0.8, 1.2)
        self._log_problem("")
        self._retry = FIRST_RETRY_SECONDS
        if self._dirty:
            self._wake.set()  # There was no room for them before.
        return 0.0

    def _select_batch(self) -> list[int]:
        """Return the hashes of the facts of the next delivery, at least one."""
        batch: list[int] = []
        room = BYTES_AT_ONCE
        for key, pending_fact in itertools.islice(self._pending.items(), AT_ONCE):
            room -= pending_fact.size
            if batch and room < 0:
                break
            batch.append(key)
        return batch

    async def _deliver_batch(self, sink: RegistrySink, keys: list[int]) -> None:
        """Deliver these facts; one that cannot be recorded holds up no other."""
        batch = [self._pending[key] for key in keys]
        try:
            await sink.deliver(_build_delivery(batch))
        except FactRefusedError as error:
            if len(keys) > 1:
                half = len(keys) // 2
                await self._deliver_batch(sink, keys[:half])
                await self._deliver_batch(sink, keys[half:])
                return
            log.warning("Registry refused a %s, which stays unrecorded: %s", type(batch[0].item).__name__, error)
            self._metrics.count_refused(1)
        else:
            self._metrics.count_delivered(len(keys))
        for key in keys:
            self._finish(key)

    def _finish(self, key: int) -> None:
        """Move a fact from those that wait to those that are done: recorded, or refused for good."""
        owner = self._pending.pop(key).owner
        if owner is None:
            self._shared.add(key)
        elif (recorded_hashes := self._recorded.get(owner.uid)) is not None:
            recorded_hashes.add(key)

    async def _report_live(self, sink: RegistrySink) -> None:
        """Deliver which deployments exist: every other one has ended."""
        live_uids = frozenset(str(cr["metadata"]["uid"]) for cr in self._source.crs.values())
        if live_uids == self._live_uids:
            return
        try:
            await sink.deliver(Facts(live=tuple(sorted(live_uids))))
        except FactRefusedError as error:
            log.warning("Registry refused the list of existing objects: %s", error)
        self._live_uids = live_uids
        for uid in self._recorded.keys() - live_uids:
            del self._recorded[uid]

    def _log_problem(self, problem: str) -> None:
        """Log a problem once, and its end."""
        if problem and not self._problem:
            log.warning("Registry does not record, facts wait and serving goes on: %s", problem)
        elif self._problem and not problem:
            log.info("Registry records again")
        self._problem = problem


def _build_delivery(batch: Iterable[_PendingFact]) -> Facts:
    """Build one delivery; it includes each fact's deployment, since the registry may not know it yet."""
    items: dict[str, dict[int, Any]] = {field.name: {} for field in fields(Facts) if field.name != "live"}
    for pending_fact in batch:
        for item in (pending_fact.owner, pending_fact.item):
            if item is not None:
                items[_FIELDS[type(item)]][_hash_fact(item)] = item
    return Facts(**{name: tuple(by_hash.values()) for name, by_hash in items.items()})


def _hash_fact(item: Item) -> int:
    """Return a hash that identifies a fact in every pass."""
    text = f"{type(item).__name__} {dumps(item)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
