"""What keeps an old pod on the real tritonserver: how many requests of users the monitor counts, and the pod's hook."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from r1plus_contract import names
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_monitoring.probe.client import TritonEngine
from r1plus_operator.plan.podspec.pod import PRESTOP_SECONDS, build_prestop_command
from support.engine.client import LONG_STORY, Client
from support.engine.server import Server
from support.waiting import eventually

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

STORY = "Tell me a long story about a lighthouse."


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[TritonEngine]:
    """The monitor's client."""
    client = TritonEngine(server.http, server.grpc, 600.0, server.metrics)
    yield client
    await client.close()


async def until_counted(engine: TritonEngine, count: int, what: str) -> None:
    """Wait until the monitor counts so many requests of users."""

    async def is_so() -> bool:
        return await engine.count_user_requests() == count

    await eventually(is_so, what)


async def test_probes_are_no_requests_of_users(engine: TritonEngine, ask: Client) -> None:
    await until_counted(engine, 0, "nothing runs")
    probe = asyncio.create_task(engine.ask(STORY, SuiteSampling(max_new_tokens=900)))
    await eventually(lambda: bool(engine._streaming), "the probe streams")
    await until_counted(engine, 0, "a probe runs")
    for number in range(2):
        ask.begin(prompt=LONG_STORY.format(number), max_new_tokens=900)
    await until_counted(engine, 2, "two users' requests run as well")
    assert not probe.done()
    ask.hang_up()
    await until_counted(engine, 0, "both have left")
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    await until_counted(engine, 0, "the probe has left")


def test_a_server_that_has_loaded_catches_sigterm_as_the_hook_reads_it(server: Server) -> None:
    """While it loads it does not: then the hook waits."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    assert int(caught, 16) >> (signal.SIGTERM - 1) & 1


def test_a_deleted_pods_hook_waits_for_a_running_stream(server: Server, ask: Client) -> None:
    shell, option, script = build_prestop_command(600)
    port = server.metrics.rpartition(":")[2]
    script = script.replace(str(names.PORT_TRITON_METRICS), port).replace(f"sleep {PRESTOP_SECONDS};", "")
    answer = ask.begin(prompt=STORY, max_new_tokens=120)
    while not answer.came_at:
        ask.take()
    with subprocess.Popen([shell, option, script]) as hook:
        while len(answer.came_at) < 40:
            ask.take()
        # Not at the end: it may look just then.
        assert hook.poll() is None, "it waits for the stream"
        ask.take_until_ended(answer)
        assert (answer.error, answer.reason) == ("", "length")
        assert hook.wait(120) == 0
