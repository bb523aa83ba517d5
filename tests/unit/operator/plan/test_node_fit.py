"""Rollouts that got stuck, or began without being asked for: attacks of a review of commit 035d42d, by their numbers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_operator.observe.node_projection import project_node
from r1plus_operator.plan.observation import REFUSED_PODS, NodeFacts
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.rollback_record import BELOW_THRESHOLD, AccuracyDrop, RollbackRecord, RollbackTerms
from r1plus_operator.plan.revision.storage import redate
from r1plus_policies.rollout import DRAIN_SECONDS
from support.plan.falls import controlled, fallen
from support.plan.world import DAY, NEXT, World, start_world
from support.tables import for_each

DEDICATED = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}


def kubernetes_node(
    name: str, memory: str, *, labels: dict[str, str] | None = None, ready: str = "True", disk: str = "", **spec: Any
) -> NodeFacts:
    """Return a node as the operator reads it from the API server."""
    labels = {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", **(labels or {})}
    allocatable = {"cpu": "8", "memory": memory, "pods": "110", **({"ephemeral-storage": disk} if disk else {})}
    status = {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": ready}]}
    kept = project_node({"metadata": {"name": name, "uid": name, "labels": labels}, "spec": spec, "status": status})
    assert kept is not None
    facts: NodeFacts = kept.value
    return facts


SMALL = kubernetes_node("small", "3Gi")
BIG = kubernetes_node("big", "20Gi")


def batch_on(*nodes: NodeFacts, **spec: Any) -> int:
    """Return the batch of the first revision on these nodes."""
    world = World({"tier": "full", **spec}, nodes=nodes)
    world.settle()
    assert world.condition("CapacityFits")[:2] == ("True", "Fits"), world.condition("CapacityFits")
    return world.revision().batch


@for_each("node, names", {
    "a taint": (kubernetes_node("big", "20Gi", taints=[DEDICATED]), ["dedicated=gpu:NoSchedule", "tolerations"]),
    "a taint that evicts": (kubernetes_node("big", "20Gi", taints=[{**DEDICATED, "effect": "NoExecute"}]), ["dedicated=gpu:NoExecute"]),
    "a taint of nodes with GPUs": (kubernetes_node("big", "20Gi", taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]), ["nvidia.com/gpu:NoSchedule", "tolerations"]),
    "a taint of its pressure": (kubernetes_node("big", "20Gi", taints=[{"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]), ["disk-pressure"]),
    "a cordon": (kubernetes_node("big", "20Gi", unschedulable=True), ["cordoned"]),
    "silence": (kubernetes_node("big", "20Gi", ready="Unknown"), ["not Ready"]),
    "another architecture": (kubernetes_node("big", "20Gi", labels={"kubernetes.io/arch": "arm64"}), ["arm64", "amd64"]),
    "another operating system": (kubernetes_node("big", "20Gi", labels={"kubernetes.io/os": "windows"}), ["windows", "linux"]),
})  # fmt: skip
def test_a_node_that_takes_no_pod_of_it_is_not_fitted_to(node: NodeFacts, names: list[str]) -> None:
    assert batch_on(SMALL, node) == batch_on(SMALL) < batch_on(BIG)
    world = World({"tier": "full"}, nodes=(node,))
    world.settle()
    world.expect(CapacityFits=("NoNodeFits", "1 node", *names))


@for_each("tolerations, effect", {
    "by key and value": ([{"key": "dedicated", "value": "gpu"}], "NoSchedule"),
    "by key": ([{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}], "NoSchedule"),
    "all": ([{"operator": "Exists"}], "NoExecute"),
    "none is needed": ([], "PreferNoSchedule"),
})  # fmt: skip
def test_a_taint_that_is_tolerated_is_no_obstacle(tolerations: list[Any], effect: str) -> None:
    tainted = kubernetes_node("big", "20Gi", taints=[{**DEDICATED, "effect": effect}])
    assert batch_on(SMALL, tainted, placement={"tolerations": tolerations}) == batch_on(BIG)


@for_each("toleration", {
    "another key": {"key": "team", "value": "gpu"},
    "another value": {"key": "dedicated", "value": "cpu"},
    "another effect": {"key": "dedicated", "value": "gpu", "effect": "NoExecute"},
})  # fmt: skip
def test_a_toleration_of_something_else_does_not_help(toleration: dict[str, str]) -> None:
    tainted = kubernetes_node("big", "20Gi", taints=[DEDICATED])
    assert batch_on(SMALL, tainted, placement={"tolerations": [toleration]}) == batch_on(SMALL)


def test_the_pods_of_a_new_revision_ask_for_what_their_images_run_on() -> None:
    world = World({"tier": "full"}, nodes=(BIG,))
    world.settle()
    template = world.one("Deployment", world.candidate())["spec"]["template"]
    assert template["spec"]["nodeSelector"] == {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}


@for_each("nodes, replicas, like", {
    "a node for each": ((SMALL, kubernetes_node("next", "5Gi")), 2, SMALL),
    "both on the larger one": ((SMALL, BIG), 2, kubernetes_node("half", "10Gi")),
    "as many as there is room for": ((SMALL,), 3, SMALL),
    "none for now": ((SMALL, BIG), 0, BIG),
})  # fmt: skip
def test_an_open_batch_fits_for_every_replica(nodes: tuple[NodeFacts, ...], replicas: int, like: NodeFacts) -> None:
    assert batch_on(*nodes, replicas=replicas) == batch_on(like)


def serving_on(*nodes: NodeFacts, **spec: Any) -> tuple[World, str]:
    """Return a world whose first revision serves there, and its name."""
    world = World({"tier": "full", **spec}, nodes=nodes)
    return world, world.bring_up()


@for_each("nodes", {
    "a larger node joins": (SMALL, BIG),
    "its node is cordoned beside a larger one": (kubernetes_node("small", "3Gi", unschedulable=True), BIG),
    "its node is silent": (kubernetes_node("small", "3Gi", ready="Unknown"),),
    "its node is under pressure": (kubernetes_node("small", "3Gi", taints=[{"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}]), BIG),
    "one of several nodes is left": (SMALL,),
})  # fmt: skip
def test_nodes_that_come_and_go_move_nothing_that_fits(nodes: tuple[NodeFacts, ...]) -> None:
    world, serves = serving_on(SMALL, kubernetes_node("s2", "3Gi"), replicas=2)
    world.alter(nodes=nodes).settle()
    world.expect(serves=serves, runs={serves: 2}, CapacityFits="Fits", Progressing="Complete")
    assert "candidate" not in world.status


def test_what_serves_moves_once_no_node_can_hold_it() -> None:
    world, serves = serving_on(BIG)
    world.alter(nodes=(SMALL, kubernetes_node("big", "20Gi", taints=[DEDICATED]))).settle()
    assert world.candidate() != serves
    assert world.revision().batch == batch_on(SMALL)


def test_a_candidate_goes_on_though_a_larger_node_joins_and_begins_again_where_fewer_fit() -> None:
    world = World({"tier": "full", "replicas": 2}, nodes=(SMALL, kubernetes_node("s2", "3Gi")))
    world.settle()
    first = world.candidate()
    world.alter(nodes=(*world.nodes, BIG)).settle()
    assert world.candidate() == first
    world.alter(nodes=(SMALL, kubernetes_node("s2", "2.5Gi"))).settle()
    assert world.revision().batch < world.revision(first).batch


def test_a_changed_spec_is_fitted_to_the_nodes_of_today() -> None:
    world, _ = serving_on(SMALL)
    world.alter(nodes=(BIG,)).change(context={"maxTokens": 4096}).settle()
    assert world.revision().batch == batch_on(BIG)


DEAD = kubernetes_node("dead", "3Gi", ready="Unknown")
IN_PLACE = {"replicas": 3, "rollout": {"strategy": "InPlace"}}


def let_a_pod_get_stuck(world: World, node: str, gone_by: float = 1e9) -> None:
    """From now on, of what is stopped one pod stays Terminating on this node."""
    reap = world._reap

    def reap_but_one() -> None:
        running = {d["metadata"]["name"] for d in world.live("Deployment") if d["spec"]["replicas"]}
        stuck = next((pod for pod in world.pods.values() if pod.revision not in running), None)
        reap()
        if stuck:
            world.pods[stuck.name] = replace(stuck, ready=False, terminating=True, node=node, grace_ends_at=gone_by)

    world._reap = reap_but_one  # type: ignore[method-assign]


@for_each("nodes", {"silent": (SMALL, BIG, DEAD), "gone": (SMALL, BIG)})
def test_in_place_does_not_wait_for_a_pod_of_a_dead_node(nodes: tuple[NodeFacts, ...]) -> None:
    world, serves = serving_on(SMALL, BIG, kubernetes_node("dead", "3Gi"), **IN_PLACE)
    let_a_pod_get_stuck(world, "dead")
    candidate = world.alter(nodes=nodes).apply(**NEXT)
    world.expect(runs={serves: 0, candidate: 1}, Progressing="RollingOut")


def test_in_place_waits_for_pods_that_end_but_not_beyond_their_grace() -> None:
    world, serves = serving_on(SMALL, BIG, **IN_PLACE)
    let_a_pod_get_stuck(world, "small", gone_by=world.now + 45)
    gone_by = world.now + 45
    candidate = world.apply(**NEXT)
    world.expect(runs={serves: 0, candidate: 0})
    wait = world.plan().requeue_after
    assert wait is not None
    assert gone_by < world.now + wait < gone_by + 120
    world.wait(wait).settle()
    world.expect(runs={serves: 0, candidate: 1})


def test_a_rollback_in_place_does_not_wait_for_a_pod_of_a_dead_node() -> None:
    world, good, bad = fallen(**IN_PLACE)
    let_a_pod_get_stuck(world, "dead")
    world.settle()
    world.expect(runs={bad: 0, good: 1})


@for_each("nodes", {
    "cordoned": (kubernetes_node("n1", "20Gi", unschedulable=True),),
    "silent": (kubernetes_node("n1", "20Gi", ready="Unknown"),),
    "too small": (kubernetes_node("n1", "1Gi"),),
    "of another platform": (kubernetes_node("n1", "20Gi", labels={"kubernetes.io/arch": "arm64"}),),
    "tainted": (kubernetes_node("n1", "20Gi", taints=[DEDICATED]),),
})  # fmt: skip
def test_a_rollback_in_place_stops_nothing_before_a_node_has_room(nodes: tuple[NodeFacts, ...]) -> None:
    world, good, bad = fallen(**IN_PLACE)
    room = world.nodes
    world.alter(nodes=nodes).settle()
    world.expect(serves=bad, runs={bad: 3})
    world.alter(nodes=room).settle()
    world.expect(runs={bad: 0, good: 1})


def test_in_place_stops_nothing_while_no_node_takes_the_candidate() -> None:
    world, serves = serving_on(BIG, **IN_PLACE)
    world.alter(nodes=(kubernetes_node("big", "20Gi", unschedulable=True),)).change(**NEXT).settle()
    world.expect(serves=serves, runs={serves: 3}, CapacityFits=("NoNodeFits", "cordoned"))
    candidate = world.alter(nodes=(BIG,)).apply()
    world.expect(runs={serves: 0, candidate: 1})


NO_ROOM = "0/2 nodes are available: 2 Insufficient memory."
HOUR = 3600.0
MOST_WAITS = 10
"""Passes at the times that plans ask for, until a candidate is tried again."""


def expire(world: World, *, unschedulable: str = NO_ROOM) -> None:
    """Let the candidate's deadline pass while its pod finds no node."""
    world.start_pods(world.candidate()).set_pods(world.candidate(), unschedulable=unschedulable).settle()
    world.wait(HOUR).settle()
    world.expect(Progressing="DeadlineExceeded")


def waits_for_retry(world: World) -> float:
    """Wait until the candidate is tried again; return for how long."""
    began = world.now
    for _ in range(MOST_WAITS):
        if world.status.get("candidate") and world.condition("Progressing")[1] == "RollingOut":
            return world.now - began
        wait = world.plan().requeue_after
        assert wait is not None, world.condition("Progressing")
        world.wait(wait).settle()
    raise AssertionError(f"not tried again after {world.now - began} s: {world.condition('Progressing')}")


def test_what_expired_for_lack_of_room_is_tried_again_ever_later() -> None:
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    waits = []
    for _ in range(8):
        expire(world)
        world.expect(serves=serves, runs={serves: 1}, Progressing=("DeadlineExceeded", NO_ROOM, "is retried"))
        waits.append(round(waits_for_retry(world), -2))
        world.expect(serves=serves, runs={serves: 1, candidate: 1})
    assert waits == [600, 1200, 2400, 4800, 9600, 19200, 21600, 21600]
    world.start_pods(candidate).gate(candidate, Verdict.PASS).settle()
    world.set_ready(candidate).settle()
    world.expect(serves=candidate)
    notes = world.one("ControllerRevision", candidate)["metadata"]["annotations"]
    assert names.ANNOTATION_EXPIRED not in notes


def test_what_a_quota_refused_is_tried_again() -> None:
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    said = 'pods "x" is forbidden: exceeded quota: r1plus-tenant, requested: requests.memory=2Gi'
    world.one("Deployment", candidate)[REFUSED_PODS] = said
    world.wait(HOUR).settle()
    world.expect(runs={serves: 1}, Progressing=("DeadlineExceeded", "exceeded quota"))
    assert round(waits_for_retry(world), -2) == 600


def test_what_expired_for_another_cause_is_not_tried_again() -> None:
    world, serves = serving_on(BIG)
    world.apply(**NEXT)
    expire(world, unschedulable="")
    world.wait(7 * DAY).settle()
    world.expect(runs={serves: 1}, Progressing="DeadlineExceeded")


def test_a_lack_of_room_after_the_deadline_is_no_cause() -> None:
    world, serves = serving_on(BIG, rollout={"strategy": "InPlace"})
    world.apply(**NEXT)
    world.start_pods(world.candidate()).settle()
    world.wait(HOUR).settle()
    world.expect(runs={serves: 1}, Progressing="DeadlineExceeded")
    world.alter(nodes=(kubernetes_node("big", "20Gi", unschedulable=True),)).settle()
    world.alter(nodes=(BIG,)).wait(7 * DAY).settle()
    world.expect(runs={serves: 1}, Progressing="DeadlineExceeded")


@for_each("deadline, tried", {"longer": ("2h", True), "shorter": ("30m", False)})
def test_what_was_too_slow_is_tried_again_with_a_longer_deadline(deadline: str, tried: bool) -> None:
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    expire(world, unschedulable="")
    world.wait(DAY).apply(rollout={"deadline": deadline})
    world.expect(runs={serves: 1, candidate: 1} if tried else {serves: 1})
    world.wait(1.5 * HOUR).settle()
    assert (world.condition("Progressing")[1] == "RollingOut") is tried


def test_another_deadline_tries_at_once() -> None:
    world, serves = serving_on(BIG)
    candidate = world.apply(**NEXT)
    expire(world)
    world.apply(rollout={"deadline": "2h"})
    world.expect(runs={serves: 1, candidate: 1}, Progressing="RollingOut")


def test_a_changed_spec_forgets_the_tries() -> None:
    world, _ = serving_on(BIG)
    world.apply(**NEXT)
    expire(world)
    waits_for_retry(world)
    expire(world)
    world.apply(context={"maxTokens": 512})
    expire(world)
    assert round(waits_for_retry(world), -2) == 600


def test_an_operator_that_dies_at_the_deadline_leaves_the_retry_to_the_next() -> None:
    for writes in range(4):
        world, _ = serving_on(BIG)
        candidate = world.apply(**NEXT)
        world.start_pods(candidate).set_pods(candidate, unschedulable=NO_ROOM).settle()
        world.wait(HOUR)
        world.carry_out(world.plan(), writes)
        world.settle()
        assert round(waits_for_retry(world), -2) == 600


def test_in_place_what_served_comes_back_when_the_candidate_finds_no_node() -> None:
    world, serves = serving_on(BIG, **IN_PLACE)
    candidate = world.apply(**NEXT)
    world.expect(runs={serves: 0, candidate: 1})
    world.start_pods(candidate).set_pods(candidate, unschedulable=NO_ROOM, unschedulable_since=world.now).settle()
    assert (world.plan().requeue_after or 301) <= 300
    world.wait(300).settle()
    world.expect(runs={serves: 3}, Progressing=("DeadlineExceeded", NO_ROOM, "is retried"))
    assert round(waits_for_retry(world), -2) == 21600


ROOMY = kubernetes_node("roomy", "20Gi", disk="100Gi")
DISKLESS = kubernetes_node("roomy", "20Gi")


def storage_of(world: World) -> tuple[int, int]:
    """Return the ephemeral storage that the candidate's pod requests, and its limit, bytes."""
    containers = world.revision().template["spec"]["containers"]
    resources = [c["resources"] for c in containers]
    asked, most = (
        [bytes_of(r.get(kind, {})["ephemeral-storage"]) for r in resources if "ephemeral-storage" in r.get(kind, {})]
        for kind in ("requests", "limits")
    )
    return sum(asked), sum(most)


def disk_volumes(world: World) -> int:
    """Return the most that the candidate's volumes take of its node's disk, bytes."""
    volumes = [v["emptyDir"] for v in world.revision().template["spec"]["volumes"] if "emptyDir" in v]
    return sum(bytes_of(volume["sizeLimit"]) for volume in volumes if volume.get("medium") != "Memory")


def test_a_pod_requests_the_disk_that_its_volumes_may_take() -> None:
    world = World({"tier": "full"}, nodes=(ROOMY,))
    world.settle()
    asked, most = storage_of(world)
    assert disk_volumes(world) > 1600 * 2**20
    assert disk_volumes(world) < asked < disk_volumes(world) + 2**30
    assert most > asked


def test_no_pod_requests_disk_where_a_node_does_not_count_it() -> None:
    world = World({"tier": "full"}, nodes=(ROOMY, DISKLESS))
    world.settle()
    assert storage_of(world) == (0, 0)


def test_a_stored_revision_without_disk_requests_stays_as_it_is() -> None:
    world, serves = serving_on(DISKLESS)
    template = world.one("Deployment", serves)["spec"]["template"]
    assert not world.alter(nodes=(kubernetes_node("roomy", "20Gi", disk="1Gi"),)).pass_once().writes
    assert world.one("Deployment", serves)["spec"]["template"] == template
    world.expect(serves=serves, CapacityFits="Fits", Progressing="Complete")


def test_a_node_without_the_disk_is_not_fitted_to() -> None:
    small_disk = kubernetes_node("big", "20Gi", disk="1Gi")
    assert batch_on(kubernetes_node("small", "3Gi", disk="100Gi"), small_disk) == batch_on(SMALL)
    world = World({"tier": "full"}, nodes=(small_disk,))
    world.settle()
    world.expect(CapacityFits=("NoNodeFits", "ephemeral storage", "1.00 GiB"))


def test_pods_share_a_node_as_far_as_its_disk_goes() -> None:
    one_each = kubernetes_node("big", "20Gi", disk="3Gi"), kubernetes_node("small", "3Gi", disk="3Gi")
    assert batch_on(*one_each, replicas=2) == batch_on(SMALL)


def test_an_engine_on_a_volume_takes_no_disk() -> None:
    world = World({"tier": "full", "delivery": {"mode": "Volume"}}, nodes=(ROOMY,))
    world.settle()
    asked, _ = storage_of(world)
    assert disk_volumes(world) < asked < 2**30
    volumes = {volume["name"]: volume for volume in world.revision().template["spec"]["volumes"]}
    assert volumes["delivery"]["emptyDir"]["sizeLimit"] == "64Mi"


def promote_a_day_ahead(world: World) -> tuple[str, str]:
    """Let a leader whose clock is a day ahead promote the next revision; return what served, and what does now."""
    before, candidate = world.selected(), world.apply(**NEXT)
    world.start_pods(candidate).gate(candidate, Verdict.PASS).settle()
    world.wait(DAY).set_ready(candidate).pass_once()
    world.wait(-DAY)
    assert world.selected() == candidate
    return before, candidate


def test_a_promotion_dated_in_the_future_counts_as_now() -> None:
    world, _ = serving_on(BIG)
    before, serves = promote_a_day_ahead(world)
    world.settle()
    world.expect(serves=serves, runs={before: 1, serves: 1})
    world.wait(DRAIN_SECONDS).settle()
    world.expect(serves=serves, runs={serves: 1}, Progressing="Complete")
    assert world.revision(serves).promoted_at < world.now
    assert not world.pass_once().writes


def test_a_wrong_clock_that_switched_back_changes_nothing_else() -> None:
    world, good, bad = controlled()
    world.control(Verdict.PASS).settle()
    world.wait(DAY).set_ready(good).pass_once()
    world.wait(-DAY).settle()
    record = world.revision(bad).rollback
    assert record is not None
    assert record.switched_at is not None
    assert (world.revision(bad).promoted_at or 0.0) < record.switched_at <= world.now
    assert world.revision(good).promoted_at == pytest.approx(record.switched_at, abs=0.002)
    world.start_pods(good, ready=True).wait(DRAIN_SECONDS).settle()
    world.expect(serves=good, runs={good: 1}, Progressing="RolledBack")


def test_a_control_that_began_in_the_future_is_overdue_in_its_time() -> None:
    world, good, bad = fallen()
    world.wait(30 * DAY).settle()
    world.start_pods(good).wait(-30 * DAY).settle()
    record = world.revision(bad).rollback
    assert record is not None
    assert record.started_at > world.now, "it names the attempt"
    world.expect(Progressing="RollingBack")
    world.wait(DAY).settle()
    assert "RollbackTargetOverdue" in str(world.status)


STORED = start_world().revision()
MOMENTS = st.floats(0, 2e6).map(lambda at: round(at, 3))


@given(st.lists(st.tuples(MOMENTS, st.none() | MOMENTS), min_size=1, max_size=6))
@example([(999_999.999, None), (1e6, 1_000_001.5), (1_000_001.5, None), (1_086_400.0, 1_086_400.0)])
def test_promotions_and_rollbacks_keep_their_order(moments: list[tuple[float, float | None]]) -> None:
    now, record = 1e6, RollbackRecord("r", RollbackTerms("r", "s", 0.98, ""), 0.0, BELOW_THRESHOLD, AccuracyDrop())
    revisions = {
        str(i): replace(STORED, promoted_at=promoted, rollback=replace(record, switched_at=switched))
        for i, (promoted, switched) in enumerate(moments)
    }

    def dates(found: Mapping[str, Revision]) -> list[float]:
        pairs = [(r.promoted_at, r.rollback and r.rollback.switched_at) for r in found.values()]
        return [at for pair in pairs for at in pair if at is not None]

    before, after = dates(revisions), dates(redate(revisions, now))
    assert all(b == a for b, a in zip(before, after, strict=True) if b <= now)
    assert all(a <= now + 1.1 for a in after)
    assert [(a < b, a == b) for a in before for b in before] == [(a < b, a == b) for a in after for b in after]
    if all(at > now + 1 for at in before):
        spans = [[max(dated) - at for at in dated] for dated in (before, after)]
        assert spans[0] == pytest.approx(spans[1], abs=0.02)
    assert redate(redate(revisions, now), now + 2) == redate(revisions, now)
