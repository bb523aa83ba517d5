"""A student that a Job trains: one is refused, the next goes on after its pod was deleted, passes its gate and serves.

`make e2e STORY=trainjob`, with the cluster, the teacher and the suite of `test_trainjob`. Here one Job fetches, trains and
makes the engine.
"""

import json
import re

import pytest

from e2e import story
from e2e.builds import can_reach_api_server, find_builder, read_claims
from e2e.kube import Json, Kube
from e2e.story import Name, ask_through_service, serving_revision
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, gates_of, in_container, pods_of, revisions_of
from e2e.trainjob.images import TrainJobImages
from e2e.trainjob.students import build_engine, deploy, until_training
from e2e.waiting import wait_for
from r1plus_cli.deployment.view import QUALITY
from r1plus_contract.names import CONTAINER_TRITON, DIR_ENGINE, INIT_BUILD, LABEL_VOLUME
from r1plus_contract.verdict import Verdict
from support.model.forms import split_questions

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(3600)]
STEPS, SEED = 800, 1
"""Of another recipe than that of `test_trainjob`: an equal one is trained once in a namespace."""
FINGERPRINT = f"cd {DIR_ENGINE} && find . -type f ! -name built.json | LC_ALL=C sort | xargs sha256sum | sed 's,  ./,  ,' | sha256sum"


@pytest.fixture(scope="module")
def clerk(tenant: Tenant, made: TrainJobImages, suite: OwnSuite) -> Name:
    """A deployment whose engine is a student of one step."""
    tenant.register(build_engine(made, "clerk", steps=1, learningRate=1e-6))
    return deploy(tenant, suite, "clerk")


def test_a_student_that_learned_nothing_is_refused_with_figures(target: Target, clerk: Name) -> None:
    kube = target.kube
    seen = story.follow(kube, [clerk], story.refused_for_good, "the gate refuses the student", print)[clerk]
    message = seen.condition_message(QUALITY)
    print(message)
    assert re.search(r"lost (\d+) of 32 items, 3 allowed at threshold 0\.9", message)
    assert serving_revision(kube, clerk) not in revisions_of(kube, clerk)


def log_of_trainer(kube: Kube, pod: Json) -> str:
    metadata = pod["metadata"]
    return kube.kubectl("logs", f"--namespace={metadata['namespace']}", metadata["name"], f"--container={INIT_BUILD}")


def test_with_more_steps_it_is_trained_through_the_loss_of_its_pod_and_serves(
    target: Target, tenant: Tenant, clerk: Name, made: TrainJobImages
) -> None:
    kube, evidence = target.kube, tenant.evidence(clerk)
    refused = set(read_claims(kube, clerk.namespace))
    tenant.register(build_engine(made, "clerk", steps=STEPS, seed=SEED))
    before = until_training(tenant, clerk)
    lost = find_builder(kube, clerk.namespace)
    assert lost is not None
    assert not any("projected" in volume for volume in lost["spec"]["volumes"]), "no token"
    assert not can_reach_api_server(kube, lost)
    kube.kubectl("delete", "pod", f"--namespace={clerk.namespace}", lost["metadata"]["name"], "--wait=false")

    def find_successor() -> Json | None:
        pod = find_builder(kube, clerk.namespace)
        return pod if pod and pod["metadata"]["uid"] != lost["metadata"]["uid"] else None

    successor = wait_for(find_successor, "the Job has another pod", evidence, seconds=300)
    until_training(tenant, clerk, beyond=before)

    def read_whole_log() -> str:
        log = log_of_trainer(kube, successor)
        return log if f"step {STEPS} of {STEPS}" in log else ""

    log = wait_for(read_whole_log, "all steps are done", evidence, seconds=1200)
    print(log)
    steps = [int(step) for step in re.findall(rf"step (\d+) of {STEPS}:", log)]
    assert before < steps[0] < STEPS, "it went on from the checkpoint"
    assert "teacher: example" not in log, "the teacher's predictions were there"

    revision = tenant.until_ready(clerk)
    assert [gate["verdict"] for gate in gates_of(kube, clerk, revision)] == [Verdict.PASS]
    print(story.view(kube, clerk).accuracy)
    item = split_questions()[1][0]
    assert item.answers[0] in ask_through_service(target, clerk, item.prompt).text

    (pod,) = pods_of(kube, clerk, revision)
    in_triton = (kube, clerk, pod["metadata"]["name"], CONTAINER_TRITON)
    built = json.loads(in_container(*in_triton, "cat", f"{DIR_ENGINE}/built.json"))
    assert built["source"] == made.sha256
    assert built["files"] == in_container(*in_triton, "sh", "-c", FINGERPRINT).split()[0]
    record = json.loads(in_container(*in_triton, "cat", f"{DIR_ENGINE}/distilled.json"))
    assert record["recipe"]["steps"] == STEPS
    (volume,) = set(read_claims(kube, clerk.namespace)) - refused
    assert read_claims(kube, clerk.namespace)[volume] == made.sha256
    wait_for(lambda: not kube.all("jobs", clerk.namespace, f"{LABEL_VOLUME}={volume}"), "the Job goes", evidence)
