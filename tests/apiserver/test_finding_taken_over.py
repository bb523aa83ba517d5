"""A Service that somebody made as the R1PlusDeployment's own: the operator takes it over without what it brought along."""

import pytest

from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.manifests import manifest
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant

pytestmark = pytest.mark.apiserver


async def test_finding_44_a_service_that_is_taken_over_leads_to_ready_pods_only(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1024}, rollout={"paused": True})
    meta = (await tenant.cr("credit"))["metadata"]
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "name": "credit", "uid": meta["uid"]}
    spec = {"publishNotReadyAddresses": True, "selector": {"app": "mine"}, "ports": [{"name": "http", "port": 8000}]}
    body = manifest(kinds.BY_KIND["Service"], "credit", tenant.namespace, spec=spec)
    body["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    await tenant.client.create(kinds.BY_KIND["Service"], body)
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1024}, rollout={"paused": False})
    revision = await tenant.bring_up("credit")
    await tenant.switched(revision)
    await tenant.child_that(
        "Service",
        "credit",
        lambda service: not service["spec"].get("publishNotReadyAddresses"),
        "the Service leads to pods that are Ready",
    )
