"""Backup and restore with PostgreSQL: between it and a volume, between replicas, and through kills."""

import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from r1plus_contract.gateway import DataReason
from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.store.administration.admin import create_key, verify_audit
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.copies.restoration import NotNewError, restore_backup
from r1plus_gateway.store.copies.sealed_stream import StreamKind
from r1plus_gateway.store.database import migration
from r1plus_gateway.store.errors import RestoringError, UnavailableError
from r1plus_gateway.store.keys.content_cipher import UnreadableContentError
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from support.gateway.backups import (
    BERT,
    Files,
    back_up,
    back_up_first_schema,
    copy,
    fill,
    make_elsewhere,
    read_texts,
    restore,
)
from support.gateway.content import say
from support.gateway.killed_restore import kill_restores, prepare
from support.gateway.tenant_data import ADMIN, START, Time, Volume
from support.registry.postgres import Postgres
from support.scratch import make_scratch_folder
from support.tables import for_each

pytestmark = [pytest.mark.postgres, pytest.mark.first_run_counts]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = make_scratch_folder("r1plus-tenant-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@for_each("is_from, is_to", {
    "from PostgreSQL to a volume": (True, False),
    "from a volume to PostgreSQL": (False, True),
    "from PostgreSQL to PostgreSQL": (True, True),
})  # fmt: skip
async def test_a_backup_moves_between_kinds_of_database(
    tenant: Volume, postgresql: Postgres, folder: Path, is_from: bool, is_to: bool
) -> None:
    with postgresql.scratch() as url:
        here = replace(tenant, url=tenant.url if is_from else "")
        there = replace(make_elsewhere(here, folder), url=url if is_to else "", limits=tenant.limits)
        async with here.open() as store:
            filled = await fill(store)
            files = await back_up(store)
        for _ in range(2):  # The second time after a restart.
            async with there.open() as other:
                if not other.require_data().restore_id:
                    assert (await restore(other, files)).unreadable_rows == 0
                assert await verify_key(filled.key.key.encode(), other, other.clock.read()) is not None
                assert await read_texts(other, filled) == [say("x"), say("y")]
                assert (await verify_audit(other)).problem == ""
                with pytest.raises(NotNewError):
                    await restore(other, files)


@asynccontextmanager
async def two_replicas(
    tenant: Volume, postgresql: Postgres, folder: Path, time: Time | None = None
) -> AsyncIterator[tuple[TenantStore, TenantStore]]:
    """Yield two gateways' stores of another cluster, with new data in PostgreSQL; `time`: that of their clocks."""
    with postgresql.scratch() as url:
        there = replace(make_elsewhere(tenant, folder), url=url, limits=tenant.limits)
        there = there if time is None else replace(there, time=time)
        async with there.open() as one, there.open() as other:
            yield one, other


async def test_other_replicas_take_over_the_keys_that_a_restore_brought(
    tenant: Volume, postgresql: Postgres, folder: Path
) -> None:
    async with tenant.open() as store:
        filled = await fill(store)
        files = await back_up(store)
    async with two_replicas(tenant, postgresql, folder) as (one, other):
        await restore(one, files)
        # It records nothing with the keys of before, and goes on with the new ones after its next beat.
        with pytest.raises(RestoringError):
            await create_key(other, ADMIN, KeySpec("early"))
        await other.maintain()
        assert other.state.is_ready, other.state
        issued = await create_key(other, ADMIN, KeySpec("later"))
        for store in (one, other):
            for key in (filled.key, issued):
                assert await verify_key(key.key.encode(), store, store.clock.read()) is not None
            assert await read_texts(store, filled) == [say("x"), say("y")]
            assert (await verify_audit(store)).problem == ""


async def test_no_replica_deletes_what_one_has_restored_under_a_clock_years_ahead(
    tenant: Volume, postgresql: Postgres, folder: Path
) -> None:
    async with tenant.open() as store:
        filled = await fill(store)
        files = await back_up(store)
    ahead = Time(START + 3 * 365 * 86400)
    async with two_replicas(tenant, postgresql, folder, ahead) as (one, other):
        for store in (one, other):
            await store.maintain()
        await restore(one, files)
        for store in (other, one):
            store.prune_soon()
            await store.maintain()
            assert store.state.reason is DataReason.CLOCK_AHEAD
        assert await read_texts(one, filled, BERT) == [say("x"), say("y")]


async def test_an_end_user_that_was_erased_stays_unreadable(tenant: Volume, postgresql: Postgres, folder: Path) -> None:
    async with tenant.open() as store:
        filled = await fill(store)
        old = await back_up(store)
        await erase(store, ADMIN, ErasureScope(end_user="anna@example.com"))
        newest = await copy(store, StreamKind.KEYS)
    with postgresql.scratch() as url:
        async with replace(make_elsewhere(tenant, folder), url=url, limits=tenant.limits).open() as other:
            assert (await restore(other, Files(old.backup, newest))).unreadable_rows == 3
            with pytest.raises(UnreadableContentError, match="is gone"):
                await read_texts(other, filled)
            assert await read_texts(other, filled, BERT) == [say("x"), say("y")]


async def test_a_backup_of_an_older_schema_is_migrated(tenant: Volume, postgresql: Postgres, folder: Path) -> None:
    here = replace(tenant, url="")
    async with here.open() as store:
        issued = await create_key(store, ADMIN, KeySpec("old"))
        files = await back_up_first_schema(store)
    with postgresql.scratch() as url:
        async with replace(make_elsewhere(here, folder), url=url, limits=tenant.limits).open() as other:
            assert "conversations" not in (await restore(other, files)).rows
            assert await verify_key(issued.key.encode(), other, other.clock.read()) is not None
            assert migration.read_revision(other.require_data().database) == migration.get_head()
            assert (await verify_audit(other)).problem == ""


async def test_a_database_that_is_lost_during_a_restore_has_nothing_of_it(
    tenant: Volume, postgresql: Postgres, folder: Path
) -> None:
    async with tenant.open() as store:
        filled = await fill(store)
        files = await back_up(store)
    with postgresql.scratch() as url:
        database, stream = url.rpartition("/")[2], io.BytesIO(files.body)

        def read(count: int) -> bytes:
            if stream.tell() > len(files.keys):
                with psycopg.connect(postgresql.dsn(), autocommit=True) as admin:
                    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                    admin.execute(others, (database,))
            return stream.read(count)

        async with replace(make_elsewhere(tenant, folder), url=url, limits=tenant.limits).open() as other:
            with pytest.raises(UnavailableError):
                await restore_backup(other, ADMIN, read)
            await other.maintain()
            assert other.state.is_ready, other.state
            assert (await verify_audit(other)).records == 0
            await restore(other, files)
            assert await read_texts(other, filled) == [say("x"), say("y")]


def test_a_restore_that_is_killed_leaves_the_state_before_or_after(
    tenant: Volume, postgresql: Postgres, folder: Path
) -> None:
    with postgresql.scratch() as url:
        asyncio.run(prepare(replace(tenant, url=""), folder, url))
        name = url.rpartition("/")[2]
        with psycopg.connect(postgresql.dsn(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}_new" TEMPLATE "{name}"')
            try:
                kill_restores(folder, url, postgresql.dsn(), stride=2)
            finally:
                connection.execute(f'DROP DATABASE "{name}_new"')
