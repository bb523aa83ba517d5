"""Which nodes a revision fits to, by taints, platform, memory and disk; and what a rollout in place waits for on them."""

from dataclasses import replace
from typing import Any

from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_operator.plan.observation import NodeFacts
from support.plan.falls import fallen
from support.plan.nodes import BIG, IN_PLACE, SMALL, kubernetes_node, serving_on
from support.plan.world import NEXT, World
from support.tables import for_each

DEDICATED = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}


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


@for_each("nodes", {
    "a larger node joins": (SMALL, BIG),
    "its node is cordoned and a larger one is there": (kubernetes_node("small", "3Gi", unschedulable=True), BIG),
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
