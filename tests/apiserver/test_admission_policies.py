"""The chart's ValidatingAdmissionPolicies, in force on the real API server beside the real controllers and operator.

Whom they refuse may do everything in his namespace as far as RBAC goes: it is the policy that says no.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from apiserver.conftest import NAMESPACES, RESTRICTED
from apiserver.operator_rig import ACCOUNT, Monitors, OperatorProcess, Tenant, add_node, eventually, grant
from apiserver.tenancy_rig import KINDS as INSTALLED
from apiserver.tenancy_rig import lift, policies
from devcluster.apiserver_only import ApiServer
from fuzz.judges import Server
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, ForbiddenError
from r1plus_operator.runtime.resources import Resource

pytestmark = pytest.mark.apiserver

ROLE_BINDING = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet")
CRON_JOB = Resource("batch", "v1", "cronjobs", "CronJob")
SERVING = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_REVISION: "credit-0123456789", names.LABEL_SERVING: "true"}
ALICE = "alice"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def policed(apiserver_with_controllers: ApiServer) -> Iterator[ApiServer]:
    """The server with the policies in force, and without them afterwards, for the other tests."""
    asyncio.run(_enforce(apiserver_with_controllers))
    yield apiserver_with_controllers
    asyncio.run(_lift(apiserver_with_controllers))


async def _enforce(server: ApiServer) -> None:
    async with ApiClient.from_kubeconfig(server.kubeconfig) as admin:
        for policy in policies():
            await admin.apply(INSTALLED[policy["kind"]], policy, field_manager="helm")
    await eventually(lambda: _in_force(server), "the policies are in force")


async def _lift(server: ApiServer) -> None:
    await lift(server)

    async def lifted() -> bool:
        return not await _in_force(server)

    await eventually(lifted, "the policies are lifted")


async def _in_force(server: ApiServer) -> bool:
    """Each takes hold a moment after it was written: one refusal of the last one written tells."""
    text = json.dumps(deployment("default", "probe"))
    async with Server(server.kubeconfig) as asked:
        verdict = await asked.ask("POST", kinds.R1PLUS_DEPLOYMENT, text, lambda made: made, namespace="default")
    return not verdict.admitted


@dataclass(frozen=True, slots=True)
class World:
    """A tenant with a deployment that the operator brings up, and alice, who may do everything in its namespace."""

    tenant: Tenant
    alice: ApiClient
    operator: ApiClient
    revision: str

    @property
    def namespace(self) -> str:
        return self.tenant.namespace


@pytest.fixture
async def world(policed: ApiServer, tmp_path: Path) -> AsyncIterator[World]:
    name = f"t-{uuid.uuid4().hex[:10]}"
    async with ApiClient.from_kubeconfig(policed.kubeconfig) as admin:
        meta: Json = {"name": name, "labels": RESTRICTED}
        await admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        await _make_admin(admin, name)
        await grant(admin)
        await add_node(admin)
        process = OperatorProcess(policed, tmp_path / "operator.log")
        process.start()
        try:
            tenant = Tenant(admin, name, Monitors())
            account = policed.kubeconfig_for(ACCOUNT, ("system:serviceaccounts", "system:authenticated"))
            async with (
                ApiClient.from_kubeconfig(policed.kubeconfig_for(ALICE)) as alice,
                ApiClient.from_kubeconfig(account) as operator,
            ):
                await eventually(lambda: _may(alice, name), "alice's rights are known")
                await tenant.deploy("credit", tier="full", context={"maxTokens": 1024})
                revision = await tenant.candidate("credit")
                await tenant.present("Service", "credit")
                yield World(tenant, alice, operator, revision)
        finally:
            process.kill()


async def _make_admin(admin: ApiClient, namespace: str) -> None:
    group = ROLE_BINDING.group
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": ALICE, "namespace": namespace},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": ALICE}],
    }
    await admin.create(ROLE_BINDING, binding)


async def _may(alice: ApiClient, namespace: str) -> bool:
    try:
        await alice.list(kinds.CONFIG_MAP, namespace)
    except ForbiddenError:
        return False
    return True


def deployment(namespace: str, name: str) -> Json:
    """An R1PlusDeployment."""
    head = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT}
    return {**head, "metadata": {"name": name, "namespace": namespace}, "spec": {"tier": "full"}}


def template(labels: Json) -> Json:
    """A pod template that Pod Security `restricted` takes."""
    locked = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "c", "image": "registry.local/c:1", "securityContext": locked}
    security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"metadata": {"labels": labels}, "spec": {"containers": [container], "securityContext": security}}


async def pod(world: World, labels: Json, name: str = "own") -> None:
    """A pod that alice makes herself."""
    made = template(labels)
    meta = made["metadata"] | {"name": name, "namespace": world.namespace}
    await world.alice.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": made["spec"]})


async def mounting(world: World, claim: str, labels: Json, name: str) -> None:
    """A pod of alice's that mounts a claim."""
    made = template({"app": "own", **labels})
    made["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    meta = made["metadata"] | {"name": name, "namespace": world.namespace}
    await world.alice.create(kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": made["spec"]})


async def own_deployment(world: World, labels: Json) -> None:
    """A Deployment that alice makes herself."""
    spec = {"selector": {"matchLabels": {"app": "own"}}, "template": template({"app": "own", **labels})}
    head: Json = {"apiVersion": "apps/v1", "kind": "Deployment"}
    await world.alice.create(
        kinds.BY_KIND["Deployment"], {**head, "metadata": {"name": "own", "namespace": world.namespace}, "spec": spec}
    )


async def cron_job(world: World, labels: Json) -> None:
    """A CronJob that alice makes herself."""
    made = template(labels)
    made["spec"]["restartPolicy"] = "Never"
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": made}}}
    meta = {"name": "own", "namespace": world.namespace}
    await world.alice.create(CRON_JOB, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": spec})


def edit(kind: str, body: Json, *, of_revision: bool = False, suffix: str = "") -> Callable[[World], Awaitable[object]]:
    """alice patches a child."""

    async def attempt(world: World) -> object:
        name = world.revision if of_revision else f"credit{suffix}"
        await world.tenant.present(kind, name)
        return await world.alice.patch(kinds.BY_KIND[kind], name, world.namespace, body)

    return attempt


async def serving_pod(world: World) -> str:
    """Name of the pod that the controllers have made of the revision: theirs is the way that stays open."""
    found: list[Json] = []

    async def there() -> bool:
        nonlocal found
        selector = f"{names.LABEL_REVISION}={world.revision}"
        found = (await world.tenant.client.list(kinds.POD, world.namespace, label_selector=selector))[0]
        return bool(found)

    await eventually(there, "the ReplicaSet controller has made the revision's pod")
    return str(found[0]["metadata"]["name"])


async def another_image(world: World) -> None:
    body = {"spec": {"containers": [{"name": "triton", "image": "registry.local/other:1"}]}}
    merge = "application/strategic-merge-patch+json"
    await world.alice.patch(kinds.POD, await serving_pod(world), world.namespace, body, content_type=merge)


async def out_of_service(world: World) -> None:
    body = {"metadata": {"labels": {names.LABEL_SERVING: None}}}
    await world.alice.patch(kinds.POD, await serving_pod(world), world.namespace, body)


async def relabelled(world: World, subresource: str = "") -> None:
    name = f"own{subresource}"
    await pod(world, {"app": "own"}, name)
    body = {"metadata": {"labels": SERVING}}
    await world.alice.patch(kinds.POD, name, world.namespace, body, subresource=subresource)


async def forged_revision(world: World) -> None:
    stored = await world.tenant.present("ControllerRevision", world.revision)
    meta = {key: stored["metadata"][key] for key in ("labels", "ownerReferences", "namespace")}
    await world.alice.create(kinds.BY_KIND["ControllerRevision"], stored | {"metadata": meta | {"name": "credit-0"}})


async def forged_status(world: World) -> None:
    body = {"status": {"verdict": "Pass"}}
    await world.alice.patch(kinds.R1PLUS_DEPLOYMENT, "credit", world.namespace, body, subresource="status")


CHILDREN, PODS, TEMPLATES, DEPLOYMENTS = "children", "serving-pods", "serving-templates", "deployments"
VOLUMES, ENGINE_CLAIM = "engine-volumes", "r1plus-engine-0123456789abcdef"
REFUSED: dict[str, tuple[Callable[[World], Awaitable[object]], str]] = {
    "a verdict forged on a ControllerRevision": (
        edit("ControllerRevision", {"metadata": {"annotations": {names.ANNOTATION_VERDICT: "{}"}}}, of_revision=True),
        CHILDREN,
    ),
    "a promotion forged on a ControllerRevision": (
        edit("ControllerRevision", {"metadata": {"annotations": {names.ANNOTATION_PROMOTED_AT: "1"}}}, of_revision=True),
        CHILDREN,
    ),
    "a ControllerRevision of one's own making": (forged_revision, CHILDREN),
    "another order of ControllerRevisions": (edit("ControllerRevision", {"revision": 99}, of_revision=True), CHILDREN),
    "verdicts forged for the monitors": (edit("ConfigMap", {"data": {"verdicts.json": "{}"}}, suffix="-accuracy"), CHILDREN),
    "a wall opened": (edit("NetworkPolicy", {"spec": {"ingress": [{}]}}), CHILDREN),
    "traffic moved by hand": (edit("Service", {"spec": {"selector": {"app": "own"}}}), CHILDREN),
    "another pod template": (edit("Deployment", {"spec": {"replicas": 7}}, of_revision=True), CHILDREN),
    "a token for the serving pods": (edit("ServiceAccount", {"automountServiceAccountToken": True}), CHILDREN),
    "a child that loses its mark": (edit("Service", {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}), CHILDREN),
    "a child that loses its owner": (edit("Service", {"metadata": {"ownerReferences": None}}), CHILDREN),
    "a pod that poses as serving": (lambda world: pod(world, SERVING), PODS),
    "a pod made serving afterwards": (relabelled, PODS),
    "a pod made serving by its status": (lambda world: relabelled(world, "status"), PODS),
    "a serving pod with another image": (another_image, PODS),
    "a serving pod taken out of service": (out_of_service, PODS),
    "a pod that mounts an engine's volume": (lambda world: mounting(world, ENGINE_CLAIM, {}, "reads"), VOLUMES),
    "a pod that mounts an engine's volume as its own": (
        lambda world: mounting(world, ENGINE_CLAIM, {names.LABEL_VOLUME: ENGINE_CLAIM}, "reads-as-ours"), PODS,
    ),
    "a Deployment whose pods would pose as serving": (lambda world: own_deployment(world, SERVING), TEMPLATES),
    "a CronJob whose pods would pose as serving": (lambda world: cron_job(world, SERVING), TEMPLATES),
    "a status written by hand": (forged_status, DEPLOYMENTS),
}  # fmt: skip
ALLOWED: dict[str, Callable[[World], Awaitable[object]]] = {
    "a label of one's own on a child": edit("Service", {"metadata": {"labels": {"team": "blue"}}}),
    "an annotation of one's own on a child": edit("Deployment", {"metadata": {"annotations": {"a/b": "c"}}}, of_revision=True),
    "a plain pod": lambda world: pod(world, {"app": "own"}, "plain"),
    "a pod with a claim of one's own": lambda world: mounting(world, "my-own-data", {}, "mine"),
    "a plain Deployment": lambda world: own_deployment(world, {}),
    "a plain CronJob": lambda world: cron_job(world, {"app": "own"}),
    "another R1PlusDeployment": lambda world: world.alice.create(kinds.R1PLUS_DEPLOYMENT, deployment(world.namespace, "other")),
}  # fmt: skip


async def answer(world: World, attempt: Callable[[World], Awaitable[object]]) -> str:
    """What the API server says to it."""
    try:
        await attempt(world)
    except ApiError as error:
        return str(error)
    return "done as asked"


async def test_what_a_tenant_may_not_do_is_refused_by_name_and_the_operator_and_controllers_go_on(world: World) -> None:
    answers = {what: await answer(world, attempt) for what, (attempt, _) in REFUSED.items()}
    denied = {what: f"ValidatingAdmissionPolicy 'r1plus-operator-{policy}'" for what, (_, policy) in REFUSED.items()}
    assert {what: text for what, text in answers.items() if denied[what] not in text} == {}
    for attempt_allowed in ALLOWED.values():
        await attempt_allowed(world)
    await serving_pod(world)
    sets, _ = await world.tenant.client.list(REPLICA_SET, world.namespace)
    assert {item["metadata"]["labels"].get(names.LABEL_REVISION) for item in sets} >= {world.revision}


async def test_a_child_deleted_by_a_tenant_comes_back_under_the_policies(world: World) -> None:
    before = await world.tenant.present("NetworkPolicy", "credit")
    await world.alice.delete(kinds.BY_KIND["NetworkPolicy"], "credit", world.namespace)

    async def back() -> bool:
        found = await world.tenant.child("NetworkPolicy", "credit")
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    await eventually(back, "the wall is back")


async def test_children_go_with_their_deployment(world: World) -> None:
    await world.alice.delete(kinds.R1PLUS_DEPLOYMENT, "credit", world.namespace)
    await world.tenant.absent("Deployment", world.revision)
    await world.tenant.absent("Service", "credit")
    await world.tenant.absent("NetworkPolicy", "credit")


async def test_the_operator_takes_over_nothing_that_somebody_else_made(world: World) -> None:
    """A deployment named like the namespace's own wall must not have the operator tear it down."""
    wall = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    meta = {"name": "default-deny", "namespace": world.namespace}
    policy = kinds.BY_KIND["NetworkPolicy"]
    await world.tenant.client.create(
        policy, {"apiVersion": policy.api_version, "kind": policy.kind, "metadata": meta, "spec": wall}
    )
    await world.tenant.deploy("default-deny", tier="full")
    await world.tenant.present("ServiceAccount", "default-deny")
    stands = await world.tenant.present("NetworkPolicy", "default-deny")
    assert (stands["spec"], "ownerReferences" in stands["metadata"]) == (wall, False)
    with pytest.raises(ForbiddenError, match="takes over nothing"):
        await world.operator.apply(
            policy,
            {"apiVersion": policy.api_version, "kind": policy.kind, "metadata": meta, "spec": {"podSelector": {}}},
            field_manager=names.FIELD_MANAGER,
        )
    with pytest.raises(ForbiddenError, match="takes over nothing"):
        await world.operator.delete(policy, "default-deny", world.namespace)


async def test_a_deployment_outside_a_tenants_namespace_is_refused_with_the_remedy(policed: ApiServer) -> None:
    async with ApiClient.from_kubeconfig(policed.kubeconfig) as admin:
        name = f"p-{uuid.uuid4().hex[:10]}"
        await admin.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        with pytest.raises(ForbiddenError, match=rf"{name} is no tenant.*r1plus.ai/tenant=true"):
            await admin.create(kinds.R1PLUS_DEPLOYMENT, deployment(name, "credit"))
        with pytest.raises(ForbiddenError, match=r"default is Kubernetes'.*make another namespace"):
            await admin.create(kinds.R1PLUS_DEPLOYMENT, deployment("default", "credit"))


async def test_the_api_servers_type_check_finds_nothing_to_warn_of(policed: ApiServer) -> None:
    async with ApiClient.from_kubeconfig(policed.kubeconfig) as admin:
        found: dict[str, Json] = {}

        async def checked() -> bool:
            nonlocal found
            listed, _ = await admin.list(INSTALLED["ValidatingAdmissionPolicy"])
            found = {one["metadata"]["name"]: (one.get("status") or {}).get("typeChecking") for one in listed}
            return None not in found.values()

        await eventually(checked, "every policy's expressions are checked")
    assert found == {one["metadata"]["name"]: {} for one in policies() if one["kind"] == "ValidatingAdmissionPolicy"}
