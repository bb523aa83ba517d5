"""Clients that connect and send nothing: they cost no request its answer, and are closed."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess, started
from support.gateway.rig import FakeMonitor
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts

COUNT = 1000
BEGINNINGS = (b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n", b"G")


async def test_a_thousand_silent_connections_hold_up_nobody_and_are_closed(tmp_path: Path) -> None:
    async with serving(FakeTriton(answer("a"))) as pod, FakeMonitor().listen() as monitor:
        gateway = GatewayProcess(tmp_path, pod, monitor)
        gateway.settings["limits"] = {"idleSeconds": 5}
        gateway.write_settings()
        async with started(gateway):
            key = await gateway.create_key()
            closed = 0

            async def stay_silent(number: int) -> None:
                nonlocal closed
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(BEGINNINGS[number % len(BEGINNINGS)])
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                closed += 1
                writer.close()

            silent = [asyncio.create_task(stay_silent(number)) for number in range(COUNT)]
            async with gateway.make_client(key) as client:
                for _ in range(20):
                    got = await client.generate(model="credit", prompt="x", max_new_tokens=5)
                    assert got.text == "a"
            await eventually(lambda: closed == COUNT, "all silent connections are closed", evidence=lambda: str(closed))
            await asyncio.gather(*silent)
            async with gateway.make_client(key) as client:
                await client.list_models()
