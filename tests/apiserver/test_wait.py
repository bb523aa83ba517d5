"""`r1plus wait` on a real API server: it hears of an object that comes later, of each status, and of its deletion."""

import asyncio
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster
from r1plus_cli.promotion.outcome import PromotionOutcome, PromotionResult
from r1plus_cli.promotion.wait import WaitClock, wait_for_promotion
from r1plus_operator.api import kinds
from support.apiserver.manifests import manifest
from support.apiserver.tenant import Tenant
from support.cli.deployments import condition
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
COMPLETE = condition("Progressing", "False", "Complete", "Revision credit-a takes traffic")
READY = condition("Ready", "True", "Serving")
GATED = (condition("Progressing", "True", "RollingOut", "it is gated"), condition("Reconciling", "True", "RollingOut"))


async def write_status(tenant: Tenant, *conditions: dict[str, Any], generation: int) -> None:
    status = {"observedGeneration": generation, "conditions": list(conditions)}
    body = manifest(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace, status=status)
    await tenant.client.apply(kinds.R1PLUS_DEPLOYMENT, body, field_manager="test", subresource="status")


async def test_a_wait_follows_one_object_from_before_it_exists(apiserver: ApiServer, tenant: Tenant) -> None:
    cluster, lines = KubernetesCluster(str(apiserver.kubeconfig)), list[str]()

    def wait() -> PromotionOutcome:
        return wait_for_promotion(cluster, tenant.namespace, "credit", 100.0, lines.append, WaitClock())

    async def until(text: str) -> None:
        await eventually(lambda: any(text in line for line in lines), text)

    first = asyncio.create_task(asyncio.to_thread(wait))
    await until("does not exist yet")
    await tenant.deploy("other", tier="full")
    await tenant.deploy("credit", tier="full")
    await until("has not processed it yet")
    await write_status(tenant, READY, *GATED, generation=1)
    await until("RollingOut")
    await write_status(tenant, READY, COMPLETE, generation=1)
    assert (await first).result is PromotionResult.PROMOTED
    assert not any("other" in line for line in lines)

    lines.clear()
    await tenant.deploy("credit", tier="full", replicas=2)
    second = asyncio.create_task(asyncio.to_thread(wait))
    await until("has not processed the newest spec yet")
    await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace)
    assert (await second).result is PromotionResult.DELETED
