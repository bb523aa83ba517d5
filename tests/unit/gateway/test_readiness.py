"""A gateway whose data cannot be used is alive and not ready, says why, and is ready again when they can be used."""

import fcntl
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from r1plus_client import OverloadedError
from r1plus_contract.gateway import DataReason
from r1plus_gateway.http import server
from r1plus_gateway.settings import SettingsFile
from r1plus_gateway.store import service, tenant
from r1plus_gateway.store.administration.admin import create_key, list_keys
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.database.opening import OpenData, StoreConfig
from r1plus_gateway.store.errors import CorruptError
from r1plus_gateway.store.tenant import Periods
from support.apiserver.process import DIES_WITH_PARENT
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess, running_process
from support.gateway.rig import FakeMonitor, running
from support.gateway.tenant_data import ADMIN, Volume
from support.tables import for_each
from support.waiting import eventually


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    """A gateway that has run, and has a key."""
    async with serving(FakeTriton(answer("a"))) as pod, running_process(tmp_path, pod) as process:
        yield process


@contextmanager
def without_half(folder: Path) -> Iterator[None]:
    half = folder / "secret" / "half-1"
    text = half.read_text()
    half.unlink()
    yield
    half.write_text(text)


@contextmanager
def with_another_gateway(folder: Path) -> Iterator[None]:
    with (folder / "data" / "tenant.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def with_damage(folder: Path) -> Iterator[None]:
    path = folder / "data" / "tenant.db"
    content = path.read_bytes()
    path.write_bytes(content[:5000] + bytes(200) + content[5200:])
    yield
    path.write_bytes(content)


Fault = Callable[[Path], Any]
FAULTS: dict[str, Any] = {
    "half of the key is missing": (without_half, "KeyLost", "r1plus tenant init"),
    "another gateway has the data": pytest.param(
        with_another_gateway, "Locked", "another gateway uses the tenant's data", marks=pytest.mark.unit_long
    ),
    "the file is damaged": pytest.param(
        with_damage, "DataCorrupt", "Restore the tenant's last backup", marks=pytest.mark.unit_long
    ),
}


@pytest.mark.unit_slow
@for_each("fault, reason, remedy", FAULTS)
async def test_it_starts_without_its_data_and_is_ready_once_they_are_there(
    gateway: GatewayProcess, fault: Fault, reason: str, remedy: str
) -> None:
    key = await gateway.create_key()
    gateway.stop()
    async with gateway.make_client(key) as client:
        with fault(gateway.folder):
            gateway.start()
            assert remedy in await gateway.until_unready(reason)
            with pytest.raises(OverloadedError, match="cannot be used now"):
                await client.list_models()
        await gateway.until_ready()
        assert [model.id for model in await client.list_models()]
    assert await gateway.read_probe("/readyz") == (200, "ok\n")


async def test_it_stays_ready_without_a_half_that_only_a_start_needs(volume: Volume) -> None:
    async with volume.open() as store:
        with without_half(volume.folder):
            await store.maintain()
            assert (store.state.reason, store.state.can_serve) == (DataReason.KEY_LOST, True)
        await store.maintain()
        assert (store.state.reason, store.state.can_serve) == (DataReason.READY, True)


class OnSmallVolume(GatewayProcess):
    """In a mount namespace of its own, with its data on a small file system that is mounted `rw` or `ro`."""

    def __init__(self, folder: Path, pod: FakeTriton, monitor: FakeMonitor, option: str) -> None:
        super().__init__(folder, pod, monitor)
        self._data = folder / "data"
        names = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
        script = f'mount -t tmpfs -o size=1m,{option} tmpfs "$0" && exec "$@"'
        program = self._command[len(DIES_WITH_PARENT) :]
        self._command = [*DIES_WITH_PARENT, "unshare", *names, "sh", "-c", script, str(self._data), *program]

    @property
    def filler(self) -> Path:
        """A file on its volume, as seen from here."""
        return Path(f"/proc/{self.pid}/root{self._data}/filler")

    def fill(self) -> None:
        """Leave no byte free."""
        with self.filler.open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass

    def make_writable(self) -> None:
        """Mount the volume again."""
        command = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "mount", "-o", "remount,rw", str(self._data)]
        if os.geteuid() != 0:
            command[1:1] = [f"--user=/proc/{self.pid}/ns/user", "--preserve-credentials"]
        subprocess.run(command, check=True)


@asynccontextmanager
async def running_on_small_volume(folder: Path, option: str) -> AsyncIterator[OnSmallVolume]:
    async with serving(FakeTriton(answer("a"))) as pod, FakeMonitor().listen() as monitor:
        process = OnSmallVolume(folder, pod, monitor, option)
        process.start()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.unit_slow
async def test_a_volume_that_fills_up_makes_it_unready_until_there_is_room(tmp_path: Path) -> None:
    async with running_on_small_volume(tmp_path, "rw") as process:
        await process.until_ready()
        process.fill()
        # The log has room for some more pages within its file.
        await eventually(lambda: _is_refused(process), "a key cannot be written")
        assert "Enlarge the volume" in await process.until_unready("VolumeFull")
        process.filler.unlink()
        await process.until_ready()
        await process.create_key()


@pytest.mark.unit_slow
async def test_a_volume_that_cannot_be_written_makes_it_unready_until_it_can(tmp_path: Path) -> None:
    async with running_on_small_volume(tmp_path, "ro") as process:
        assert "gateway's user can write it" in await process.until_unready("VolumeReadOnly")
        process.make_writable()
        await process.until_ready()
        await process.create_key()


async def _is_refused(process: GatewayProcess) -> bool:
    status, _ = await process.call_admin("POST", "/keys", {"name": "x" * 100})
    return status == 503


async def test_damage_that_is_found_while_it_runs_stays_until_the_file_is_whole(volume: Volume) -> None:
    store = volume.make_store(Periods(check=0.0))
    assert await store.open()
    await create_key(store, ADMIN, KeySpec("ci"))
    database = store.require_data().database
    database.checkpoint()
    content = volume.database.read_bytes()
    database.engine.dispose()  # what connections have read of the file is of no use any more
    volume.database.write_bytes(content[:4096] + bytes(len(content) - 4096))
    with pytest.raises(CorruptError):
        await list_keys(store)
    await store.maintain()
    assert (store.state.reason, store.state.can_serve) == (DataReason.CORRUPT, False)
    database.engine.dispose()
    volume.database.write_bytes(content)
    await store.maintain()
    assert store.state.is_ready
    assert [record.name for record in await list_keys(store)] == ["ci"]
    await store.close()


async def test_it_listens_while_what_it_opens_does_not_answer(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    half = volume.folder / "secret" / "half-1"
    text = half.read_text()
    half.unlink()
    os.mkfifo(half)  # who reads it waits for who writes it, as on a volume that hangs
    monkeypatch.setattr(service, "FIRST_TRY_SECONDS", 0.01)
    path = volume.folder / "settings.json"
    data = {"tenantUid": volume.tenant_uid, "folder": str(volume.folder / "data"), "secretFolder": str(half.parent)}
    path.write_text(json.dumps({"namespace": "team-credit", "data": data}))
    async with service.run_access(SettingsFile(path)) as access:
        assert (access.store.state.reason, access.store.state.can_serve) == (DataReason.STARTING, False)
        with half.open("w") as pipe:
            half.with_name("new").write_text(text)
            half.with_name("new").rename(half)
            pipe.write(text)
        await eventually(lambda: access.store.state.is_ready, "the data are open")


async def test_a_gateway_that_cannot_open_its_data_for_a_defect_of_its_own_ends(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: StoreConfig) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("r1plus_gateway.store.tenant.open_data", fail)
    path = volume.folder / "settings.json"
    path.write_text(json.dumps({"namespace": "team-credit"}))
    with pytest.raises(ZeroDivisionError):
        async with service.run_access(SettingsFile(path)):
            pass


async def test_data_that_cannot_be_opened_for_an_unexpected_reason_are_tried_again(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: StoreConfig) -> OpenData:
        raise RuntimeError

    store = volume.make_store()
    store.is_watched = True  # its first try had no end in time
    with monkeypatch.context() as patch:
        patch.setattr(tenant, "open_data", fail)
        assert not await store.open()
    assert "RuntimeError" in store.state.message
    assert "could not be opened" in caplog.text
    assert await store.open()
    await store.close()


async def test_settings_are_followed_after_an_unexpected_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(server, "SERIES_SECONDS", 0.01)
    async with running(tmp_path, answer("a")) as rig:
        for owner, method in ((rig.file, "refresh"), (rig.metrics, "forget_idle")):
            calls: list[Any] = []

            def fail_once(*arguments: Any, calls: list[Any] = calls) -> None:
                calls.append(arguments)
                if len(calls) == 1:
                    raise RuntimeError

            monkeypatch.setattr(owner, method, fail_once)
            await eventually(lambda calls=calls: len(calls) > 1, f"{method} is called again")  # type: ignore[misc]
    assert caplog.text.count("could not be followed") == 2
