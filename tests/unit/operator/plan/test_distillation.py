"""Engines that a Job distils, as a deployment sees them: planned, keyed, described while they train, and refused."""

from dataclasses import replace
from typing import Any

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import EXIT_PERMANENT, FillPhase, FillProgress
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from r1plus_model_repo.config_pbtxt import parse_config
from r1plus_operator.observe.volume_observation import with_current_source
from r1plus_operator.plan.observation import JOB_ENDED, ContainerFacts, VolumeFacts
from r1plus_operator.plan.tenancy.volumes import VolumeNeed, VolumesObservation, VolumesPlan, plan_volumes
from support.plan.builders import SHIPPED, delivered, job_pod, machine
from support.plan.world import CONFIG, World, suite
from support.tables import for_each

TRAINER = "registry.example.com/r1plus-trainer:1"
CLAIM = {"metadata": {"uid": "c-1"}, "spec": {"resources": {"requests": {}}}}
NAME, SUITE = "smollm2-edge-q4-1", "smollm2-edge-v1"
DISTILL: dict[str, Any] = {"layers": 24, "memory": "6Gi", "storage": "8Gi"}
FETCHED = ContainerFacts("fetch", ready=True, exit_code=0)
TRAINING = ContainerFacts("build", ready=False)


def student(*, layers: int = 24, precision: str = "Q4_1", **distill: Any) -> Engine:
    """Return an engine that is distilled: the shipped one of tier edge, with so many layers."""
    document = SHIPPED[NAME].spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["architecture"]["layers"] = layers
    document["precision"] = precision
    document["build"] = {"distill": {**DISTILL, **distill}}
    return delivered(Engine(NAME, EngineSpec.model_validate(document)))


def world_of(engine: Engine, trainer: str = TRAINER, **spec: Any) -> World:
    return World(
        {"tier": "edge", "engine": {"family": "smollm2"}, "accuracy": {"suite": SUITE}, **spec},
        engines=(engine,),
        suites={SUITE: suite(SUITE)},
        nodes=(machine(),),
        config=replace(CONFIG, trainer_image=trainer),
    )


def started(engine: Engine | None = None, **spec: Any) -> World:
    world = world_of(engine or student(), **spec)
    world.settle()
    return world


def planned_volumes(world: World, now: float = 0.0, **live: Any) -> VolumesPlan:
    """Return what is done about the candidate's volume; `live`: kind -> object that is there."""
    volume = world.volume()
    there = {(kind, volume.name): obj for kind, obj in live.items()}
    observation = VolumesObservation("team", (VolumeNeed(volume, (("credit", "u-1"),)),), there)
    return plan_volumes(observation, world.config, now)


def job_of(world: World) -> dict[str, Any]:
    planned = planned_volumes(world, PersistentVolumeClaim=CLAIM)
    return next(obj for stage in planned.apply[world.volume().name] for obj in stage if obj["kind"] == "Job")


def test_a_student_is_trained_before_any_pod_and_the_pods_are_bound_to_its_key() -> None:
    world = started()
    world.expect(EngineReady="Unknown Delivering")
    assert world.live("Deployment") == []
    volume, revision = world.volume(), world.revision()
    assert volume.name == f"r1plus-engine-{volume.order.build.key[:16]}"
    assert (volume.order.build.gpu_product, volume.order.build.distill.layers) == ("", 24)
    assert parse_config(revision.config_pbtxt).parameters["built"].string_value == volume.order.build.key
    world.deliver().settle()
    assert len(world.live("Deployment")) == 1


def test_the_job_fetches_then_trains_within_its_limits_then_seals() -> None:
    spec = job_of(started())["spec"]
    pod = spec["template"]["spec"]
    assert [c["name"] for c in pod["initContainers"]] == ["engine", "fetch", "build"]
    fetch, build, fill = *pod["initContainers"][1:], *pod["containers"]
    assert (fetch["command"][-2:], fill["command"][-2:]) == (["--stage", "fetch"], ["--stage", "seal"])
    assert (build["image"], build["command"][:3]) == (TRAINER, ["python3", "-m", "r1plus_training.distill_job"])
    assert build["resources"]["limits"] == {"cpu": "2", "memory": "6Gi"}
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in build["env"]
    assert build["securityContext"] == fill["securityContext"]
    assert build["ports"][0]["containerPort"] == names.PORT_MONITOR
    (mounted,) = [volume for volume in pod["volumes"] if volume["name"] == "suite"]
    assert (mounted["configMap"]["name"], mounted["configMap"]["optional"]) == (SUITE, True)
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] == 120
    assert spec["activeDeadlineSeconds"] > 7 * 86400
    _, *rules = spec["podFailurePolicy"]["rules"]
    assert [rule["onExitCodes"]["containerName"] for rule in rules] == ["fill", "fetch", "build"]
    assert all(rule["onExitCodes"]["values"] == [EXIT_PERMANENT] for rule in rules)


def test_the_job_has_no_network_where_the_teacher_is_an_image() -> None:
    planned = planned_volumes(started(), PersistentVolumeClaim=CLAIM)
    (policy,) = [o for stage in planned.apply.popitem()[1] for o in stage if o["kind"] == "NetworkPolicy"]
    assert policy["spec"]["egress"] == []


def test_the_volume_has_room_for_the_training() -> None:
    world = started()
    (claim,) = planned_volumes(world).apply[world.volume().name][0]
    assert int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Mi")) > 8 * 1024


@for_each("changes", {
    "steps": {"steps": 4000},
    "temperature": {"temperature": 2.0},
    "hard weight": {"hardWeight": 0.5},
    "batch": {"batch": 4},
    "length": {"length": 128},
    "learning rate": {"learningRate": 0.001},
    "stored tokens": {"top": 32},
    "precision of the training": {"trainingPrecision": "bfloat16"},
    "seed": {"seed": 1},
})  # fmt: skip
def test_another_recipe_is_another_engine(changes: dict[str, Any]) -> None:
    first, other = started(), started(student(**changes))
    assert first.volume().name != other.volume().name
    assert first.candidate() != other.candidate()


@for_each("changes", {
    "memory": {"memory": "9Gi"},
    "storage": {"storage": "9Gi"},
    "cpu": {"cpu": "1"},
})  # fmt: skip
def test_more_room_trains_no_other_student(changes: dict[str, Any]) -> None:
    first, engine = started(), student(**changes)
    other = started(engine)
    assert first.volume().name == other.volume().name
    assert first.candidate() == other.candidate()
    assert with_current_source(first.volume(), engine) == other.volume()


def test_another_image_goes_on_with_the_same_training() -> None:
    world = started()
    name, job = world.volume().name, job_of(world)
    world.alter(config=replace(world.config, trainer_image="registry.example.com/r1plus-trainer:2")).settle()
    assert world.volume().name == name
    old = {**job, "metadata": {**job["metadata"], "uid": "j-1"}}
    assert ("Job", name, "j-1") in planned_volumes(world, PersistentVolumeClaim=CLAIM, Job=old).delete


def test_a_recipe_that_was_trained_is_there_for_other_deployments() -> None:
    volume = started().volume()
    other = world_of(student(), trainer="")
    other.volumes[volume.name] = VolumeFacts(delivered_digest=volume.order.digest)
    other.settle()
    assert len(other.live("Deployment")) == 1


def test_without_an_image_with_torch_the_message_says_what_to_set() -> None:
    world = world_of(student(), trainer="")
    world.settle()
    world.expect(EngineReady=("False EngineNotDelivered", "set the chart's images.trainer"))


def test_an_image_that_goes_away_leaves_the_volume_and_no_job() -> None:
    world = started()
    world.config = replace(world.config, trainer_image="")
    applied = planned_volumes(world, PersistentVolumeClaim=CLAIM).apply
    assert {o["kind"] for stages in applied.values() for stage in stages for o in stage} <= {"PersistentVolumeClaim"}


def test_another_number_of_layers_than_the_architecture_is_refused_before_the_training() -> None:
    world = world_of(student(layers=30))
    world.settle()
    message = "smollm2-edge-q4-1: spec.build.distill.layers: 24 differs from spec.architecture.layers, 30"
    world.expect(EngineReady=("False ConfigRefused", message))


def test_a_precision_that_no_student_has_is_refused_before_the_training() -> None:
    world = world_of(student(precision="INT8"))
    world.settle()
    world.expect(
        EngineReady=("False ConfigRefused", "spec.precision: INT8: a student for openvino has one of FP16, Q8_0")
    )


@for_each("changes, text", {
    "no memory, which would be no limit": ({"memory": "0"}, "memory: 0 is less than "),
    "less than the training takes": ({"memory": "1Gi"}, "memory: 1Gi is less than "),
    "more memory than can be counted": ({"memory": "9999999Ti"}, "memory: 9999999Ti is more than 1Ei; lower it"),
    "more storage than can be counted": ({"storage": "9999999Ti"}, "storage: 9999999Ti is more than 1Ei; lower it"),
})  # fmt: skip
def test_a_quantity_that_no_training_can_use_is_refused_before_it(changes: dict[str, Any], text: str) -> None:
    engine, running = student(**changes), started()
    world = world_of(engine)
    world.settle()
    world.expect(EngineReady=("False ConfigRefused", f"spec.build.distill.{text}"))
    assert with_current_source(running.volume(), engine) == running.volume(), "what trains keeps what it has"


def test_an_image_delivers_no_student() -> None:
    started(delivery={"mode": "Image"}).expect(EngineReady=("False EngineNotDelivered", "must be built"))


def describe(progress: FillProgress | None, *containers: ContainerFacts) -> tuple[str, str, str]:
    world = started()
    pod = job_pod(*(containers or (FETCHED, TRAINING)))
    world.deliver(VolumeFacts(pods=(pod,), progress=progress)).settle()
    return world.condition("EngineReady")


@for_each("progress, text", {
    "before its first report": (None, "its Job starts"),
    "before the teacher's first example": (FillProgress(FillPhase.PREDICTING), "its teacher reads the data"),
    "while the teacher predicts": (FillProgress(FillPhase.PREDICTING, 16, 400), "its teacher predicts example 16 of 400"),
    "in training": (
        FillProgress(FillPhase.TRAINING, 800, 2000, 0.51234, 1141), "training, step 800 of 2000, loss 0.5123, about 20 min left",
    ),
    "in a long training": (
        FillProgress(FillPhase.TRAINING, 1, 2000, 2.0, 36_000), "training, step 1 of 2000, loss 2.0000, about 10 h left",
    ),
    "after it": (FillProgress(FillPhase.IMPORTING), "trained; the student becomes an engine"),
})  # fmt: skip
def test_the_condition_says_how_far_it_is(progress: FillProgress | None, text: str) -> None:
    status, reason, message = describe(progress)
    assert (status, reason) == ("Unknown", "Delivering")
    assert message.endswith(f": {text}")


@for_each("container, text", {
    "a refusal": (
        ContainerFacts("build", ready=False, exit_code=2, message="TrainingRefused: spec.build.distill.learningRate: diverged"),
        "spec.build.distill.learningRate: diverged",
    ),
    "memory that ran out": (
        ContainerFacts("build", ready=False, exit_code=137, message="step 3 of 2000: loss 1.2"),
        "ended with 137: step 3 of 2000: loss 1.2; most often memory ran out: raise spec.build.distill.memory",
    ),
    "an image without torch": (
        ContainerFacts("build", ready=False, exit_code=1, message="TrainingRefused: images.trainer: torch is not installed"),
        "images.trainer: torch is not installed",
    ),
})  # fmt: skip
def test_the_condition_says_why_a_training_failed(container: ContainerFacts, text: str) -> None:
    status, reason, message = describe(None, FETCHED, container)
    assert (status, reason) == ("False", "DeliveryFailed")
    assert text in message


def test_the_condition_says_what_a_training_requests_that_no_node_has() -> None:
    world = started()
    pod = job_pod(unschedulable="0/1 nodes are available: 1 Insufficient memory.")
    world.deliver(VolumeFacts(pods=(pod,))).settle()
    assert "its training requests spec.build.distill.memory: lower that" in world.condition("EngineReady")[2]


def test_a_failed_training_is_tried_again_seldom() -> None:
    world = started()
    job, name = job_of(world), world.volume().name
    failed = {**job, "metadata": {**job["metadata"], "uid": "j-1"}, JOB_ENDED: {"type": "Failed", "at": 0.0}}
    for now, goes in ((3599.0, False), (3601.0, True)):
        assert (
            ("Job", name, "j-1") in planned_volumes(world, now, PersistentVolumeClaim=CLAIM, Job=failed).delete
        ) is goes


def test_a_student_that_no_deployment_asks_for_any_more_is_not_trained() -> None:
    world = started()
    first = world.candidate()
    world.alter(engines=(student(steps=4000),)).settle()
    assert first not in [live["metadata"]["name"] for live in world.live("ControllerRevision")]
