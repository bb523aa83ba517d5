"""Builders of a tenant's objects, one pure function per kind. `tenant` decides which of them should exist.

Network policies depend on the namespace's label only. They have no owner reference, so deleting an R1PlusTenant removes
only what it grants. NetworkPolicies add up, so the one for every pod allows nothing.
"""

import ipaddress
from collections.abc import Collection, Iterable

from r1plus_contract import names
from r1plus_contract.gateway import LABEL_GATEWAY, PORT_API
from r1plus_contract.monitor.isolation import IsolationPart
from r1plus_model_repo.catalog.quantity import bytes_of, canonical_count, mebibytes
from r1plus_operator.api.quotas import TENANT_QUOTA
from r1plus_operator.api.tenants import (
    NEVER_OPENED,
    Egress,
    Network,
    Quota,
    R1PlusTenantSpec,
    Subject,
    SubjectKind,
    is_within,
)
from r1plus_operator.plan.manifests.children import (
    GATEWAY_PODS,
    build_dns_rule,
    build_namespace_peer,
    build_tcp_ports,
)
from r1plus_operator.plan.observation import GatewayView, Json
from r1plus_operator.plan.settings import DnsTerms

DEFAULT_DENY, CALLERS = "r1plus-default-deny", "r1plus-callers"
LIMITS = TENANT_QUOTA
ADMINS, VIEWERS = "r1plus-tenant-admins", "r1plus-tenant-viewers"
_RBAC = "rbac.authorization.k8s.io"
_OURS = (names.LABEL_DEPLOYMENT, names.LABEL_VOLUME, names.LABEL_PROBE)
"""Labels of pods that have network policies of their own."""
_FEWEST_OBJECTS, _OWN_OBJECTS = 100, 60
"""How many NetworkPolicies, or Services, a tenant may have at least, and beside those of its deployments."""


def build_metadata(namespace: str, name: str, part: IsolationPart = IsolationPart.TENANT, **annotations: str) -> Json:
    """Return the metadata of an object that belongs to a tenant."""
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ISOLATION: part.value}
    meta: Json = {"name": name, "namespace": namespace, "labels": labels}
    return meta | ({"annotations": annotations} if annotations else {})


def build_policy(meta: Json, selector: Json, ingress: list[Json], egress: list[Json]) -> Json:
    """Return a NetworkPolicy for both directions."""
    spec = {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def build_default_deny(namespace: str) -> Json:
    """Return the NetworkPolicy that blocks every pod of the namespace in both directions."""
    return build_policy(build_metadata(namespace, DEFAULT_DENY), {}, [], [])


def build_callers_policy(
    namespace: str,
    egress: Iterable[Egress],
    dns: DnsTerms,
    nodes: Collection[str] = (),
    gateway: GatewayView | None = None,
) -> Json:
    """Return the NetworkPolicy of the tenant's own pods: out to DNS, its models, and what the platform team allows.

    `nodes` are the nodes' addresses, which are excluded from every network.
    """
    labels = (*_OURS, *([LABEL_GATEWAY] if gateway else []))
    callers: Json = {"matchExpressions": [{"key": label, "operator": "DoesNotExist"} for label in labels]}
    models = {"podSelector": {"matchExpressions": [{"key": names.LABEL_DEPLOYMENT, "operator": "Exists"}]}}
    out = [build_dns_rule(dns)]
    if gateway is None or not gateway.is_exclusive:
        out.append({"to": [models], "ports": build_tcp_ports(names.PORT_HTTP, names.PORT_GRPC)})
    if gateway is not None:
        out.append({"to": [{"podSelector": GATEWAY_PODS}], "ports": build_tcp_ports(PORT_API)})
    out += [build_egress_rule(way, nodes) for way in egress]
    return build_policy(build_metadata(namespace, CALLERS), callers, [], out)


def build_egress_rule(way: Egress, nodes: Collection[str]) -> Json:
    """Return the rule that opens one way out, but not to nodes."""
    return {"to": [_build_egress_peer(way, nodes)], "ports": build_tcp_ports(*sorted(set(way.ports)))}


def _build_egress_peer(way: Egress, nodes: Collection[str]) -> Json:
    if way.namespace is not None:
        return build_namespace_peer(way.namespace)
    assert way.cidr is not None
    network = ipaddress.ip_network(way.cidr, strict=False)
    never = [ipaddress.ip_network(net) for net in NEVER_OPENED]
    own = [node for node in _list_node_networks(network, nodes) if not any(is_within(node, net) for net in never)]
    exceptions = [str(net) for net in (*(net for net in never if is_within(net, network)), *own)]
    return {"ipBlock": {"cidr": str(network), **({"except": exceptions} if exceptions else {})}}


def _list_node_networks(network: Network, nodes: Iterable[str]) -> list[Network]:
    """Return the nodes' addresses in a network, adjacent ones as one network, in order."""
    inside = [one for one in map(ipaddress.ip_network, nodes) if is_within(one, network)]
    return list(ipaddress.collapse_addresses(inside))  # type: ignore[type-var]


def find_covered_node(way: Egress, nodes: Collection[str]) -> str:
    """Return the first node address of an egress network that contains only nodes; empty: it contains others."""
    if way.cidr is None:
        return ""
    network = ipaddress.ip_network(way.cidr, strict=False)
    if _list_node_networks(network, nodes) != [network]:
        return ""
    return next(node for node in nodes if is_within(ipaddress.ip_network(node), network))


def build_limits(namespace: str, quota: Quota) -> list[Json]:
    """Return the ResourceQuota, and a LimitRange if it limits requests: pods without requests would be refused."""
    deployments = quota.deployments or 0
    network_policies = _choose_most(quota.network_policies, deployments)
    services = _choose_most(quota.services, 2 * deployments)
    hard = {
        "count/configmaps": _format_count(quota.config_maps),
        "count/networkpolicies.networking.k8s.io": _format_count(network_policies),
        "count/r1plusdeployments.r1plus.ai": _format_count(quota.deployments),
        "count/secrets": _format_count(quota.secrets),
        "count/services": _format_count(services),
        "pods": _format_count(quota.pods),
        "requests.cpu": _format_cores(quota.cpu),
        "requests.memory": _format_size(quota.memory),
        "requests.nvidia.com/gpu": _format_count(quota.gpus),
        "requests.storage": _format_size(quota.storage),
        "requests.ephemeral-storage": _format_size(quota.ephemeral_storage),
    }
    limits = {key: value for key, value in hard.items() if value is not None}
    meta = build_metadata(namespace, LIMITS)
    objects: list[Json] = [{"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": limits}}]
    if quota.cpu is not None or quota.memory is not None:
        default = {"type": "Container", "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}
        objects.append({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": [default]}})
    return objects


def _choose_most(limit: int | None, needed: int) -> int:
    """Return how many objects of a kind there may be, of which the tenant's deployments need some."""
    return max(_FEWEST_OBJECTS, needed + _OWN_OBJECTS) if limit is None else limit


# Quantities are written as the API server returns them; otherwise every pass would find drift.


def _format_count(count: int | None) -> str | None:
    return None if count is None else canonical_count(count)


def _format_cores(quantity: str | None) -> str | None:
    return canonical_count(int(quantity)) if quantity and quantity.isdigit() else quantity


def _format_size(quantity: str | None) -> str | None:
    if quantity is None:
        return None
    return mebibytes(bytes_of(quantity)) if bytes_of(quantity) else "0"


def build_role_bindings(namespace: str, spec: R1PlusTenantSpec) -> list[Json]:
    """Return the RoleBindings of the tenant's admins and viewers."""
    bindings = ((ADMINS, names.ROLE_TENANT_ADMIN, spec.admins), (VIEWERS, names.ROLE_TENANT_VIEWER, spec.viewers))
    return [
        _build_role_binding(namespace, name, role, [_build_subject(namespace, subject) for subject in subjects])
        for name, role, subjects in bindings
        if subjects
    ]


def build_registry_reader(namespace: str) -> list[Json]:
    """Return the service account whose tokens tenants show to the registry, and its right to read deployments here."""
    name = names.REGISTRY_READER
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": build_metadata(namespace, name),
        "automountServiceAccountToken": False,
    }
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    return [account, _build_role_binding(namespace, name, names.ROLE_REGISTRY_READER, [subject])]


def _build_role_binding(namespace: str, name: str, role: str, subjects: list[Json]) -> Json:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": build_metadata(namespace, name),
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    }


def _build_subject(namespace: str, subject: Subject) -> Json:
    if subject.kind is SubjectKind.SERVICE_ACCOUNT:
        return {"kind": subject.kind.value, "name": subject.name, "namespace": namespace}
    return {"kind": subject.kind.value, "apiGroup": _RBAC, "name": subject.name}
