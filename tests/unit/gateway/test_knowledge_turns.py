"""Long reads of the knowledge base: no kind waits for another, and callers take turns at each."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from r1plus_assistant.knowledge.documents import SocketDocumentReader
from r1plus_assistant.knowledge.index_cache import IndexCache
from r1plus_assistant.store.tenant_knowledge import TenantKnowledge
from r1plus_contract.documents import DocumentReply, TextBlock
from r1plus_contract.frames import pack
from r1plus_contract.jsonable import dumps
from r1plus_gateway.access.caller import AccessError
from r1plus_gateway.store.database.readers import ReadKind
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.knowledge import ENGINE, add_file, ingest, make_batch, make_knowledge, make_store, upload
from support.gateway.tenant_data import make_caller
from support.waiting import eventually

GREEDY, OTHER = make_caller(), make_caller("key000000002")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What lets a long read end; it ends with the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


@contextlib.asynccontextmanager
async def hold(store: TenantStore, kind: ReadKind, release: threading.Event) -> AsyncIterator[None]:
    """Let a read of this kind run during the block."""
    is_open = threading.Event()

    def wait(_: object) -> None:
        is_open.set()
        release.wait()

    task = asyncio.create_task(store.read(wait, kind=kind))
    await eventually(is_open.is_set, "the read runs")
    try:
        yield
    finally:
        release.set()
        await task


async def fill(knowledge: TenantKnowledge, owner: Owner, *texts: str) -> str:
    """Return a vector store with a file of these chunks."""
    store_id = await make_store(knowledge, owner)
    file = await upload(knowledge, owner, b"x")
    await ingest(knowledge, owner, await add_file(knowledge, owner, store_id, file.id), make_batch(0, *texts))
    return store_id


@pytest.mark.parametrize("kind", [ReadKind.AUDIT, ReadKind.LARGE_BUILD], ids=lambda one: one.value)
async def test_an_index_is_built_while_another_kind_of_read_runs(
    kind: ReadKind, store: TenantStore, release: threading.Event
) -> None:
    knowledge = make_knowledge(store)
    owner, indexes = knowledge.identify(OTHER), IndexCache(knowledge, lambda: 2**30)
    store_id = await fill(knowledge, owner, "a", "b")
    async with hold(store, kind, release):
        index = await asyncio.wait_for(indexes.get(owner, store_id, ENGINE), 60.0)
        assert index is not None
        assert len(index) == 2


async def test_a_large_index_holds_up_no_small_one(store: TenantStore, release: threading.Event) -> None:
    knowledge = make_knowledge(store)
    indexes = IndexCache(knowledge, lambda: 2**30, most_small=1)
    greedy, other = knowledge.identify(GREEDY), knowledge.identify(OTHER)
    large, small = await fill(knowledge, greedy, "a", "b"), await fill(knowledge, other, "a")
    async with hold(store, ReadKind.LARGE_BUILD, release):
        waiting = asyncio.create_task(indexes.get(greedy, large, ENGINE))
        assert await asyncio.wait_for(indexes.get(other, small, ENGINE), 60.0)
        assert not waiting.done()
    assert await waiting


async def test_a_key_that_asks_for_many_builds_gives_others_their_turn(
    store: TenantStore, release: threading.Event
) -> None:
    knowledge, order = make_knowledge(store), list[str]()

    async def build(owner: Owner) -> None:
        await knowledge.read(owner, lambda _: order.append(owner.caller_id), kind=ReadKind.LARGE_BUILD)

    async with hold(store, ReadKind.LARGE_BUILD, release):
        builds = [asyncio.create_task(build(knowledge.identify(GREEDY))) for _ in range(3)]
        builds.append(asyncio.create_task(build(knowledge.identify(OTHER))))
        await eventually(lambda: store.reads_waiting == 3, "each key has one build in line")
    await asyncio.gather(*builds)
    assert order == [GREEDY.id, OTHER.id, GREEDY.id, GREEDY.id]


async def test_parts_of_a_document_are_read_while_its_key_builds_indexes(
    store: TenantStore, release: threading.Event
) -> None:
    knowledge = make_knowledge(store)
    owner, is_open = knowledge.identify(GREEDY), threading.Event()
    file = await upload(knowledge, owner, b"part")

    def wait(_: object) -> None:
        is_open.set()
        release.wait()

    builds = [asyncio.create_task(knowledge.read(owner, wait, kind=kind)) for kind in ReadKind if kind.is_long]
    await eventually(is_open.is_set, "a build runs")
    part = knowledge.read(owner, lambda one: one.read_part(file.id, 0), line="parts")
    assert await asyncio.wait_for(part, 60.0) == b"part"
    release.set()
    await asyncio.gather(*builds)


async def test_a_document_whose_parts_cannot_be_read_now_is_not_said_to_take_too_long(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its reader waits for the rest, and says nothing meanwhile."""
    path, is_over = tmp_path_factory.mktemp("s") / "s", asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(pack(dumps(DocumentReply(blocks=(TextBlock("x"),))).encode()))
        await is_over.wait()
        writer.close()

    async def read_part(_: int) -> bytes:
        raise AccessError(503, "data_unavailable", "The tenant's data gave no answer for 10 s")

    async with await asyncio.start_unix_server(answer, path):
        with pytest.raises(AccessError, match="gave no answer"):
            async for _ in SocketDocumentReader(str(path), silence_seconds=20.0).read("a.txt", 1, read_part):
                pass
        is_over.set()
