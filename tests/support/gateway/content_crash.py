"""Kill a gateway at each statement that changes stored content, and see what is left: run as a process of its own.

Prints a JSON line: what was wrong, and for each kill how many steps were done and what could be read after it. A child
is forked for each, which costs milliseconds; the process that forks has no threads.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from r1plus_assistant.store.content_writer import ContentWriter
from r1plus_gateway.store.administration.admin import rotate_data_keys, verify_audit
from r1plus_gateway.store.content.content import ListPage, MemoryChanges, MemorySource, StoredResponse
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.migration import get_head
from r1plus_gateway.store.keys.key_rotation import continue_rotation, read_rotation
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from r1plus_gateway.store.upkeep.retention import prune_content
from support.gateway.content import check_books, make_content, say
from support.gateway.tenant_data import ADMIN, Volume, make_caller

ANNA, BERT = make_caller(end_user="anna"), make_caller(end_user="bert")
DAY = 86400.0
State = list[Any]
Steps = Callable[[TenantStore, Callable[[], None]], Awaitable[None]]
"""Changes content in each way that there is, and calls the function when a change is committed."""
Prepare = Callable[[TenantStore], Awaitable[None]]
"""Stores what the steps change; it is not killed."""
ReadState = Callable[[TenantStore], Awaitable[State]]


async def take_steps(store: TenantStore, on_step: Callable[[], None]) -> None:
    """Change content in each way that there is; `on_step` is called when a change is committed."""
    content, names = make_content(store), {}
    for caller in (ANNA, BERT):
        made = await content.write(caller, lambda one: one.create_conversation({"a": "b"}, [say("one"), say("two")]))
        names[caller.end_user] = made.id
        on_step()
    anna = names["anna"]
    await content.write(ANNA, lambda one: one.append_items(anna, [say("three")]))
    on_step()
    await content.write(ANNA, lambda one: one.replace_attributes(anna, {"c": "d"}))
    on_step()
    for number in range(2):
        answer = StoredResponse(f"resp_{number}", "", [say("q")], {"text": "a"})
        await content.write(ANNA, lambda one: one.store_response(answer))  # noqa: B023
        on_step()
    await content.write(ANNA, lambda one: one.delete_response("resp_1"))
    on_step()
    made = await content.write(BERT, lambda one: one.create_conversation({}, [say("one"), say("two")]))
    on_step()
    await content.write(ANNA, lambda one: _store_answer(one, anna))
    on_step()
    await content.write(BERT, lambda one: one.delete_conversation(made.id))
    on_step()
    listed = await content.read(ANNA, lambda one: one.list_items(anna, ListPage(is_ascending=True)))
    assert listed is not None
    await content.write(ANNA, lambda one: one.delete_item(anna, listed.entries[0].id))
    on_step()
    kept = await content.write(ANNA, lambda one: one.add_memory("I live in Kiel.", MemorySource.PINNED, 30))
    on_step()
    await content.write(ANNA, lambda one: one.replace_memory(kept.id, "I live in Bonn.", 30))
    on_step()
    changes = MemoryChanges(["I live in Ulm.", "My cat is called Mo."], [kept.id])
    await content.write(ANNA, lambda one: one.change_memories(changes, 30))
    on_step()
    said = await content.read(ANNA, lambda one: one.read_memories())
    cat = next(memory for memory in said if "cat" in memory.text)  # both are of one moment, in any order
    await content.write(ANNA, lambda one: one.delete_memory(cat.id))
    on_step()
    await content.write(BERT, lambda one: one.add_memory("I eat no fish.", MemorySource.SAID, 1))
    on_step()
    await rotate_data_keys(store, ADMIN)
    on_step()
    cipher = store.cipher
    while await store.write(lambda one: continue_rotation(one.connection, cipher, one.now, 2)):
        on_step()
    on_step()
    await erase(store, ADMIN, ErasureScope(end_user="anna"))
    on_step()
    await store.write(lambda one: prune_content(one.connection, one.now + 2 * DAY, 30.0))
    on_step()
    await store.write(lambda one: prune_content(one.connection, one.now + 31 * DAY, 30.0))
    on_step()


def _store_answer(writer: ContentWriter, conversation_id: str) -> None:
    """Store all of one answer, as a request in a conversation that keeps memories does."""
    writer.append_items(conversation_id, [say("q"), say("a", "assistant")])
    writer.store_response(StoredResponse("resp_1", "resp_0", [say("q")], {"text": "a"}))
    writer.change_memories(MemoryChanges(["My bike is green."], []), 30)


async def read_state(store: TenantStore) -> State:
    """Return all that can be read, without ids; raises AssertionError where the books are wrong."""
    content, state = make_content(store), State()
    for caller in (ANNA, BERT):
        conversations = await content.read(caller, lambda one: one.list_conversations(ListPage(100)))
        assert conversations is not None
        entries = State()
        for one in conversations.entries:
            items = await content.read(caller, lambda reader: reader.list_items(one.id, ListPage(100)))  # noqa: B023
            assert items is not None
            entries.append([caller.end_user, dict(one.attributes), [item.content for item in items.entries]])
        state += sorted(entries, key=str)  # they are of one moment, in any order
        memories = await content.read(caller, lambda one: one.read_memories())
        state.append([caller.end_user, sorted((one.text, one.source) for one in memories)])
        for number in range(2):
            response = await content.read(caller, lambda one: one.find_response(f"resp_{number}"))  # noqa: B023
            state.append([caller.end_user, None if response is None else response.answer])
    rotation = await store.read(read_rotation)
    await store.read(_check_books)
    assert not (await verify_audit(store)).problem
    return [state, [rotation.owners, rotation.older_keys, rotation.rows_left]]


def _check_books(connection: sa.Connection) -> None:
    check_books(connection)
    known = sa.select(t.conversations.c.id)
    lost = connection.scalars(
        sa.select(t.conversation_items.c.id).where(t.conversation_items.c.conversation_id.not_in(known))
    ).all()
    assert not lost, "items without a conversation are left"


async def make_data(volume: Volume, prepare: Prepare | None) -> None:
    """Migrate new data, and store in them what the steps change."""
    async with volume.make().open() as store:
        if prepare is not None:
            await prepare(store)


async def run_until_killed(volume: Volume, statement: int, report: int, steps: Steps) -> None:
    """Change content, and end by SIGKILL before the n-th statement that changes something; tell of steps on `report`."""
    store = volume.make_store()
    assert await store.open()
    count = 0

    def kill(*event: Any) -> None:
        nonlocal count
        is_read = not event[0].get_execution_options()["r1plus_writes"]
        if not is_read and not event[2].lstrip().upper().startswith(("SELECT", "PRAGMA")):
            count += 1
            if count == statement:
                os.kill(os.getpid(), signal.SIGKILL)

    def say_step() -> None:
        os.write(report, b".")

    engine = store.require_data().database.engine
    sa.event.listen(engine, "before_cursor_execute", kill)
    sa.event.listen(engine, "commit", lambda connection: kill(connection, 0, "COMMIT"))
    await steps(store, say_step)
    await store.close()


def fork(work: Callable[[int], Any]) -> tuple[bytes, int]:
    """Run `work` in a child with a pipe to write to; return what it wrote, and its exit status."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            asyncio.run(work(writer))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        written = file.read()
    return written, os.waitpid(pid, 0)[1]


async def read_after(volume: Volume, report: int, read: ReadState) -> None:
    """Open the data again, and write what can be read to `report`."""
    async with volume.open() as store:
        os.write(report, json.dumps(await read(store)).encode())


def main(folder: Path, stride: int, take: Steps, read: ReadState, prepare: Prepare | None = None) -> None:
    """Kill at each statement of some steps, or at each one of so many, until a child ends by itself.

    Each kill has a copy of the same data, which are made once.
    """
    problems, seen, statement, has_ended = [], [], 1, False
    get_head()  # No child has to read the migrations.
    _, status = fork(lambda _: make_data(Volume(folder / "new"), prepare))
    assert status == 0, "the data could not be made"
    while not has_ended:
        volume = Volume(folder / str(statement))
        shutil.copytree(folder / "new", volume.folder)
        steps, status = fork(lambda report: run_until_killed(volume, statement, report, take))  # noqa: B023
        has_ended = status == 0
        if not has_ended and not os.WIFSIGNALED(status):
            problems.append(f"statement {statement}: a step failed")
            break
        text, status = fork(lambda report: read_after(volume, report, read))  # noqa: B023
        if status != 0:
            problems.append(f"statement {statement}, after {len(steps)} steps: what is left is not right")
        else:
            seen.append([len(steps), json.loads(text)])
        statement += stride
    print(json.dumps({"problems": problems, "seen": seen}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), take_steps, read_state)
