"""Stored content in a real PostgreSQL, which replicas share."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from r1plus_assistant.store.content_writer import ContentWriter
from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.store.content.content import ContentLimitError, ContentLimits, ListPage
from r1plus_gateway.store.database import tables as t
from support.gateway.content import check_books, make_content, say
from support.gateway.content_crash import read_state, take_steps
from support.gateway.tenant_data import PATIENT_LIMITS, Volume, make_caller
from support.registry.postgres import Cluster, Postgres
from support.tables import for_each
from support.waiting import eventually

pytestmark = pytest.mark.postgres
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
            listed = await content.read(CALLER, lambda one: one.list_items(made.id, ListPage(100, is_ascending=True)))
            assert listed is not None
            said = [item.content["content"][0]["text"] for item in listed.entries]
            assert sorted(said) == sorted(texts[0] + texts[1])
            assert [text for text in said if text.startswith("a")] == texts[0]


async def test_a_limit_holds_over_replicas(tenant: Volume) -> None:
    limits, key = ContentLimits(20_000, 20_000), make_caller()
    async with tenant.open() as first, tenant.open() as second:
        contents = [make_content(store, limits) for store in (first, second)]

        async def fill(side: int) -> int:
            count = 0
            with pytest.raises(ContentLimitError):
                while True:
                    await contents[side].write(key, lambda one: one.create_conversation({}, [say("x" * 1000)]))
                    count += 1
            return count

        counts = await asyncio.gather(fill(0), fill(1))
        with first.require_data().database.transaction(writes=False) as connection:
            stored = connection.scalar(sa.select(sa.func.sum(t.content_sizes.c.bytes)))
            rows = connection.scalar(sa.select(sa.func.count()).select_from(t.conversations))
        assert 18_000 < int(stored or 0) <= 20_000
        assert rows == sum(counts)


def end_sessions(server: Postgres) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def restart(server: Postgres) -> None:
    server.stop()
    server.start()


@for_each("interrupt", {"its session is ended": end_sessions, "the server is restarted": restart})
async def test_a_change_that_the_database_interrupts_leaves_nothing_and_the_next_one_is_stored(
    cluster: Cluster, tmp_path: Path, interrupt: Callable[[Postgres], None]
) -> None:
    with closing(Postgres(cluster)) as server:
        server.start()
        async with Volume(tmp_path, url=server.dsn(), limits=PATIENT_LIMITS).make().open() as store:
            content = make_content(store)
            made = await content.write(CALLER, lambda one: one.create_conversation({}, [say("before")]))

            def append(writer: ContentWriter) -> None:
                writer.append_items(made.id, [say("first half")])
                interrupt(server)
                writer.append_items(made.id, [say("second half")])

            with pytest.raises(AccessError) as refusal:
                await content.write(CALLER, append)
            assert (refusal.value.status, refusal.value.code) == (503, "data_unavailable")

            async def append_another() -> bool:
                return bool(await content.write(CALLER, lambda one: one.append_items(made.id, [say("after")])))

            await eventually(append_another, "the next change is stored", retry_on=(AccessError,))
            listed = await content.read(CALLER, lambda one: one.list_items(made.id, ListPage(is_ascending=True)))
            assert listed is not None
            assert [item.content for item in listed.entries] == [say("before"), say("after")]
            await store.read(check_books)
