"""What tenants can make without end, and what they can answer: the operator's process stays within its bounds."""

import asyncio
import uuid

import pytest

from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import MARK, SERVICE_ACCOUNT, manifest, pod, tenant_namespace
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant

pytestmark = pytest.mark.apiserver


async def noisy_namespace(client: ApiClient, *, is_tenant: bool = True) -> str:
    """Make a namespace of somebody who wants the operator to stop; return its name."""
    body = tenant_namespace(f"noisy-{uuid.uuid4().hex[:10]}")
    if not is_tenant:
        del body["metadata"]["labels"]
    await client.create(kinds.NAMESPACE, body)
    return str(body["metadata"]["name"])


async def make_pods(client: ApiClient, namespace: str, count: int, ip: str = "", **annotations: str) -> None:
    """Make pods with the operator's mark, running at this address."""
    account = manifest(SERVICE_ACCOUNT, "default", namespace)
    await client.apply(SERVICE_ACCOUNT, account, field_manager="kubelet")
    turns = asyncio.Semaphore(8)

    async def make(number: int) -> None:
        async with turns:
            body = pod(f"pod-{number}", namespace, MARK)
            body["metadata"]["annotations"] = annotations
            await client.create(kinds.POD, body)
            if ip:
                patch = {"status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"}}
                await client.patch(kinds.POD, f"pod-{number}", namespace, patch, subresource="status")

    await asyncio.gather(*(make(number) for number in range(count)))


@pytest.mark.parametrize("is_tenant", [False, True], ids=["in a namespace that is no tenant", "in a tenant"])
async def test_finding_22_pods_with_the_operators_mark_are_not_contacted(
    operator: OperatorProcess, client: ApiClient, tenant: Tenant, second: Monitors, is_tenant: bool
) -> None:
    await make_pods(client, await noisy_namespace(client, is_tenant=is_tenant), 120, second.address)
    await tenant.serve()
    for _ in range(3):
        await tenant.monitors.is_asked_again()
    assert second.asked == []
