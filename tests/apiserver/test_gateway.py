"""A tenant's gateway on a real API server: made, repaired, kept up to date with promotions, and taken away again.

The test plays controllers and kubelet: it makes the gateway's pod and says how it fares.
"""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.gateway import (
    DATA_PATH,
    ENV_SETTINGS,
    GATEWAY,
    GATEWAY_ADMIN,
    GATEWAY_SERVICE,
    JWKS_FILE,
    LABEL_GATEWAY,
    PORT_INTERNAL,
    SETTINGS_FILE,
    DataReason,
    DataState,
    GatewaySettings,
    ModelSettings,
)
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.timestamps import parse_timestamp
from r1plus_contract.verdict import Verdict
from r1plus_gateway.store.keys.tenant_keys import make_half
from r1plus_operator.api import kinds
from r1plus_operator.api.rbac import TOKEN_ISSUER_URLS
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.plan.tenancy import network_policies
from support.apiserver.chart import GATEWAY_IMAGE
from support.apiserver.isolation_runs import Team
from support.apiserver.manifests import CONTEXT, SERVICE_ACCOUNT, Json, manifest
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.process import PythonProcess
from support.apiserver.tenant import Tenant, apply_pod_as_default
from support.ports import free_port
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
ENABLED: Json = {"enabled": True, "from": [{"namespace": "ingress"}]}
STARTED = "2026-01-01T00:00:00Z"
PARTS = (
    ("NetworkPolicy", GATEWAY),
    ("ConfigMap", GATEWAY),
    ("Deployment", GATEWAY),
    ("Service", GATEWAY_SERVICE),
)


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    return {"R1PLUS_GATEWAY_IMAGE": GATEWAY_IMAGE}


@pytest.fixture
def team(operator: OperatorProcess, tenant: Tenant) -> Team:
    """The tenant beside an operator that runs."""
    return Team(tenant, "")


async def read_settings(tenant: Tenant) -> GatewaySettings:
    config = await tenant.present("ConfigMap", GATEWAY)
    return loads(GatewaySettings, config["data"]["gateway.json"])


async def model_that(tenant: Tenant, holds: Any, what: str) -> ModelSettings:
    """Wait until the settings have one model of which this holds."""

    async def find() -> ModelSettings | None:
        models = (await read_settings(tenant)).models
        return models[0] if len(models) == 1 and holds(models[0]) else None

    return await eventually(find, what)


async def run_gateway(tenant: Tenant, **status: Any) -> str:
    """Make the gateway's pod, as ReplicaSet controller and kubelet would; return its name."""
    deployment = await tenant.present("Deployment", GATEWAY)
    name = f"{GATEWAY}-7d9f8b-abcde"
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{GATEWAY}-7d9f8b", "uid": str(uuid.uuid4())}
    await apply_pod_as_default(tenant.client, name, tenant.namespace, deployment["spec"]["template"], owner)
    await tenant.set_status(
        name, **(status or {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    )
    return name


class MountedGateway(PythonProcess):
    """`python -m r1plus_gateway` with the operator's ConfigMap, as the kubelet would mount it, under a test's folder."""

    def __init__(self, folder: Path, config: Json) -> None:
        super().__init__(folder / "gateway.log", "r1plus_gateway")
        for name in ("data", "secret"):
            (folder / name).mkdir()
        (folder / "secret" / "half-1").write_text(make_half())
        (folder / JWKS_FILE).write_text(config["data"][JWKS_FILE])
        settings = json.loads(config["data"][SETTINGS_FILE])
        settings |= {"host": "127.0.0.1", "port": self.port, "internalPort": free_port(), "drainSeconds": 1}
        settings["tokens"]["jwks"] = str(folder / JWKS_FILE)
        settings["data"] |= {"folder": str(folder / "data"), "secretFolder": str(folder / "secret")}
        (folder / SETTINGS_FILE).write_text(json.dumps(settings))
        self._settings = folder / SETTINGS_FILE

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, ENV_SETTINGS: str(self._settings)}

    async def get(self, token: str, path: str = "/v1/models") -> int:
        """Return the status of the answer to a caller with this token."""
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}{path}", headers=headers) as response,
        ):
            return response.status


async def mint_token(tenant: Tenant, name: str = "app", *, audience: str = GATEWAY, seconds: int = 600) -> str:
    """Return a token of a ServiceAccount of this namespace, as its pods get one projected."""
    account = manifest(SERVICE_ACCOUNT, name, tenant.namespace)
    await tenant.client.apply(SERVICE_ACCOUNT, account, field_manager="test")
    spec = {"audiences": [audience], "expirationSeconds": seconds}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec, **_name(name, tenant)}
    return str((await tenant.client.create(SERVICE_ACCOUNT, request, subresource="token"))["status"]["token"])


def _name(name: str, tenant: Tenant) -> Json:
    return {"metadata": {"name": name, "namespace": tenant.namespace}}


def callers_of(policy: Json, port: int) -> list[Json]:
    """Return the peers that a policy lets in at a port."""
    rules = [rule for rule in policy["spec"]["ingress"] if port in [one["port"] for one in rule["ports"]]]
    return [peer for rule in rules for peer in rule["from"]]


@pytest.mark.apiserver_sample
async def test_it_is_made_with_the_clusters_issuer_and_keys_and_is_ready_with_its_pod(
    operator: OperatorProcess, tenant: Tenant, team: Team, server: ApiServer
) -> None:
    await tenant.allow(gateway=ENABLED)
    await team.until("GatewayReady", "False", "Starting")
    for kind, name in (*PARTS, ("PersistentVolumeClaim", GATEWAY), ("ServiceAccount", GATEWAY)):
        await tenant.present(kind, name)
    discovery, jwks = [await tenant.client.read_path(path) for path in TOKEN_ISSUER_URLS]
    data = (await tenant.present("ConfigMap", GATEWAY))["data"]
    assert json.loads(data["jwks.json"])["keys"] == jwks["keys"]
    settings = await read_settings(tenant)
    assert (settings.namespace, settings.tokens.issuer) == (tenant.namespace, discovery["issuer"])
    namespace = await tenant.client.get(kinds.NAMESPACE, tenant.namespace)
    assert settings.tokens.not_before == parse_timestamp(namespace["metadata"]["creationTimestamp"]) > 0
    assert not operator.forbidden(tenant.namespace), "its own account's rights suffice, issuer and keys included"
    policy = await tenant.present("NetworkPolicy", GATEWAY)
    assert len(callers_of(policy, 8080)) == 2
    await run_gateway(tenant)
    assert "1 of 1 pods are ready" in await team.until("GatewayReady", "True", "Ready")


async def test_the_gateway_takes_what_the_operator_wrote_and_believes_tokens_of_this_cluster(
    tenant: Tenant, team: Team, neighbour: Tenant, tmp_path: Path
) -> None:
    await tenant.allow(gateway={"enabled": True, "from": [{"namespace": neighbour.namespace}]})
    gateway = MountedGateway(tmp_path, await tenant.present("ConfigMap", GATEWAY))
    gateway.start()
    try:
        token = await mint_token(tenant)

        async def answers() -> bool:
            return await gateway.get(token) == 200

        await eventually(answers, "the gateway answers a caller of its namespace", retry_on=(aiohttp.ClientError,))
        assert await gateway.get(await mint_token(neighbour)) == 200
        assert await gateway.get(await mint_token(tenant, audience="another")) == 401
        assert await gateway.get(await mint_token(tenant, seconds=3600)) == 401, "it lives for too long"
        assert await gateway.get(await mint_token(tenant, GATEWAY_ADMIN), "/v1/admin/keys") == 200
        assert await gateway.get(token, "/v1/admin/keys") == 403
        assert await gateway.get("", "/") == 200, "the page asks for the key itself"
    finally:
        gateway.kill()


class DataPort:
    """The internal port of the gateway's pod: says how the tenant's data are."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.state = DataState(DataReason.FULL, "no space; enlarge the volume")

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(text=dumps(self.state))

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator["DataPort"]:
        """Serve until the block ends."""
        app = web.Application()
        app.add_routes([web.get(DATA_PATH, self._answer)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._address, PORT_INTERNAL).start()
            yield self
        finally:
            await runner.cleanup()


async def test_callers_of_a_gateway_whose_data_cannot_be_used_reach_it_until_one_can_serve(
    tenant: Tenant, team: Team
) -> None:
    await tenant.allow(gateway=ENABLED)

    async def until_published(is_published: bool) -> None:
        def holds(service: Json) -> bool:
            return bool(service["spec"].get("publishNotReadyAddresses")) is is_published

        await tenant.child_that("Service", GATEWAY_SERVICE, holds, f"published: {is_published}")

    async with DataPort(tenant.monitors.address).listen() as port:
        name = await run_gateway(tenant, phase="Running", conditions=[{"type": "Ready", "status": "False"}])
        await team.until("GatewayReady", "False", "VolumeFull")
        await until_published(is_published=True)
        port.state = DataState(DataReason.READY, "fine", True)
        await team.until("GatewayReady", "False", "Starting")
        await until_published(is_published=True)
        await tenant.set_status(name, phase="Running", conditions=[{"type": "Ready", "status": "True"}])
        await team.until("GatewayReady", "True", "Ready")
        await until_published(is_published=False)


async def test_a_pod_that_waits_for_its_volumes_lacks_a_secret(tenant: Tenant, team: Team) -> None:
    await tenant.allow(gateway=ENABLED)
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": STARTED},
        {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": STARTED},
        {"type": "Ready", "status": "False"},
    ]
    name = await run_gateway(tenant, phase="Pending", conditions=conditions)
    assert "r1plus-gateway-key" in await team.until("GatewayReady", "False", "KeyMissing")
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}
    container = {
        "name": "gateway",
        "image": GATEWAY_IMAGE,
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": waiting,
    }
    conditions[1] |= {"status": "True"}
    await tenant.set_status(name, phase="Pending", conditions=conditions, containerStatuses=[container])
    assert "manifest unknown" in await team.until("GatewayReady", "False", "ImagePullFailed")


async def test_it_follows_promotions_callers_and_deletions(tenant: Tenant, team: Team) -> None:
    await tenant.allow(gateway=ENABLED, callers={"namespaces": ["shop"]})
    first = await tenant.serve()
    model = await model_that(tenant, lambda one: one.revisions, "the gateway is told of the model")
    stored = read_revision(await tenant.present("ControllerRevision", first))
    assert model.host == f"credit-pods.{tenant.namespace}.svc"
    assert [one.name for one in model.revisions] == [first]
    assert (model.batch, model.revisions[0].identity) == (stored.batch, stored.identity_digest)
    pods = await tenant.present("Service", "credit-pods")
    assert pods["spec"]["clusterIP"] == "None"
    assert pods["spec"]["selector"][names.LABEL_REVISION] == first

    await tenant.deploy("credit", tier="full", context={"maxTokens": 512}, access={"namespaces": ["shop", "mail"]})
    await model_that(tenant, lambda one: one.namespaces == ("shop",), "the gateway is told who may call")
    second = await tenant.candidate("credit")
    pod = await tenant.run_pod(second, ready=False)
    await tenant.decide(second, Verdict.PASS)
    await tenant.until("credit", "QualityVerified", "True", "GatePassed")
    await tenant.set_ready(pod, ready=True)
    await tenant.switched(second)
    model = await model_that(tenant, lambda one: one.context_tokens == 512, "the gateway is told of the promotion")
    assert [one.name for one in model.revisions] == [second, first], "pods of the former one may still be in DNS"
    selected = (await tenant.present("Service", "credit-pods"))["spec"]["selector"][names.LABEL_REVISION]
    assert selected == second

    await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace)

    async def is_told() -> bool:
        return not (await read_settings(tenant)).models

    await eventually(is_told, "the gateway is told that the model is gone")


async def test_what_somebody_edits_or_deletes_is_put_back(tenant: Tenant, team: Team) -> None:
    await tenant.allow(gateway=ENABLED)
    before = {(kind, name): await tenant.present(kind, name) for kind, name in PARTS}
    sidecar = {"name": "sidecar", "image": "registry.local/s:1"}
    edits: dict[str, Json] = {
        "NetworkPolicy": {"spec": {"ingress": [{}]}},
        "ConfigMap": {"data": {"jwks.json": "{}"}},
        "Deployment": {"spec": {"template": {"spec": {"containers": [*before["Deployment", GATEWAY]["spec"]["template"]["spec"]["containers"], sidecar]}}}},
        "Service": {"spec": {"selector": {LABEL_GATEWAY: "true", "app": "mine"}}},
    }  # fmt: skip
    for (kind, name), obj in before.items():
        await tenant.client.patch(kinds.BY_KIND[kind], name, tenant.namespace, edits[kind])
        part = "data" if kind == "ConfigMap" else "spec"
        await tenant.child_that(
            kind, name, lambda it, obj=obj, part=part: it[part] == obj[part], f"{kind} is as it was"
        )
        await tenant.delete_and_see_it_back(kind, name)


async def test_a_pass_over_one_that_is_as_it_should_be_writes_nothing(
    operator: OperatorProcess, tenant: Tenant, team: Team
) -> None:
    database = {"secretName": "store", "egress": {"cidr": "10.9.0.0/16", "ports": [5432, 6432]}}
    await tenant.allow(
        gateway={**ENABLED, "replicas": 2, "directAccess": False, "tls": {"secretName": "web"}, "database": database},
        placement={"tolerations": [{"key": "dedicated", "operator": "Exists"}]},
    )
    await team.until("GatewayReady", "False", "Starting")
    parts = (*PARTS, ("PodDisruptionBudget", GATEWAY), ("NetworkPolicy", network_policies.CALLERS))
    before = [await tenant.present(kind, name) for kind, name in parts]
    count = operator.log.count(f" {tenant.namespace}/{GATEWAY}")
    await tenant.label("example.com/note", "asks-for-a-pass")
    await tenant.deploy("later", tier="full", context=CONTEXT)  # whose own children show that passes have gone by
    await tenant.candidate("later")
    after = [await tenant.present(kind, name) for kind, name in parts]
    assert [one["metadata"]["resourceVersion"] for one in after] == [
        one["metadata"]["resourceVersion"] for one in before
    ]
    assert operator.log.count(f" {tenant.namespace}/{GATEWAY}") == count


async def test_with_direct_access_off_it_alone_calls_from_the_moment_it_is_ready(
    operator: OperatorProcess, tenant: Tenant, team: Team
) -> None:
    await tenant.allow(gateway={**ENABLED, "directAccess": False})
    await tenant.serve()
    policy = await tenant.child_that(
        "NetworkPolicy",
        "credit",
        lambda it: callers_of(it, names.PORT_MONITOR)[0].get("podSelector"),
        "the gateway is let in",
    )
    assert {"podSelector": {}} in callers_of(policy, names.PORT_GRPC)
    pod = await run_gateway(tenant)
    await team.until("GatewayReady", "True", "Ready")

    def is_shut(policy: Json) -> bool:
        return {"podSelector": {}} not in callers_of(policy, names.PORT_GRPC)

    await tenant.child_that("NetworkPolicy", "credit", is_shut, "others are shut out")
    await tenant.set_status(pod, phase="Running", conditions=[{"type": "Ready", "status": "False"}])
    await team.until("GatewayReady", "False", "Starting")
    operator.restart()
    await tenant.deploy("later", tier="full", context=CONTEXT)
    await tenant.candidate("later")
    assert is_shut(await tenant.present("NetworkPolicy", "credit")), (
        "a restart of the gateway, or of the operator, opens nothing"
    )
    assert is_shut(await tenant.present("NetworkPolicy", "later"))


async def test_switched_off_all_goes_but_its_data(tenant: Tenant, team: Team) -> None:
    await tenant.allow(gateway=ENABLED)
    await tenant.serve()
    await tenant.present("Service", "credit-pods")
    claim = await tenant.present("PersistentVolumeClaim", GATEWAY)
    await tenant.allow(gateway={"enabled": False})
    for kind, name in (*PARTS, ("Service", "credit-pods")):
        await tenant.absent(kind, name)
    assert GATEWAY in await team.until("GatewayReady", "False", "Disabled")
    kept = await tenant.present("PersistentVolumeClaim", GATEWAY)
    assert kept["metadata"]["uid"] == claim["metadata"]["uid"]
    policy = await tenant.present("NetworkPolicy", "credit")
    assert callers_of(policy, names.PORT_GRPC) == [{"podSelector": {}}]


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_it_goes_with_its_r1plustenant_once_no_deployment_is_left(
    tenant: Tenant, team: Team, policy: str
) -> None:
    await tenant.allow(gateway=ENABLED, data={"deletionPolicy": policy})
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    await tenant.candidate("credit")
    await tenant.present("Deployment", GATEWAY)
    await team.delete()
    await team.until("Ready", "False", "Deleting")
    assert await tenant.child("Deployment", GATEWAY) is not None
    await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace)
    await team.is_gone()
    for kind, name in PARTS:
        assert await tenant.child(kind, name) is None
    claim = await tenant.child("PersistentVolumeClaim", GATEWAY)
    assert claim is not None, "no controller of this cluster removes the claim's own finalizer"
    assert ("deletionTimestamp" in claim["metadata"]) == (policy == "Delete")


async def test_a_deployment_with_the_name_of_its_service_is_told_of(tenant: Tenant, team: Team) -> None:
    await tenant.deploy(GATEWAY_SERVICE, tier="full", context=CONTEXT)
    await tenant.candidate(GATEWAY_SERVICE)
    await tenant.allow(gateway=ENABLED)
    assert "under another name" in await team.until("GatewayReady", "False", "NameTaken")
    assert await tenant.child("Deployment", GATEWAY) is None
