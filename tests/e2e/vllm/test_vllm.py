"""vLLM on CPU through the operator: a checkpoint is imported, gated by a golden suite, served, and restarted.

`make e2e STORY=vllm`. All of it is real: API server, kubelet, containerd, operator, monitor, Triton, vLLM, the model's weights.
The image's packages are a third party's build of vLLM for CPUs, and substitutes for CUDA's libraries.
"""

import re

import pytest

from e2e import story
from e2e.kube import Json, Kube
from e2e.story import Name, ask_through_service, serving_revision
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, gates_of, in_container, pods_of, revisions_of
from e2e.tiers import THRESHOLDS
from e2e.vllm.images import GOOD, SWAPPED, VllmImages
from e2e.waiting import wait_for
from r1plus_cli.deployment.view import QUALITY
from r1plus_contract.names import CONTAINER_TRITON
from r1plus_contract.verdict import Verdict
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.catalog.types import VLLM_CPU_BLOCK_TOKENS

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

BATCH, CONTEXT = 8, 1024
ENGINE_CORE = "VLLM::EngineCore"
_FIND = f"""
for folder in /proc/[0-9]*; do
    if tr '\\0' ' ' < $folder/cmdline | grep -q '^{ENGINE_CORE}'; then echo ${{folder#/proc/}}; fi
done
"""
_CHARGED = "cat /sys/fs/cgroup/memory/memory.max_usage_in_bytes /sys/fs/cgroup/memory.peak 2>/dev/null || true"


@pytest.fixture(scope="module")
def credit(tenant: Tenant, suite: OwnSuite) -> Name:
    """A deployment that serves the checkpoint."""
    accuracy = {**suite.held, "threshold": THRESHOLDS["full"]}
    batching, context = {"maxBatchSize": BATCH}, {"maxTokens": CONTEXT}
    name = tenant.apply(
        "credit", "full", engine={"family": GOOD}, batching=batching, context=context, accuracy=accuracy
    )
    tenant.until_ready(name)
    return name


def triton_of(pod: Json, of: str = "spec") -> Json:
    """Return the container that serves, as specified or as it is."""
    both = pod["spec"]["containers"] if of == "spec" else pod["status"]["containerStatuses"]
    return next(one for one in both if one["name"] == CONTAINER_TRITON)


def serving_pod(kube: Kube, name: Name) -> Json:
    (pod,) = pods_of(kube, name, serving_revision(kube, name))
    return pod


def find_engine_core(kube: Kube, name: Name, pod: str) -> str:
    """Return the process id of vLLM's process that runs the model."""
    return in_container(kube, name, pod, CONTAINER_TRITON, "bash", "-c", _FIND).strip()


def test_a_checkpoint_in_vllm_serves_only_after_its_gate_has_passed(
    target: Target, credit: Name, vllm_images: VllmImages, suite: OwnSuite
) -> None:
    kube = target.kube
    seen, pod = story.view(kube, credit), serving_pod(kube, credit)
    right, total = (int(part) for part in seen.accuracy.split()[0].split("/"))
    print(f"Right: {right} of {total}")
    assert (seen.verdict, seen.engine) == ("Pass", GOOD)
    assert total == len(suite.suite.items)
    assert right >= THRESHOLDS["full"] * total
    assert [gate["verdict"] for gate in gates_of(kube, credit, seen.revision)] == [Verdict.PASS]
    assert triton_of(pod)["image"] == vllm_images.runtime.pinned
    assert find_engine_core(kube, credit, pod["metadata"]["name"])
    assert "Paris" in ask_through_service(target, credit, "What is the capital of France?").text


def test_its_container_has_the_memory_that_the_fit_says(target: Target, credit: Name) -> None:
    kube, pod = target.kube, serving_pod(target.kube, credit)
    name, limit = pod["metadata"]["name"], bytes_of(triton_of(pod)["resources"]["limits"]["memory"])
    log = kube.kubectl("logs", f"--namespace={credit.namespace}", name, f"--container={CONTAINER_TRITON}")
    (tokens,) = re.findall(r"CPU KV cache size: ([0-9,]+) tokens", log)
    charged = int(in_container(kube, credit, name, CONTAINER_TRITON, "bash", "-c", _CHARGED).split()[0])
    print(f"Charged at most {charged >> 20} MiB of {limit >> 20}")
    assert int(tokens.replace(",", "")) == BATCH * CONTEXT + VLLM_CPU_BLOCK_TOKENS
    assert charged < limit
    assert triton_of(pod, "status")["restartCount"] == 0


def test_the_gate_refuses_a_checkpoint_with_two_tensors_swapped_and_the_first_goes_on(
    target: Target, tenant: Tenant, credit: Name
) -> None:
    kube = target.kube
    serving = serving_revision(kube, credit)
    tenant.change(credit, engine={"family": SWAPPED})
    seen = story.follow(kube, [credit], story.refused, "the gate refuses what was swapped", print)[credit]
    message = seen.condition_message(QUALITY)
    print(message)
    assert "lost" in message
    assert serving_revision(kube, credit) == serving
    (swapped,) = (one for one in revisions_of(kube, credit) if one != serving)
    assert {gate["verdict"] for gate in gates_of(kube, credit, swapped)} == {Verdict.FAIL}
    assert "Paris" in ask_through_service(target, credit, "What is the capital of France?").text
    tenant.change(credit, engine={"family": GOOD})
    assert tenant.until_ready(credit) == serving


def test_a_killed_process_of_vllm_restarts_the_container_and_it_answers_again(
    target: Target, tenant: Tenant, credit: Name
) -> None:
    kube, before = target.kube, serving_pod(target.kube, credit)
    pod = before["metadata"]["name"]
    victim = find_engine_core(kube, credit, pod)
    in_container(kube, credit, pod, CONTAINER_TRITON, "bash", "-c", f"kill -9 {victim}")

    def restarted() -> bool:
        status = triton_of(serving_pod(kube, credit), "status")
        return bool(status["restartCount"] == 1 and status["ready"])

    wait_for(restarted, "the container runs again, ready", tenant.evidence(credit))
    assert find_engine_core(kube, credit, pod) not in ("", victim)
    assert tenant.until_ready(credit) == serving_revision(kube, credit)
    assert "Paris" in ask_through_service(target, credit, "What is the capital of France?").text
