"""Checks of nodes: platform, instructions, and room for the smallest engine."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from r1plus_cli import local
from r1plus_cli.preflight.cluster_view import ClusterView, Json, ResourceUse
from r1plus_cli.preflight.outcome import ChartValue, CheckOutcome, fail, not_known, ok, warn
from r1plus_model_repo.catalog.types import Tier
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.observe.node_projection import project_node
from r1plus_operator.plan.engine.selection import Problem, resolve
from r1plus_operator.plan.observation import NodeFacts
from r1plus_operator.plan.podspec.pod import HAS_AVX2, PLATFORM, lacks_instructions

_GIB = 2**30


def check_platform(view: ClusterView) -> CheckOutcome:
    """Judge whether nodes can run the images, which are for linux/amd64."""
    if view.nodes is None:
        return not_known("nodes")
    counts = Counter(_name_platform(node) for node in view.nodes if not _is_virtual(node))
    ours = "/".join(reversed(PLATFORM.values()))
    text = ", ".join(f"{count} of {platform}" for platform, count in sorted(counts.items())) or "no node"
    if not counts[ours]:
        return fail(f"nodes: {text}", f"add nodes of {ours}: the images and the engines are for nothing else")
    if set(counts) == {ours}:
        return ok(f"nodes: {text}")
    reason = f"nodes of other platforms are there as well ({text}), and the images are for {ours}"
    return ok(f"nodes: {text}", ChartValue("nodeSelector", dict(PLATFORM), reason))


def check_instructions(view: ClusterView) -> CheckOutcome:
    """Judge whether nodes have AVX2, as far as node-feature-discovery has labelled them."""
    if view.nodes is None:
        return not_known("nodes")
    labels = [_read_labels(node) for node in _list_usable(view.nodes)]
    have, lack = sum(HAS_AVX2 in one for one in labels), sum(map(lacks_instructions, labels))
    seen = f"{have} nodes have it, {lack} lack it, {len(labels) - have - lack} not known"
    if labels and lack == len(labels):
        return fail(seen, "add a node with AVX2 (Intel since 2013, AMD since 2015); a virtual machine must pass it on")
    if lack:
        remedy = f"label nodes for engines, and select them in spec.placement.nodeSelector, e.g. {HAS_AVX2}: 'true'"
        return warn(seen, remedy)
    if have < len(labels) or not labels:
        return warn(seen, "run `grep -c avx2 /proc/cpuinfo` on a node, or install node-feature-discovery")
    return ok(seen)


def check_capacity(view: ClusterView) -> CheckOutcome:
    """Judge whether a node has room for the smallest engine, by the operator's own plan of a deployment."""
    if view.nodes is None:
        return not_known("nodes")
    nodes = tuple(_list_free(view))
    spec = R1PlusDeploymentSpec(tier=Tier.EDGE)
    engines = local.load_engines(local.SHIPPED_CATALOG, local.DEFAULT_FAMILY)
    suites = local.load_suites(local.SHIPPED_SUITES)
    target = resolve(spec, engines, suites, nodes, local.build_config(local.DEFAULT_FAMILY))
    free = max((node.memory_bytes for node in nodes), default=0) / _GIB
    basis = "allocatable; requests are not known" if view.used is None else "beyond what pods request"
    if isinstance(target, Problem):
        return fail(f"at most {free:.1f} GiB on a node, {basis}", target.message)
    need = target.fit.total_bytes / _GIB
    seen = f"{target.engine.name} fits: {need:.1f} GiB at batch {target.fit.batch}; at most {free:.1f} GiB on a node"
    return ok(f"{seen}, {basis}")


def _list_free(view: ClusterView) -> Iterator[NodeFacts]:
    """Yield the nodes with what their pods leave of them."""
    for node in view.nodes or ():
        cached = project_node(node)
        if cached is None or _is_virtual(node):
            continue
        facts: NodeFacts = cached.value
        use = (view.used or {}).get(facts.name, ResourceUse())
        yield replace(
            facts, memory_bytes=max(0, facts.memory_bytes - use.memory_bytes), cores=max(0.0, facts.cores - use.cores)
        )


def _list_usable(nodes: Iterable[Json]) -> Iterator[Json]:
    """Yield the nodes that run the images."""
    return (
        node
        for node in nodes
        if not _is_virtual(node) and all(_read_labels(node).get(key, value) == value for key, value in PLATFORM.items())
    )


def _is_virtual(node: Json) -> bool:
    """Whether a node is none that runs a pod beside others: of virtual-kubelet, or of EKS Fargate."""
    labels = _read_labels(node)
    return labels.get("type") == "virtual-kubelet" or labels.get("eks.amazonaws.com/compute-type") == "fargate"


def _read_labels(node: Json) -> dict[str, str]:
    return (node.get("metadata") or {}).get("labels") or {}


def _name_platform(node: Json) -> str:
    """Return linux/arm64, or the images' own platform of a node that does not say it."""
    labels = _read_labels(node)
    return "/".join(labels.get(key, value) for key, value in reversed(PLATFORM.items()))
