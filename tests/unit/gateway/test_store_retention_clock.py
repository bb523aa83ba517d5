"""Retention and clocks: a gateway that starts with a clock years ahead deletes nothing early, and nothing stays for ever."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from r1plus_contract.gateway import DataReason
from r1plus_gateway.store.administration.admin import confirm_time
from r1plus_gateway.store.content.content import MemorySource
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.ledger.repository import LedgerRepository
from r1plus_gateway.store.tenant import Periods, TenantStore
from r1plus_gateway.store.upkeep.retention import date_back
from r1plus_gateway.store.upkeep.retention_clock import HOLD_SECONDS, RetentionClock, RetentionTime
from support.gateway.backups import Files, back_up, make_elsewhere, restore
from support.gateway.content import make_content, say
from support.gateway.knowledge import make_knowledge, make_store, upload
from support.gateway.tenant_data import ADMIN, START, Time, Volume, make_caller, settle
from support.scratch import make_scratch_folder
from support.tables import for_each

CALLER = make_caller()
DAY = 86400.0
YEARS = 3 * 365 * DAY


@asynccontextmanager
async def open_store(volume: Volume) -> AsyncIterator[TenantStore]:
    """Run a gateway's store that looks for what is over in each round."""
    store = volume.make_store(Periods(prune=0.0, hold=0.0))
    assert await store.open(), store.state
    yield store
    await store.close()


async def write_conversation(store: TenantStore) -> None:
    await make_content(store).write(CALLER, lambda one: one.create_conversation({}, [say("x")]))


async def count_rows(store: TenantStore, table: sa.Table = t.conversations) -> int:
    return await store.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


@pytest.fixture
async def used_volume(volume: Volume) -> Volume:
    """A tenant's data with a conversation of a day ago, an audit record, and a memory."""
    async with open_store(volume) as store:
        await write_conversation(store)
        await make_content(store).write(CALLER, lambda one: one.add_memory("likes tea", MemorySource.PINNED, 30.0))
        for request in "ab":
            await settle(store, await store.ledger.reserve(request, CALLER, "credit", 10), 1, 2)
        volume.time.advance(DAY)
        await store.maintain()
    return volume


async def test_a_start_with_a_clock_years_ahead_deletes_nothing_and_says_so(used_volume: Volume) -> None:
    used_volume.time.wall += YEARS
    async with open_store(used_volume) as store:
        for _ in range(3):
            await store.maintain()
            used_volume.time.advance(3600)
        assert [await count_rows(store, one) for one in (t.conversations, t.memories)] == [1, 1]
        assert await count_rows(store, t.audit) >= 2
        assert (store.state.reason, store.state.can_serve) == (DataReason.CLOCK_AHEAD, True)
        assert "1095 days ahead" in store.state.message
        assert "r1plus tenant confirm-time" in store.state.message


async def test_a_clock_that_is_corrected_deletes_at_the_right_time_without_a_command(used_volume: Volume) -> None:
    used_volume.time.wall += YEARS
    async with open_store(used_volume) as store:
        await store.maintain()
        await write_conversation(store)  # dated years ahead
        used_volume.time.wall -= YEARS
        await store.maintain()
        assert store.state.is_ready
    async with open_store(used_volume) as store:
        for days, left in ((28, 2), (3, 0)):
            used_volume.time.advance(days * DAY)
            await store.maintain()
            assert await count_rows(store) == left


async def test_a_time_far_ahead_is_believed_after_a_day_of_running_also_in_parts(used_volume: Volume) -> None:
    """As of a gateway that was switched off for long, and a machine that is used for some hours at a time."""
    used_volume.time.advance(40 * DAY)
    for hours in (10, 10, 5):
        async with open_store(used_volume) as store:
            await store.maintain()
            assert await count_rows(store) == 1
            used_volume.time.advance(hours * 3600)
            await store.maintain()
    async with open_store(used_volume) as store:
        await store.maintain()
        assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 0)
    assert HOLD_SECONDS == 24 * 3600


async def test_an_administrator_confirms_a_time_far_ahead(used_volume: Volume) -> None:
    used_volume.time.advance(40 * DAY)
    async with open_store(used_volume) as store:
        await store.maintain()
        assert not store.state.is_ready
        assert await confirm_time(store, ADMIN) == pytest.approx(0)
        await store.maintain()
        assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 0)


class ConfirmedMeanwhile(RetentionClock):
    """One whose time an administrator confirms while a round goes on with the time of before."""

    def __init__(self, store: TenantStore) -> None:
        super().__init__(store.clock)
        self._store = store

    def advance(self, ledger: LedgerRepository) -> RetentionTime:
        present = super().advance(ledger)
        if self.problem:
            ledger.reset_time(self._store.clock)
            self.confirm(ledger)
            self._store.prune_soon()
        return present


async def test_a_confirmation_during_a_round_dates_nothing_back_and_the_next_round_goes_by_it(
    used_volume: Volume,
) -> None:
    used_volume.time.advance(40 * DAY)
    store = used_volume.make_store(Periods())
    assert await store.open()
    store.retention = ConfirmedMeanwhile(store)
    await write_conversation(store)
    assert await count_rows(store) == 2
    await store.maintain()
    await store.maintain()
    assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 1), "what is of today is not over"
    await store.close()


async def test_a_gateway_that_was_off_for_days_goes_on_at_once(used_volume: Volume) -> None:
    async with open_store(used_volume) as store:
        used_volume.time.advance(25 * DAY)
        await store.maintain()
    used_volume.time.advance(6 * DAY)
    async with open_store(used_volume) as store:
        await store.maintain()
        assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 0)


async def test_a_clock_that_is_behind_stops_no_deletion(used_volume: Volume) -> None:
    used_volume.time.wall = 0.0
    async with open_store(used_volume) as store:
        used_volume.time.advance(30 * DAY)
        await store.maintain()
        assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 0)


@pytest.mark.unit_slow
async def test_a_clock_that_was_some_days_ahead_is_followed_back(used_volume: Volume) -> None:
    """Else many starts, each some days ahead, would add up."""
    for days in (6, 12, 18, 24, 30):
        used_volume.time.wall += days * DAY
        async with open_store(used_volume) as store:
            await store.maintain()
            used_volume.time.wall -= days * DAY
            await store.maintain()
    async with open_store(used_volume) as store:
        await store.maintain()
        assert await count_rows(store) == 1


async def test_all_that_was_stored_under_a_clock_ahead_begins_when_it_is_corrected(used_volume: Volume) -> None:
    async with open_store(used_volume) as store:
        knowledge, content = make_knowledge(store), make_content(store)
        used_volume.time.advance(100 * DAY)
        owner = knowledge.identify(CALLER)
        await upload(knowledge, owner, b"text")
        await make_store(knowledge, owner)
        await content.write(CALLER, lambda one: one.add_memory("likes tea", MemorySource.PINNED, 30.0))
        await store.write(lambda ledger: date_back(ledger.connection, START))
        await store.write(lambda ledger: date_back(ledger.connection, START))
        expected = {
            t.files.c.created_at: START,
            t.vector_stores.c.used_at: START,
            t.memories.c.created_at: START,
            t.memories.c.expires_at: START + 30 * DAY,
        }
        for column, moment in expected.items():
            assert await store.read(lambda connection: connection.scalar(sa.select(column))) == moment, column  # noqa: B023


async def test_of_two_replicas_the_one_with_the_right_clock_decides(used_volume: Volume) -> None:
    """On PostgreSQL; here one after the other, on the same data, for longer than a time is held."""
    for _ in range(4):
        used_volume.time.wall += YEARS
        async with open_store(used_volume) as store:
            used_volume.time.advance(HOLD_SECONDS * 0.7)
            await store.maintain()
        used_volume.time.wall -= YEARS
        async with open_store(used_volume) as store:
            await store.maintain()
            assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 1)


def drop_times(connection: sa.Connection) -> None:
    """As data are that no release with a retention time has seen."""
    connection.execute(sa.delete(t.meta).where(t.meta.c.name.in_(["retention_time", "retention_seen"])))


def rename_time(connection: sa.Connection) -> None:
    """As a release had it that put no retention time into backups."""
    where = t.meta.c.name == "retention_seen"
    assert connection.execute(sa.update(t.meta).where(where).values(name="retention_time")).rowcount == 1


@for_each("change", {
    "that had no retention time": drop_times,
    "that had it by its former name": rename_time,
})  # fmt: skip
async def test_data_of_an_earlier_release_begin_with_the_newest_time_that_they_have_seen(
    used_volume: Volume, change: Callable[[sa.Connection], None]
) -> None:
    async with open_store(used_volume) as store:
        await store.write(lambda ledger: change(ledger.connection))
    used_volume.time.wall += YEARS
    async with open_store(used_volume) as store:
        await store.maintain()
        assert (store.state.reason, await count_rows(store)) == (DataReason.CLOCK_AHEAD, 1)


async def test_a_time_of_before_by_its_former_name_is_not_gone_back_to(used_volume: Volume) -> None:
    """It stays where it was stored, and nothing writes it any more."""
    stale = {"name": "retention_time", "value": '{"moment": 0.0, "held_from": null}'}
    async with open_store(used_volume) as store:
        await store.write(lambda ledger: ledger.connection.execute(sa.insert(t.meta), [stale]) and None)
        used_volume.time.advance(DAY)
        await store.maintain()
        assert store.state.is_ready
    async with open_store(used_volume) as store:
        await store.maintain()
        assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 1)


async def test_new_data_begin_with_the_clock(volume: Volume) -> None:
    volume.time.wall = START + YEARS
    async with open_store(volume) as store:
        await store.maintain()
        assert store.state.is_ready


async def test_a_shorter_policy_holds_for_a_memory_that_was_stored_under_a_clock_ahead(volume: Volume) -> None:
    async with open_store(volume) as store:
        await store.maintain()
    volume.time.wall += YEARS
    async with open_store(volume) as store:
        await make_content(store).write(CALLER, lambda one: one.add_memory("likes tea", MemorySource.PINNED, 30.0))
    volume.time.wall -= YEARS
    async with open_store(volume) as store:
        await store.maintain()
    volume.content_days = 7.0
    async with open_store(volume) as store:
        for days, left in ((6, 1), (2, 0)):
            volume.time.advance(days * DAY)
            await store.maintain()
            assert await count_rows(store, t.memories) == left


async def test_what_is_kept_under_a_clock_that_was_corrected_is_shown_without_a_command(volume: Volume) -> None:
    """Ledger time stays ahead, and what is stored is dated back: it would be over at once."""
    async with open_store(volume) as store:
        await make_content(store).write(CALLER, lambda one: one.add_memory("before", MemorySource.PINNED, 30.0))
        await store.maintain()
    volume.time.wall += YEARS
    async with open_store(volume) as store:
        await store.maintain()
        await make_content(store).write(CALLER, lambda one: one.add_memory("ahead", MemorySource.PINNED, 30.0))
    volume.time.wall -= YEARS
    async with open_store(volume) as store:
        content = make_content(store)
        await content.write(CALLER, lambda one: one.add_memory("after", MemorySource.PINNED, 30.0))
        for days, texts in ((1, {"before", "ahead", "after"}), (29.5, set())):
            await store.maintain()
            volume.time.advance(days * DAY)
            assert {one.text for one in await content.read(CALLER, lambda one: one.read_memories())} == texts


# A restore, whose data know nothing of the clock of the machine that they come to.


@pytest.fixture
def folder() -> Iterator[Path]:
    made = make_scratch_folder("r1plus-tenant-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


async def back_up_now(volume: Volume) -> Files:
    async with open_store(volume) as store:
        await store.maintain()
        return await back_up(store)


async def back_up_of_an_earlier_release(volume: Volume) -> Files:
    """Its backups have no retention time."""
    async with open_store(volume) as store:
        await store.write(lambda ledger: drop_times(ledger.connection))
        return await back_up(store)


async def back_up_under_a_clock_ahead(volume: Volume) -> Files:
    """All that it has of its last hours is dated years ahead, and it has waited for most of a day."""
    volume.time.wall += YEARS
    async with open_store(volume) as store:
        await store.maintain()
        volume.time.advance(HOLD_SECONDS * 0.9)
        await store.maintain()
        return await back_up(store)


@pytest.mark.unit_slow
@for_each("make_backup", {
    "of a gateway with a right clock": back_up_now,
    "of an earlier release": back_up_of_an_earlier_release,
    "of a gateway that waits for its own clock": back_up_under_a_clock_ahead,
})  # fmt: skip
async def test_a_restore_under_a_clock_years_ahead_deletes_nothing_until_it_is_confirmed(
    used_volume: Volume, folder: Path, make_backup: Callable[[Volume], Awaitable[Files]]
) -> None:
    files = await make_backup(used_volume)
    elsewhere = replace(make_elsewhere(used_volume, folder), time=Time(START + YEARS))
    async with open_store(elsewhere) as store:
        await store.maintain()  # New data go by their machine's clock.
        assert store.state.is_ready
        problem = (await restore(store, files)).retention_problem
        assert "days ahead of what was seen" in problem and "24 more hours of running" in problem
        for _ in range(3):
            await store.maintain()
            elsewhere.time.advance(HOLD_SECONDS * 0.3)
    async with open_store(elsewhere) as store:
        assert [await count_rows(store, one) for one in (t.conversations, t.memories)] == [1, 1]
        assert await count_rows(store, t.audit) >= 2
        await store.maintain()
        assert (store.state.reason, store.state.can_serve) == (DataReason.CLOCK_AHEAD, True)
        await confirm_time(store, ADMIN)
        await store.maintain()
        assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 0)


@pytest.mark.unit_slow
async def test_a_restore_under_a_clock_that_is_corrected_deletes_at_the_right_time(
    used_volume: Volume, folder: Path
) -> None:
    files = await back_up_now(used_volume)
    elsewhere = replace(make_elsewhere(used_volume, folder), time=Time(START + YEARS))
    async with open_store(elsewhere) as store:
        await restore(store, files)
        await store.maintain()
        elsewhere.time.wall -= YEARS
        await store.maintain()
        assert (store.state.reason, await count_rows(store)) == (DataReason.READY, 1)
        elsewhere.time.advance(31 * DAY)
        await store.maintain()
        assert await count_rows(store) == 0


@pytest.mark.unit_slow
async def test_data_that_have_seen_a_clock_ahead_go_by_the_right_one_where_they_are_restored(
    used_volume: Volume, folder: Path
) -> None:
    used_volume.time.wall += YEARS
    async with open_store(used_volume) as store:
        await confirm_time(store, ADMIN)  # By mistake, and content goes as of then.
        await write_conversation(store)
        files = await back_up(store)
    elsewhere = replace(make_elsewhere(used_volume, folder), time=Time(START + DAY))
    async with open_store(elsewhere) as store:
        assert (await restore(store, files)).retention_problem == ""
        for days, left in ((0, 2), (30, 1), (2, 0)):
            elsewhere.time.advance(days * DAY)
            await store.maintain()
            assert (store.state.reason, await count_rows(store)) == (DataReason.READY, left)
