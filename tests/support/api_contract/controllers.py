"""Behaviours of what Kubernetes' controllers add: garbage collection, namespaces that go, quotas."""

from typing import Any

from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ForbiddenError
from support.api_contract.cluster import CONFIG_MAP, FINALIZER, POD, Cluster, Object, refusal
from support.apiserver import manifests
from support.apiserver.child_bodies import CLAIM_SPEC
from support.waiting import eventually

CLAIM = kinds.BY_KIND["PersistentVolumeClaim"]
QUOTA = kinds.BY_KIND["ResourceQuota"]


def _refer(owner: Object, **more: Any) -> Object:
    head = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"]}
    return {**head, "uid": owner["metadata"]["uid"], **more}


async def _await_gone(cluster: Cluster, name: str) -> None:
    async def is_gone() -> bool:
        return await cluster.is_gone(CONFIG_MAP, name)

    await eventually(is_gone, f"ConfigMap {name} is gone")


async def children_go_after_their_owner(cluster: Cluster) -> None:
    owner = await cluster.client.create(CONFIG_MAP, cluster.config_map("owner"))
    await cluster.create(CONFIG_MAP, cluster.config_map("child"), ownerReferences=[_refer(owner)])
    await cluster.client.delete(CONFIG_MAP, "owner", cluster.namespace)
    assert await cluster.is_gone(CONFIG_MAP, "owner")
    await _await_gone(cluster, "child")


async def a_child_of_an_owner_that_never_was_goes(cluster: Cluster) -> None:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "no", "uid": "11111111-1111-4111-8111-111111111111"}
    await cluster.create(CONFIG_MAP, cluster.config_map("child"), ownerReferences=[reference])
    await _await_gone(cluster, "child")


async def a_child_stays_while_one_owner_is_there(cluster: Cluster) -> None:
    owners = [await cluster.client.create(CONFIG_MAP, cluster.config_map(name)) for name in ("one", "two")]
    references = [_refer(owner) for owner in owners]
    await cluster.create(CONFIG_MAP, cluster.config_map("shared"), ownerReferences=references)
    await cluster.create(CONFIG_MAP, cluster.config_map("single"), ownerReferences=references[:1])
    await cluster.client.delete(CONFIG_MAP, "one", cluster.namespace)
    await _await_gone(cluster, "single")
    assert not await cluster.is_gone(CONFIG_MAP, "shared")


async def an_owner_in_the_foreground_goes_last(cluster: Cluster) -> None:
    owner = await cluster.client.create(CONFIG_MAP, cluster.config_map("owner"))
    reference = _refer(owner, blockOwnerDeletion=True, controller=True)
    await cluster.create(CONFIG_MAP, cluster.config_map("child"), ownerReferences=[reference], finalizers=[FINALIZER])
    await cluster.client.delete(CONFIG_MAP, "owner", cluster.namespace, propagation="Foreground")

    async def is_marked() -> bool:
        return "deletionTimestamp" in (await cluster.read(CONFIG_MAP, "child"))["metadata"]

    await eventually(is_marked, "the child is being deleted")
    assert "foregroundDeletion" in (await cluster.read(CONFIG_MAP, "owner"))["metadata"]["finalizers"]
    await cluster.client.patch(CONFIG_MAP, "child", cluster.namespace, {"metadata": {"finalizers": None}})
    await _await_gone(cluster, "owner")
    assert await cluster.is_gone(CONFIG_MAP, "child")


async def an_orphan_stays_without_its_owner(cluster: Cluster) -> None:
    owner = await cluster.client.create(CONFIG_MAP, cluster.config_map("owner"))
    await cluster.create(CONFIG_MAP, cluster.config_map("child"), ownerReferences=[_refer(owner)])
    # The garbage collector has seen the child once it has taken another one of the same owner's.
    await cluster.client.delete(CONFIG_MAP, "owner", cluster.namespace, propagation="Orphan")
    await _await_gone(cluster, "owner")
    assert "ownerReferences" not in (await cluster.read(CONFIG_MAP, "child"))["metadata"]


async def a_namespace_goes_after_its_content(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    await cluster.create(CONFIG_MAP, cluster.config_map("held"), finalizers=[FINALIZER])
    await cluster.client.delete(kinds.NAMESPACE, cluster.namespace)
    await _await_gone(cluster, "a")
    assert not await cluster.is_gone(kinds.NAMESPACE, cluster.namespace)
    await cluster.client.patch(CONFIG_MAP, "held", cluster.namespace, {"metadata": {"finalizers": None}})

    async def is_gone() -> bool:
        return await cluster.is_gone(kinds.NAMESPACE, cluster.namespace)

    await eventually(is_gone, "the namespace is gone")


async def a_claim_stays_while_a_pod_on_a_node_mounts_it(cluster: Cluster) -> None:
    """A pod that waits for a node protects nothing."""
    await cluster.client.create(CLAIM, manifests.manifest(CLAIM, "c", cluster.namespace, spec=CLAIM_SPEC))
    await cluster.create_pod(node="n", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}])
    await cluster.client.delete(CLAIM, "c", cluster.namespace)
    assert (await cluster.read(CLAIM, "c"))["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    await cluster.client.delete(POD, "p", cluster.namespace, grace_seconds=0)

    async def is_gone() -> bool:
        return await cluster.is_gone(CLAIM, "c")

    await eventually(is_gone, "the claim is gone")


async def a_full_quota_refuses(cluster: Cluster) -> None:
    hard = {"count/networkpolicies.networking.k8s.io": "0"}
    quota = manifests.manifest(QUOTA, "q", cluster.namespace, spec={"hard": hard})
    await cluster.client.create(QUOTA, quota)
    policy = manifests.manifest(kinds.BY_KIND["NetworkPolicy"], "p", cluster.namespace, spec={"podSelector": {}})

    async def is_refused() -> bool:
        """Admission charges nothing to a quota that it has not seen yet: what it let in goes again."""
        try:
            await cluster.client.create(kinds.BY_KIND["NetworkPolicy"], policy)
        except ForbiddenError:
            return True
        await cluster.client.delete(kinds.BY_KIND["NetworkPolicy"], "p", cluster.namespace)
        return False

    await eventually(is_refused, "the quota counts")
    error, reason, _ = await refusal(cluster.client.create(kinds.BY_KIND["NetworkPolicy"], policy))
    assert (error, reason) == (ForbiddenError, "Forbidden")
