"""A new version of the suite is asked beside the former one, and counts once a whole gate on it has been decided."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.monitor.settings import Former
from r1plus_contract.verdict import GateReport, Phase, Shadow, Verdict, Watch, WatchStanding
from r1plus_operator.plan.accuracy.pooled_detector import PoolRequest
from r1plus_operator.plan.accuracy.suite_selection import MOST_BYTES
from r1plus_operator.plan.settings import SuiteTrust
from support.plan.falls import FULL, NEXT, controlled, fallen
from support.plan.world import SUITES, World, observe_world, start_world, suite
from support.tables import for_each

V1, V2 = "smollm2-full-v1", "smollm2-full-v2"


def moved(world: World, **accuracy: Any) -> World:
    """The spec asks for the next version of the suite."""
    world.suites[V2] = suite(V2, salt="x")
    return world.change(accuracy={**world.spec.get("accuracy", {}), "suite": V2, **accuracy})


def shadowed(**accuracy: Any) -> tuple[World, str]:
    """A revision that passed the former version serves while the next one is asked for; world and revision."""
    world = World({**FULL, "accuracy": accuracy} if accuracy else dict(FULL))
    serving = world.bring_up()
    moved(world).settle()
    return world, serving


def to_a_third(world: World) -> str:
    """The spec asks for the version after the next, and no monitor has said anything of it; its name."""
    third = "smollm2-full-v3"
    world.suites[third] = suite(third, salt="y")
    world.reports = {}
    world.apply(accuracy={"suite": third})
    return third


def beside(world: World, revision: str, said: Verdict | None, *, percent: int = 100, problem: str = "") -> World:
    """The monitors of a revision, which watch it, say this of the new suite; of the former one what they said."""
    before = {n: replace(r, watch=r.watch or Watch(WatchStanding.STEADY, 4)) for n, r in world.reports.items()}
    gate: GateReport | None = None
    if said is not None:
        world.gate(revision, said, lost=3 if said is Verdict.FAIL else 0, batch=1)
        gate = next(r.gate for n, r in world.reports.items() if world.pods[n].revision == revision)
    told = Shadow(V2, world.suite_hash(V2), percent, gate, problem, world.status["accuracyConfigs"][-1])
    return world.alter(reports=before).report(revision, shadow=told)


def wanted(world: World) -> PoolRequest:
    found = world.plan().pool
    assert found is not None
    return found


def test_what_serves_goes_on_being_judged_by_the_former_suite_and_the_status_says_so() -> None:
    world, serving = shadowed()
    told, files = world.monitor_settings(), world.one("ConfigMap", "credit-accuracy")["data"]
    assert (told.suite, told.suite_hash) == (V2, world.suite_hash(V2))
    assert told.former == Former(V1, world.suite_hash(V1), (world.revision(serving).identity_digest,))
    assert files["former-suite.json"] == SUITES[V1].header_text
    assert files["former-items.jsonl"] == SUITES[V1].items_text
    assert files["items.jsonl"] == world.suites[V2].items_text
    status, reason, message = world.condition("QualityVerified")
    assert (status, reason) == ("Unknown", "SuiteShadowed")
    assert [
        words
        for words in (f"By suite {V1}: Pass, lost 0 of 4 items", f"suite {V2} runs in parallel (not begun yet)")
        if words not in message
    ] == []
    assert (world.status["suite"], world.status["accuracy"], world.status["verdict"]) == (V1, "4/4", "Pass")
    assert (world.selected(), world.condition("Ready")[0]) == (serving, "True")
    assert [v["suiteHash"] for v in json.loads(files["verdicts.json"])["reports"]] == [world.suite_hash(V1)]
    assert wanted(world).key.suite_hash == world.suite_hash(V1)
    assert "i0" in wanted(world).items


def test_how_far_it_is_and_why_it_cannot_be_asked_are_told() -> None:
    world, serving = shadowed()
    beside(world, serving, None, percent=40)
    assert world.settle().writes == 0
    assert f"suite {V2} runs in parallel (40 % of its gate)" in world.condition("QualityVerified")[2]
    beside(world, serving, None, problem="SuiteMismatch: item i0x").settle()
    assert f"suite {V2} cannot run: SuiteMismatch: item i0x" in world.condition("QualityVerified")[2]
    assert world.monitor_settings().former is not None


@for_each("said, condition", {
    "a Pass": (Verdict.PASS, "True GatePassed"),
    "a Fail": (Verdict.FAIL, "False GateFailed"),
})  # fmt: skip
def test_it_counts_as_soon_as_its_gate_is_decided_whatever_that_is(said: Verdict, condition: str) -> None:
    world, serving = shadowed()
    beside(world, serving, said).settle()
    assert [v.suite_hash for v in world.revision(serving).verdicts] == [world.suite_hash(V1), world.suite_hash(V2)]
    assert world.monitor_settings().former is None
    assert "former-items.jsonl" not in world.one("ConfigMap", "credit-accuracy")["data"]
    world.expect(QualityVerified=condition)
    assert (world.status["suite"], world.status["verdict"]) == (V2, said)
    assert wanted(world).key.suite_hash == world.suite_hash(V2)
    world.expect(serves=serving, runs={serving: 1})
    world.reports = {}
    assert world.settle().writes == 0, "verdicts alone hold it"
    assert world.monitor_settings().former is None


def test_a_suite_that_counted_once_counts_though_the_threshold_lets_nobody_tell_what_it_said() -> None:
    world, serving = shadowed()
    beside(world, serving, Verdict.FAIL).settle()
    world.reports = {}
    moved(world, threshold=0.5).settle()
    assert world.monitor_settings().former is None
    assert world.revision(serving).verdict_for(world.suite_hash(V2), 0.5) is None


@pytest.mark.parametrize("counted", [False, True], ids=["before the new one counts", "after it counted"])
def test_back_to_the_former_suite_nothing_is_asked_again(counted: bool) -> None:
    world, serving = shadowed()
    if counted:
        beside(world, serving, Verdict.FAIL)
        world.settle()
        world.reports = {}
    world.apply(accuracy={"suite": V1})
    assert world.monitor_settings().former is None
    world.expect(QualityVerified="True GatePassed")


@pytest.mark.parametrize("counted", [False, True], ids=["the second never counted", "the second counted"])
def test_a_third_version_is_asked_beside_what_counted_last(counted: bool) -> None:
    world, serving = shadowed()
    if counted:
        beside(world, serving, Verdict.PASS)
        world.settle()
    third = to_a_third(world)
    told = world.monitor_settings()
    assert told.former is not None
    assert (told.suite, told.former.suite) == (third, V2 if counted else V1)


def test_in_place_what_passed_the_former_suite_is_let_in_again_meanwhile() -> None:
    world = World({**FULL, "rollout": {"strategy": "InPlace"}})
    serving = world.bring_up()
    moved(world).settle()
    assert world.monitor_settings().former is not None
    assert world.monitor_settings().restored == world.revision(serving).identity_digest


@pytest.mark.parametrize(("said", "let_in"), [(Verdict.PASS, True), (Verdict.FAIL, False)], ids=["passed", "failed"])
def test_in_place_what_passed_the_former_suite_at_its_batch_is_let_in_again_once_the_new_one_is(
    said: Verdict, let_in: bool
) -> None:
    world = World({**FULL, "rollout": {"strategy": "InPlace"}})
    serving = world.bring_up()
    moved(world).settle()
    beside(world, serving, said).settle()
    assert world.monitor_settings().former is None
    assert (world.monitor_settings().restored == world.revision(serving).identity_digest) is let_in


def test_what_passed_the_suite_in_force_when_it_served_is_gone_back_to_once_another_one_counts() -> None:
    world, good, bad = fallen()
    world.steady()
    moved(world, onBreach="Rollback").settle()
    beside(world, bad, Verdict.PASS).settle()
    assert world.monitor_settings().former is None
    world.gate(bad, Verdict.PASS, batch=1).drop("i0x", "i1x").settle()
    assert (world.status["lastGood"], world.condition("QualityVerified")[1]) == (good, "RollingBack")
    world.start_pods(good).pass_control(good)
    assert world.selected() == good


def test_a_candidate_is_gated_on_the_new_suite_and_takes_traffic_by_it() -> None:
    world = World(dict(FULL))
    serving = world.bring_up()
    moved(world)
    candidate = world.apply(**NEXT)
    world.start_pods(candidate).settle()
    assert world.monitor_settings().former == Former(
        V1, world.suite_hash(V1), (world.revision(serving).identity_digest,)
    )
    world.gate(candidate, Verdict.PASS, suite_name=V1).set_ready(candidate).settle()
    assert world.selected() == serving, "what it passed before is another suite's"
    world.gate(candidate, Verdict.PASS).settle()
    assert world.selected() == candidate
    assert world.monitor_settings().former is None


@pytest.mark.parametrize("counted", [False, True], ids=["meanwhile", "once the new suite counts"])
def test_what_differs_in_its_placement_alone_is_judged_as_what_serves_is(counted: bool) -> None:
    """Its pods bear the same identity, so monitors judge them by the former suite and ask the new one beside it."""
    world, serving = shadowed()
    moved_pods = world.apply(placement={"nodeSelector": {"zone": "a"}})
    world.start_pods(moved_pods).gate(moved_pods, Verdict.PASS, suite_name=V1).settle()
    assert world.revision(moved_pods).identity_digest == world.revision(serving).identity_digest
    if counted:
        beside(world, serving, Verdict.PASS)
        beside(world, moved_pods, Verdict.PASS)
        world.settle()
    world.expect(QualityVerified="True GatePassed")
    world.set_ready(moved_pods).settle()
    assert world.selected() == moved_pods
    assert (world.monitor_settings().former is None) is counted


def test_a_fall_under_the_former_suite_is_answered_by_it_meanwhile() -> None:
    world, good, bad = fallen()
    moved(world).settle()
    world.expect(QualityVerified="False RollingBack")
    former = world.monitor_settings().former
    assert set(former.identities) == {world.revision(good).identity_digest, world.revision(bad).identity_digest}
    world.start_pods(good).control(Verdict.PASS, suite_name=V1).settle()
    world.set_ready(good).settle()
    assert world.selected() == good
    assert (world.monitor_settings().former or Former("", "", ())).suite == V1
    assert world.revision(bad).rollback is not None
    world.wait(60.0).settle()
    assert world.deployments() == {good: 1}


def test_what_was_rolled_back_from_does_not_return_because_the_suite_asked_for_all_along_counts_now() -> None:
    world, good, bad = fallen()
    moved(world).settle()
    world.start_pods(good).control(Verdict.PASS, suite_name=V1).settle()
    world.set_ready(good).settle()
    beside(world, good, Verdict.PASS)
    world.wait(60.0).settle()
    assert (world.monitor_settings().former, world.selected()) == (None, good)
    record = world.revision(bad).rollback
    assert record.is_in_force
    assert world.deployments() == {good: 1}


def test_a_control_on_a_suite_that_does_not_count_is_none() -> None:
    world, good, bad = fallen()
    moved(world).settle()
    world.start_pods(good).control(Verdict.PASS).set_ready(good).settle()
    world.expect(serves=bad, Progressing="True RollingBack")


def test_a_way_back_that_was_begun_under_the_former_suite_is_void_once_the_new_one_counts() -> None:
    world, _, bad = controlled()
    moved(world).settle()
    for pod in (n for n, p in world.pods.items() if p.revision == bad):
        world.stand(pod, WatchStanding.STEADY)
    beside(world, bad, Verdict.PASS).settle()
    world.expect(serves=bad, runs={bad: 1}, QualityVerified="True GatePassed")


def test_a_monitor_that_cannot_score_the_former_suite_is_told_before_anything_else() -> None:
    world, _ = shadowed()
    world.report(phase=Phase.BLOCKED, verdict=Verdict.NO_DATA, reason="SuiteInvalid", gate=None).settle()
    world.expect(QualityVerified="False NoData")


def _older(world: World) -> None:
    (obj,) = world.live("ControllerRevision")
    obj["data"] = {**obj["data"], "monitorSpeaks": 1}


def _altered(world: World) -> None:
    world.suites[V1] = suite(V1, salt="z")


def _untrusted(world: World) -> None:
    world.suites[V1] = replace(world.suites[V1], digest="a", signer="")
    world.suites[V2] = replace(world.suites[V2], digest="b")
    world.config = replace(world.config, suite_trust=SuiteTrust(shipped_digests=frozenset({"b"})))


def _large(world: World, over: int = 1) -> None:
    new, old = world.suites[V2], world.suites[V1]
    took = sum(len(s.header_text) + len(s.items_text) for s in (new, old))
    world.suites[V2] = replace(new, reference_text="x" * (MOST_BYTES + over - took))


AT_ONCE: dict[str, Callable[[World], None]] = {
    "its monitor knows no shadows": _older,
    "the former suite is gone": lambda w: w.suites.pop(V1) and None,
    "the former suite is another one now": _altered,
    "the former suite cannot be read": lambda w: w.suites.update({V1: replace(w.suites[V1], suite=None)}),
    "nobody vouches for the former suite any more": _untrusted,
    "the two are too large for one ConfigMap": _large,
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_the_new_suite_counts_at_once_where(case: str) -> None:
    world, _ = shadowed()
    AT_ONCE[case](world)
    world.settle()
    assert world.monitor_settings().former is None
    assert (world.monitor_settings().suite, world.status["suite"]) == (V2, V2)
    world.expect(QualityVerified="NotYetKnown")
    assert wanted(world).key.suite_hash == world.suite_hash(V2)


def test_two_suites_that_just_fit_are_run_side_by_side() -> None:
    world, _ = shadowed()
    _large(world, over=0)
    world.settle()
    assert world.monitor_settings().former is not None


@pytest.mark.parametrize("failed", [False, True], ids=["nothing is known of it", "it was let through with a Fail"])
def test_what_observe_let_through_and_nothing_ever_passed_has_no_former_suite(failed: bool) -> None:
    world, serving = observe_world()
    if failed:
        world.gate(serving, Verdict.FAIL, lost=3, batch=1).settle()
    moved(world).settle()
    world.expect(Ready="True")
    assert world.monitor_settings().former is None


def test_after_a_fail_under_the_second_version_the_third_is_asked_beside_the_first_which_was_passed() -> None:
    world, serving = shadowed()
    beside(world, serving, Verdict.FAIL).settle()
    third = to_a_third(world)
    told = world.monitor_settings()
    assert (told.suite, told.former.suite) == (third, V1)
    assert (world.status["suite"], world.status["verdict"]) == (V1, "Pass")


def test_a_suite_that_is_failed_under_a_higher_threshold_is_no_former_one() -> None:
    world = start_world(accuracy={"threshold": 0.5})
    serving = world.candidate()
    world.start_pods(serving, ready=True).gate(serving, Verdict.PASS, lost=1).settle()
    world.change(accuracy={"threshold": 0.9}).gate(serving, Verdict.FAIL, lost=1).settle()
    world.expect(QualityVerified="False GateFailed")
    moved(world).settle()
    assert world.monitor_settings().former is None


IN_DOUBT = {
    "one that has just been started anew": lambda w, pod: w.reports.update(
        {pod: replace(w.reports[pod], phase=Phase.WAITING_FOR_MODEL, verdict=Verdict.NO_DATA, gate=None, watch=None)}
    ),
    "one in quarantine": lambda w, pod: w.pods.update({pod: replace(w.pods[pod], quarantine="{}")}),
    "one that has alarmed": lambda w, pod: w.stand(pod, WatchStanding.CONFIRMING, evidence=2.0),
    "one whose scorer is not what it was":
        lambda w, pod: w.reports.update({pod: replace(w.reports[pod], phase=Phase.BLOCKED, reason="SuiteMismatch")}),
}  # fmt: skip


@pytest.mark.parametrize("pod", IN_DOUBT)
def test_what_a_pod_says_of_the_new_suite_is_not_believed_of(pod: str) -> None:
    world, serving = shadowed(onBreach="Alert")
    beside(world, serving, Verdict.FAIL)
    IN_DOUBT[pod](world, f"{serving}-0")
    world.settle()
    assert [v.suite_hash for v in world.revision(serving).verdicts] == [world.suite_hash(V1)]
    assert (world.monitor_settings().former or Former("", "", ())).suite == V1
