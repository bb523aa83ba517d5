"""What preflight has read of a cluster: raw JSON of the API server. None stands for what the user may not list."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from r1plus_model_repo.catalog.quantity import bytes_of, cores_of

Json = dict[str, Any]
Items = tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """What the pods of a node request."""

    memory_bytes: int = 0
    cores: float = 0.0


@dataclass(frozen=True, slots=True)
class AccessRight:
    """One thing that `helm install` does."""

    group: str
    plural: str
    verb: str = "create"
    is_namespaced: bool = True
    """Whether it is asked for the release's namespace only."""

    @property
    def text(self) -> str:
        """As kubectl writes it, such as `create deployments.apps`."""
        return f"{self.verb} {self.plural}{f'.{self.group}' if self.group else ''}"


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster at one moment."""

    namespace: str
    """Namespace of the release."""
    version: Json
    """Response of /version."""
    served: frozenset[str] = frozenset()
    """Kinds as GROUP/VERSION/PLURAL, of the groups that preflight asks for."""
    nodes: Items | None = ()
    used: Mapping[str, ResourceUse] | None = field(default_factory=dict)
    """Node -> what its pods request."""
    namespaces: Items | None = ()
    storage_classes: Items | None = ()
    dns_services: Items | None = ()
    """Services of kube-system and openshift-dns."""
    daemon_sets: Items | None = ()
    """DaemonSets of kube-system."""
    api_service: Json | None = None
    """Service default/kubernetes; None also where it cannot be read."""
    api_slices: Items | None = ()
    """Its EndpointSlices."""
    prometheuses: Items | None = ()
    prometheus_crd: Json | None = None
    """CustomResourceDefinition of PodMonitors; None also where it cannot be read."""
    operators: Items | None = ()
    """Deployments of r1plus-operator in all namespaces."""
    policy_bindings: Items | None = ()
    """ValidatingAdmissionPolicyBindings of r1plus."""
    rights: Mapping[AccessRight, bool] = field(default_factory=dict)
    """What helm install does -> whether the user may do it."""


def sum_requests(pods: Iterable[Json]) -> dict[str, ResourceUse]:
    """Return node -> what its pods request. Pods that have ended request nothing."""
    used: dict[str, ResourceUse] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            before, use = used.get(node, ResourceUse()), _read_use(pod["spec"])
            used[node] = ResourceUse(before.memory_bytes + use.memory_bytes, before.cores + use.cores)
    return used


def _read_use(spec: Json) -> ResourceUse:
    """Return what a pod's containers request; its init containers run before them."""
    containers, inits = (
        [_read_container(one) for one in spec.get(kind) or ()] for kind in ("containers", "initContainers")
    )
    return ResourceUse(
        max([sum(one.memory_bytes for one in containers), *(one.memory_bytes for one in inits)]),
        max([sum(one.cores for one in containers), *(one.cores for one in inits)]),
    )


def _read_container(container: Json) -> ResourceUse:
    requests = (container.get("resources") or {}).get("requests") or {}
    try:
        return ResourceUse(bytes_of(str(requests.get("memory", "0"))), cores_of(str(requests.get("cpu", "0"))))
    except ValueError:  # A quantity in a unit such as Ei, which no pod has.
        return ResourceUse()
