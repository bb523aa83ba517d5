"""What tenants can make without end, and what they can answer: the operator's process stays within its bounds."""

import asyncio
import uuid

import pytest

from r1plus_contract import names
from r1plus_contract.requests import Verb
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import MARK, SERVICE_ACCOUNT, manifest, pod, r1plus_deployment, tenant_namespace
from support.apiserver.memory import MEMORY_LIMIT, peak_bytes
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant
from support.waiting import eventually

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


ANNOTATIONS = 250 * 1024
"""Bytes that the API server lets an object's annotations have, nearly."""


async def make_deployments(client: ApiClient, namespace: str, count: int, **annotations: str) -> None:
    """Make deployments that nothing is made for, since the golden suite that they name is not there."""
    turns = asyncio.Semaphore(8)

    async def make(number: int) -> None:
        async with turns:
            body = r1plus_deployment(f"noise-{number}", namespace, accuracy={"suite": "none"})
            body["metadata"]["annotations"] = annotations
            await client.create(kinds.R1PLUS_DEPLOYMENT, body)

    await asyncio.gather(*(make(number) for number in range(count)))


async def remove(client: ApiClient, namespace: str) -> None:
    """Delete what was made in a namespace, so that no later test lists it."""
    for kind in (kinds.R1PLUS_DEPLOYMENT, kinds.POD):
        async for items, _ in client.pages(kind, namespace, metadata_only=True):
            await asyncio.gather(*(client.delete(kind, item["metadata"]["name"], namespace) for item in items))


@pytest.mark.parametrize(
    ("deployments", "pods", "small_pods"),
    [
        pytest.param(200, 200, 0, id="200 of both"),
        pytest.param(2000, 500, 4500, id="2000 deployments and 5000 pods", marks=pytest.mark.apiserver_long),
    ],
)
async def test_finding_02_large_annotations_do_not_stop_the_operator(
    operator: OperatorProcess, client: ApiClient, tenant: Tenant, deployments: int, pods: int, small_pods: int
) -> None:
    noisy, text = await noisy_namespace(client), "x" * ANNOTATIONS
    half = (deployments // 2, pods // 2)
    await make_deployments(client, noisy, half[0], **{Verb.ACK.annotation: text})
    elsewhere = await noisy_namespace(client)
    await make_deployments(client, elsewhere, deployments - half[0], **{"example.com/text": text})
    await make_pods(client, noisy, half[1], **{names.ANNOTATION_OWNER_UID: text})
    await make_pods(client, elsewhere, pods - half[1], **{"example.com/text": text})
    plain = await noisy_namespace(client, is_tenant=False)
    await make_pods(client, plain, small_pods)
    for number in range(2):
        operator.restart()
        await eventually(operator.leads, "the operator leads")
        pid = operator.pid
        await tenant.deploy(f"credit-{number}", tier="full")
        await tenant.candidate(f"credit-{number}")
        print(f"held at most {peak_bytes(operator.pid) / 2**20:.0f} MiB")
        assert peak_bytes(operator.pid) < 0.6 * MEMORY_LIMIT
        assert (await operator.leads(), operator.pid) == (True, pid)
    for namespace in (noisy, elsewhere, plain):
        await remove(client, namespace)
