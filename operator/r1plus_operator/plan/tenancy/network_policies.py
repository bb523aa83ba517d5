"""Builders of what a namespace has as a tenant, one pure function a kind. `tenant` says which of them shall be there.

Walls hang on the namespace's label and on nobody's life: no owner reference, so that an R1PlusTenant that goes takes
nothing down but what it gave. NetworkPolicies add up, so what stands for every pod allows nothing.
"""

import ipaddress
from collections.abc import Collection, Iterable

from r1plus_contract import names
from r1plus_contract.isolation import IsolationPart
from r1plus_model_repo.catalog.quantity import bytes_of, canonical_count, mebibytes
from r1plus_operator.api.tenants import (
    NEVER_OPENED,
    Egress,
    Network,
    Quota,
    R1PlusTenantSpec,
    Subject,
    SubjectKind,
    within,
)
from r1plus_operator.plan.manifests.children import namespace_peer, tcp, to_dns
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.settings import DnsTerms

DEFAULT_DENY, CALLERS = "r1plus-default-deny", "r1plus-callers"
LIMITS = "r1plus-tenant"
ADMINS, VIEWERS = "r1plus-tenant-admins", "r1plus-tenant-viewers"
_RBAC = "rbac.authorization.k8s.io"
_OURS = (names.LABEL_DEPLOYMENT, names.LABEL_VOLUME, names.LABEL_PROBE)
"""Labels of pods that have walls of their own."""


def metadata(namespace: str, name: str, part: IsolationPart = IsolationPart.TENANT, **annotations: str) -> Json:
    """Of anything that belongs to a namespace as a tenant."""
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ISOLATION: part.value}
    found: Json = {"name": name, "namespace": namespace, "labels": labels}
    return found | ({"annotations": annotations} if annotations else {})


def policy(meta: Json, selector: Json, ingress: list[Json], egress: list[Json]) -> Json:
    """A NetworkPolicy for both directions."""
    spec = {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def default_deny(namespace: str) -> Json:
    """Nothing in, nothing out, for every pod there is and every pod to come."""
    return policy(metadata(namespace, DEFAULT_DENY), {}, [], [])


def callers(namespace: str, opened: Iterable[Egress], dns: DnsTerms, nodes: Collection[str] = ()) -> Json:
    """What the tenant's own pods may reach: DNS, its models, and where the platform team lets them out to.

    `nodes` are the nodes' addresses, which no way out holds.
    """
    none_of_ours: Json = {"matchExpressions": [{"key": label, "operator": "DoesNotExist"} for label in _OURS]}
    models = {"podSelector": {"matchExpressions": [{"key": names.LABEL_DEPLOYMENT, "operator": "Exists"}]}}
    out = [to_dns(dns), {"to": [models], "ports": tcp(names.PORT_HTTP, names.PORT_GRPC)}]
    out += [{"to": [_peer(way, nodes)], "ports": tcp(*sorted(set(way.ports)))} for way in opened]
    return policy(metadata(namespace, CALLERS), none_of_ours, [], out)


def _peer(way: Egress, nodes: Collection[str]) -> Json:
    if way.namespace is not None:
        return namespace_peer(way.namespace)
    assert way.cidr is not None
    network = ipaddress.ip_network(way.cidr, strict=False)
    never = [ipaddress.ip_network(net) for net in NEVER_OPENED]
    own = [node for node in _nodes_in(network, nodes) if not any(within(node, net) for net in never)]
    shut = [str(net) for net in (*(net for net in never if within(net, network)), *own)]
    return {"ipBlock": {"cidr": str(network), **({"except": shut} if shut else {})}}


def _nodes_in(network: Network, nodes: Iterable[str]) -> list[Network]:
    """Return the nodes' addresses in a network, neighbours as one network, in order."""
    inside = [one for one in map(ipaddress.ip_network, nodes) if within(one, network)]
    return list(ipaddress.collapse_addresses(inside))  # type: ignore[type-var]


def reaches(way: Egress, nodes: Collection[str]) -> str:
    """Return the node whose address is all that a way out holds, or the first of several; empty: it holds others."""
    if way.cidr is None:
        return ""
    network = ipaddress.ip_network(way.cidr, strict=False)
    if _nodes_in(network, nodes) != [network]:
        return ""
    return next(node for node in nodes if within(ipaddress.ip_network(node), network))


def limits(namespace: str, quota: Quota) -> list[Json]:
    """The ResourceQuota; with requests in it a LimitRange too, since pods that request nothing are refused then."""
    hard = {
        "count/configmaps": _count(quota.config_maps),
        "count/r1plusdeployments.r1plus.ai": _count(quota.deployments),
        "pods": _count(quota.pods),
        "requests.cpu": _cores(quota.cpu),
        "requests.memory": _size(quota.memory),
        "requests.nvidia.com/gpu": _count(quota.gpus),
        "requests.storage": _size(quota.storage),
        "requests.ephemeral-storage": _size(quota.ephemeral_storage),
    }
    asked = {key: value for key, value in hard.items() if value is not None}
    meta = metadata(namespace, LIMITS)
    found: list[Json] = [{"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": asked}}]
    if quota.cpu is not None or quota.memory is not None:
        least = {"type": "Container", "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}
        found.append({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": [least]}})
    return found


# All of these as the API server gives them back, or every pass would see a drift.


def _count(count: int | None) -> str | None:
    return None if count is None else canonical_count(count)


def _cores(quantity: str | None) -> str | None:
    return canonical_count(int(quantity)) if quantity and quantity.isdigit() else quantity


def _size(quantity: str | None) -> str | None:
    if quantity is None:
        return None
    return mebibytes(bytes_of(quantity)) if bytes_of(quantity) else "0"


def access(namespace: str, spec: R1PlusTenantSpec) -> list[Json]:
    """Who administers and who reads, as the platform team says."""
    wanted = ((ADMINS, names.ROLE_TENANT_ADMIN, spec.admins), (VIEWERS, names.ROLE_TENANT_VIEWER, spec.viewers))
    return [
        _binding(namespace, name, role, [_subject(namespace, subject) for subject in subjects])
        for name, role, subjects in wanted
        if subjects
    ]


def registry_reader(namespace: str) -> list[Json]:
    """The account whose tokens the tenant's people show to the registry, and its right to read deployments here."""
    name = names.REGISTRY_READER
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(namespace, name),
        "automountServiceAccountToken": False,
    }
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    return [account, _binding(namespace, name, names.ROLE_REGISTRY_READER, [subject])]


def _binding(namespace: str, name: str, role: str, subjects: list[Json]) -> Json:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata(namespace, name),
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    }


def _subject(namespace: str, subject: Subject) -> Json:
    if subject.kind is SubjectKind.SERVICE_ACCOUNT:
        return {"kind": subject.kind.value, "name": subject.name, "namespace": namespace}
    return {"kind": subject.kind.value, "apiGroup": _RBAC, "name": subject.name}
