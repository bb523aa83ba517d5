"""What was there before a namespace became a tenant, or before the policies on pods: it goes on, and can be ended."""

from collections.abc import Iterator

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.admission_world import DEPLOYMENT, SERVING, AdmissionWorld, TenantRights, admission_world, read
from support.apiserver.manifests import CHILD, RESTRICTED, Json, deployment, pod, r1plus_tenant
from support.apiserver.people import Person
from support.apiserver.walls import REVISION, assert_held, pod_of
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
ALL: list[Json] = [{"operator": "Exists"}]
RIVAL: list[Json] = [{"key": "dedicated", "value": "rival", "operator": "Equal"}]


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person) -> Iterator[AdmissionWorld]:
    """A tenant whose pods `all` and `rival` are older than its label."""
    with admission_world(installed_server, admin, TenantRights(("edit",)), is_tenant=False) as made:
        pods = made.path(kinds.POD)
        for name, tolerations in (("all", ALL), ("rival", RIVAL)):
            body = pod(name, tolerations=tolerations)
            body["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
            admin.do("POST", pods, body)
        label = {names.LABEL_TENANT: RESTRICTED[names.LABEL_TENANT]}
        admin.do("PATCH", kinds.NAMESPACE.path(name=made.namespace), {"metadata": {"labels": label}})
        admin.do("POST", made.path(kinds.R1PLUS_TENANT), r1plus_tenant(made.namespace))
        for tolerations in (ALL, RIVAL):
            new = pod("new", tolerations=tolerations)
            wait_until(lambda new=new: made.mallory.ask("POST", pods, new).refused, "new pods are held to the policies")
        yield made


@pytest.mark.parametrize("name", ["all", "rival"])
def test_a_pod_from_before_can_be_edited_and_its_job_can_end(world: AdmissionWorld, name: str) -> None:
    for meta in ({"labels": {"team": "a"}}, {"finalizers": None}):
        answer = world.mallory.ask("PATCH", world.path(kinds.POD, name), {"metadata": meta})
        assert answer.status == 200, answer


def test_a_pod_from_before_tolerates_nothing_more(world: AdmissionWorld) -> None:
    for name, added, policy in (("rival", ALL, "nodes"), ("all", RIVAL, "tenant-nodes")):
        before = read(world.mallory, world.path(kinds.POD, name))["spec"]["tolerations"]
        answer = world.mallory.ask("PATCH", world.path(kinds.POD, name), {"spec": {"tolerations": [*before, *added]}})
        assert_held(answer, policy, "spec.tolerations")


def test_a_serving_pod_of_a_user_that_the_operator_has_now_is_made_again(world: AdmissionWorld, admin: Person) -> None:
    body = deployment(REVISION, SERVING, CHILD)
    body["spec"]["template"]["spec"]["securityContext"]["runAsUser"] = 1100
    world.operator.do("POST", world.path(DEPLOYMENT), body)
    assert pod_of(admin, world.namespace, f"{names.LABEL_SERVING}=true")
