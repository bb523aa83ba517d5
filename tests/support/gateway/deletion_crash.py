"""Kill a gateway at each statement that deletes large knowledge, as `content_crash` does: run as a process of its own.

What is deleted is not seen from the first commit on, the books are right after each, and the next gateway deletes the
rest in its rounds.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.store.content.content import DeletionStep, ListPage
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.retention import prune_knowledge
from support.gateway.content import LIMITS, check_books
from support.gateway.content_crash import State, main
from support.gateway.knowledge import add_file, ingest, make_batch, make_knowledge, make_store, upload
from support.gateway.tenant_data import make_caller

KEY = make_caller()
ALL = ListPage(100, is_ascending=True)
STEP = DeletionStep(batches=2, parts=2)
BATCHES = [make_batch(position, "one", "two") for position in range(3)]


def open_knowledge(store: TenantStore) -> TenantKnowledge:
    """Return knowledge of which three batches are large."""
    return make_knowledge(store, replace(LIMITS, deletion=STEP))


async def prepare(store: TenantStore) -> None:
    """Store a large file, and three vector stores with it."""
    knowledge = open_knowledge(store)
    key = knowledge.identify(KEY)
    large = await upload(knowledge, key, *[b"part"] * 3, name="large.txt")
    for name in "abc":
        store_id = await make_store(knowledge, key, name)
        await ingest(knowledge, key, await add_file(knowledge, key, store_id, large.id), *BATCHES)


async def take_steps(store: TenantStore, on_step: Callable[[], None]) -> None:
    """Delete a file from a vector store, a vector store, and a file; `on_step` is called when a change is committed."""
    knowledge = open_knowledge(store)
    key = knowledge.identify(KEY)
    files = await knowledge.read(key, lambda one: one.list_files(ALL))
    listed = await knowledge.read(key, lambda one: one.list_vector_stores(ALL))
    assert files is not None
    assert listed is not None
    (large,), stores = files.entries, {one.name: one.id for one in listed.entries}
    for step in (
        lambda one: one.remove_store_file(stores["a"], large.id),
        lambda one: one.delete_vector_store(stores["b"]),
        lambda one: one.delete_file(large.id),
    ):
        assert await knowledge.write(key, step)
        on_step()
        while await knowledge.write(key, lambda one: one.drop_deleted()):
            on_step()
        on_step()


async def read_state(store: TenantStore) -> State:
    """Return what callers see and how many rows there are, and let the next gateway's rounds delete the rest."""
    knowledge, seen = make_knowledge(store), State()
    key = knowledge.identify(KEY)
    stores = await knowledge.read(key, lambda one: one.list_vector_stores(ALL))
    files = await knowledge.read(key, lambda one: one.list_files(ALL))
    assert stores is not None
    assert files is not None
    for one_store in stores.entries:
        listed = await knowledge.read(key, lambda one: one.list_store_files(one_store.id, ALL))  # noqa: B023
        assert listed is not None
        seen.append([one_store.name, one_store.version, one_store.chunks, len(listed.entries)])
        for one_file in listed.entries:
            batches = await knowledge.read(key, lambda one: one.read_batches(one_file))  # noqa: B023
            assert len(batches) == one_file.batches, "what is seen is whole"
    tables = (t.files, t.file_parts, t.vector_stores, t.vector_store_files, t.chunk_batches)
    rows = [await store.read(lambda one: _count(one, table)) for table in tables]  # noqa: B023
    await store.read(_check_sizes)
    while await store.write(lambda one: prune_knowledge(one.connection, one.now, step=STEP)):
        pass
    left = await knowledge.read(key, lambda one: one.list_vector_stores(ALL))
    assert left is not None
    assert await store.read(lambda one: _count(one, t.vector_stores)) == len(left.entries), "nothing hidden is left"
    assert await store.read(lambda one: _count(one, t.files)) == len(files.entries)
    assert await store.read(lambda one: _count(one, t.chunk_batches) * 2) == sum(one.chunks for one in left.entries)
    await store.read(_check_sizes)
    return [sorted(seen, key=str), len(files.entries), rows]


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _check_sizes(connection: sa.Connection) -> None:
    check_books(connection)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), take_steps, read_state, prepare)
