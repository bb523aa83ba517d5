"""Requests of a tenant that go on while its root is rotated: none of them may fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.backups import BERT, Filled, read_texts
from support.gateway.content import make_content, say
from support.gateway.tenant_data import settle

TEXTS = [say("x"), say("y")]
"""What a filled store has of `BERT`."""


@asynccontextmanager
async def unbroken_traffic(store: TenantStore, filled: Filled) -> AsyncIterator[dict[str, int]]:
    """Read and write content, find keys and count all through the block; yield how often each was done."""
    content, ended = make_content(store), asyncio.Event()
    done = dict.fromkeys(("read", "write", "key", "count"), 0)

    async def read() -> None:
        assert await read_texts(store, filled, BERT) == TEXTS

    async def write() -> None:
        caller = replace(BERT, end_user=f"new-{done['write']}@example.com")
        made = await content.write(caller, lambda one: one.create_conversation({}, [say("z")]))
        assert await content.read(caller, lambda one: one.find_conversation(made.id)) is not None

    async def find() -> None:
        assert await verify_key(filled.key.key.encode(), store, store.clock.read()) is not None

    async def count() -> None:
        await settle(store, await store.ledger.reserve(f"r{done['count']}", BERT, "credit", 10), 1, 1)

    async def repeat(name: str, step: Callable[[], Awaitable[None]]) -> None:
        while not ended.is_set():
            await step()
            done[name] += 1

    steps = {"read": read, "write": write, "key": find, "count": count}
    async with asyncio.TaskGroup() as tasks:
        for name, step in steps.items():
            tasks.create_task(repeat(name, step))
        yield done
        ended.set()
