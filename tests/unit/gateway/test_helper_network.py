"""What code that has taken over a helper of the gateway can do in the pod's network, which all of its containers share."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from r1plus_assistant.embedding.client import SocketEmbedder
from r1plus_contract import calculator, documents, embedder
from support.embedding.tiny_model import make_tiny_engine
from support.tables import for_each
from support.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.first_run_counts

ATTACK = '''
"""Loaded by each Python that starts: on a signal the process tries to get at the network, and reports what came."""

import ctypes
import json
import os
import pathlib
import signal
import socket


def open_socket(family, kind):
    with socket.socket(family, kind) as one:
        if family in (socket.AF_INET, socket.AF_INET6):
            one.bind(("", 0))


def open_ring():
    if ctypes.CDLL(None, use_errno=True).syscall(425, 1, ctypes.create_string_buffer(120)) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")


def attack(*_):
    families = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6, "unix": socket.AF_UNIX}
    families |= {"netlink": socket.AF_NETLINK, "packet": socket.AF_PACKET, "vsock": socket.AF_VSOCK}
    kinds = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM, "raw": socket.SOCK_RAW}
    tries = {f"{f} {k}": (lambda f=f, k=k: open_socket(families[f], kinds[k])) for f in families for k in kinds}
    tries["ring"] = open_ring
    opened = []
    for name, attempt in tries.items():
        try:
            attempt()
            opened.append(name)
        except OSError:
            pass
    report = pathlib.Path(os.environ["REPORTS"], f"{os.getpid()}.part")
    report.write_text(json.dumps(opened))
    report.rename(report.with_suffix(".json"))


signal.signal(signal.SIGUSR1, attack)
'''
HELPERS = {
    "calculator": ("r1plus_calculator", calculator.ENV_SOCKET),
    "reader of documents": ("r1plus_documents", documents.ENV_SOCKET),
    "embedder": ("r1plus_embedder", embedder.ENV_SOCKET),
}


@asynccontextmanager
async def start_with_planted_code(
    folder: Path, *command: str, **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the block, with the attack in it and in all Pythons that it starts."""
    (folder / "code").mkdir()
    (folder / "code" / "sitecustomize.py").write_text(ATTACK)
    environment = {**os.environ, "PYTHONPATH": str(folder / "code"), "REPORTS": str(folder), **variables}
    process = await asyncio.create_subprocess_exec(sys.executable, *command, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), DEADLINE_SECONDS)


def list_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def attack(folder: Path, pid: int) -> set[str]:
    """Return which sockets a process could open."""
    os.kill(pid, signal.SIGUSR1)
    report = folder / f"{pid}.json"
    await eventually(report.exists, f"process {pid} has tried")
    return set(json.loads(report.read_text()))


async def test_a_process_without_a_filter_shows_that_the_attack_works(tmp_path: Path) -> None:
    code = "import signal, pathlib, sys; pathlib.Path(sys.argv[1]).touch()\nwhile True: signal.pause()"
    async with start_with_planted_code(tmp_path, "-c", code, str(tmp_path / "ready")) as process:
        await eventually((tmp_path / "ready").exists, "it runs")
        assert {"ipv4 stream", "ipv4 datagram", "unix stream"} <= await attack(tmp_path, process.pid)


@pytest.mark.unit_slow
@for_each("helper", {name: name for name in HELPERS})
async def test_a_compromised_helper_has_no_network(tmp_path: Path, helper: str) -> None:
    module, variable = HELPERS[helper]
    variables = {variable: str(tmp_path / "s")}
    if helper == "embedder":
        variables |= {embedder.ENV_ENGINE: "tiny", embedder.ENV_ENGINE_DIR: str(make_tiny_engine(tmp_path / "engine"))}
    async with start_with_planted_code(tmp_path, "-m", module, **variables) as process:
        await eventually((tmp_path / "s").exists, "it listens")
        pids = [process.pid]
        if helper == "embedder":  # its engine, which reads the texts, is a program of its own
            await SocketEmbedder(str(tmp_path / "s"), DEADLINE_SECONDS).embed(["a text"])
            pids += list_children(process.pid)
            assert len(pids) == 2
        for pid in pids:
            assert await attack(tmp_path, pid) == {"unix stream", "unix datagram", "unix raw"}
