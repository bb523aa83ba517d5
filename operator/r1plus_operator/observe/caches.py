"""The caches of a cluster's objects, and how they are indexed. The observer builds and fills them.

An index value is a uid, or a word with a slash, which no uid has: so objects of a namespace's volumes, of a tenant and
of a deployment without an owner reference are found in the same index.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.pod_projection import ServingPod
from r1plus_operator.observe.projections import CachedObject, Child
from r1plus_operator.plan.observation import Json, NamespaceFacts
from r1plus_operator.plan.tenancy.tenant import TENANT_KINDS, ObjectKey
from r1plus_operator.runtime.reflector import Reflector


@dataclass(frozen=True, slots=True)
class Caches:
    """One reflector for each kind."""

    children: Mapping[str, Reflector[Child]]
    """By kind."""
    pods: Reflector[ServingPod]
    namespaces: Reflector[CachedObject]
    tenants: Reflector[CachedObject]
    nodes: Reflector[CachedObject]
    engines: Reflector[CachedObject]
    endpoints: Reflector[CachedObject]
    lost_revisions: dict[DeploymentKey, dict[str, Child]] = field(default_factory=dict)
    """CR -> its revisions, by name, that left the cache and were not deleted by us, as they were seen last."""

    def list_reflectors(self) -> tuple[Reflector[Any], ...]:
        """Return all reflectors."""
        cluster = (self.nodes, self.engines, self.namespaces)
        return (*self.children.values(), self.pods, self.endpoints, self.tenants, *cluster)

    def find_namespace(self, name: str) -> NamespaceFacts | None:
        """Return a namespace, tenant or not; None if there is none of that name."""
        entry = self.namespaces.store.get(None, name)
        return entry.value if entry is not None else None

    def list_children(self, key: DeploymentKey, uid: str) -> dict[tuple[str, str], Json]:
        """Return the children of a CR that are not being deleted, by kind and name.

        These are the ones that the CR controls, and those with its label that no R1PlusDeployment controls: somebody
        removed the owner reference, which a pass restores.
        """
        return {
            (kind, child.name): child.live
            for kind, reflector in self.children.items()
            for index in (format_deployment_index(*key), uid)
            for child in reflector.store.by_index(index)
            if not child.is_deleting
        }

    def list_controlled(self, uid: str) -> tuple[tuple[str, str, str], ...]:
        """Return (kind, name, uid) of what a CR controls and what is not being deleted yet."""
        return tuple(
            (kind, child.name, child.uid)
            for kind, reflector in self.children.items()
            for child in reflector.store.by_index(uid)
            if not child.is_deleting
        )

    def list_tenant_objects(self, namespace: str) -> dict[ObjectKey, Child]:
        """Return what the operator has created for a namespace as a tenant, there and in the decoy's namespace."""
        return {
            (child.namespace, kind, child.name): child
            for kind in TENANT_KINDS
            for child in self.children[kind].store.by_index(format_tenant_index(namespace))
        }


def format_volumes_index(namespace: str) -> str:
    """Return the index value of what belongs to a namespace's volumes."""
    return f"volumes/{namespace}"


def format_tenant_index(namespace: str) -> str:
    """Return the index value of what a namespace has as a tenant."""
    return f"tenant/{namespace}"


def format_gateway_index(namespace: str) -> str:
    """Return the index value of the pods of a tenant's gateway."""
    return f"gateway/{namespace}"


def format_deployment_index(namespace: str, name: str) -> str:
    """Return the index value of what has an R1PlusDeployment's label and no R1PlusDeployment as controller."""
    return f"deployment/{namespace}/{name}"


def select_index(child: Child) -> str | None:
    """Return the index value of a child: its owner's uid, else what it belongs to."""
    if child.tenant:
        return format_tenant_index(child.tenant)
    if child.owner or child.label:
        return child.owner or format_deployment_index(child.namespace, child.label)
    return format_volumes_index(child.namespace) if child.volume else None
