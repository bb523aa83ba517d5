"""What was there before a namespace became a tenant, or before the policies on pods: it goes on, and can be ended."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.manifests import (
    CHILD,
    ROLE_BINDING,
    Json,
    deployment,
    pod,
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
OTTO = "otto"
ALL: list[Json] = [{"operator": "Exists"}]
RIVAL: list[Json] = [{"key": "dedicated", "value": "rival", "operator": "Equal"}]
SERVING = {
    names.LABEL_MANAGED_BY: names.MANAGED_BY,
    names.LABEL_DEPLOYMENT: "credit",
    names.LABEL_REVISION: "credit-0123456789",
    names.LABEL_SERVING: "true",
}


@dataclass(frozen=True, slots=True)
class World:
    """A tenant whose pods `all` and `rival` are older than its label."""

    namespace: str
    otto: Person
    operator: Person

    def path(self, name: str = "") -> str:
        return kinds.POD.path(self.namespace, name)


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person) -> Iterator[World]:
    namespace = f"old-{uuid.uuid4().hex[:10]}"
    body = tenant_namespace(namespace)
    label = {names.LABEL_TENANT: body["metadata"]["labels"].pop(names.LABEL_TENANT)}
    admin.do("POST", kinds.NAMESPACE.path(), body)
    until_pods_are_taken(admin, namespace)
    for name, tolerations in (("all", ALL), ("rival", RIVAL)):
        made = pod(name, tolerations=tolerations)
        made["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
        admin.do("POST", kinds.POD.path(namespace), made)
    admin.do("POST", ROLE_BINDING.path(namespace), role_binding(namespace, OTTO, "edit", user(OTTO)))
    admin.do("PATCH", kinds.NAMESPACE.path(name=namespace), {"metadata": {"labels": label}})
    admin.do("POST", kinds.R1PLUS_TENANT.path(namespace), r1plus_tenant(namespace))
    with people(installed_server, OTTO, OPERATOR) as who:
        otto = who[OTTO]
        otto.gets("patch", "pods", namespace)
        for tolerations in (ALL, RIVAL):
            new = pod("new", tolerations=tolerations)
            wait_until(lambda new=new: otto.ask("POST", kinds.POD.path(namespace) + "?dryRun=All", new).refused, "held")
        yield World(namespace, otto, who[OPERATOR])


@pytest.mark.parametrize("name", ["all", "rival"])
def test_a_pod_from_before_can_be_edited_and_its_job_can_end(world: World, name: str) -> None:
    for meta in ({"labels": {"team": "a"}}, {"finalizers": None}):
        answer = world.otto.ask("PATCH", world.path(name), {"metadata": meta})
        assert answer.status == 200, answer


def test_but_it_tolerates_nothing_more(world: World) -> None:
    for name, added, policy in (("rival", ALL, "nodes"), ("all", RIVAL, "tenant-nodes")):
        before = json.loads(world.otto.ask("GET", world.path(name)).text)["spec"]["tolerations"]
        answer = world.otto.ask("PATCH", world.path(name), {"spec": {"tolerations": [*before, *added]}})
        assert_held(answer, policy, "spec.tolerations")


def test_a_serving_pod_of_a_user_that_the_operator_has_now_is_made_again(world: World, admin: Person) -> None:
    body = deployment("credit-0123456789", SERVING, CHILD)
    body["spec"]["template"]["spec"]["securityContext"]["runAsUser"] = 1100
    world.operator.do("POST", kinds.BY_KIND["Deployment"].path(world.namespace), body)
    assert pod_of(admin, world.namespace, f"{names.LABEL_SERVING}=true")
