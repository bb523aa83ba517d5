"""What is pruned and what is not: by age, by a tenant's share, and never what the operator still tells."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter

from r1plus_contract.history import Facts, SuiteFact, SuiteItem
from r1plus_registry import retention, tables
from r1plus_registry.database import DatabaseLimits, RegistryDatabase
from r1plus_registry.errors import RegistryFullError
from r1plus_registry.migration import migrate
from r1plus_registry.retention import DAY_SECONDS, Pruner, Retention
from r1plus_registry.storage import Storage
from r1plus_registry.unit_of_work import RegistryUnitOfWork
from support.registry import story
from support.registry.sqlite import Sqlite
from support.waiting import eventually

NOW = 1_800_000_000.0
OTHER = "uid-2"


class Registry:
    """A database, told of things at times of the test's."""

    def __init__(self, database: RegistryDatabase) -> None:
        self.database = database
        self.now = NOW
        self.pruned: dict[str, int] = {}

    def tell(self, *facts: Facts) -> None:
        with RegistryUnitOfWork(self.database, lambda: self.now).open_repository() as repository:
            for one in facts:
                repository.record(one)

    def prune(self, terms: Retention) -> dict[str, int]:
        """All that is due, as the service does it; how many rows of which table."""
        metric = Counter("pruned", "Rows.", ["table"], registry=CollectorRegistry())

        async def run() -> None:
            storage = Storage(self.database)
            storage._needs_preparation.clear()
            await Pruner(storage, terms, metric, lambda: self.now).prune_all()
            for threads in (storage._threads, storage._migrator):
                threads.shutdown()

        asyncio.run(run())
        return {
            s.labels["table"]: int(s.value) for m in metric.collect() for s in m.samples if s.name == "pruned_total"
        }

    def rows(self) -> dict[str, int]:
        """How many there are of each table that has some."""
        with self.database.transaction(writes=False) as connection:
            counts = {
                table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
                for table in tables.metadata.sorted_tables
            }
        return {name: count for name, count in counts.items() if count}

    def gates(self) -> list[str]:
        """When those were decided that are recorded."""
        with self.database.transaction(writes=False) as connection:
            return sorted(connection.scalars(sa.select(tables.evaluations.c.decided_at)))


@pytest.fixture
def registry(database: RegistryDatabase) -> Registry:
    return Registry(database)


def gate(number: int, **changes: object) -> Facts:
    """A gate of the story's revision, decided in this minute."""
    report = replace(story.REPORT, decided_at=f"2026-11-25T12:{number:02d}:00Z", **changes)  # type: ignore[arg-type]
    return Facts(evaluations=(replace(story.EVALUATION, report=report),))


def suite(number: int, items: int) -> SuiteFact:
    """A version of the tenant's own suite."""
    listed = tuple(SuiteItem(f"i{n}", "s") for n in range(items))
    return replace(story.SUITE, namespace="team-credit", sha256=f"{number}" * 64, items=listed)


@contextmanager
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(retention, "ROWS_AT_ONCE", 2)
        patch.setattr(retention, "ITEMS_AT_ONCE", 3)
        yield


def test_what_ended_longer_ago_than_is_kept_goes_with_all_that_is_of_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.tell(story.FACTS, story.of(OTHER), *(gate(n) for n in range(1, 6)), Facts(live=(OTHER,)))
    both = registry.rows()
    registry.now += 400 * DAY_SECONDS
    registry.tell(story.of(OTHER))
    assert registry.prune(Retention()) == {}
    registry.now += 1.0
    with small_steps(monkeypatch):
        assert registry.prune(Retention()) == {
            "evaluations": 6,
            "alarms": 1,
            "rollouts": 1,
            "revisions": 1,
            "deployments": 1,
        }
    assert registry.prune(Retention()) == {}
    left = registry.rows()
    assert left["evaluations"] == left["revisions"] == left["alarms"] == left["rollouts"] == left["deployments"] == 1
    assert (left["suites"], left["engines"]) == (both["suites"], both["engines"])


def test_what_has_not_ended_is_kept_however_old(registry: Registry) -> None:
    registry.tell(story.FACTS)
    before = registry.rows()
    registry.now += 4000 * DAY_SECONDS
    assert registry.prune(Retention()) == {}
    assert registry.rows() == before


def test_for_ever_is_for_ever(registry: Registry) -> None:
    registry.tell(story.FACTS, Facts(live=()), Facts(suites=(suite(7, 3),)))
    registry.now += 4000 * DAY_SECONDS
    before = registry.rows()
    assert registry.prune(Retention(days=0)) == {}
    assert registry.rows() == before
    assert registry.prune(Retention())["deployments"] == 1


def test_a_suite_without_gates_is_pruned_unless_it_is_reported_again(registry: Registry) -> None:
    registry.tell(story.FACTS, Facts(suites=(suite(7, 3), suite(8, 3))))
    registry.now += 2 * DAY_SECONDS
    registry.tell(Facts(suites=(suite(8, 3),)))
    assert registry.prune(Retention()) == {"suites": 1}
    assert (
        registry.rows()["suite_items"] == 3 + 3
    )  # of the story's, which has a gate, and of the one that is reported again


def test_one_tenant_that_iterates_has_its_share_and_no_more(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its oldest go first, and nothing of another tenant's, however much older."""
    theirs = replace(story.DEPLOYMENT, uid=OTHER, namespace="team-support")
    registry.tell(replace(story.of(OTHER), deployments=(theirs,)))
    registry.tell(story.FACTS)
    for number in range(1, 10):
        registry.now += 60.0
        registry.tell(gate(number))
    with small_steps(monkeypatch):
        assert registry.prune(Retention(entries=4)) == {"evaluations": 6}
    assert registry.gates() == sorted(["2026-11-25T12:00:00Z", *(f"2026-11-25T12:0{n}:00Z" for n in range(6, 10))])
    assert registry.prune(Retention(entries=4)) == {}


def test_what_the_cluster_still_shows_is_not_pruned_to_be_recorded_again(registry: Registry) -> None:
    """An old revision that serves, with its old gate, among a tenant's new ones."""
    registry.tell(story.FACTS)
    for hour in range(1, 10):
        registry.now += 3600.0
        registry.tell(story.FACTS, gate(hour))
        registry.prune(Retention(entries=3))
        assert "2026-11-25T12:00:00Z" in registry.gates()
    assert registry.gates() == [f"2026-11-25T12:0{n}:00Z" for n in (0, 8, 9)]


ITEMS: dict[str, tuple[Callable[[int], Facts], str]] = {
    "of its suites": (lambda n: Facts(suites=(suite(n, 4),)), "suites"),
    "that its gates lost": (lambda n: gate(n, lost_items=("a", "b", "c", "d")), "evaluations"),
}


@pytest.mark.parametrize(("facts", "table"), ITEMS.values(), ids=ITEMS)
def test_items_have_a_share_of_their_own(registry: Registry, facts: Callable[[int], Facts], table: str) -> None:
    registry.tell(replace(story.FACTS, evaluations=()))
    for number in range(1, 6):
        registry.now += 60.0
        registry.tell(facts(number))
    assert registry.prune(Retention(items=10)) == {table: 3}
    assert registry.prune(Retention(items=10)) == {}


def test_a_share_is_also_of_deployments_revisions_rollouts_and_alarms(registry: Registry) -> None:
    for number in range(5):
        registry.now += 1.0
        registry.tell(story.of(f"uid-{number}"), Facts(live=(f"uid-{number}",)))
    pruned = registry.prune(Retention(entries=2))
    assert pruned == dict.fromkeys(("evaluations", "alarms", "rollouts", "revisions", "deployments"), 3)
    assert registry.rows()["deployments"] == 2


def test_what_was_pruned_makes_room_on_a_volume_that_is_full(sqlite: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's file does not shrink: room within it counts, as long as its log has some, too."""
    with sqlite.scratch() as dsn, closing(RegistryDatabase(dsn, DatabaseLimits(room=2**20))) as database:
        migrate(database)
        registry = Registry(database)
        free = 3 * 2**18
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        alarms = tuple(replace(story.ALARM, since=str(n), text="x" * 4000) for n in range(200))
        registry.tell(replace(story.FACTS, alarms=alarms))
        with pytest.raises(RegistryFullError):
            database.require_room()
        registry.prune(Retention(entries=100))
        database.require_room()
        free = 2**18
        with pytest.raises(RegistryFullError):
            database.require_room()


async def test_a_tenants_share_is_held_to_as_soon_as_something_is_recorded(database: RegistryDatabase) -> None:
    told = Registry(database)
    told.tell(story.FACTS)
    metric = Counter("pruned", "Rows.", ["table"], registry=CollectorRegistry())
    storage = Storage(database)
    storage._needs_preparation.clear()
    pruner = Pruner(storage, Retention(entries=1), metric)
    running = asyncio.create_task(pruner.run())
    await eventually(lambda: bool(pruner._wake._waiters), "the first pass is over")
    await asyncio.to_thread(told.tell, gate(1))
    pruner.mark_dirty(["team-credit"])
    await eventually(lambda: told.gates() == ["2026-11-25T12:01:00Z"], "the older gate is gone")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    for threads in (storage._threads, storage._migrator):
        await asyncio.to_thread(partial(threads.shutdown, wait=True))
