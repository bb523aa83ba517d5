"""The limit of open files: raised at the start, and connections are bounded below it."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from r1plus_gateway import descriptors
from r1plus_gateway.descriptors import RESERVED_DESCRIPTORS, DescriptorLimitError, raise_descriptor_limit
from r1plus_gateway.http.listening.connections import MOST_CONNECTIONS
from support.gateway.fake_triton import FakeTriton, Inputs, Piece, serving
from support.gateway.process import GatewayProcess, started
from support.gateway.rig import FakeMonitor
from support.open_files import limit_open_files
from support.waiting import eventually


@pytest.mark.parametrize(("hard", "fitting"), [(20_000, MOST_CONNECTIONS), (1024, 1024 - RESERVED_DESCRIPTORS)])
def test_connections_fit_below_the_raised_limit(hard: int, fitting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda kind: (512, hard))
    monkeypatch.setattr(descriptors.resource, "setrlimit", lambda kind, limit: limits.append((kind, limit)))
    assert raise_descriptor_limit() == fitting
    assert limits == [(resource.RLIMIT_NOFILE, (hard, hard))]


def test_a_limit_that_leaves_no_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = RESERVED_DESCRIPTORS + 1
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda kind: (hard, hard))
    with pytest.raises(DescriptorLimitError, match="Raise the hard limit"):
        raise_descriptor_limit()


class Flood:
    """A caller without a key that opens connections, sends nothing, and opens once more what was closed."""

    def __init__(self, port: int, count: int, addresses: int) -> None:
        self._port = port
        self._tasks = [asyncio.create_task(self._hold(f"127.0.1.{n % addresses + 1}")) for n in range(count)]
        self.opened = 0
        self.connecting = count

    async def _hold(self, address: str) -> None:
        for is_again in (False, True):
            self.connecting += is_again
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(address, 0))
            self.opened += 1
            self.connecting -= 1
            try:
                with contextlib.suppress(OSError):
                    await reader.read()
            finally:
                writer.close()

    async def stop(self) -> None:
        """Close all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for the clients of a flood in the test's own process."""
    with limit_open_files():
        yield


@pytest.mark.unit_slow
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(("times", "addresses"), [(1, 1), (1.1, 1), (10, 1), (10, 20)])
async def test_idle_connections_without_a_key_shut_nobody_out(times: float, addresses: int, tmp_path: Path) -> None:
    """A takes all connections that one address may have, and more; B's requests, its stream and the probe go on."""
    hard = 2 * RESERVED_DESCRIPTORS
    most = (hard - RESERVED_DESCRIPTORS) // (2 if addresses == 1 else 1)
    release = asyncio.Event()

    async def wait_for_release(_: Inputs) -> AsyncIterator[Piece]:
        yield Piece("a", 1)
        await release.wait()
        yield Piece("b", 2, finish_reason="stop")

    async with serving(FakeTriton(wait_for_release)) as pod, FakeMonitor().listen() as monitor:
        gateway = GatewayProcess(tmp_path, pod, monitor)
        gateway.run_with("prlimit", f"--nofile=256:{hard}")
        async with started(gateway):
            key = await gateway.create_key()
            async with gateway.make_client(key) as client:
                stream = asyncio.create_task(client.generate(model="credit", prompt="long", max_new_tokens=5))
                await eventually(lambda: pod.running == 1, "a stream runs")
                flood = Flood(gateway.port, round(most * times), addresses)
                # How fast a machine accepts it is no promise: connections wait in the kernel meanwhile.
                await eventually(lambda: not flood.connecting, "the flood has come")
                assert flood.opened >= round(most * times)
                for _ in range(20):
                    async with gateway.make_client(key) as other:  # a connection of its own
                        await other.list_models()
                    assert (await gateway.read_probe("/healthz"))[0] == 200
                assert await gateway.read_probe("/readyz") == (200, "ok\n")
                release.set()
                assert (await stream).text == "ab"
                await flood.stop()
                assert (await client.generate(model="credit", prompt="x", max_new_tokens=5)).text == "ab"
            assert gateway.returncode is None
            assert "Too many open files" not in gateway.log
