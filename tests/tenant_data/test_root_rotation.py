"""Rotation of the root with PostgreSQL: replicas notice nothing but the new keys, and a kill leaves before or after."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.store.administration.admin import create_key, verify_audit
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.opening import read_key_material
from r1plus_gateway.store.errors import CorruptError
from r1plus_gateway.store.keys.adopted_root import open_roots
from r1plus_gateway.store.keys.content_cipher import ContentCipher, DataKey, Owner, UnreadableContentError
from r1plus_gateway.store.keys.key_rotation import read_rotation
from r1plus_gateway.store.keys.root_rotation import rotate_root
from r1plus_gateway.store.keys.tenant_keys import decode_ring, find_roots, make_half, read_halves
from r1plus_gateway.store.ledger.repository import MetaName, read_meta
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.backups import BERT, Filled, back_up, fill, make_elsewhere, read_texts, restore
from support.gateway.content import make_content, say
from support.gateway.killed_rotation import kill_rotations, prepare
from support.gateway.rotation_traffic import TEXTS, unbroken_traffic
from support.gateway.tenant_data import ADMIN, Volume
from support.registry.postgres import Postgres
from support.scratch import make_scratch_folder

pytestmark = [pytest.mark.postgres, pytest.mark.first_run_counts]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = make_scratch_folder("r1plus-tenant-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


async def test_another_replica_takes_the_new_root_without_a_failed_request(tenant: Volume) -> None:
    """It reads and writes content, finds keys and counts throughout; no beat comes between."""
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(tenant.open()) for _ in range(2)]
        filled = await fill(one)
        async with unbroken_traffic(other, filled) as done:
            for _ in range(3):
                await rotate_root(one, ADMIN)
                while (await one.read(read_rotation)).older_keys:
                    await one.maintain()
        assert min(done.values()) >= 3, done
        await require_same_keys(one, other, filled)


async def require_same_keys(one: TenantStore, other: TenantStore, filled: Filled) -> None:
    """Raise AssertionError unless both read, write and verify with the same keys."""
    issued = await create_key(other, ADMIN, KeySpec("later"))
    for store in (one, other):
        for key in (filled.key, issued):
            assert await verify_key(key.key.encode(), store, store.clock.read()) is not None
        assert await read_texts(store, filled) == TEXTS
        assert (await verify_audit(store)).problem == ""
        assert store.state.is_ready, store.state
    assert one.require_data().keys == other.require_data().keys


async def test_the_first_thing_that_another_replica_does_may_be_anything(tenant: Volume) -> None:
    async def read(store: TenantStore, filled: Filled) -> None:
        assert await read_texts(store, filled) == TEXTS

    async def write(store: TenantStore, _: Filled) -> None:
        await make_content(store).write(BERT, lambda one: one.create_conversation({}, [say("z")]))

    async def beat(store: TenantStore, _: Filled) -> None:
        await store.maintain()

    async def back(store: TenantStore, _: Filled) -> None:
        await back_up(store)

    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(tenant.open()) for _ in range(2)]
        filled = await fill(one)
        for step in (read, beat, back):
            for has_ended in (False, True):  # Then nothing is left that the old root opens.
                await rotate_root(one, ADMIN)
                if has_ended:
                    await one.maintain()
                await step(other, filled)
                await one.maintain()
                await require_same_keys(one, other, filled)
        await rotate_root(one, ADMIN)
        await write(other, filled)
        await rotate_and_continue(other)
        assert (await verify_audit(one)).problem == ""


async def rotate_and_continue(store: TenantStore) -> None:
    """Let another replica than the one that began end the rotation of data keys, and rotate."""
    await store.maintain()
    assert (await store.read(read_rotation)).older_keys == 0
    await rotate_root(store, ADMIN)
    await store.maintain()
    assert (await store.read(read_rotation)).older_keys == 0


async def test_who_had_a_half_and_a_copy_of_the_database_opens_no_content_of_later(
    tenant: Volume, postgresql: Postgres, folder: Path
) -> None:
    secret = tenant.config.secret_folder
    async with tenant.open() as store:
        filled = await fill(store)
        halves, data = read_halves(secret), store.require_data()
        old_rows = await store.read(lambda one: one.execute(sa.select(t.data_keys)).all())
        cipher = ContentCipher(lambda: data.keys, data.content_uid)
        stolen = [cipher.unwrap_key(row.id, Owner(*row[1:4]), bytes(row.wrapped_key)) for row in old_rows]
        old = await store.read(lambda one: read_key_material(tenant.config, one))
        (root,) = find_roots(decode_ring(old.ring, "old"), halves)
        (secret / "half-2").write_text(make_half())
        await store.maintain()
        (secret / "half-1").unlink()
        await store.maintain()
        await rotate_root(store, ADMIN)
        await store.maintain()
        new = await store.read(lambda one: read_key_material(tenant.config, one))
        assert find_roots(decode_ring(new.ring, "new"), halves) == ()
        with pytest.raises(CorruptError):
            open_roots((root,), new.adopted_root, tenant.tenant_uid, "the thief")
        rows = await store.read(lambda one: one.execute(sa.select(t.data_keys)).all())
        items = await store.read(lambda one: one.execute(sa.select(t.conversation_items)).all())
        assert len(rows) == 2 and len(items) == 4
        for row in rows:
            with pytest.raises(UnreadableContentError):
                cipher.unwrap_key(row.id, Owner(*row[1:4]), bytes(row.wrapped_key))
        for item in items:
            for key in stolen:
                with pytest.raises(UnreadableContentError):
                    cipher.decrypt(DataKey(item.key_id, key.value), "conversation_items", item.id, bytes(item.content))
        assert await store.read(lambda one: read_meta(one, MetaName.ROTATION_DUE)) is None
        files = await back_up(store)
    with postgresql.scratch() as url:
        there = replace(make_elsewhere(tenant, folder), url=url, limits=tenant.limits)
        async with AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(there.open()) for _ in range(2)]
            await restore(one, files)
            await other.maintain()
            await rotate_root(other, ADMIN)
            await require_same_keys(other, one, filled)


def test_a_rotation_that_is_killed_leaves_the_state_before_or_after(
    tenant: Volume, postgresql: Postgres, folder: Path
) -> None:
    with postgresql.scratch() as url:
        asyncio.run(prepare(folder, url))
        name = url.rpartition("/")[2]
        with psycopg.connect(postgresql.dsn(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}_new" TEMPLATE "{name}"')
            try:
                kill_rotations(folder, url, postgresql.dsn(), stride=2)
            finally:
                connection.execute(f'DROP DATABASE "{name}_new"')
