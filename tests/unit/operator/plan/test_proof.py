"""A Pass counts if its pod ran the gate under files that the operator wrote; see `plan.accuracy.proof`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from r1plus_contract.monitor.settings import SUPPORTS_SHADOW
from r1plus_contract.requests import Verb
from r1plus_contract.verdict import Shadow, Verdict, Watch, WatchStanding
from r1plus_monitoring.probe.client import ProbeReply
from r1plus_operator.plan.accuracy.proof import KEPT_CONFIGS
from r1plus_operator.plan.observation import ContainerFacts
from support.monitoring.scripted import Pod, ScriptedEngine, decide
from support.plan.falls import controlled, fallen
from support.plan.world import CONFIG, DAY, FULL, NEXT, TRITON, World, observe_world, serve_world, start_world, suite
from support.tables import for_each

OLD_IMAGE, NEW_IMAGE = CONFIG.monitor_image, "registry.local/monitor:2"
UNPROVEN = {
    "read in verdicts.json": "",
    "run under files that the operator did not write": "f" * 64,
}
V2 = "smollm2-full-v2"
MOVED: dict[str, Any] = {"placement": {"nodeSelector": {"zone": "a"}}}
GATED_IMAGE, OTHER_IMAGE = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def monitor_image(world: World, revision: str) -> str:
    containers = world.revision(revision).template["spec"]["containers"]
    return str(next(c["image"] for c in containers if c["name"] == "monitor"))


def age(world: World, *, shadows: bool = True) -> World:
    """Let all revisions that there are be of an operator whose monitors prove nothing; then comes this operator."""
    for obj in world.live("ControllerRevision"):
        obj["data"] = {**obj["data"], "monitorSpeaks": SUPPORTS_SHADOW}
    world.status = {key: value for key, value in world.status.items() if key != "accuracyConfigs"}
    return world.report(ran_under="").alter(config=replace(CONFIG, monitor_image=NEW_IMAGE)).settle() and world


def gated(world: World, *, ran_under: str | None = None) -> str:
    """Let the candidate's pods report a Pass; return the candidate."""
    revision = world.candidate()
    world.start_pods(revision, ready=True).settle()
    world.gate(revision, Verdict.PASS)
    if ran_under is not None:
        world.report(revision, ran_under=ran_under)
    world.settle()
    return revision


@for_each("ran_under", UNPROVEN)
def test_a_pass_that_nothing_proves_lets_nothing_in(ran_under: str) -> None:
    world = serve_world()
    serving = world.selected()
    world.change(**NEXT).settle()
    candidate = gated(world, ran_under=ran_under)
    assert world.revision(candidate).verdicts == ()
    world.expect(
        serves=serving,
        candidate=candidate,
        QualityVerified=("False PassUnproven", "ConfigMap credit-accuracy as the operator wrote it", "delete the pod"),
    )
    assert len(world.live("ControllerRevision")) == 2
    world.gate(candidate, Verdict.PASS).settle()
    world.expect(serves=candidate, QualityVerified="True GatePassed")


@for_each("ran_under", UNPROVEN)
def test_the_verdict_of_a_first_revision_is_not_shown_as_a_pass(ran_under: str) -> None:
    world = start_world()
    revision = gated(world, ran_under=ran_under)
    assert (world.status["verdict"], world.revision(revision).promoted_at) == ("NoData", None)
    world.expect(Ready="False NotServing")


def test_a_fail_is_taken_whoever_reports_it() -> None:
    world = start_world()
    revision = world.candidate()
    world.start_pods(revision).settle()
    world.gate(revision, Verdict.FAIL, lost=3).report(ran_under="").settle()
    world.expect(QualityVerified="False GateFailed")


def test_a_pass_that_is_told_to_further_pods_changes_nothing() -> None:
    world = serve_world(replicas=2)
    before = world.revision(world.selected())
    world.report(ran_under="").settle()
    assert world.revision(world.selected()) == before
    assert world.status["verdict"] == "Pass"
    world.expect(QualityVerified="True GatePassed")


def test_a_gate_that_began_under_an_earlier_configuration_counts_while_that_is_remembered() -> None:
    world = start_world()
    under, revision = world.status["accuracyConfigs"][-1], world.candidate()
    world.start_pods(revision).settle()
    for pace in range(1, KEPT_CONFIGS):
        world.apply(accuracy={"probesPerMinute": 100 + pace})
    assert world.status["accuracyConfigs"][0] == under
    world.apply(accuracy={"probesPerMinute": 99})
    assert under not in world.status["accuracyConfigs"]
    gated(world, ran_under=under)
    world.expect(QualityVerified="False PassUnproven")
    gated(world, ran_under=world.status["accuracyConfigs"][0])
    world.expect(QualityVerified="True GatePassed")


def test_a_configuration_is_remembered_before_it_is_written_and_once() -> None:
    world = start_world()
    first = world.status["accuracyConfigs"]
    planned = world.change(accuracy={"probesPerMinute": 7}).plan()
    world.carry_out(planned, 0)
    assert len(world.status["accuracyConfigs"]) == len(first) + 1
    world.settle()
    world.apply(accuracy={})
    assert sorted(world.status["accuracyConfigs"]) == sorted({*first, planned.status["accuracyConfigs"][-1]})
    assert world.status["accuracyConfigs"][-1] == first[-1]


def test_what_was_written_is_remembered_while_the_spec_cannot_be_served() -> None:
    world = start_world()
    before = world.status["accuracyConfigs"]
    for bad in ({"accuracy": {"suite": "none"}}, {"tier": "none"}):
        world.apply(**bad)
        assert world.status["accuracyConfigs"] == before


def test_after_the_status_was_lost_the_configuration_in_force_is_remembered_at_once() -> None:
    world = start_world()
    revision = world.candidate()
    world.start_pods(revision).settle()
    world.gate(revision, Verdict.PASS)
    world.status = {}
    planned = world.pass_once()
    assert (planned.requeue_after, world.revision(revision).verdicts) == (0.001, ())
    world.settle()
    world.expect(QualityVerified="True GatePassed")


def test_a_shadowed_suite_needs_the_same_proof() -> None:
    world = serve_world()
    serving = world.selected()
    world.suites[V2] = suite(V2, salt="x")
    steady = {name: replace(r, watch=Watch(WatchStanding.STEADY, 4)) for name, r in world.reports.items()}
    world.apply(accuracy={"suite": V2})
    world.gate(serving, Verdict.PASS, batch=1)
    gate = next(iter(world.reports.values())).gate
    shadow = Shadow(V2, world.suite_hash(V2), 100, gate)
    world.alter(reports=steady).report(shadow=shadow).settle()
    world.expect(QualityVerified=("Unknown SuiteShadowed", "did not run the gate", "delete the pod"))
    proven = replace(shadow, ran_under=world.status["accuracyConfigs"][0])
    world.report(shadow=proven).settle()
    world.expect(QualityVerified="True GatePassed")


def test_a_candidate_with_an_older_monitor_is_rendered_again_when_it_passes() -> None:
    world = serve_world()
    serving = world.selected()
    world.change(**NEXT).settle()
    old = world.candidate()
    world.start_pods(old).settle()
    age(world)
    world.expect(serves=serving, candidate=old)
    gated(world, ran_under="")
    new = world.candidate()
    assert (new != old, monitor_image(world, old), monitor_image(world, new)) == (True, OLD_IMAGE, NEW_IMAGE)
    assert world.revision(old).verdicts == ()
    world.expect(serves=serving, runs={serving: 1, new: 1}, QualityVerified="Unknown NotYetKnown")
    gated(world)
    world.expect(serves=new, QualityVerified="True GatePassed")
    # The revision that it took the place of is not asked for again, by this spec or by a later one like it.
    del world.children["ControllerRevision", old]
    world.apply(**FULL)
    assert world.apply(**NEXT) == new


def test_what_serves_with_an_older_monitor_is_not_rendered_again() -> None:
    world = age(serve_world())
    serving, before = world.selected(), world.revision(world.selected())
    world.suites[V2] = suite(V2, salt="x")
    steady = {name: replace(r, watch=Watch(WatchStanding.STEADY, 4)) for name, r in world.reports.items()}
    world.apply(accuracy={"suite": V2})
    world.gate(serving, Verdict.PASS, batch=1)
    shadow = Shadow(V2, world.suite_hash(V2), 100, next(iter(world.reports.values())).gate)
    world.alter(reports=steady).report(shadow=shadow).settle()
    assert world.revision(serving).verdicts == before.verdicts
    world.expect(serves=serving, runs={serving: 1})
    world.expect(QualityVerified=("Unknown SuiteShadowed", "a monitor of an older version", "Change spec.engine"))


def test_a_stored_pass_of_an_older_monitor_stays_and_its_watch_is_heard() -> None:
    world, good, bad = fallen()
    age(world).drop()
    assert world.revision(bad).has_passed(world.suite_hash(), 0.98)
    world.settle()
    world.expect(serves=bad, candidate=good, QualityVerified="False RollingBack")


def test_an_older_monitor_of_a_control_repeats_what_its_revision_has_passed() -> None:
    world, good, bad = controlled()
    age(world)
    world.control(Verdict.PASS).report(good, ran_under="").settle()
    world.set_ready(good).settle()
    world.expect(serves=good, QualityVerified="False RolledBack")
    record = world.revision(bad).rollback
    assert record is not None
    assert record.control is Verdict.PASS


def test_a_control_needs_proof_where_its_monitor_can_give_it() -> None:
    world, good, bad = controlled()
    world.control(Verdict.PASS).report(good, ran_under="").settle()
    world.set_ready(good).settle()
    world.expect(serves=bad, candidate=good)
    world.control(Verdict.PASS).settle()
    world.expect(serves=good)


def test_what_passed_another_suite_with_an_older_monitor_is_nothing_to_go_back_to() -> None:
    world, good, bad = fallen(accuracy={"onBreach": "Alert"})
    age(world)
    world.suites[V2] = suite(V2, salt="x")
    world.gate(bad, Verdict.PASS).apply(accuracy={"onBreach": "Rollback", "suite": V2})
    for obj in world.live("ControllerRevision"):
        if obj["metadata"]["name"] == bad:
            obj["data"] = {**obj["data"], "monitorSpeaks": 3}
    gate = replace(next(iter(world.reports.values())).gate, suite=V2, suite_hash=world.suite_hash(V2), batch=1)
    told = Shadow(V2, world.suite_hash(V2), 100, gate, "", world.status["accuracyConfigs"][-1])
    world.steady().report(shadow=told).settle()
    assert world.status["rollbackBlockers"] == [
        f"{good} (smollm2-full-f16) has a monitor of an older version, which cannot repeat the suite"
    ]


def test_observe_lets_a_candidate_of_an_older_monitor_in_and_says_that_its_pass_counts_for_nothing() -> None:
    world, revision = observe_world()
    age(world)
    world.gate(revision, Verdict.PASS, batch=1).report(ran_under="").settle()
    world.expect(serves=revision, runs={revision: 1}, QualityVerified=("False PassUnproven", "Change spec.engine"))
    world.ask(Verb.ACK).settle()
    world.expect(serves=revision)


async def answer_item(prompt: str, _asked: int) -> ProbeReply:
    number = next(c for c in prompt if c.isdigit())
    return ProbeReply(f"answer {number}", "stop", 5, 1)


def move(world: World, **gate: Any) -> str:
    """Change the placement alone; let the new pods report the Pass of what serves, so changed; return the revision."""
    before = world.selected()
    recorded = next(report for name, report in world.reports.items() if world.pods[name].revision == before)
    moved = world.apply(**MOVED)
    assert world.revision(moved).identity_digest == world.revision(before).identity_digest
    world.start_pods(moved).settle()
    assert recorded.gate is not None
    reported = replace(recorded, revision=moved, ran_under="", gate=replace(recorded.gate, **gate))
    world.reports |= {pod.name: reported for pod in world.pods.values() if pod.revision == moved}
    world.settle()
    world.set_ready(moved).settle()
    return moved


async def test_a_change_of_placement_alone_takes_traffic_after_the_monitors_short_check(tmp_path: Path) -> None:
    world = serve_world()
    moved = world.apply(**MOVED)
    world.start_pods(moved).settle()
    pod = Pod.make(tmp_path, world.revision(moved).identity)
    pod.swap(world.one("ConfigMap", "credit-accuracy")["data"])
    report = await decide(pod, ScriptedEngine(behaviour=answer_item))
    assert (report.verdict, report.admitted, report.ran_under) == (Verdict.PASS, True, "")
    world.reports |= {p.name: replace(report, revision=moved) for p in world.pods.values() if p.revision == moved}
    world.settle()
    world.set_ready(moved).settle()
    world.expect(serves=moved, QualityVerified="True GatePassed")


@for_each("lie", {
    "of another time": {"decided_at": "2026-01-01T00:30:00Z"},
    "with fewer losses": {"threshold": 0.99},
    "of another order": {"control": "x"},
})  # fmt: skip
def test_a_pass_that_no_revision_of_the_identity_has_recorded_lets_nothing_in(lie: dict[str, Any]) -> None:
    world = serve_world()
    serving = world.selected()
    moved = move(world, **lie)
    assert world.revision(moved).verdicts == ()
    world.expect(serves=serving, candidate=moved, QualityVerified="False PassUnproven")


def test_a_recorded_pass_of_another_identity_proves_nothing() -> None:
    world = serve_world()
    serving = world.selected()
    recorded = next(iter(world.reports.values())).gate
    world.change(**NEXT).settle()
    candidate = gated(world, ran_under="")
    world.report(candidate, gate=recorded).settle()
    assert world.revision(candidate).verdicts == ()
    world.expect(serves=serving, candidate=candidate)


def test_an_accuracy_drop_voids_the_pass_on_each_revision_that_has_it() -> None:
    world, good, bad = fallen()
    world.gate(bad, Verdict.PASS)
    moved = move(world)
    world.expect(serves=moved)
    assert world.revision(bad).verdicts == world.revision(moved).verdicts != ()
    void = world.revision(moved).verdicts[0]
    world.wait(60.0).settle()
    world.drop("i0", "i1").settle()
    world.start_pods(good).settle()
    world.pass_control(good)
    world.expect(serves=good)
    assert world.revision(bad).verdicts == ()
    again = world.apply(placement={"nodeSelector": {}, "tolerations": [{"key": "x", "operator": "Exists"}]})
    assert world.revision(again).identity_digest == void.identity
    assert void not in world.known_reports()
    world.start_pods(again).settle()
    world.gate(again, Verdict.PASS).report(again, gate=void, ran_under="").settle()
    world.set_ready(again).settle()
    world.expect(serves=good, candidate=again, QualityVerified="False PassUnproven")


def test_a_pass_that_was_taken_over_holds_for_the_images_that_were_gated() -> None:
    world = start_world()
    world.start_pods(world.candidate())
    monitor = ContainerFacts("monitor", ready=True, image_digest=GATED_IMAGE)
    world.set_pods(containers=(replace(TRITON, image_digest=GATED_IMAGE), monitor))
    first = gated_on(world)
    moved = world.apply(**MOVED)
    world.start_pods(moved).set_pods(moved, containers=(replace(TRITON, image_digest=OTHER_IMAGE), monitor)).settle()
    reported = replace(world.reports[f"{first}-0"], revision=moved, ran_under="")
    world.reports[f"{moved}-0"] = reported
    world.settle()
    world.set_ready(moved).settle()
    world.expect(serves=first, candidate=moved, QualityVerified=("False ImageChanged", OTHER_IMAGE))
    assert world.revision(moved).images["triton"] == (GATED_IMAGE,)


def gated_on(world: World) -> str:
    """Let the candidate pass on the images that its pods run, and take traffic; return it."""
    revision = world.candidate()
    world.gate(revision, Verdict.PASS).settle()
    world.set_ready(revision).settle()
    return revision


def test_a_rollback_passes_over_what_has_the_identity_that_dropped() -> None:
    world, good, bad = fallen()
    world.gate(bad, Verdict.PASS).steady().wait(DAY).settle()
    moved = move(world)
    world.wait(DAY).settle()
    world.drop("i0", "i1").settle()
    world.expect(serves=moved, candidate=good, QualityVerified="False RollingBack")
    order = world.monitor_settings().control
    assert order is not None
    assert order.identity == world.revision(good).identity_digest != world.revision(moved).identity_digest
