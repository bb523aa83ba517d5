"""Kill a gateway at each statement that changes knowledge, as `content_crash` does: run as a process of its own."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_gateway.store.administration.admin import rotate_data_keys
from r1plus_gateway.store.content.content import ListPage
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.keys.key_rotation import continue_rotation, read_rotation
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from r1plus_gateway.store.upkeep.retention import prune_knowledge
from support.gateway.content import check_books
from support.gateway.content_crash import State, main
from support.gateway.knowledge import INGESTION, add_file, make_batch, make_knowledge, make_store
from support.gateway.tenant_data import ADMIN, make_caller

KEY, ANNA = make_caller(), make_caller(end_user="anna")
ALL = ListPage(100, is_ascending=True)


async def take_steps(store: TenantStore, on_step: Callable[[], None]) -> None:
    """Change knowledge in each way that there is; `on_step` is called when a change is committed."""
    knowledge = make_knowledge(store)
    key, anna = knowledge.identify(KEY), knowledge.identify(ANNA)
    names = {}
    for owner in (key, anna):
        file_id = await knowledge.write(owner, lambda one: one.begin_file("a.txt"))
        on_step()
        await knowledge.write(owner, lambda one: one.append_part(file_id, 0, b"one"))  # noqa: B023
        on_step()
        await knowledge.write(owner, lambda one: one.finish_file(file_id, "a.txt", "assistants", None))  # noqa: B023
        on_step()
        store_id = await make_store(knowledge, owner)
        on_step()
        file = await add_file(knowledge, owner, store_id, file_id)
        on_step()
        for position in range(2):
            batch = make_batch(position, "one", "two")
            await knowledge.write(owner, lambda one: one.append_batch(file, batch, INGESTION))  # noqa: B023
            on_step()
        await knowledge.write(owner, lambda one: one.finish_ingestion(file, INGESTION, 2))  # noqa: B023
        on_step()
        names[owner.end_user] = (file_id, store_id, file)
    file_id, store_id, file = names[""]
    other = make_batch(0, "one", "two", engine="another@sha256:01")
    await knowledge.write(key, lambda one: one.replace_vectors(file, other))
    on_step()
    found = await knowledge.read(key, lambda one: one.find_vector_store(store_id))
    assert found is not None
    await knowledge.write(key, lambda one: one.change_vector_store(replace(found, name="other", expires_days=1)))
    on_step()
    await knowledge.write(key, lambda one: one.change_store_file(store_id, file_id, {"topic": "other"}))
    on_step()
    await add_and_cancel(knowledge, key, store_id, on_step)
    await rotate_data_keys(store, ADMIN)
    on_step()
    cipher = store.cipher
    while await store.write(lambda one: continue_rotation(one.connection, cipher, one.now, 2)):
        on_step()
    on_step()
    await knowledge.write(key, lambda one: one.delete_file(file_id))
    on_step()
    await erase(store, ADMIN, ErasureScope(end_user="anna"))
    on_step()
    await store.write(lambda one: prune_knowledge(one.connection, one.now + 2 * 86400))
    on_step()


async def add_and_cancel(knowledge: TenantKnowledge, owner: Owner, store_id: str, on_step: Callable[[], None]) -> None:
    """Add a batch of two files, read a part of one, and cancel the batch; and drop an upload that was cut."""
    cut, ingestions = await knowledge.write(owner, lambda one: one.begin_file("d.txt")), {}
    on_step()
    await knowledge.write(owner, lambda one: one.append_part(cut, 0, b"one"))
    on_step()
    for name in ("b.txt", "c.txt"):
        file_id = await knowledge.write(owner, lambda one: one.begin_file(name))  # noqa: B023
        on_step()
        await knowledge.write(owner, lambda one: one.finish_file(file_id, name, "assistants", None))  # noqa: B023
        on_step()
        ingestions[file_id] = INGESTION
    await knowledge.write(owner, lambda one: one.add_store_files(store_id, ingestions, "vsfb_1"))
    on_step()
    file = await knowledge.read(owner, lambda one: one.find_store_file(store_id, next(iter(ingestions))))
    assert file is not None
    await knowledge.write(owner, lambda one: one.append_batch(file, make_batch(0, "one"), INGESTION))
    on_step()
    await knowledge.write(owner, lambda one: one.cancel_batch(store_id, "vsfb_1"))
    on_step()
    await knowledge.write(owner, lambda one: one.drop_upload(cut))
    on_step()


async def read_state(store: TenantStore) -> State:
    """Return all that can be read, without ids; raises AssertionError where the books are wrong."""
    knowledge, state = make_knowledge(store), State()
    for caller in (KEY, ANNA):
        owner = knowledge.identify(caller)
        files = await knowledge.read(owner, lambda one: one.list_files(ALL))
        assert files is not None
        for file in files.entries:
            part = await knowledge.read(owner, lambda one: one.read_part(file.id, 0))  # noqa: B023
            state.append([file.name, file.bytes, None if part is None else part.decode()])
        stores = await knowledge.read(owner, lambda one: one.list_vector_stores(ALL))
        assert stores is not None
        for one_store in stores.entries:
            listed = await knowledge.read(owner, lambda one: one.list_store_files(one_store.id, ALL))  # noqa: B023
            assert listed is not None
            state.append([one_store.name, one_store.version, one_store.chunks, one_store.expires_days])
            for one_file in listed.entries:
                batches = await knowledge.read(owner, lambda one: one.read_batches(one_file))  # noqa: B023
                assert sum(len(batch.chunks) for batch in batches) == one_file.chunks
                texts = [[batch.engine, batch.chunks[0].text] for batch in batches]
                state.append([one_file.state, dict(one_file.ingestion.attributes), texts])
    rotation = await store.read(read_rotation)
    # What is not seen yet, too: parts of an upload.
    return [
        sorted(state, key=str),
        [rotation.owners, rotation.older_keys, rotation.rows_left],
        await store.read(check_sizes),
    ]


def check_sizes(connection: object) -> int:
    """Return the bytes of all content, after comparing the books with the rows."""
    return check_books(connection)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), take_steps, read_state)
