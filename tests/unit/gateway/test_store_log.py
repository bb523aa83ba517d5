"""SQLite's log, which keeps deleted rows until it is emptied: that costs writers nothing while a snapshot is open."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_contract.gateway import DataReason
from r1plus_gateway.store.copies.backup import make_copy
from r1plus_gateway.store.copies.sealed_stream import StreamKind
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.database import StoreLimits
from r1plus_gateway.store.database.readers import ReadKind
from r1plus_gateway.store.errors import BusyError
from support.gateway.content import make_content, say
from support.gateway.tenant_data import ADMIN, Volume, make_caller
from support.waiting import eventually

ENDLESS_LIMITS = StoreLimits(lock=3600.0)
"""What waits for a lock does not end within a test."""
CALLER = make_caller()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What lets a long read end; it ends with the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


def get_log_bytes(volume: Volume) -> int:
    """Return the size of SQLite's log."""
    return volume.database.with_name("tenant.db-wal").stat().st_size


async def test_emptying_the_log_waits_for_no_reader(volume: Volume) -> None:
    """It has SQLite's only place for writers meanwhile."""
    volume.limits = ENDLESS_LIMITS
    async with volume.open() as store:
        await make_content(store).write(CALLER, lambda one: one.create_conversation({}, [say("x")]))
        database = store.require_data().database
        with database.transaction(writes=False) as snapshot:
            snapshot.execute(sa.select(t.conversations)).all()
            await make_content(store).write(CALLER, lambda one: one.create_conversation({}, [say("y")]))
            task = asyncio.create_task(asyncio.to_thread(database.empty_log))
            await eventually(task.done, "the log was given up", 30.0)
            with pytest.raises(BusyError):
                await task


@pytest.mark.parametrize("reader", ["audit", "backup"])
async def test_writes_go_on_while_the_log_is_due_and_a_long_read_runs(
    reader: str, volume: Volume, release: threading.Event
) -> None:
    volume.limits = ENDLESS_LIMITS
    async with volume.open() as store:
        content, is_open = make_content(store), threading.Event()
        await content.write(CALLER, lambda one: one.create_conversation({}, [say("x")]))

        def hold(connection: Connection) -> None:
            connection.execute(sa.select(t.conversations)).all()
            is_open.set()
            release.wait()

        async def back_up() -> None:
            async for _ in make_copy(store, ADMIN, StreamKind.BACKUP):
                is_open.set()
                await asyncio.to_thread(release.wait)

        task = asyncio.create_task(store.read(hold, kind=ReadKind.AUDIT) if reader == "audit" else back_up())
        await eventually(is_open.is_set, "the snapshot is open")
        for _ in range(3):
            await asyncio.wait_for(store.maintain(), 60.0)
            made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("y")]))
            await content.write(CALLER, lambda one: one.delete_conversation(made.id))  # noqa: B023
            assert store.state.reason is DataReason.READY
        assert get_log_bytes(volume) > 0
        release.set()
        await task
        await store.maintain()
        assert get_log_bytes(volume) == 0


async def test_a_short_read_only_puts_off_that_the_log_is_emptied(volume: Volume) -> None:
    async with volume.open() as store:
        await make_content(store).write(CALLER, lambda one: one.create_conversation({}, [say("x")]))
        with store.require_data().database.transaction(writes=False) as snapshot:
            snapshot.execute(sa.select(t.conversations)).all()
            await store.empty_log()
            assert get_log_bytes(volume) > 0
        await store.maintain()
        assert get_log_bytes(volume) == 0
