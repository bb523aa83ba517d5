"""Rollouts that got stuck, or began without being asked for: attacks of a review of commit 035d42d, by their numbers."""

from typing import Any

from r1plus_operator.plan.inputs import NodeFacts
from r1plus_operator.projections import node
from support.plan.world import World
from support.tables import for_each

DEDICATED = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}


def kubernetes_node(
    name: str, memory: str, *, labels: dict[str, str] | None = None, ready: str = "True", **spec: Any
) -> NodeFacts:
    """Return a node as the operator reads it from the API server."""
    labels = {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", **(labels or {})}
    status = {
        "allocatable": {"cpu": "8", "memory": memory, "pods": "110"},
        "conditions": [{"type": "Ready", "status": ready}],
    }
    kept = node({"metadata": {"name": name, "uid": name, "labels": labels}, "spec": spec, "status": status})
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
    "a taint of its pressure": (kubernetes_node("big", "20Gi", taints=[{"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]), ["disk-pressure"]),
    "a cordon": (kubernetes_node("big", "20Gi", unschedulable=True), ["cordoned"]),
    "silence": (kubernetes_node("big", "20Gi", ready="Unknown"), ["not Ready"]),
    "another architecture": (kubernetes_node("big", "20Gi", labels={"kubernetes.io/arch": "arm64"}), ["arm64", "amd64"]),
    "another operating system": (kubernetes_node("big", "20Gi", labels={"kubernetes.io/os": "windows"}), ["windows", "linux"]),
})  # fmt: skip
def test_finding_10_a_node_that_takes_no_pod_of_it_is_not_fitted_to(node: NodeFacts, names: list[str]) -> None:
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
def test_finding_10_a_taint_that_is_tolerated_is_no_obstacle(tolerations: list[Any], effect: str) -> None:
    tainted = kubernetes_node("big", "20Gi", taints=[{**DEDICATED, "effect": effect}])
    assert batch_on(SMALL, tainted, placement={"tolerations": tolerations}) == batch_on(BIG)


@for_each("toleration", {
    "another key": {"key": "team", "value": "gpu"},
    "another value": {"key": "dedicated", "value": "cpu"},
    "another effect": {"key": "dedicated", "value": "gpu", "effect": "NoExecute"},
})  # fmt: skip
def test_finding_10_a_toleration_of_something_else_does_not_help(toleration: dict[str, str]) -> None:
    tainted = kubernetes_node("big", "20Gi", taints=[DEDICATED])
    assert batch_on(SMALL, tainted, placement={"tolerations": [toleration]}) == batch_on(SMALL)


def test_finding_10_the_pods_of_a_new_revision_ask_for_what_their_images_run_on() -> None:
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
def test_finding_10_an_open_batch_fits_for_every_replica(
    nodes: tuple[NodeFacts, ...], replicas: int, like: NodeFacts
) -> None:
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
def test_finding_10_nodes_that_come_and_go_move_nothing_that_fits(nodes: tuple[NodeFacts, ...]) -> None:
    world, serves = serving_on(SMALL, kubernetes_node("s2", "3Gi"), replicas=2)
    world.alter(nodes=nodes).settle()
    world.expect(serves=serves, runs={serves: 2}, CapacityFits="Fits", Progressing="Complete")
    assert "candidate" not in world.status


def test_finding_10_what_serves_moves_once_no_node_can_hold_it() -> None:
    world, serves = serving_on(BIG)
    world.alter(nodes=(SMALL, kubernetes_node("big", "20Gi", taints=[DEDICATED]))).settle()
    assert world.candidate() != serves
    assert world.revision().batch == batch_on(SMALL)


def test_finding_10_a_candidate_goes_on_though_a_larger_node_joins_and_begins_anew_where_fewer_fit() -> None:
    world = World({"tier": "full", "replicas": 2}, nodes=(SMALL, kubernetes_node("s2", "3Gi")))
    world.settle()
    first = world.candidate()
    world.alter(nodes=(*world.nodes, BIG)).settle()
    assert world.candidate() == first
    world.alter(nodes=(SMALL, kubernetes_node("s2", "2.5Gi"))).settle()
    assert world.revision().batch < world.revision(first).batch


def test_finding_10_another_wish_is_fitted_to_the_nodes_of_today() -> None:
    world, _ = serving_on(SMALL)
    world.alter(nodes=(BIG,)).change(context={"maxTokens": 4096}).settle()
    assert world.revision().batch == batch_on(BIG)
