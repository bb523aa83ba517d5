"""Kill a gateway at each statement of a large erasure, as `content_crash` does: run as a process of its own.

What is erased is not seen from the first commit on, and the next gateway deletes the rest in its rounds.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from r1plus_gateway.store.administration.admin import verify_audit
from r1plus_gateway.store.content.content import ListPage, StoredResponse
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.upkeep.erasure import erase
from r1plus_gateway.store.upkeep.erasure_records import ErasureScope
from r1plus_gateway.store.upkeep.erasure_steps import ErasureStep, begin_erasure, continue_erasure
from support.gateway.content import check_books, make_content, say
from support.gateway.content_crash import ANNA, BERT, State, main
from support.gateway.knowledge import add_file, ingest, make_batch, make_knowledge, make_store, upload
from support.gateway.tenant_data import ADMIN

STEP = ErasureStep(rows=2)
SCOPE = ErasureScope(end_user="anna")


async def prepare(store: TenantStore) -> None:
    """Store content and documents of two end users."""
    content, knowledge = make_content(store), make_knowledge(store)
    for caller in (ANNA, BERT):
        await content.write(caller, lambda one: one.create_conversation({}, [say("one"), say("two"), say("three")]))
        answer = StoredResponse(f"resp_{caller.end_user}", "", [say("q")], {"text": "a"})
        await content.write(caller, lambda one: one.store_response(answer))  # noqa: B023
        owner = knowledge.identify(caller)
        file = await upload(knowledge, owner, b"one", b"two", b"three")
        added = await add_file(knowledge, owner, await make_store(knowledge, owner), file.id)
        await ingest(knowledge, owner, added, *(make_batch(position, "one") for position in range(3)))


async def take_steps(store: TenantStore, on_step: Callable[[], None]) -> None:
    """Erase one of the two; `on_step` is called when a part is committed."""
    pseudonym = store.require_data().keys.compute_pseudonym(SCOPE.end_user)
    erasure_id = await store.write(lambda ledger: begin_erasure(ledger, ADMIN.id, SCOPE, pseudonym, STEP))
    on_step()
    while await store.write(lambda ledger: continue_erasure(ledger, erasure_id, STEP)):
        on_step()
    on_step()


async def read_state(store: TenantStore) -> State:
    """Return what callers see and how many rows there are; let the next gateway's rounds delete the rest."""
    content, knowledge, seen = make_content(store), make_knowledge(store), State()
    for caller in (ANNA, BERT):
        owner = knowledge.identify(caller)
        conversations = await content.read(caller, lambda one: one.list_conversations(ListPage(100)))
        files = await knowledge.read(owner, lambda one: one.list_files(ListPage(100)))
        assert conversations is not None and files is not None
        seen.append([caller.end_user, len(conversations.entries), len(files.entries)])
    tables = (t.conversation_items, t.conversations, t.responses, t.chunk_batches, t.vector_store_files)
    more = (t.vector_stores, t.file_parts, t.files, t.data_keys)
    rows = [await store.read(lambda one: _count(one, table)) for table in (*tables, *more)]  # noqa: B023
    is_begun = await store.read(lambda one: _count(one, t.erasures)) > 0
    ends = await store.read(lambda one: one.scalar(sa.select(sa.func.count(t.erasures.c.finished_at))))
    await store.maintain()
    await store.read(_check)
    assert not (await verify_audit(store)).problem
    receipt = await erase(store, ADMIN, SCOPE)
    assert (receipt.conversations, receipt.items, receipt.chunks, len(receipt.data_keys)) == (1, 3, 3, 1)
    return [seen, rows, is_begun, ends]


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _check(connection: sa.Connection) -> None:
    check_books(connection)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), take_steps, read_state, prepare)
