"""Stored content in a real PostgreSQL, which replicas share."""

import asyncio

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from r1plus_gateway.store import tables as t
from r1plus_gateway.store.content import ContentLimitError, ContentLimits, Page
from support.gateway.content import make_content, say
from support.gateway.content_crash import read_state, take_steps
from support.gateway.tenant_data import Volume, make_caller

CALLER = make_caller(end_user="anna")


async def test_every_change_of_content_leaves_the_books_right(tenant: Volume) -> None:
    async with tenant.open() as store:
        await take_steps(store, lambda: None)
        state, rotation = await read_state(store)
    nothing = [[caller, left] for caller in ("anna", "bert") for left in ([], None, None)]
    assert (state, rotation) == (nothing, [0, 0, 0])


async def test_the_migrations_make_the_tables(tenant: Volume) -> None:
    async with tenant.open() as store:
        with store.require_data().database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), t.metadata) == []


async def test_replicas_see_each_others_content_and_append_in_turn(tenant: Volume) -> None:
    async with tenant.open() as first, tenant.open() as second:
        contents = [make_content(first), make_content(second)]
        made = await contents[0].write(CALLER, lambda one: one.create_conversation({}, []))
        texts = [[f"{side}-{number}" for number in range(30)] for side in "ab"]

        async def append(side: int) -> None:
            for text in texts[side]:
                await contents[side].write(CALLER, lambda one: one.append_items(made.id, [say(text)]))  # noqa: B023

        await asyncio.gather(append(0), append(1))
        for content in contents:
            listed = await content.read(CALLER, lambda one: one.list_items(made.id, Page(100, is_ascending=True)))
            assert listed is not None
            said = [item.content["content"][0]["text"] for item in listed.entries]
            assert sorted(said) == sorted(texts[0] + texts[1])
            assert [text for text in said if text.startswith("a")] == texts[0]


async def test_a_limit_holds_over_replicas(tenant: Volume) -> None:
    limits = ContentLimits(20_000, 20_000)
    async with tenant.open() as first, tenant.open() as second:
        contents = [make_content(store, limits) for store in (first, second)]

        async def fill(side: int) -> int:
            count = 0
            with pytest.raises(ContentLimitError):
                while True:
                    await contents[side].write(CALLER, lambda one: one.create_conversation({}, [say("x" * 1000)]))
                    count += 1
            return count

        counts = await asyncio.gather(fill(0), fill(1))
        with first.require_data().database.transaction(writes=False) as connection:
            stored = connection.scalar(sa.select(sa.func.sum(t.content_sizes.c.bytes)))
            rows = connection.scalar(sa.select(sa.func.count()).select_from(t.conversations))
        assert 18_000 < int(stored or 0) <= 20_000
        assert rows == sum(counts)
