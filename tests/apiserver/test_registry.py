"""The operator and the registry, both real, with a real API server: what is recorded, and who may read it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster
from r1plus_cli.errors import CliError
from r1plus_cli.registry import Registry, parse_address
from r1plus_contract import names
from r1plus_contract.history import AUDIENCE
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds, rbac, tenant_roles
from r1plus_operator.runtime.client import ApiClient
from r1plus_registry import reviews
from r1plus_registry.errors import RegistryUnavailableError
from r1plus_registry.reviews import AccessRequest
from support.apiserver.manifests import (
    CLUSTER_ROLE,
    CONTEXT,
    ROLE_BINDING,
    manifest,
    service_account,
    user,
)
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.registry_process import READER, WRITER, RegistryProcess
from support.apiserver.rights import OPERATOR_NAMESPACE, grant, grant_operator, token
from support.apiserver.server import add_node
from support.apiserver.tenant import Tenant
from support.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.apiserver
Q4_1 = {"precision": "Q4_1"}
READS = (
    rbac.RbacGrant(
        "Its own", kinds.R1PLUS_DEPLOYMENT.group, (kinds.R1PLUS_DEPLOYMENT.plural,), ("get", "list", "watch")
    ),
)


async def admin_of(client: ApiClient, namespace: str) -> str:
    """A token for the registry of an account that reads the deployments of its namespace."""
    await grant(client, "admin", READS, service_account("admin", namespace), namespace=namespace)
    return await token(client, "admin", namespace, AUDIENCE)


@dataclass
class Rig:
    """Both processes, and a platform team's token."""

    client: ApiClient
    registry: RegistryProcess
    operator: OperatorProcess
    platform: str

    async def history(self, tenant: Tenant, name: str = "credit") -> list[dict[str, Any]]:
        status, found = await self.registry.get(f"/v1/namespaces/{tenant.namespace}/deployments/{name}", self.platform)
        assert status == 200, found
        return list(found["items"])

    async def recorded(self, tenant: Tenant, revision: str, verdict: str) -> None:
        async def there() -> bool:
            found = [e for h in await self.history(tenant) for e in h["evaluations"]]
            return any((e["revision"], e["report"]["verdict"]) == (revision, verdict) for e in found)

        await eventually(there, f"the registry knows {verdict} of {revision}")

    async def tells_of_another(self, tenant: Tenant, name: str) -> None:
        """Deploy, and wait until the registry knows it: and with it all that there was to tell before."""
        await tenant.deploy(name, tier="full", context=CONTEXT)
        await tenant.candidate(name)
        await eventually(lambda: self.history(tenant, name), f"the registry knows {name}")


@pytest.fixture(scope="module")
def processes(
    apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RegistryProcess, OperatorProcess, str]]:
    """One registry and one operator for all tests here, with the platform team's token."""
    folder = tmp_path_factory.mktemp("registry")
    registry = RegistryProcess(apiserver, folder)
    env = {"R1PLUS_REGISTRY_URL": registry.url, "R1PLUS_REGISTRY_TOKEN_FILE": str(folder / "operator-token")}
    operator = OperatorProcess(apiserver, folder / "operator.log", **env)

    async def prepare() -> str:
        async with ApiClient.from_kubeconfig(apiserver.kubeconfig) as client:
            await grant_operator(client)
            await add_node(client)
            await registry.prepare(client)
            (folder / "operator-token").write_text(await token(client, WRITER, OPERATOR_NAMESPACE, AUDIENCE))
            role = manifest(
                CLUSTER_ROLE,
                names.ROLE_REGISTRY_READER,
                rules=[g.build_rule() for g in rbac.list_tenant_registry_reader_grants()],
            )
            await client.apply(CLUSTER_ROLE, role, field_manager="test")
            reader = service_account(READER, OPERATOR_NAMESPACE)
            await grant(client, f"test-{READER}", rbac.list_registry_reader_grants(), reader)
            return await token(client, READER, OPERATOR_NAMESPACE, AUDIENCE)

    async def remove_role() -> None:
        """A chart that another test installs brings it, too."""
        async with ApiClient.from_kubeconfig(apiserver.kubeconfig) as client:
            await client.delete(CLUSTER_ROLE, names.ROLE_REGISTRY_READER)

    yield registry, operator, asyncio.run(prepare())
    operator.kill()
    registry.kill()
    asyncio.run(remove_role())


@pytest.fixture
async def rig(processes: tuple[RegistryProcess, OperatorProcess, str], client: ApiClient) -> Rig:
    registry, operator, platform = processes
    registry.begin_test()
    operator.begin_test()
    await eventually(registry.ready, "the registry is ready")
    return Rig(client, registry, operator, platform)


async def refused(tenant: Tenant) -> tuple[str, str]:
    """One revision serves, the next was refused by its gate; both names."""
    good = await tenant.serve()
    await tenant.deploy("credit", tier="full", context=CONTEXT, engine=Q4_1)
    bad = await tenant.candidate("credit")
    await tenant.run_pod(bad, ready=False)
    await tenant.decide(bad, Verdict.FAIL, lost=97)
    await tenant.until("credit", "QualityVerified", "False", "GateFailed")
    return good, bad


async def test_the_story_of_a_refused_revision_is_recorded_with_its_figures(rig: Rig, tenant: Tenant) -> None:
    good, bad = await refused(tenant)
    await rig.recorded(tenant, bad, "Fail")
    (history,) = await rig.history(tenant)
    assert history["deployment"]["uid"] == (await tenant.cr("credit"))["metadata"]["uid"]
    engines = {one["name"]: one["engine"] for one in history["revisions"]}
    assert engines == {good: "smollm2-full-f16", bad: "smollm2-full-q4-1"}
    reports = {one["revision"]: one["report"] for one in history["evaluations"]}
    assert (reports[bad]["verdict"], reports[bad]["lost"], reports[bad]["items"]) == ("Fail", 97, 210)
    assert {(one["revision"], one["event"]) for one in history["rollouts"]} >= {(good, "Promoted"), (bad, "Candidate")}
    _, found = await rig.registry.get("/v1/engines", rig.platform)
    (tried,) = [one for one in found["items"] if one["engine"]["name"] == "smollm2-full-q4-1"]
    # The operator records what other tests left on the server, too.
    assert tried["evaluations"] > tried["passed"]


async def test_a_tenant_reads_its_own_and_nobody_elses(rig: Rig, tenant: Tenant) -> None:
    revision = await tenant.serve()
    await rig.recorded(tenant, revision, "Pass")
    other = f"{tenant.namespace}-other"
    await rig.client.apply(kinds.NAMESPACE, manifest(kinds.NAMESPACE, other), field_manager="test")
    own, foreign = [await admin_of(rig.client, namespace) for namespace in (tenant.namespace, other)]
    path = f"/v1/namespaces/{tenant.namespace}/deployments/credit"
    everywhere, engines = "/v1/evaluations", "/v1/engines"
    within = f"/v1/evaluations?namespace={tenant.namespace}&items=1"
    mine = [(await rig.registry.get(one, own))[0] for one in (path, within, everywhere, engines)]
    assert mine == [200, 200, 403, 403]
    assert [(await rig.registry.get(one, foreign))[0] for one in (path, within)] == [403, 403]
    assert (await rig.registry.get(path, own + "x"))[0] == 401
    _, found = await rig.registry.get(path, own)
    assert [r["name"] for h in found["items"] for r in h["revisions"]] == [revision]


async def test_a_token_for_the_api_server_is_refused_from_every_account(rig: Rig, tenant: Tenant) -> None:
    """The registry's process sees the tokens of its callers, and could act in their names."""
    path = f"/v1/namespaces/{tenant.namespace}/deployments/credit"
    await admin_of(rig.client, tenant.namespace)
    for account, namespace in (("admin", tenant.namespace), (READER, OPERATOR_NAMESPACE)):
        status, answer = await rig.registry.get(path, await token(rig.client, account, namespace))
        assert status == 401
        assert "create token r1plus-registry-reader --audience r1plus-registry" in answer["error"]
        assert (await rig.registry.get(path, await token(rig.client, account, namespace, AUDIENCE)))[0] == 200


async def test_who_may_get_one_deployment_reads_the_history_of_that_one(rig: Rig, tenant: Tenant) -> None:
    gets = replace(READS[0], verbs=("get",), names=("credit",))
    await grant(rig.client, "one", (gets,), service_account("one", tenant.namespace), namespace=tenant.namespace)
    bearer = await token(rig.client, "one", tenant.namespace, AUDIENCE)
    own, other = (f"/v1/namespaces/{tenant.namespace}/deployments/{name}" for name in ("credit", "other"))
    within = f"/v1/evaluations?namespace={tenant.namespace}"
    statuses = [(await rig.registry.get(path, bearer))[0] for path in (own, f"{within}&name=credit", other, within)]
    assert statuses == [200, 200, 403, 403]


async def test_a_tenants_people_read_by_an_account_that_the_operator_makes(
    rig: Rig, tenant: Tenant, apiserver: ApiServer
) -> None:
    revision = await tenant.serve()
    await rig.recorded(tenant, revision, "Pass")
    await tenant.allow(viewers=[{"kind": "User", "name": "vera"}])
    (viewer,) = [role for role in tenant_roles.list_roles() if role.name == f"{names.ROLE_TENANT_VIEWER}-base"]
    await grant(rig.client, "viewer", viewer.grants, user("vera"), namespace=tenant.namespace)
    await tenant.present("RoleBinding", names.REGISTRY_READER)
    kubeconfig = str(apiserver.kubeconfig_for("vera", ()))
    asking = Registry(parse_address(rig.registry.url), lambda: KubernetesCluster(kubeconfig), {})

    def reads_history() -> bool:
        (history,) = asking.read_histories(tenant.namespace, "credit").items
        return [one.name for one in history.revisions] == [revision]

    await eventually(lambda: asyncio.to_thread(reads_history), "vera reads the history", retry_on=(CliError,))
    with pytest.raises(CliError, match="r1plus-registry-reader may not list r1plusengines"):
        await asyncio.to_thread(asking.read_engines, tenant.namespace)
    # As docs/registry.md says where a tenant's people shall see the catalog.
    lists = rbac.RbacGrant("The catalog", kinds.R1PLUS_ENGINE.group, (kinds.R1PLUS_ENGINE.plural,), ("list",))
    reader = service_account(names.REGISTRY_READER, tenant.namespace)
    await grant(rig.client, f"{tenant.namespace}-engines", (lists,), reader)

    def listed() -> bool:
        return bool(asking.read_engines(tenant.namespace).items)

    await eventually(lambda: asyncio.to_thread(listed), "vera reads the engines", retry_on=(CliError,))
    other = f"{tenant.namespace}-other"
    await rig.client.apply(kinds.NAMESPACE, manifest(kinds.NAMESPACE, other), field_manager="test")
    with pytest.raises(CliError, match="You may not create a token for the registry"):
        await asyncio.to_thread(asking.read_histories, other, "credit")


async def test_only_the_operators_own_account_records(rig: Rig, tenant: Tenant) -> None:
    for account, audiences in (
        (READER, (AUDIENCE,)),
        ("foreign", (AUDIENCE,)),
        (WRITER, ("another-service",)),
        (WRITER, ()),
    ):
        bearer = await token(rig.client, account, OPERATOR_NAMESPACE, *audiences)
        async with httpx.AsyncClient(timeout=DEADLINE_SECONDS) as http:
            headers = {"Authorization": f"Bearer {bearer}"}
            answer = await http.post(f"{rig.registry.url}/v1/facts", json={}, headers=headers)
        assert answer.status_code == (403 if AUDIENCE in audiences else 401), answer.text


async def test_a_right_that_was_taken_away_ends_with_the_seconds_that_an_answer_counts(
    apiserver: ApiServer, client: ApiClient, namespace: str, tmp_path: Path
) -> None:
    registry = RegistryProcess(apiserver, tmp_path)
    await registry.prepare(client)
    own = await admin_of(client, namespace)
    now, access = 0.0, AccessRequest("get", "r1plusdeployments", namespace, "credit")
    server = reviews.ApiServer(apiserver.url, apiserver.ca, tmp_path / "token")
    async with reviews.Reviews(server, lambda: now) as asking:
        user = await asking.authenticate(own, "10.0.0.1")
        assert user is not None
        assert user.name == f"system:serviceaccount:{namespace}:admin"
        assert await asking.authenticate("nonsense", "10.0.0.1") is None
        live = await client.get(kinds.NAMESPACE, namespace)
        assert await asking.get_namespace_uid(namespace, user) == live["metadata"]["uid"]
        assert await asking.get_namespace_uid("nobodys", user) == ""
        assert await asking.can_access(user, access)
        assert not await asking.can_access(user, replace(access, namespace="kube-system"))
        assert not await asking.can_access(user, replace(access, namespace="", name=""))
        await client.delete(ROLE_BINDING, "admin", namespace)

        async def taken() -> bool:
            async with reviews.Reviews(server) as uncached:
                return not await uncached.can_access(user, access)

        await eventually(taken, "the API server knows it")
        now = reviews.CACHE_SECONDS - 0.1
        assert await asking.can_access(user, access)
        now = reviews.CACHE_SECONDS
        assert not await asking.can_access(user, access)


async def test_an_account_that_may_not_ask_and_an_api_server_that_is_not_there_let_nobody_in(
    apiserver: ApiServer, client: ApiClient, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(await token(client, "powerless", namespace))
    for url, said in (
        (apiserver.url, "refused the TokenReview: 403"),
        ("https://127.0.0.1:1", "did not answer the TokenReview"),
    ):
        async with reviews.Reviews(reviews.ApiServer(url, apiserver.ca, tmp_path / "token")) as asking:
            with pytest.raises(RegistryUnavailableError, match=said):
                await asking.authenticate("anyone", "10.0.0.1")


async def test_what_is_deleted_has_ended_and_is_the_platform_teams(rig: Rig, tenant: Tenant) -> None:
    """One of the last tests: the operator says what has ended once it has run for half a minute."""
    revision = await tenant.serve()
    await rig.recorded(tenant, revision, "Pass")
    own = await admin_of(rig.client, tenant.namespace)
    await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace)
    path = f"/v1/namespaces/{tenant.namespace}/deployments/credit"

    async def ended() -> bool:
        return [one["ended"] for one in await rig.history(tenant)] == [True]

    await eventually(ended, "the registry knows that it has ended")
    assert (await rig.registry.get(path, own)) == (200, {"items": []})


async def test_the_service_may_be_away_while_things_happen_and_misses_nothing(rig: Rig, tenant: Tenant) -> None:
    """And nobody waits for it: the rollout goes on, and is refused, with the registry dead."""
    rig.registry.kill()
    _, bad = await refused(tenant)
    rig.registry.start()
    await eventually(rig.registry.ready, "the registry is ready again")
    await rig.recorded(tenant, bad, "Fail")
    await rig.tells_of_another(tenant, "other")
    before = await rig.history(tenant)
    assert rig.operator.stop() == 0
    rig.operator.start()
    await rig.tells_of_another(tenant, "third")
    assert await rig.history(tenant) == before
    assert rig.registry.stop() == 0
