"""A helper that runs while somebody asks it: the first connection starts it, an idle time ends it; what it may reach."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from r1plus_edge.pods.confinement import SCOPE_VERSION, build_confinement, read_landlock_version
from r1plus_edge.pods.container import Program
from r1plus_edge.pods.on_demand import IDLE_SECONDS, OnDemandContainer
from r1plus_edge.pods.processes import find_processes, mark
from support.virtual_time import read_loop_time, skip_seconds
from support.waiting import eventually

ECHO = """
import os, socket
os.path.exists("helper.sock") and os.unlink("helper.sock")
listener = socket.socket(socket.AF_UNIX)
listener.bind("helper.sock")
listener.listen()
while True:
    connection, _ = listener.accept()
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
"""
FRONT = "front.sock"


def make(folder: Path, script: str = ECHO, **fields: Any) -> OnDemandContainer:
    own = folder / "own"
    own.mkdir(parents=True)
    options = {name: fields.pop(name) for name in ("read_memory", "clock") if name in fields}
    program = Program(
        "helper",
        (sys.executable, "-c", script),
        {"PATH": "/usr/bin:/bin", **mark(folder)},
        own,
        folder / "logs" / "helper.log",
        **fields,
    )
    return OnDemandContainer(program, lambda: None, folder / FRONT, **options)


@asynccontextmanager
async def run_container(container: OnDemandContainer, front: Path) -> AsyncIterator[OnDemandContainer]:
    task = asyncio.create_task(container.run())
    try:
        await eventually(front.exists, "it listens")
        yield container
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def skip_idle_time(container: OnDemandContainer) -> None:
    """Skip the time after which one that nobody uses ends."""
    await eventually(lambda: not container._connections, "nobody uses it")
    skip_seconds(2 * IDLE_SECONDS)


async def ask(front: Path, payload: bytes) -> bytes:
    """Send a request to its end, and return the whole reply; nothing where the connection is closed instead."""
    reader, writer = await asyncio.open_unix_connection(front)
    writer.write(payload)
    writer.write_eof()
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.unit_slow
async def test_it_starts_at_the_first_connection_and_ends_when_nobody_asks(tmp_path: Path) -> None:
    container, front = make(tmp_path, clock=read_loop_time), tmp_path / FRONT
    async with run_container(container, front):
        assert container.facts.ready
        assert (container.pid, container.was_used.is_set()) == (None, False)
        payload = bytes(range(256)) * 4096
        assert await ask(front, payload) == payload
        assert container.was_used.is_set()
        await skip_idle_time(container)
        await eventually(lambda: find_processes(tmp_path) == [], "it has ended")
        assert container.facts.ready
        assert await ask(front, b"again") == b"again"
    assert find_processes(tmp_path) == []
    assert not front.exists()


@pytest.mark.unit_slow
async def test_it_stays_while_a_connection_is_open(tmp_path: Path) -> None:
    container, front = make(tmp_path, clock=read_loop_time), tmp_path / FRONT
    async with run_container(container, front):
        reader, writer = await asyncio.open_unix_connection(front)
        processes = set[int | None]()
        for word in (b"one", b"two", b"six"):
            writer.write(word)
            assert await reader.readexactly(3) == word
            processes.add(container.pid)
            skip_seconds(3 * IDLE_SECONDS)
        assert len(processes) == 1
        writer.close()
        await skip_idle_time(container)
        await eventually(lambda: container.pid is None, "it has ended")


@pytest.mark.unit_slow
async def test_one_that_was_killed_is_started_again(tmp_path: Path) -> None:
    container, front = make(tmp_path), tmp_path / FRONT
    async with run_container(container, front):
        assert await ask(front, b"one") == b"one"
        container._kill()
        await eventually(lambda: container.restarts == 1, "its end is seen")

        async def answers() -> bool:
            return await ask(front, b"two") == b"two"

        await eventually(answers, "another one answers")


async def test_one_that_cannot_start_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    container, front = make(tmp_path, "import sys; sys.exit('other files')"), tmp_path / FRONT
    async with run_container(container, front):
        for _ in range(2):
            assert await asyncio.wait_for(ask(front, b"one"), 60) == b""
        assert container.facts.message.endswith("other files")
    assert "Container helper did not answer" in caplog.text


async def test_without_memory_it_is_not_started_and_the_log_says_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    container, front = make(tmp_path, memory_request=128 * 2**20, read_memory=lambda: 100 * 2**20), tmp_path / FRONT
    async with run_container(container, front):
        assert await ask(front, b"one") == b""
        assert find_processes(tmp_path) == []
    assert "Container helper is not started: it needs 128 MiB of memory, and 100 MiB are free" in caplog.text


async def test_a_path_longer_than_the_kernel_takes_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    container = make(folder)
    async with run_container(container, folder / FRONT):
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError, match="path too long"):
            client.connect(str(folder / FRONT))
        await eventually(lambda: _asks_by_descriptor(folder), "it answers")


async def _asks_by_descriptor(folder: Path) -> bool:
    short = Path("/proc/self/cwd") / FRONT
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(short)!r}); s.sendall(b'x'); s.shutdown(1);"
        " assert s.recv(9) == b'x'",
        cwd=folder,
    )
    return await process.wait() == 0


TRIES = """
import json, os, pathlib, signal, socket
def attempt(function):
    try:
        return str(function())
    except OSError as error:
        return type(error).__name__
found = {
    "secret": attempt(lambda: pathlib.Path(SECRET).read_text()),
    "write": attempt(lambda: pathlib.Path(SECRET).with_name("other").write_text("x")),
    "own": attempt(lambda: pathlib.Path("mine").write_text("x")),
    "mounted": attempt(lambda: (pathlib.Path(MOUNTED) / "weights").read_text()),
    "network": attempt(lambda: socket.create_connection(("127.0.0.1", PORT), 5)),
    "datagram": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "unix socket": attempt(lambda: socket.socket(socket.AF_UNIX).connect(DESKTOP)),
    "unix datagram": attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)),
    "pair": attempt(lambda: (lambda pair: pair[0].send(b"12"))(socket.socketpair())),
    "signal": attempt(lambda: os.kill(PARENT, 0)),
    "shared memory": attempt(lambda: pathlib.Path(SHARED).read_text()),
    "environment": attempt(lambda: pathlib.Path(f"/proc/{PARENT}/environ").read_bytes()[:0]),
}
pathlib.Path("found.json").write_text(json.dumps(found))
import time; time.sleep(600)
"""


@pytest.fixture
async def listen() -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def run_confined(tmp_path: Path, port: int, check: Callable[[dict[str, str]], Awaitable[None]]) -> None:
    (tmp_path / "secret").write_text("half of the key")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "weights").write_text("1 2 3")
    parent = await asyncio.create_subprocess_exec("/bin/sleep", "600")
    shared = Path("/dev/shm") / f"r1plus-test-{os.getpid()}"  # As Triton's with its backend.
    shared.write_text("a prompt")
    names = {"SECRET": str(tmp_path / "secret"), "MOUNTED": str(mounted), "PORT": port, "PARENT": parent.pid}
    names |= {"SHARED": str(shared), "DESKTOP": "../desktop.sock"}
    script = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + TRIES
    # One that cannot be opened, as of a PYTHONPATH, takes nothing from the rest.
    confinement = build_confinement([mounted, tmp_path / "secret" / "lib"], tmp_path / "own")
    container, front = make(tmp_path, script, confinement=confinement), tmp_path / FRONT
    desktop = await asyncio.start_unix_server(lambda reader, writer: writer.close(), tmp_path / "desktop.sock")
    try:
        async with desktop, run_container(container, front):
            asking = asyncio.create_task(ask(front, b"x"))
            result = tmp_path / "own" / "found.json"
            await eventually(lambda: result.exists() and result.read_text() != "", "it has tried all")
            await check(json.loads(result.read_text()))
            asking.cancel()
        assert find_processes(tmp_path) == []
    finally:
        shared.unlink()
        parent.kill()
        await parent.wait()


async def test_a_confined_one_reaches_its_own_files_and_nothing_else(tmp_path: Path, listen: int) -> None:
    async def check(found: dict[str, str]) -> None:
        assert (found["own"], found["mounted"]) == ("1", "1 2 3")
        refused = {name for name in found if found[name].endswith("Error")}
        signals = {"signal"} if read_landlock_version() >= SCOPE_VERSION else set()
        files, sockets = {"secret", "write", "environment", "shared memory"}, {"network", "datagram"}
        assert refused == files | sockets | {"unix socket", "unix datagram"} | signals, found
        assert found["pair"] == "2"
        assert (tmp_path / "logs" / "helper.log").read_text() == ""

    await run_confined(tmp_path, listen, check)
