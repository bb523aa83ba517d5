"""A fall from end to end, over a tiny world: control, switch, and every way not to go back."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.requests import Verb
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import Phase, Verdict, WatchStanding
from r1plus_operator.plan.observation import REFUSED_PODS
from r1plus_operator.plan.revision.storage import read_revision
from support.plan.falls import DAY, FULL, ROLLBACK, controlled, fallen, rolled_back
from support.plan.world import World, observe_world
from support.tables import for_each


def test_a_fall_brings_the_last_good_revision_up_without_traffic_and_asks_for_a_fresh_sweep() -> None:
    world, good, bad = fallen()
    world.settle()
    world.expect(serves=bad, runs={good: 1, bad: 1})
    assert world.accuracy_settings()["control"]["identity"] == world.revision(good).identity_digest
    world.expect(QualityVerified="False RollingBack", Progressing="True RollingBack")
    assert world.notes.count("RollingBack") == 2


def test_a_control_that_passes_moves_traffic_back_and_what_fell_does_not_return() -> None:
    world, good, bad = rolled_back()
    assert world.selected() == good
    world.wait(60.0).settle()
    assert world.deployments() == {good: 1}
    assert world.accuracy_settings()["control"] is None
    status, reason, message = world.condition("QualityVerified")
    assert (status, reason) == ("False", "RolledBack")
    assert [word for word in (bad, good, "2/4 right, 4/4 at its gate", "r1plus ack") if word not in message] == []
    world.expect(Ready="True")
    assert (world.status["revision"], world.status["candidate"]) == (good, bad)
    for _ in range(3):
        world.now += DAY
        assert world.settle().writes == 0
        assert world.selected() == good


@for_each("spec", {
    "only alerts are wanted": {"accuracy": {"onBreach": "Alert"}},
    "a rollback would be allowed": {"accuracy": {"onBreach": "Rollback"}},
    "it is paused": {"rollout": {"paused": True}},
})  # fmt: skip
def test_errors_without_answers_are_an_outage_and_no_drop_to_0_of_0(spec: dict[str, Any]) -> None:
    world = World(FULL)
    serving = world.bring_up()
    world.apply(**spec)
    world.stand_all(WatchStanding.ERRORS, evidence=1.0).settle()
    world.expect(serves=serving, QualityVerified=("Unknown ServerErrors", "an outage, not an accuracy drop", "runbook"))
    message = world.condition("QualityVerified")[2]
    assert "0/0" not in message
    assert "R1PlusServerErrorsInProbes" in message
    assert "now" not in world.status["incident"]


def test_an_old_pass_is_no_control() -> None:
    world, good, bad = controlled()
    world.gate(good, Verdict.PASS).settle()
    world.set_ready(good).settle()
    world.expect(serves=bad, Progressing="True RollingBack")


@for_each("change", {
    "an answer to another order": {"control": "another"},
    "one that was made at batch 1": {"batch": 1},
    "one under another threshold": {"threshold": 0.5},
    "one on another suite": {"suite_hash": "0" * 64},
    "one of another identity": {"identity": "0" * 64},
    "one that is no verdict": {"verdict": Verdict.INCONCLUSIVE},
})  # fmt: skip
def test_only_a_verdict_on_exactly_what_was_ordered_is_a_control(change: dict[str, Any]) -> None:
    world, good, bad = controlled()
    world.control(Verdict.PASS).report_gate(good, **change).settle()
    world.set_ready(good).settle()
    world.expect(serves=bad, Progressing="True RollingBack")


def test_a_control_that_fails_moves_nothing_and_pages_and_is_not_repeated() -> None:
    world, good, bad = controlled()
    world.control(Verdict.FAIL, lost=2).settle()
    for _ in range(2):
        world.expect(serves=bad, runs={bad: 1}, QualityVerified="False RollbackTargetAlsoFailed")
        assert world.plan().facts.blocked == "RollbackTargetAlsoFailed"
        world.wait(DAY).settle()
    world.ask(Verb.ACK).settle()
    assert world.status["candidate"] == good


@for_each("verdict, lost, result", {"it passes": (Verdict.PASS, 0, "passed"), "it fails": (Verdict.FAIL, 2, "failed")})
def test_the_incident_says_how_the_control_ended(verdict: Verdict, lost: int, result: str) -> None:
    world, good, _ = controlled()
    world.control(verdict, lost=lost).settle()
    assert f"revision {good} {result} the suite again: lost {lost} of 4 items" in world.status["incident"]["tried"]


def test_rollback_of_several_pods_waits_for_as_many_as_serve() -> None:
    world, good, bad = fallen(replicas=2)
    world.settle()
    world.start_pods(good).pass_control(good)
    assert world.selected() == bad
    assert world.deployments()[good] == 2
    world.start_pods(good, ready=True).settle()
    assert world.selected() == good


def test_in_place_the_control_takes_the_place_of_what_fell() -> None:
    world, good, bad = fallen(rollout={"strategy": "InPlace"})
    world.settle()
    world.expect(runs={good: 1, bad: 0}, Ready=("InPlaceRollout", good))
    world.start_pods(good).pass_control(good)
    assert world.selected() == good


def test_in_place_a_control_that_fails_restores_what_served() -> None:
    world, _, bad = fallen(rollout={"strategy": "InPlace"})
    world.settle()
    world.start_pods(world.status["candidate"]).control(Verdict.FAIL, lost=2).settle()
    world.expect(runs={bad: 1}, QualityVerified="RollbackTargetAlsoFailed")


def test_in_place_what_serves_is_let_in_again_and_beside_others_it_is_not() -> None:
    world, _, bad = fallen(rollout={"strategy": "InPlace"})
    serving = world.revision(bad).identity_digest
    world.settle()
    assert world.accuracy_settings()["restored"] == serving
    world.start_pods(world.status["candidate"]).control(Verdict.FAIL, lost=2).settle()
    assert (world.deployments(), world.accuracy_settings()["restored"]) == ({bad: 1}, serving)
    world, _, bad = fallen()
    world.settle()
    assert world.accuracy_settings()["restored"] == ""


def test_in_place_what_never_passed_is_not_let_in_again() -> None:
    world, _ = observe_world(rollout={"strategy": "InPlace"})
    world.expect(Ready="True")
    assert world.accuracy_settings()["restored"] == ""


@pytest.mark.parametrize("strategy", ["BlueGreen", "InPlace"])
def test_a_control_whose_monitor_cannot_score_ends_at_once_and_stays_ended(strategy: str) -> None:
    world, good, bad = controlled(rollout={"strategy": strategy})
    world.gate(good, Verdict.PASS)
    blocked = {"phase": Phase.BLOCKED, "reason": "SuiteMismatch", "message": "item i0: correct as recorded"}
    world.report(good, **blocked, gate=None).settle()
    world.start_pods(bad, ready=True).gate(bad, Verdict.PASS)
    for _ in range(2):
        world.settle()
        world.expect(serves=bad, runs={bad: 1})
        status, reason, message = world.condition("QualityVerified")
        assert (status, reason) == ("False", "SuiteMismatch")
        assert f"rollback target {good}" in message
        assert "item i0" in message
        world.now += DAY
    assert "could not score it" in world.status["incident"]["tried"][1]
    world.drop().ask(Verb.ACK).settle()
    assert world.status["candidate"] == good


def test_a_control_is_taken_up_again_where_what_serves_could_not_score_either_and_is_mended() -> None:
    world, good, bad = controlled()
    world.gate(good, Verdict.PASS)
    sound = dict(world.reports)
    world.report(phase=Phase.BLOCKED, reason="SuiteMismatch").settle()
    world.expect(serves=bad, runs={bad: 1}, QualityVerified="False SuiteMismatch")
    world.alter(reports={pod: sound[pod] for pod in world.pods}).settle()
    assert world.status["candidate"] == good


def unscheduled(world: World) -> None:
    world.set_pods(world.status["candidate"], unschedulable="0/1 nodes: Insufficient memory")


def refused(world: World) -> None:
    world.one("Deployment", world.status["candidate"])[REFUSED_PODS] = "exceeded quota: Insufficient memory"


@pytest.mark.parametrize("full", [unscheduled, refused], ids=["no node has room", "the quota has none"])
def test_a_control_without_room_is_told_and_goes_on_when_there_is_some(full: Callable[[World], None]) -> None:
    world, good, bad = controlled()
    full(world)
    world.wait(60.0).settle()
    world.expect(QualityVerified=("False RollbackBlocked", "NoCapacity", "Insufficient memory"))
    assert world.plan().facts.blocked == "NoCapacity"
    world.expect(serves=bad, runs={good: 1, bad: 1})
    world.one("Deployment", good).pop(REFUSED_PODS, None)
    world.set_pods(unschedulable="").pass_control(good)
    assert world.selected() == good


BLOCKED: dict[str, tuple[Callable[[World], None], str]] = {
    "the user wants to be told only": (lambda w: w.change(accuracy={"onBreach": "Alert"}), "BelowThreshold"),
    "traffic is pinned": (lambda w: w.change(rollout={"pinned": True}), "Pinned"),
    "the good revision's engine is another one": (lambda w: _spoil(w, "engine"), "ArtifactGone"),
    "the good revision passed another suite": (lambda w: _spoil(w, "suite"), "NoLastGood"),
    "the good revision's monitor takes no orders": (lambda w: _spoil(w, "monitor"), "MonitorTooOld"),
    "the good revision served for a moment": (lambda w: _spoil(w, "bake"), "NoLastGood"),
}


def _spoil(world: World, what: str) -> None:
    good = min((read_revision(obj) for obj in world.live("ControllerRevision")), key=lambda r: r.number)
    stored = world.one("ControllerRevision", good.name)
    notes, data = stored["metadata"]["annotations"], stored["data"]
    if what == "engine":
        stored["data"] = {**data, "identity": {**data["identity"], "engineDigest": "0" * 64}}
        for verdict in (v := json.loads(notes[names.ANNOTATION_VERDICT]))["reports"]:
            verdict["identity"] = read_revision(stored).identity_digest
        notes[names.ANNOTATION_VERDICT] = json.dumps(v)
    elif what == "monitor":
        stored["data"] = {key: value for key, value in data.items() if key != "monitorSpeaks"}
    elif what == "suite":
        notes[names.ANNOTATION_VERDICT] = notes[names.ANNOTATION_VERDICT].replace(good.verdicts[0].suite_hash, "0" * 64)
    else:
        bad = max((read_revision(obj) for obj in world.live("ControllerRevision")), key=lambda r: r.number)
        notes[names.ANNOTATION_PROMOTED_AT] = f"{(bad.promoted_at or 0.0) - 1.0:.3f}"


@pytest.mark.parametrize("case", BLOCKED)
def test_what_bars_a_rollback_is_a_reason_and_moves_nothing(case: str) -> None:
    world, _, bad = fallen()
    bar, words = BLOCKED[case]
    bar(world)
    world.settle()
    status, reason, message = world.condition("QualityVerified")
    assert status == "False"
    assert words in f"{reason}: {message}"
    world.expect(serves=bad, runs={bad: 1})
    assert world.plan().facts.blocked
    assert world.status["incident"]["next"]


@pytest.mark.parametrize(
    "change", [{"accuracy": {"onBreach": "Alert"}}, {"rollout": {"pinned": True}}], ids=["leave is taken back", "a pin is set"]
)  # fmt: skip
def test_leave_that_is_taken_back_ends_a_control(change: dict[str, Any]) -> None:
    world, _, bad = controlled()
    world.apply(**change)
    world.expect(serves=bad, runs={bad: 1})
    assert world.revision(bad).rollback is None


def test_reports_of_another_identity_or_suite_and_silence_move_nothing() -> None:
    for change in ({"identity": "x"}, {"suite_hash": "x"}, None):
        world, _, bad = fallen()
        world.alter(reports={p: replace(r, **change) for p, r in world.reports.items()} if change else {}).settle()
        world.expect(serves=bad, runs={bad: 1})
        assert "incident" not in world.status


def test_a_scorer_that_judges_otherwise_pages_and_moves_nothing() -> None:
    world, _, bad = controlled()
    world.control(Verdict.PASS)
    world.report(bad, phase=Phase.BLOCKED, reason="SuiteMismatch", watch=None).settle()
    world.expect(serves=bad, runs={bad: 1}, QualityVerified="False SuiteMismatch")


def test_a_scorer_that_judged_another_suite_otherwise_bars_nothing() -> None:
    world, _, bad = fallen(replicas=2)
    mute = next(p for p in world.pods if world.pods[p].revision == bad)
    world.reports[mute] = replace(
        world.reports[mute], phase=Phase.BLOCKED, reason="SuiteMismatch", watch=None, gate=None, suite_hash="0" * 64
    )
    world.settle()
    assert world.condition("QualityVerified")[1] != "SuiteMismatch"


def test_a_revision_that_observe_let_through_is_gone_back_from_by_its_gates_fail() -> None:
    world = World({**FULL, **ROLLBACK})
    good = world.bring_up()
    bad = world.wait(DAY).apply(engine={"precision": "Q4_1"}, accuracy={"onBreach": "Rollback", "gate": "Observe"})
    world.start_pods(bad, ready=True).settle()
    world.wait(60.0).settle()
    assert world.selected() == bad
    world.gate(bad, Verdict.FAIL, lost=3).settle()
    assert world.status["candidate"] == good
    world.start_pods(good).settle()
    world.set_ready(good).settle()
    assert world.selected() == bad
    world.pass_control(good)
    assert world.selected() == good


def test_the_pods_template_is_the_same_before_and_after() -> None:
    world, good, bad = rolled_back()
    for name in (good, bad):
        stored = world.revision(name)
        if ("Deployment", name) in world.children:
            assert world.one("Deployment", name)["spec"]["template"] == stored.template


def count_at(world: World, revision: str, at: float) -> None:
    """Let the counts of a revision's pods have ended at this time."""
    for pod, report in world.reports.items():
        if world.pods[pod].revision == revision and report.watch and report.watch.confirmation:
            count = replace(report.watch.confirmation, finished_at=format_timestamp(at))
            world.reports[pod] = replace(report, watch=replace(report.watch, confirmation=count))


def test_a_drop_waits_ten_minutes_at_most_for_a_candidate_from_before_it() -> None:
    world, good, bad = fallen()
    world.steady().settle()
    candidate = world.apply(context={"maxTokens": 1000})
    world.wait(60)
    world.drop("i0", "i1")
    count_at(world, bad, world.now)
    planned = world.settle()
    told = ("False RollbackBlocked", f"Revision {bad}: 2/4 right", "RolloutUnderWay")
    world.expect(serves=bad, candidate=candidate, Progressing="True RollingOut", QualityVerified=told)
    assert planned.requeue_after is not None
    assert planned.requeue_after <= 600
    world.wait(600).settle()
    world.expect(serves=bad, candidate=good)


def test_a_drop_waits_for_no_candidate_that_came_after_it() -> None:
    world, good, bad = fallen(lost=())
    world.steady().settle()
    world.change(accuracy={"onBreach": "Alert"}).drop("i0", "i1")
    count_at(world, bad, world.now)
    world.settle()
    world.wait(60).apply(context={"maxTokens": 1000})
    world.change(accuracy={"onBreach": "Rollback"}).settle()
    world.expect(serves=bad, candidate=good)


@for_each(
    "on_breach, reason", {"is rolled back": ("Rollback", "RollingBack"), "only alerts": ("Alert", "BelowThreshold")}
)
def test_a_drop_of_what_serves_is_reported_before_a_candidate_that_was_refused(on_breach: str, reason: str) -> None:
    world, _, bad = fallen(lost=())
    world.steady().change(accuracy={"onBreach": on_breach}).settle()
    candidate = world.apply(context={"maxTokens": 1000})
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    world.expect(serves=bad, candidate=candidate, QualityVerified=("False GateFailed", candidate))
    for pod in [pod for pod in world.pods if world.pods[pod].revision == bad]:
        world.stand(pod, WatchStanding.BELOW_THRESHOLD, lost=("i0", "i1"), evidence=2.0)
    world.settle()
    refusal = f"Revision {candidate}, which the spec asks for, failed its gate. TooManyLost"
    world.expect(QualityVerified=(f"False {reason}", f"Revision {bad}: 2/4 right", refusal))


def test_one_bad_pod_of_several_does_not_hide_the_gate_of_a_candidate() -> None:
    world, _, bad = fallen(lost=(), replicas=2)
    world.steady().settle()
    candidate = world.apply(context={"maxTokens": 1000})
    world.start_pods(candidate).settle()
    world.stand(f"{bad}-0", WatchStanding.BELOW_THRESHOLD, lost=("i0", "i1"), evidence=2.0).pass_once()
    world.expect(candidate=candidate, QualityVerified="False BadPod")
    world.settle()
    world.expect(candidate=candidate, QualityVerified="Unknown NotYetKnown")
