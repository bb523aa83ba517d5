"""Attacks on the place of tenants, and what ordinary clusters do to pods: numbers as in `test_findings`."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import Placement
from r1plus_operator.plan.placement import check_placement
from support.apiserver.manifests import (
    ROLE_BINDING,
    Json,
    r1plus_deployment,
    r1plus_tenant,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import Person, people
from support.apiserver.tenant import Tenant
from support.apiserver.walls import assert_held
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
MALLORY = "mallory"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
DEDICATED: Json = {"key": "dedicated", "value": "credit", "effect": "NoSchedule"}
ALLOWED: Json = {
    "nodeSelectors": [{"pool": "credit"}, {"pool": "shared", "zone": "a"}],
    "tolerations": [DEDICATED, {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
}


@pytest.fixture(scope="module")
def server(installed_server: ApiServer) -> ApiServer:
    """With the policies in force."""
    return installed_server


@dataclass(frozen=True, slots=True)
class Places:
    """mallory administers a tenant with a placement, one with none, and one without any R1PlusTenant."""

    mallory: Person
    placed: str
    plain: str
    bare: str

    def ask(self, namespace: str, placement: Json) -> Any:
        """Make a deployment there, as a dry run."""
        return self.mallory.ask("POST", kinds.R1PLUS_DEPLOYMENT.path(namespace), r1plus_deployment(placement=placement))


@pytest.fixture(scope="module")
def places(installed_server: ApiServer, admin: Person) -> Iterator[Places]:
    placed, plain, bare = (f"{letter}-{uuid.uuid4().hex[:10]}" for letter in "abc")
    with people(installed_server, MALLORY) as who:
        made = Places(who[MALLORY], placed, plain, bare)
        for namespace, spec in ((placed, {"placement": ALLOWED}), (plain, {}), (bare, None)):
            admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
            binding = role_binding(namespace, "admins", names.ROLE_TENANT_ADMIN, user(MALLORY))
            admin.do("POST", ROLE_BINDING.path(namespace), binding)
            made.mallory.gets("create", "r1plusdeployments", namespace, names.GROUP)
            if spec is not None:
                admin.do("POST", kinds.R1PLUS_TENANT.path(namespace), r1plus_tenant(namespace, **spec))
                wait_until(
                    lambda n=namespace: made.ask(n, tolerating({"key": "x", "operator": "Exists"})).refused,
                    f"the policies know the R1PlusTenant of {namespace}",
                )
        yield made


def selecting(**labels: str) -> Json:
    return {"nodeSelector": labels}


def tolerating(*tolerations: Json, **labels: str) -> Json:
    return {"tolerations": list(tolerations), **({"nodeSelector": labels} if labels else {})}


EVERYWHERE = {
    "the control plane's nodes": {"nodeSelector": {CONTROL_PLANE: ""}},
    "the control plane's nodes by their old name": {"nodeSelector": {"node-role.kubernetes.io/master": ""}},
    "every taint": tolerating({"operator": "Exists"}),
    "every taint that evicts": tolerating({"operator": "Exists", "effect": "NoExecute"}),
    "the control plane's taint": tolerating({"key": CONTROL_PLANE, "operator": "Exists"}),
}
NOWHERE_ELSE = {
    "another tenant's nodes": tolerating({"key": "dedicated", "operator": "Equal", "value": "pay"}, pool="credit"),
    "all dedicated nodes": tolerating({"key": "dedicated", "operator": "Exists"}, pool="credit"),
    "all effects of a taint": tolerating({"key": "dedicated", "value": "credit"}, pool="credit"),
    "a dead node": tolerating({"key": "node.kubernetes.io/unreachable", "operator": "Exists"}, pool="credit"),
    "a node that goes, for ever": tolerating(
        {"key": "spot", "effect": "NoExecute", "operator": "Exists"}, pool="credit"
    ),
    "a node that goes, for long": tolerating(
        {"key": "spot", "effect": "NoExecute", "operator": "Exists", "tolerationSeconds": 61}, pool="credit"
    ),
    "no pool": {},
    "another pool": selecting(pool="pay"),
    "half of a selector": selecting(pool="shared"),
}
OWN = {
    "one's own pool": tolerating(DEDICATED, pool="credit", zone="b"),
    "the other selector": selecting(pool="shared", zone="a", gpu="yes"),
    "nodes with GPUs": tolerating(
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, pool="credit"
    ),
    "a node that goes, for a while": tolerating(
        {"key": "spot", "effect": "NoExecute", "value": "x", "tolerationSeconds": 60}, pool="credit"
    ),
}


@pytest.mark.parametrize("placement", EVERYWHERE.values(), ids=EVERYWHERE)
def test_finding_03_no_tenant_runs_on_the_control_plane(places: Places, placement: Json) -> None:
    assert_held(places.ask(places.bare, placement), "control-plane", "spec.placement.")
    assert [places.ask(namespace, placement).status for namespace in (places.placed, places.plain)] == [403, 403]
    assert places.ask(places.bare, {}).status == 201


@pytest.mark.parametrize("placement", NOWHERE_ELSE.values(), ids=NOWHERE_ELSE)
def test_finding_03_a_tenant_stays_where_the_platform_team_places_it(places: Places, placement: Json) -> None:
    assert_held(places.ask(places.placed, placement), "placement", "R1PlusTenant tenant")
    assert check_placement(Placement.model_validate(placement), R1PlusTenantSpec(placement=ALLOWED).placement)


@pytest.mark.parametrize("placement", OWN.values(), ids=OWN)
def test_finding_03_a_tenant_has_what_the_platform_team_allows(places: Places, placement: Json) -> None:
    assert places.ask(places.placed, placement).status == 201
    assert not check_placement(Placement.model_validate(placement), R1PlusTenantSpec(placement=ALLOWED).placement)


def test_finding_03_a_tenant_of_which_nothing_is_said_tolerates_gpu_taints_only(places: Places) -> None:
    assert_held(places.ask(places.plain, tolerating(DEDICATED)), "placement", "R1PlusTenant tenant does not allow")
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    assert places.ask(places.plain, tolerating(gpu, pool="any")).status == 201


@pytest.mark.parametrize(
    "toleration", [{"operator": "Exists"}, {"key": CONTROL_PLANE, "operator": "Exists"}], ids=["every taint", "its own"]
)
def test_finding_03_the_control_plane_cannot_be_allowed(places: Places, admin: Person, toleration: Json) -> None:
    path = kinds.R1PLUS_TENANT.path(places.plain, names.TENANT)
    answer = admin.ask("PATCH", path, {"spec": {"placement": {"tolerations": [toleration]}}})
    assert answer.status == 422, answer
    assert "spec.placement: Invalid value" in answer.text
    assert "tolerations need a key, and not that of the control plane's nodes" in answer.text


def test_finding_03_a_deployment_that_was_stored_before_stays_editable(places: Places, admin: Person) -> None:
    allow = {"tolerations": [{"key": "old", "operator": "Exists"}]}
    tenant = kinds.R1PLUS_TENANT.path(places.plain, names.TENANT)
    admin.do("PATCH", tenant, {"spec": {"placement": allow}})
    wait_until(lambda: places.ask(places.plain, allow).status == 201, "the policies know that it is allowed")
    path = kinds.R1PLUS_DEPLOYMENT.path(places.plain)
    places.mallory.do("POST", path, r1plus_deployment("kept", placement=allow))
    admin.do("PATCH", tenant, {"spec": {"placement": None}})
    wait_until(lambda: places.ask(places.plain, allow).refused, "the policies know that it is not allowed any more")
    kept = f"{path}/kept"
    assert places.mallory.ask("PATCH", kept, {"spec": {"replicas": 2}}).status == 200
    assert places.mallory.ask("PATCH", kept, {"spec": {"placement": None}}).status == 200
    more = {"spec": {"placement": {"tolerations": [*allow["tolerations"], DEDICATED]}}}
    assert_held(places.mallory.ask("PATCH", kept, more), "placement", "R1PlusTenant tenant does not allow")


async def test_finding_03_the_operator_holds_a_tenant_without_an_r1plustenant_to_it(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.deploy("credit", tier="full", placement={"tolerations": [DEDICATED]})
    said = await tenant.until("credit", "CapacityFits", "False", "PlacementNotAllowed")
    assert said.startswith("spec.placement.tolerations[0]: dedicated: R1PlusTenant tenant does not allow")
    assert await tenant.listed("Deployment") == await tenant.listed("ControllerRevision") == []
    await tenant.allow(placement={"tolerations": [DEDICATED]})
    revision = await tenant.candidate("credit")
    made = await tenant.present("Deployment", revision)
    assert made["spec"]["template"]["spec"]["tolerations"] == [DEDICATED]
    await tenant.allow(quota={"pods": 20})
    await tenant.until("credit", "CapacityFits", "False", "PlacementNotAllowed")
