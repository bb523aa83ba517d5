"""Versions that follow each other: of the operator, of the chart, of the API. What serves is left alone by all of them."""

import copy
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from devcluster.apiserver_only import ApiServer
from devcluster.toolchain import kubectl
from r1plus_contract import names
from r1plus_operator.api import crd, fence, kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, InvalidError
from r1plus_operator.runtime.resources import Resource
from support.apiserver.audit import writes_of
from support.apiserver.chart import helm as run_helm
from support.apiserver.manifests import CONTEXT, POLICY, POLICY_BINDING, Json, manifest
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.rights import OPERATOR, grant_operator
from support.apiserver.server import CHART, add_node, install_crd
from support.apiserver.tenant import Tenant
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
Helm = Callable[..., str]
BETA = "v1beta1"


def monitor_image(deployment: Json) -> str:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return str(next(one["image"] for one in containers if one["name"] == names.CONTAINER_MONITOR))


async def run_and_stop(operator: OperatorProcess) -> None:
    """A start, a pass over everything, an end."""
    operator.start()
    await operator.has_made_passes()
    assert operator.stop() == 0


async def test_another_version_of_the_operator_writes_no_deployment_that_is_there_and_makes_new_ones_its_own_way(
    apiserver: ApiServer, client: ApiClient, tenant: Tenant, tmp_path: Path
) -> None:
    await grant_operator(client)
    await add_node(client)
    monitors = [f"registry.local/monitor:{n}" for n in (1, 2)]
    images = [
        {"R1PLUS_MONITOR_IMAGE": one, "R1PLUS_TRITON_IMAGE": one.replace("monitor", "triton")} for one in monitors
    ]
    old, new = (OperatorProcess(apiserver, tmp_path / f"{n}.log", **images[n]) for n in range(2))
    old.start()
    revision = await tenant.serve()
    assert old.stop() == 0
    deployment = await tenant.present("Deployment", revision)

    async def rewritten_by(operator: OperatorProcess) -> list[str]:
        before = len(writes_of(apiserver, OPERATOR, tenant.namespace))
        await run_and_stop(operator)
        written = writes_of(apiserver, OPERATOR, tenant.namespace)[before:]
        return [one.path for one in written if "/deployments/" in one.path or "/controllerrevisions/" in one.path]

    assert await rewritten_by(new) == []
    new.start()
    await tenant.deploy("second", tier="edge", context=CONTEXT)
    second = await tenant.present("Deployment", await tenant.candidate("second"))
    assert new.stop() == 0
    assert [monitor_image(one) for one in (deployment, second)] == monitors
    assert await rewritten_by(old) == []
    for before in (deployment, second):
        after = await tenant.present("Deployment", before["metadata"]["name"])
        assert (after["metadata"]["uid"], after["spec"]["template"]) == (before["metadata"]["uid"], before["spec"]["template"])  # fmt: skip
    assert (await tenant.condition("credit", "Ready"))[0] == "True"


@pytest.fixture
def helm(apiserver: ApiServer, tmp_path: Path) -> Helm:
    """The real helm, as a cluster administrator."""
    return lambda *words: run_helm(*words, kubeconfig=apiserver.kubeconfig, home=tmp_path)


def chart_before(folder: Path) -> Path:
    """The chart one version ago: its definitions lack a column."""
    chart = folder / "r1plus-operator"
    subprocess.run(["cp", "-r", str(CHART), str(chart)], check=True)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about | {"version": "0.0.9", "appVersion": "0.0.9"}))
    for path in (chart / "crds").glob("*.yaml"):
        path.write_text(yaml.safe_dump(without_a_column(yaml.safe_load(path.read_text()))))
    return chart


def without_a_column(definition: Json) -> Json:
    fewer = copy.deepcopy(definition)
    fewer["spec"]["versions"][0]["additionalPrinterColumns"].pop(0)
    return fewer


async def columns(client: ApiClient) -> list[str]:
    found = await client.get(crd.CRD, kinds.R1PLUS_DEPLOYMENT.name)
    return [column["name"] for column in found["spec"]["versions"][0]["additionalPrinterColumns"]]


async def test_the_chart_goes_up_and_down_and_away_and_the_definitions_and_their_objects_stay(
    apiserver: ApiServer, client: ApiClient, tenant: Tenant, helm: Helm, tmp_path: Path
) -> None:
    """Without a node no Job runs: what the hook's Job would do is done here, by its own command line."""
    before, now = chart_before(tmp_path), CHART
    release = ("r1plus", "--namespace=r1plus-helm")
    # Namespaces are the cluster's, and others' tests have a decoy in the same one.
    alone = "--set=isolation.decoyNamespace=,images.requireDigests=false"
    await install_crd(client, without_a_column(crd.build_deployment_definition()))
    helm("install", *release, str(before), alone, "--create-namespace", "--no-hooks")
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    uid = (await tenant.cr("credit"))["metadata"]["uid"]
    helm("upgrade", *release, str(now), alone, "--no-hooks")
    assert "Tier" not in await columns(client), "helm alone upgrades no definition"
    job = next(o for o in yaml.safe_load_all(helm("get", "hooks", *release)) if o["kind"] == "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    run_as_job(job, apiserver)
    assert "Tier" in await columns(client)
    helm("rollback", *release, "1", "--no-hooks")
    helm("uninstall", *release, "--no-hooks")
    assert "Tier" in await columns(client)
    assert (await tenant.cr("credit"))["metadata"]["uid"] == uid
    fenced = await fences(client, "r1plus-helm")
    assert len(fenced) == 2, "without a binding to a Lease the API server would follow Leases no more"
    helm("install", *release, str(now), alone, "--no-hooks")
    assert await fences(client, "r1plus-helm") == fenced, "the next release takes them over"
    helm("uninstall", *release, "--no-hooks")


async def fences(client: ApiClient, namespace: str) -> list[str]:
    """uids of the fence's policy and binding for the operator of a namespace."""
    return [
        obj["metadata"]["uid"]
        for resource in (POLICY, POLICY_BINDING)
        for obj in (await client.list(resource))[0]
        if obj["metadata"]["name"].startswith(f"{namespace}.") and obj["metadata"]["name"].endswith(fence.SUFFIX)
    ]


def run_as_job(job: Json, server: ApiServer) -> None:
    """What the kubelet would make of it."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    env = os.environ | {"KUBECONFIG": str(server.kubeconfig)}
    subprocess.run([sys.executable, *container["command"][1:]], env=env, check=True, timeout=250)


def renamed(definition: Json, group: str) -> Json:
    """The definition for a group of the test's own: a version that was stored once cannot simply be taken away."""
    made = copy.deepcopy(definition)
    made["spec"]["group"] = group
    made["metadata"]["name"] = f"{made['spec']['names']['plural']}.{group}"
    return made


async def test_v1beta1_comes_beside_v1alpha1_and_takes_its_place_and_no_object_is_lost(
    apiserver: ApiServer, client: ApiClient, namespace: str
) -> None:
    group = f"g{uuid.uuid4().hex[:8]}.example"
    alpha, beta = (
        Resource(group, version, kinds.DEPLOYMENTS_PLURAL, names.KIND_DEPLOYMENT) for version in (names.VERSION, BETA)
    )

    async def served(*versions: str) -> Json:
        definition = crd.build_definitions(versions)[f"{names.GROUP}_{kinds.DEPLOYMENTS_PLURAL}.yaml"]
        await install_crd(client, renamed(definition, group))
        return await client.get(crd.CRD, alpha.name)

    async def same(name: str) -> Json:
        """The object as both versions show it."""
        shown = [await until_served(client, resource, name, namespace) for resource in (alpha, beta)]
        assert [one.pop("apiVersion") for one in shown] == [alpha.api_version, beta.api_version]
        for one in shown:
            for entry in one["metadata"].pop("managedFields"):
                assert entry["apiVersion"] in (alpha.api_version, beta.api_version)
        assert shown[0] == shown[1]
        return shown[0]

    def made(resource: Resource, name: str) -> Json:
        return manifest(resource, name, namespace, spec={"tier": "full", "context": CONTEXT})

    await served(names.VERSION)
    await client.apply(alpha, made(alpha, "old"), field_manager="kubectl")
    await served(names.VERSION, BETA)
    old = await same("old")
    await client.apply(beta, made(beta, "new"), field_manager="kubectl")
    assert (await same("new"))["spec"] == old["spec"]
    stored = storage_version(apiserver, beta)
    definition = await served(BETA, names.VERSION)
    await eventually(lambda: storage_version(apiserver, beta) != stored, f"the API server stores {BETA}")
    assert set(definition["status"]["storedVersions"]) == {names.VERSION, BETA}
    for name in ("old", "new"):
        # A write in any version stores the object anew.
        label = {"metadata": {"labels": {"stored": BETA}}}
        await client.patch(beta, name, namespace, label)
        assert (await same(name))["metadata"]["labels"] == {"stored": BETA}
    with pytest.raises(InvalidError, match="storedVersions"):
        await served(BETA)
    await client.patch(crd.CRD, alpha.name, None, {"status": {"storedVersions": [BETA]}}, subresource="status")
    await served(BETA)
    assert {one["metadata"]["name"] for one in (await client.list(beta, namespace))[0]} == {"old", "new"}


def storage_version(server: ApiServer, resource: Resource) -> str:
    """What the API server stores the kind as, a hash: a write before it has changed is stored the old way."""
    command = [str(kubectl()), f"--kubeconfig={server.kubeconfig}", "get", "--raw", f"/apis/{resource.api_version}"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=250).stdout)
    return str(next(one["storageVersionHash"] for one in found["resources"] if one["name"] == resource.plural))


async def until_served(client: ApiClient, resource: Resource, name: str, namespace: str) -> Json:
    """A version that has just come is served a moment later."""
    what = f"{resource.api_version} is served"
    return await eventually(lambda: client.get(resource, name, namespace), what, retry_on=(ApiError,))


async def test_a_status_that_was_owned_field_by_field_is_one_value_of_the_operators_once_the_definition_says_so(
    client: ApiClient, namespace: str
) -> None:
    kind = replace(kinds.R1PLUS_DEPLOYMENT, group=f"{namespace}.example.com")
    definition = crd.build_deployment_definition()
    definition["metadata"]["name"], definition["spec"]["group"] = kind.name, kind.group
    before = copy.deepcopy(definition)
    (version,) = before["spec"]["versions"]
    del version["schema"]["openAPIV3Schema"]["properties"]["status"]["x-kubernetes-map-type"]
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "credit", "namespace": namespace}}

    async def status(manager: str, condition: str) -> Json:
        since = {"status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        told = {"observedGeneration": 1, "conditions": [{"type": condition, **since}]}
        return await client.apply(kind, {**head, "status": told}, field_manager=manager, subresource="status")

    await install_crd(client, before)
    await client.apply(kind, {**head, "spec": {"tier": "full"}}, field_manager="kubectl")
    await status(names.FIELD_MANAGER, "Ready")
    assert len((await status("somebody", "Forged"))["status"]["conditions"]) == 2
    await install_crd(client, definition)

    async def whole() -> bool:
        conditions = (await status(names.FIELD_MANAGER, "Ready"))["status"]["conditions"]
        return [one["type"] for one in conditions] == ["Ready"]

    await eventually(whole, "the operator's status is the status")
    owned = {
        entry["manager"]: entry["fieldsV1"]
        for entry in (await client.get(kind, "credit", namespace))["metadata"]["managedFields"]
        if entry.get("subresource") == "status"
    }
    assert owned == {names.FIELD_MANAGER: {"f:status": {}}}
