"""The images that a revision's pods ran when they passed its gate are recorded, and later pods are compared with them."""

from dataclasses import replace

from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.observation import ContainerFacts
from support.plan.world import NEXT, TRITON, World, serve_world, start_world
from support.tables import for_each

GATED, MOVED = "sha256:" + "a" * 64, "sha256:" + "b" * 64
MONITOR = ContainerFacts("monitor", ready=True, image_digest=GATED)


def run_on(world: World, revision: str, digest: str) -> World:
    """Let Triton of the revision's pods run this image."""
    return world.set_pods(revision, containers=(replace(TRITON, image_digest=digest), MONITOR))


def gated() -> tuple[World, str]:
    """A revision that was gated on an image, and whose pods are not Ready yet."""
    world = start_world()
    revision = world.candidate()
    run_on(world.start_pods(revision), revision, GATED)
    world.gate(revision, Verdict.PASS).settle()
    return world, revision


def test_images_are_recorded_with_the_pass() -> None:
    world, revision = gated()
    assert world.revision(revision).images == {"triton": (GATED,), "monitor": (GATED,)}
    world.set_ready(revision).settle()
    world.expect(serves=revision, QualityVerified="True GatePassed")


def test_a_pod_of_another_image_takes_no_traffic_over() -> None:
    world = serve_world()
    serving = world.selected()
    world.change(**NEXT).settle()
    candidate = world.candidate()
    run_on(world.start_pods(candidate), candidate, GATED)
    world.gate(candidate, Verdict.PASS).settle()
    run_on(world, candidate, MOVED).set_ready(candidate).settle()
    world.expect(
        serves=serving,
        QualityVerified=("False ImageChanged", f"triton runs {MOVED}", f"passed on {GATED}", "delete the pod"),
    )
    run_on(world, candidate, GATED).settle()
    world.expect(serves=candidate, QualityVerified="True GatePassed")


def test_what_serves_is_reported_and_stays() -> None:
    """Its monitor still tells of the gate that it ran, before its container was started again on another image."""
    world, revision = gated()
    world.set_ready(revision).settle()
    run_on(world, revision, MOVED).settle()
    world.expect(serves=revision, runs={revision: 1}, Ready="True Serving", QualityVerified="False ImageChanged")
    assert world.revision(revision).images["triton"] == (GATED,)


@for_each("recorded, runs", {
    "a revision of an earlier version, without a record": (None, MOVED),
    "a record that was damaged": ("{", MOVED),
    "a node that says no digest which holds everywhere": (GATED, ""),
})  # fmt: skip
def test_nothing_is_compared_where_one_of_both_is_not_known(recorded: str | None, runs: str) -> None:
    world, revision = gated()
    world.set_ready(revision).settle()
    notes = world.one("ControllerRevision", revision)["metadata"]["annotations"]
    world.reports = {}
    if recorded is None:
        del notes[names.ANNOTATION_IMAGES]
    elif recorded == "{":
        notes[names.ANNOTATION_IMAGES] = recorded
    run_on(world, revision, runs).settle()
    world.expect(serves=revision, QualityVerified="True GatePassed")
