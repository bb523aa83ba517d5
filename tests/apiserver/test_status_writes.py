"""Ways around the policies on children and serving pods: by a status, or by an EndpointSlice.

Kubernetes' own `admin` may write neither. A Role with `resources: ["*"]` may, and on clusters that were made before
Kubernetes 1.22 `edit` may write EndpointSlices.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.manifests import (
    CHILD,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    Json,
    cluster_role_binding,
    deployment,
    manifest,
    pod,
    pod_template,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.people import Person, people, person, until_pods_are_taken
from support.apiserver.rights import OPERATOR
from support.apiserver.walls import assert_held, pod_of
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
MALLORY, MESH, AGENT = "mallory", "mesh", "agent"
OWN, OURS = "mallorys-own", "r1plus-engine-0123456789"
SERVING = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_REVISION: "credit-0123456789", names.LABEL_SERVING: "true"}
GROUPS = ("", "apps", "batch", "policy", "discovery.k8s.io")

BODIES: dict[str, dict[str, Any]] = {
    "Service": {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}},
    "Deployment": {"spec": deployment("d", {"a": "b"})["spec"]},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}},
    "PersistentVolumeClaim": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    "Job": {"spec": {"template": {"spec": pod_template({})["spec"] | {"restartPolicy": "Never"}}}},
    "ResourceQuota": {"spec": {"hard": {"pods": "1000"}}},
}
"""Every kind of child that has a status here."""
KINDS = {kind: kinds.BY_KIND[kind] for kind in BODIES}


@dataclass(frozen=True, slots=True)
class World:
    """A tenant's namespace with a child of each kind, and a pod that serves."""

    namespace: str
    mallory: Person
    serving: str
    own: str

    def status_path(self, kind: str, name: str) -> str:
        return f"{kinds.BY_KIND[kind].path(self.namespace, name)}/status"


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person) -> Iterator[World]:
    namespace = f"s-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
    until_pods_are_taken(admin, namespace)
    rules = [{"apiGroups": list(GROUPS), "resources": ["*"], "verbs": ["*"]}]
    admin.do("POST", ROLE.path(namespace), manifest(ROLE, "all", rules=rules))
    admin.do("POST", ROLE_BINDING.path(namespace), role_binding(namespace, "all", "all", user(MALLORY), kind="Role"))
    with people(installed_server, MALLORY, OPERATOR) as who:
        mallory, operator = who[MALLORY], who[OPERATOR]
        mallory.gets("patch", "pods", namespace, "", "status")
        for kind, resource in KINDS.items():
            path = resource.path(namespace)
            operator.do("POST", path, manifest(resource, OURS, labels=CHILD, **BODIES[kind]))
            mallory.do("POST", path, manifest(resource, OWN, **BODIES[kind]))
        revision = deployment("credit-0123456789", SERVING, CHILD)
        operator.do("POST", KINDS["Deployment"].path(namespace), revision)
        serving = pod_of(admin, namespace, f"{names.LABEL_SERVING}=true")
        mallory.do("POST", kinds.POD.path(namespace), pod("own"))
        yield World(namespace, mallory, serving, "own")


METADATA: dict[str, Json] = {
    "the mark": {"labels": {names.LABEL_MANAGED_BY: None}},
    "whose it is": {"labels": {names.LABEL_DEPLOYMENT: "other"}},
    "its owner": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]},
    "when it may be deleted": {"finalizers": ["mallory/keeps-it"]},
}


TAKINGS = [
    pytest.param(kind, edit, id=f"{what} of a {kind}")
    for what, edit in METADATA.items()
    for kind in KINDS
    if (kind, what) != ("PersistentVolumeClaim", "when it may be deleted")
]
"""Kubernetes and drivers have finalizers of their own on claims, and anyone may add one."""


@pytest.mark.parametrize(("kind", "edit"), TAKINGS)
def test_finding_01_no_child_is_taken_by_its_status(world: World, kind: str, edit: Json) -> None:
    path = KINDS[kind].path(world.namespace, OURS)
    before = json.loads(world.mallory.ask("GET", path).text)["metadata"]
    answer = world.mallory.ask("PATCH", f"{path}/status", {"metadata": edit})
    if answer.status == 200:  # Of some kinds and fields the API server itself takes nothing from a status.
        after = json.loads(answer.text)["metadata"]
        assert {field: after.get(field) for field in edit} == {field: before.get(field) for field in edit}
    else:
        assert_held(answer, "children", "belongs to the operator")
    own = world.mallory.ask("PATCH", world.status_path(kind, OWN), {"metadata": edit})
    assert own.status == 200, own


STATUSES: dict[str, tuple[str, Json]] = {
    "a Deployment whose pods nothing refuses": ("Deployment", {"observedGeneration": 7}),
    "a Job that has ended": ("Job", {"failed": 3}),
    "a budget that lets nothing go": ("PodDisruptionBudget", {"disruptionsAllowed": 0, "observedGeneration": 7}),
    "a quota that is used up": ("ResourceQuota", {"used": {"pods": "1000"}, "hard": {"pods": "1000"}}),
}


@pytest.mark.parametrize(("kind", "status"), STATUSES.values(), ids=STATUSES)
def test_finding_01_nobody_writes_the_status_of_a_child(world: World, admin: Person, kind: str, status: Json) -> None:
    path, body = world.status_path(kind, OURS), {"status": status}
    assert_held(world.mallory.ask("PATCH", path, body), "children", "status: Kubernetes writes it")
    for allowed in (world.mallory.ask("PATCH", world.status_path(kind, OWN), body), admin.ask("PATCH", path, body)):
        assert allowed.status == 200, allowed


RUNS: Json = {"name": "c", "image": "x:1", "imageID": f"x@sha256:{'a' * 64}", "ready": True, "restartCount": 0}
SAID: dict[str, Json] = {
    "where it answers": {"podIP": "10.9.8.7", "podIPs": [{"ip": "10.9.8.7"}]},
    "which image it runs": {"containerStatuses": [RUNS]},
    "that it is Ready": {"conditions": [{"type": "Ready", "status": "True"}]},
    "that it has failed": {"phase": "Failed"},
}
NODE = "system:node:n1"


@pytest.mark.parametrize("status", SAID.values(), ids=SAID)
def test_finding_01_only_its_node_says_of_a_serving_pod(world: World, admin: Person, status: Json) -> None:
    path, body = world.status_path("Pod", world.serving), {"status": status}
    assert_held(world.mallory.ask("PATCH", path, body), "serving-pods", "status: where a serving pod answers")
    for allowed in (
        world.mallory.ask("PATCH", world.status_path("Pod", world.own), body),
        admin.ask("PATCH", path, body),
    ):
        assert allowed.status == 200, allowed
    note = {"status": {"conditions": [{"type": "example.com/Seen", "status": "True"}]}}
    assert world.mallory.ask("PATCH", path, note).status == 200


def test_finding_01_a_nodes_kubelet_reports_its_pods(world: World, admin: Person, installed_server: ApiServer) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}]
    admin.do("POST", ROLE.path(world.namespace), manifest(ROLE, "reports", rules=rules))
    given = role_binding(world.namespace, "reports", "reports", user(NODE), kind="Role")
    admin.do("POST", ROLE_BINDING.path(world.namespace), given)
    with person(installed_server, NODE, ("system:nodes",)) as kubelet:
        kubelet.gets("patch", "pods", world.namespace, "", "status")
        answer = kubelet.ask("PATCH", world.status_path("Pod", world.serving), {"status": SAID["where it answers"]})
        assert "serving-pods" not in answer.text, answer


def leading_elsewhere(service: str) -> Json:
    """Return an EndpointSlice that adds an address to a Service."""
    labels = {"kubernetes.io/service-name": service}
    made = manifest(kinds.ENDPOINT_SLICE, "mine", labels=labels, addressType="IPv4")
    ports = [{"name": "grpc", "port": 8001, "protocol": "TCP"}]
    return made | {"ports": ports, "endpoints": [{"addresses": ["10.9.8.7"]}]}


@pytest.mark.parametrize("service", ["credit", "credit-pods", "gateway"])
def test_finding_01_nobody_adds_an_address_to_a_service(
    world: World, admin: Person, installed_server: ApiServer, service: str
) -> None:
    path, made = kinds.ENDPOINT_SLICE.path(world.namespace), leading_elsewhere(service)
    assert_held(world.mallory.ask("POST", path, made), "endpoints", "leads callers of a Service elsewhere")
    own = made | {"metadata": {"name": f"own-{service}"}}
    admin.do("POST", path, own)
    labelled = {"metadata": {"labels": made["metadata"]["labels"]}}
    assert_held(world.mallory.ask("PATCH", f"{path}/own-{service}", labelled), "endpoints", "leads callers")
    controller = "system:serviceaccount:kube-system:endpointslice-controller"
    with people(installed_server, controller) as who:
        for one in (admin, who[controller]):
            assert one.ask("POST", path, made).status == 201


def test_finding_01_what_writes_addresses_everywhere_goes_on(
    world: World, admin: Person, installed_server: ApiServer
) -> None:
    rules = [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["create"]}]
    admin.do("POST", CLUSTER_ROLE.path(), manifest(CLUSTER_ROLE, "mesh", rules=rules))
    admin.do("POST", CLUSTER_ROLE_BINDING.path(), cluster_role_binding("mesh", "mesh", user(MESH)))
    path = kinds.ENDPOINT_SLICE.path(world.namespace)
    with people(installed_server, MESH) as who:
        who[MESH].gets("create", "endpointslices", world.namespace, "discovery.k8s.io")
        wait_until(lambda: who[MESH].ask("POST", path, leading_elsewhere("own")).status == 201, "the mesh is let in")


def test_finding_01_what_writes_statuses_everywhere_goes_on(
    world: World, admin: Person, installed_server: ApiServer
) -> None:
    """A virtual kubelet reports pods, and a service mesh which Services it leads to a proxy. It takes no mark off."""
    rules = [{"apiGroups": list(GROUPS), "resources": ["*/status"], "verbs": ["patch"]}]
    admin.do("POST", CLUSTER_ROLE.path(), manifest(CLUSTER_ROLE, AGENT, rules=rules))
    admin.do("POST", CLUSTER_ROLE_BINDING.path(), cluster_role_binding(AGENT, AGENT, user(AGENT)))
    bound = {"type": "istio.io/WaypointBound", "status": "True", "reason": "R", "message": ""}
    bound |= {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    paths = {world.status_path(kind, OURS): status for kind, status in STATUSES.values()}
    paths |= {world.status_path("Pod", world.serving): status for status in SAID.values()}
    paths[world.status_path("Service", OURS)] = {"conditions": [bound]}
    with people(installed_server, AGENT) as who:
        who[AGENT].gets("patch", "services", world.namespace, "", "status")
        for path, status in paths.items():
            answer = who[AGENT].ask("PATCH", path, {"status": status})
            assert answer.status == 200, answer
        unmarked = {"metadata": METADATA["the mark"]}
        assert_held(who[AGENT].ask("PATCH", world.status_path("Service", OURS), unmarked), "children", "belongs to")
