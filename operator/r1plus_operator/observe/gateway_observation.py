"""What the caches show of a tenant's gateway and of the models that it serves. Called by the observer."""

import contextlib
from collections.abc import Mapping
from functools import lru_cache

from r1plus_contract import names
from r1plus_contract.gateway import GATEWAY, DataState, ModelSettings, name_pods_service
from r1plus_contract.jsonable import ContractError
from r1plus_operator.api import kinds
from r1plus_operator.observe.caches import Caches, format_gateway_index
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.projections import Child, EngineObject
from r1plus_operator.plan.observation import Json, TokenIssuer
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.plan.tenancy.gateway import GatewayObservation
from r1plus_operator.plan.tenancy.gateway_models import build_model


def has_gateway(caches: Caches, namespace: str) -> bool:
    """Return whether a namespace has a gateway, or its R1PlusTenant asks for one."""
    cr = caches.tenants.store.get(namespace, names.TENANT)
    gateway = (cr.value["spec"].get("gateway") if cr else None) or {}
    is_enabled = isinstance(gateway, dict) and bool(gateway.get("enabled"))
    return is_enabled or caches.children["NetworkPolicy"].store.get(namespace, GATEWAY) is not None


def observe_gateway(
    caches: Caches,
    namespace: str,
    crs: Mapping[DeploymentKey, Json],
    issuer: TokenIssuer | None,
    data_states: Mapping[str, DataState],
) -> GatewayObservation:
    """Return what a pass over a namespace needs of its gateway; nothing if it has none.

    `data_states`: uid of a gateway's pod -> what that reports of the tenant's data.
    """
    if not has_gateway(caches, namespace):
        return GatewayObservation()
    pods = caches.pods.store.by_index(format_gateway_index(namespace))
    engine = _find_embedding_engine(caches, namespace)
    nodes = [entry.value for entry in caches.nodes.store.items()]
    return GatewayObservation(
        models={
            key.name: observe_model(caches, key, cr) for key, cr in sorted(crs.items()) if key.namespace == namespace
        },
        pods=tuple(pod.facts for pod in sorted(pods, key=lambda pod: pod.name)),
        data_states={pod.name: data_states[pod.uid] for pod in pods if pod.uid in data_states},
        issuer=issuer,
        kinds=frozenset(one.kind for one in kinds.OPTIONAL_CHILDREN if caches.children[one.kind].is_available),
        embedding=engine.embedding if engine is not None else None,
        has_embedding_name=engine is not None,
        counts_storage=bool(nodes) and all(node.storage_bytes is not None for node in nodes),
    )


def name_embedding_engine(caches: Caches, namespace: str) -> str:
    """Return the engine that a namespace's gateway embeds with; empty: it names none, or its spec cannot be read."""
    cr = caches.tenants.store.get(namespace, names.TENANT)
    gateway = cr.value["spec"].get("gateway") if cr else None
    embedding = gateway.get("embedding") if isinstance(gateway, dict) else None
    name = embedding.get("engine") if isinstance(embedding, dict) else None
    return name if isinstance(name, str) else ""


def _find_embedding_engine(caches: Caches, namespace: str) -> EngineObject | None:
    name = name_embedding_engine(caches, namespace)
    entry = caches.engines.store.get("", name) if name else None
    return entry.value if entry is not None else None


def observe_model(caches: Caches, key: DeploymentKey, cr: Json) -> ModelSettings | None:
    """Return an R1PlusDeployment as a model; None while the gateway cannot reach a pod of it."""
    uid = cr["metadata"]["uid"]
    service = caches.children["Service"].store.get(key.namespace, name_pods_service(key.name))
    if service is None or service.owner != uid or service.is_deleting or "deletionTimestamp" in cr["metadata"]:
        return None
    # One that lost its mark serves all the same.
    lost = (child for child in caches.lost_revisions.get(key, {}).values() if child.owner in (uid, None))
    children = {child.name: child for child in (*lost, *caches.children["ControllerRevision"].store.by_index(uid))}
    live = (child for child in children.values() if not child.is_deleting)
    revisions = [revision for child in live if (revision := _read_revision(child))]
    return build_model(cr, service.live, revisions)


@lru_cache(maxsize=4096)
def _read_revision(child: Child) -> Revision | None:
    """Return a revision; None if it was damaged by hand. Cached, since revisions seldom change and are large."""
    with contextlib.suppress(ContractError):
        return read_revision(child.live)
    return None
