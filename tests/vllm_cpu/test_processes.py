"""vLLM's own processes below Triton's: their memory, their end, and what happens when one of them dies."""

import os
import signal
import time
from pathlib import Path

import pytest

from r1plus_edge.pods.processes import has_ended
from r1plus_policies.engine.memory_fit import compute_fit
from support.engine.client import Client
from support.vllm.engine import describe_on_cpu
from support.waiting import wait_until
from vllm_cpu.conftest import BATCH, CONTEXT, StartServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

STORY = "Tell me a long story about a lighthouse."


def read_command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")


def test_the_memory_of_all_processes_is_measured_and_none_is_left_at_the_end(
    start: StartServer, checkpoint: Path
) -> None:
    server, fit = start(), compute_fit(describe_on_cpu(checkpoint).spec.shape, BATCH, CONTEXT)
    with Client(server.grpc) as ask:
        answers = ask.all([{"prompt": f"{STORY} {n}", "max_new_tokens": 32} for n in range(BATCH)])
    assert {answer.error for answer in answers} == {""}
    assert len(server.descendants()) > len(server.children())
    peak = server.peak_bytes()
    assert fit.weights_bytes + fit.kv_cache_bytes / 4 < peak < fit.total_bytes
    server.until_callers_left()
    below, began = server.descendants(), time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.until_ended()
    print(f"Held at most {peak / 2**20:.0f} MiB, ended within {time.monotonic() - began:.1f} s")
    assert "Exit timeout expired" not in server.log.read_text(), server.last_words()
    assert server.process.returncode == 0, server.last_words()
    wait_until(lambda: all(map(has_ended, below)), "no process of the engine is left")


@pytest.mark.parametrize("process", ["EngineCore", "Worker"])
def test_a_killed_process_of_the_engine_ends_open_requests_and_the_server(start: StartServer, process: str) -> None:
    server = start()
    below = server.descendants()
    with Client(server.grpc) as ask:
        answer = ask.begin(prompt=STORY, max_new_tokens=400)
        ask.take()
        (victim,) = (pid for pid in below if process in read_command(pid))
        os.kill(victim, signal.SIGKILL)
        assert "the server is restarting" in ask.take_until_ended(answer).error
    server.until_ended()
    wait_until(lambda: all(map(has_ended, below)), "no process of the engine is left")
