"""Which nodes take a deployment's pods, how much memory each pod may take, and which pods have lost their node."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest

from r1plus_model_repo.catalog.quantity import bytes_of, cores_of, millicores_of
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import Json, NodeFacts, PodFacts, Taint
from r1plus_operator.plan.podspec.pod import MONITOR_CPU, PLATFORM, tolerations

MOST_LISTED = 5
"""Reasons in a message."""
LOST_SECONDS = 30.0
"""How long after its grace a pod is waited for."""
_PASSING = "node.kubernetes.io/"
"""Begins the taints that Kubernetes itself sets for a condition, and takes away with it."""


def matching(
    spec: R1PlusDeploymentSpec, engine: Engine, nodes: Iterable[NodeFacts], *, lasting: bool = False
) -> Iterator[NodeFacts]:
    """Return the nodes that take a pod of the engine, whatever is free on them.

    `lasting`: a cordon, silence or pressure does not count. It passes, and is no reason to move what serves.
    """
    tolerated = tolerations(spec, on_gpu=engine.spec.requirements.gpu is not None)
    return (node for node in nodes if not refusal(spec, engine, node, tolerated, lasting=lasting))


def refusal(
    spec: R1PlusDeploymentSpec, engine: Engine, node: NodeFacts, tolerated: Iterable[Json], *, lasting: bool = False
) -> str:
    """Return why a node takes no pod of the engine; empty where it does. A label of the platform may be missing."""
    requirements, has = engine.spec.requirements, node.labels
    if node.cores < cores_of(requirements.cpu):
        return f"less than {requirements.cpu} CPU"
    if any(has.get(key) != value for key, value in spec.placement.node_selector.items()):
        return "other labels"
    if other := [has[key] for key, value in PLATFORM.items() if has.get(key, value) != value]:
        return f"{other[0]}, and the images are for {'/'.join(reversed(PLATFORM.values()))}"
    lasts = [t for t in node.taints if not (lasting and t.key.startswith(_PASSING))]
    if lasts and (taint := _untolerated(lasts, tolerated)):
        return f"taint {taint.text}"
    if lasting or (node.is_ready and not node.is_cordoned):
        return ""
    return "cordoned" if node.is_cordoned else "not Ready"


def _untolerated(taints: Iterable[Taint], tolerated: Iterable[Json]) -> Taint | None:
    """Return the first taint that is not tolerated, as the scheduler compares them."""

    def matches(taint: Taint, one: Json) -> bool:
        same = one.get("effect") in (None, taint.effect) and one.get("key") in (None, taint.key)
        return same and (one.get("operator") == "Exists" or one.get("value", "") == taint.value)

    return next((taint for taint in taints if not any(matches(taint, one) for one in tolerated)), None)


def has_room(pod: Json, nodes: Iterable[NodeFacts]) -> bool:
    """Whether a node takes this pod (its spec) now, with nothing else of ours on it."""
    selector, tolerated = pod.get("nodeSelector") or {}, pod.get("tolerations") or ()
    memory, cpu = _asked(pod, "memory", bytes_of), _asked(pod, "cpu", millicores_of)
    storage = _asked(pod, "ephemeral-storage", bytes_of)
    devices = {
        key: int(count)
        for container in pod["containers"]
        for key, count in (container["resources"].get("limits") or {}).items()
        if "/" in key
    }
    return any(
        node.is_ready
        and not node.is_cordoned
        and node.memory_bytes >= memory
        and 1000 * node.cores >= cpu
        and (node.storage_bytes or 0) >= storage
        and all(node.labels.get(key, PLATFORM.get(key)) == value for key, value in selector.items())
        and all(any(g.resource == key and g.count >= n for g in node.gpus) for key, n in devices.items())
        and _untolerated(node.taints, tolerated) is None
        for node in nodes
    )


def _asked(pod: Json, resource: str, read: Callable[[str], int]) -> int:
    """Return what a pod requests; its init containers run one after the other, and before the others."""

    def of(container: Json) -> int:
        resources = container["resources"]
        asked = (resources.get("requests") or {}).get(resource) or (resources.get("limits") or {}).get(resource)
        return read(asked) if asked else 0

    return max(sum(map(of, pod["containers"])), *map(of, pod.get("initContainers") or ()), 0)


def is_lost(pod: PodFacts, nodes: Iterable[NodeFacts], now: float) -> bool:
    """Whether a pod that was deleted holds no room any more, though it is still listed.

    Its node is not Ready or gone, or its grace has been over for a while: nobody may ever say that it has ended.
    """
    if not pod.terminating:
        return False
    on_dead_node = pod.node != "" and not any(node.name == pod.node and node.is_ready for node in nodes)
    return on_dead_node or lost_in(pod, now) <= 0


def lost_in(pod: PodFacts, now: float) -> float:
    """Return in how many seconds a pod counts as lost if it stays; infinite while nobody has deleted it."""
    return pod.grace_ends_at + LOST_SECONDS - now if pod.terminating else math.inf


def explain_no_node(spec: R1PlusDeploymentSpec, engine: Engine, nodes: Iterable[NodeFacts]) -> str:
    """Return why no node takes a pod of the engine, and what to do."""
    labels = ", ".join(f"{key}={value}" for key, value in sorted(spec.placement.node_selector.items()))
    wanted = f"{engine.spec.requirements.cpu} CPU" + (f" and {labels}" if labels else "")
    tolerated = tolerations(spec, on_gpu=engine.spec.requirements.gpu is not None)
    counted = Counter(refusal(spec, engine, node, tolerated) for node in nodes)
    most = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MOST_LISTED]
    each = "; ".join(f"{count} node{'s' if count > 1 else ''}: {why}" for why, count in most) or "there is none"
    where = "spec.placement: " if labels or spec.placement.tolerations else ""
    text = f"{where}no node takes a pod of {engine.name}, which needs {wanted} ({each}); add such a node"
    if labels:
        text += ", or change spec.placement.nodeSelector"
    if any(why.startswith("taint") for why in counted):
        text += ", or tolerate the taint in spec.placement.tolerations"
    return text


def memory_per_pod(engine: Engine, nodes: Iterable[NodeFacts], pods: int, least: int, storage: int = 0) -> int:
    """Return the most memory that each of so many pods may take, bytes; several may share a node.

    Each also takes so much `storage`. Where not all find room with the `least` memory each, it is that of as many as
    do; where none does, all of the largest node.
    """
    request = millicores_of(engine.spec.requirements.cpu_request) + millicores_of(MONITOR_CPU)

    def most_on(node: NodeFacts) -> int:
        most = [pods, int(1000 * node.cores) // request, node.memory_bytes // least]
        return max(1, min([*most, *([(node.storage_bytes or 0) // storage] if storage else [])]))

    shares = (node.memory_bytes // sharing for node in nodes for sharing in range(1, 1 + most_on(node)))
    largest = nlargest(pods, shares)
    return min((share for share in largest if share >= least), default=largest[0])
