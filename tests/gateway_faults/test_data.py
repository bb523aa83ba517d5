"""The tenant's data fail while a gateway runs: full, read-only, damaged, used by another. Each is said, and 503 until it is over."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from r1plus_client import AsyncClient, OverloadedError, R1PlusError
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess, running_process, started
from support.gateway.rig import FakeMonitor
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts

PAGE = 4096


class SmallVolume(GatewayProcess):
    """A gateway whose data are on a file system of a megabyte, in a mount namespace of its own."""

    def start(self) -> None:
        """Mount it, and start the gateway on it."""
        mount_before(self, "mount -t tmpfs -o size=1m,mode=700 tmpfs")
        super().start()

    @property
    def volume(self) -> Path:
        """Its files, as seen from outside."""
        return Path(f"/proc/{self.pid}/root{self.settings['data']['folder']}")

    def fill(self) -> None:
        """Write until nothing more fits."""
        with (self.volume / "filler").open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass


class ReadOnlyVolume(GatewayProcess):
    """A gateway that cannot write its volume."""

    def start(self) -> None:
        """Bind the volume read-only, and start the gateway on it."""
        mount_before(self, 'mount --bind "$0" "$0" && mount -o remount,bind,ro')
        super().start()


def mount_before(gateway: GatewayProcess, mount: str) -> None:
    """Let the gateway start in a mount namespace of its own, after this command with its folder."""
    command = gateway._command
    if "unshare" not in command:
        python = command.index("-m") - 1
        script = f'{mount} "$0" && exec "$@"'
        folder = gateway.settings["data"]["folder"]
        gateway._command = [*command[:python], "unshare", "--mount", "sh", "-c", script, folder, *command[python:]]


@asynccontextmanager
async def small_volume(folder: Path) -> AsyncIterator[SmallVolume]:
    """Run a gateway on such a volume, before a pod that answers."""
    async with (
        serving(FakeTriton(answer("Stock", "holm"))) as pod,
        FakeMonitor().listen() as monitor,
        started(SmallVolume(folder, pod, monitor)) as gateway,
    ):
        assert isinstance(gateway, SmallVolume)
        yield gateway


async def ask(client: AsyncClient) -> None:
    """Ask for one answer."""
    await client.generate(model="credit", prompt="x", max_new_tokens=5)


async def ask_until_refused(client: AsyncClient) -> tuple[int, OverloadedError]:
    """Ask until the gateway says that its data cannot be used; return how many were answered, and the error."""
    for count in range(2000):
        try:
            await ask(client)
        except OverloadedError as error:
            return count, error
    raise AssertionError("the data are usable all the time")


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@AS_ROOT
async def test_a_full_volume_refuses_and_loses_nothing(tmp_path: Path) -> None:
    async with small_volume(tmp_path) as gateway:
        key = await gateway.create_key(limits={"budget_tokens": 1_000_000})
        async with gateway.make_client(key) as client:
            await ask(client)
            gateway.fill()
            count, error = await ask_until_refused(client)
            assert (error.status, error.code) == (503, "data_unavailable")
            assert str(tmp_path) not in str(error)
            assert "Enlarge the volume" in await gateway.until_unready("VolumeFull")
            (gateway.volume / "filler").unlink()
            await gateway.until_ready()
            await ask(client)
            (row,) = (await client.read_usage())["data"]
        assert row["requests"] == count + 2
        assert (row["prompt_tokens"], row["completion_tokens"]) == (7 * (count + 2), 2 * (count + 2))
        _, audit = await gateway.call_admin("GET", "/audit")
        assert audit["problem"] is None


@AS_ROOT
async def test_a_read_only_volume_is_said_and_what_it_has_is_there_afterwards(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    async with (
        serving(FakeTriton(answer("a"))) as pod,
        FakeMonitor().listen() as monitor,
        started(GatewayProcess(tmp_path, pod, monitor)) as gateway,
    ):
        key = await gateway.create_key()
        async with gateway.make_client(key) as client:
            await ask(client)
            gateway.stop()
            reading = ReadOnlyVolume(tmp_path / "second", pod, monitor, beside=gateway)
            async with started(reading, unready="VolumeReadOnly"):
                assert "can write it" in await reading.until_unready("VolumeReadOnly")
                async with reading.make_client(key) as refused:
                    with pytest.raises(OverloadedError) as caught:
                        await ask(refused)
                assert caught.value.code == "data_unavailable"
            gateway.start()
            await gateway.until_ready()
            await ask(client)
            assert (await client.read_usage())["data"][0]["requests"] == 2


async def test_a_database_that_is_damaged_while_it_runs_is_said_and_never_an_error_of_ours(tmp_path: Path) -> None:
    async with serving(FakeTriton(answer("a"))) as pod, running_process(tmp_path, pod) as gateway:
        key = await gateway.create_key()
        async with gateway.make_client(key) as client:
            for _ in range(50):
                await ask(client)
            gateway.stop()
            with (tmp_path / "data" / "tenant.db").open("r+b") as file:
                file.seek(10 * PAGE)
                file.write(b"\xff" * PAGE)
            gateway.start()
            assert "backup" in await gateway.until_unready("DataCorrupt")
            with pytest.raises(OverloadedError) as caught:
                await ask(client)
            assert caught.value.code == "data_unavailable"
            status, refusal = await gateway.call_admin("GET", "/keys")
            assert (status, refusal["error"]["code"]) == (503, "data_unavailable")


async def test_a_second_gateway_on_one_volume_waits_and_takes_over(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    async with (
        serving(FakeTriton(answer("a"))) as pod,
        FakeMonitor().listen() as monitor,
        started(GatewayProcess(tmp_path, pod, monitor)) as first,
    ):
        key = await first.create_key()
        waiting = GatewayProcess(tmp_path / "second", pod, monitor, beside=first)
        async with started(waiting, unready="Locked") as second, second.make_client(key) as client:
            with pytest.raises(OverloadedError):
                await ask(client)
            first.stop()
            await second.until_ready()
            await eventually(lambda: _answers(client), "the second one answers", retry_on=(R1PlusError,))


async def _answers(client: AsyncClient) -> bool:
    await ask(client)
    return True
