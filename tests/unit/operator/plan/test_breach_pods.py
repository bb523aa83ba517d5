"""One bad pod of several: quarantine, its end, and the pool that tells a pod from its revision."""

import json
from dataclasses import replace

import pytest

from r1plus_contract.names import ANNOTATION_VERDICT
from r1plus_contract.requests import Verb
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import Phase, SweepFigures, Verdict, WatchStanding
from r1plus_operator.api.types import R1PlusDeploymentStatus
from r1plus_operator.plan.deployment import plan
from r1plus_operator.plan.observation import AgeBounds, PoolView
from r1plus_operator.plan.rollback.quarantine import KEPT_SECONDS, REPLACEMENT_SECONDS
from support.plan.falls import fallen, pooled, swept
from support.plan.world import World
from support.tables import for_each


def quarantine_one() -> tuple[World, str, str, str, str]:
    """One of two pods of the bad revision fell and is in quarantine; world, good, bad, that pod and the other one."""
    world, good, bad = fallen(replicas=2)
    one, other = sorted(world.pods)
    world.stand(other, WatchStanding.STEADY).settle()
    return world, good, bad, one, other


def serve_two() -> tuple[World, str]:
    """Two pods serve and neither fell; the world and their revision."""
    world, _, bad = fallen(replicas=2)
    return world.steady(), bad


def test_one_bad_pod_of_two_is_quarantined_and_replaced() -> None:
    world, good, bad = fallen(replicas=2)
    one, other = sorted(world.pods)
    world.stand(other, WatchStanding.STEADY)
    planned = world.pass_once()
    assert [name for name, _ in planned.relabel] == [one]
    assert planned.facts.quarantined
    paths = {op["path"]: op["value"] for op in planned.relabel[0][1]}
    assert paths["/metadata/uid"] == f"uid-{one}"
    assert paths["/metadata/ownerReferences/-"]["kind"] == "R1PlusDeployment"
    assert "PodQuarantined" in world.notes
    world.settle()
    world.expect(serves=bad, QualityVerified="True BadPod")
    assert one in world.status["incident"]["tried"][0]
    assert world.status["replicas"] == 1
    assert good not in world.deployments()


def test_a_second_pod_that_falls_beside_the_quarantined_one_is_the_revision() -> None:
    world, good, _, one, other = quarantine_one()
    assert world.pods[one].quarantine is not None
    world.stand(other, WatchStanding.BELOW_THRESHOLD, lost=("i0", "i1"), evidence=1.0).settle()
    assert world.status["candidate"] == good


@pytest.mark.parametrize("quarantined", [True, False], ids=["in quarantine", "in traffic"])
def test_a_scorer_that_judges_otherwise_bars_an_answer_only_where_its_pod_is_in_traffic(quarantined: bool) -> None:
    world, good, _, one, other = quarantine_one()
    assert world.pods[one].quarantine is not None
    new = f"{other}-new"
    world.pods[new] = replace(world.pods[other], name=new, uid="new")
    world.reports[new] = world.reports[other]
    broken = one if quarantined else new
    world.reports[broken] = replace(world.reports[broken], phase=Phase.BLOCKED, reason="SuiteMismatch", watch=None)
    if quarantined:
        for pod in (other, new):
            world.stand(pod, WatchStanding.BELOW_THRESHOLD, lost=("i0", "i1"), evidence=1.0)
    world.settle()
    assert world.condition("QualityVerified")[1] == ("RollingBack" if quarantined else "SuiteMismatch")
    assert world.status.get("candidate") == (good if quarantined else None)


@for_each("replicas, dropped", {"one of two": (2, 1), "one of three": (3, 1), "two of three": (3, 2)})
def test_a_monitor_that_reports_a_mismatch_does_not_bar_the_answer_to_the_drop_of_others(
    replicas: int, dropped: int
) -> None:
    world, good, _ = fallen(replicas=replicas)
    compromised, *others = sorted(world.steady().pods)
    forged = replace(world.reports[compromised], phase=Phase.BLOCKED, reason="SuiteMismatch", watch=None)
    world.reports[compromised] = forged
    for pod in others[:dropped]:
        world.stand(pod, WatchStanding.BELOW_THRESHOLD, lost=("i0", "i1"), evidence=1.0)
    planned = world.pass_once()
    assert [name for name, _ in planned.relabel] == (others[:1] if dropped == 1 else [])
    assert world.settle().status.get("candidate") == (good if dropped > 1 else None)


@for_each("seconds, unschedulable, goes", {
    "its replacement has a minute": (REPLACEMENT_SECONDS - 5, "0/1 nodes", ""),
    "then it makes room": (REPLACEMENT_SECONDS, "0/1 nodes", "needs its room"),
    "where the replacement found room it stays": (REPLACEMENT_SECONDS, "", ""),
    "for an hour": (KEPT_SECONDS, "", "its hour for inspection is over"),
})  # fmt: skip
def test_a_quarantine_ends(seconds: float, unschedulable: str, goes: str) -> None:
    world, _, bad, one, other = quarantine_one()
    began = json.loads(world.pods[one].quarantine or "")["since"]
    new = replace(world.pods[other], name=f"{bad}-new", unschedulable=unschedulable, ready=False, uid="new")
    world.pods[new.name] = new
    world.now = began + seconds
    planned = world.pass_once()
    assert ((one, f"uid-{one}") in planned.cut) is bool(goes)
    told = [note.message for note in planned.notes if note.reason == "QuarantineEnded"]
    assert [goes in message for message in told] == ([True] if goes else [])


def test_a_quarantine_whose_note_was_damaged_is_over() -> None:
    world, _, _, one, _ = quarantine_one()
    world.pods[one] = replace(world.pods[one], quarantine="{")
    assert (one, f"uid-{one}") in world.pass_once().cut


def test_a_quarantine_does_not_outlive_the_traffic_of_its_revision() -> None:
    world, good, _, one, other = quarantine_one()
    world.stand(other, WatchStanding.BELOW_THRESHOLD, lost=("i0",), evidence=1.0).settle()
    world.start_pods(good).control(Verdict.PASS)
    world.settle()
    assert one in world.pods
    world.set_ready(good)
    assert (one, f"uid-{one}") in world.pass_once().cut
    assert world.selected() == good


@for_each("correct, seen, reason", {
    "the sweeps since then are below the threshold": (2, False, "RollingBack"),
    "the sweeps since then are not": (4, False, "AccuracyChanged"),
    "no sweep has ended since then": (2, True, "GatePassed"),
})  # fmt: skip
def test_the_pool_alone_is_counted_before_anything_moves(correct: int, seen: bool, reason: str) -> None:
    world, bad = serve_two()
    swept(world, correct)
    pooled(world, bad, before_alarm=dict.fromkeys(world.pods, "2026-01-02T00:00:00Z") if seen else {})
    world.settle()
    assert world.condition("QualityVerified")[1] == reason


def test_the_sweeps_that_count_are_those_of_the_pods_whose_evidence_counts() -> None:
    world, _, bad = fallen(replicas=2)
    one, other = sorted(world.pods)
    for pod, correct in ((one, 4), (other, 0)):
        world.stand(pod, WatchStanding.STEADY, evidence=1.0)
        figures = SweepFigures(correct, 4, 0.0, 1.0, "2026-01-02T00:00:00Z")
        world.reports[pod] = replace(world.reports[pod], sweep=figures)
    pooled(world, bad, worst=other)
    world.settle()
    assert world.condition("QualityVerified")[1] == "AccuracyChanged", "only the worst pod's sweep is bad"
    pooled(world, bad, worst=one)
    world.settle()
    world.expect(QualityVerified="RollingBack")


def test_a_count_above_the_threshold_of_the_worst_pod_says_nothing_of_the_others() -> None:
    """Its own is left out of the pool; a count of another pod outweighs their sweeps, which ask once."""
    world, bad = serve_two()
    swept(world, 2)
    worst, other = sorted(world.pods)
    pooled(world, bad, worst=worst)
    world.stand(other, WatchStanding.CHANGED, evidence=1.0).settle()
    assert world.condition("QualityVerified")[1] != "RollingBack"
    world.steady().stand(worst, WatchStanding.CHANGED, evidence=1.0).settle()
    world.expect(QualityVerified="RollingBack")


@for_each("correct, total", {
    "more items than the suite has": (10**15, 10**15),
    "more right ones than items": (10**15, 4),
    "a negative number of items": (-1, -(10**15)),
})  # fmt: skip
def test_a_sweep_that_no_suite_allows_does_not_outvote_the_others(correct: int, total: int) -> None:
    world, bad = serve_two()
    swept(world, 2)
    compromised = min(world.pods)
    figures = SweepFigures(correct, total, 0.0, 1.0, "2026-01-02T00:00:00Z")
    world.reports[compromised] = replace(world.reports[compromised], sweep=figures)
    pooled(world, bad)
    world.settle()
    world.expect(QualityVerified="RollingBack")


@for_each("seconds, reason", {
    "from before the sweeps waits": (60.0, "RollbackBlocked"),
    "that came after them does not": (-60.0, "RollingBack"),
})  # fmt: skip
def test_a_drop_of_the_pool_waits_for_no_candidate_that_came_after_it(seconds: float, reason: str) -> None:
    world, bad = serve_two()
    world.settle()
    world.apply(context={"maxTokens": 1000})
    world.report(bad, sweep=SweepFigures(2, 4, 0.0, 1.0, format_timestamp(world.now + seconds)))
    pooled(world, bad)
    world.settle()
    world.expect(QualityVerified=f"False {reason}")


@for_each(("skew", "age", "reason"), {
    "before the candidate, by a clock that is ahead": (3600.0, 60.0, "RollingBack"),
    "after the candidate, by a clock that is behind": (-3600.0, 0.0, "RollbackBlocked"),
})  # fmt: skip
def test_a_wrong_clock_of_a_node_moves_no_sweep_of_the_pool_before_or_after_a_candidate(
    skew: float, age: float, reason: str
) -> None:
    world, bad = serve_two()
    world.settle()
    world.apply(context={"maxTokens": 1000})
    world.settle()
    world.wait(30.0).report(bad, sweep=SweepFigures(2, 4, 0.0, 1.0, format_timestamp(world.now + skew)))
    pooled(world, bad)
    ages = {pod: AgeBounds(age, age + 5.0) for pod in world.pods}
    planned = plan(replace(world.observed(), sweep_ages=ages), world.config, world.now)
    quality = next(c for c in planned.status["conditions"] if c["type"] == "QualityVerified")
    assert quality["reason"] == reason


@pytest.mark.parametrize("where", ["a sweep", "a count after an alarm", "a recorded gate"])
def test_numbers_that_the_status_has_no_room_for_are_cut_and_the_answer_goes_on(where: str) -> None:
    world, good, bad = fallen(replicas=2)
    compromised = min(world.pods)
    report, huge = world.reports[compromised], SweepFigures(2**62 - 1, 2**62, 0.0, 1.0, "2030-01-01T00:00:00Z")
    if where == "a sweep":
        world.reports[compromised] = replace(report, sweep=huge)
    elif where == "a count after an alarm":
        assert report.watch is not None
        world.reports[compromised] = replace(report, watch=replace(report.watch, confirmation=huge, evidence=9.0))
    else:
        notes = world.one("ControllerRevision", bad)["metadata"]["annotations"]
        notes[ANNOTATION_VERDICT] = notes[ANNOTATION_VERDICT].replace('"items":4', f'"items":{2**62}')
        assert str(2**62) in notes[ANNOTATION_VERDICT]
    world.settle()
    R1PlusDeploymentStatus.model_validate(world.status)
    assert world.status["candidate"] == good


@pytest.mark.parametrize("other", ["revision", "suite_hash", "acknowledged"])
def test_the_pool_of_another_revision_suite_or_acknowledgement_is_no_evidence(other: str) -> None:
    world, bad = serve_two()
    swept(world, 0)
    pooled(world, bad)
    assert world.pool is not None
    world.alter(pool=replace(world.pool, **{other: "x"})).settle()
    world.expect(QualityVerified="GatePassed")


def test_a_checkpoint_of_the_pool_is_written_once_and_stays() -> None:
    world, bad = serve_two()
    world.settle()
    world.pool = PoolView(bad, world.suite_hash(), checkpoint='{"a":1}')
    assert world.pass_once().writes == 1
    assert world.pass_once().writes == 0
    world.pool = None
    assert world.settle().writes == 0
    assert world.revision(bad).pool == '{"a":1}'


def test_the_pool_is_kept_since_the_newest_acknowledgement_and_what_was_heard_before_is_not_written_down() -> None:
    world, bad = serve_two()
    world.settle()
    world.ask(Verb.ACK)
    token = world.asked_at(Verb.ACK)
    world.pool = PoolView(bad, world.suite_hash(), checkpoint='{"a":1}')
    planned = world.settle()
    assert planned.pool.acknowledged == token
    assert world.revision(bad).pool == ""
    world.alter(pool=replace(world.pool, acknowledged=token)).settle()
    assert world.revision(bad).pool == '{"a":1}'


def test_the_only_ready_pod_of_two_stands_for_its_revision_after_ten_minutes() -> None:
    world, good, bad = fallen(replicas=2)
    one, other = sorted(pod for pod in world.pods if world.pods[pod].revision == bad)
    world.pods[one] = replace(world.pods[one], node="n1")
    world.pods[other] = replace(world.pods[other], ready=False, node="n2")
    del world.reports[other]
    planned = world.date_count(one, world.now).settle()
    world.expect(serves=bad, QualityVerified="False BadPod")
    assert planned.requeue_after is not None
    assert planned.requeue_after <= 600
    world.wait(600).settle()
    world.expect(serves=bad, candidate=good, QualityVerified="RollingBack")


@for_each(("skew", "age", "is_alone"), {
    "of the future, read a moment ago": (3600.0, AgeBounds(), False),
    "of the future, read ten minutes ago": (3600.0, AgeBounds(600.0), True),
    "of an hour ago, not read a moment before": (-3600.0, AgeBounds(0.0, 5.0), False),
    "of an hour ago, read ten minutes ago": (-3600.0, AgeBounds(600.0, 605.0), True),
    "of an hour ago, already there at the first reading": (-3600.0, AgeBounds(), True),
})  # fmt: skip
def test_a_count_is_as_old_as_the_readings_of_it_allow(skew: float, age: AgeBounds, is_alone: bool) -> None:
    world, _, bad = fallen(replicas=2)
    one, other = sorted(pod for pod in world.pods if world.pods[pod].revision == bad)
    world.pods[other] = replace(world.pods[other], ready=False)
    del world.reports[other]
    world.date_count(one, world.now + skew)
    planned = plan(replace(world.observed(), count_ages={one: age}), world.config, world.now)
    assert (planned.status["incident"]["reason"] != "LastThatServes") is is_alone
