"""What the cache stores of a node: its allocatable resources, GPUs, addresses and taints."""

import contextlib
import ipaddress

from r1plus_model_repo.catalog.quantity import bytes_of, cores_of
from r1plus_operator.api.tenants import Network
from r1plus_operator.observe.projections import CachedObject, build_cached_object
from r1plus_operator.plan.observation import Json, NodeFacts, Taint
from r1plus_policies.engine.hardware import UNKNOWN, WHOLE_GPU, Gpus

_CONDITION_TAINTS = frozenset(
    f"node.kubernetes.io/{condition}" for condition in ("not-ready", "unreachable", "unschedulable")
)
"""Taints that repeat a node's condition or its cordon."""


def project_node(obj: Json) -> CachedObject | None:
    """Return a node's facts; None while it does not report allocatable memory and cores."""
    allocatable = (obj.get("status") or {}).get("allocatable") or {}
    with contextlib.suppress(KeyError, ValueError):
        facts = NodeFacts(
            name=obj["metadata"]["name"],
            memory_bytes=bytes_of(allocatable["memory"]),
            cores=cores_of(allocatable["cpu"]),
            labels=obj["metadata"].get("labels") or {},
            gpus=read_gpus(allocatable, obj["metadata"].get("labels") or {}),
            addresses=_read_addresses(obj),
            taints=_read_taints(obj),
            is_ready=_is_ready(obj),
            is_cordoned=bool((obj.get("spec") or {}).get("unschedulable")),
            storage_bytes=bytes_of(allocatable.get("ephemeral-storage", "0")) or None,
        )
        return build_cached_object(obj, facts)
    return None


def _read_taints(obj: Json) -> tuple[Taint, ...]:
    """Return the taints that keep pods away, except those that repeat a condition or the cordon."""
    taints = (Taint(t["key"], t.get("value", ""), t["effect"]) for t in (obj.get("spec") or {}).get("taints") or ())
    return tuple(t for t in taints if t.effect in ("NoSchedule", "NoExecute") and t.key not in _CONDITION_TAINTS)


def _is_ready(obj: Json) -> bool:
    """Return whether the node is Ready, or has no such condition."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return all(c["status"] == "True" for c in conditions if c["type"] == "Ready")


def _read_addresses(obj: Json) -> tuple[str, ...]:
    """Return the addresses that are valid.

    Pods behind a bridge reach their node at their network's first one as well.
    """
    entries = (obj.get("status") or {}).get("addresses") or ()
    addresses = [
        a["address"] for a in entries if a["type"] in ("InternalIP", "ExternalIP") and _parse_network(a["address"])
    ]
    bridges = map(_parse_network, (obj.get("spec") or {}).get("podCIDRs") or ())
    return (*addresses, *(str(next(iter(net.hosts()))) for net in bridges if net))


def _parse_network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def read_gpus(allocatable: Json, labels: Json) -> tuple[Gpus, ...]:
    """Return a node's GPUs by kind, as the device plugin counts them and gpu-feature-discovery describes them.

    Whole GPUs and slices of strategy `single` are `nvidia.com/gpu`; slices of strategy `mixed` are a resource each.
    """
    gpus = []
    for resource, count in sorted(allocatable.items()):
        if not (resource == WHOLE_GPU or resource.startswith("nvidia.com/mig-")) or not str(count).isdigit():
            continue
        memory, product = labels.get(f"{resource}.memory", ""), labels.get(f"{resource}.product", "")
        major, minor = (labels.get(f"nvidia.com/gpu.compute.{part}", "") for part in ("major", "minor"))
        capability = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
        memory_mib = int(memory) if memory.isdigit() else None
        if int(count) or product:
            # A product with a count of 0: its device plugin is away for now.
            gpus.append(Gpus(product or UNKNOWN, int(count), memory_mib, capability, resource))
    return tuple(gpus)
