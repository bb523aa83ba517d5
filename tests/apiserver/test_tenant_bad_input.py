"""What is wrong with a tenant: refused or held with a reason, nothing that serves is lost, and nobody else notices."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.plan.tenancy.isolation_test_run import read_run as run_of
from r1plus_operator.plan.tenancy.network_policies import CALLERS, DEFAULT_DENY
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ForbiddenError
from support.apiserver.isolation_runs import start_decoy
from support.apiserver.manifests import CONTEXT, Json, manifest, tenant_namespace
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import administrator, until_refused
from support.apiserver.rights import grant_operator
from support.apiserver.server import add_node
from support.apiserver.tenant import Tenant, new_tenant
from support.waiting import eventually

pytestmark = pytest.mark.apiserver

JOB, CLAIM = (kinds.BY_KIND[kind] for kind in ("Job", "PersistentVolumeClaim"))
UNSIGNED = {"R1PLUS_DELIVERY_REQUIRE_SIGNATURE": "false"}
DECOY = "decoy-of-bad-input"
OVER_QUOTA = "exceeded quota: r1plus-tenant"


@pytest.fixture(scope="module")
def operator_settings(server: ApiServer) -> dict[str, str]:
    """With a decoy, whose namespace is there before the operator starts; engines need no signature."""
    with administrator(server) as admin:
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(DECOY))
    return {**UNSIGNED, "R1PLUS_DECOY_NAMESPACE": DECOY}


async def test_a_label_removed_in_mid_rollout_stops_the_rollout_and_nothing_else(
    operator: OperatorProcess, tenant: Tenant, neighbour: Tenant
) -> None:
    stable = await tenant.serve()
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048})
    candidate = await tenant.candidate("credit")
    await tenant.run_pod(candidate, ready=False)
    policies = {name: await tenant.present("NetworkPolicy", name) for name in ("credit", DEFAULT_DENY, CALLERS)}

    await tenant.label(names.LABEL_TENANT, None)
    said = await tenant.until("credit", "IsolationVerified", "False", "NamespaceNotTenant")
    assert f"{names.LABEL_TENANT}=true" in said
    await tenant.decide(candidate, Verdict.PASS)
    await neighbour.serve()

    assert await tenant.selected() == stable, "a candidate that has passed meanwhile takes no traffic"
    assert (await tenant.condition("credit", "Ready"))[:2] == ("True", "Serving")
    for name, before in policies.items():
        now = await tenant.present("NetworkPolicy", name)
        assert (now["metadata"]["uid"], now["spec"]) == (before["metadata"]["uid"], before["spec"])

    await tenant.label(names.LABEL_TENANT, "true")
    again = await tenant.candidate("credit")
    assert again == candidate
    pod = await tenant.run_pod(candidate, ready=False)
    await tenant.decide(candidate, Verdict.PASS)
    await tenant.set_ready(pod, ready=True)
    await tenant.switched(candidate)


@pytest.fixture
async def governed(installed_server: ApiServer, tmp_path: Path) -> AsyncIterator[tuple[Tenant, Tenant]]:
    """Two tenants on a server whose quotas are counted and whose policies are in force, with an operator."""
    process = OperatorProcess(installed_server, tmp_path / "operator.log", **UNSIGNED)
    async with ApiClient.from_kubeconfig(installed_server.kubeconfig) as admin, AsyncExitStack() as stack:
        await grant_operator(admin)
        await add_node(admin)
        stack.callback(process.kill)
        process.start()
        first, second = [await stack.enter_async_context(new_tenant(admin)) for _ in range(2)]
        yield first, second


async def allow(tenant: Tenant, **quota: object) -> None:
    """What the platform team lets a tenant have, counted by the quota controller."""
    await tenant.allow(quota=quota)

    def is_counted(it: Json) -> bool:
        named, counted = it["spec"].get("hard", {}), it.get("status", {})
        asked = str(quota["pods"])
        return (
            named.get("pods") == asked
            and counted.get("hard") == named
            and counted.get("used", {}).keys() == named.keys()
        )

    await tenant.child_that("ResourceQuota", "r1plus-tenant", is_counted, "the quota is counted")


async def deploy_when_allowed(tenant: Tenant, name: str) -> None:
    """Deploy as soon as the API server's admission has seen the larger quota; raise any other refusal at once.

    Admission reads its own copy of the quota, which may be older than the one that a client reads.
    """

    async def is_admitted() -> bool:
        try:
            await tenant.deploy(name, tier="full", context=CONTEXT)
        except ForbiddenError as refused:
            if OVER_QUOTA in str(refused):
                return False
            raise
        return True

    await eventually(is_admitted, "the API server's admission has seen the larger quota")


def is_over_quota(cr: Json) -> bool:
    told = [(one["reason"], one["message"]) for one in cr.get("status", {}).get("conditions", ())]
    return any(reason == "QuotaExceeded" and OVER_QUOTA in message for reason, message in told)


async def test_a_tenant_without_quota_left_is_told_and_another_is_not_affected(
    installed_server: ApiServer, governed: tuple[Tenant, Tenant]
) -> None:
    poor, rich = governed
    # Admission charges nothing to a quota that it has not seen yet: it must refuse before it may admit.
    await allow(poor, deployments=0, pods=0)
    wanted = manifest(kinds.R1PLUS_DEPLOYMENT, "credit", poor.namespace, spec={"tier": "full", "context": CONTEXT})
    await asyncio.to_thread(until_refused, installed_server, wanted, poor.namespace, OVER_QUOTA)
    await allow(poor, deployments=1, pods=0)
    await deploy_when_allowed(poor, "credit")
    revision = await poor.candidate("credit")
    await poor.child_that(names.KIND_DEPLOYMENT, "credit", is_over_quota, "a condition says that the quota is used up")
    # A recount misses what is charged and not stored yet, until the next one: every 5 s.
    second = manifest(kinds.R1PLUS_DEPLOYMENT, "second", poor.namespace, spec={"tier": "full", "context": CONTEXT})
    await asyncio.to_thread(until_refused, installed_server, second, poor.namespace, OVER_QUOTA)
    with pytest.raises(ForbiddenError, match=OVER_QUOTA):
        await poor.deploy("second", tier="full", context=CONTEXT)
    assert await poor.listed("Pod") == []

    await rich.deploy("credit", tier="full", context=CONTEXT)
    await rich.present("Deployment", await rich.candidate("credit"))
    await eventually(lambda: rich.listed("Pod", names.LABEL_REVISION), "the other tenant's pod is made")
    await allow(poor, deployments=1, pods=4)
    selector = f"{names.LABEL_REVISION}={revision}"
    # The ReplicaSet controller waits twice as long after each refusal.
    await eventually(lambda: poor.listed("Pod", selector), "with quota again the pod is made", seconds=600)


@pytest.mark.parametrize(
    "is_asked_for_again",
    [
        pytest.param(True, id="when another deployment asks for it"),
        pytest.param(False, id="by itself within a minute", marks=pytest.mark.apiserver_long),
    ],
)
async def test_a_claim_that_somebody_made_beforehand_is_not_taken_over(
    governed: tuple[Tenant, Tenant], is_asked_for_again: bool
) -> None:
    """Whoever knows an engine knows its volume's name, and could lay another engine there before the operator comes."""
    first, second = governed
    spec: Json = {"tier": "full", "context": CONTEXT, "delivery": {"mode": "Volume"}}
    await first.deploy("credit", **spec)
    volume = read_revision(await first.present("ControllerRevision", await first.candidate("credit"))).volume
    assert volume is not None
    size = {"requests": {"storage": "1Gi"}}
    claimed = {"accessModes": ["ReadWriteOnce"], "volumeName": "bound-elsewhere", "resources": size}
    before = await second.client.create(CLAIM, manifest(CLAIM, volume.name, second.namespace, spec=claimed))
    await second.deploy("credit", **spec)
    said = await second.until("credit", "EngineReady", "False", "DeliveryFailed")
    assert "is not the operator's" in said
    now = await second.present("PersistentVolumeClaim", volume.name)
    assert (now["metadata"]["uid"], now["spec"]["volumeName"]) == (before["metadata"]["uid"], "bound-elsewhere")
    assert "ownerReferences" not in now["metadata"]
    assert await second.child("Job", volume.name) is None
    await first.present("Job", volume.name)
    await second.client.delete(CLAIM, volume.name, second.namespace)
    if is_asked_for_again:

        async def is_gone() -> bool:
            found = await second.child("PersistentVolumeClaim", volume.name)
            return found is None or found["metadata"]["uid"] != before["metadata"]["uid"]

        await eventually(is_gone, "the claim is gone: it is protected until a controller has looked at it")
        await second.deploy("triage", **spec)
    await second.present("Job", volume.name)


async def test_two_namespaces_of_63_characters_that_differ_in_the_last_are_two_tenants(
    client: ApiClient, operator: OperatorProcess
) -> None:
    """Nothing of either is named after a shortened name.

    Not the walls, not the prober's Jobs in the decoy's namespace.
    """
    stem = f"t-long-{uuid.uuid4().hex}"
    async with new_tenant(client, f"{stem:x<62}a") as first, new_tenant(client, f"{stem:x<62}b") as other:
        assert [len(one.namespace) for one in (first, other)] == [63, 63]
        for one in (first, other):
            await one.serve()
        await start_decoy(Tenant(client, DECOY, first.monitors))
        runs = await controls(client, {first.namespace, other.namespace})
        assert len({name for of in runs.values() for name in of}) == sum(len(of) for of in runs.values())
        await client.delete(kinds.R1PLUS_DEPLOYMENT, "credit", first.namespace)
        await first.label(names.LABEL_TENANT, None)
        for name in (DEFAULT_DENY, CALLERS, "credit"):
            await other.present("NetworkPolicy", name)
        assert await other.selected()


async def controls(client: ApiClient, tenants: set[str]) -> dict[str, set[str]]:
    """Tenant -> names of the Jobs in the decoy's namespace that are of it, once each of these has some."""
    found: dict[str, set[str]] = {}

    async def are_there() -> bool:
        for job in (await client.list(JOB, DECOY))[0]:
            run = run_of(job)
            if run is not None and run.namespace in tenants:
                found.setdefault(run.namespace, set()).add(job["metadata"]["name"])
        return len(found) == len(tenants)

    await eventually(are_there, f"{' and '.join(sorted(tenants))} are probed")
    return found
