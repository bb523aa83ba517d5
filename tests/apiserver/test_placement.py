"""On which nodes a tenant places its deployments: those that the platform team allows, and never the control plane's."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import Placement
from r1plus_operator.plan.engine.placement import check_placement
from support.apiserver.admission_world import AdmissionWorld, TenantRights, admission_world
from support.apiserver.manifests import (
    Json,
    r1plus_deployment,
    r1plus_tenant,
)
from support.apiserver.people import Answer, Person
from support.apiserver.walls import assert_held
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
MALLORY, REACH = "mallory", "operator-reach"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
DEDICATED: Json = {"key": "dedicated", "value": "credit", "effect": "NoSchedule"}
ALLOWED: Json = {
    "nodeSelectors": [{"pool": "credit"}, {"pool": "shared", "zone": "a"}],
    "tolerations": [DEDICATED, {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
}


@dataclass(frozen=True, slots=True)
class Places:
    """Tenants with a placement, with none, and without any R1PlusTenant, that one person administers."""

    placed: AdmissionWorld
    plain: AdmissionWorld
    bare: AdmissionWorld


def place(world: AdmissionWorld, placement: Json) -> Answer:
    """Make a deployment with this placement, as a dry run."""
    return world.mallory.ask("POST", world.path(kinds.R1PLUS_DEPLOYMENT), r1plus_deployment(placement=placement))


@pytest.fixture(scope="module")
def places(installed_server: ApiServer, admin: Person) -> Iterator[Places]:
    rights = TenantRights((names.ROLE_TENANT_ADMIN,))
    with ExitStack() as stack:
        worlds = [stack.enter_context(admission_world(installed_server, admin, rights)) for _ in range(3)]
        for world, spec in zip(worlds, ({"placement": ALLOWED}, {}), strict=False):
            admin.do("POST", world.path(kinds.R1PLUS_TENANT), r1plus_tenant(world.namespace, **spec))
            wait_until(
                lambda world=world: place(world, tolerate({"key": "x", "operator": "Exists"})).refused,
                f"the policies know the R1PlusTenant of {world.namespace}",
            )
        yield Places(*worlds)


def select_nodes(**labels: str) -> Json:
    return {"nodeSelector": labels}


def tolerate(*tolerations: Json, **labels: str) -> Json:
    return {"tolerations": list(tolerations), **({"nodeSelector": labels} if labels else {})}


EVERYWHERE = {
    "the control plane's nodes": {"nodeSelector": {CONTROL_PLANE: ""}},
    "the control plane's nodes by their old name": {"nodeSelector": {"node-role.kubernetes.io/master": ""}},
    "every taint": tolerate({"operator": "Exists"}),
    "every taint that evicts": tolerate({"operator": "Exists", "effect": "NoExecute"}),
    "the control plane's taint": tolerate({"key": CONTROL_PLANE, "operator": "Exists"}),
}
NOWHERE_ELSE = {
    "another tenant's nodes": tolerate({"key": "dedicated", "operator": "Equal", "value": "pay"}, pool="credit"),
    "all dedicated nodes": tolerate({"key": "dedicated", "operator": "Exists"}, pool="credit"),
    "all effects of a taint": tolerate({"key": "dedicated", "value": "credit"}, pool="credit"),
    "a dead node": tolerate({"key": "node.kubernetes.io/unreachable", "operator": "Exists"}, pool="credit"),
    "a node that goes, for ever": tolerate({"key": "spot", "effect": "NoExecute", "operator": "Exists"}, pool="credit"),
    "a node that goes, for long": tolerate(
        {"key": "spot", "effect": "NoExecute", "operator": "Exists", "tolerationSeconds": 61}, pool="credit"
    ),
    "no pool": {},
    "another pool": select_nodes(pool="pay"),
    "half of a selector": select_nodes(pool="shared"),
}
OWN = {
    "one's own pool": tolerate(DEDICATED, pool="credit", zone="b"),
    "the other selector": select_nodes(pool="shared", zone="a", gpu="yes"),
    "nodes with GPUs": tolerate({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, pool="credit"),
    "a node that goes, for a while": tolerate(
        {"key": "spot", "effect": "NoExecute", "value": "x", "tolerationSeconds": 60}, pool="credit"
    ),
}


@pytest.mark.parametrize("placement", EVERYWHERE.values(), ids=EVERYWHERE)
def test_no_tenant_runs_on_the_control_plane(places: Places, placement: Json) -> None:
    assert_held(place(places.bare, placement), "control-plane", "spec.placement.")
    assert [place(world, placement).status for world in (places.placed, places.plain)] == [403, 403]
    assert place(places.bare, {}).status == 201


@pytest.mark.parametrize("placement", NOWHERE_ELSE.values(), ids=NOWHERE_ELSE)
def test_a_tenant_stays_where_the_platform_team_places_it(places: Places, placement: Json) -> None:
    assert_held(place(places.placed, placement), "placement", "R1PlusTenant tenant")
    assert check_placement(Placement.model_validate(placement), R1PlusTenantSpec(placement=ALLOWED).placement)


@pytest.mark.parametrize("placement", OWN.values(), ids=OWN)
def test_a_tenant_has_what_the_platform_team_allows(places: Places, placement: Json) -> None:
    assert place(places.placed, placement).status == 201
    assert not check_placement(Placement.model_validate(placement), R1PlusTenantSpec(placement=ALLOWED).placement)


def test_a_tenant_without_a_placement_tolerates_gpu_taints_only(places: Places) -> None:
    assert_held(place(places.plain, tolerate(DEDICATED)), "placement", "R1PlusTenant tenant does not allow")
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    assert place(places.plain, tolerate(gpu, pool="any")).status == 201


@pytest.mark.parametrize(
    "toleration", [{"operator": "Exists"}, {"key": CONTROL_PLANE, "operator": "Exists"}], ids=["every taint", "its own"]
)
def test_the_control_plane_cannot_be_allowed(places: Places, admin: Person, toleration: Json) -> None:
    path = places.plain.path(kinds.R1PLUS_TENANT, names.TENANT)
    answer = admin.ask("PATCH", path, {"spec": {"placement": {"tolerations": [toleration]}}})
    assert answer.status == 422, answer
    assert "spec.placement: Invalid value" in answer.text
    assert "tolerations need a key, and not that of the control plane's nodes" in answer.text


def test_a_deployment_that_was_stored_before_stays_editable(places: Places, admin: Person) -> None:
    allow = {"tolerations": [{"key": "old", "operator": "Exists"}]}
    mallory, tenant = places.plain.mallory, places.plain.path(kinds.R1PLUS_TENANT, names.TENANT)
    admin.do("PATCH", tenant, {"spec": {"placement": allow}})
    wait_until(lambda: place(places.plain, allow).status == 201, "the policies know that it is allowed")
    path = places.plain.path(kinds.R1PLUS_DEPLOYMENT)
    mallory.do("POST", path, r1plus_deployment("kept", placement=allow))
    admin.do("PATCH", tenant, {"spec": {"placement": None}})
    wait_until(lambda: place(places.plain, allow).refused, "the policies know that it is not allowed any more")
    kept = f"{path}/kept"
    assert mallory.ask("PATCH", kept, {"spec": {"replicas": 2}}).status == 200
    assert mallory.ask("PATCH", kept, {"spec": {"placement": None}}).status == 200
    more = {"spec": {"placement": {"tolerations": [*allow["tolerations"], DEDICATED]}}}
    assert_held(mallory.ask("PATCH", kept, more), "placement", "R1PlusTenant tenant does not allow")
