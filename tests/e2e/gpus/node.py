"""The one node as if it had GPUs: an extended resource, as a device plugin would offer it, and a discovery's labels.

Kubelet and scheduler count the resource as any; no device is handed to anybody, since there is none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from e2e.kube import Kube
from e2e.waiting import wait_for

RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A product as gpu-feature-discovery tells it."""

    product: str
    mib: int
    capability: str

    @property
    def labels(self) -> dict[str, str]:
        """Of a node that has it."""
        major, minor = self.capability.split(".")
        told = {"product": self.product, "memory": str(self.mib), "compute.major": major, "compute.minor": minor}
        return {f"{RESOURCE}.{key}": value for key, value in told.items()}


L40S = Gpu("NVIDIA-L40S", 46068, "8.9")
A10 = Gpu("NVIDIA-A10", 23028, "8.6")


@dataclass(frozen=True, slots=True)
class Node:
    """The embedded cluster's."""

    kube: Kube
    name: str

    def has(self, gpu: Gpu, count: int) -> None:
        """So many of these, and no others. The number first: nothing may be put where there is no room any more."""
        self._offer(str(count))
        self._label(gpu.labels)

    def loses_its_device_plugin(self) -> None:
        """It tells of the GPU, and offers none: the kubelet keeps the resource, at zero."""
        self._offer("0")

    def has_none(self) -> None:
        """As it was."""
        self._offer(None)
        self._label(dict.fromkeys(L40S.labels))

    def _label(self, labels: Mapping[str, str | None]) -> None:
        self._patch({"metadata": {"labels": labels}})

    def _offer(self, count: str | None) -> None:
        """Into the capacity, which is the administrator's to write; the kubelet makes allocatable of it."""
        self._patch({"status": {"capacity": {RESOURCE: count}}}, "--subresource=status")

        def offers() -> bool:
            node = self.kube.get("nodes", None, self.name)
            return node is not None and node["status"]["allocatable"].get(RESOURCE) == count

        wait_for(offers, f"node {self.name} offers {count} {RESOURCE}")

    def _patch(self, body: Mapping[str, object], *words: str) -> None:
        self.kube.kubectl("patch", "node", self.name, "--type=merge", *words, "--patch", json.dumps(body))
