"""Patched images reach what serves, by a gate and in waves.

The operator's process is started again with other images, as an upgrade of the chart does. Requests are written by the
command line, with a user's kubeconfig.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster
from r1plus_cli.rollout.actions import refresh_all, request_action
from r1plus_contract import metrics, names
from r1plus_contract.requests import Verb
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.plan.revision.record import Runtime
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import CONTEXT, Json, manifest
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant, new_tenant
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
NOW = datetime(2026, 11, 24, 17, 30, tzinfo=UTC)


def images(version: int) -> dict[str, str]:
    return {kind: f"registry.local/{part}:{version}" for kind, part in (
        ("R1PLUS_TRITON_IMAGE", "triton"), ("R1PLUS_MONITOR_IMAGE", "monitor"),
    )}  # fmt: skip


def runtime(version: int) -> Runtime:
    return Runtime(*images(version).values())


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    """One slot for the cluster."""
    return {"R1PLUS_MAX_CONCURRENT": "1", **images(1)}


@pytest.fixture
def cli(apiserver: ApiServer) -> KubernetesCluster:
    return KubernetesCluster(str(apiserver.kubeconfig))


async def upgrade(operator: OperatorProcess, version: int, **env: str) -> None:
    operator.upgrade(**images(version), **env)
    await eventually(operator.leads, "the operator leads")


async def until_runtime(tenant: Tenant, reason: str, name: str = "credit") -> str:
    """Wait until `status.runtime` has this reason; return its message."""
    seen: Json = {}

    async def holds() -> bool:
        nonlocal seen
        seen = (await tenant.cr(name)).get("status", {}).get("runtime", {})
        return seen.get("reason") == reason

    await eventually(holds, f"{tenant.namespace}/{name}: {reason}", evidence=lambda: f"It is {seen}")
    return str(seen["message"])


async def decide(tenant: Tenant, verdict: Verdict, serving: str) -> str:
    """Let the candidate's pod start and its gate end like this; return the candidate."""
    revision = await tenant.candidate("credit", other_than=serving)
    pod = await tenant.run_pod(revision, ready=False)
    await tenant.decide(revision, verdict, lost=0 if verdict is Verdict.PASS else 30)
    if verdict is Verdict.PASS:
        await tenant.set_ready(pod, ready=True)
        await tenant.switched(revision)
    else:
        await tenant.until("credit", "QualityVerified", "False", "GateFailed")
    return revision


async def deployments(tenant: Tenant) -> dict[str, tuple[Any, ...]]:
    """Return what identifies each Deployment, and what of it an upgrade must not touch."""
    found = await tenant.listed("Deployment", f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}")
    return {d["metadata"]["name"]: (d["metadata"]["uid"], d["metadata"]["generation"]) for d in found}


async def revision_of(tenant: Tenant, name: str) -> Any:
    return read_revision(await tenant.present("ControllerRevision", name))


async def test_patched_images_reach_what_serves_when_somebody_asks(
    operator: OperatorProcess, tenant: Tenant, cli: KubernetesCluster
) -> None:
    await upgrade(operator, 1)
    before = await tenant.serve()
    untouched = await deployments(tenant)
    await upgrade(operator, 2, R1PLUS_VULNERABLE_IMAGES="registry.local/triton:1")
    assert "r1plus refresh" in await until_runtime(tenant, "RuntimeOutdated")
    assert await deployments(tenant) == untouched
    labels = {"namespace": tenant.namespace, "deployment": "credit"}
    await operator.shows(metrics.RUNTIME_VULNERABLE, **labels)
    await operator.shows(metrics.RUNTIME_OUTDATED, triton="registry.local/triton:1", **labels)
    said = request_action(cli, tenant.namespace, "credit", Verb.REFRESH, "CVE-2026-24207", NOW)
    assert "gated as soon as its turn comes" in said
    await tenant.events("RefreshRequested")
    candidate = await tenant.candidate("credit")
    assert (await revision_of(tenant, candidate)).runtime == runtime(2)
    assert await tenant.selected() == before, "nothing serves before its gate"
    assert await decide(tenant, Verdict.PASS, before) == candidate
    await until_runtime(tenant, "Current")
    assert (await revision_of(tenant, before)).runtime == runtime(1)


async def test_a_spec_that_is_changed_and_changed_back_does_not_bring_the_old_images_back(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await upgrade(operator, 1)
    first = await tenant.serve()
    await upgrade(operator, 2)
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048})
    second = await decide(tenant, Verdict.PASS, first)
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    third = await decide(tenant, Verdict.PASS, second)
    assert [(await revision_of(tenant, name)).runtime for name in (first, second, third)] == [
        runtime(1),
        runtime(2),
        runtime(2),
    ]


@pytest.fixture
async def tenants(client: ApiClient, tenant: Tenant) -> AsyncIterator[list[Tenant]]:
    """Three tenants in the order of their names, which is that of the wave."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(new_tenant(client, f"{tenant.namespace}-{n}")) for n in range(3)]
        yield made


async def test_a_wave_goes_on_one_by_one_stops_at_a_failure_and_survives_the_operator(
    operator: OperatorProcess, tenants: list[Tenant], cli: KubernetesCluster
) -> None:
    await upgrade(operator, 1)
    first, second, third = tenants
    serving = {tenant.namespace: await tenant.serve() for tenant in tenants}
    await upgrade(operator, 2)
    for tenant in tenants:
        await until_runtime(tenant, "RuntimeOutdated")
    bodies = [cr for cr in cli.list_deployments(None) if cr["metadata"]["namespace"] in serving]
    assert len(list(refresh_all(cli, bodies, "CVE-2026-24207", NOW))) == 3
    await assert_only(first, serving, tenants)
    operator.restart()
    await operator.has_made_passes()
    await assert_only(first, serving, tenants)
    await decide(first, Verdict.PASS, serving[first.namespace])
    serving[first.namespace] = await first.selected()
    await assert_only(second, serving, tenants)
    await decide(second, Verdict.FAIL, serving[second.namespace])
    await until_runtime(second, "RefreshFailed")
    labels = {"namespace": second.namespace, "deployment": "credit"}
    await operator.shows(metrics.REFRESH_FAILED, **labels)
    assert await until_message(third, "another deployment failed with these images")
    assert len(await third.listed("ControllerRevision")) == 1
    request_action(cli, second.namespace, "credit", Verb.ACK, "its own suite was at fault", NOW)
    await until_runtime(third, "RefreshUnderWay")
    await decide(third, Verdict.PASS, serving[third.namespace])
    await until_runtime(third, "Current")
    assert await second.selected() == serving[second.namespace]


async def until_message(tenant: Tenant, words: str) -> str:
    async def says() -> str:
        message = str((await tenant.cr("credit"))["status"]["runtime"]["message"])
        return message if words in message else ""

    return await eventually(says, f"{tenant.namespace} says {words}")


async def assert_only(one: Tenant, serving: dict[str, str], tenants: list[Tenant]) -> None:
    """Assert that of those that do not run the new images this one is on its way, and every other waits for it."""
    await until_runtime(one, "RefreshUnderWay")
    for tenant in tenants:
        current = await revision_of(tenant, serving[tenant.namespace])
        if tenant is not one and current.runtime == runtime(1):
            assert await until_message(tenant, "other deployments are updated first")
            assert len(await tenant.listed("ControllerRevision")) == 1


async def test_automatic_updates_refresh_without_a_request_and_never_by_an_outage(
    operator: OperatorProcess, tenants: list[Tenant]
) -> None:
    await upgrade(operator, 1)
    gentle, in_place, _ = tenants
    before = await gentle.serve()
    kept = await in_place.serve(rollout={"strategy": "InPlace"})
    await upgrade(operator, 2, R1PLUS_RUNTIME_UPDATE="Automatic")
    assert "InPlace" in await until_message(in_place, "InPlace")
    await decide(gentle, Verdict.PASS, before)
    await until_runtime(gentle, "Current")
    assert await in_place.selected() == kept
    assert len(await in_place.listed("ControllerRevision")) == 1


@pytest.fixture
async def newer_engine(operator: OperatorProcess, client: ApiClient) -> AsyncIterator[Json]:
    """A newer version of the engine that serves tier lite, to be created; it goes with the test."""

    async def find() -> list[Json]:
        engines, _ = await client.list(kinds.R1PLUS_ENGINE)
        return [
            e["spec"] for e in engines if e["metadata"]["name"].startswith("smollm2-lite") and e["spec"].get("artifact")
        ]

    lite = await eventually(find, "the operator has applied its catalog")
    body = manifest(kinds.R1PLUS_ENGINE, f"smollm2-lite-{uuid.uuid4().hex[:8]}", spec={**lite[0], "version": "9.0.0"})
    yield body
    await client.delete(kinds.R1PLUS_ENGINE, body["metadata"]["name"])


async def test_a_newer_engine_of_the_catalog_is_rolled_out_one_by_one(
    operator: OperatorProcess, client: ApiClient, tenants: list[Tenant], newer_engine: Json
) -> None:
    await upgrade(operator, 1, R1PLUS_RUNTIME_UPDATE="Manual")
    first, second, _ = tenants
    before = {tenant.namespace: await tenant.serve(tier="lite") for tenant in (first, second)}
    await client.create(kinds.R1PLUS_ENGINE, newer_engine)
    await until_runtime(first, "RefreshUnderWay")
    assert await until_message(second, "other deployments are updated first")
    assert len(await second.listed("ControllerRevision")) == 1
    for tenant in (first, second):
        made = await decide(tenant, Verdict.PASS, before[tenant.namespace])
        assert (await revision_of(tenant, made)).engine == newer_engine["metadata"]["name"]


async def test_a_namespace_that_is_no_tenant_any_more_holds_no_slot(
    operator: OperatorProcess, tenants: list[Tenant], cli: KubernetesCluster
) -> None:
    await upgrade(operator, 1)
    first, second, _ = tenants
    for tenant in (first, second):
        await tenant.serve()
    await upgrade(operator, 2)
    for tenant in (first, second):
        await until_runtime(tenant, "RuntimeOutdated")
        request_action(cli, tenant.namespace, "credit", Verb.REFRESH, "CVE-2026-24207", NOW)
    await until_runtime(first, "RefreshUnderWay")
    await until_message(second, "other deployments are updated first")
    await first.label(names.LABEL_TENANT, None)
    await until_runtime(second, "RefreshUnderWay")
