"""A student that two pods train together, of which one is killed in the middle: gated, then served.

`make e2e STORY=trainjob`. All of it is real: API server, kubelet, containerd, network policies, operator, Kubeflow's trainer
and JobSet, torch, OpenVINO, Triton, monitor. The teacher is a toy, the cluster has one node, and the controllers of
Kubeflow are processes of the node.
"""

import pytest

from e2e import story
from e2e.kube import Json, Kube
from e2e.story import Name, ask_through_service
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, gates_of, pods_of
from e2e.trainjob.images import TrainJobImages
from e2e.trainjob.students import STEPS, build_engine, deploy, until_training
from e2e.waiting import wait_for
from r1plus_contract.names import LABEL_VOLUME
from r1plus_contract.verdict import Verdict
from support.apiserver.kubeflow import TORCH
from support.model.forms import split_questions

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(3600)]
WORKERS = "jobset.sigs.k8s.io/replicatedjob-name=node"


def list_workers(kube: Kube, name: Name) -> list[Json]:
    return sorted(kube.all("pods", name.namespace, WORKERS), key=lambda pod: str(pod["metadata"]["name"]))


def log_of(kube: Kube, name: Name, pod: Json) -> str:
    return kube.kubectl("logs", f"--namespace={name.namespace}", pod["metadata"]["name"])


def test_a_student_of_two_pods_survives_the_loss_of_one_and_serves_after_its_gate(
    target: Target, tenant: Tenant, made: TrainJobImages, suite: OwnSuite
) -> None:
    kube = target.kube
    tenant.register(build_engine(made, "forms", runtimeRef={"name": TORCH}, numNodes=2))
    name = deploy(tenant, suite, "forms")
    evidence = tenant.evidence(name)
    until_training(tenant, name)
    leader, other = list_workers(kube, name)
    killed = other["metadata"]
    assert killed["labels"][LABEL_VOLUME].startswith("r1plus-engine-")
    assert other["spec"]["volumes"] and not any("projected" in one for one in other["spec"]["volumes"])
    kube.kubectl("delete", "pod", f"--namespace={name.namespace}", killed["name"], "--force", "--grace-period=0")
    wait_for(lambda: "another worker" in log_of(kube, name, leader), "the leader notices it", evidence, seconds=300)

    def has_successor() -> bool:
        uids = [pod["metadata"]["uid"] for pod in list_workers(kube, name)]
        return len(uids) >= 2 and killed["uid"] not in uids

    wait_for(has_successor, "the killed pod has a successor", evidence, seconds=300)
    text = f"step {STEPS} of {STEPS}"
    wait_for(lambda: text in log_of(kube, name, leader), "all steps are done", evidence, seconds=1200)
    print(log_of(kube, name, leader))

    revision = tenant.until_ready(name)
    assert [gate["verdict"] for gate in gates_of(kube, name, revision)] == [Verdict.PASS]
    print(story.view(kube, name).accuracy)
    item = split_questions()[1][0]
    assert item.answers[0] in ask_through_service(target, name, item.prompt).text
    assert pods_of(kube, name, revision)
    assert list_workers(kube, name) == [], "they go with their TrainJob"
