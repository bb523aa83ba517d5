"""An R1PlusDeployment that is deleted, and that a finalizer keeps: nothing of it serves on, unwatched."""

import pytest

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.conditions import ConditionType
from support.apiserver.manifests import pod_template
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant, apply_pod_as_default
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
HOLDER = "example.com/holds-it"


async def hold(tenant: Tenant, name: str, propagation: str = "Background") -> None:
    """Let a finalizer keep a CR, and delete it."""
    body = {"metadata": {"finalizers": [HOLDER]}}
    await tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace, body)
    await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace, propagation=propagation)


async def release(tenant: Tenant, name: str) -> None:
    await tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace, {"metadata": {"finalizers": None}})


async def test_a_deleted_deployment_serves_no_more_though_a_finalizer_keeps_it(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    revision = await tenant.serve("credit")
    await tenant.deploy("other", tier="full", context={"maxTokens": 1024})
    await tenant.present("NetworkPolicy", "other")
    await hold(tenant, "credit")
    assert HOLDER in await tenant.until("credit", ConditionType.READY, "False", "Deleting")
    for kind, name in (("Service", "credit"), ("Deployment", revision), ("NetworkPolicy", "credit")):
        await tenant.absent(kind, name)
    assert [one["type"] for one in (await tenant.cr("credit"))["status"]["conditions"]] == ["Ready"]
    assert await tenant.child("NetworkPolicy", "other"), "another deployment loses nothing"
    await release(tenant, "credit")


async def test_a_pod_in_quarantine_goes_with_its_deployment(operator: OperatorProcess, tenant: Tenant) -> None:
    """No ReplicaSet has it any more, so it would run on, with its GPU, for as long as the finalizer stays."""
    revision = await tenant.serve("credit")
    (old,) = [one for one in await tenant.listed("Pod") if one["metadata"]["name"].startswith(revision)]
    await hold(tenant, "credit")
    await tenant.until("credit", ConditionType.READY, "False", "Deleting")
    await tenant.absent("Deployment", revision)
    cr, meta = await tenant.cr("credit"), old["metadata"]
    for name, owners in (("ours", [cr]), ("left-behind", [])):
        labels = {**meta["labels"], names.LABEL_SERVING: names.QUARANTINED}
        metadata = {"labels": labels, "annotations": {**meta["annotations"], names.ANNOTATION_QUARANTINE: "x"}}
        template = {"metadata": metadata, "spec": pod_template({})["spec"]}
        await apply_pod_as_default(tenant.client, name, tenant.namespace, template)
        references = [
            {key: one[key] for key in ("apiVersion", "kind")} | {key: one["metadata"][key] for key in ("name", "uid")}
            for one in owners
        ]
        await tenant.client.patch(kinds.POD, name, tenant.namespace, {"metadata": {"ownerReferences": references}})
    await tenant.absent("Pod", "ours")
    assert await tenant.child("Pod", "left-behind")
    await release(tenant, "credit")


async def test_children_that_are_orphaned_on_purpose_stay(operator: OperatorProcess, tenant: Tenant) -> None:
    revision = await tenant.serve("credit")
    await hold(tenant, "credit", "Orphan")
    # A pass over a neighbour comes after the one over the deletion.
    await tenant.deploy("other", tier="full", context={"maxTokens": 1024})
    await tenant.present("NetworkPolicy", "other")
    assert operator.stop() == 0, "passes under way end first"
    assert await tenant.child("Deployment", revision)
    assert await tenant.child("Service", "credit")
    await release(tenant, "credit")


async def test_a_tenants_deletion_does_not_wait_for_what_only_a_finalizer_keeps(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.allow()
    await tenant.serve("credit")
    await hold(tenant, "credit")
    await tenant.client.delete(kinds.R1PLUS_TENANT, names.TENANT, tenant.namespace)

    async def is_gone() -> bool:
        return not (await tenant.client.list(kinds.R1PLUS_TENANT, tenant.namespace))[0]

    await eventually(is_gone, "the R1PlusTenant is gone")
    await release(tenant, "credit")
