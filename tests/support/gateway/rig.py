"""A gateway on loopback before fake pods, with clients for it."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from r1plus_assistant.assistant import Assistant, build_assistant
from r1plus_assistant.calculation.client import Calculator
from r1plus_assistant.embedding.client import Embedder
from r1plus_contract.jsonable import dumps
from r1plus_contract.verdict import GateReport, MonitorReport, Phase, Verdict
from r1plus_gateway.http.add_ons import AddOnRunner
from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.http.server import RunningGateway, run_gateway
from r1plus_gateway.settings import SettingsFile
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.access import KEY, FakeAuthenticator, FakeLedger
from support.gateway.fake_calculator import FakeCalculator
from support.gateway.fake_embedder import FakeEmbedder
from support.gateway.fake_triton import FakeTriton, Script, serving
from support.waiting import DEADLINE_SECONDS, eventually

REVISION = {"name": "credit-1", "identity": "1d", "engineDigest": "0123456789abcdef"}
GATE = GateReport(
    Verdict.PASS, "Passed", "", "1d", "credit-v1", "5a" * 32, "1", threshold=0.98, items=210, lost=3, allowed=4
)
REPORT = MonitorReport("credit-1", "1d", Phase.WATCHING, Verdict.PASS, "Passed", "", gate=GATE)


class FakeMonitor:
    """Answers `/verdict`."""

    def __init__(self) -> None:
        self.body = dumps(REPORT)
        self.asked = 0
        self.port = 0
        self.location = ""
        """Where it sends who asks; empty: nowhere."""

    async def _answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.location:
            raise web.HTTPFound(self.location)
        return web.Response(text=self.body, content_type="application/json")

    @asynccontextmanager
    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["FakeMonitor"]:
        """Serve until the block ends."""
        app = web.Application()
        app.router.add_get("/verdict", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()


class Rig:
    """One gateway, one model `credit` unless a test adds others, one pod, one caller."""

    def __init__(self, folder: Path, pod: FakeTriton, monitor: FakeMonitor, **model: Any) -> None:
        self.pod = pod
        self.monitor = monitor
        self.addresses = frozenset({"127.0.0.1"})
        self.authenticator = FakeAuthenticator()
        self.ledger = FakeLedger()
        self.metrics = GatewayMetrics()
        self.calculator = FakeCalculator()
        self.embedder = FakeEmbedder()
        self.model: dict[str, Any] = {
            "name": "credit",
            "host": "credit-pods",
            "grpcPort": pod.port,
            "monitorPort": monitor.port,
            "contextTokens": 1024,
            "batch": 4,
            "revisions": [REVISION],
            **model,
        }
        self.other_models: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {
            "namespace": "team-credit",
            "host": "127.0.0.1",
            "port": 0,
            "internalPort": 0,
            "drainSeconds": 5,
            "limits": {},
        }
        self.path = folder / "settings.json"
        self.gateway: RunningGateway
        self.assistant: Assistant
        self.file: SettingsFile
        self.client: aiohttp.ClientSession

    def write_settings(self) -> None:
        """Write the file anew."""
        self.path.write_bytes(orjson.dumps({**self.settings, "models": [self.model, *self.other_models]}))

    async def resolve(self, host: str, port: int) -> frozenset[str]:
        """Stand in for DNS."""
        return self.addresses

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.gateway.port}"

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """Send a body as JSON, bytes as they are."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        own = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
        return self.client.post(self.url + path, data=data, headers=own)

    def chat(self, text: str = "Hi", **fields: Any) -> Any:
        """Ask one question."""
        messages = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", {"model": "credit", "messages": messages, **fields})

    def respond(self, question: Any = "Hi", /, **fields: Any) -> Any:
        """Ask one question, or for what follows these items, by the Responses API."""
        return self.post("/v1/responses", {"model": "credit", "input": question, **fields})

    def get(self, path: str, key: str = KEY) -> Any:
        """Get a path."""
        return self.client.get(self.url + path, headers={"Authorization": f"Bearer {key}"})

    async def until_settled(self, count: int = 1, *, still_open: int = 0) -> None:
        """Wait until so many requests are settled, and so many are open."""
        ledger = self.ledger
        await eventually(lambda: len(ledger.settled) == count and len(ledger.open) == still_open, f"{count} settled")

    async def until_running(self, count: int) -> None:
        """Wait until the pod runs so many requests."""
        await eventually(lambda: self.pod.running == count, f"{count} requests run")

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the gateway's metrics; 0 without it."""
        return self.metrics._registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(
    folder: Path,
    script: Script,
    *,
    settings: dict[str, Any] | None = None,
    has_calculator: bool = True,
    has_embedder: bool = True,
    embedder: Embedder | None = None,
    store: TenantStore | None = None,
    clock: Callable[[], float] = time.monotonic,
    run_add_on: AddOnRunner | None = None,
    **model: Any,
) -> AsyncIterator[Rig]:
    """Run a gateway before one pod that answers by a script. `embedder`: instead of the one in memory. `store`: without one
    nothing is stored.
    """
    options: dict[str, Any] = {
        "settings": settings,
        "has_calculator": has_calculator,
        "has_embedder": has_embedder,
        "embedder": embedder,
        "store": store,
        "clock": clock,
        "run_add_on": run_add_on,
    }
    async with serving(FakeTriton(script)) as pod, running_before(folder, pod, **options, **model) as rig:
        yield rig


@asynccontextmanager
async def running_before(
    folder: Path,
    pod: FakeTriton,
    *,
    settings: dict[str, Any] | None = None,
    has_calculator: bool = True,
    calculator: Calculator | None = None,
    has_embedder: bool = True,
    embedder: Embedder | None = None,
    store: TenantStore | None = None,
    clock: Callable[[], float] = time.monotonic,
    run_add_on: AddOnRunner | None = None,
    **model: Any,
) -> AsyncIterator[Rig]:
    """Run a gateway before the pod at `pod.port`; `calculator`: another one than the rig's; `run_add_on`: instead of
    the assistant with the rig's helpers."""
    async with AsyncExitStack() as stack:
        monitor = await stack.enter_async_context(FakeMonitor().listen())
        rig = Rig(folder, pod, monitor, **model)
        rig.settings |= settings or {}
        rig.write_settings()
        rig.client = await stack.enter_async_context(aiohttp.ClientSession())
        rig.file = SettingsFile(rig.path, rig.metrics.set_settings_validity)
        parts = (rig.file, rig.metrics, rig.authenticator, rig.ledger, rig.ledger)
        calculator = calculator or (rig.calculator if has_calculator else None)
        embedder = (embedder or rig.embedder) if has_embedder else None
        rig.assistant = build_assistant(calculator, embedder=embedder)
        rig.gateway = await stack.enter_async_context(
            run_gateway(
                *parts,
                store=store,
                run_add_on=run_add_on or rig.assistant.run,
                resolve=rig.resolve,
                report_seconds=DEADLINE_SECONDS,
                clock=clock,
            )
        )
        yield rig


async def read_events(response: aiohttp.ClientResponse) -> list[Any]:
    """Return the events of a stream to its end: JSON values, and the text `[DONE]`."""
    lines = [line async for line in response.content]
    data = [line.removeprefix(b"data: ").strip() for line in lines if line.startswith(b"data: ")]
    return ["[DONE]" if entry == b"[DONE]" else json.loads(entry) for entry in data]


async def read_typed_events(response: aiohttp.ClientResponse) -> list[Any]:
    """Return the events of a stream of the Responses API; each line `event:` says the type of the data after it."""
    blocks = [block for block in (await response.read()).decode().split("\n\n") if block and block[0] != ":"]
    events: list[Any] = []
    for block in blocks:
        *kind, data = block.split("\n")
        value: Any = "[DONE]" if data == "data: [DONE]" else json.loads(data.removeprefix("data: "))
        assert kind == ([] if value == "[DONE]" else [f"event: {value['type']}"])
        events.append(value)
    return events


async def read_until(response: aiohttp.ClientResponse, text: bytes) -> bytes:
    """Read a stream until this text has come."""
    seen = b""
    while text not in seen:
        seen += await asyncio.wait_for(response.content.readany(), 60)
    return seen


async def send_raw(port: int, data: bytes) -> bytes:
    """Send these bytes, and return all that comes until the server closes the connection, or resets it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        seen = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := await asyncio.wait_for(reader.read(65536), 60):
                seen += chunk
        return seen
    finally:
        writer.close()
