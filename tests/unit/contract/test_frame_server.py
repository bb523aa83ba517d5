"""How many connections a process that answers frames has at once, and that its end waits for running answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from r1plus_contract.frame_server import MOST_CONNECTIONS, serve_frames
from r1plus_contract.frames import pack
from support.waiting import eventually

MOST_BYTES = 64
PATIENT_SECONDS = 60.0


@asynccontextmanager
async def connect(path: Path, data: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """Connect, and send this."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(data)
        yield reader
    finally:
        writer.close()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Return all that comes until the connection is closed."""
    return await asyncio.wait_for(reader.read(), PATIENT_SECONDS)


async def test_as_many_connections_as_allowed_are_answered_and_one_more_is_closed(tmp_path: Path) -> None:
    requests, may_answer = [], asyncio.Event()

    async def answer(payload: bytes) -> bytes:
        requests.append(payload)
        await may_answer.wait()
        return b"answer"

    path = tmp_path / "socket"
    async with AsyncExitStack() as clients, serve_frames(path, answer, MOST_BYTES):
        allowed = [await clients.enter_async_context(connect(path, pack(b"a"))) for _ in range(MOST_CONNECTIONS)]
        await eventually(lambda: len(requests) == MOST_CONNECTIONS, "each request waits for its answer")
        excess = await clients.enter_async_context(connect(path, b""))
        assert await read_all(excess) == b""
        may_answer.set()
        assert {await read_all(reader) for reader in allowed} == {pack(b"answer")}


async def test_the_end_waits_for_an_answer_that_runs(tmp_path: Path) -> None:
    is_asked, may_answer = asyncio.Event(), asyncio.Event()
    answered = []

    async def answer(payload: bytes) -> bytes:
        is_asked.set()
        await may_answer.wait()
        answered.append(payload)
        return payload

    path = tmp_path / "socket"
    async with AsyncExitStack() as clients:
        async with serve_frames(path, answer, MOST_BYTES):
            reader = await clients.enter_async_context(connect(path, pack(b"a")))
            await is_asked.wait()
            asyncio.get_running_loop().call_soon(may_answer.set)
        assert (answered, path.exists()) == ([b"a"], False)
        assert await read_all(reader) == pack(b"a")
