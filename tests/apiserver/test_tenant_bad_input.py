"""What is wrong with a tenant: refused or held with a reason, nothing that serves is lost, and nobody else notices."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apiserver.conftest import RESTRICTED
from apiserver.operator_rig import NAMESPACES, Monitors, OperatorProcess, Tenant, add_node, eventually, grant
from apiserver.test_admission_policies import policed
from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.plan.probing import read as run_of
from r1plus_operator.plan.revision import read
from r1plus_operator.plan.walls import CALLERS, DEFAULT_DENY
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ForbiddenError

pytestmark = pytest.mark.apiserver

__all__ = ["policed"]
Json = dict[str, Any]
CONTEXT: Json = {"maxTokens": 1024}
JOB, CLAIM, DEPLOYMENT = (kinds.BY_KIND[kind] for kind in ("Job", "PersistentVolumeClaim", "Deployment"))
UNSIGNED = {"R1PLUS_DELIVERY_REQUIRE_SIGNATURE": "false"}


async def make_tenant(client: ApiClient, name: str) -> Tenant:
    """Another namespace that the platform team has made a tenant."""
    meta = {"name": name, "labels": RESTRICTED}
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    monitors = Monitors()
    await monitors.start()
    return Tenant(client, name, monitors)


@pytest.fixture
async def neighbour(client: ApiClient) -> AsyncIterator[Tenant]:
    """Who must not notice anything."""
    made = await make_tenant(client, f"n-{uuid.uuid4().hex[:10]}")
    yield made
    await made.monitors.stop()


@pytest.fixture
async def operator(apiserver: ApiServer, client: ApiClient, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    await grant(client)
    await add_node(client)
    process = OperatorProcess(apiserver, tmp_path / "operator.log", **UNSIGNED)
    process.start()
    yield process
    process.kill()


async def label(client: ApiClient, namespace: str, value: str | None) -> None:
    """As the platform team does."""
    await client.patch(NAMESPACES, namespace, None, {"metadata": {"labels": {names.LABEL_TENANT: value}}})


async def serves(tenant: Tenant, name: str = "credit") -> str:
    """The revision that traffic goes to."""
    service = await tenant.present("Service", name)
    return str(service["spec"]["selector"][names.LABEL_REVISION])


async def test_a_label_removed_in_mid_rollout_stops_the_rollout_and_nothing_else(
    operator: OperatorProcess, tenant: Tenant, neighbour: Tenant, client: ApiClient
) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    stable = await tenant.bring_up("credit")
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048})
    candidate = await tenant.candidate("credit")
    await tenant.run_pod(candidate, ready=False)
    walls = {name: await tenant.present("NetworkPolicy", name) for name in ("credit", DEFAULT_DENY, CALLERS)}

    await label(client, tenant.namespace, None)
    said = await tenant.until("credit", "IsolationVerified", "False", "NamespaceNotTenant")
    assert f"{names.LABEL_TENANT}=true" in said
    await tenant.decide(candidate, Verdict.PASS)
    await neighbour.deploy("credit", tier="full", context=CONTEXT)
    await neighbour.bring_up("credit")

    assert await serves(tenant) == stable, "a candidate that has passed meanwhile takes no traffic"
    assert (await tenant.condition("credit", "Ready"))[:2] == ("True", "Serving")
    for name, before in walls.items():
        now = await tenant.present("NetworkPolicy", name)
        assert (now["metadata"]["uid"], now["spec"]) == (before["metadata"]["uid"], before["spec"])

    await label(client, tenant.namespace, "true")
    again = await tenant.candidate("credit")
    assert again == candidate
    pod = await tenant.run_pod(candidate, ready=False)
    await tenant.decide(candidate, Verdict.PASS)
    await tenant.set_ready(pod, ready=True)

    async def moved() -> bool:
        return await serves(tenant) == candidate

    await eventually(moved, "the rollout goes on where it stopped")


@pytest.fixture
async def governed(apiserver_with_controllers: ApiServer, tmp_path: Path) -> AsyncIterator[tuple[Tenant, Tenant]]:
    """Two tenants on a server whose quotas are counted, with an operator."""
    async with ApiClient.from_kubeconfig(apiserver_with_controllers.kubeconfig) as admin:
        await grant(admin)
        await add_node(admin)
        process = OperatorProcess(apiserver_with_controllers, tmp_path / "operator.log", **UNSIGNED)
        process.start()
        both = [await make_tenant(admin, f"q-{uuid.uuid4().hex[:10]}") for _ in range(2)]
        yield both[0], both[1]
        process.kill()
        for one in both:
            await one.monitors.stop()


async def allow(tenant: Tenant, **quota: object) -> None:
    """What the platform team lets a tenant have, in force."""
    cr = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_TENANT,
        "metadata": {"name": names.TENANT, "namespace": tenant.namespace},
        "spec": {"quota": quota},
    }
    await tenant.client.apply(kinds.R1PLUS_TENANT, cr, field_manager="platform")

    async def counted() -> bool:
        found = await tenant.child("ResourceQuota", "r1plus-tenant")
        return found is not None and bool(found.get("status", {}).get("hard"))

    await eventually(counted, "the quota is counted")


async def test_a_tenant_without_quota_left_is_told_and_another_is_not_affected(
    governed: tuple[Tenant, Tenant],
) -> None:
    poor, rich = governed
    await allow(poor, deployments=1, pods=0)
    await poor.deploy("credit", tier="full", context=CONTEXT)
    revision = await poor.candidate("credit")

    async def refused() -> bool:
        conditions = (await poor.cr("credit")).get("status", {}).get("conditions", [])
        return any(
            c["reason"] == "QuotaExceeded" and "exceeded quota: r1plus-tenant" in c["message"] for c in conditions
        )

    await eventually(refused, "a condition says that the quota is used up")
    with pytest.raises(ForbiddenError, match="exceeded quota: r1plus-tenant"):
        await poor.deploy("second", tier="full", context=CONTEXT)
    pods, _ = await poor.client.list(kinds.POD, poor.namespace)
    assert pods == []

    await rich.deploy("credit", tier="full", context=CONTEXT)
    await rich.present("Deployment", await rich.candidate("credit"))

    async def started() -> bool:
        found, _ = await rich.client.list(kinds.POD, rich.namespace, label_selector=names.LABEL_REVISION)
        return bool(found)

    await eventually(started, "the other tenant's pod is made")
    await allow(poor, deployments=1, pods=4)

    async def made() -> bool:
        found, _ = await poor.client.list(
            kinds.POD, poor.namespace, label_selector=f"{names.LABEL_REVISION}={revision}"
        )
        return bool(found)

    await eventually(made, "with quota again the pod is made")


async def test_a_claim_that_somebody_made_beforehand_is_not_taken_over(policed: ApiServer, tmp_path: Path) -> None:
    """Whoever knows an engine knows its volume's name, and could lay another engine there before the operator comes."""
    spec: Json = {"tier": "full", "context": CONTEXT, "delivery": {"mode": "Volume"}}
    async with ApiClient.from_kubeconfig(policed.kubeconfig) as admin:
        await grant(admin)
        await add_node(admin)
        first, second = [await make_tenant(admin, f"c-{uuid.uuid4().hex[:10]}") for _ in range(2)]
        process = OperatorProcess(policed, tmp_path / "operator.log", **UNSIGNED)
        process.start()
        try:
            await first.deploy("credit", **spec)
            volume = read(await first.present("ControllerRevision", await first.candidate("credit"))).volume
            assert volume is not None
            foreign = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": volume.name, "namespace": second.namespace},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "volumeName": "bound-elsewhere",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }
            before = await admin.create(CLAIM, foreign)
            await second.deploy("credit", **spec)
            said = await second.until("credit", "EngineReady", "False", "DeliveryFailed")
            assert "somebody else made it" in said
            now = await second.present("PersistentVolumeClaim", volume.name)
            assert (now["metadata"]["uid"], now["spec"]["volumeName"]) == (before["metadata"]["uid"], "bound-elsewhere")
            assert "ownerReferences" not in now["metadata"]
            assert await second.child("Job", volume.name) is None
            await first.present("Job", volume.name)
            await admin.delete(CLAIM, volume.name, second.namespace)
            await second.present("Job", volume.name)
        finally:
            process.kill()
            for one in (first, second):
                await one.monitors.stop()


async def test_two_namespaces_of_63_characters_that_differ_in_the_last_are_two_tenants(
    apiserver: ApiServer, client: ApiClient, tmp_path: Path
) -> None:
    """Nothing of either is named after a shortened name: not the walls, not the prober's Jobs in the decoy's namespace."""
    stem = f"long-{uuid.uuid4().hex}"
    both = [await make_tenant(client, f"{stem:x<62}{last}") for last in "ab"]
    assert [len(one.namespace) for one in both] == [63, 63]
    decoy = f"decoy-{uuid.uuid4().hex[:8]}"
    await client.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": decoy, "labels": RESTRICTED}}
    )
    await grant(client)
    await add_node(client)
    process = OperatorProcess(apiserver, tmp_path / "operator.log", R1PLUS_DECOY_NAMESPACE=decoy)
    process.start()
    try:
        for one in both:
            await one.deploy("credit", tier="full", context=CONTEXT)
            await one.bring_up("credit")
        await stand(Tenant(client, decoy, both[0].monitors))
        runs = await controls(client, decoy, [one.namespace for one in both])
        assert len({name for of in runs.values() for name in of}) == sum(len(of) for of in runs.values())
        await client.delete(kinds.R1PLUS_DEPLOYMENT, "credit", both[0].namespace)
        await label(client, both[0].namespace, None)
        for name in (DEFAULT_DENY, CALLERS, "credit"):
            await both[1].present("NetworkPolicy", name)
        assert await serves(both[1])
    finally:
        process.kill()
        for one in both:
            await one.monitors.stop()


async def stand(decoy: Tenant) -> None:
    """What controllers and a kubelet would write: the decoy's pod is Ready."""
    made = await decoy.present("Deployment", names.DECOY)
    status = {
        "observedGeneration": made["metadata"]["generation"],
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
    }
    await decoy.client.patch(DEPLOYMENT, names.DECOY, decoy.namespace, {"status": status}, subresource="status")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": decoy.namespace},
    }
    await decoy.client.apply(kinds.BY_KIND["ServiceAccount"], account, field_manager="kubelet")
    template = made["spec"]["template"]
    meta = {**template["metadata"], "name": f"{names.DECOY}-x", "namespace": decoy.namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
    await decoy.client.apply(kinds.POD, pod, field_manager="kubelet")
    await decoy.set_ready(f"{names.DECOY}-x", ready=True)


async def controls(client: ApiClient, decoy: str, tenants: list[str]) -> dict[str, set[str]]:
    """Tenant -> names of the Jobs in the decoy's namespace that are of it, once each of these has some."""
    found: dict[str, set[str]] = {}

    async def there() -> bool:
        jobs, _ = await client.list(JOB, decoy)
        for job in jobs:
            run = run_of(job)
            if run is not None and run.namespace in tenants:
                found.setdefault(run.namespace, set()).add(job["metadata"]["name"])
        return len(found) == len(tenants)

    await eventually(there, f"{' and '.join(tenants)} are probed")
    return found
