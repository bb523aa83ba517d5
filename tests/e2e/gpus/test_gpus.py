"""An engine for GPUs on a cluster that has none: built by its Job, sealed, verified, loaded, gated, asked.

`make e2e STORY=gpus`. Real are API server, scheduler, kubelet, containerd, walls, operator, monitor, Triton and its Python
backend. Stand-ins are the GPU (a number and labels, `node`), and in the image NVIDIA's entry point, `trtllm-build`,
`tensorrt_llm` and `transformers` (`stand_ins/`): the builder writes down what it was called with, the library says
prompts again.

So it is shown that a GPU's engine goes its whole way: which command is run where, what stands on the volume, that what
serves loads just that, that pods are bound to the product, what is said when something is missing. It is not shown that
TensorRT-LLM takes that command, builds, loads, fits the memory or answers rightly: no GPU has been at hand.
"""

import re
from typing import Any

import pytest

from devcluster.api import pod_ready
from e2e import objects
from e2e.builds import can_reach_api_server, find_builder, read_claims
from e2e.gpus.images import REFUSAL, TENANT, VERSION, GpuImages
from e2e.gpus.node import A10, L40S, RESOURCE, Gpu, Node
from e2e.kube import Json, Kube
from e2e.story import Name, ask_through_service, condition, serving_revision
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, pods_of, revisions_of
from e2e.waiting import wait_for
from r1plus_contract.jsonable import loads
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.names import (
    CONTAINER_TRITON,
    DIR_ENGINE,
    DIR_MODELS,
    ENV_IDENTITY,
    INIT_BUILD,
    LABEL_VOLUME,
)
from r1plus_model_repo.gpu_build import Recipe, build_command
from r1plus_operator.plan.engine.delivery import KEY_DIGITS
from r1plus_operator.plan.podspec.pod import PLATFORM

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

FAMILY, REFUSED_FAMILY, OTHER_FAMILY = "bank-gpu", "bank-gpu-refused", "bank-gpu-vllm"
BATCH, CONTEXT, SHORTER, STEP = 4, 512, 256, 1024
CHECKPOINT, REFUSED = "gpu-checkpoint", "gpu-checkpoint-refused"


def register(tenant: Tenant, made: GpuImages, family: str, checkpoint: str, backend: str = "tensorrtllm") -> None:
    """An R1PlusEngine of a model that is a toy in every figure."""
    spec: Json = {
        "family": family,
        "tier": "edge",
        "version": "1.0.0",
        "precision": "FP16",
        "backend": backend,
        "architecture": {
            "layers": 2,
            "kvHeads": 2,
            "headSize": 64,
            "contextLength": 2048,
            "parameters": 1_000_000,
        },
        "artifact": {"image": made.checkpoints[checkpoint].image.pinned, "sha256": made.checkpoints[checkpoint].sha256},
        "requirements": {
            "cpu": "1",
            "weightsMemory": "16Mi",
            "runtimeMemory": "64Mi",
            "activationMemory": "16Mi",
            "gpu": {"count": 1, "minCapability": "8.0"},
        },
        "batch": {"best": BATCH, "max": 8},
        "reference": {"suite": "echo-v1", "claimedBy": "nobody: it says prompts again"},
    }
    if backend == "tensorrtllm":
        spec["build"] = {"maxNumTokens": STEP}
    tenant.register(objects.engine(family, spec))


def deploy(tenant: Tenant, suite: OwnSuite, name: str, family: str, context: int = CONTEXT) -> Name:
    """Its gate is enforced, as everybody's."""
    return tenant.apply(name, "edge", engine={"family": family}, context={"maxTokens": context}, accuracy=suite.held)


def recipe(made: GpuImages, gpu: Gpu, context: int = CONTEXT) -> Recipe:
    """What is to be built, from what the test knows: none of it is read from the cluster."""
    return Recipe(
        checkpoint=made.checkpoints[CHECKPOINT].sha256,
        backend="tensorrtllm",
        precision="FP16",
        kv_precision="FP16",
        max_batch=BATCH,
        max_seq_len=context,
        max_num_tokens=STEP,
        gpu_product=gpu.product,
        compute_capability=gpu.capability,
        runtime=VERSION,
        image=made.runtime.pinned,
    )


def volume_of(one: Recipe) -> str:
    """It is named after the key."""
    return f"r1plus-engine-{one.key[:KEY_DIGITS]}"


def told(tenant: Tenant, name: Name, kind: str, pattern: str) -> str:
    """Wait until a condition says that: status, reason, message."""

    def look() -> str | None:
        cr = tenant.kube.get("r1plusdeployments", name.namespace, name.name) or {}
        found = condition(cr, kind)
        said = " ".join(str(found.get(part, "")) for part in ("status", "reason", "message"))
        return said if re.search(pattern, said) else None

    return wait_for(look, f"{kind} of {name} says {pattern!r}", tenant.evidence(name))


def says(tenant: Tenant, name: Name, kind: str) -> tuple[str, str]:
    """Status and reason of a condition, now."""
    found = condition(tenant.kube.get("r1plusdeployments", name.namespace, name.name) or {}, kind)
    return found.get("status", ""), found.get("reason", "")


def until_serving(tenant: Tenant, name: Name, than: str = "") -> str:
    """The revision that has passed its gate and takes traffic, another one `than` this."""

    def look() -> str | None:
        found = serving_revision(tenant.kube, name) if tenant.kube.get("services", TENANT, name.name) else ""
        passed = says(tenant, name, "QualityVerified") == ("True", "GatePassed")
        ready = any(pod_ready(pod) for pod in pods_of(tenant.kube, name, found)) if found != than else False
        return found if found and passed and ready and says(tenant, name, "Ready")[0] == "True" else None

    return wait_for(look, f"{name} serves", tenant.evidence(name))


def container_of(pod: Json, name: str) -> Json:
    """As its spec has it."""
    both = (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
    return next(one for one in both if one["name"] == name)


def product_of(kube: Kube, name: Name) -> str:
    """The GPU that the status tells of."""
    return str((kube.get("r1plusdeployments", name.namespace, name.name) or {})["status"].get("gpu", ""))


def in_triton(kube: Kube, pod: Json, *words: str) -> str:
    """`kubectl exec`."""
    return kube.kubectl("exec", "-n", TENANT, pod["metadata"]["name"], "-c", CONTAINER_TRITON, "--", *words)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What the tests, which go on from one another, found."""
    return {}


def test_an_engine_is_built_where_it_serves_and_what_serves_is_what_was_built(
    tenant: Tenant, target: Target, node: Node, made: GpuImages, suite: OwnSuite, known: dict[str, Any]
) -> None:
    kube, wanted = tenant.kube, recipe(made, L40S)
    register(tenant, made, FAMILY, CHECKPOINT)
    credit = deploy(tenant, suite, "credit", FAMILY)
    job = wait_for(lambda: find_builder(kube, TENANT), "it is built", tenant.evidence(credit))

    told(tenant, credit, "EngineReady", "^Unknown Delivering ")
    assert says(tenant, credit, "Ready") == ("False", "NotServing")
    assert kube.pods_of(TENANT, "credit") == [], "nothing starts before its engine is there"
    assert not can_reach_api_server(kube, job)
    assert job["spec"]["nodeName"] == node.name
    assert job["spec"]["nodeSelector"] == PLATFORM | {f"{RESOURCE}.product": L40S.product}
    assert container_of(job, INIT_BUILD)["resources"]["limits"][RESOURCE] == "1"
    assert container_of(job, INIT_BUILD)["image"] == made.runtime.pinned

    revision = until_serving(tenant, credit)
    assert read_claims(kube, TENANT) == {volume_of(wanted): wanted.checkpoint}
    wait_for(lambda: not kube.all("jobs", TENANT, LABEL_VOLUME), "the Job has gone")
    assert volume_of(wanted) not in [p["metadata"]["name"] for p in kube.all("networkpolicies", TENANT)]
    assert product_of(kube, credit) == L40S.product
    (pod,) = pods_of(kube, credit, revision)
    checkpoint, plan = "/volume/.checkpoint/engine/checkpoint", f"/volume/.built-{job['metadata']['name']}/plan"
    words = in_triton(kube, pod, "cat", f"{DIR_ENGINE}/plan/rank0.engine").splitlines()
    assert ("trtllm-build", *words) == build_command(wanted, checkpoint, plan)

    assert pod["spec"]["nodeSelector"] == PLATFORM | {f"{RESOURCE}.product": L40S.product}
    triton = container_of(pod, CONTAINER_TRITON)
    assert triton["image"] == made.runtime.pinned
    assert triton["resources"]["limits"][RESOURCE] == "1"
    text = (kube.get("configmaps", TENANT, revision) or {})["data"]["identity.json"]
    identity = loads(ServingIdentity, text)
    told_so = (identity.gpu_product, identity.engine_digest, identity.triton_image, identity.batch, identity.context)
    assert told_so == (L40S.product, wanted.checkpoint, made.runtime.pinned, BATCH, CONTEXT)
    assert {"name": ENV_IDENTITY, "value": identity.digest()} in triton["env"]

    assert "triton_model" in in_triton(kube, pod, "cat", f"{DIR_MODELS}/r1plus/1/model.py")
    with pytest.raises(RuntimeError, match="No module named 'r1plus_model_repo'"):
        in_triton(kube, pod, "python3", "-c", "import r1plus_model_repo")
    answer = ask_through_service(target, credit, "Grüße from the tenant", max_new_tokens=96)
    assert (answer.text, answer.finish_reason) == ("<user>Grüße from the tenant<assistant>", "stop")
    known |= {"revision": revision}


def test_a_build_that_fails_says_why_and_a_corrected_engine_goes_through(
    tenant: Tenant, node: Node, made: GpuImages, suite: OwnSuite
) -> None:
    """The one GPU is taken at first: a Job waits as any pod does, and what serves keeps what it has."""
    kube, wanted = tenant.kube, recipe(made, L40S, SHORTER)
    register(tenant, made, REFUSED_FAMILY, REFUSED)
    triage, credit = deploy(tenant, suite, "triage", REFUSED_FAMILY, SHORTER), Name(TENANT, "credit")
    told(tenant, triage, "EngineReady", f"^Unknown Delivering .*waits for a node: .*Insufficient {RESOURCE}")
    node.has(L40S, 2)

    said = told(tenant, triage, "EngineReady", r"^False DeliveryFailed .*its builder ended with 3: ")
    assert REFUSAL in said
    assert kube.pods_of(TENANT, "triage") == []
    assert says(tenant, triage, "Ready") == ("False", "NotServing")
    assert says(tenant, credit, "Ready") == ("True", "Serving"), "others are not affected"

    register(tenant, made, REFUSED_FAMILY, CHECKPOINT)
    until_serving(tenant, triage)
    both = {volume_of(one): one.checkpoint for one in (wanted, recipe(made, L40S))}
    wait_for(lambda: read_claims(kube, TENANT) == both, "what failed is given up, since nobody waits for it")
    kube.delete("r1plusdeployments", TENANT, "triage")
    only = {volume_of(recipe(made, L40S)): wanted.checkpoint}
    wait_for(lambda: read_claims(kube, TENANT) == only, "its volumes go with it")


def test_another_gpu_is_another_engine_and_the_old_ones_pods_do_not_start_on_it(
    tenant: Tenant, node: Node, made: GpuImages, known: dict[str, Any]
) -> None:
    kube, credit, before = tenant.kube, Name(TENANT, "credit"), known["revision"]
    (pod,) = pods_of(kube, credit, before)
    wanted = recipe(made, A10)
    node.has(A10, 1)
    told(tenant, credit, "EngineReady", f"^Unknown Delivering .*{volume_of(wanted)}.*waits for a node: ")
    assert says(tenant, credit, "Ready") == ("True", "Serving"), "what serves goes on"
    assert sorted(read_claims(kube, TENANT)) == sorted([volume_of(recipe(made, L40S)), volume_of(wanted)])

    kube.delete("pods", TENANT, pod["metadata"]["name"])

    def replaced() -> Json | None:
        others = [p for p in pods_of(kube, credit, before) if p["metadata"]["uid"] != pod["metadata"]["uid"]]
        refused = [c for p in others for c in p.get("status", {}).get("conditions", ()) if c["status"] == "False"]
        return next((c for c in refused if c["type"] == "PodScheduled"), None)

    found = wait_for(replaced, "the old revision's pod finds no node", tenant.evidence(credit))
    assert re.search("affinity/selector", found["message"]), found
    revision = until_serving(tenant, credit, than=before)
    wait_for(lambda: not pods_of(kube, credit, before), "the old revision's pod has gone")
    assert sorted(revisions_of(kube, credit)) == sorted([before, revision])
    assert read_claims(kube, TENANT)[volume_of(wanted)] == wanted.checkpoint
    assert product_of(kube, credit) == A10.product
    (now,) = pods_of(kube, credit, revision)
    assert now["spec"]["nodeSelector"] == PLATFORM | {f"{RESOURCE}.product": A10.product}


def test_without_a_gpu_or_an_image_for_the_backend_it_says_what_is_missing(
    tenant: Tenant, node: Node, made: GpuImages, suite: OwnSuite
) -> None:
    credit = Name(TENANT, "credit")
    register(tenant, made, OTHER_FAMILY, CHECKPOINT, backend="vllm")
    other = deploy(tenant, suite, "other", OTHER_FAMILY)
    told(tenant, other, "EngineReady", r"^False RuntimeNotServed .*needs the backend vllm, .*images\.gpu")
    late = deploy(tenant, suite, "late", FAMILY, SHORTER)
    node.loses_its_device_plugin()
    for name in (late, credit):
        told(tenant, name, "CapacityFits", "^False GpuNotFound .*NVIDIA-A10: it needs 1 in one node, which has 0")
    node.has_none()
    for name in (late, credit):
        told(tenant, name, "CapacityFits", "^False GpuNotFound .*no matching node offers a GPU")
    assert says(tenant, credit, "Ready") == ("True", "Serving"), "what serves goes on"
    for name in (other, late):
        assert tenant.kube.pods_of(TENANT, name.name) == []
