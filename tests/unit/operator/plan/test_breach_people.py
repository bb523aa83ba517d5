"""What people ask for about a fall, and how the fall is told to them."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.jsonable import dumps
from r1plus_contract.requests import Request, Verb
from r1plus_contract.verdict import GateProgress, Phase, Verdict, WatchStanding
from support.plan.falls import DAY, FULL, NEXT, ROLLBACK, fallen, rolled_back
from support.plan.world import World, observe_world, suite
from support.tables import for_each

RELEASES: dict[str, Callable[[World], None]] = {
    "an ack": lambda w: w.ask(Verb.ACK),
    "an unpin": lambda w: w.ask(Verb.UNPIN),
    "a lower threshold": lambda w: w.change(accuracy={"onBreach": "Rollback", "threshold": 0.5}),
}


@pytest.mark.parametrize("case", RELEASES)
def test_what_was_rolled_back_from_returns_after(case: str) -> None:
    world, good, bad = rolled_back()
    world.wait(60.0).settle()
    RELEASES[case](world)
    world.settle()
    assert world.deployments()[bad] == 1
    comes_back(world, good, bad)


def comes_back(world: World, good: str, bad: str) -> None:
    """By a gate of its own since then, and by nothing that it passed before."""
    world.start_pods(bad, ready=True)
    assert world.accuracy_settings()["control"]["identity"] == world.revision(bad).identity_digest
    world.gate(bad, Verdict.PASS).settle()
    assert world.selected() == good
    world.control(Verdict.PASS).settle()
    assert world.selected() == bad
    assert world.accuracy_settings()["control"] is None
    assert {v.control for v in world.revision(bad).verdicts} != {""}


def test_what_was_rolled_back_from_comes_back_by_a_pass_alone_and_every_ack_is_another_try() -> None:
    world, good, bad = rolled_back(accuracy={"onBreach": "Rollback", "gate": "Observe"})
    world.wait(60.0).ask(Verb.ACK).settle()
    world.start_pods(bad, ready=True)
    first = world.accuracy_settings()["control"]["token"]
    assert known_to_monitors(world, bad) == []
    world.control(Verdict.FAIL, lost=3).settle()
    world.expect(serves=good, runs={good: 1}, QualityVerified="False GateFailed")
    world.ask(Verb.UNPIN).settle()
    assert world.accuracy_settings()["control"]["token"] != first
    world.start_pods(bad, ready=True).control(Verdict.PASS).settle()
    world.expect(serves=bad, QualityVerified="True GatePassed")


def test_an_ack_forgives_the_hour_between_two_rollbacks_as_well() -> None:
    world, good, bad = rolled_back()
    world.wait(60.0).ask(Verb.ACK).settle()
    comes_back(world, good, bad)
    world.gate(bad, Verdict.PASS).drop().wait(60.0).settle()
    assert (world.condition("QualityVerified")[1], world.status["candidate"]) == ("RollingBack", good)


def known_to_monitors(world: World, revision: str) -> list[Any]:
    identity = world.revision(revision).identity_digest
    known = json.loads(world.one("ConfigMap", "credit-accuracy")["data"]["verdicts.json"])["reports"]
    return [report for report in known if report["identity"] == identity]


def test_who_goes_back_from_what_has_not_fallen_overrules_no_verdict() -> None:
    world, good, bad = fallen()
    world.steady().ask(Verb.ROLLBACK, revision=bad).settle()
    world.start_pods(good).pass_control(good)
    world.wait(60.0).ask(Verb.UNPIN).settle()
    assert world.accuracy_settings()["control"] is None
    world.start_pods(bad, ready=True).settle()
    assert world.selected() == bad


@for_each("said, fields, condition", {
    "a Pass that was asked for then": (Verdict.PASS, {"acknowledged": "now"}, "True GatePassed"),
    "not one that nobody asked for": (Verdict.PASS, {}, "False GateFailed"),
    "nor one of before": (Verdict.PASS, {"acknowledged": "another"}, "False GateFailed"),
    "nor another Fail": (Verdict.FAIL, {"acknowledged": "now"}, "False GateFailed"),
})  # fmt: skip
def test_an_acknowledgement_clears_a_fail_that_observe_let_through_by(
    said: Verdict, fields: dict[str, str], condition: str
) -> None:
    world, serving = observe_world()
    world.gate(serving, Verdict.FAIL, lost=3, batch=1).settle()
    world.expect(QualityVerified="False GateFailed")
    world.ask(Verb.ACK)
    token = world.asked_at(Verb.ACK)
    world.settle()
    world.gate(serving, said, lost=0 if said is Verdict.PASS else 3, batch=1)
    fields = {k: token if v == "now" else v for k, v in fields.items()}
    world.report_gate(**fields).settle()
    world.alter(reports={}).settle()
    world.expect(QualityVerified=condition)
    newest = known_to_monitors(world, serving)[0]["verdict"]
    assert newest == ("Pass" if condition == "True GatePassed" else "Fail")


@for_each("standing, fields, status", {
    "an older monitor is taken at its word": (WatchStanding.BELOW_THRESHOLD, {}, "False RollingBack"),
    "a fall under what holds now is a fall":
        (WatchStanding.BELOW_THRESHOLD, {"threshold": 0.98, "acknowledged": "now"}, "False RollingBack"),
    "one under another threshold is not known yet":
        (WatchStanding.BELOW_THRESHOLD, {"threshold": 0.99, "acknowledged": "now"}, "True GatePassed"),
    "one from before the acknowledgement is not known yet":
        (WatchStanding.BELOW_THRESHOLD, {"threshold": 0.98, "acknowledged": ""}, "False BelowThreshold"),
    "of a pod that is not watched there is nothing to acknowledge":
        (WatchStanding.BELOW_THRESHOLD, {"threshold": 0.98}, "False RollingBack"),
    "nor are errors": (WatchStanding.ERRORS, {"acknowledged": ""}, "True GatePassed"),
    "nor is a change": (WatchStanding.CHANGED, {"acknowledged": ""}, "True GatePassed"),
    "steadiness stays": (WatchStanding.STEADY, {"acknowledged": ""}, "True GatePassed"),
})  # fmt: skip
def test_only_what_was_found_under_what_holds_now_moves_anything(
    standing: WatchStanding, fields: dict[str, Any], status: str
) -> None:
    world, _, bad = fallen()
    world.ask_now(Verb.ACK)
    token = world.asked_at(Verb.ACK)
    world.stand_all(standing, lost=("i0", "i1"), evidence=2.0)
    world.report(**{k: token if v == "now" else v for k, v in fields.items()}).settle()
    world.expect(QualityVerified=status)
    assert (len(world.deployments()) == 1) is (status != "False RollingBack")
    assert world.selected() == bad


@pytest.mark.parametrize("ahead", [0.0, 600.0, 10 * DAY])
def test_an_acknowledged_drop_is_answered_again_after_the_deadline(ahead: float) -> None:
    world, good, _ = fallen()
    world.report(threshold=0.98, acknowledged="").ask_now(Verb.ACK, ahead=ahead).settle()
    if ahead < 3600.0:
        world.expect(QualityVerified="False BelowThreshold")
        assert world.status["incident"]["reason"] == "AckUnderWay"
        assert "candidate" not in world.status
        world.wait(3500.0 + ahead).settle()
        assert world.status["incident"]["reason"] == "AckUnderWay"
        world.wait(200.0).settle()
    world.expect(candidate=good, QualityVerified="False RollingBack")


@for_each("later, quarantined, reason", {
    "falls as well": (WatchStanding.BELOW_THRESHOLD, 0, "RollingBack"),
    "is steady": (WatchStanding.STEADY, 1, "BadPod"),
})  # fmt: skip
def test_the_first_pod_to_answer_an_ack_waits_for_the_others(
    later: WatchStanding, quarantined: int, reason: str
) -> None:
    world, _, bad = fallen(replicas=3)
    world.report(threshold=0.98, acknowledged="").ask_now(Verb.ACK)
    token = world.asked_at(Verb.ACK)
    first, second, third = sorted(name for name, pod in world.pods.items() if pod.revision == bad)
    world.reports[first] = replace(world.reports[first], acknowledged=token)
    world.settle()
    world.expect(serves=bad, runs={bad: 3}, QualityVerified="False BelowThreshold")
    assert world.status["incident"]["reason"] == "AckUnderWay"
    assert [name for name, pod in world.pods.items() if pod.quarantine] == []
    for name in (second, third):
        world.stand(name, later, lost=("i0", "i1"), evidence=2.0)
        world.reports[name] = replace(world.reports[name], acknowledged=token, threshold=0.98)
    world.settle()
    world.expect(QualityVerified=reason)
    assert [name for name, pod in world.pods.items() if pod.quarantine] == [first] * quarantined


def test_a_steady_pod_that_has_not_heard_of_an_acknowledgement_is_no_alarm() -> None:
    world, _, _ = fallen()
    world.steady()
    world.report(threshold=0.98, acknowledged="")
    world.ask(Verb.ACK).settle()
    assert "incident" not in world.status


def test_another_suite_lets_it_be_gated_again() -> None:
    world, _, bad = rolled_back()
    world.suites["smollm2-full-v2"] = suite("smollm2-full-v2", salt="x")
    world.apply(accuracy={"onBreach": "Rollback", "suite": "smollm2-full-v2"})
    assert world.deployments()[bad] == 1
    world.expect(QualityVerified="Unknown")


@for_each("change", {
    "more replicas": {"replicas": 2},
    "a higher threshold": {"accuracy": {"onBreach": "Rollback", "threshold": 0.99}},
    "other callers": {"access": {"namespaces": ["apps"]}},
})  # fmt: skip
def test_what_says_nothing_of_the_revision_does_not_bring_it_back(change: dict[str, Any]) -> None:
    world, good, _ = rolled_back()
    world.apply(**change)
    world.wait(DAY).settle()
    world.expect(serves=good, QualityVerified="RolledBack")


def test_a_spec_that_asked_for_something_else_meanwhile_may_ask_again_and_one_rollback_is_enough() -> None:
    world, good, bad = rolled_back()
    world.wait(60.0).apply(context={"maxTokens": 2048})
    world.expect(Progressing="False Complete")
    world.apply(**NEXT)
    comes_back(world, good, bad)
    world.wait(DAY).settle()
    world.gate(bad, Verdict.PASS).drop().settle()
    world.expect(serves=bad, QualityVerified=("RollbackBlocked", "AlreadyRolledBack"))
    world.ask(Verb.ACK).settle()
    assert world.status["candidate"] == good


def test_a_second_fall_within_the_hour_waits() -> None:
    world, good, bad = rolled_back()
    world.gate(good, Verdict.PASS).drop().settle()
    assert world.selected() == good
    assert world.plan().facts.blocked == "Cooldown"
    assert f"The accuracy of revision {good} dropped as well: Cooldown" in world.condition("QualityVerified")[2]
    world.expect(candidate=bad, Progressing="False RollbackBlocked")


def test_a_person_may_go_back_from_what_has_not_fallen() -> None:
    world, good, bad = fallen()
    world.steady()
    world.apply(accuracy={"onBreach": "Alert"})
    assert world.status["lastGood"] == good
    world.ask(Verb.ROLLBACK, revision=bad).settle()
    assert world.notes.count("RollbackRequested") == 1
    world.expect(candidate=good, QualityVerified="True GatePassed", Progressing="True RollingBack")
    assert world.status["incident"]["runbook"].endswith("/R1PlusRolledBack.md")
    world.start_pods(good).control(Verdict.PASS).settle()
    world.set_ready(good)
    planned = world.pass_once()
    assert planned.facts.rolled_back == "Requested"
    world.settle()
    assert world.selected() == good
    world.expect(QualityVerified=("RolledBack", "the rollback was requested by alice: a reason"))
    assert world.settle().writes == 0


def test_where_nothing_is_moved_both_ways_back_are_named_with_what_each_costs() -> None:
    world, good, _ = fallen(accuracy={"onBreach": "Alert"})
    world.settle()
    costs = (f"repeats the suite on {good}, which takes minutes", f"in seconds, apply the spec of {good} again")
    world.expect(QualityVerified=("BelowThreshold", *costs))
    assert [cost for cost in costs if cost not in world.status["incident"]["next"]] == []


def test_how_far_the_control_of_a_rollback_is_stands_in_the_conditions_in_steps() -> None:
    world, good, bad = fallen(accuracy={"onBreach": "Alert"})
    world.ask(Verb.ROLLBACK, revision=bad).settle()
    world.start_pods(good).gate(good, Verdict.PASS).report_gate(good, control="of another time")
    said = []
    for done in (0, 380, 383, 633):
        world.report(good, phase=Phase.GATING, progress=GateProgress(done, 633, "")).settle()
        said.append(world.condition("Progressing")[2].rpartition("; ")[2])
        world.expect(Progressing="True RollingBack", QualityVerified=("RollingBack", said[-1]))
        assert said[-1] in world.status["incident"]["next"]
    assert said == [f"{share} % of its 633 probes are done" for share in (0, 60, 60, 100)]


def test_a_rollback_that_nobody_fell_for_and_that_cannot_be_is_no_page() -> None:
    world = World({**FULL, **ROLLBACK})
    serving = world.bring_up()
    world.ask(Verb.ROLLBACK, revision=serving).settle()
    world.expect(QualityVerified="True GatePassed")
    assert world.plan().facts.blocked == ""


def test_a_rollback_is_asked_from_what_served_at_that_moment_and_once() -> None:
    world, _, bad = fallen()
    world.steady().ask(Verb.ROLLBACK, revision="credit-another").settle()
    assert world.deployments() == {bad: 1}
    world.ask(Verb.ROLLBACK, revision=bad).ask(Verb.ACK).settle()
    assert world.deployments() == {bad: 1}


def test_requests_are_told_once_each_and_an_ack_reaches_the_monitors() -> None:
    world, _, _ = fallen()
    world.ask(Verb.PIN).ask(Verb.ACK).settle()
    assert (world.notes.count("Pinned"), world.notes.count("Acknowledged")) == (1, 1)
    token = world.asked_at(Verb.ACK)
    assert world.accuracy_settings()["acknowledged"] == token
    assert world.status["lastRequest"] == f"{token.partition('#')[0]} ack by alice: a reason"
    assert world.status["requests"] == 2
    world.settle()
    assert world.notes.count("Acknowledged") == 1


def test_a_clock_that_runs_ahead_hides_no_later_rollback() -> None:
    world, good, bad = fallen(accuracy={"onBreach": "Alert"})
    world.ask(Verb.ACK, at="2026-01-01T00:10:00.000000Z").settle()
    world.ask(Verb.UNPIN, at="9999-12-31T23:59:59Z").settle()
    world.ask(Verb.ROLLBACK, revision=bad, at="2026-01-01T00:05:00.000000Z").settle()
    assert world.deployments() == {bad: 1, good: 1}
    world.expect(QualityVerified="False RollingBack")
    assert world.notes.count("RollbackRequested") == 1
    assert world.status["lastRequest"].startswith("2026-01-01T00:05:00.000000Z rollback by alice")
    assert "requestRefused" not in world.status


@for_each("ask, said", {
    "from another revision": (
        lambda w, bad: w.ask(Verb.ROLLBACK, revision="credit-another"), "names revision credit-another, but {bad} serves"
    ),
    "and taken back": (
        lambda w, bad: w.ask(Verb.ROLLBACK, revision=bad).ask(Verb.ACK), "`r1plus ack` was requested later"
    ),
})  # fmt: skip
def test_a_rollback_that_is_not_carried_out_says_so_once(ask: Callable[[World, str], None], said: str) -> None:
    world, _, bad = fallen()
    world.steady()
    ask(world, bad)
    world.settle()
    world.settle()
    assert said.format(bad=bad) in world.status["requestRefused"]
    assert world.notes.count("RequestRefused") == 1
    assert world.deployments() == {bad: 1}


def test_a_rollback_that_was_made_is_never_called_refused() -> None:
    world, good, bad = fallen()
    world.steady().ask(Verb.ROLLBACK, revision=bad).settle()
    world.start_pods(good).pass_control(good)
    assert world.selected() == good
    world.wait(60.0).ask(Verb.UNPIN).settle()
    assert "requestRefused" not in world.status
    assert "RequestRefused" not in world.notes


def test_requests_of_an_earlier_release_still_count_by_their_clocks() -> None:
    world, good, bad = fallen()
    old = Request("alice", "a reason", "2026-01-01T00:00:01Z", bad)
    world.steady().alter(annotations={Verb.ROLLBACK.annotation: dumps(old)}).settle()
    assert world.deployments() == {bad: 1, good: 1}
    assert "requests" not in world.status
    world.ask(Verb.ACK).settle()
    assert world.deployments() == {bad: 1}


def test_a_request_copied_from_another_object_is_ignored() -> None:
    world, _, bad = fallen()
    world.steady().ask(Verb.ROLLBACK, revision=bad, uid="of-another").settle()
    assert world.deployments() == {bad: 1}
    assert "lastRequest" not in world.status


def test_a_pin_holds_traffic_against_a_new_spec_and_says_so() -> None:
    world = World({**FULL, "rollout": {"pinned": True}})
    first = world.bring_up()
    world.apply(**NEXT)
    world.expect(serves=first, runs={first: 1})
    world.expect(Progressing=("False Pinned", "r1plus unpin"), QualityVerified="True GatePassed")
    world.apply(rollout={})
    assert len(world.deployments()) == 2


def test_the_incident_reads_from_what_to_what_by_stratum() -> None:
    world, good, bad = fallen()
    world.settle()
    incident = world.status["incident"]
    assert (incident["before"], incident["now"], incident["revision"]) == ("4/4", "2/4", bad)
    assert incident["lost"] == ["s: 2 of 4 (i0, i1)"]
    assert good in incident["tried"][0]
    assert incident["runbook"].endswith("R1PlusAccuracyBelowThreshold.md")
    since = incident["since"]
    world.wait(30.0).settle()
    assert world.status["incident"]["since"] == since


def test_a_monitor_that_names_items_that_are_none_is_not_repeated() -> None:
    world, _, _ = fallen(lost=("i0", "<script>", "x" * 5000))
    world.settle()
    assert world.status["incident"]["lost"] == ["s: 1 of 4 (i0)"]


def test_a_pause_moves_and_repairs_nothing_but_the_policies_and_a_resume_puts_all_right() -> None:
    world, _, bad = fallen(accuracy={"onBreach": "Rollback"})
    world.spec = {**world.spec, "rollout": {"paused": True}}
    world.settle()
    world.expect(serves=bad, runs={bad: 1}, Progressing=("False Paused", "r1plus resume"))
    assert world.plan().facts.blocked == "Paused"
    world.one("Deployment", bad)["spec"]["replicas"] = 3
    world.one("NetworkPolicy", "credit")["spec"]["ingress"] = [{}]
    world.children.pop(("PodDisruptionBudget", "credit"))
    world.settle()
    assert world.deployments() == {bad: 3}
    assert world.one("NetworkPolicy", "credit")["spec"]["ingress"] != [{}]
    assert world.live("PodDisruptionBudget") == []
    world.spec = {**world.spec, "rollout": {}}
    world.settle()
    assert world.deployments()[bad] == 1
    assert world.live("PodDisruptionBudget") != []
    world.expect(QualityVerified="False RollingBack")


def test_a_pause_starts_promotes_and_withdraws_no_candidate() -> None:
    world = World({**FULL, "rollout": {"paused": False}})
    first = world.bring_up()
    world.apply(**NEXT)
    candidate = world.candidate()
    world.spec = {**world.spec, "rollout": {"paused": True}}
    world.start_pods(candidate, ready=True)
    world.gate(candidate, Verdict.PASS).settle()
    world.wait(DAY).settle()
    world.expect(serves=first, runs={first: 1, candidate: 1})
    assert [v.verdict for v in world.revision(candidate).verdicts] == [Verdict.PASS]
    world.spec = {**world.spec, "context": {"maxTokens": 512}}
    world.settle()
    assert set(world.deployments()) == {first, candidate}
    world.spec = {**world.spec, **NEXT, "rollout": {}}
    world.settle()
    assert world.selected() == candidate


def test_what_may_be_edited_during_a_pause_is_marked_and_nothing_else() -> None:
    world = World(FULL)
    world.bring_up()
    for paused in (True, False):
        world.spec = {**world.spec, "rollout": {"paused": paused}}
        world.settle()
        marked = {
            kind for (kind, _), live in world.children.items() if "r1plus.ai/paused" in live["metadata"]["labels"]
        }
        assert marked == ({"Deployment", "Service", "PodDisruptionBudget"} if paused else set())


def test_a_rolled_back_revision_stays_refused_where_annotations_of_requests_are_taken_away() -> None:
    world, good, bad = rolled_back()
    world.wait(60.0).settle()
    world.ask(Verb.ACK).settle()
    assert world.status["candidate"] == bad
    world.start_pods(bad).settle()
    world.control(Verdict.FAIL, lost=2).settle()
    token, refused = world.accuracy_settings()["acknowledged"], world.revision(bad).regate_token
    world.annotations.clear()
    world.settle()
    world.expect(serves=good, runs={good: 1})
    assert (world.accuracy_settings()["acknowledged"], world.revision(bad).regate_token) == (token, refused)


def test_a_drop_after_an_ack_is_answered_without_its_annotation() -> None:
    world, good, bad = fallen()
    world.steady().ask(Verb.ACK).settle()
    token = world.asked_at(Verb.ACK)
    world.report(bad, acknowledged=token, threshold=0.98).drop("i0", "i1")
    world.annotations.clear()
    world.settle()
    world.expect(serves=bad, candidate=good, QualityVerified="RollingBack")


def test_an_ack_after_annotations_were_taken_away_counts_once_more() -> None:
    world, _, bad = rolled_back()
    world.ask(Verb.ACK).ask(Verb.ACK).settle()
    before = world.accuracy_settings()["acknowledged"]
    world.annotations.clear()
    world.settle()
    assert world.status["requests"] == 2
    world.annotations["r1plus.ai/requests"] = "2"  # As `r1plus` numbers it by the status.
    world.ask(Verb.ACK).settle()
    assert world.accuracy_settings()["acknowledged"] not in ("", before)
    assert world.status["candidate"] == bad
