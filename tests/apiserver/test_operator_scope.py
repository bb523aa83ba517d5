"""Attacks on what the operator's pods find and callers reach: claims with a source, Services that lead elsewhere, names."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract.gateway import GATEWAY_SERVICE
from r1plus_operator.api import kinds
from support.apiserver.manifests import (
    MARK,
    ROLE_BINDING,
    Json,
    deployment,
    manifest,
    pod_template,
    r1plus_deployment,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.people import Answer, Person, people
from support.apiserver.rights import OPERATOR
from support.apiserver.walls import assert_held

pytestmark = pytest.mark.apiserver
CLAIM, SERVICE, DEPLOYMENT = (kinds.BY_KIND[kind] for kind in ("PersistentVolumeClaim", "Service", "Deployment"))
MALLORY = "mallory"
"""Administers the namespace by Kubernetes' own `admin`."""
BINDER = "system:serviceaccount:kube-system:persistent-volume-binder"
OURS, OWN = "r1plus-engine-0123456789", "mallorys-own"


@dataclass(frozen=True, slots=True)
class World:
    """A tenant's namespace with a claim of the operator's and one of Mallory's, neither bound; and who asks there."""

    namespace: str
    operator: Person
    mallory: Person
    binder: Person


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person) -> Iterator[World]:
    namespace = f"s-{uuid.uuid4().hex[:10]}"
    with people(installed_server, OPERATOR, MALLORY, BINDER) as who:
        made = World(namespace, who[OPERATOR], who[MALLORY], who[BINDER])
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
        admin.do("POST", ROLE_BINDING.path(namespace), role_binding(namespace, "admin", "admin", user(MALLORY)))
        made.mallory.gets("patch", "persistentvolumeclaims", namespace)
        made.binder.gets("update", "persistentvolumeclaims", namespace)
        made.operator.do("POST", CLAIM.path(namespace), claim(OURS, labels=MARK))
        made.mallory.do("POST", CLAIM.path(namespace), claim(OWN))
        yield made


def claim(name: str, labels: dict[str, str] | None = None, **spec: Json | str) -> Json:
    size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return manifest(CLAIM, name, labels=labels, spec=size | spec)


def bind(person: Person, path: str, edit: Json) -> Answer:
    """Write the claim with another spec, whole, as Kubernetes' controller does."""
    live = json.loads(person.ask("GET", path).text)
    return person.ask("PUT", path, live | {"spec": live["spec"] | edit["spec"]})


SOURCES: dict[str, Json] = {
    "a copy of another claim": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "data-postgres-0"}},
    "a copy of another claim by its newer field": {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "data"}},
    "a snapshot": {
        "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "of-the-database"}
    },
    "a volume of its own choice": {"volumeName": "pv-of-another-tenant"},
    "a volume by its labels": {"selector": {"matchLabels": {"app": "postgres"}}},
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_finding_04_no_claim_of_the_operators_takes_its_content_from_elsewhere(world: World, source: Json) -> None:
    name, path = "r1plus-engine-aaaaaaaaaa", CLAIM.path(world.namespace)
    refused = world.operator.ask("POST", path, claim(name, labels=MARK, **source))
    assert_held(refused, "operator-reach", "no dataSource, dataSourceRef, volumeName or selector")
    assert world.operator.ask("POST", path, claim(name, labels=MARK)).status == 201


def test_finding_04_a_stored_claim_of_the_operators_is_bound_by_kubernetes_alone(world: World) -> None:
    path, edit = CLAIM.path(world.namespace, OURS), {"spec": {"volumeName": "pv-of-another-tenant"}}
    assert_held(world.operator.ask("PATCH", path, edit), "operator-reach", "no dataSource")
    assert bind(world.binder, path, edit).status == 200


def test_finding_01_nobody_binds_a_claim_of_the_operators_to_a_volume_of_ones_own(world: World, admin: Person) -> None:
    edit = {"spec": {"volumeName": "pv-that-mallory-filled"}}
    ours, own = (CLAIM.path(world.namespace, name) for name in (OURS, OWN))
    assert_held(world.mallory.ask("PATCH", ours, edit), "children", "spec.volumeName: Kubernetes binds")
    assert world.mallory.ask("PATCH", own, edit).status == 200
    for one in (world.binder, admin):
        assert bind(one, ours, edit).status == 200


SERVICES: dict[str, Json] = {
    "a host outside of the cluster": {"type": "ExternalName", "externalName": "collector.example"},
    "a load balancer": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    "a port of every node": {"type": "NodePort", "ports": [{"port": 80}]},
}


@pytest.mark.parametrize("spec", SERVICES.values(), ids=SERVICES)
def test_finding_04_no_service_of_the_operators_leads_out_of_the_cluster_or_into_it(world: World, spec: Json) -> None:
    def make(spec: Json) -> Json:
        return manifest(SERVICE, GATEWAY_SERVICE, labels=MARK, spec=spec)

    path = SERVICE.path(world.namespace)
    assert_held(world.operator.ask("POST", path, make(spec)), "operator-reach", "spec.type: the operator's Services")
    for control in ({"ports": [{"port": 80}]}, {"ports": [{"port": 80}], "clusterIP": "None", "type": "ClusterIP"}):
        assert world.operator.ask("POST", path, make(control)).status == 201


def test_finding_a_no_file_of_an_image_is_replaced_by_the_termination_log(world: World) -> None:
    def make(**fields: str) -> Json:
        body = deployment("r1plus-x", {"a": "b"}, MARK)
        spec = pod_template({"a": "b"})["spec"]
        spec["containers"] = [container | fields for container in spec["containers"]]
        body["spec"]["template"]["spec"] = spec
        return body

    path = DEPLOYMENT.path(world.namespace)
    refused = world.operator.ask("POST", path, make(terminationMessagePath="/opt/r1plus/access.py"))
    assert_held(refused, "operator-templates", "terminationMessagePath: must be /dev/termination-log")
    assert world.operator.ask("POST", path, make()).status == 201


@pytest.mark.parametrize(("name", "is_held"), [(GATEWAY_SERVICE, True), ("gateways", False)])
def test_finding_01_no_deployment_takes_the_name_that_the_gateways_callers_use(
    world: World, admin: Person, name: str, is_held: bool
) -> None:
    body = r1plus_deployment(name, world.namespace)
    answer = admin.ask("POST", kinds.R1PLUS_DEPLOYMENT.path(world.namespace), body)
    if is_held:
        assert_held(answer, "deployments", "gateway is the name of the Service of the tenant's gateway")
    else:
        assert answer.status == 201, answer
