"""Objects that look like the operator's: by a label, by a name that pods mount, or by an owner. Nobody else makes them.

The operator takes over none of them but what its own R1PlusDeployment controls.
"""

import uuid
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.gateway import GATEWAY_SERVICE
from r1plus_operator.api import kinds
from r1plus_operator.runtime.resources import Resource
from support.apiserver.admission_world import SERVICE, AdmissionWorld, TenantRights
from support.apiserver.child_bodies import SERVED, WRITES_CHILDREN, build_unmarked
from support.apiserver.manifests import MARK, Json, config_map, deployment, manifest, pod, r1plus_deployment
from support.apiserver.people import Person, until_pods_are_taken
from support.apiserver.walls import assert_held
from support.tables import for_each

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]


@pytest.fixture(scope="module")
def tenant_rights() -> TenantRights:
    return WRITES_CHILDREN


@pytest.fixture(scope="module")
def serving(world: AdmissionWorld) -> str:
    """Name of a pod that serves. There is a pod of the administrator's as well: `own`."""
    world.mallory.do("POST", world.path(kinds.POD), pod("own"))
    return world.start_serving()


LOOKALIKES = ("r1plus-ai/serving", "r1plus_ai_deployment", "r1plus.ai.revision", "r1plus.ai-serving")


@pytest.mark.parametrize("label", LOOKALIKES)
def test_a_label_that_prometheus_reads_as_ours_is_refused(world: AdmissionWorld, serving: str, label: str) -> None:
    body = {"metadata": {"labels": {label: "quarantined"}}}
    pods = world.path(kinds.POD)
    for name in (serving, "own"):
        assert_held(world.mallory.ask("PATCH", f"{pods}/{name}", body), "serving-pods", "Prometheus takes a label")
    made = world.mallory.ask("POST", pods, pod("fake", labels={label: "credit"}))
    assert_held(made, "serving-pods", "metadata.labels")
    for name in (serving, "own"):
        other = world.mallory.ask("PATCH", f"{pods}/{name}", {"metadata": {"labels": {"r1plus-team": "a"}}})
        assert other.status == 200, other


def test_the_label_by_which_the_operator_reaches_a_monitor_stays(world: AdmissionWorld, serving: str) -> None:
    body = {"metadata": {"labels": {names.LABEL_NAME: "mine"}}}
    refused = world.mallory.ask("PATCH", world.path(kinds.POD, serving), body)
    assert_held(refused, "serving-pods", "app.kubernetes.io/name")
    assert world.mallory.ask("PATCH", world.path(kinds.POD, "own"), body).status == 200


POSES = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_SERVING: "true"}
ENGINE = {"name": "v", "persistentVolumeClaim": {"claimName": "r1plus-engine-0123456789abcdef"}}


@pytest.fixture(scope="module")
def plain(admin: Person) -> str:
    """A namespace that is no tenant."""
    name = f"p-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), manifest(kinds.NAMESPACE, name))
    until_pods_are_taken(admin, name)
    return name


@for_each("policy, resource, body", {
    "a pod with our labels": ("serving-pods", kinds.POD, pod("x", labels=POSES)),
    "a pod that mounts an engine": ("engine-volumes", kinds.POD, pod("x", volumes=[ENGINE])),
    "a Deployment with our labels": ("serving-templates", kinds.BY_KIND["Deployment"], deployment("x", POSES)),
})  # fmt: skip
def test_lookalikes_are_refused_everywhere_but_in_the_systems_own_namespaces(
    world: AdmissionWorld, admin: Person, plain: str, policy: str, resource: Resource, body: Json
) -> None:
    for namespace in (world.namespace, plain):
        assert_held(admin.ask("POST", resource.path(namespace), body), policy, "r1plus")
    answer = admin.ask("POST", resource.path("kube-system"), body)
    assert answer.status == 201, answer


SHADOWS = {
    "the settings, suite and verdicts of monitors": ("ConfigMap", "other-accuracy"),
    "a revision's configuration": ("ConfigMap", "other-0123456789"),
    "a revision's Deployment": ("Deployment", "other-0123456789"),
    "a revision": ("ControllerRevision", "other-0123456789"),
    "an engine's volume": ("PersistentVolumeClaim", "r1plus-engine-0123456789"),
    "the account of the isolation test": ("ServiceAccount", "r1plus-prober"),
    "what lets pods out": ("NetworkPolicy", "r1plus-callers"),
}


@for_each("kind, name", SHADOWS)
def test_nobody_else_makes_an_object_at_a_name_that_pods_mount(world: AdmissionWorld, kind: str, name: str) -> None:
    path = world.path(SERVED[kind])
    refused = world.mallory.ask("POST", path, build_unmarked(kind, name))
    assert_held(refused, "names", f"{name} is a name that the operator")
    own = build_unmarked(kind, f"x{name.removeprefix('r1plus-')}x")
    assert world.mallory.ask("POST", path, own).status == 201


@for_each("kind, name", SHADOWS)
def test_nobody_else_changes_or_deletes_an_unmarked_object_at_such_a_name(
    world: AdmissionWorld, admin: Person, kind: str, name: str
) -> None:
    """The platform team has made one there, or it is older than the policies."""
    other = name.replace("0123456789", "abcdefabcd").replace("prober", "other").replace("callers", "other")
    path = world.path(SERVED[kind], other)
    admin.do("POST", world.path(SERVED[kind]), build_unmarked(kind, other))
    said = f"{other} is a name that the operator"
    assert_held(world.mallory.ask("PATCH", path, {"metadata": {"annotations": {"a": "b"}}}), "names", said)
    one_by_one = f"{world.path(SERVED[kind])}?fieldSelector=metadata.name%3D{other}"
    for way in (path, one_by_one):
        assert_held(world.mallory.ask("DELETE", way), "names", said)
    assert admin.ask("DELETE", path).status == 200


def test_a_generated_name_is_no_way_around(world: AdmissionWorld) -> None:
    body = config_map("", world.namespace)
    body["metadata"] = {"generateName": "r1plus-engine-"}
    path = world.path(kinds.CONFIG_MAP)
    assert_held(world.mallory.ask("POST", path, body), "names", "is a name that the operator")
    body["metadata"] = {"generateName": "mine-"}
    assert world.mallory.ask("POST", path, body).status == 201


@pytest.mark.parametrize(("name", "is_held"), [(GATEWAY_SERVICE, True), ("gateways", False)])
def test_no_deployment_takes_the_name_that_the_gateways_callers_use(
    world: AdmissionWorld, admin: Person, name: str, is_held: bool
) -> None:
    answer = admin.ask("POST", world.path(kinds.R1PLUS_DEPLOYMENT), r1plus_deployment(name, world.namespace))
    if is_held:
        assert_held(answer, "deployments", "gateway is the name of the Service of the tenant's gateway")
    else:
        assert answer.status == 201, answer


def identity(obj: Json) -> Json:
    """Return what an owner reference has of its owner."""
    return {key: obj["metadata"][key] for key in ("name", "uid")}


@pytest.fixture(scope="module")
def owners(world: AdmissionWorld) -> dict[str, Json]:
    """References to two R1PlusDeployments, which are there: else the garbage collector takes what they own."""
    path, found = world.path(kinds.R1PLUS_DEPLOYMENT), {}
    for name in ("credit", "support"):
        made = world.mallory.do("POST", path, r1plus_deployment(name, world.namespace))
        found[name] = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, **identity(made)}
    return found


def test_nobody_makes_what_an_r1plusdeployment_would_control(world: AdmissionWorld, owners: dict[str, Json]) -> None:
    def build(**reference: Any) -> Json:
        spec = {"ports": [{"port": 8001}], "publishNotReadyAddresses": True}
        body = manifest(SERVICE, "credit", world.namespace, spec=spec)
        body["metadata"]["ownerReferences"] = [owners["credit"] | reference]
        return body

    path = world.path(SERVICE)
    assert_held(world.mallory.ask("POST", path, build(controller=True)), "controllers", "leave out `controller`")
    assert world.mallory.ask("POST", path, build()).status == 201
    world.mallory.do("POST", path, manifest(SERVICE, "plain", world.namespace, spec={"ports": [{"port": 80}]}))
    owned = {"metadata": {"ownerReferences": build(controller=True)["metadata"]["ownerReferences"]}}
    assert_held(world.mallory.ask("PATCH", f"{path}/plain", owned), "controllers", "leave out `controller`")


@pytest.fixture(scope="module")
def references(world: AdmissionWorld, admin: Person, owners: dict[str, Json]) -> dict[str, Json]:
    """Owner references that an unmarked object may have."""
    other = admin.do("POST", world.path(kinds.CONFIG_MAP), config_map("credit", world.namespace))
    return {
        "ours": owners["credit"] | {"controller": True},
        "not-controlled": owners["credit"],
        "of-another-kind": {"apiVersion": "v1", "kind": "ConfigMap", **identity(other), "controller": True},
        "of-another": owners["support"] | {"controller": True},
    }


@pytest.mark.parametrize("kind", [kind for kind in SERVED if kind != "RoleBinding"])
def test_the_operator_marks_again_what_its_deployment_controls_and_nothing_else(
    world: AdmissionWorld, admin: Person, references: dict[str, Json], kind: str
) -> None:
    mark = {"metadata": {"labels": {**MARK, names.LABEL_DEPLOYMENT: "credit"}}}
    # No RoleBinding is a deployment's child, and RBAC lets the operator give no other role.
    said = {"not-controlled": "does not overwrite it", "of-another-kind": "does not overwrite it"}
    said |= {"of-another": "belongs to another R1PlusDeployment"}
    for name, reference in references.items():
        unmarked = build_unmarked(kind, name)
        unmarked["metadata"]["ownerReferences"] = [reference]
        admin.do("POST", world.path(SERVED[kind]), unmarked)
        answer = world.operator.ask("PATCH", world.path(SERVED[kind], name), mark)
        if name in said:
            assert_held(answer, "foreign-objects", said[name])
        else:
            assert answer.status == 200, answer
