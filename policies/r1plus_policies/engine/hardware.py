"""Which of a cluster's GPUs an engine can run on, and how much memory each of them offers it.

Called by the operator's plan while it chooses an engine. The nodes' labels are those of gpu-feature-discovery.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from r1plus_policies.engine.accelerators import find, is_slice, usable_bytes

Capability = tuple[int, int]
WHOLE_GPU = "nvidia.com/gpu"
UNKNOWN = "unknown"
"""Product of GPUs whose node does not name them."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs, or MIG slices, of one kind in one node."""

    product: str
    """As `nvidia.com/gpu.product` says."""
    count: int
    """Allocatable; 0 while the device plugin is away."""
    reported_mib: int | None = None
    """As `nvidia.com/gpu.memory` says; None where the node does not tell."""
    capability: Capability | None = None
    resource: str = WHOLE_GPU
    """As the device plugin offers them; slices of MIG strategy `mixed` are a resource of their own."""

    @property
    def selector(self) -> dict[str, str]:
        """Labels of the nodes that have this very product, as gpu-feature-discovery writes them."""
        return {f"{self.resource}.product": self.product}

    @property
    def usable_bytes(self) -> int:
        """What an engine may plan with on each; the lesser of what node and table say, 0 where neither does."""
        known = find(self.product)
        told = [usable_bytes(self.reported_mib)] if self.reported_mib else []
        return min([*told, *([known.usable_bytes] if known else [])], default=0)

    @property
    def computes(self) -> Capability | None:
        """Its compute capability; None where neither node nor table say it."""
        known = find(self.product)
        return self.capability or (known.capability if known else None)


@dataclass(frozen=True, slots=True)
class GpuNeed:
    """What an engine asks of GPUs."""

    count: int
    products: tuple[str, ...] = ()
    min_capability: Capability | None = None


def place(need: GpuNeed, offered: Iterable[Gpus]) -> Gpus | str:
    """The GPUs with the most usable memory that the engine can run on, or why there are none.

    Of equal ones the first by name, so that the answer does not change with the order of the nodes.
    """
    gpus = sorted(kinds(offered), key=lambda g: (-g.usable_bytes, g.product, g.resource))
    if not gpus:
        return "no matching node offers a GPU (nvidia.com/gpu, with the labels of gpu-feature-discovery)"
    if fitting := [g for g in gpus if _refusal(need, g) is None]:
        return fitting[0]
    told = dict.fromkeys(f"{g.product}: {_refusal(need, g)}" for g in gpus)
    return "; ".join(told)


def kinds(offered: Iterable[Gpus]) -> list[Gpus]:
    """One for each product, whatever node it is in: a pod may land on any, so the least memory of them counts.

    Drivers report somewhat different sizes, and a label may be late on one node. A node that has none for now does not
    count, unless that is so of all.
    """
    found: dict[tuple[str, str], Gpus] = {}
    everywhere = list(offered)
    there = {(gpus.resource, gpus.product) for gpus in everywhere if gpus.count}
    for gpus in everywhere:
        if not gpus.count and (gpus.resource, gpus.product) in there:
            continue
        key = gpus.resource, gpus.product
        same = found.get(key, gpus)
        told = [size for size in (same.reported_mib, gpus.reported_mib) if size]
        found[key] = replace(
            same,
            count=max(same.count, gpus.count),
            reported_mib=min(told, default=None),
            capability=min((c for c in (same.capability, gpus.capability) if c), default=None),
        )
    return list(found.values())


def _refusal(need: GpuNeed, gpus: Gpus) -> str | None:
    """Why not on these."""
    if need.products and gpus.product not in need.products:
        return f"it was built for {' or '.join(need.products)}"
    if need.min_capability:
        has, least = gpus.computes, ".".join(map(str, need.min_capability))
        if has is None:
            return f"it needs compute capability {least}, and nobody says what this one has"
        if has < need.min_capability:
            return f"compute capability {has[0]}.{has[1]} is below {least}"
    if need.count > 1 and is_slice(gpus.product):
        return f"it is split over {need.count} GPUs, which MIG slices cannot be"
    if gpus.count < need.count:
        return f"it needs {need.count} in one node, which has {gpus.count}"
    if gpus.usable_bytes == 0:
        return "how much memory it has is said neither by the node (nvidia.com/gpu.memory) nor by the table of GPUs"
    return None


def version_refusal(version: str, least: str | None, most: str | None) -> str | None:
    """Why a runtime of this version does not load an engine; None if it does. An empty version is an unknown one."""
    if least is None and most is None:
        return None
    wanted = " to ".join(dict.fromkeys([least or "any", most or "any"]))
    if not version:
        return f"it needs {wanted}, and the version is not known"
    too_old = least is not None and _compare(version, least) < 0
    too_new = most is not None and _compare(version, most) > 0
    if too_old or too_new:
        return f"it needs {wanted}, and there is {version}"
    return None


def _compare(one: str, other: str) -> int:
    """-1, 0 or 1, by the parts that both name: 10.14.1 is a 10.14."""
    pairs = zip(map(int, one.split(".")), map(int, other.split(".")), strict=False)
    return next((1 if a > b else -1 for a, b in pairs if a != b), 0)
