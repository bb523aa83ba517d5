"""Nodes as the operator reads them from the API server, and worlds of the plan that run on them."""

from typing import Any

from r1plus_operator.observe.node_projection import project_node
from r1plus_operator.plan.observation import NodeFacts
from support.plan.world import World

IN_PLACE = {"replicas": 3, "rollout": {"strategy": "InPlace"}}


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


def serving_on(*nodes: NodeFacts, **spec: Any) -> tuple[World, str]:
    """Return a world whose first revision serves there, and its name."""
    world = World({"tier": "full", **spec}, nodes=nodes)
    return world, world.bring_up()
