"""Facts reach the registry once, whatever fails on the way, and wait in bounded number; the registry is a real one."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from r1plus_contract.history import DeploymentFact, EvaluationFact, Facts, Receipt, RevisionFact
from r1plus_contract.jsonable import dumps
from r1plus_contract.verdict import Verdict
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.projections import EngineObject
from r1plus_operator.plan.observation import Json, NamespaceFacts, Observation
from r1plus_operator.plan.revision.registry_facts import build_deployment_fact
from r1plus_operator.registry import recorder as recorder_module
from r1plus_operator.registry.client import DeliveryError, FactRefusedError
from r1plus_operator.registry.recorder import FactRecorder
from r1plus_registry import migration
from r1plus_registry.checks import check_facts
from r1plus_registry.database import RegistryDatabase
from r1plus_registry.errors import DocumentError
from r1plus_registry.unit_of_work import RegistryUnitOfWork
from support.plan.falls import FULL, rolled_back
from support.plan.world import CATALOG
from support.plan.world import World as PlanWorld
from support.registry.sqlite import Sqlite
from support.waiting import eventually

KEY = DeploymentKey("team", "credit")


@dataclass
class Worlds:
    """The tiny world of plan tests, behind what the recorder looks at."""

    observations: dict[DeploymentKey, Observation]
    looks: int = 0
    namespaces: dict[str, NamespaceFacts] = field(default_factory=dict)

    @property
    def crs(self) -> dict[DeploymentKey, Json]:
        return {key: observed.cr for key, observed in self.observations.items()}

    def observe(self, key: DeploymentKey) -> Observation | None:
        self.looks += 1
        return self.observations.get(key)

    def find_namespace(self, name: str) -> NamespaceFacts | None:
        return self.namespaces.get(name)

    def list_engines(self) -> tuple[EngineObject, ...]:
        return tuple(EngineObject({"spec": known.spec.model_dump(mode="json")}, known) for known in CATALOG)


@dataclass
class Meter:
    delivered_facts: int = 0
    refused_facts: int = 0
    waits: int = 0

    def count_delivered(self, count: int) -> None:
        self.delivered_facts += count

    def count_refused(self, count: int) -> None:
        self.refused_facts += count

    def set_waiting(self, count: int) -> None:
        self.waits = count


@dataclass
class Sink:
    """Straight into a registry's database, where nothing stands in the way."""

    work: RegistryUnitOfWork
    down: bool = False
    deliveries: list[Facts] = field(default_factory=list)
    new: list[dict[str, int]] = field(default_factory=list)

    async def deliver(self, facts: Facts) -> Receipt:
        if self.down:
            raise DeliveryError("http://registry: connection refused")
        try:
            with self.work.open_repository() as repository:
                recorded = repository.record(check_facts(facts))
        except DocumentError as error:
            raise FactRefusedError(f"400 {error}") from error
        self.deliveries.append(facts)
        self.new.append(recorded)
        return Receipt(recorded)


class Rig:
    """A recorder over worlds, a sink, and a clock that the test turns."""

    def __init__(self, work: RegistryUnitOfWork, observations: dict[DeploymentKey, Observation]) -> None:
        self.now = 0.0
        self.world = Worlds(observations)
        self.sink = Sink(work)
        self.meter = Meter()
        self.recorder = FactRecorder(self.world, frozenset(), self.meter, random.Random(1), lambda: self.now)
        for key in observations:
            self.recorder.mark_dirty(key)

    async def turn(self, *, lives: bool = False) -> float:
        await self.recorder.gather()
        return await self.recorder.deliver(self.sink, report_live=lives)

    def recorded(self) -> dict[str, int]:
        with self.sink.work.open_reader() as reader:
            found = [h for key in self.world.crs for h in reader.read_histories(*key, include_ended=True)]
        kinds = ("revisions", "evaluations", "rollouts", "alarms")
        return {kind: sum(len(getattr(one, kind)) for one in found) for kind in kinds}


@pytest.fixture(scope="module")
def template() -> Iterator[tuple[Sqlite, str]]:
    """A registry's database, to be copied."""
    with closing(Sqlite()) as sqlite, sqlite.scratch() as dsn:
        with closing(RegistryDatabase(dsn)) as database:
            migration.migrate(database)
        yield sqlite, dsn


@pytest.fixture
def work(template: tuple[Sqlite, str]) -> Iterator[RegistryUnitOfWork]:
    sqlite, dsn = template
    with sqlite.scratch(dsn) as copy, closing(RegistryDatabase(copy)) as database:
        yield RegistryUnitOfWork(database)


@pytest.fixture(scope="module")
def observed() -> Observation:
    """A deployment that was rolled back; nothing here changes it."""
    world, _, _ = rolled_back()
    return world.observed()


@pytest.fixture
def rig(work: RegistryUnitOfWork, observed: Observation) -> Rig:
    return Rig(work, {KEY: observed})


async def test_all_that_the_cluster_keeps_is_recorded_and_nothing_twice(rig: Rig) -> None:
    assert await rig.turn() == 0.0
    first = rig.recorded()
    assert first["revisions"] == 2
    assert min(first.values()) >= 1
    count = len(rig.sink.deliveries)
    rig.recorder.mark_dirty(KEY)
    await rig.turn()
    assert len(rig.sink.deliveries) == count
    assert (rig.recorder.backlog, rig.meter.waits, rig.meter.refused_facts) == (0, 0, 0)


async def test_another_operator_tells_all_again_and_nothing_of_it_is_new(rig: Rig, work: RegistryUnitOfWork) -> None:
    await rig.turn()
    successor = Rig(work, rig.world.observations)
    await successor.turn()
    assert successor.sink.new == [{}] * len(successor.sink.new)
    assert successor.sink.new


async def test_what_was_seen_while_the_service_was_down_is_recorded_when_it_is_back(rig: Rig) -> None:
    """Even of a deployment that is gone by then: what waits is kept, and what the cluster keeps is looked at again."""
    rig.sink.down = True
    assert await rig.turn() > 0.0
    observed = rig.world.observations.pop(KEY)
    rig.recorder.mark_dirty(KEY)
    assert await rig.turn() > 0.0
    rig.sink.down = False
    assert await rig.turn() == 0.0
    rig.world.observations[KEY] = observed
    assert rig.recorded()["revisions"] == 2
    assert rig.recorder.backlog == 0


async def test_no_delivery_is_larger_than_the_service_takes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.turn()
    (delivery,) = rig.sink.deliveries
    whole, first = len(dumps(delivery)), rig.recorded()
    rig.recorder.forget_recorded()
    rig.sink.deliveries.clear()
    monkeypatch.setattr(recorder_module, "BYTES_AT_ONCE", whole // 4)
    await rig.turn()
    assert len(rig.sink.deliveries) >= 4
    assert max(len(dumps(facts)) for facts in rig.sink.deliveries) <= whole // 2
    assert (rig.recorded(), rig.meter.refused_facts, rig.recorder.backlog) == (first, 0, 0)


async def test_one_fact_goes_however_large_it_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "BYTES_AT_ONCE", 1)
    assert await rig.turn() == 0.0
    assert (rig.recorded()["revisions"], rig.recorder.backlog) == (2, 0)


async def test_tries_come_ever_later_up_to_half_a_minute_and_begin_anew_after_success(rig: Rig) -> None:
    rig.sink.down = True
    waits = [await rig.turn() for _ in range(9)]
    assert 0.8 <= waits[0] <= 1.2
    assert waits[5] > waits[3] > waits[1]
    assert 24.0 <= waits[-1] <= 36.0
    rig.sink.down = False
    await rig.turn()
    rig.sink.down = True
    rig.recorder.forget_recorded()
    assert await rig.turn() <= 1.2


async def test_a_fact_that_cannot_be_recorded_holds_up_no_other(rig: Rig) -> None:
    observed = rig.world.observations[KEY]
    incident = {"revision": "r", "since": "s", "reason": "x", "lost": ["a"], "now": "b"}
    bad = observed.cr | {"status": {"incident": incident}}
    rig.world.observations[KEY] = replace(observed, cr=bad)

    class Choosy(Sink):
        async def deliver(self, facts: Facts) -> Receipt:
            if any(alarm.reason == "x" for alarm in facts.alarms):
                raise FactRefusedError("400 facts.alarms[0]: no")
            return await super().deliver(facts)

    rig.sink = Choosy(rig.sink.work)
    assert await rig.turn() == 0.0
    assert rig.recorded()["evaluations"] >= 2
    assert rig.meter.refused_facts == 1
    sent = len(rig.sink.deliveries)
    rig.recorder.mark_dirty(KEY)
    await rig.turn()
    assert (len(rig.sink.deliveries), rig.meter.refused_facts) == (sent, 1)


async def test_what_waits_is_bounded_and_the_rest_comes_when_there_is_room(
    work: RegistryUnitOfWork, observed: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MOST_WAITING", 30)
    many = {DeploymentKey("team", f"credit-{n}"): of(observed, n) for n in range(40)}
    rig = Rig(work, many)
    rig.sink.down = True
    for _ in range(5):
        await rig.turn()
    each = rig.recorder.backlog
    assert 30 <= each < 60
    rig.sink.down = False
    for _ in range(40):
        await rig.turn()
    assert rig.recorded()["revisions"] == 80
    assert rig.recorder.backlog == 0


def of(observed: Observation, number: int) -> Observation:
    meta = {**observed.cr["metadata"], "name": f"credit-{number}", "uid": f"u-{number}"}
    return replace(observed, cr={**observed.cr, "metadata": meta})


async def test_one_that_is_gone_has_ended_and_its_namesake_has_not(rig: Rig, work: RegistryUnitOfWork) -> None:
    await rig.turn(lives=True)
    rig.world.observations[KEY] = of(rig.world.observations[KEY], 7)
    cr = rig.world.observations[KEY].cr
    cr["metadata"]["name"] = "credit"
    rig.recorder.mark_dirty(KEY)
    await rig.turn(lives=True)
    with work.open_reader() as reader:
        ended = [(h.deployment.uid, h.ended) for h in reader.read_histories(*KEY, include_ended=True)]
    assert ended == [("u-7", False), ("u-1", True)]
    count = len(rig.sink.deliveries)
    await rig.turn(lives=True)
    assert len(rig.sink.deliveries) == count


async def test_before_the_caches_have_settled_nothing_is_said_to_have_ended(rig: Rig, work: RegistryUnitOfWork) -> None:
    with work.open_repository() as repository:
        repository.record(Facts(deployments=(DeploymentFact("older", "team", "credit"),)))
    for lives in (False, True):
        await rig.turn(lives=lives)
        with work.open_reader() as reader:
            histories = reader.read_histories(*KEY, include_ended=True)
        assert {h.deployment.uid: h.ended for h in histories}["older"] is lives


async def test_a_database_that_was_restored_from_long_ago_is_told_all_again(
    rig: Rig, template: tuple[Sqlite, str]
) -> None:
    await rig.turn(lives=True)
    sqlite, dsn = template
    with sqlite.scratch(dsn) as fresh, closing(RegistryDatabase(fresh)) as database:
        rig.sink.work = RegistryUnitOfWork(database)
        rig.recorder.forget_recorded()
        await rig.turn(lives=True)
        assert rig.recorded()["revisions"] == 2


async def test_an_object_that_cannot_be_read_keeps_no_other_facts_back(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    broken: dict[str, Any] = {"metadata": {}}
    rig.world.observations[DeploymentKey("team", "broken")] = replace(rig.world.observations[KEY], cr=broken)
    rig.recorder.mark_dirty(DeploymentKey("team", "broken"))
    await rig.recorder.gather()
    assert "Facts of R1PlusDeployment team/broken could not be collected" in caplog.text
    assert rig.recorder.backlog > 5


async def test_left_running_it_delivers_what_is_noticed(
    work: RegistryUnitOfWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "GATHER_SECONDS", 0.0)
    world = PlanWorld(dict(FULL))
    name = world.bring_up()
    rig = Rig(work, {KEY: world.observed()})
    running = asyncio.create_task(rig.recorder.run(rig.sink))
    try:
        await eventually(lambda: any(f.revisions for f in rig.sink.deliveries), "the revision is told")
        world.change(context={"maxTokens": 1024})
        world.settle()
        refused = world.candidate()
        world.start_pods(refused)
        world.settle()
        world.gate(refused, Verdict.FAIL, lost=2)
        world.settle()
        rig.world.observations[KEY] = world.observed()
        rig.recorder.mark_dirty(KEY)
        await eventually(
            lambda: any(e.revision == refused for f in rig.sink.deliveries for e in f.evaluations),
            "its gate is told",
        )
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    sent = [r.name for f in rig.sink.deliveries for r in f.revisions]
    assert sorted(sent) == sorted({name, refused})


async def test_noticing_looks_at_nothing(rig: Rig) -> None:
    for _ in range(1000):
        rig.recorder.mark_dirty(KEY)
    assert rig.world.looks == 0
    await rig.recorder.gather()
    assert rig.world.looks == 1


def test_the_same_fact_has_the_same_fingerprint_and_each_kind_its_own() -> None:
    world = PlanWorld(dict(FULL))
    world.bring_up()
    facts = [f for _ in range(2) for f in recorder_module.registry_facts.collect_facts(world.observed())]
    prints = [recorder_module._hash_fact(f) for f in facts]
    assert len(set(prints)) * 2 == len(prints)
    assert {type(f) for f in facts} >= {RevisionFact, EvaluationFact}


@pytest.mark.parametrize(
    ("namespace", "uid"),
    [
        (NamespaceFacts("team", "n-1", is_tenant=True, pod_security="", created_at="2026-01-01T00:00:00Z"), "n-1"),
        (NamespaceFacts("team", "n-2", is_tenant=True, pod_security="", created_at="2026-01-01T00:00:02Z"), ""),
        (None, ""),
    ],
    ids=["made in it", "older than the namespace, so of a former one of that name", "in one that is not known"],
)
def test_a_deployment_is_of_the_namespace_that_it_was_made_in(namespace: NamespaceFacts | None, uid: str) -> None:
    meta = {"uid": "u", "namespace": "team", "name": "credit", "creationTimestamp": "2026-01-01T00:00:01Z"}
    assert build_deployment_fact({"metadata": meta}, namespace) == DeploymentFact("u", "team", "credit", uid)


@pytest.mark.unit_slow
@pytest.mark.parametrize("steps", range(6))
async def test_it_ends_when_it_is_cancelled_just_after_something_was_noticed(
    work: RegistryUnitOfWork, steps: int
) -> None:
    """As at shutdown: the last pass notices its deployment, and everything beside it is cancelled."""
    rig = Rig(work, {})
    running = asyncio.create_task(rig.recorder.run(rig.sink))
    rig.recorder.mark_dirty(KEY)
    await eventually(lambda: rig.meter.delivered_facts, "the catalog is told")
    for _ in range(steps + 10):
        await asyncio.sleep(0)
    rig.recorder.mark_dirty(KEY)
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    await eventually(running.done, "it has ended", 10.0)
    assert running.cancelled()
