"""Another file than was promised."""

import pytest

from e2e import objects, story
from e2e.accuracy.fall import accuracy
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, in_container, pods_of
from e2e.waiting import wait_for

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]

PROMISED, DELIVERED, FAMILY = "smollm2-edge-q4-1", "smollm2-full-q4-1", "swapped"


def test_another_engine_file_than_was_promised_never_serves(
    tenant: Tenant, target: Target, own_edge: OwnSuite, told: Story
) -> None:
    """4a. The engine file swapped: digest mismatch, never serves."""
    kube = tenant.kube
    spec = objects.spec_of_engine(kube, PROMISED) | {"family": FAMILY}
    promised_sha256 = spec["artifact"]["sha256"]
    spec["artifact"]["image"] = objects.spec_of_engine(kube, DELIVERED)["artifact"]["image"]
    own_edge.put(kube, tenant.namespace)
    name = tenant.apply("triage", "edge", accuracy=accuracy(own_edge))
    stable = tenant.until_ready(name)

    try:
        kube.apply(objects.engine(FAMILY, spec))
        with Witness(target, name, own_edge.suite) as seen:
            at = told.seconds
            told.step("the image behind the promised digest holds other files")
            tenant.change(name, engine={"family": FAMILY})

            def refused() -> bool:
                return story.view(kube, name).reason_of("EngineReady") == "EngineDigestMismatch"

            wait_for(refused, "EngineDigestMismatch is told", tenant.evidence(name))
            one = story.view(kube, name)
            told.figure(f"EngineDigestMismatch told after {told.seconds - at:.0f} s")
            told.tell(one.condition_message("EngineReady"))
            assert promised_sha256 in one.condition_message("EngineReady")
            states = [pod["status"]["phase"] for pod in pods_of(kube, name, one.candidate)]
            assert states == ["Pending"], "its Triton never starts"
            seen.more_answers(20)
            pod = wait_for(lambda: story.ready_pod(kube, name), "the pod that serves")
            with pytest.raises(RuntimeError, match="Read-only file system"):
                in_container(kube, name, pod, "triton", "/bin/sh", "-c", ": > /delivery/engine/openvino_model.bin")
        told.figure("the served files cannot be written to from inside the pod")
    finally:
        tenant.change(name, engine=None)
        kube.delete("r1plusengines", None, FAMILY)
    told.figure(seen.client.told)
    seen.assert_right_all_the_time([stable])
