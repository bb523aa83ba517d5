"""What the plan renders for vLLM on CPU is what runs: command, environment, volumes, user and memory limit."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_edge.pods.processes import read_thread_seconds
from r1plus_model_repo.catalog.types import VLLM_CPU_BLOCK_TOKENS
from r1plus_model_repo.delivery import assemble
from r1plus_operator.plan.settings import TritonRuntime
from support.engine.client import Client
from support.engine.server import Server, laid_out, serving
from support.plan.world import CONFIG, World
from support.vllm.engine import describe_on_cpu
from support.vllm.pod import (
    RenderedPod,
    limited_memory,
    read_environment,
    read_used_bytes,
    start_pod,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

BATCH, CONTEXT, ANSWER = 4, 512, 24
QUESTION = "Which of these numbers is the largest? " + " ".join(map(str, range(100, 210)))
"""Some 400 tokens, so that the batch nearly fills the KV cache."""


def plan_on_cpu(checkpoint: Path) -> World:
    """Plan a deployment of the checkpoint on a CPU node, where the installation has an image with vLLM for CPU."""
    engine = describe_on_cpu(checkpoint, cpu="2")
    runtime = TritonRuntime("registry.local/triton-vllm-cpu:1", "0.32.0")
    spec = {"tier": "full", "batching": {"maxBatchSize": BATCH}, "context": {"maxTokens": CONTEXT}}
    world = World(spec, engines=(engine,), config=replace(CONFIG, cpu_runtimes={"vllm": runtime}))
    world.settle()
    return world


def deliver(world: World, checkpoint: Path, folder: Path) -> Path:
    """Fill the volume `delivery` as the init containers do; all may read it."""
    shutil.copytree(checkpoint, folder / "engine")
    assemble(world.revision().config_pbtxt.encode(), folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def find_processes(server: Server, text: str) -> list[int]:
    """Return the processes below the server that have this in their command."""
    return [pid for pid in server.descendants() if text in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")]


def test_the_rendered_container_starts_vllm_and_answers_a_full_batch_within_its_memory(
    tmp_path: Path, python: Path, checkpoint: Path
) -> None:
    world = plan_on_cpu(checkpoint)
    pod = RenderedPod(world.revision().template["spec"])
    delivery = deliver(world, checkpoint, tmp_path / "delivery")
    with laid_out() as installed, limited_memory(pod.memory_bytes) as cgroup:
        server = start_pod(tmp_path, pod, cgroup, delivery, installed, str(python))
        with serving(server), Client(server.grpc) as ask:
            answers = ask.all([{"prompt": QUESTION, "max_new_tokens": ANSWER} for _ in range(BATCH)])
            assert {answer.error for answer in answers} == {""}
            assert {answer.prompt_tokens + ANSWER <= CONTEXT < 1.3 * answer.prompt_tokens for answer in answers} == {
                True
            }
            check_settings(server, pod)
            check_memory(server, pod, int((cgroup / "memory.max_usage_in_bytes").read_text()))


def check_settings(server: Server, pod: RenderedPod) -> None:
    """Check that vLLM's processes have what was rendered. vLLM's own write their title over their environment."""
    trackers = find_processes(server, "resource_tracker")
    assert trackers
    for environment in map(read_environment, trackers):
        assert environment.items() >= pod.environment.items()
        assert environment["OMP_NUM_THREADS"] == pod.container["resources"]["limits"]["cpu"] == "2"
        assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    (tokens,) = re.findall(r"CPU KV cache size: ([0-9,]+) tokens", server.log.read_text())
    assert int(tokens.replace(",", "")) == BATCH * CONTEXT + VLLM_CPU_BLOCK_TOKENS
    assert Path(f"/proc/{server.process.pid}").stat().st_uid == int(pod.user.partition(":")[0])


def check_memory(server: Server, pod: RenderedPod, most: int) -> None:
    """Check that memory and volumes suffice; `most` bytes were charged to the container."""
    (worker,) = find_processes(server, "Worker")
    used = {"shm": read_used_bytes(worker, "/dev/shm"), "tmp": read_used_bytes(worker, "/tmp")}
    figures = {"limit": pod.memory_bytes, "charged": most, "processes": server.peak_bytes(), **used}
    print("MiB:", {name: count >> 20 for name, count in figures.items()})
    print("Processor seconds of the model's threads:", sorted(read_thread_seconds(worker).values(), reverse=True)[:3])
    assert most < pod.memory_bytes
    assert figures["processes"] < pod.memory_bytes
    assert all(used[name] < pod.read_size(name) / 2 for name in used), used
