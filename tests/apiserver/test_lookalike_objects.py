"""What a tenant's own admin writes on objects that the operator has made, or that look like them."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import (
    CHILD,
    ROLE_BINDING,
    Json,
    deployment,
    manifest,
    pod,
    r1plus_deployment,
    r1plus_tenant,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.people import Person, people, until_pods_are_taken
from support.apiserver.rights import OPERATOR
from support.apiserver.walls import assert_held, pod_of
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
OLGA = "olga"
ROLES = ("admin", "r1plus-tenant-admin")
SERVING = {
    names.LABEL_MANAGED_BY: names.MANAGED_BY,
    names.LABEL_NAME: "r1plus-serving",
    names.LABEL_DEPLOYMENT: "credit",
    names.LABEL_REVISION: "credit-0123456789",
    names.LABEL_SERVING: "true",
}
SERVICE = kinds.BY_KIND["Service"]
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
KEPT = {"ports": [{"port": 8001}], "publishNotReadyAddresses": True}
LIMIT = 256 * 1024
"""Bytes that Kubernetes lets an object have of annotations."""


@dataclass(frozen=True, slots=True)
class World:
    """A tenant's namespace with a pod that serves, a Service of the operator's, and an R1PlusDeployment."""

    namespace: str
    olga: Person
    operator: Person
    serving: str
    cr: Json

    def pod_path(self, name: str = "") -> str:
        return kinds.POD.path(self.namespace, name or self.serving)

    def build_service(self, **reference: bool) -> Json:
        """Return a Service of nobody's name that the R1PlusDeployment owns."""
        body = manifest(SERVICE, "credit", self.namespace, spec=KEPT)
        owner = {key: self.cr[key] for key in ("apiVersion", "kind")}
        meta = {key: self.cr["metadata"][key] for key in ("name", "uid")}
        body["metadata"]["ownerReferences"] = [{**owner, **meta, **reference}]
        return body


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person) -> Iterator[World]:
    namespace = f"look-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
    until_pods_are_taken(admin, namespace)
    for role in ROLES:
        admin.do("POST", ROLE_BINDING.path(namespace), role_binding(namespace, role, role, user(OLGA)))
    with people(installed_server, OLGA, OPERATOR) as who:
        olga, operator = who[OLGA], who[OPERATOR]
        olga.gets("create", "r1plusdeployments", namespace, names.GROUP)
        olga.gets("patch", "pods", namespace)
        deployments = kinds.BY_KIND["Deployment"].path(namespace)
        operator.do("POST", deployments, deployment("credit-0123456789", SERVING, CHILD))
        operator.do("POST", SERVICE.path(namespace), manifest(SERVICE, "r1plus-own", labels=CHILD, spec=KEPT))
        path = kinds.R1PLUS_DEPLOYMENT.path(namespace)
        cr = olga.do("POST", path, r1plus_deployment("credit", namespace, tier="full"))
        serving = pod_of(admin, namespace, f"{names.LABEL_SERVING}=true")
        olga.do("POST", kinds.POD.path(namespace), pod("own"))
        yield World(namespace, olga, operator, serving, cr)


LOOKALIKES = ("r1plus-ai/serving", "r1plus_ai_deployment", "r1plus.ai.revision", "r1plus.ai-serving")


@pytest.mark.parametrize("label", LOOKALIKES)
def test_finding_42_a_label_that_prometheus_reads_as_ours_is_refused(world: World, label: str) -> None:
    body = {"metadata": {"labels": {label: "quarantined"}}}
    for name in (world.serving, "own"):
        assert_held(world.olga.ask("PATCH", world.pod_path(name), body), "serving-pods", "Prometheus takes a label")
    made = world.olga.ask("POST", kinds.POD.path(world.namespace), pod("fake", labels={label: "credit"}))
    assert_held(made, "serving-pods", "metadata.labels")
    for name in (world.serving, "own"):
        other = world.olga.ask("PATCH", world.pod_path(name), {"metadata": {"labels": {"r1plus-team": "a"}}})
        assert other.status == 200, other


def test_finding_42_the_label_by_which_the_operator_reaches_a_monitor_stays(world: World) -> None:
    body = {"metadata": {"labels": {names.LABEL_NAME: "mine"}}}
    assert_held(world.olga.ask("PATCH", world.pod_path(), body), "serving-pods", "app.kubernetes.io/name")
    assert world.olga.ask("PATCH", world.pod_path("own"), body).status == 200


@pytest.mark.parametrize("field", ["annotations", "labels"])
def test_finding_43_metadata_of_others_leaves_the_operator_room(world: World, field: str) -> None:
    many = {"metadata": {field: {f"k{number}": "" for number in range(300)}}}
    large = {"metadata": {"annotations": {"example.com/fill": "x" * (LIMIT - 400)}}}
    small = {"metadata": {field: {"example.com/mine": "x"}}}
    service = SERVICE.path(world.namespace, "r1plus-own")
    for path, policy in ((world.pod_path(), "serving-pods"), (service, "children")):
        for body in (many, large):
            assert_held(world.olga.ask("PATCH", path, body), policy, "16384 bytes")
        assert world.olga.ask("PATCH", path, small).status == 200
    assert world.olga.ask("PATCH", world.pod_path("own"), large).status == 200


def test_finding_43_a_replica_set_is_held_to_the_same(world: World) -> None:
    items = json.loads(world.olga.ask("GET", REPLICA_SETS.path(world.namespace)).text)
    (name,) = [one["metadata"]["name"] for one in items["items"]]
    path = REPLICA_SETS.path(world.namespace, name)
    large = {"metadata": {"annotations": {"example.com/fill": "x" * (LIMIT - 2000)}}}
    assert_held(world.olga.ask("PATCH", path, large), "replica-sets", "16384 bytes")
    assert world.olga.ask("PATCH", path, {"metadata": {"annotations": {"example.com/mine": "x"}}}).status == 200


def test_finding_44_nobody_makes_what_an_r1plusdeployment_would_control(world: World) -> None:
    path = SERVICE.path(world.namespace)
    body = world.build_service(controller=True)
    assert_held(world.olga.ask("POST", path, body), "controllers", "leave out `controller`")
    assert world.olga.ask("POST", path, world.build_service()).status == 201
    body = manifest(SERVICE, "plain", world.namespace, spec={"ports": [{"port": 80}]})
    world.olga.do("POST", path, body)
    taken = {"metadata": {"ownerReferences": world.build_service(controller=True)["metadata"]["ownerReferences"]}}
    assert_held(world.olga.ask("PATCH", f"{path}/plain", taken), "controllers", "leave out `controller`")


ORPHANING: dict[str, Json] = {
    "its policy": {"propagationPolicy": "Orphan"},
    "what older clients write": {"orphanDependents": True},
}


@pytest.mark.parametrize("options", ORPHANING.values(), ids=ORPHANING)
def test_finding_41_a_tenants_admin_leaves_nothing_behind(world: World, admin: Person, options: Json) -> None:
    path = kinds.R1PLUS_DEPLOYMENT.path(world.namespace, "credit")
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}
    assert_held(world.olga.ask("DELETE", path, body | options), "deployments", "--cascade=orphan")
    for who, rest in ((admin, options), (world.olga, {}), (world.olga, {"propagationPolicy": "Foreground"})):
        answer = who.ask("DELETE", path, body | rest)
        assert answer.status == 200, answer


def test_finding_41_nor_by_the_finalizer_that_says_so(world: World, admin: Person) -> None:
    path = kinds.R1PLUS_DEPLOYMENT.path(world.namespace, "credit")
    for name, policy in (("orphan", "deployments"), ("example.com/mine", "")):
        answer = world.olga.ask("PATCH", path, {"metadata": {"finalizers": [name]}})
        assert (answer.status == 403) == bool(policy), answer
    assert admin.ask("PATCH", path, {"metadata": {"finalizers": ["orphan"]}}).status == 200


def test_finding_43_many_annotations_of_an_r1plusdeployment_are_refused_at_once(world: World) -> None:
    path = kinds.R1PLUS_DEPLOYMENT.path(world.namespace, "credit")
    many = {f"k{number}": "" for number in range(300)} | {"r1plus.ai/requested-pin": "x"}
    answer = world.olga.ask("PATCH", path, {"metadata": {"annotations": many}})
    assert answer.status == 403, answer


def test_finding_45_a_tenant_that_is_being_deleted_gets_no_new_deployment(world: World, admin: Person) -> None:
    namespace = f"going-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
    tenants, deployments = kinds.R1PLUS_TENANT.path(namespace), kinds.R1PLUS_DEPLOYMENT.path(namespace)
    admin.do("POST", tenants, r1plus_tenant(namespace))
    admin.do("PATCH", f"{tenants}/{names.TENANT}", {"metadata": {"finalizers": ["example.com/holds-it"]}})
    body = r1plus_deployment("credit", namespace, tier="full")
    wait_until(lambda: admin.ask("POST", deployments, body).status == 201, "the namespace is a tenant")
    admin.do("POST", deployments, body)
    admin.do("DELETE", f"{tenants}/{names.TENANT}")
    other = r1plus_deployment("other", namespace, tier="full")
    wait_until(lambda: admin.ask("POST", deployments, other).status == 403, "no new deployment is taken")
    assert_held(admin.ask("POST", deployments, other), "placement", "is being deleted")
    assert admin.ask("PATCH", f"{deployments}/credit", {"spec": {"replicas": 2}}).status == 200
