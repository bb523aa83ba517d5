"""A container as a real process: started again, probed, limited, ended with all that it forked."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from r1plus_edge.pods.container import Container, Program
from r1plus_edge.pods.probes import ContainerProbe
from r1plus_edge.pods.processes import find_processes, mark, measure_memory
from r1plus_operator.plan.observation import ContainerFacts
from support.waiting import eventually

PYTHON = sys.executable


def make(folder: Path, script: str, **fields: Any) -> Container:
    program = Program(
        "test",
        (PYTHON, "-c", script),
        {"PATH": "/usr/bin:/bin", **mark(folder)},
        folder,
        folder / "logs" / "test.log",
        **fields,
    )
    return Container(program, lambda: None)


@asynccontextmanager
async def running(container: Container) -> AsyncIterator[Container]:
    task = asyncio.create_task(container.run())
    try:
        yield container
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.unit_slow
async def test_a_process_that_ends_is_started_again_and_its_last_words_are_its_message(tmp_path: Path) -> None:
    async with running(make(tmp_path, "import sys; sys.exit('the port is taken')")) as container:
        await eventually(lambda: container.restarts >= 2, "it was started again, twice")
        await eventually(lambda: container.pid is None, "it waits for the next start")
        facts = container.facts
        assert (facts.waiting_reason, facts.ready) == ("CrashLoopBackOff", False)
        assert facts.message.endswith("the port is taken")


@pytest.mark.unit_slow
async def test_a_process_that_ends_again_and_again_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    async with running(
        make(tmp_path, "print('a line before', flush=True); raise SystemExit('the key is lost')")
    ) as container:
        await eventually(lambda: container.is_failing, "it has ended twice")
        text = container.describe_failure()
    assert text.startswith(f"test ended with status 1, {container.failures} times in a row; the end of {tmp_path}/logs")
    assert text.splitlines()[-1] == "  the key is lost"


async def test_a_socket_that_a_killed_process_has_left_is_gone_at_its_next_start(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    path.touch()
    script = "import socket, time; one = socket.socket(socket.AF_UNIX); one.bind('front.sock'); time.sleep(600)"
    container = make(tmp_path, script, sockets=(path,))
    async with running(container):
        await eventually(path.is_socket, "it listens", evidence=container.describe_failure)
        assert container.restarts == 0


async def test_an_init_container_that_fails_reports_its_status_and_message(tmp_path: Path) -> None:
    container = make(tmp_path, "import sys; sys.exit('EngineDigestMismatch: other files')")
    assert await container.run_once() == 1
    facts = container.facts
    assert (facts.exit_code, facts.terminated_reason) == (1, "Error")
    assert facts.message == "EngineDigestMismatch: other files"


@pytest.mark.unit_slow
async def test_a_process_beyond_its_memory_is_killed_and_says_so(tmp_path: Path) -> None:
    hungry = "import time; held = bytearray(96 * 2**20); time.sleep(600)"
    async with running(make(tmp_path, hungry, memory_limit=64 * 2**20)) as container:
        await eventually(lambda: container.restarts > 0, "it is killed")
        assert container.facts.terminated_reason == "OOMKilled"


async def test_files_that_are_mapped_do_not_count_as_memory(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(96 * 2**20))
    maps = """
import mmap, pathlib, time
with open("weights", "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
total = sum(mapped[::4096])
pathlib.Path("read").touch()
time.sleep(600)
"""
    async with running(make(tmp_path, maps)) as container:
        await eventually((tmp_path / "read").exists, "it has read its weights")
        assert container.pid is not None
        assert measure_memory(container.pid) < 64 * 2**20


async def test_a_probe_makes_it_ready_and_unready(tmp_path: Path) -> None:
    probe = ContainerProbe(
        0.05, 5.0, 1, command=("/bin/sh", "-c", f"[ -e {tmp_path}/open ] || {{ echo closed; exit 1; }}")
    )
    async with running(make(tmp_path, "import time; time.sleep(600)", readiness=probe)) as container:
        await eventually(lambda: container.not_ready == "closed", "it says why it is not ready")
        (tmp_path / "open").touch()
        await eventually(lambda: container.facts.ready, "it is ready")
        (tmp_path / "open").unlink()
        await eventually(lambda: not container.facts.ready, "it is not ready any more")


async def test_a_probe_that_hangs_fails_after_its_time(tmp_path: Path) -> None:
    probe = ContainerProbe(0.05, 0.2, 1, command=("/bin/sleep", "600"))
    assert await probe.check({**mark(tmp_path)}) == "no answer in 0.2 s"
    assert find_processes(tmp_path) == []


async def test_what_fails_its_liveness_is_started_again(tmp_path: Path) -> None:
    probe = ContainerProbe(0.05, 5.0, 2, command=("/bin/false",))
    async with running(make(tmp_path, "import time; time.sleep(600)", liveness=probe)) as container:
        await eventually(lambda: container.restarts > 0, "it is started again")
        assert container.facts.terminated_reason == "LivenessProbeFailed"


async def test_one_that_has_run_well_and_ends_once_is_not_said_to_end_repeatedly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1plus_edge.pods.container.SOUND_SECONDS", 0.0)
    seen: list[ContainerFacts] = []
    program = make(tmp_path, "raise SystemExit('lost')").program
    container = Container(program, lambda: seen.append(container.facts))
    async with running(container):
        await eventually(lambda: container.restarts > 1, "it was started again")
    ended = [facts for facts in seen if facts.terminated_reason]
    assert ended and {facts.waiting_reason for facts in ended} == {"ContainerCreating"}


async def test_the_end_takes_what_it_has_forked_and_what_ignores_signals(tmp_path: Path) -> None:
    stubborn = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
pathlib.Path(f"started-{os.getpid()}").touch()
time.sleep(600)
"""
    async with running(make(tmp_path, stubborn)) as container:
        await eventually(lambda: len(list(tmp_path.glob("started-*"))) == 2, "both run")
        assert len(find_processes(tmp_path)) == 2
        await container.end(0.1)
        await eventually(lambda: find_processes(tmp_path) == [], "neither runs")


async def test_the_probes_go_on_where_the_log_cannot_be_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("r1plus_edge.pods.container.WATCH_SECONDS", 0.01)
    sign = tmp_path / "ready"
    probe = ContainerProbe(0.05, 10.0, 1, command=("test", "-e", str(sign)))
    container = make(tmp_path, "import time; time.sleep(600)", readiness=probe)
    async with running(container):
        await eventually(lambda: container.pid is not None, "it runs")
        container.program.log.unlink()
        await eventually(lambda: "Could not shorten" in caplog.text, "the log is looked for")
        sign.touch()
        await eventually(lambda: container.facts.ready, "its probe is asked")


async def test_a_probe_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    assert "it cannot be asked: No such file" in await ContainerProbe(
        1.0, 10.0, 1, command=(str(tmp_path / "none"),)
    ).check({})
