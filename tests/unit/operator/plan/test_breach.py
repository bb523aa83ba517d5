"""A fall from end to end, over a tiny world: quarantine, control, switch, and every step at which an operator may die."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.requests import Request, Verb
from r1plus_contract.verdict import Phase, Standing, SweepFigures, Verdict
from r1plus_operator.plan.inputs import REFUSED_PODS, PoolView
from r1plus_operator.plan.plan import plan
from r1plus_operator.plan.quarantine import KEPT_SECONDS, REPLACEMENT_SECONDS
from r1plus_operator.plan.revision import read
from unit.operator.plan.world import World, suite

FULL = {"tier": "full", "context": {"maxTokens": 2048}}
NEXT = {"context": {"maxTokens": 1024}}
ROLLBACK = {"accuracy": {"onBreach": "Rollback"}}
DAY = 86_400.0


def fallen(*, replicas: int = 1, lost: tuple[str, ...] = ("i0", "i1"), **spec: Any) -> tuple[World, str, str]:
    """A good revision served for a day, a second one took over and its pods fell; the world, the good, the bad."""
    world = World({**FULL, **ROLLBACK, "replicas": replicas, **spec})
    good = world.bring_up()
    world.now += DAY
    world.change(**NEXT)
    world.settle()
    world.start_pods(good, ready=True)
    bad = world.bring_up()
    world.now += 60.0
    world.settle()
    world.gate(bad, Verdict.PASS)
    for pod in world.pods:
        world.stand(pod, Standing.BELOW_THRESHOLD, lost=lost, evidence=2.0)
    assert world.selected() == bad
    return world, good, bad


def controlled(**spec: Any) -> tuple[World, str, str]:
    """The last good revision is up, without traffic, and nobody has judged it yet."""
    world, good, bad = fallen(**spec)
    world.settle()
    assert world.status["candidate"] == good
    world.start_pods(good)
    world.settle()
    return world, good, bad


def rolled_back(**spec: Any) -> tuple[World, str, str]:
    world, good, bad = controlled(**spec)
    world.control(Verdict.PASS)
    world.settle()
    world.set_ready(good)
    world.settle()
    world.start_pods(good, ready=True)
    world.settle()
    return world, good, bad


def order(world: World) -> Any:
    return json.loads(world.one("ConfigMap", "credit-accuracy")["data"]["settings.json"])["control"]


def deployments(world: World) -> dict[str, int]:
    return {d["metadata"]["name"]: d["spec"]["replicas"] for d in world.live("Deployment")}


def test_a_fall_brings_the_last_good_revision_up_without_traffic_and_asks_for_a_fresh_sweep() -> None:
    world, good, bad = fallen()
    world.settle()
    assert (world.selected(), deployments(world)) == (bad, {good: 1, bad: 1})
    assert order(world)["identity"] == read(world.one("ControllerRevision", good)).identity_digest
    assert world.condition("QualityVerified")[:2] == ("False", "RollingBack")
    assert world.condition("Progressing")[:2] == ("True", "RollingBack")
    assert world.notes.count("RollingBack") == 2


def test_a_control_that_passes_moves_traffic_back_and_what_fell_does_not_return() -> None:
    world, good, bad = rolled_back()
    assert world.selected() == good
    world.now += 60.0
    world.settle()
    assert deployments(world) == {good: 1}
    assert order(world) is None
    status, reason, message = world.condition("QualityVerified")
    assert (status, reason) == ("False", "RolledBack")
    for word in (bad, good, "2/4 right, 4/4 at its gate", "r1plus ack"):
        assert word in message
    assert world.condition("Ready")[0] == "True"
    assert (world.status["revision"], world.status["candidate"]) == (good, bad)
    for _ in range(3):
        world.now += DAY
        assert world.settle().writes == 0
        assert world.selected() == good


def test_an_old_pass_is_no_control() -> None:
    world, good, bad = controlled()
    world.gate(good, Verdict.PASS)
    world.settle()
    world.set_ready(good)
    world.settle()
    assert world.selected() == bad
    assert world.condition("Progressing")[:2] == ("True", "RollingBack")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"control": "another"}, id="an answer to another order"),
        pytest.param({"batch": 1}, id="one that was made at batch 1"),
        pytest.param({"threshold": 0.5}, id="one under another threshold"),
        pytest.param({"suite_hash": "0" * 64}, id="one on another suite"),
        pytest.param({"identity": "0" * 64}, id="one of another identity"),
        pytest.param({"verdict": Verdict.INCONCLUSIVE}, id="one that is no verdict"),
    ],
)
def test_only_a_verdict_on_exactly_what_was_ordered_is_a_control(change: dict[str, Any]) -> None:
    world, good, bad = controlled()
    world.control(Verdict.PASS)
    for name, report in world.reports.items():
        if world.pods[name].revision == good and report.gate:
            world.reports[name] = replace(report, gate=replace(report.gate, **change))
    world.settle()
    world.set_ready(good)
    world.settle()
    assert world.selected() == bad
    assert world.condition("Progressing")[:2] == ("True", "RollingBack")


def test_a_control_that_fails_moves_nothing_and_pages_and_is_not_repeated() -> None:
    world, good, bad = controlled()
    world.control(Verdict.FAIL, lost=2)
    world.settle()
    for _ in range(2):
        assert (world.selected(), deployments(world)) == (bad, {bad: 1})
        assert world.condition("QualityVerified")[:2] == ("False", "BothArmsBad")
        assert plan(world.observed(), world.config, world.now).facts.blocked == "BothArmsBad"
        world.now += DAY
        world.settle()
    ask(world, Verb.ACK)
    world.settle()
    assert world.status["candidate"] == good


def ask(world: World, verb: Verb, **about: str) -> None:
    """What the command line writes."""
    at = f"2026-01-01T00:00:{len(world.annotations):02d}.000000Z"
    world.annotations[verb.annotation] = dumps(Request("alice", "a reason", at, **about))


def test_rollback_of_several_pods_waits_for_as_many_as_serve() -> None:
    world, good, bad = fallen(replicas=2)
    world.settle()
    world.start_pods(good)
    world.control(Verdict.PASS)
    world.settle()
    world.set_ready(good)
    world.settle()
    assert world.selected() == bad
    assert deployments(world)[good] == 2
    world.start_pods(good, ready=True)
    world.settle()
    assert world.selected() == good


def test_in_place_the_control_takes_the_place_of_what_fell() -> None:
    world, good, bad = fallen(rollout={"strategy": "InPlace"})
    world.settle()
    assert deployments(world) == {good: 1, bad: 0}
    assert world.condition("Ready")[1] == "InPlaceRollout"
    assert good in world.condition("Ready")[2]
    world.start_pods(good)
    world.control(Verdict.PASS)
    world.settle()
    world.set_ready(good)
    world.settle()
    assert world.selected() == good


def test_in_place_a_control_that_fails_restores_what_served() -> None:
    world, _, bad = fallen(rollout={"strategy": "InPlace"})
    world.settle()
    world.start_pods(world.status["candidate"])
    world.control(Verdict.FAIL, lost=2)
    world.settle()
    assert deployments(world) == {bad: 1}
    assert world.condition("QualityVerified")[1] == "BothArmsBad"


def unscheduled(world: World) -> None:
    good = world.status["candidate"]
    world.pods = {
        n: replace(p, unschedulable="0/1 nodes: Insufficient memory") if p.revision == good else p
        for n, p in world.pods.items()
    }


def refused(world: World) -> None:
    world.one("Deployment", world.status["candidate"])[REFUSED_PODS] = "exceeded quota: Insufficient memory"


@pytest.mark.parametrize("full", [unscheduled, refused], ids=["no node has room", "the quota has none"])
def test_a_control_without_room_is_told_and_goes_on_when_there_is_some(full: Callable[[World], None]) -> None:
    world, good, bad = controlled()
    full(world)
    world.now += 60.0
    world.settle()
    assert world.condition("QualityVerified")[:2] == ("False", "RollbackBlocked")
    assert "NoCapacity" in world.condition("QualityVerified")[2]
    assert "Insufficient memory" in world.condition("QualityVerified")[2]
    assert plan(world.observed(), world.config, world.now).facts.blocked == "NoCapacity"
    assert (world.selected(), deployments(world)) == (bad, {good: 1, bad: 1})
    world.one("Deployment", good).pop(REFUSED_PODS, None)
    world.pods = {n: replace(p, unschedulable="") for n, p in world.pods.items()}
    world.control(Verdict.PASS)
    world.settle()
    world.set_ready(good)
    world.settle()
    assert world.selected() == good


BLOCKED: dict[str, tuple[Callable[[World], None], str]] = {
    "the user wants to be told only": (lambda w: w.change(accuracy={"onBreach": "Alert"}), "BelowThreshold"),
    "traffic is pinned": (lambda w: w.change(rollout={"pinned": True}), "Pinned"),
    "the good revision's engine is another one": (lambda w: _spoil(w, "engine"), "ArtifactGone"),
    "the good revision passed another suite": (lambda w: _spoil(w, "suite"), "NoLastGood"),
    "the good revision served for a moment": (lambda w: _spoil(w, "bake"), "NoLastGood"),
}


def _spoil(world: World, what: str) -> None:
    good = min((read(obj) for obj in world.live("ControllerRevision")), key=lambda r: r.number)
    stored = world.one("ControllerRevision", good.name)
    notes, data = stored["metadata"]["annotations"], stored["data"]
    if what == "engine":
        stored["data"] = {**data, "identity": {**data["identity"], "engineDigest": "0" * 64}}
        for verdict in (v := json.loads(notes[names.ANNOTATION_VERDICT]))["reports"]:
            verdict["identity"] = read(stored).identity_digest
        notes[names.ANNOTATION_VERDICT] = json.dumps(v)
    elif what == "suite":
        notes[names.ANNOTATION_VERDICT] = notes[names.ANNOTATION_VERDICT].replace(good.verdicts[0].suite_hash, "0" * 64)
    else:
        bad = max((read(obj) for obj in world.live("ControllerRevision")), key=lambda r: r.number)
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
    assert (world.selected(), deployments(world)) == (bad, {bad: 1})
    assert plan(world.observed(), world.config, world.now).facts.blocked
    assert world.status["incident"]["next"]


@pytest.mark.parametrize(
    "change", [{"accuracy": {"onBreach": "Alert"}}, {"rollout": {"pinned": True}}], ids=["leave is taken back", "a pin is set"]
)  # fmt: skip
def test_leave_that_is_taken_back_ends_a_control(change: dict[str, Any]) -> None:
    world, _, bad = controlled()
    world.change(**change)
    world.settle()
    assert (world.selected(), deployments(world)) == (bad, {bad: 1})
    assert read(world.one("ControllerRevision", bad)).rollback is None


def test_one_bad_pod_of_two_is_quarantined_and_replaced() -> None:
    world, good, bad = fallen(replicas=2)
    one, other = sorted(world.pods)
    world.stand(other, Standing.STEADY)
    planned = world.pass_once()
    assert [name for name, _ in planned.relabel] == [one]
    assert planned.facts.quarantined
    paths = {op["path"]: op["value"] for op in planned.relabel[0][1]}
    assert paths["/metadata/uid"] == f"uid-{one}"
    assert paths["/metadata/ownerReferences/-"]["kind"] == "R1PlusDeployment"
    assert "PodQuarantined" in world.notes
    world.settle()
    assert world.selected() == bad
    assert world.condition("QualityVerified")[:2] == ("True", "BadPod")
    assert one in world.status["incident"]["tried"][0]
    assert world.status["replicas"] == 1
    assert good not in deployments(world)


def test_a_second_pod_that_falls_beside_the_quarantined_one_is_the_revision() -> None:
    world, good, _ = fallen(replicas=2)
    one, other = sorted(world.pods)
    world.stand(other, Standing.STEADY)
    world.settle()
    assert world.pods[one].quarantine is not None
    world.stand(other, Standing.BELOW_THRESHOLD, lost=("i0", "i1"), evidence=1.0)
    world.settle()
    assert world.status["candidate"] == good


@pytest.mark.parametrize(
    ("seconds", "unschedulable", "goes"),
    [
        pytest.param(REPLACEMENT_SECONDS - 5, "0/1 nodes", "", id="its replacement has a minute"),
        pytest.param(REPLACEMENT_SECONDS, "0/1 nodes", "finds no node", id="then it makes room"),
        pytest.param(REPLACEMENT_SECONDS, "", "", id="where the replacement found room it stays"),
        pytest.param(KEPT_SECONDS, "", "its time is over", id="for an hour"),
    ],
)
def test_a_quarantine_ends(seconds: float, unschedulable: str, goes: str) -> None:
    world, _, bad = fallen(replicas=2)
    one, other = sorted(world.pods)
    world.stand(other, Standing.STEADY)
    world.settle()
    began = json.loads(world.pods[one].quarantine or "")["since"]
    new = replace(world.pods[other], name=f"{bad}-new", unschedulable=unschedulable, ready=False, uid="new")
    world.pods[new.name] = new
    world.now = began + seconds
    planned = world.pass_once()
    assert (("Pod", one, f"uid-{one}") in planned.delete) is bool(goes)
    told = [note.message for note in planned.notes if note.reason == "QuarantineEnded"]
    assert [goes in message for message in told] == ([True] if goes else [])


def test_a_quarantine_whose_note_was_damaged_is_over() -> None:
    world, _, _ = fallen(replicas=2)
    one, other = sorted(world.pods)
    world.stand(other, Standing.STEADY)
    world.settle()
    world.pods[one] = replace(world.pods[one], quarantine="{")
    assert ("Pod", one, f"uid-{one}") in world.pass_once().delete


def test_a_quarantine_does_not_outlive_the_traffic_of_its_revision() -> None:
    world, good, _ = fallen(replicas=2)
    one, other = sorted(world.pods)
    world.stand(other, Standing.STEADY)
    world.settle()
    world.stand(other, Standing.BELOW_THRESHOLD, lost=("i0",), evidence=1.0)
    world.settle()
    world.start_pods(good)
    world.control(Verdict.PASS)
    world.settle()
    assert one in world.pods
    world.set_ready(good)
    assert ("Pod", one, f"uid-{one}") in world.pass_once().delete
    assert world.selected() == good


def pooled(world: World, bad: str, **view: Any) -> None:
    """The pool without its worst pod alarms; the sweeps since then stand in the reports."""
    loaded = world.suites["smollm2-full-v1"].suite
    assert loaded is not None
    world.pool = PoolView(bad, loaded.header.sha256, 3.0, 1.0, **view)


def swept(world: World, correct: int) -> None:
    figures = SweepFigures(correct, 4, 0.0, 1.0, "2026-01-02T00:00:00Z")
    world.reports = {pod: replace(report, sweep=figures) for pod, report in world.reports.items()}


@pytest.mark.parametrize(
    ("correct", "seen", "reason"),
    [
        pytest.param(2, False, "RollingBack", id="the sweeps since then are below the threshold"),
        pytest.param(4, False, "AccuracyChanged", id="the sweeps since then are not"),
        pytest.param(2, True, "GatePassed", id="no sweep has ended since then"),
    ],
)
def test_the_pool_alone_is_counted_before_anything_moves(correct: int, seen: bool, reason: str) -> None:
    world, _, bad = fallen(replicas=2)
    for pod in world.pods:
        world.stand(pod, Standing.STEADY)
    swept(world, correct)
    pooled(world, bad, before_alarm=dict.fromkeys(world.pods, "2026-01-02T00:00:00Z") if seen else {})
    world.settle()
    assert world.condition("QualityVerified")[1] == reason


@pytest.mark.parametrize("other", ["revision", "suite"])
def test_the_pool_of_another_revision_or_suite_is_no_evidence(other: str) -> None:
    world, _, bad = fallen(replicas=2)
    for pod in world.pods:
        world.stand(pod, Standing.STEADY)
    swept(world, 0)
    pooled(world, bad)
    assert world.pool is not None
    world.pool = replace(world.pool, **{"revision": "x"} if other == "revision" else {"suite_hash": "x"})
    world.settle()
    assert world.condition("QualityVerified")[1] == "GatePassed"


def test_a_checkpoint_of_the_pool_is_written_once_and_stays() -> None:
    world, _, bad = fallen(replicas=2)
    for pod in world.pods:
        world.stand(pod, Standing.STEADY)
    world.settle()
    loaded = world.suites["smollm2-full-v1"].suite
    assert loaded is not None
    world.pool = PoolView(bad, loaded.header.sha256, checkpoint='{"a":1}')
    assert world.pass_once().writes == 1
    assert world.pass_once().writes == 0
    world.pool = None
    assert world.settle().writes == 0
    assert read(world.one("ControllerRevision", bad)).pool == '{"a":1}'


def test_reports_of_another_identity_or_suite_and_silence_move_nothing() -> None:
    for change in ({"identity": "x"}, {"suite_hash": "x"}, None):
        world, _, bad = fallen()
        world.reports = {p: replace(r, **change) for p, r in world.reports.items()} if change else {}
        world.settle()
        assert (world.selected(), deployments(world)) == (bad, {bad: 1})
        assert "incident" not in world.status


def test_a_scorer_that_judges_otherwise_pages_and_moves_nothing() -> None:
    world, _, bad = controlled()
    world.control(Verdict.PASS)
    world.reports = {
        p: replace(r, phase=Phase.BLOCKED, reason="SuiteMismatch", watch=None) if world.pods[p].revision == bad else r
        for p, r in world.reports.items()
    }
    world.settle()
    assert (world.selected(), deployments(world)) == (bad, {bad: 1})
    assert world.condition("QualityVerified")[:2] == ("False", "SuiteMismatch")


def test_a_revision_that_observe_let_through_is_gone_back_from_by_its_gates_fail() -> None:
    world = World({**FULL, "accuracy": {"onBreach": "Rollback"}})
    good = world.bring_up()
    world.now += DAY
    world.change(engine={"precision": "Q4_1"}, accuracy={"onBreach": "Rollback", "gate": "Observe"})
    world.settle()
    bad = world.candidate()
    world.start_pods(bad, ready=True)
    world.settle()
    world.now += 60.0
    world.settle()
    assert world.selected() == bad
    world.gate(bad, Verdict.FAIL, lost=3)
    world.settle()
    assert world.status["candidate"] == good
    world.start_pods(good)
    world.settle()
    world.set_ready(good)
    world.settle()
    assert world.selected() == bad
    world.control(Verdict.PASS)
    world.settle()
    world.set_ready(good)
    world.settle()
    assert world.selected() == good


RELEASES: dict[str, Callable[[World], None]] = {
    "an ack": lambda w: ask(w, Verb.ACK),
    "an unpin": lambda w: ask(w, Verb.UNPIN),
    "a lower threshold": lambda w: w.change(accuracy={"onBreach": "Rollback", "threshold": 0.5}),
}


@pytest.mark.parametrize("case", RELEASES)
def test_what_was_rolled_back_from_returns_after(case: str) -> None:
    world, _, bad = rolled_back()
    world.now += 60.0
    world.settle()
    RELEASES[case](world)
    world.settle()
    assert deployments(world)[bad] == 1
    world.start_pods(bad, ready=True)
    world.settle()
    assert world.selected() == bad


def test_another_suite_lets_it_be_gated_again() -> None:
    world, _, bad = rolled_back()
    world.suites["smollm2-full-v2"] = suite("smollm2-full-v2", salt="x")
    world.change(accuracy={"onBreach": "Rollback", "suite": "smollm2-full-v2"})
    world.settle()
    assert deployments(world)[bad] == 1
    assert world.condition("QualityVerified")[0] == "Unknown"


@pytest.mark.parametrize(
    "change",
    [{"replicas": 2}, {"accuracy": {"onBreach": "Rollback", "threshold": 0.99}}, {"access": {"namespaces": ["apps"]}}],
    ids=["more replicas", "a higher threshold", "other callers"],
)
def test_what_says_nothing_of_the_revision_does_not_bring_it_back(change: dict[str, Any]) -> None:
    world, good, _ = rolled_back()
    world.change(**change)
    world.settle()
    world.now += DAY
    world.settle()
    assert world.selected() == good
    assert world.condition("QualityVerified")[1] == "RolledBack"


def test_a_spec_that_asked_for_something_else_meanwhile_may_ask_again_and_one_rollback_is_enough() -> None:
    world, good, bad = rolled_back()
    world.now += 60.0
    world.change(context={"maxTokens": 2048})
    world.settle()
    assert world.condition("Progressing")[:2] == ("False", "Complete")
    world.change(**NEXT)
    world.settle()
    world.start_pods(bad, ready=True)
    world.settle()
    assert world.selected() == bad
    world.now += DAY
    world.settle()
    world.gate(bad, Verdict.PASS)
    for pod in world.pods:
        world.stand(pod, Standing.BELOW_THRESHOLD, lost=("i0",), evidence=2.0)
    world.settle()
    assert world.selected() == bad
    assert world.condition("QualityVerified")[1] == "RollbackBlocked"
    assert "AlreadyRolledBack" in world.condition("QualityVerified")[2]
    ask(world, Verb.ACK)
    world.settle()
    assert world.status["candidate"] == good


def test_a_second_fall_within_the_hour_waits() -> None:
    world, good, bad = rolled_back()
    world.gate(good, Verdict.PASS)
    for pod in world.pods:
        world.stand(pod, Standing.BELOW_THRESHOLD, lost=("i0",), evidence=2.0)
    world.settle()
    assert world.selected() == good
    assert plan(world.observed(), world.config, world.now).facts.blocked == "Cooldown"
    assert f"{good} has fallen as well: Cooldown" in world.condition("QualityVerified")[2]
    assert world.condition("Progressing")[:2] == ("False", "RollbackBlocked")
    assert world.status["candidate"] == bad


def test_a_person_may_go_back_from_what_has_not_fallen() -> None:
    world, good, bad = fallen()
    for pod in world.pods:
        world.stand(pod, Standing.STEADY)
    world.change(accuracy={"onBreach": "Alert"})
    world.settle()
    assert world.status["lastGood"] == good
    ask(world, Verb.ROLLBACK, revision=bad)
    world.settle()
    assert world.notes.count("RollbackRequested") == 1
    assert world.status["candidate"] == good
    assert world.condition("QualityVerified")[:2] == ("True", "GatePassed")
    assert world.condition("Progressing")[:2] == ("True", "RollingBack")
    world.start_pods(good)
    world.control(Verdict.PASS)
    world.settle()
    world.set_ready(good)
    planned = world.pass_once()
    assert planned.facts.rolled_back == "Requested"
    world.settle()
    assert world.selected() == good
    assert "alice: a reason" in world.condition("QualityVerified")[2]
    assert world.settle().writes == 0


def test_a_rollback_that_nobody_fell_for_and_that_cannot_be_is_no_page() -> None:
    world = World({**FULL, **ROLLBACK})
    serving = world.bring_up()
    ask(world, Verb.ROLLBACK, revision=serving)
    world.settle()
    assert world.condition("QualityVerified")[:2] == ("True", "GatePassed")
    assert plan(world.observed(), world.config, world.now).facts.blocked == ""


def test_a_rollback_is_asked_from_what_served_at_that_moment_and_once() -> None:
    world, _, bad = fallen()
    for pod in world.pods:
        world.stand(pod, Standing.STEADY)
    ask(world, Verb.ROLLBACK, revision="credit-another")
    world.settle()
    assert deployments(world) == {bad: 1}
    ask(world, Verb.ROLLBACK, revision=bad)
    ask(world, Verb.ACK)
    world.settle()
    assert deployments(world) == {bad: 1}


def test_requests_are_told_once_each_and_an_ack_reaches_the_monitors() -> None:
    world, _, _ = fallen()
    ask(world, Verb.PIN)
    ask(world, Verb.ACK)
    world.settle()
    assert (world.notes.count("Pinned"), world.notes.count("Acknowledged")) == (1, 1)
    token = json.loads(world.annotations[Verb.ACK.annotation])["at"]
    assert json.loads(world.one("ConfigMap", "credit-accuracy")["data"]["settings.json"])["acknowledged"] == token
    assert world.status["lastRequest"] == f"{token} ack by alice"
    world.settle()
    assert world.notes.count("Acknowledged") == 1


def test_a_pin_holds_traffic_against_a_new_spec_and_says_so() -> None:
    world = World({**FULL, "rollout": {"pinned": True}})
    first = world.bring_up()
    world.change(**NEXT)
    world.settle()
    assert (world.selected(), deployments(world)) == (first, {first: 1})
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "Pinned")
    assert "r1plus unpin" in message
    assert world.condition("QualityVerified")[:2] == ("True", "GatePassed")
    world.change(rollout={})
    world.settle()
    assert len(deployments(world)) == 2


def test_the_incident_reads_from_what_to_what_by_stratum() -> None:
    world, good, bad = fallen()
    world.settle()
    incident = world.status["incident"]
    assert (incident["before"], incident["now"], incident["revision"]) == ("4/4", "2/4", bad)
    assert incident["lost"] == ["s: 2 of 4 (i0, i1)"]
    assert good in incident["tried"][0]
    assert incident["runbook"].endswith("R1PlusAccuracyBelowThreshold.md")
    since = incident["since"]
    world.now += 30.0
    world.settle()
    assert world.status["incident"]["since"] == since


def test_a_monitor_that_names_items_that_are_none_is_not_repeated() -> None:
    world, _, _ = fallen(lost=("i0", "<script>", "x" * 5000))
    world.settle()
    assert world.status["incident"]["lost"] == ["s: 1 of 4 (i0)"]


def test_the_pods_template_is_the_same_before_and_after() -> None:
    world, good, bad = rolled_back()
    for name in (good, bad):
        stored = read(world.one("ControllerRevision", name))
        if ("Deployment", name) in world.children:
            assert world.one("Deployment", name)["spec"]["template"] == stored.template


STORY: list[Callable[[World], None]] = [
    lambda w: w.start_pods(w.status["candidate"]) if _way_back(w) else None,
    lambda w: w.control(Verdict.PASS) and None if _way_back(w) and order(w) else None,
    lambda w: w.set_ready(w.status["candidate"]) if _way_back(w) and _passed(w) else None,
]
"""What the world does, again and again, whenever the operator has got that far."""


def _way_back(world: World) -> bool:
    return (
        world.condition("Progressing")[1] == "RollingBack"
        and ("Deployment", world.status["candidate"]) in world.children
    )


def _passed(world: World) -> bool:
    good = world.status["candidate"]
    return any(p.revision == good and n in world.reports for n, p in world.pods.items())


def _die_at(world: World, write: int, *, backwards: bool) -> None:
    """Passes and a world that answers, until the operator has made so many writes; it dies after the last of them."""
    left = write
    for _ in range(12):
        for act in STORY:
            act(world)
        planned = plan(world.observed(), world.config, world.now)
        writes = [obj for stage in planned.apply for obj in stage]
        if len(writes) + len(planned.delete) >= left:
            world.carry_out(planned, left, backwards=backwards)
            return
        left -= len(writes) + len(planned.delete)
        world.pass_once()


@pytest.mark.parametrize("backwards", [False, True], ids=["as planned", "the last of a stage first"])
@pytest.mark.parametrize("write", range(1, 16))
def test_an_operator_that_dies_after_any_write_is_followed_to_the_same_end(write: int, backwards: bool) -> None:
    world, good, bad = fallen()
    _die_at(world, write, backwards=backwards)
    for _ in range(12):
        world.now += 30.0
        world.settle()
        for act in STORY:
            act(world)
    world.start_pods(good, ready=True)
    world.settle()
    assert world.selected() == good
    assert deployments(world) == {good: 1}
    assert world.condition("QualityVerified")[:2] == ("False", "RolledBack")
    record = read(world.one("ControllerRevision", bad)).rollback
    assert record is not None
    assert (record.to, record.control, record.lifted) == (good, Verdict.PASS, False)
    assert record.switched_at == pytest.approx(read(world.one("ControllerRevision", good)).promoted_at)


def test_a_clock_that_was_set_back_does_not_take_a_beginning_for_an_end() -> None:
    world, good, bad = fallen()
    world.now -= 2 * DAY
    world.settle()
    assert (world.selected(), world.status["candidate"]) == (bad, good)
    world.start_pods(good)
    world.control(Verdict.PASS)
    world.settle()
    world.set_ready(good)
    world.settle()
    assert world.selected() == good
    assert world.condition("QualityVerified")[1] == "RolledBack"
