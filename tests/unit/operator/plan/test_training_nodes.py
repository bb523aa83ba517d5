"""Engines that several machines train: what is planned in which order, how it is described, and what is refused."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import FillPhase, FillProgress
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.catalog.types import DistillTerms, Engine, EngineSpec
from r1plus_operator.observe.volume_observation import with_current_source
from r1plus_operator.plan.observation import JOB_ENDED, ContainerFacts, NodeFacts, VolumeFacts
from r1plus_operator.plan.settings import AccessMode
from r1plus_operator.plan.tenancy.volumes import VolumeNeed, VolumesObservation, VolumesPlan, plan_volumes
from support.plan.builders import SHIPPED, delivered, job_pod, machine
from support.plan.world import CONFIG, World, suite
from support.tables import for_each

TRAINER = "registry.example.com/r1plus-trainer:1"
CLAIM = {"metadata": {"uid": "c-1"}, "spec": {"resources": {"requests": {}}}}
NAME, SUITE = "smollm2-edge-q4-1", "smollm2-edge-v1"
RUNTIME = {"name": "torch-distributed"}
TOGETHER: dict[str, Any] = {
    "layers": 24,
    "memory": "6Gi",
    "storage": "8Gi",
    "runtimeRef": RUNTIME,
    "numNodes": 2,
}


def student(**distill: Any) -> Engine:
    """Return an engine that two machines train, unless `distill` says otherwise; None removes a field."""
    document = SHIPPED[NAME].spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["architecture"]["layers"] = 24
    document["build"] = {"distill": {key: v for key, v in (TOGETHER | distill).items() if v is not None}}
    return delivered(Engine(NAME, EngineSpec.model_validate(document)))


def started(
    engine: Engine | None = None,
    *,
    kinds: frozenset[str] = frozenset({"TrainJob"}),
    nodes: tuple[NodeFacts, ...] = (machine(),),
    **config: Any,
) -> World:
    world = World(
        {"tier": "edge", "engine": {"family": "smollm2"}, "accuracy": {"suite": SUITE}},
        engines=(engine or student(),),
        suites={SUITE: suite(SUITE)},
        nodes=nodes,
        kinds=kinds,
        config=replace(CONFIG, **{"trainer_image": TRAINER, "has_train_jobs": True, **config}),
    )
    world.settle()
    return world


class Namespace:
    """The volume of a deployment, and what a pass finds and writes of it."""

    def __init__(self, world: World | None = None, *, has_train_jobs: bool = True) -> None:
        self.world = world or started()
        self.has_train_jobs = has_train_jobs
        self.live: dict[tuple[str, str], Any] = {("PersistentVolumeClaim", self.name): CLAIM}

    @property
    def name(self) -> str:
        return self.world.volume().name

    def plan(self, now: float = 0.0) -> VolumesPlan:
        need = VolumeNeed(self.world.volume(), (("credit", "u-1"),))
        observed = VolumesObservation("team", (need,), self.live, has_train_jobs=self.has_train_jobs)
        return plan_volumes(observed, self.world.config, now)

    def settle(self, now: float = 0.0) -> "Namespace":
        """Do what passes plan until nothing is left to do."""
        for _ in range(10):
            planned = self.plan(now)
            for kind, name, _ in planned.delete:
                del self.live[(kind, name)]
            for stages in planned.apply.values():
                for obj in (one for stage in stages for one in stage):
                    key = (obj["kind"], obj["metadata"]["name"])
                    uid = self.live.get(key, {}).get("metadata", {}).get("uid", f"uid-{obj['kind']}")
                    self.live[key] = {**obj, "metadata": {**obj["metadata"], "uid": uid}}
            if not planned.has_changes:
                return self
        raise AssertionError("there is always something to do")

    def end(self, kind: str, outcome: str = "Complete", at: float = 0.0) -> "Namespace":
        self.live[(kind, self.name)][JOB_ENDED] = {"type": outcome, "at": at}
        return self

    def get(self, kind: str) -> Any:
        return self.live.get((kind, self.name))

    @property
    def kinds(self) -> set[str]:
        return {kind for kind, _ in self.live}

    @property
    def containers(self) -> list[str]:
        """Names of the containers of the Job."""
        pod = self.get("Job")["spec"]["template"]["spec"]
        return [one["name"] for one in (*pod.get("initContainers", ()), *pod["containers"])]


def trained() -> Namespace:
    return Namespace().settle().end("Job").settle().end("TrainJob").settle()


def test_a_job_fetches_then_a_train_job_trains_then_a_job_makes_the_engine() -> None:
    place = Namespace().settle()
    assert (place.containers, place.get("TrainJob")) == (["engine", "fill"], None)
    assert place.get("Job")["spec"]["template"]["spec"]["containers"][0]["command"][-2:] == ["--stage", "fetch"]
    place.end("Job").settle()
    assert place.containers == ["engine", "fill"], "the Job that has fetched says so"
    assert place.get("TrainJob") is not None
    place.end("TrainJob").settle()
    assert place.containers == ["engine", "fetch", "build", "fill"]
    assert place.get("TrainJob") is not None, "else the training would begin again"
    place.end("Job").settle()
    assert place.kinds == {"PersistentVolumeClaim"}
    assert place.get("PersistentVolumeClaim")["metadata"]["annotations"][names.ANNOTATION_DELIVERED] == "a" * 64


def test_the_train_job_adds_to_its_runtime_what_the_job_has() -> None:
    place = Namespace().settle().end("Job").settle()
    spec = place.get("TrainJob")["spec"]
    assert spec["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "ClusterTrainingRuntime",
        "name": "torch-distributed",
    }
    trainer = spec["trainer"]
    assert (trainer["image"], trainer["numNodes"]) == (TRAINER, 2)
    assert trainer["command"][-1] == "--worker"
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "2", "memory": "6Gi"}
    (patch,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = patch["template"]["spec"]["template"]
    assert pod["spec"]["serviceAccountName"] == place.name
    assert place.get("ServiceAccount")["automountServiceAccountToken"] is False
    assert {one["name"] for one in pod["spec"]["volumes"]} == {"volume", "order", "suite", "build-tmp"}
    policy = place.get("NetworkPolicy")["spec"]
    peers = [{"podSelector": {"matchLabels": pod["metadata"]["labels"]}}]
    assert policy["podSelector"]["matchLabels"] == pod["metadata"]["labels"]
    assert {"from": peers} in policy["ingress"] and {"to": peers} in policy["egress"]
    assert any(port["port"] == 53 for rule in policy["egress"] for port in rule.get("ports", ()))


def test_a_student_of_one_machine_has_no_rule_and_no_account_of_its_own() -> None:
    place = Namespace(started(student(runtimeRef=None, numNodes=None))).settle()
    assert place.kinds == {"PersistentVolumeClaim", "NetworkPolicy", "ConfigMap", "Job"}
    assert place.get("NetworkPolicy")["spec"]["egress"] == []
    assert len(place.get("NetworkPolicy")["spec"]["ingress"]) == 1


def test_a_job_of_one_machine_from_before_there_were_more_is_still_current() -> None:
    """Else an upgrade of the operator would end each training that runs."""
    place = Namespace(started(student(runtimeRef=None, numNodes=None))).settle()
    volume, order = place.world.volume(), place.get("ConfigMap")
    assert volume.trainer is not None
    trainer = {"cpu": volume.trainer.cpu, "memory": volume.trainer.memory, "suite": SUITE}
    inputs = dumps([order["data"], volume.image, trainer, TRAINER])
    written = place.get("Job")["metadata"]["annotations"][names.ANNOTATION_ORDER]
    assert written == hashlib.sha256(inputs.encode()).hexdigest()[:16]


def test_without_train_jobs_in_the_cluster_none_is_written() -> None:
    place = Namespace(has_train_jobs=False).settle().end("Job").settle()
    assert place.get("TrainJob") is None
    place.has_train_jobs = True
    assert place.settle().get("TrainJob") is not None


def test_a_failed_training_is_tried_again_after_an_hour() -> None:
    place = Namespace().settle().end("Job").settle().end("TrainJob", "Failed")
    assert place.plan(3599.0).delete == ()
    assert place.plan(3599.0).requeue_after == 1.0
    assert place.plan(3601.0).delete == (("TrainJob", place.name, "uid-TrainJob"),)
    assert JOB_ENDED not in place.settle(3601.0).get("TrainJob")


def test_a_train_job_that_somebody_deletes_is_made_again_and_the_files_stay() -> None:
    place = Namespace().settle().end("Job").settle()
    del place.live[("TrainJob", place.name)]
    assert place.settle().get("TrainJob") is not None
    assert place.containers == ["engine", "fill"]


def test_a_train_job_that_goes_while_the_engine_is_made_is_not_missed() -> None:
    place = trained()
    del place.live[("TrainJob", place.name)]
    assert place.settle().containers == ["engine", "fetch", "build", "fill"]
    assert place.get("TrainJob") is None


@for_each("changes", {
    "three machines": {"numNodes": 3},
    "another runtime": {"runtimeRef": {"name": "torch-gpu"}},
    "a runtime of the namespace": {"runtimeRef": {"name": "own", "kind": "TrainingRuntime"}},
    "one machine": {"runtimeRef": None, "numNodes": None},
})  # fmt: skip
def test_who_trains_is_no_part_of_the_student_and_a_training_goes_on_with_others(changes: dict[str, Any]) -> None:
    place, engine = Namespace().settle().end("Job").settle(), student(**changes)
    other = started(engine)
    assert (other.volume().name, other.candidate()) == (place.name, place.world.candidate())
    assert with_current_source(place.world.volume(), engine) == other.volume()
    place.world = other
    assert ("TrainJob", place.name, "uid-TrainJob") in place.plan().delete
    place.settle()
    assert (place.get("TrainJob") is None) is (
        engine.spec.distill is not None and engine.spec.distill.num_nodes is None
    )


def describe(facts: VolumeFacts, **world: Any) -> tuple[str, str, str]:
    made = started(**world)
    made.deliver(facts).settle()
    return made.condition("EngineReady")


def worker(**facts: Any) -> ContainerFacts:
    return ContainerFacts("node", **{"ready": True, **facts})


@for_each("facts, text", {
    "before its pods": (VolumeFacts(has_train_job=True), "its TrainJob has no pod yet; if this lasts, see `kubectl describe trainjob "),
    "in training": (
        VolumeFacts(
            has_train_job=True,
            pods=(job_pod(worker()), job_pod(worker())),
            progress=FillProgress(FillPhase.TRAINING, 800, 2000, 0.51234, 1141),
        ),
        "training, step 800 of 2000, loss 0.5123, about 20 min left",
    ),
    "after a container has begun again": (
        VolumeFacts(
            has_train_job=True,
            pods=(job_pod(worker(exit_code=1, message="TrainingStopped: stopped", runs_again=True)),),
            progress=FillProgress(FillPhase.TRAINING, 801, 2000),
        ),
        "training, step 801 of 2000",
    ),
})  # fmt: skip
def test_the_condition_says_how_far_the_training_is(facts: VolumeFacts, text: str) -> None:
    status, reason, message = describe(facts)
    assert (status, reason) == ("Unknown", "Delivering")
    assert text in message


@for_each("facts, text", {
    "a refusal": (
        VolumeFacts(pods=(job_pod(worker(exit_code=2, message="TrainingRefused: spec.build.distill.layers: 40 is not from 1")),)),
        "spec.build.distill.layers: 40 is not from 1",
    ),
    "a refusal by one, for which another waits": (
        VolumeFacts(
            has_train_job=True,
            pods=(job_pod(worker(exit_code=2, message="TrainingRefused: images.trainer: torch is not")), job_pod(worker())),
        ),
        "images.trainer: torch is not",
    ),
    "memory that ran out": (
        VolumeFacts(pods=(job_pod(worker(exit_code=137, message="step 3 of 2000")),)),
        "raise spec.build.distill.memory",
    ),
    "a TrainJob that has failed": (
        VolumeFacts(has_train_job=True, has_failed=True, train_job_message="jobset failed due to one or more job failures"),
        "its TrainJob has failed (jobset failed due to one or more job failures) and is retried; see `kubectl describe trainjob ",
    ),
})  # fmt: skip
def test_the_condition_says_why_a_training_failed(facts: VolumeFacts, text: str) -> None:
    status, reason, message = describe(facts)
    assert (status, reason) == ("False", "DeliveryFailed")
    assert text in message


def test_a_cluster_without_train_jobs_is_told_what_to_install() -> None:
    status, reason, message = describe(VolumeFacts(), kinds=frozenset())
    assert (status, reason) == ("False", "EngineNotDelivered")
    assert "finds no trainjobs of trainer.kubeflow.org/v1alpha1; install Kubeflow Trainer 2.2 or later, set" in message


def test_an_engine_that_one_machine_trains_from_now_on_needs_no_train_jobs() -> None:
    world = started().deliver(VolumeFacts(has_train_job=True))
    world.settle()
    world.engines, world.kinds = (student(runtimeRef=None, numNodes=None),), frozenset()
    world.config = replace(world.config, has_train_jobs=False)
    world.deliver(VolumeFacts()).settle()
    world.expect(EngineReady=("Unknown Delivering", "its Job has no pod yet"))


def test_an_operator_without_the_right_names_the_charts_value() -> None:
    world = started(has_train_jobs=False)
    world.expect(EngineReady=("False EngineNotDelivered", "set the chart's trainJobs.enabled to true"))


def test_a_volume_of_one_node_is_refused_where_there_are_more() -> None:
    several = started(nodes=(machine(name="n1"), machine(name="n2")))
    several.expect(
        CapacityFits=("False StorageNotShared", "set the chart's delivery.volume.accessMode to ReadWriteMany")
    )
    terms = replace(several.config.volumes, access_mode=AccessMode.MANY_NODES)
    several.alter(config=replace(several.config, volumes=terms)).settle()
    several.expect(EngineReady="Unknown Delivering")


def test_more_machines_than_parts_of_a_step_are_refused() -> None:
    started(student(numNodes=5)).expect(
        EngineReady=("False ConfigRefused", "spec.build.distill.numNodes: 5 is more than 4, the parts of a step")
    )
    started(student(numNodes=4)).expect(EngineReady="Unknown Delivering")


@for_each("changes, text", {
    "nodes without a runtime": ({"runtimeRef": None}, "runtimeRef and numNodes go together"),
    "a runtime without nodes": ({"numNodes": None}, "runtimeRef and numNodes go together"),
    "one machine": ({"numNodes": 1}, "numNodes"),
    "too many": ({"numNodes": 65}, "numNodes"),
    "another kind of runtime": ({"runtimeRef": {"name": "x", "kind": "Runtime"}}, "kind"),
    "a runtime without a name": ({"runtimeRef": {}}, "name"),
    "a name that no runtime can have": ({"runtimeRef": {"name": "A b"}}, "name"),
})  # fmt: skip
def test_a_field_that_makes_no_sense_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as raised:
        DistillTerms.model_validate({key: v for key, v in (TOGETHER | changes).items() if v is not None})
    assert text in str(raised.value)
