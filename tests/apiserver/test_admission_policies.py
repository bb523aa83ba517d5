"""The chart's ValidatingAdmissionPolicies, in force on the real API server beside the real controllers and operator.

Whom they refuse may do everything in his namespace as far as RBAC goes: it is the policy that says no.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, ForbiddenError
from r1plus_operator.runtime.resources import Resource
from support.apiserver.chart import INSTALLED, policies
from support.apiserver.manifests import (
    CONTEXT,
    POLICY,
    ROLE_BINDING,
    Json,
    deployment,
    manifest,
    pod,
    pod_template,
    r1plus_deployment,
    role_binding,
    user,
)
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import Person, groups_of, until_pods_are_taken
from support.apiserver.rights import OPERATOR
from support.apiserver.tenant import Tenant
from support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]

REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet")
CRON_JOB = Resource("batch", "v1", "cronjobs", "CronJob")
SERVING = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_REVISION: "credit-0123456789", names.LABEL_SERVING: "true"}
ALICE = "alice"


@pytest.fixture(scope="module")
def server(installed_server: ApiServer) -> ApiServer:
    """With the policies in force."""
    return installed_server


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

    async def create(self, resource: Resource, body: Json) -> None:
        """As alice, in her namespace."""
        body["metadata"]["namespace"] = self.namespace
        await self.alice.create(resource, body)


@pytest.fixture
async def world(server: ApiServer, admin: Person, operator: OperatorProcess, tenant: Tenant) -> AsyncIterator[World]:
    until_pods_are_taken(admin, tenant.namespace)
    await tenant.client.create(ROLE_BINDING, role_binding(tenant.namespace, ALICE, "cluster-admin", user(ALICE)))
    async with (
        ApiClient.from_kubeconfig(server.kubeconfig_for(ALICE)) as alice,
        ApiClient.from_kubeconfig(server.kubeconfig_for(OPERATOR, groups_of(OPERATOR))) as as_operator,
    ):

        async def alice_may() -> bool:
            await alice.list(kinds.CONFIG_MAP, tenant.namespace)
            return True

        await eventually(alice_may, "alice's rights are known", retry_on=(ForbiddenError,))
        await tenant.deploy("credit", tier="full", context=CONTEXT)
        revision = await tenant.candidate("credit")
        await tenant.present("Service", "credit")
        yield World(tenant, alice, as_operator, revision)


async def own_pod(world: World, labels: Json, name: str = "own") -> None:
    """A pod that alice makes herself."""
    await world.create(kinds.POD, pod(name, labels=labels))


async def mounting(world: World, claim: str, labels: Json, name: str) -> None:
    """A pod of alice's that mounts a claim."""
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    await world.create(kinds.POD, pod(name, labels={"app": "own", **labels}, volumes=volumes))


async def own_deployment(world: World, labels: Json) -> None:
    """A Deployment that alice makes herself."""
    body = deployment("own", {"app": "own", **labels})
    body["spec"]["selector"] = {"matchLabels": {"app": "own"}}
    await world.create(kinds.BY_KIND["Deployment"], body)


async def cron_job(world: World, labels: Json) -> None:
    """A CronJob that alice makes herself."""
    template = pod_template(labels)
    template["spec"]["restartPolicy"] = "Never"
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}
    await world.create(CRON_JOB, manifest(CRON_JOB, "own", spec=spec))


def edit(kind: str, body: Json, *, of_revision: bool = False, suffix: str = "") -> Callable[[World], Awaitable[object]]:
    """alice patches a child."""

    async def attempt(world: World) -> object:
        name = world.revision if of_revision else f"credit{suffix}"
        await world.tenant.present(kind, name)
        return await world.alice.patch(kinds.BY_KIND[kind], name, world.namespace, body)

    return attempt


async def serving_pod(world: World) -> str:
    """Name of the pod that the controllers have made of the revision: theirs is the way that stays open."""
    selector = f"{names.LABEL_REVISION}={world.revision}"
    found = await eventually(
        lambda: world.tenant.listed("Pod", selector), "the ReplicaSet controller has made the revision's pod"
    )
    return str(found[0]["metadata"]["name"])


async def another_image(world: World) -> None:
    body = {"spec": {"containers": [{"name": "triton", "image": "registry.local/other:1"}]}}
    merge = "application/strategic-merge-patch+json"
    await world.alice.patch(kinds.POD, await serving_pod(world), world.namespace, body, content_type=merge)


async def with_own_claim(world: World, volume: str) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    body = pod("r1plus", world.namespace)
    body["spec"]["volumes"] = [{"name": volume, "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}]
    await world.alice.create(kinds.POD, body)


def serving_pod_with(**metadata: Any) -> Callable[[World], Awaitable[object]]:
    """Patch the metadata of the pod that serves."""

    async def attempt(world: World) -> None:
        await world.alice.patch(kinds.POD, await serving_pod(world), world.namespace, {"metadata": metadata})

    return attempt


async def relabelled(world: World, subresource: str = "") -> None:
    name = f"own{subresource}"
    await own_pod(world, {"app": "own"}, name)
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
    "a pod that poses as serving": (lambda world: own_pod(world, SERVING), PODS),
    "a pod made serving afterwards": (relabelled, PODS),
    "a pod made serving by its status": (lambda world: relabelled(world, "status"), PODS),
    "a serving pod with another image": (another_image, PODS),
    "a serving pod taken out of service": (serving_pod_with(labels={names.LABEL_SERVING: None}), PODS),
    "a serving pod that loses its mark": (serving_pod_with(labels={names.LABEL_MANAGED_BY: None}), PODS),
    "a serving pod that the operator's own network policy lets it reach no more": (serving_pod_with(labels={names.LABEL_NAME: "x"}), PODS),
    "a serving pod that its ReplicaSet lets go": (serving_pod_with(labels={"pod-template-hash": None}), PODS),
    "a serving pod without an owner": (serving_pod_with(ownerReferences=None), PODS),
    "a serving pod that cannot be deleted": (serving_pod_with(finalizers=["example.com/mine"]), PODS),
    "a Service that no kube-proxy follows": (
        edit("Service", {"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "nobody"}}}), CHILDREN,
    ),
    "a pod whose own claim would have an engine's name": (lambda world: with_own_claim(world, "engine-0"), VOLUMES),
    "a serving pod of another's": (serving_pod_with(annotations={names.ANNOTATION_OWNER_UID: "u"}), PODS),
    "a serving pod in quarantine by hand": (serving_pod_with(annotations={names.ANNOTATION_QUARANTINE: "{}"}), PODS),
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
    "a label and a note of one's own on a serving pod": serving_pod_with(labels={"team": "blue"}, annotations={"a/b": "c"}),
    "a plain pod": lambda world: own_pod(world, {"app": "own"}, "plain"),
    "a pod with an ephemeral volume": lambda world: with_own_claim(world, "cache"),
    "a pod with a claim of one's own": lambda world: mounting(world, "my-own-data", {}, "mine"),
    "a plain Deployment": lambda world: own_deployment(world, {}),
    "a plain CronJob": lambda world: cron_job(world, {"app": "own"}),
    "another R1PlusDeployment": lambda world: world.create(kinds.R1PLUS_DEPLOYMENT, r1plus_deployment("other")),
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
    await world.tenant.present("NetworkPolicy", "credit", other_than=before)


async def test_children_go_with_their_deployment(world: World) -> None:
    await world.alice.delete(kinds.R1PLUS_DEPLOYMENT, "credit", world.namespace)
    await world.tenant.absent("Deployment", world.revision)
    await world.tenant.absent("Service", "credit")
    await world.tenant.absent("NetworkPolicy", "credit")


async def test_the_operator_takes_over_nothing_that_somebody_else_made(world: World) -> None:
    """A deployment named like the namespace's own wall must not have the operator tear it down."""
    network_policy = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    policy = kinds.BY_KIND["NetworkPolicy"]
    body = manifest(policy, "default-deny", world.namespace, spec=network_policy)
    await world.tenant.client.create(policy, body)
    await world.tenant.deploy("default-deny", tier="full")
    await world.tenant.until("default-deny", "Progressing", "False", "WriteRefused")
    stands = await world.tenant.present("NetworkPolicy", "default-deny")
    assert (stands["spec"], "ownerReferences" in stands["metadata"]) == (network_policy, False)
    with pytest.raises(ForbiddenError, match="does not overwrite it"):
        await world.operator.apply(policy, body | {"spec": {"podSelector": {}}}, field_manager=names.FIELD_MANAGER)
    with pytest.raises(ForbiddenError, match="does not overwrite it"):
        await world.operator.delete(policy, "default-deny", world.namespace)


async def test_a_deployment_outside_a_tenants_namespace_is_refused_with_the_remedy(
    client: ApiClient, tenant: Tenant
) -> None:
    name = f"p-{tenant.namespace}"
    await client.create(kinds.NAMESPACE, manifest(kinds.NAMESPACE, name))
    labels = "r1plus.ai/tenant=true pod-security.kubernetes.io/enforce=restricted"
    with pytest.raises(ForbiddenError, match=rf"{name} is not a tenant.*kubectl label namespace {name} {labels}"):
        await client.create(kinds.R1PLUS_DEPLOYMENT, r1plus_deployment(namespace=name))
    with pytest.raises(ForbiddenError, match=r"default is reserved for Kubernetes.*use another namespace"):
        await client.create(kinds.R1PLUS_DEPLOYMENT, r1plus_deployment(namespace="default"))


async def test_the_api_servers_type_check_finds_nothing_to_warn_of(client: ApiClient) -> None:
    charts = {one["metadata"]["name"] for one in policies() if one["kind"] == POLICY.kind}

    async def checked() -> dict[str, Json] | None:
        listed, _ = await client.list(INSTALLED[POLICY.kind])
        named = {one["metadata"]["name"]: one for one in listed}
        found = {name: (named[name].get("status") or {}).get("typeChecking") for name in charts}
        return None if None in found.values() else found

    assert await eventually(checked, "every policy's expressions are checked") == {name: {} for name in charts}
