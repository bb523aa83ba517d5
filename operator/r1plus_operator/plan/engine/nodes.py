"""Which nodes accept a deployment's pods, how much memory each pod may use, and which pods have lost their node."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest

from r1plus_model_repo.catalog.quantity import bytes_of, cores_of, millicores_of
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import Json, NodeFacts, PodFacts, Taint
from r1plus_operator.plan.podspec.pod import MONITOR_CPU, PLATFORM, build_tolerations, lacks_instructions

MAX_LISTED = 5
"""Reasons in a message."""
LOST_SECONDS = 30.0
"""Time after a pod's grace period until it counts as lost."""
_TEMPORARY = "node.kubernetes.io/"
"""Prefix of the taints that Kubernetes sets and removes with a node condition."""


def find_matching_nodes(
    spec: R1PlusDeploymentSpec, engine: Engine, nodes: Iterable[NodeFacts], *, ignore_temporary: bool = False
) -> Iterator[NodeFacts]:
    """Return the nodes that accept a pod of the engine, regardless of their free capacity.

    `ignore_temporary`: ignore cordons, NotReady and pressure, because they are no reason to move what serves.
    """
    pod_tolerations = build_tolerations(spec, on_gpu=engine.spec.requirements.gpu is not None)
    return (
        node
        for node in nodes
        if not explain_mismatch(spec, engine, node, pod_tolerations, ignore_temporary=ignore_temporary)
    )


def explain_mismatch(
    spec: R1PlusDeploymentSpec,
    engine: Engine,
    node: NodeFacts,
    pod_tolerations: Iterable[Json],
    *,
    ignore_temporary: bool = False,
) -> str:
    """Return why a node does not accept a pod of the engine; empty: it does. A platform label may be missing."""
    requirements, has = engine.spec.requirements, node.labels
    if node.cores < cores_of(requirements.cpu):
        return f"less than {requirements.cpu} CPU"
    if any(has.get(key) != value for key, value in spec.placement.node_selector.items()):
        return "other labels"
    if engine.spec.is_vllm_on_cpu and lacks_instructions(has):
        return "no AVX2"
    if other := [has[key] for key, value in PLATFORM.items() if has.get(key, value) != value]:
        return f"{other[0]}, and the images are for {'/'.join(reversed(PLATFORM.values()))}"
    taints = [t for t in node.taints if not (ignore_temporary and t.key.startswith(_TEMPORARY))]
    if taints and (taint := _find_untolerated_taint(taints, pod_tolerations)):
        return f"taint {taint.text}"
    if ignore_temporary or (node.is_ready and not node.is_cordoned):
        return ""
    return "cordoned" if node.is_cordoned else "not Ready"


def _find_untolerated_taint(taints: Iterable[Taint], pod_tolerations: Iterable[Json]) -> Taint | None:
    """Return the first taint that is not tolerated, as the scheduler compares them."""

    def matches(taint: Taint, one: Json) -> bool:
        same = one.get("effect") in (None, taint.effect) and one.get("key") in (None, taint.key)
        return same and (one.get("operator") == "Exists" or one.get("value", "") == taint.value)

    return next((taint for taint in taints if not any(matches(taint, one) for one in pod_tolerations)), None)


def has_room(pod: Json, nodes: Iterable[NodeFacts]) -> bool:
    """Whether a node can run a pod of this spec now, if it runs no other pod of ours."""
    selector, pod_tolerations = pod.get("nodeSelector") or {}, pod.get("tolerations") or ()
    needs_instructions = "nodeAffinity" in (pod.get("affinity") or {})
    memory, cpu = _sum_requests(pod, "memory", bytes_of), _sum_requests(pod, "cpu", millicores_of)
    storage = _sum_requests(pod, "ephemeral-storage", bytes_of)
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
        and not (needs_instructions and lacks_instructions(node.labels))
        and all(any(g.resource == key and g.count >= n for g in node.gpus) for key, n in devices.items())
        and _find_untolerated_taint(node.taints, pod_tolerations) is None
        for node in nodes
    )


def _sum_requests(pod: Json, resource: str, read: Callable[[str], int]) -> int:
    """Return what a pod requests of a resource. Its init containers run one by one before the others."""

    def read_request(container: Json) -> int:
        resources = container["resources"]
        quantity = (resources.get("requests") or {}).get(resource) or (resources.get("limits") or {}).get(resource)
        return read(quantity) if quantity else 0

    return max(sum(map(read_request, pod["containers"])), *map(read_request, pod.get("initContainers") or ()), 0)


def is_lost(pod: PodFacts, nodes: Iterable[NodeFacts], now: float) -> bool:
    """Whether a deleted pod uses no capacity any more, although it is still listed.

    Its node is gone or not Ready, or its grace period ended a while ago. Perhaps its end is never reported.
    """
    if not pod.terminating:
        return False
    on_dead_node = pod.node != "" and not any(node.name == pod.node and node.is_ready for node in nodes)
    return on_dead_node or compute_seconds_until_lost(pod, now) <= 0


def compute_seconds_until_lost(pod: PodFacts, now: float) -> float:
    """Return the seconds until a deleted pod counts as lost; infinite: it is not deleted."""
    return pod.grace_ends_at + LOST_SECONDS - now if pod.terminating else math.inf


def explain_no_node(spec: R1PlusDeploymentSpec, engine: Engine, nodes: Iterable[NodeFacts]) -> str:
    """Return why no node takes a pod of the engine, and what to do."""
    labels = ", ".join(f"{key}={value}" for key, value in sorted(spec.placement.node_selector.items()))
    needs = f"{engine.spec.requirements.cpu} CPU" + (f" and {labels}" if labels else "")
    pod_tolerations = build_tolerations(spec, on_gpu=engine.spec.requirements.gpu is not None)
    counts = Counter(explain_mismatch(spec, engine, node, pod_tolerations) for node in nodes)
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_LISTED]
    each = "; ".join(f"{count} node{'s' if count > 1 else ''}: {why}" for why, count in most) or "there is none"
    where = "spec.placement: " if labels or spec.placement.tolerations else ""
    text = f"{where}no node takes a pod of {engine.name}, which needs {needs} ({each}); add such a node"
    if labels:
        text += ", or change spec.placement.nodeSelector"
    if any(why.startswith("taint") for why in counts):
        text += ", or tolerate the taint in spec.placement.tolerations"
    return text


def compute_memory_per_pod(engine: Engine, nodes: Iterable[NodeFacts], pods: int, least: int, storage: int = 0) -> int:
    """Return the most memory that each of `pods` pods may use, bytes. Several may share a node.

    Each also uses `storage` bytes of disk. If not all find room with the `least` memory each, the result is for as many
    as do. If none does, it is the whole memory of the largest node.
    """
    request = millicores_of(engine.spec.requirements.cpu_request) + millicores_of(MONITOR_CPU)

    def most_on(node: NodeFacts) -> int:
        most = [pods, int(1000 * node.cores) // request, node.memory_bytes // least]
        return max(1, min([*most, *([(node.storage_bytes or 0) // storage] if storage else [])]))

    shares = (node.memory_bytes // pods_on_node for node in nodes for pods_on_node in range(1, 1 + most_on(node)))
    largest = nlargest(pods, shares)
    return min((share for share in largest if share >= least), default=largest[0])
