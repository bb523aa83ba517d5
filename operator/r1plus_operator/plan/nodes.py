"""Which nodes a deployment's pods may run on, and how much memory of them each pod may take."""

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import nlargest

from r1plus_model_repo.catalog.quantity import cores_of, millicores_of
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.inputs import NodeFacts, Taint
from r1plus_operator.plan.pod import GPU_TOLERATION, MONITOR_CPU, PLATFORM

MOST_LISTED = 5
"""Reasons in a message."""
_PASSING = "node.kubernetes.io/"
"""Begins the taints that Kubernetes itself sets for a condition, and takes away with it."""


def matching(
    spec: R1PlusDeploymentSpec, engine: Engine, nodes: Iterable[NodeFacts], *, lasting: bool = False
) -> Iterator[NodeFacts]:
    """Return the nodes that take a pod of the engine, whatever is free on them.

    `lasting`: a cordon, silence or pressure does not count. It passes, and is no reason to move what serves.
    """
    return (node for node in nodes if not refusal(spec, engine, node, lasting=lasting))


def refusal(spec: R1PlusDeploymentSpec, engine: Engine, node: NodeFacts, *, lasting: bool = False) -> str:
    """Return why a node takes no pod of the engine; empty where it does. A label of the platform may be missing."""
    requirements, has = engine.spec.requirements, node.labels
    if node.cores < cores_of(requirements.cpu):
        return f"less than {requirements.cpu} CPU"
    if any(has.get(key) != value for key, value in spec.placement.node_selector.items()):
        return "other labels"
    if other := [has[key] for key, value in PLATFORM.items() if has.get(key, value) != value]:
        return f"{other[0]}, and the images are for {'/'.join(reversed(PLATFORM.values()))}"
    for taint in node.taints:
        if not (lasting and taint.key.startswith(_PASSING)) and not _tolerates(spec, engine, taint):
            return f"taint {taint.text}"
    if lasting or (node.is_ready and not node.is_cordoned):
        return ""
    return "cordoned" if node.is_cordoned else "not Ready"


def _tolerates(spec: R1PlusDeploymentSpec, engine: Engine, taint: Taint) -> bool:
    """Whether the pods tolerate a taint, as the scheduler compares them."""
    if engine.spec.requirements.gpu is not None and taint.key == GPU_TOLERATION["key"]:
        return True
    return any(
        t.effect in (None, taint.effect)
        and t.key in (None, taint.key)
        and (t.operator == "Exists" or (t.value or "") == taint.value)
        for t in spec.placement.tolerations
    )


def explain_no_node(spec: R1PlusDeploymentSpec, engine: Engine, nodes: Iterable[NodeFacts]) -> str:
    """Return why no node takes a pod of the engine, and what to do."""
    labels = ", ".join(f"{key}={value}" for key, value in sorted(spec.placement.node_selector.items()))
    wanted = f"{engine.spec.requirements.cpu} CPU" + (f" and {labels}" if labels else "")
    counted = Counter(refusal(spec, engine, node) for node in nodes)
    most = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MOST_LISTED]
    each = "; ".join(f"{count} node{'s' if count > 1 else ''}: {why}" for why, count in most) or "there is none"
    where = "spec.placement: " if labels or spec.placement.tolerations else ""
    text = f"{where}no node takes a pod of {engine.name}, which needs {wanted} ({each}); add such a node"
    if labels:
        text += ", or change spec.placement.nodeSelector"
    if any(why.startswith("taint") for why in counted):
        text += ", or tolerate the taint in spec.placement.tolerations"
    return text


def memory_per_pod(engine: Engine, nodes: Iterable[NodeFacts], pods: int, least: int) -> int:
    """Return the most memory that each of so many pods may take, bytes; several may share a node.

    Where not all find room with the `least` memory each, it is that of as many as do; where none does, all of the
    largest node.
    """
    request = millicores_of(engine.spec.requirements.cpu_request) + millicores_of(MONITOR_CPU)

    def most_on(node: NodeFacts) -> int:
        return max(1, min(pods, int(1000 * node.cores) // request, node.memory_bytes // least))

    shares = (node.memory_bytes // sharing for node in nodes for sharing in range(1, 1 + most_on(node)))
    largest = nlargest(pods, shares)
    return min((share for share in largest if share >= least), default=largest[0])
