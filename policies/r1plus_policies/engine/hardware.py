"""Which of a cluster's GPUs an engine can run on, and how much memory each of them has for it.

Called by the operator's plan while it chooses an engine. The nodes' labels are those of gpu-feature-discovery.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from r1plus_policies.engine.accelerators import find_accelerator, is_slice, usable_bytes

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
    """As `nvidia.com/gpu.memory` says; None without that label."""
    capability: Capability | None = None
    resource: str = WHOLE_GPU
    """Resource name of the device plugin; slices of MIG strategy `mixed` are a resource of their own."""

    @property
    def selector(self) -> dict[str, str]:
        """Labels of the nodes that have exactly this product, as gpu-feature-discovery writes them."""
        return {f"{self.resource}.product": self.product}

    @property
    def usable_bytes(self) -> int:
        """What an engine may use on each; the lesser of what node and table say, 0 where neither does."""
        table_row = find_accelerator(self.product)
        from_label = [usable_bytes(self.reported_mib)] if self.reported_mib else []
        return min([*from_label, *([table_row.usable_bytes] if table_row else [])], default=0)

    @property
    def compute_capability(self) -> Capability | None:
        """Its compute capability; None where neither node nor table say it."""
        table_row = find_accelerator(self.product)
        return self.capability or (table_row.capability if table_row else None)


@dataclass(frozen=True, slots=True)
class GpuNeed:
    """What an engine needs of GPUs."""

    count: int
    products: tuple[str, ...] = ()
    min_capability: Capability | None = None


def place_engine(need: GpuNeed, offered: Iterable[Gpus]) -> Gpus | str:
    """Return the GPUs with the most usable memory that the engine can run on, or why there are none.

    Of equal ones the first by name, so that the answer does not change with the order of the nodes.
    """
    gpus = sorted(merge_by_product(offered), key=lambda g: (-g.usable_bytes, g.product, g.resource))
    if not gpus:
        return "no matching node offers a GPU (nvidia.com/gpu, with the labels of gpu-feature-discovery)"
    if candidates := [g for g in gpus if _explain_refusal(need, g) is None]:
        return candidates[0]
    refusals = dict.fromkeys(f"{g.product}: {_explain_refusal(need, g)}" for g in gpus)
    return "; ".join(refusals)


def merge_by_product(offered: Iterable[Gpus]) -> list[Gpus]:
    """Merge GPUs by product, whatever their node: a pod may land on any, so the least memory of them counts.

    Drivers report somewhat different sizes, and a label may be late on one node. A node without free GPUs for now does
    not count, unless no node has any.
    """
    by_product: dict[tuple[str, str], Gpus] = {}
    gpus_list = list(offered)
    present = {(gpus.resource, gpus.product) for gpus in gpus_list if gpus.count}
    for gpus in gpus_list:
        if not gpus.count and (gpus.resource, gpus.product) in present:
            continue
        key = gpus.resource, gpus.product
        same = by_product.get(key, gpus)
        sizes = [size for size in (same.reported_mib, gpus.reported_mib) if size]
        by_product[key] = replace(
            same,
            count=max(same.count, gpus.count),
            reported_mib=min(sizes, default=None),
            capability=min((c for c in (same.capability, gpus.capability) if c), default=None),
        )
    return list(by_product.values())


def _explain_refusal(need: GpuNeed, gpus: Gpus) -> str | None:
    """Return why the engine cannot run on these GPUs; None if it can."""
    if need.products and gpus.product not in need.products:
        return f"it was built for {' or '.join(need.products)}"
    if need.min_capability:
        has, least = gpus.compute_capability, ".".join(map(str, need.min_capability))
        if has is None:
            return f"it needs compute capability {least}, but that of this GPU is unknown"
        if has < need.min_capability:
            return f"compute capability {has[0]}.{has[1]} is below {least}"
    if need.count > 1 and is_slice(gpus.product):
        return f"it is split over {need.count} GPUs, which is not possible over MIG slices"
    if gpus.count < need.count:
        return f"it needs {need.count} in one node, which has {gpus.count}"
    if gpus.usable_bytes == 0:
        return "its memory is unknown: neither the node label nvidia.com/gpu.memory nor the table of GPUs has it"
    return None


def explain_version_refusal(version: str, least: str | None, most: str | None) -> str | None:
    """Return why a runtime of this version does not load an engine; None if it does. An empty version is unknown."""
    if least is None and most is None:
        return None
    needed_range = " to ".join(dict.fromkeys([least or "any", most or "any"]))
    if not version:
        return f"it needs {needed_range}, but the version is unknown"
    is_too_old = least is not None and _compare_versions(version, least) < 0
    is_too_new = most is not None and _compare_versions(version, most) > 0
    if is_too_old or is_too_new:
        return f"it needs {needed_range}, but the version is {version}"
    return None


def _compare_versions(one: str, other: str) -> int:
    """Return -1, 0 or 1, by the parts that both have: 10.14.1 is a 10.14."""
    pairs = zip(map(int, one.split(".")), map(int, other.split(".")), strict=False)
    return next((1 if a > b else -1 for a, b in pairs if a != b), 0)
