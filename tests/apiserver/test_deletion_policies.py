"""Deletions that policies hold: nobody leaves children behind, and a tenant that goes gets no new deployment."""

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.admission_world import AdmissionWorld, TenantRights, admission_world
from support.apiserver.manifests import Json, r1plus_deployment, r1plus_tenant
from support.apiserver.people import Person
from support.apiserver.walls import assert_held
from support.tables import for_each
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]


@pytest.fixture(scope="module")
def tenant_rights() -> TenantRights:
    return TenantRights(("admin", names.ROLE_TENANT_ADMIN))


@pytest.fixture(scope="module")
def credit(world: AdmissionWorld) -> str:
    """Path of an R1PlusDeployment."""
    world.mallory.do("POST", world.path(kinds.R1PLUS_DEPLOYMENT), r1plus_deployment("credit", world.namespace))
    return world.path(kinds.R1PLUS_DEPLOYMENT, "credit")


@for_each("options", {
    "its policy": {"propagationPolicy": "Orphan"},
    "what older clients write": {"orphanDependents": True},
})  # fmt: skip
def test_a_tenants_admin_orphans_no_children(world: AdmissionWorld, admin: Person, credit: str, options: Json) -> None:
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}
    assert_held(world.mallory.ask("DELETE", credit, body | options), "deployments", "--cascade=orphan")
    for who, rest in ((admin, options), (world.mallory, {}), (world.mallory, {"propagationPolicy": "Foreground"})):
        answer = who.ask("DELETE", credit, body | rest)
        assert answer.status == 200, answer


def test_a_tenants_admin_orphans_no_children_by_the_finalizer(
    world: AdmissionWorld, admin: Person, credit: str
) -> None:
    for name, policy in (("orphan", "deployments"), ("example.com/mine", "")):
        answer = world.mallory.ask("PATCH", credit, {"metadata": {"finalizers": [name]}})
        assert (answer.status == 403) == bool(policy), answer
    assert admin.ask("PATCH", credit, {"metadata": {"finalizers": ["orphan"]}}).status == 200


def test_a_tenant_that_is_being_deleted_gets_no_new_deployment(installed_server: ApiServer, admin: Person) -> None:
    with admission_world(installed_server, admin) as going:
        tenants, deployments = going.path(kinds.R1PLUS_TENANT), going.path(kinds.R1PLUS_DEPLOYMENT)
        admin.do("POST", tenants, r1plus_tenant(going.namespace))
        admin.do("PATCH", f"{tenants}/{names.TENANT}", {"metadata": {"finalizers": ["example.com/holds-it"]}})
        body = r1plus_deployment("credit", going.namespace)
        wait_until(lambda: admin.ask("POST", deployments, body).status == 201, "the namespace is a tenant")
        admin.do("POST", deployments, body)
        admin.do("DELETE", f"{tenants}/{names.TENANT}")
        other = r1plus_deployment("other", going.namespace)
        wait_until(lambda: admin.ask("POST", deployments, other).status == 403, "no new deployment is taken")
        assert_held(admin.ask("POST", deployments, other), "placement", "is being deleted")
        assert admin.ask("PATCH", f"{deployments}/credit", {"spec": {"replicas": 2}}).status == 200
