"""What the caches show of a namespace as a tenant. Called by the observer."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from r1plus_contract import names
from r1plus_contract.gateway import DataState
from r1plus_operator.observe.caches import Caches, format_tenant_index, format_volumes_index
from r1plus_operator.observe.gateway_observation import observe_gateway
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.projections import Child
from r1plus_operator.plan.observation import Json, TokenIssuer
from r1plus_operator.plan.tenancy.tenant import TenantObservation, hash_policies


def observe_tenant(
    caches: Caches,
    namespace: str,
    crs: Mapping[DeploymentKey, Json],
    decoy: str,
    issuer: TokenIssuer | None = None,
    data_states: Mapping[str, DataState] = MappingProxyType({}),
) -> TenantObservation | None:
    """Return a namespace as a tenant; None if there is none of that name.

    `crs`: all R1PlusDeployments; `decoy`: the decoy's namespace, empty if isolation is not tested; `issuer`: of
    ServiceAccounts' tokens; `data_states`: uid of a gateway's pod -> what that reports of the tenant's data.
    """
    facts = caches.find_namespace(namespace)
    if facts is None:
        return None
    cr = caches.tenants.store.get(namespace, names.TENANT)
    is_leaving = cr is not None and "deletionTimestamp" in cr.value["metadata"]
    objects = caches.list_tenant_objects(namespace)
    claims = (
        caches.children["PersistentVolumeClaim"].store.by_index(format_volumes_index(namespace)) if is_leaving else ()
    )
    return TenantObservation(
        namespace=facts,
        cr=cr.value if cr else None,
        live={key: child.live for key, child in objects.items() if not child.is_deleting},
        deleting=frozenset(key for key, child in objects.items() if child.is_deleting),
        deployments=_list_deployments(caches, namespace, crs) if is_leaving else (),
        volumes=tuple(sorted(claim.name for claim in claims)),
        policy_digests=_hash_network_policies(caches, namespace) if facts.is_tenant and decoy else {},
        node_addresses=_list_node_addresses(caches) if cr and has_egress(cr.value["spec"]) else (),
        pods={
            (pod.namespace, pod.job): pod.facts
            for pod in sorted(caches.pods.store.by_index(format_tenant_index(namespace)), key=lambda pod: pod.name)
        },
        is_decoy_ready=_is_decoy_ready(caches, decoy),
        gateway=observe_gateway(caches, namespace, crs, issuer, data_states),
    )


def _list_deployments(caches: Caches, namespace: str, crs: Mapping[DeploymentKey, Json]) -> tuple[str, ...]:
    """Return a namespace's R1PlusDeployments, except those of which nothing but a finalizer is left."""
    return tuple(
        sorted(
            key.name
            for key, cr in crs.items()
            if key.namespace == namespace
            and ("deletionTimestamp" not in cr["metadata"] or caches.list_controlled(cr["metadata"]["uid"]))
        )
    )


def has_egress(spec: Json) -> bool:
    """Return whether a tenant's spec opens a way out, from which nodes' addresses are excluded."""
    gateway = spec.get("gateway")
    return bool(spec.get("egress")) or (isinstance(gateway, dict) and bool(gateway.get("database")))


def list_leftovers(caches: Caches, namespace: str) -> tuple[tuple[str, str, str, str], ...]:
    """Return what is left of a tenant whose namespace is gone: controls of isolation tests in the decoy's namespace."""
    objects = caches.list_tenant_objects(namespace).items()
    return tuple((*key, child.uid) for key, child in objects if key[0] != namespace and not child.is_deleting)


def _is_decoy_ready(caches: Caches, decoy: str) -> bool:
    facts = caches.find_namespace(decoy)
    pods = caches.pods.store.by_index(f"{decoy}/{names.DECOY}")
    return facts is not None and not facts.is_terminating and any(pod.facts.ready for pod in pods)


def _hash_network_policies(caches: Caches, namespace: str) -> dict[str, str]:
    """Return the digest of each serving deployment's policy. By policy and pods: its CR may not be delivered yet."""
    digests = {}
    for policy in caches.children["NetworkPolicy"].store.items():
        if policy.namespace != namespace or not policy.owner or policy.is_deleting:
            continue
        if any(pod.facts.ready for pod in caches.pods.store.by_index(f"{namespace}/{policy.name}")):
            digests[policy.name] = _hash_policy(policy)
    return digests


def _list_node_addresses(caches: Caches) -> tuple[str, ...]:
    """Return the nodes' addresses, sorted, since messages that name them must not change with a node's events."""
    return tuple(sorted(address for node in caches.nodes.store.items() for address in node.value.addresses))


@lru_cache(maxsize=8192)
def _hash_policy(policy: Child) -> str:
    """Return a policy's digest. Cached, since a tenant may have a thousand, and they seldom change."""
    return hash_policies([policy.live])
