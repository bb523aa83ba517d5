"""Behaviours of deletions: preconditions, finalizers, grace, namespaces, evictions."""

from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import JSON_PATCH
from r1plus_operator.runtime.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TooManyRequestsError,
)
from support.api_contract.cluster import CONFIG_MAP, FINALIZER, POD, R1P, Cluster, refusal
from support.apiserver import manifests

BUDGET = kinds.BY_KIND["PodDisruptionBudget"]
_DROP = [
    {"op": "test", "path": "/metadata/finalizers/0", "value": FINALIZER},
    {"op": "remove", "path": "/metadata/finalizers/0"},
]


async def a_deleted_object_is_gone(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    assert await cluster.is_gone(CONFIG_MAP, "a")


async def a_delete_of_an_absent_object_is_not_found(cluster: Cluster) -> None:
    found = await refusal(cluster.client.delete(CONFIG_MAP, "a", cluster.namespace))
    assert found == (NotFoundError, "NotFound", [])


async def a_delete_by_another_uid_is_a_conflict(cluster: Cluster) -> None:
    first = await cluster.client.create(CONFIG_MAP, cluster.config_map())
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace, uid=first["metadata"]["uid"])
    second = await cluster.client.create(CONFIG_MAP, cluster.config_map())
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    request = cluster.client.delete(CONFIG_MAP, "a", cluster.namespace, uid=first["metadata"]["uid"])
    assert await refusal(request) == (ConflictError, "Conflict", [])


async def a_finalizer_keeps_an_object_until_it_is_removed(cluster: Cluster) -> None:
    await cluster.create(CONFIG_MAP, cluster.config_map(), finalizers=[FINALIZER])
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    marked = await cluster.read(CONFIG_MAP, "a")
    assert marked["metadata"]["deletionTimestamp"].endswith("Z")
    await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, _DROP, content_type=JSON_PATCH)
    assert await cluster.is_gone(CONFIG_MAP, "a")


async def a_second_delete_changes_nothing(cluster: Cluster) -> None:
    await cluster.create(CONFIG_MAP, cluster.config_map(), finalizers=[FINALIZER])
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    marked = await cluster.read(CONFIG_MAP, "a")
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    assert await cluster.read(CONFIG_MAP, "a") == marked


async def a_mark_for_deletion_is_a_generation(cluster: Cluster) -> None:
    await cluster.create(R1P, cluster.r1plus_deployment(), finalizers=[FINALIZER])
    await cluster.client.delete(R1P, "credit", cluster.namespace)
    assert (await cluster.read(R1P, "credit"))["metadata"]["generation"] == 2


async def an_object_that_is_being_deleted_gets_no_new_finalizer(cluster: Cluster) -> None:
    await cluster.create(CONFIG_MAP, cluster.config_map(), finalizers=[FINALIZER])
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    body = {"metadata": {"finalizers": [FINALIZER, "r1plus.test/more"]}}
    found = await refusal(cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, body))
    assert found == (InvalidError, "Invalid", ["metadata.finalizers"])


async def an_object_that_is_being_deleted_can_change(cluster: Cluster) -> None:
    await cluster.create(R1P, cluster.r1plus_deployment(), finalizers=[FINALIZER])
    await cluster.client.delete(R1P, "credit", cluster.namespace)
    body = manifests.manifest(R1P, "credit", cluster.namespace, status={"reason": "A"})
    seen = await cluster.client.apply(R1P, body, field_manager="op", subresource="status")
    assert seen["status"] == {"reason": "A"}


async def an_apply_revives_nothing(cluster: Cluster) -> None:
    await cluster.create(CONFIG_MAP, cluster.config_map(x="1"), finalizers=[FINALIZER])
    await cluster.client.delete(CONFIG_MAP, "a", cluster.namespace)
    seen = await cluster.client.apply(CONFIG_MAP, cluster.config_map(x="2"), field_manager="op")
    assert "deletionTimestamp" in seen["metadata"]


async def propagation_is_a_finalizer(cluster: Cluster) -> None:
    for name, propagation in (("a", "Foreground"), ("b", "Orphan")):
        await cluster.create(CONFIG_MAP, cluster.config_map(name), finalizers=[FINALIZER])
        await cluster.client.delete(CONFIG_MAP, name, cluster.namespace, propagation=propagation)
    finalizers = [set((await cluster.read(CONFIG_MAP, name))["metadata"]["finalizers"]) for name in ("a", "b")]
    assert finalizers == [{FINALIZER, "foregroundDeletion"}, {FINALIZER, "orphan"}]


async def a_pod_that_no_node_runs_is_gone_at_once(cluster: Cluster) -> None:
    await cluster.create_pod()
    await cluster.client.delete(POD, "p", cluster.namespace)
    assert await cluster.is_gone(POD, "p")


async def a_pod_on_a_node_stays_until_its_kubelet_confirms(cluster: Cluster) -> None:
    await cluster.create_pod(node="n1")
    await cluster.client.delete(POD, "p", cluster.namespace)
    meta = (await cluster.read(POD, "p"))["metadata"]
    assert meta["deletionGracePeriodSeconds"] == 30
    assert "deletionTimestamp" in meta
    await cluster.client.delete(POD, "p", cluster.namespace, grace_seconds=0)
    assert await cluster.is_gone(POD, "p")


async def a_pods_grace_can_be_shortened_and_not_extended(cluster: Cluster) -> None:
    await cluster.create_pod(node="n1")
    seen = []
    for grace in (20, 10, 60):
        await cluster.client.delete(POD, "p", cluster.namespace, grace_seconds=grace)
        seen.append((await cluster.read(POD, "p"))["metadata"]["deletionGracePeriodSeconds"])
    assert seen == [20, 10, 10]
    await cluster.client.delete(POD, "p", cluster.namespace, grace_seconds=0)


async def a_pod_that_is_over_is_gone_at_once(cluster: Cluster) -> None:
    await cluster.create_pod(node="n1")
    await cluster.client.patch(POD, "p", cluster.namespace, {"status": {"phase": "Succeeded"}}, subresource="status")
    await cluster.client.delete(POD, "p", cluster.namespace)
    assert await cluster.is_gone(POD, "p")


async def an_evicted_pod_is_deleted(cluster: Cluster) -> None:
    await cluster.create_pod()
    await cluster.client.create(POD, _eviction(cluster), subresource="eviction")
    assert await cluster.is_gone(POD, "p")


async def a_budget_keeps_a_pod_from_eviction(cluster: Cluster) -> None:
    await cluster.create_pod(labels={"app": "x"}, node="n1")
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await cluster.client.patch(POD, "p", cluster.namespace, {"status": ready}, subresource="status")
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
    made = await cluster.client.create(BUDGET, manifests.manifest(BUDGET, "b", cluster.namespace, spec=spec))
    status = {
        "observedGeneration": made["metadata"]["generation"],
        "disruptionsAllowed": 0,
        "currentHealthy": 1,
        "desiredHealthy": 1,
        "expectedPods": 1,
    }
    await cluster.client.patch(BUDGET, "b", cluster.namespace, {"status": status}, subresource="status")
    request = cluster.client.create(POD, _eviction(cluster), subresource="eviction")
    assert (await refusal(request))[:2] == (TooManyRequestsError, "TooManyRequests")
    assert not await cluster.is_gone(POD, "p")
    await cluster.client.delete(POD, "p", cluster.namespace, grace_seconds=0)


def _eviction(cluster: Cluster) -> dict[str, object]:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": cluster.namespace}}


async def a_namespace_that_is_being_deleted_takes_nothing_new(cluster: Cluster) -> None:
    await cluster.create(CONFIG_MAP, cluster.config_map(), finalizers=[FINALIZER])
    await cluster.client.delete(kinds.NAMESPACE, cluster.namespace)
    namespace = await cluster.client.get(kinds.NAMESPACE, cluster.namespace)
    assert namespace["status"]["phase"] == "Terminating"
    assert "deletionTimestamp" in namespace["metadata"]
    found = await refusal(cluster.client.create(CONFIG_MAP, cluster.config_map("b")))
    assert found == (ForbiddenError, "Forbidden", ["metadata.namespace"])
    await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, {"data": {"x": "1"}})
    body = {"metadata": {"finalizers": None}}
    await cluster.client.patch(CONFIG_MAP, "a", cluster.namespace, body)
