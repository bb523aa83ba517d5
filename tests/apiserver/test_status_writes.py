"""Ways around the policies on children and serving pods: by a status, or by an EndpointSlice.

Kubernetes' own `admin` may write neither. A Role with `resources: ["*"]` may, and on clusters that were made before
Kubernetes 1.22 `edit` may write EndpointSlices.
"""

import json

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.admission_world import OURS, OWN, AdmissionWorld, TenantRights
from support.apiserver.child_bodies import SERVED, build_child, build_unmarked
from support.apiserver.manifests import (
    CHILD,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    Json,
    cluster_role_binding,
    manifest,
    pod,
    role_binding,
    user,
)
from support.apiserver.people import Person, people, person
from support.apiserver.walls import assert_held
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]
MESH, AGENT = "mesh", "agent"
GROUPS = ("", "apps", "batch", "policy", "discovery.k8s.io")
KINDS = {
    kind: SERVED[kind]
    for kind in ("Service", "Deployment", "PodDisruptionBudget", "PersistentVolumeClaim", "Job", "ResourceQuota")
}
"""Every kind of child that has a status here."""


@pytest.fixture(scope="module")
def tenant_rights() -> TenantRights:
    return TenantRights((), ({"apiGroups": list(GROUPS), "resources": ["*"], "verbs": ["*"]},))


@pytest.fixture(scope="module")
def children(world: AdmissionWorld) -> AdmissionWorld:
    """The tenant, with an object of each of these kinds of the operator's and one of its administrator's."""
    for kind, resource in KINDS.items():
        world.operator.do("POST", world.path(resource), build_child(kind, OURS, CHILD))
        world.mallory.do("POST", world.path(resource), build_unmarked(kind, OWN))
    return world


@pytest.fixture(scope="module")
def serving(world: AdmissionWorld) -> str:
    """Name of a pod that serves. There is a pod of the administrator's as well: `own`."""
    world.mallory.do("POST", world.path(kinds.POD), pod("own"))
    return world.start_serving()


def status_path(world: AdmissionWorld, kind: str, name: str) -> str:
    """Return the path of an object's status."""
    return f"{world.path(kinds.BY_KIND[kind], name)}/status"


METADATA: dict[str, Json] = {
    "the mark": {"labels": {names.LABEL_MANAGED_BY: None}},
    "whose it is": {"labels": {names.LABEL_DEPLOYMENT: "other"}},
    "its owner": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]},
    "when it may be deleted": {"finalizers": ["example.com/keeps-it"]},
}


TAKINGS = [
    pytest.param(kind, edit, id=f"{what} of a {kind}")
    for what, edit in METADATA.items()
    for kind in KINDS
    if (kind, what) != ("PersistentVolumeClaim", "when it may be deleted")
]
"""Kubernetes and drivers have finalizers of their own on claims, and anyone may add one."""


@pytest.mark.parametrize(("kind", "edit"), TAKINGS)
def test_no_child_is_taken_by_its_status(children: AdmissionWorld, kind: str, edit: Json) -> None:
    path = children.path(KINDS[kind], OURS)
    before = json.loads(children.mallory.ask("GET", path).text)["metadata"]
    answer = children.mallory.ask("PATCH", f"{path}/status", {"metadata": edit})
    if answer.status == 200:  # Of some kinds and fields the API server itself takes nothing from a status.
        after = json.loads(answer.text)["metadata"]
        assert {field: after.get(field) for field in edit} == {field: before.get(field) for field in edit}
    else:
        assert_held(answer, "children", "belongs to the operator")
    own = children.mallory.ask("PATCH", status_path(children, kind, OWN), {"metadata": edit})
    assert own.status == 200, own


STATUSES: dict[str, tuple[str, Json]] = {
    "a Deployment whose pods nothing refuses": ("Deployment", {"observedGeneration": 7}),
    "a Job that has ended": ("Job", {"failed": 3}),
    "a budget that lets nothing go": ("PodDisruptionBudget", {"disruptionsAllowed": 0, "observedGeneration": 7}),
    "a quota that is used up": ("ResourceQuota", {"used": {"pods": "1000"}, "hard": {"pods": "1000"}}),
}


@pytest.mark.parametrize(("kind", "status"), STATUSES.values(), ids=STATUSES)
def test_nobody_writes_the_status_of_a_child(children: AdmissionWorld, admin: Person, kind: str, status: Json) -> None:
    path, body = status_path(children, kind, OURS), {"status": status}
    assert_held(children.mallory.ask("PATCH", path, body), "children", "status: Kubernetes writes it")
    for allowed in (
        children.mallory.ask("PATCH", status_path(children, kind, OWN), body),
        admin.ask("PATCH", path, body),
    ):
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
def test_only_its_node_writes_the_status_of_a_serving_pod(
    world: AdmissionWorld, admin: Person, serving: str, status: Json
) -> None:
    path, body = status_path(world, "Pod", serving), {"status": status}
    assert_held(world.mallory.ask("PATCH", path, body), "serving-pods", "status: where a serving pod answers")
    for allowed in (
        world.mallory.ask("PATCH", status_path(world, "Pod", "own"), body),
        admin.ask("PATCH", path, body),
    ):
        assert allowed.status == 200, allowed
    note = {"status": {"conditions": [{"type": "example.com/Seen", "status": "True"}]}}
    assert world.mallory.ask("PATCH", path, note).status == 200


def test_a_nodes_kubelet_reports_its_pods(
    world: AdmissionWorld, admin: Person, serving: str, installed_server: ApiServer
) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}]
    admin.do("POST", world.path(ROLE), manifest(ROLE, "reports", rules=rules))
    given = role_binding(world.namespace, "reports", "reports", user(NODE), kind="Role")
    admin.do("POST", world.path(ROLE_BINDING), given)
    with person(installed_server, NODE, ("system:nodes",)) as kubelet:
        kubelet.gets("patch", "pods", world.namespace, "", "status")
        answer = kubelet.ask("PATCH", status_path(world, "Pod", serving), {"status": SAID["where it answers"]})
        assert "serving-pods" not in answer.text, answer


def leading_elsewhere(service: str) -> Json:
    """Return an EndpointSlice that adds an address to a Service."""
    labels = {"kubernetes.io/service-name": service}
    made = manifest(kinds.ENDPOINT_SLICE, "mine", labels=labels, addressType="IPv4")
    ports = [{"name": "grpc", "port": 8001, "protocol": "TCP"}]
    return made | {"ports": ports, "endpoints": [{"addresses": ["10.9.8.7"]}]}


@pytest.mark.parametrize("service", ["credit", "credit-pods", "gateway"])
def test_nobody_adds_an_address_to_a_service(
    world: AdmissionWorld, admin: Person, installed_server: ApiServer, service: str
) -> None:
    path, made = world.path(kinds.ENDPOINT_SLICE), leading_elsewhere(service)
    assert_held(world.mallory.ask("POST", path, made), "endpoints", "leads callers of a Service elsewhere")
    own = made | {"metadata": {"name": f"own-{service}"}}
    admin.do("POST", path, own)
    labelled = {"metadata": {"labels": made["metadata"]["labels"]}}
    assert_held(world.mallory.ask("PATCH", f"{path}/own-{service}", labelled), "endpoints", "leads callers")
    controller = "system:serviceaccount:kube-system:endpointslice-controller"
    with people(installed_server, controller) as who:
        for one in (admin, who[controller]):
            assert one.ask("POST", path, made).status == 201


def test_what_writes_addresses_everywhere_goes_on(
    world: AdmissionWorld, admin: Person, installed_server: ApiServer
) -> None:
    rules = [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["create"]}]
    admin.do("POST", CLUSTER_ROLE.path(), manifest(CLUSTER_ROLE, "mesh", rules=rules))
    admin.do("POST", CLUSTER_ROLE_BINDING.path(), cluster_role_binding("mesh", "mesh", user(MESH)))
    path = world.path(kinds.ENDPOINT_SLICE)
    with people(installed_server, MESH) as who:
        who[MESH].gets("create", "endpointslices", world.namespace, "discovery.k8s.io")
        wait_until(lambda: who[MESH].ask("POST", path, leading_elsewhere("own")).status == 201, "the mesh is allowed")


def test_what_writes_statuses_everywhere_goes_on(
    children: AdmissionWorld, admin: Person, serving: str, installed_server: ApiServer
) -> None:
    """A virtual kubelet reports pods, and a service mesh which Services it leads to a proxy. It takes no mark off."""
    rules = [{"apiGroups": list(GROUPS), "resources": ["*/status"], "verbs": ["patch"]}]
    admin.do("POST", CLUSTER_ROLE.path(), manifest(CLUSTER_ROLE, AGENT, rules=rules))
    admin.do("POST", CLUSTER_ROLE_BINDING.path(), cluster_role_binding(AGENT, AGENT, user(AGENT)))
    bound = {"type": "istio.io/WaypointBound", "status": "True", "reason": "R", "message": ""}
    bound |= {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    paths = {status_path(children, kind, OURS): status for kind, status in STATUSES.values()}
    paths |= {status_path(children, "Pod", serving): status for status in SAID.values()}
    paths[status_path(children, "Service", OURS)] = {"conditions": [bound]}
    with people(installed_server, AGENT) as who:
        who[AGENT].gets("patch", "services", children.namespace, "", "status")
        for path, status in paths.items():
            answer = who[AGENT].ask("PATCH", path, {"status": status})
            assert answer.status == 200, answer
        unmarked = {"metadata": METADATA["the mark"]}
        assert_held(who[AGENT].ask("PATCH", status_path(children, "Service", OURS), unmarked), "children", "belongs to")
