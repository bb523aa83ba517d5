"""Engines on volumes, as a deployment sees them: nothing starts before its engine is there, and nothing stops for it."""

from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import Archive, FillPhase, FillProgress
from r1plus_contract.verdict import Verdict
from r1plus_model_repo.catalog.types import ArchiveFile, Artifact, Engine
from r1plus_operator.plan.engine.delivery import with_current_source
from r1plus_operator.plan.observation import ContainerFacts, VolumeFacts
from r1plus_operator.plan.settings import AccessMode, VolumeTerms
from support.plan.builders import job_pod
from support.plan.world import CATALOG, CONFIG, NODE, World, start_world
from support.tables import for_each

VOLUME = {"delivery": {"mode": "Volume"}}
FULL = {"tier": "full", "context": {"maxTokens": 2048}}
OTHER = replace(NODE, name="n2")
UNSIGNED = VolumeTerms(require_signature=False)
SHARED = replace(UNSIGNED, access_mode=AccessMode.MANY_NODES)
CIDRS = VolumeTerms(cidrs=("10.0.0.0/8",), require_signature=False)
MOVED = ArchiveFile(url="https://elsewhere.example/e.tar", sha256="e" * 64, size="1Gi")
ARCHIVE = ArchiveFile(url="https://models.example/e.tar", sha256="b" * 64, size="400Mi")


def archive_engine(engine: Engine, archive: ArchiveFile = ARCHIVE) -> Engine:
    """The same engine, as an archive."""
    artifact = Artifact(archive=archive, sha256=engine.spec.files.sha256)
    return Engine(engine.name, engine.spec.model_copy(update={"artifact": artifact}))


def waiting() -> World:
    """A first revision whose engine is on its way."""
    return start_world(**VOLUME)


def test_no_pod_is_made_before_the_engine_is_there() -> None:
    world = waiting()
    assert world.live("Deployment") == []
    assert world.live("Service") == []
    world.expect(EngineReady="Unknown Delivering", Progressing="True Delivering")
    assert world.condition("Ready")[2] == f"revision {world.candidate()} waits for its engine; see EngineReady"
    world.deliver().settle()
    assert [*world.deployments()] == [world.candidate()]
    world.expect(EngineReady="Unknown EngineLoading")


def test_the_pods_mount_the_engine_read_only_and_copy_nothing() -> None:
    world = waiting()
    world.deliver().settle()
    name = world.volume().name
    template = world.live("Deployment")[0]["spec"]["template"]
    pod = template["spec"]
    assert [c["name"] for c in pod["initContainers"]] == ["verify"]
    assert {"name": "volume", "persistentVolumeClaim": {"claimName": name, "readOnly": True}} in pod["volumes"]
    mount = {"name": "volume", "mountPath": "/delivery/engine", "readOnly": True, "subPath": "engine"}
    holders = [c["name"] for c in (*pod["initContainers"], *pod["containers"]) if mount in c["volumeMounts"]]
    assert holders == ["verify", "triton"]
    assert template["metadata"]["labels"][names.LABEL_VOLUME] == name
    assert pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["topologyKey"]


def test_a_volume_of_many_nodes_ties_nobody_to_one() -> None:
    world = World({**FULL, **VOLUME}, config=replace(CONFIG, volumes=SHARED))
    world.settle()
    world.deliver().settle()
    assert "affinity" not in world.live("Deployment")[0]["spec"]["template"]["spec"]


@pytest.mark.parametrize("strategy", ["BlueGreen", "InPlace"])
def test_what_serves_goes_on_while_another_engine_is_on_its_way(strategy: str) -> None:
    world = World({**FULL, "rollout": {"strategy": strategy, "deadline": "1m"}})
    stable = world.bring_up()
    candidate = world.apply(engine={"precision": "Q4_1"}, **VOLUME)
    assert (candidate != stable, world.selected()) == (True, stable)
    assert ("Deployment", candidate) not in world.children
    assert world.one("Deployment", stable)["spec"]["replicas"] == 1
    world.expect(Ready="True Serving")
    world.wait(3600).settle()
    assert world.condition("Progressing")[:2] == ("True", "Delivering"), (
        "the deadline is the candidate's, not the way's"
    )
    world.deliver().settle()
    world.expect(Progressing="True RollingOut")
    world.wait(30).settle()
    assert ("Deployment", candidate) in world.children


def test_a_revision_with_pods_keeps_them_though_the_claim_is_lost() -> None:
    world = waiting()
    world.deliver().settle()
    world.start_pods(world.candidate())
    world.volumes.clear()
    world.settle()
    assert len(world.live("Deployment")) == 1
    world.gate(world.candidate(), Verdict.PASS).set_ready(world.candidate()).settle()
    world.expect(Ready="True")


def test_another_engine_on_the_volume_is_not_this_one() -> None:
    world = waiting()
    world.deliver(VolumeFacts(delivered_digest="c" * 64)).settle()
    assert world.live("Deployment") == []


def filling(
    message: str = "",
    code: int | None = None,
    *,
    name: str = "fill",
    reason: str = "",
    unschedulable: str = "",
    failed: bool = False,
) -> VolumeFacts:
    """A volume whose Job has a pod with this container."""
    container = ContainerFacts(name, ready=False, message=message, exit_code=code, waiting_reason=reason)
    return VolumeFacts(pods=(job_pod(container, unschedulable=unschedulable),), has_failed=failed)


TURNED_AWAY = job_pod(name="job-a", turned_away="OutOfnvidia.com/gpu: Pod was rejected")
TOLD = {
    "a full volume": (filling("StorageFull: engine x needs 5 bytes", 1), "False StorageFull", "needs 5 bytes"),
    "a full volume, of an image": (
        filling("cp: error writing '/volume/.incoming/w.bin': No space left on device", 1, name="engine"),
        "False StorageFull",
        "give it more storage",
    ),
    "another file": (filling("EngineDigestMismatch: sha256 is", 2), "False EngineDigestMismatch", "sha256 is"),
    "an address": (filling("FetchRefused: http 404", 2), "False DeliveryFailed", "FetchRefused: http 404"),
    "a pod that was killed": (filling("", 137), "Unknown Delivering", "its Job has no pod yet"),
    "a Job whose pods were all killed": (filling("", 137, failed=True), "False DeliveryFailed", "is retried"),
    "no image": (
        filling("not found", reason="ImagePullBackOff"),
        "False ImagePullFailed",
        "check the image's name and the pull secrets",
    ),
    "no node": (filling(unschedulable="0/1 nodes"), "Unknown Delivering", "waits for a node: 0/1 nodes"),
    "a Job without pods": (VolumeFacts(has_failed=True), "False DeliveryFailed", "is retried"),
    "nothing yet": (VolumeFacts(), "Unknown Delivering", "its Job has no pod yet"),
    "a pod that has ended": (
        filling("", 0),
        "Unknown Delivering",
        "its Job has ended; the operator goes on with its result",
    ),
    "a pod that has ended after one that failed": (
        VolumeFacts(pods=(*filling("FetchFailed: broke off", 1).pods, *filling("", 0).pods)),
        "Unknown Delivering",
        "its Job has ended",
    ),
    "a pod that starts": (filling(), "Unknown Delivering", "its Job starts"),
    "a pod that its node turned away": (
        VolumeFacts(pods=(TURNED_AWAY,)),
        "Unknown Delivering",
        "its Job has no pod yet (OutOfnvidia.com/gpu: Pod was rejected)",
    ),
    "a builder that failed beside one that its node turned away": (
        VolumeFacts(pods=(TURNED_AWAY, *filling("[TRT] out of memory", 1, name="build").pods)),
        "False DeliveryFailed",
        "its builder ended with 1: [TRT] out of memory",
    ),
    "a pod that works after one that failed": (
        VolumeFacts(pods=(*filling("FetchFailed: broke off", 1).pods, *filling().pods)),
        "Unknown Delivering",
        "its Job starts",
    ),
}


@for_each("facts, condition, text", TOLD)
def test_what_is_in_the_way_is_told(facts: VolumeFacts, condition: str, text: str) -> None:
    world = waiting()
    world.deliver(facts).settle()
    goes_on = condition.startswith("Unknown ")
    world.expect(EngineReady=(condition, text), Progressing="True" if goes_on else "False")


def test_a_quota_that_forbids_the_volume_is_told() -> None:
    world = waiting()
    world.alter(volumes_refused={world.volume().name: "exceeded quota: q"}).settle()
    world.expect(EngineReady=("False DeliveryFailed", "exceeded quota: q"))


def test_a_claim_that_somebody_else_made_is_told_in_a_line() -> None:
    world = waiting()
    said = "PersistentVolumeClaim is invalid: spec: Forbidden: spec is immutable after creation except\n core.Spec{...}"
    world.alter(volumes_refused={world.volume().name: said}).settle()
    world.expect(EngineReady=("False DeliveryFailed", "is not the operator's"))
    assert "core.Spec" not in world.condition("EngineReady")[2]


def test_progress_is_told_in_steps() -> None:
    world = waiting()
    name = world.volume().name
    told = []
    for done in (0, 4, 9, 10, 19, 99, 100):
        pod = filling().pods
        world.volumes[name] = VolumeFacts(pods=pod, progress=FillProgress(FillPhase.FETCHING, done, 100))
        world.settle()
        told.append(world.condition("EngineReady")[2].rpartition(": ")[2])
    assert told == [f"fetching {share} %" for share in (0, 0, 0, 10, 10, 90, 100)]
    world.volumes[name] = VolumeFacts(pods=pod, progress=FillProgress(FillPhase.VERIFYING))
    world.settle()
    assert world.condition("EngineReady")[2].endswith(": verifying")


@for_each("spec, terms, refused", {
    "two nodes": ({"replicas": 2}, UNSIGNED, True),
    "one replica": ({"replicas": 1}, UNSIGNED, False),
    "a shared volume": ({"replicas": 2}, SHARED, False),
    "one node is admitted": ({"replicas": 2, "placement": {"nodeSelector": {"zone": "b"}}}, UNSIGNED, False),
    "by image": ({"replicas": 2, "delivery": {"mode": "Image"}}, UNSIGNED, False),
})  # fmt: skip
def test_replicas_that_could_land_on_two_nodes_are_refused_one_nodes_volume(
    spec: dict[str, Any], terms: VolumeTerms, refused: bool
) -> None:
    world = World({**FULL, **VOLUME, **spec})
    world.nodes, world.config = (NODE, replace(OTHER, labels={"zone": "b"})), replace(CONFIG, volumes=terms)
    world.settle()
    status, reason, message = world.condition("CapacityFits")
    assert (status == "False") is refused
    if refused:
        assert reason == "StorageNotShared"
        assert "n1, n2" in message
        assert "delivery.volume.accessMode" in message


def test_an_archive_needs_a_network_to_come_from() -> None:
    world = World(dict(FULL), engines=tuple(map(archive_engine, CATALOG)))
    world.settle()
    world.expect(EngineReady=("False EngineNotDelivered", "delivery.cidrs"))
    world.alter(config=replace(CONFIG, volumes=CIDRS)).settle()
    volume = world.volume()
    assert (volume.image, volume.order.size) == ("", 400 * 2**20)
    assert (volume.order.archive.url, volume.order.archive.sha256) == (ARCHIVE.url, ARCHIVE.sha256)


def test_an_engine_on_a_volume_is_signed_by_somebody_unless_the_chart_says_otherwise() -> None:
    world = World({**FULL, **VOLUME}, config=replace(CONFIG, volumes=VolumeTerms()))
    world.settle()
    world.expect(EngineReady=("False EngineNotDelivered", "delivery.trustedKeys"))
    world.alter(config=replace(CONFIG, volumes=VolumeTerms(trusted_keys=("PEM",)))).settle()
    world.expect(EngineReady="Unknown Delivering")
    world.change(delivery={"mode": "Image"})
    world.alter(config=replace(CONFIG, volumes=VolumeTerms())).settle()
    world.expect(EngineReady="Unknown EngineLoading")


@pytest.mark.parametrize("terms", [VolumeTerms(), UNSIGNED], ids=["no keys", "no networks"])
def test_what_serves_is_watched_though_it_could_not_be_delivered_any_more(terms: VolumeTerms) -> None:
    world = World(
        {**FULL, "replicas": 2}, engines=tuple(map(archive_engine, CATALOG)), config=replace(CONFIG, volumes=CIDRS)
    )
    world.settle()
    stable = world.deliver().bring_up()
    world.config, world.nodes = replace(CONFIG, volumes=terms), (NODE, OTHER)
    world.settle()
    world.expect(EngineReady="True EngineLoaded", CapacityFits="True")
    assert (world.candidate(), world.selected()) == (stable, stable)


def test_another_access_mode_is_another_volume() -> None:
    worlds = [World({**FULL, **VOLUME}), World({**FULL, **VOLUME}, config=replace(CONFIG, volumes=SHARED))]
    for world in worlds:
        world.settle()
    one, many = (world.volume().name for world in worlds)
    assert many == f"{one}-shared"
    assert worlds[0].candidate() != worlds[1].candidate()


def test_an_address_that_is_corrected_needs_no_other_revision() -> None:
    engine = archive_engine(next(engine for engine in CATALOG if engine.name == "smollm2-full-f16"))
    spec = engine.spec.model_copy(update={"artifact": engine.spec.files.model_copy(update={"archive": MOVED})})
    world = World(dict(FULL), engines=tuple(map(archive_engine, CATALOG)), config=replace(CONFIG, volumes=CIDRS))
    world.settle()
    volume = world.volume()
    now = with_current_source(volume, Engine(engine.name, spec))
    assert now.order.archive == Archive(MOVED.url, MOVED.sha256)
    assert (now.name, now.order.size) == (volume.name, 2**30)
    other = spec.files.model_copy(update={"sha256": "d" * 64})
    assert with_current_source(volume, Engine(engine.name, spec.model_copy(update={"artifact": other}))) == volume
    assert with_current_source(volume, None) == volume


def test_an_archive_that_no_disk_holds_is_refused_before_its_volume() -> None:
    """From 2^63 bytes on, a revision could not be read again."""
    huge = ARCHIVE.model_copy(update={"size": "9999999Ti"})
    config = replace(CONFIG, volumes=CIDRS)
    refused = World(dict(FULL), engines=tuple(archive_engine(engine, huge) for engine in CATALOG), config=config)
    refused.settle()
    message = "spec.artifact.archive.size: 9999999Ti is more than 1Ei; lower it in the R1PlusEngine"
    refused.expect(EngineReady=("False ConfigRefused", message))
    assert refused.live("ControllerRevision") == []

    running = World(dict(FULL), engines=tuple(map(archive_engine, CATALOG)), config=config)
    running.settle()
    engine = next(engine for engine in refused.engines if engine.name == running.volume().order.engine)
    assert with_current_source(running.volume(), engine) == running.volume(), "what is fetched keeps what it has"


def test_an_archive_cannot_be_copied_out_of_an_image() -> None:
    world = World(
        {**FULL, "delivery": {"mode": "Image"}},
        engines=tuple(map(archive_engine, CATALOG)),
        config=replace(CONFIG, volumes=CIDRS),
    )
    world.settle()
    world.expect(EngineReady=("False EngineNotDelivered", "spec.delivery.mode: Image"))


def test_the_way_is_part_of_what_a_revision_is_and_the_default_way_changes_none() -> None:
    by_default, by_image, by_volume = (
        World({**FULL, "delivery": delivery}) for delivery in ({}, {"mode": "Image"}, {"mode": "Volume"})
    )
    for world in (by_default, by_image, by_volume):
        world.settle()
    assert by_default.candidate() == by_image.candidate() != by_volume.candidate()
    assert "volume" not in by_default.one("ControllerRevision", by_default.candidate())["data"]


def test_a_damaged_volume_in_a_revision_is_rendered_again() -> None:
    world = waiting()
    revision = world.one("ControllerRevision", world.candidate())
    world.children["ControllerRevision", world.candidate()] = {
        **revision,
        "data": {**revision["data"], "volume": {"name": 1}},
    }
    world.settle()
    assert world.volume().name.startswith("r1plus-engine-")


def test_a_plan_says_which_volumes_its_history_needs() -> None:
    world = waiting()
    assert world.settle().volumes == {world.volume().name}
    assert World(dict(FULL)).settle().volumes == frozenset()
