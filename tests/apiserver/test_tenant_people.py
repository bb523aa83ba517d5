"""What a tenant's people may do with the roles that the operator gives them, and what becomes of what they forge.

The prober's own questions are among it: they must be let through for its control, and for nobody else.
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
from r1plus_operator.plan.tenancy import isolation_test_run
from support.apiserver.chart import DECOY_NAMESPACE
from support.apiserver.manifests import (
    CHILD,
    CLUSTER_ROLE_BINDING,
    RBAC,
    ROLE_BINDING,
    Json,
    cluster_role_binding,
    config_map,
    deployment,
    manifest,
    pod,
    r1plus_deployment,
    r1plus_tenant,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.people import APPLY, Answer, Person, nobody, people, until_pods_are_taken
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE, account
from support.apiserver.walls import CONFIGURED, POLICY, REVISION, assert_held
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]
ANNA, VERA, PAULA, BERT, ANONYMOUS = "anna", "vera", "paula", "bert", "system:anonymous"
"""A's admin and viewer, the platform team, B's admin, and who shows nothing."""
OURS = f"/apis/{names.API_VERSION}/namespaces"
CREDIT, MORE = r1plus_deployment("credit"), r1plus_deployment("more")
TENANT = r1plus_tenant()
SUITE = config_map("own-suite", labels={names.LABEL_SUITE: "own"}, a="b")
CONTROL = account(DECOY_NAMESPACE, "control")


@dataclass(frozen=True, slots=True)
class World:
    """Two tenants, a namespace that is none, and everybody."""

    a: str
    b: str
    plain: str
    who: dict[str, Person]
    admin: Person

    def ask(self, who: str, method: str, path: str, body: Json | None = None) -> Answer:
        """{a}, {b} and {plain} stand for the namespaces."""
        return self.who[who].ask(method, path.format(a=self.a, b=self.b, plain=self.plain), body)


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person) -> Iterator[World]:
    a, b, plain = (f"{letter}-{uuid.uuid4().hex[:10]}" for letter in "abp")
    known = (ANNA, VERA, PAULA, BERT, OPERATOR, CONTROL, account(a, names.PROBER), account(a, "credit"))
    with people(installed_server, *known) as who, nobody(installed_server) as anonymous:
        for body in (tenant_namespace(a), tenant_namespace(b), manifest(kinds.NAMESPACE, plain)):
            admin.do("POST", kinds.NAMESPACE.path(), body)
        until_pods_are_taken(admin, a)
        platform = f"{CLUSTER_ROLE_BINDING.path(name='platform')}?fieldManager=test"
        admin.do("PATCH", platform, cluster_role_binding("platform", "cluster-admin", user(PAULA)), kind=APPLY)
        who[PAULA].gets("create", "r1plustenants", a, "r1plus.ai")
        for namespace, role, name in (
            (a, names.ROLE_TENANT_ADMIN, ANNA),
            (a, names.ROLE_TENANT_VIEWER, VERA),
            (b, names.ROLE_TENANT_ADMIN, BERT),
        ):
            given = role_binding(namespace, role, role, user(name))
            given["metadata"]["labels"] = POLICY
            who[OPERATOR].do("POST", ROLE_BINDING.path(namespace), given)
            who[name].gets("create" if "admin" in role else "list", "r1plusdeployments", namespace, "r1plus.ai")
        # Until each role is whole.
        who[VERA].gets("list", "pods", a)
        who[ANNA].gets("create", "pods", a, subresource="portforward")
        who[BERT].gets("create", "configmaps", b)
        made = World(a, b, plain, {**who, ANONYMOUS: anonymous}, admin)
        theirs_made(made)
        yield made


def theirs_made(world: World) -> None:
    """What there is in A: a deployment and a suite of anna's, and children of the operator's."""
    anna, operator = world.who[ANNA], world.who[OPERATOR]
    anna.do("POST", f"{OURS}/{world.a}/r1plusdeployments", CREDIT)
    anna.do("POST", kinds.CONFIG_MAP.path(world.a), SUITE)
    operator.do("POST", kinds.CONFIG_MAP.path(world.a), config_map("credit-accuracy", labels=CHILD))
    revisions, deployments = kinds.BY_KIND["ControllerRevision"], kinds.BY_KIND["Deployment"]
    operator.do(
        "POST", revisions.path(world.a), manifest(revisions, REVISION, labels=CHILD, revision=1, data={"a": "b"})
    )
    serving = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_SERVING: "true"}
    operator.do("POST", deployments.path(world.a), deployment(REVISION, serving, CHILD))


def test_everybody_is_who_the_test_says(world: World) -> None:
    assert {name: one.who() for name, one in world.who.items()} == {name: name for name in world.who} | {ANONYMOUS: ""}


DONE: dict[str, tuple[str, str, str, Json | None]] = {
    "makes a deployment": (ANNA, "POST", OURS + "/{a}/r1plusdeployments", MORE),
    "changes it": (ANNA, "PATCH", OURS + "/{a}/r1plusdeployments/credit", {"spec": {"replicas": 2}}),
    "deletes it": (ANNA, "DELETE", OURS + "/{a}/r1plusdeployments/credit", None),
    "deletes all of them": (ANNA, "DELETE", OURS + "/{a}/r1plusdeployments", None),
    "makes a suite": (ANNA, "POST", "/api/v1/namespaces/{a}/configmaps", SUITE | {"metadata": {"name": "second"}}),
    "changes one": (ANNA, "PATCH", "/api/v1/namespaces/{a}/configmaps/own-suite", {"data": {"a": "c"}}),
    "deletes one": (ANNA, "DELETE", "/api/v1/namespaces/{a}/configmaps/own-suite", None),
    "reads what the platform team allows": (ANNA, "GET", OURS + "/{a}/r1plustenants", None),
    **{
        f"{name} reads {path}": (name, "GET", f"/{prefix}/namespaces/{{a}}/{path}", None)
        for name in (ANNA, VERA)
        for prefix, path in (
            ("api/v1", "pods"), ("api/v1", "events"), ("api/v1", "services"), ("api/v1", "configmaps"),
            ("api/v1", "resourcequotas"), ("apis/apps/v1", "controllerrevisions"), ("apis/apps/v1", "deployments"),
            ("apis/networking.k8s.io/v1", "networkpolicies"), (f"apis/{RBAC}/v1", "rolebindings"), ("apis/batch/v1", "jobs"),
            (f"apis/{names.API_VERSION}", "r1plusdeployments"), (f"apis/{names.API_VERSION}", "r1plustenants"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(("who", "method", "path", "body"), DONE.values(), ids=DONE)
def test_done(world: World, who: str, method: str, path: str, body: Json | None) -> None:
    answer = world.ask(who, method, path, body)
    assert answer.status in (200, 201), answer


def test_a_port_is_forwarded_for_an_admin_and_not_for_a_viewer(world: World) -> None:
    path = "/api/v1/namespaces/{a}/pods/none/portforward"
    assert world.ask(ANNA, "POST", path).status == 404, "there is no such pod, and that is all that is wrong"
    assert world.ask(VERA, "POST", path).status == 403


BINDING = role_binding("", "more", names.ROLE_TENANT_ADMIN, user("mallory"))
OPEN = manifest(kinds.BY_KIND["NetworkPolicy"], "open", spec={"podSelector": {}})
POD = pod("p")
TOKEN = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
VERDICT = {"metadata": {"annotations": {names.ANNOTATION_VERDICT: "{}"}}}
REFUSED: dict[str, tuple[str, str, Json | None]] = {
    "Secrets": ("GET", "/api/v1/namespaces/{a}/secrets", None),
    "a Secret": ("POST", "/api/v1/namespaces/{a}/secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
    "a token": ("POST", "/api/v1/namespaces/{a}/serviceaccounts/default/token", TOKEN),
    "a pod of one's own": ("POST", "/api/v1/namespaces/{a}/pods", POD),
    "a shell": ("POST", "/api/v1/namespaces/{a}/pods/none/exec?command=sh", None),
    "a container for debugging": ("PATCH", "/api/v1/namespaces/{a}/pods/none/ephemeralcontainers", {}),
    "a wall": ("POST", "/apis/networking.k8s.io/v1/namespaces/{a}/networkpolicies", OPEN),
    "all walls": ("DELETE", "/apis/networking.k8s.io/v1/namespaces/{a}/networkpolicies", None),
    "a verdict": ("PATCH", "/apis/apps/v1/namespaces/{a}/controllerrevisions/" + REVISION, VERDICT),
    "quotas": ("DELETE", "/api/v1/namespaces/{a}/resourcequotas", None),
    "who may administer": ("POST", f"/apis/{RBAC}/v1/namespaces/{{a}}/rolebindings", BINDING),
    "what the platform team allows": ("PATCH", OURS + "/{a}/r1plustenants/tenant", {"spec": {}}),
    "a status": ("PATCH", OURS + "/{a}/r1plusdeployments/credit/status", {"status": {"verdict": "Pass"}}),
    "the namespace": ("PATCH", "/api/v1/namespaces/{a}", {"metadata": {"labels": {names.LABEL_TENANT: None}}}),
    "its status": ("PATCH", "/api/v1/namespaces/{a}/status", {"metadata": {"labels": {names.LABEL_TENANT: None}}}),
    "its finalizers": ("PUT", "/api/v1/namespaces/{a}/finalize", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "{a}"}}),
    "another tenant's deployments": ("GET", OURS + "/{b}/r1plusdeployments", None),
    "all tenants' deployments": ("GET", f"/apis/{names.API_VERSION}/r1plusdeployments?labelSelector=a%3Db", None),
    "all tenants' ConfigMaps": ("GET", "/api/v1/configmaps?labelSelector=r1plus.ai/suite", None),
    "another tenant's suites": ("GET", "/api/v1/namespaces/{b}/configmaps", None),
    "a deployment in another tenant": ("POST", OURS + "/{b}/r1plusdeployments", CREDIT),
}  # fmt: skip


EVEN_THE_PLATFORMS = ("a verdict", "a status")
"""What a policy holds against the platform team as well; its control is the operator, in that policy's own test."""


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_rbac_to_all_but_the_platform_team(world: World, what: str) -> None:
    method, path, body = REFUSED[what]
    asked = {who: world.ask(who, method, path, body) for who in (ANNA, VERA, account(world.a, "credit"), ANONYMOUS)}
    assert {who: answer.status for who, answer in asked.items()} == dict.fromkeys(asked, 403)
    assert not [who for who, answer in asked.items() if "ValidatingAdmissionPolicy" in answer.text], "RBAC alone"
    allowed = world.ask(PAULA, method, path, body)
    assert allowed.refused is (what in EVEN_THE_PLATFORMS), allowed


def test_the_operators_config_is_not_for_the_admin_to_change(world: World) -> None:
    path, body = "/api/v1/namespaces/{a}/configmaps/", {"data": {"verdicts.json": "{}"}}
    answer = world.ask(ANNA, "PATCH", path + "credit-accuracy", body)
    assert answer.status == 403
    assert "belongs to the operator" in answer.text
    assert world.ask(ANNA, "PATCH", path + "own-suite", body).status == 200


PLACES: dict[str, tuple[str, Json, str]] = {
    f"{body['kind']} in {what}": (namespace, body, said)
    for body in (TENANT, MORE)
    for what, namespace, said in (
        ("a namespace that is no tenant", "{plain}", "the platform team makes it one: kubectl label namespace"),
        ("the default namespace", "default", "default is reserved for Kubernetes"),
        ("kube-system", "kube-system", "use another namespace"),
        ("the operator's namespace", OPERATOR_NAMESPACE, "r1plus-system is reserved for Kubernetes"),
        ("Prometheus' namespace", "monitoring", "monitoring is reserved for Kubernetes"),
        ("the decoy", DECOY_NAMESPACE, "is the decoy of the isolation test"),
    )
}


@pytest.mark.parametrize(("namespace", "body", "said"), PLACES.values(), ids=PLACES)
def test_held_even_against_the_platform_team(world: World, namespace: str, body: Json, said: str) -> None:
    kind = "r1plustenants" if body["kind"] == names.KIND_TENANT else "r1plusdeployments"
    assert_held(world.ask(PAULA, "POST", f"{OURS}/{namespace}/{kind}", body), "deployments", said)
    assert world.ask(PAULA, "POST", f"{OURS}/{{b}}/{kind}", body).status == 201


def test_a_label_makes_no_tenant_of_a_reserved_namespace(world: World) -> None:
    world.admin.do("PATCH", "/api/v1/namespaces/monitoring", {"metadata": {"labels": {names.LABEL_TENANT: "true"}}})
    answer = world.ask(PAULA, "POST", f"{OURS}/monitoring/r1plustenants", TENANT)
    assert "monitoring is reserved for Kubernetes" in answer.text
    world.admin.do("PATCH", "/api/v1/namespaces/monitoring", {"metadata": {"labels": {names.LABEL_TENANT: None}}})


QUESTIONS = isolation_test_run.list_api_requests(CONFIGURED)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_what_the_prober_asks_is_let_through_for_its_control_and_for_nobody_else(world: World, question: Any) -> None:
    prober, serving = account(world.a, names.PROBER), account(world.a, "credit")
    world.who[CONTROL].gets("list", "secrets", DECOY_NAMESPACE)

    def ask(who: str) -> int:
        body = None if not question.body else json.loads(question.body)
        kind = question.content_type if body else ""
        return world.who[who].ask(question.method, question.path, body, kind=kind, dry=False).status

    assert ask(CONTROL) not in (401, 403)
    asking = ANONYMOUS if question.anonymous else prober
    assert {who: ask(who) for who in (asking, serving, ANNA, BERT)} == dict.fromkeys((asking, serving, ANNA, BERT), 403)


def owner_of(obj: Json) -> Json:
    """The reference to an owner."""
    meta = obj["metadata"]
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": meta["name"], "uid": meta["uid"]}


def test_an_owner_in_another_namespace_is_none_and_costs_only_who_forged_it(world: World) -> None:
    """B's objects that say they belong to A's: Kubernetes finds no such owner in B, and collects them."""
    anna, bert = world.who[ANNA], world.who[BERT]
    path, there = f"{OURS}/{world.a}/r1plusdeployments/credit", kinds.CONFIG_MAP.path(world.b)
    before = anna.do("GET", path)
    own = bert.do("POST", there, config_map("own"))
    controlled = config_map("controlled")
    controlled["metadata"]["ownerReferences"] = [owner_of(before) | {"controller": True}]
    assert_held(bert.ask("POST", there, controlled), "controllers", "leave out `controller`")
    for name, owner in (("forged", owner_of(before)), ("honest", owner_of(own))):
        child = config_map(name)
        child["metadata"]["ownerReferences"] = [owner]
        bert.do("POST", there, child)
    wait_until(lambda: bert.ask("GET", f"{there}/forged").status == 404, "what was forged is collected")
    assert bert.ask("GET", f"{there}/honest").status == 200
    after = anna.do("GET", path)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_deployment_that_says_it_belongs_to_another_tenants_goes_alone(world: World) -> None:
    anna, bert = world.who[ANNA], world.who[BERT]
    owner = owner_of(anna.do("GET", f"{OURS}/{world.a}/r1plusdeployments/credit"))
    forged = CREDIT | {"metadata": {"name": "forged", "ownerReferences": [owner]}}
    bert.do("POST", f"{OURS}/{world.b}/r1plusdeployments", forged)
    wait_until(lambda: bert.ask("GET", f"{OURS}/{world.b}/r1plusdeployments/forged").status == 404, "it is collected")
    assert anna.ask("GET", f"{OURS}/{world.a}/r1plusdeployments/credit").status == 200
