"""Several resources at once: owner A takes two to four of them, drawn by a seed; B is served on, and all recovers.

Each is taken at its bound, a tenth beyond it, or ten times over. A has a key for each, so that a refusal of one leaves
the others held. `PYTEST_ADDOPTS="-k NUMBER"` runs one draw; a failure names its seed and what was drawn.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from bounds.table import load_bounds
from r1plus_gateway.descriptors import RESERVED_DESCRIPTORS
from r1plus_gateway.http.accounting.admission import MOST_REFUSED
from r1plus_gateway.http.application import MOST_USAGE_READS
from r1plus_gateway.http.listening.connections import MOST_INTERNAL_CONNECTIONS
from r1plus_gateway.store.administration.key_lookups import MOST_UNKNOWN_KEYS
from support.gateway.fake_triton import FakeTriton, Inputs, Piece, serving
from support.gateway.process import GatewayProcess, started
from support.gateway.rig import FakeMonitor
from support.open_files import limit_open_files
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts

SEEDS: Final = range(6)
TIMES: Final = (1.0, 1.1, 10.0)
CONNECTIONS: Final = 600
"""Of the gateway under test in all; of one address half as many."""
SLOTS: Final = 8
QUEUE: Final = 8
BODY_BYTES: Final = 256 * 1024
BODIES_OF_KEY: Final = 4
CONVERSATION_BYTES: Final = 16 * 1024
CONVERSATIONS: Final = 8
LIMITS: Final[Mapping[str, Any]] = {
    "queuePerKey": QUEUE,
    "queueSeconds": 600,
    "bodyBytes": BODY_BYTES,
    "bodiesBytes": 4 * BODIES_OF_KEY * BODY_BYTES,
    "bodySeconds": 600,
    "idleSeconds": 600,
    "contentBytesPerKey": CONVERSATIONS * CONVERSATION_BYTES,
    "contentBytesPerTenant": 80 * CONVERSATIONS * CONVERSATION_BYTES,
}
"""Small, so that ten times as much fits into a test; what is held ends by the test alone."""
AT_ONCE: Final = 16
"""Requests of A at one time, where their number counts and not how many run."""
HOLD: Final = "hold"
"""Prompt of a request that ends when the test says so."""


@dataclass
class Taking:
    """What one taking of A has: the gateway, a key of its own, and how much of the bound it takes."""

    gateway: GatewayProcess
    pod: FakeTriton
    key: str
    times: float
    stack: AsyncExitStack
    statuses: Counter[int] = field(default_factory=Counter)
    """Answers so far."""

    def multiply(self, bound: float) -> int:
        """Return how many are taken of a bound."""
        return round(bound * self.times)

    async def open_session(self) -> aiohttp.ClientSession:
        """Return a session from an address that is not B's."""
        connector = aiohttp.TCPConnector(limit=0, local_addr=("127.0.0.3", 0), force_close=True)
        return await self.stack.enter_async_context(aiohttp.ClientSession(connector=connector))

    async def send(
        self, session: aiohttp.ClientSession, method: str, path: str, body: Any = None, key: str = ""
    ) -> int:
        """Send a request, count its status, and return it; 0: the connection was closed."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        try:
            async with session.request(method, self.gateway.url + path, json=body, headers=headers) as response:
                await response.read()
                status = response.status
        except aiohttp.ClientError:
            status = 0
        self.statuses[status] += 1
        return status

    def keep(self, *work: Awaitable[Any]) -> None:
        """Run this until the block ends."""
        tasks = [asyncio.ensure_future(one) for one in work]

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.stack.push_async_callback(end)

    async def repeat(self, count: int, ask: Callable[[int], Awaitable[Any]], rounds: int = 1000) -> None:
        """Let so many ask again and again, until the block ends at the latest; return when each has had an answer."""
        answered: Counter[int] = Counter()

        async def go_on(number: int) -> None:
            for _ in range(rounds):
                await ask(number)
                answered[number] += 1

        self.keep(*(go_on(number) for number in range(count)))
        await eventually(lambda: len(answered) == count, f"all of {count} have an answer")


async def _connect(taking: Taking, port: int, count: int) -> None:
    """Open so many connections from another address, without a key, and leave them open."""
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        taking.stack.callback(writer.close)


async def take_connections(taking: Taking) -> None:
    """Hold idle connections."""
    await _connect(taking, taking.gateway.port, taking.multiply(CONNECTIONS // 2))


async def take_internal_connections(taking: Taking) -> None:
    """Hold idle connections to the port of metrics and probes."""
    await _connect(taking, taking.gateway.internal_port, taking.multiply(MOST_INTERNAL_CONNECTIONS // 2))


async def take_queue(taking: Taking) -> None:
    """Hold slots and places of the queue by requests that do not end."""
    session, bound = await taking.open_session(), 3 * SLOTS // 4 + QUEUE
    count = taking.multiply(bound)
    body = {"model": "credit", "prompt": HOLD}
    taking.keep(*(taking.send(session, "POST", "/v1/generate", body) for _ in range(count)))

    def is_held() -> bool:
        return taking.pod.running == 3 * SLOTS // 4 and sum(taking.statuses.values()) >= count - bound

    await eventually(is_held, "slots and queue are full", evidence=lambda: f"{taking.pod.running} {taking.statuses}")
    assert set(taking.statuses) <= {503}


async def take_bodies(taking: Taking) -> None:
    """Hold the room of bodies by requests whose body does not arrive."""
    refused: list[bytes] = []
    head = (
        f"POST /v1/generate HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {taking.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\n\r\n{{"
    )

    async def read(reader: asyncio.StreamReader) -> None:
        if line := await reader.readline():
            refused.append(line)

    count = taking.multiply(BODIES_OF_KEY)
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", taking.gateway.port, local_addr=("127.0.0.3", 0))
        taking.stack.callback(writer.close)
        writer.write(head.encode())
        taking.keep(read(reader))
    await eventually(lambda: len(refused) == count - BODIES_OF_KEY, "those without room are refused")
    assert all(b" 503 " in line for line in refused)


async def take_refusals(taking: Taking) -> None:
    """Send requests that are refused, until none is read any more."""
    session = await taking.open_session()
    body = {"model": "no-such-model", "prompt": "x"}
    left = iter(range(taking.multiply(MOST_REFUSED)))

    async def send_all() -> None:
        for _ in left:
            await taking.send(session, "POST", "/v1/generate", body)

    await asyncio.gather(*(send_all() for _ in range(AT_ONCE)))
    assert set(taking.statuses) <= {404, 429}
    assert taking.statuses[429] or taking.times < max(TIMES)


async def take_reads(taking: Taking) -> None:
    """Read the usage again and again, so many at once."""
    session = await taking.open_session()
    await taking.repeat(taking.multiply(MOST_USAGE_READS), lambda _: taking.send(session, "GET", "/v1/usage"))
    assert set(taking.statuses) <= {200, 429}


async def take_look_ups(taking: Taking) -> None:
    """Call with keys that nobody has, so many at once."""
    session = await taking.open_session()

    async def guess(number: int) -> None:
        # As long as a key, and well-formed, so that it is looked up.
        forged = f"{taking.key[:-4]}{number % 10_000:04}"
        await taking.send(session, "GET", "/v1/key", key=forged)

    await taking.repeat(taking.multiply(MOST_UNKNOWN_KEYS), guess, rounds=3)
    assert set(taking.statuses) <= {0, 401, 503}


async def take_content(taking: Taking) -> None:
    """Store conversations until there is no room for more, and try on."""
    session = await taking.open_session()
    said = {"type": "message", "role": "user", "content": random.Random(1).randbytes(CONVERSATION_BYTES // 2).hex()}
    stored = 0
    while await taking.send(session, "POST", "/v1/conversations", {"items": [said]}) == 200:
        stored += 1
    for _ in range(taking.multiply(stored) - stored):
        assert await taking.send(session, "POST", "/v1/conversations", {"items": [said]}) == 413
    assert stored > CONVERSATIONS // 2


async def take_writes(taking: Taking) -> None:
    """Change what is stored, so many at once."""
    session = await taking.open_session()
    count = taking.multiply(QUEUE)
    await taking.repeat(count, lambda _: taking.send(session, "POST", "/v1/conversations", {}))
    assert set(taking.statuses) <= {200, 413, 429}


async def take_parsing(taking: Taking) -> None:
    """Send large bodies again and again, so many at once."""
    session = await taking.open_session()
    body = {"model": "credit", "prompt": "x", "metadata": {"a": "x" * (BODY_BYTES // 2)}, "length": []}
    count = taking.multiply(BODIES_OF_KEY)
    await taking.repeat(count, lambda _: taking.send(session, "POST", "/v1/generate", body))
    assert set(taking.statuses) <= {400, 429, 503}


async def take_heads(taking: Taking) -> None:
    """Send what is no HTTP, and heads that do not end."""
    for number in range(taking.multiply(64)):
        _, writer = await asyncio.open_connection("127.0.0.1", taking.gateway.port, local_addr=("127.0.0.2", 0))
        taking.stack.callback(writer.close)
        writer.write((b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (number % 64), b"\0" * 100)[number % 2])


TAKINGS: Final[Mapping[str, Callable[[Taking], Awaitable[None]]]] = {
    "gateway-connections": take_connections,
    "gateway-internal-connections": take_internal_connections,
    "gateway-queue": take_queue,
    "gateway-bodies": take_bodies,
    "gateway-refused": take_refusals,
    "store-reads": take_reads,
    "gateway-look-ups": take_look_ups,
    "store-content": take_content,
    "store-writes": take_writes,
    "gateway-parsing": take_parsing,
    "gateway-heads": take_heads,
}
"""Row of the table -> how A takes it."""


async def answer(inputs: Inputs) -> AsyncIterator[Piece]:
    """Answer at once, or never to what is held: a script."""
    if inputs["text_input"] == HOLD:
        await asyncio.Event().wait()
    yield Piece("a", 1)
    yield Piece("", 1, finish_reason="stop")


@asynccontextmanager
async def running_gateway(folder: Path) -> AsyncIterator[tuple[GatewayProcess, FakeTriton]]:
    """Run a gateway with small limits and few descriptors."""
    with limit_open_files():
        async with serving(FakeTriton(answer)) as pod, FakeMonitor().listen() as monitor:
            gateway = GatewayProcess(folder, pod, monitor, batch=SLOTS)
            gateway.settings["limits"] = LIMITS
            gateway.settings["data"]["contentDays"] = 1
            gateway.write_settings()
            gateway.run_with("prlimit", f"--nofile={CONNECTIONS + RESERVED_DESCRIPTORS}")
            async with started(gateway):
                yield gateway, pod


async def use_everything(gateway: GatewayProcess, key: str) -> None:
    """Use each part of the gateway once as B. Whatever is refused fails."""
    headers = {"Authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(gateway.url, connector=connector, headers=headers) as session:

        async def send(method: str, path: str, body: Any = None) -> Any:
            async with session.request(method, path, json=body) as response:
                text = await response.text()
                assert response.status == 200, f"{method} {path}: {response.status} {text}"
                return json.loads(text)

        assert (await send("POST", "/v1/generate", {"model": "credit", "prompt": "Hi"}))["text"] == "a"
        for path in ("/v1/models", "/v1/key", "/v1/usage", "/v1/conversations"):
            await send("GET", path)
        made = await send("POST", "/v1/conversations", {"items": [{"role": "user", "content": "Hi"}]})
        await send("DELETE", f"/v1/conversations/{made['id']}")
        large = "x" * (BODY_BYTES // 2)
        await send("POST", "/v1/generate", {"model": "credit", "prompt": "Hi", "metadata": {"a": large}})
    for path in ("/healthz", "/readyz"):
        assert (await gateway.read_probe(path))[0] == 200


async def is_served(gateway: GatewayProcess, key: str) -> bool:
    """Return whether a key is served as if it had taken nothing: what it has stored is deleted first."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
        async with session.get("/v1/conversations", params={"limit": 100}) as response:
            listed = await response.json()
        for one in listed.get("data", ()):
            async with session.delete(f"/v1/conversations/{one['id']}"):
                pass
    with contextlib.suppress(AssertionError):
        await use_everything(gateway, key)
        return True
    return False


def test_each_taking_is_of_a_row_of_the_table() -> None:
    assert TAKINGS.keys() - {bound.id for bound in load_bounds()} == set()


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_a_takes_at_once_is_kept_from_nobody_else(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    drawn = {name: chance.choice(TIMES) for name in chance.sample(sorted(TAKINGS), chance.randint(2, 4))}
    print(f"Seed {seed}: {drawn}")
    async with running_gateway(tmp_path) as (gateway, pod):
        other = await gateway.create_key()
        keys = {name: await gateway.create_key() for name in drawn}
        await use_everything(gateway, other)
        async with AsyncExitStack() as stack:
            for name, times in drawn.items():
                await TAKINGS[name](Taking(gateway, pod, keys[name], times, stack))
                await use_everything(gateway, other)
            await use_everything(gateway, other)
        await eventually(lambda: pod.running == 0, "nothing runs any more")
        for name, key in keys.items():
            await eventually(lambda key=key: is_served(gateway, key), f"the key that took {name} is served again")
        assert gateway.returncode is None
