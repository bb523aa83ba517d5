"""ReplicaSets, PodDisruptionBudgets and autoscalers around what serves: a namespace's administrator neither edits nor adds one."""

from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.gateway import LABEL_GATEWAY
from r1plus_operator.api import kinds
from r1plus_operator.runtime.resources import Resource
from support.apiserver.admission_world import DEPLOYMENT, AdmissionWorld, admission_world, read
from support.apiserver.manifests import Json, deployment, manifest
from support.apiserver.people import Person
from support.apiserver.walls import REVISION, assert_held
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]
REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet")
BUDGET = kinds.BY_KIND["PodDisruptionBudget"]
AUTOSCALER = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
AUTOSCALER_V1 = Resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler")


@pytest.fixture(scope="module")
def replica_set(world: AdmissionWorld) -> str:
    """Name of the ReplicaSet that the Deployment's controller makes of a revision that serves."""
    world.start_serving()
    (found,) = read(world.admin, world.path(REPLICA_SET))["items"]
    return str(found["metadata"]["name"])


STRIPPED: dict[str, Json] = {
    "its owner": {"metadata": {"ownerReferences": None}},
    "its label": {"metadata": {"labels": {names.LABEL_DEPLOYMENT: None}}},
    "the label that its Deployment gave it": {"metadata": {"labels": {"pod-template-hash": None}}},
    "its replicas": {"spec": {"replicas": 7}},
    "how it may be deleted": {"metadata": {"finalizers": ["example.com/keeps-it"]}},
    "a label of ours": {"metadata": {"labels": {names.LABEL_REVISION: "other"}}},
}


@pytest.mark.parametrize("body", STRIPPED.values(), ids=STRIPPED)
def test_nobody_changes_a_replica_set_of_the_operators_deployment(
    world: AdmissionWorld, admin: Person, replica_set: str, body: Json
) -> None:
    path = world.path(REPLICA_SET, replica_set)
    assert_held(world.mallory.ask("PATCH", path, body), "replica-sets", "edit the R1PlusDeployment")
    own = {"metadata": {"labels": {"team": "blue"}, "annotations": {"a": "b"}}}
    assert world.mallory.ask("PATCH", path, own).status == 200
    assert admin.ask("PATCH", path, body).status == 200


def test_nobody_deletes_or_makes_a_replica_set_of_the_operators_deployment(
    world: AdmissionWorld, admin: Person, replica_set: str
) -> None:
    everything = world.path(REPLICA_SET)
    path = world.path(REPLICA_SET, replica_set)
    for way in (path, f"{path}?propagationPolicy=Orphan", everything):
        assert_held(world.mallory.ask("DELETE", way), "replica-sets", "edit the R1PlusDeployment")
    assert admin.ask("DELETE", path).status == 200
    body = deployment("own", {"app": "own"}, {"app": "own"}) | {"kind": "ReplicaSet"}
    assert world.mallory.ask("POST", everything, body).status == 201
    body["metadata"]["labels"] = {names.LABEL_DEPLOYMENT: "credit"}
    assert_held(world.mallory.ask("POST", everything, body), "replica-sets", "edit the R1PlusDeployment")


def test_kubernetes_scales_and_removes_replica_sets(installed_server: ApiServer, admin: Person) -> None:
    with admission_world(installed_server, admin) as world:
        path = world.path(REPLICA_SET)
        world.start_serving()
        deployment_path = world.path(DEPLOYMENT, REVISION)
        world.operator.do("PATCH", deployment_path, {"spec": {"replicas": 2}})
        wait_until(lambda: read(admin, path)["items"][0]["spec"]["replicas"] == 2, "the Deployment's controller scales")
        wait_until(lambda: read(admin, path)["items"][0]["status"].get("replicas") == 2, "two pods are made")
        world.operator.do("DELETE", deployment_path)
        wait_until(lambda: not read(admin, path)["items"], "the garbage collector has deleted it")


SELECTS_OURS: dict[str, Json] = {
    "every pod": {},
    "the deployment": {"matchLabels": {names.LABEL_DEPLOYMENT: "credit"}},
    "what serves": {"matchExpressions": [{"key": names.LABEL_SERVING, "operator": "Exists"}]},
    "what the operator has made": {"matchLabels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}},
    "one of these names": {
        "matchExpressions": [{"key": names.LABEL_NAME, "operator": "In", "values": ["x", "r1plus-serving"]}]
    },
    "pods of Deployments": {"matchExpressions": [{"key": "pod-template-hash", "operator": "Exists"}]},
    "all but some": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]},
    "all without a label": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]},
    "all but our volumes' pods": {"matchExpressions": [{"key": names.LABEL_VOLUME, "operator": "DoesNotExist"}]},
}
LEAVES_OUT_OURS: dict[str, Json] = {
    "an app": {"matchLabels": {"app": "postgres"}},
    "an app, as charts name it": {"matchLabels": {names.LABEL_NAME: "postgres"}},
    "what Helm has made": {"matchLabels": {names.LABEL_MANAGED_BY: "Helm"}},
    "apps": {"matchExpressions": [{"key": names.LABEL_NAME, "operator": "In", "values": ["postgres", "redis"]}]},
    "pods with a label": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
    "all but ours": {
        "matchExpressions": [
            {"key": key, "operator": "DoesNotExist"}
            for key in (names.LABEL_DEPLOYMENT, names.LABEL_PROBE, names.LABEL_VOLUME, LABEL_GATEWAY)
        ]
    },
}


def budget(**spec: Any) -> Json:
    return manifest(BUDGET, "own", spec={"minAvailable": 1, **spec})


@pytest.mark.parametrize("selector", SELECTS_OURS.values(), ids=SELECTS_OURS)
def test_no_second_budget_holds_up_drains(world: AdmissionWorld, admin: Person, selector: Json) -> None:
    path = world.path(BUDGET)
    assert_held(world.mallory.ask("POST", path, budget(selector=selector)), "budgets", "can select serving pods")
    assert admin.ask("POST", path, budget(selector=selector)).status == 201


@pytest.mark.parametrize("selector", LEAVES_OUT_OURS.values(), ids=LEAVES_OUT_OURS)
def test_budgets_of_other_pods_are_anybodys(world: AdmissionWorld, selector: Json) -> None:
    answer = world.mallory.ask("POST", world.path(BUDGET), budget(selector=selector))
    assert answer.status == 201, answer


def test_a_budget_is_judged_when_its_selector_changes(world: AdmissionWorld, admin: Person) -> None:
    mallory, path = world.mallory, world.path(BUDGET)
    assert mallory.ask("POST", path, budget()).status == 201
    admin.do("POST", path, budget(selector={}))
    own = f"{path}/own"
    assert mallory.ask("PATCH", own, {"metadata": {"labels": {"team": "blue"}}}).status == 200
    assert mallory.ask("PATCH", own, {"spec": {"minAvailable": 2}}).status == 200
    wider = {"spec": {"selector": {"matchLabels": {names.LABEL_DEPLOYMENT: "credit"}}}}
    assert_held(mallory.ask("PATCH", own, wider), "budgets", "can select serving pods")
    assert mallory.ask("DELETE", own).status == 200


SCALES_OURS = {
    "a revision's Deployment": ("Deployment", REVISION),
    "the gateway's Deployment": ("Deployment", "r1plus-gateway"),
    "a revision's ReplicaSet": ("ReplicaSet", f"{REVISION}-7d9c8b6f54"),
    "the gateway's ReplicaSet": ("ReplicaSet", "r1plus-gateway-7d9c8b6f54"),
}
SCALES_OWN = {
    "a Deployment": ("Deployment", "web"),
    "a Deployment with a number in its name": ("Deployment", "web-2026"),
    "a Deployment that only begins like ours": ("Deployment", f"{REVISION}-web"),
    "a ReplicaSet of a Deployment": ("ReplicaSet", "web-7d9c8b6f54"),
    "a StatefulSet with such a name": ("StatefulSet", "shard-0123456789"),
}


def autoscaler(kind: str, target: str, resource: Resource = AUTOSCALER) -> Json:
    """Return an autoscaler of a workload of this kind and name."""
    scaled = {"apiVersion": "apps/v1", "kind": kind, "name": target}
    return manifest(resource, "own", spec={"scaleTargetRef": scaled, "maxReplicas": 2})


@pytest.mark.parametrize(("kind", "target"), SCALES_OURS.values(), ids=SCALES_OURS)
@pytest.mark.parametrize("resource", [AUTOSCALER, AUTOSCALER_V1], ids=["v2", "v1"])
def test_nobody_autoscales_what_the_operator_scales(
    world: AdmissionWorld, admin: Person, resource: Resource, kind: str, target: str
) -> None:
    path, body = world.path(resource), autoscaler(kind, target, resource)
    said = f"spec.scaleTargetRef.name: {target} has the name of an operator's workload"
    assert_held(world.mallory.ask("POST", path, body), "autoscalers", said)
    assert admin.ask("POST", path, body).status == 201


@pytest.mark.parametrize(("kind", "target"), SCALES_OWN.values(), ids=SCALES_OWN)
def test_autoscalers_of_other_workloads_are_anybodys(world: AdmissionWorld, kind: str, target: str) -> None:
    answer = world.mallory.ask("POST", world.path(AUTOSCALER), autoscaler(kind, target))
    assert answer.status == 201, answer


def test_an_autoscaler_is_judged_when_its_target_changes(world: AdmissionWorld, admin: Person) -> None:
    mallory, path = world.mallory, world.path(AUTOSCALER)
    ours = {"spec": {"scaleTargetRef": {"name": REVISION}}}
    admin.do("POST", path, autoscaler("Deployment", "web"))
    own = f"{path}/own"
    assert_held(mallory.ask("PATCH", own, ours), "autoscalers", "set spec.replicas of the R1PlusDeployment")
    admin.do("PATCH", own, ours)
    assert mallory.ask("PATCH", own, {"spec": {"maxReplicas": 3}}).status == 200
    assert mallory.ask("PATCH", own, {"spec": {"scaleTargetRef": {"name": "web"}}}).status == 200
    mallory.do("DELETE", own)
