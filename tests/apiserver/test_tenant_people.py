"""What a tenant's people may do with the roles that the operator gives them, and what becomes of what they forge.

The prober's own questions are among it: they must be let through for its control, and for nobody else.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from apiserver.conftest import RESTRICTED
from apiserver.operator_rig import ACCOUNT
from apiserver.tenancy_rig import (
    APPLY,
    DECOY_NAMESPACE,
    RBAC,
    Answer,
    Person,
    account,
    installed,
    nobody,
    people,
    person,
    role_binding,
    until,
    user,
)
from apiserver.test_tenant_walls import MARK, REVISION, WALL, deployment, template
from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.plan import probing
from r1plus_operator.plan.inputs import IsolationTerms, OperatorConfig

pytestmark = pytest.mark.apiserver
Json = dict[str, Any]
ANNA, VERA, PAULA, BERT, ANONYMOUS = "anna", "vera", "paula", "bert", "system:anonymous"
"""A's admin and viewer, the platform team, B's admin, and who shows nothing."""
OURS = f"/apis/{names.API_VERSION}/namespaces"
CREDIT = {
    "apiVersion": names.API_VERSION,
    "kind": names.KIND_DEPLOYMENT,
    "metadata": {"name": "credit"},
    "spec": {"tier": "full"},
}
TENANT = {"apiVersion": names.API_VERSION, "kind": names.KIND_TENANT, "metadata": {"name": "tenant"}, "spec": {}}
SUITE = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "own-suite", "labels": {names.LABEL_SUITE: "own"}},
    "data": {"a": "b"},
}
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
def server(apiserver_with_controllers: ApiServer) -> Iterator[ApiServer]:
    with installed(apiserver_with_controllers) as made:
        yield made


@pytest.fixture(scope="module")
def world(server: ApiServer) -> Iterator[World]:
    a, b, plain = (f"{letter}-{uuid.uuid4().hex[:10]}" for letter in "abp")
    known = (ANNA, VERA, PAULA, BERT, ACCOUNT, CONTROL, account(a, names.PROBER), account(a, "credit"))
    with (
        person(server, "admin", ("system:masters",)) as admin,
        people(server, *known) as who,
        nobody(server) as anonymous,
    ):
        for name, labels in ((a, RESTRICTED), (b, RESTRICTED), (plain, {})):
            meta = {"name": name, "labels": labels}
            admin.do("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        everywhere = role_binding("", "platform", "cluster-admin", user(PAULA)) | {"kind": "ClusterRoleBinding"}
        del everywhere["metadata"]["namespace"]
        admin.do("PATCH", f"/apis/{RBAC}/v1/clusterrolebindings/platform?fieldManager=test", everywhere, kind=APPLY)
        until(lambda: who[PAULA].may("create", "r1plustenants", a, "r1plus.ai"), "paula is the platform team")
        for namespace, role, name in ((a, names.ROLE_TENANT_ADMIN, ANNA), (a, names.ROLE_TENANT_VIEWER, VERA), (b, names.ROLE_TENANT_ADMIN, BERT)):  # fmt: skip
            given = role_binding(namespace, role, role, user(name))
            given["metadata"]["labels"] = WALL
            who[ACCOUNT].do("POST", f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings", given)
            verb = "create" if "admin" in role else "list"
            until(
                lambda n=name, v=verb, ns=namespace: who[n].may(v, "r1plusdeployments", ns, "r1plus.ai"),
                f"{name} has a role",
            )  # type: ignore[misc]
        until(lambda: who[VERA].may("list", "pods", a), "the viewer's role is whole")
        until(lambda: who[ANNA].may("create", "pods", a, subresource="portforward"), "the admin's role is whole")
        until(lambda: who[BERT].may("create", "configmaps", b), "the other admin's role is whole")
        made = World(a, b, plain, {**who, ANONYMOUS: anonymous}, admin)
        theirs_made(made)
        yield made


def theirs_made(world: World) -> None:
    """What there is in A: a deployment and a suite of anna's, and children of the operator's."""
    anna, operator = world.who[ANNA], world.who[ACCOUNT]
    anna.do("POST", f"{OURS}/{world.a}/r1plusdeployments", CREDIT)
    anna.do("POST", f"/api/v1/namespaces/{world.a}/configmaps", SUITE)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "credit-accuracy", "labels": MARK}}
    operator.do("POST", f"/api/v1/namespaces/{world.a}/configmaps", config)
    revision = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": REVISION, "labels": MARK},
        "revision": 1,
        "data": {"a": "b"},
    }
    operator.do("POST", f"/apis/apps/v1/namespaces/{world.a}/controllerrevisions", revision)
    serving = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_SERVING: "true"}
    operator.do("POST", f"/apis/apps/v1/namespaces/{world.a}/deployments", deployment(REVISION, serving, MARK))


def test_everybody_is_who_the_test_says(world: World) -> None:
    assert {name: one.who() for name, one in world.who.items()} == {name: name for name in world.who} | {ANONYMOUS: ""}


DONE: dict[str, tuple[str, str, str, Json | None]] = {
    "makes a deployment": (ANNA, "POST", OURS + "/{a}/r1plusdeployments", CREDIT | {"metadata": {"name": "more"}}),
    "changes it": (ANNA, "PATCH", OURS + "/{a}/r1plusdeployments/credit", {"spec": {"replicas": 2}}),
    "asks for a rollback": (ANNA, "PATCH", OURS + "/{a}/r1plusdeployments/credit", {"metadata": {"annotations": {"r1plus.ai/requested-rollback": "{}"}}}),
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
OPEN = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "open"},
    "spec": {"podSelector": {}},
}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": template({})["spec"]}
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
    for body in (TENANT, CREDIT | {"metadata": {"name": "more"}})
    for what, namespace, said in (
        ("a namespace that is no tenant", "{plain}", "is no tenant; who makes the namespaces labels it"),
        ("the default namespace", "default", "default is Kubernetes'"),
        ("kube-system", "kube-system", "make another namespace"),
        ("the operator's namespace", "r1plus-system", "r1plus-system is Kubernetes'"),
        ("Prometheus' namespace", "monitoring", "monitoring is Kubernetes'"),
        ("the decoy", DECOY_NAMESPACE, "is what the prober of walls attacks"),
    )
}


@pytest.mark.parametrize(("namespace", "body", "said"), PLACES.values(), ids=PLACES)
def test_held_even_against_the_platform_team(world: World, namespace: str, body: Json, said: str) -> None:
    kind = "r1plustenants" if body["kind"] == names.KIND_TENANT else "r1plusdeployments"
    answer = world.ask(PAULA, "POST", f"{OURS}/{namespace}/{kind}", body)
    assert answer.status == 403
    assert "ValidatingAdmissionPolicy 'r1plus-operator-deployments'" in answer.text
    assert said in answer.text, answer
    assert world.ask(PAULA, "POST", f"{OURS}/{{b}}/{kind}", body).status == 201


def test_a_label_makes_no_tenant_of_a_reserved_namespace(world: World) -> None:
    world.admin.do("PATCH", "/api/v1/namespaces/monitoring", {"metadata": {"labels": {names.LABEL_TENANT: "true"}}})
    answer = world.ask(PAULA, "POST", f"{OURS}/monitoring/r1plustenants", TENANT)
    assert "monitoring is Kubernetes'" in answer.text
    world.admin.do("PATCH", "/api/v1/namespaces/monitoring", {"metadata": {"labels": {names.LABEL_TENANT: None}}})


QUESTIONS = probing.questions(
    OperatorConfig(
        "m:1", "t:1", "f", "r1plus-system", "monitoring", isolation=IsolationTerms(decoy_namespace=DECOY_NAMESPACE)
    )
)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_what_the_prober_asks_is_let_through_for_its_control_and_for_nobody_else(world: World, question: Any) -> None:
    prober, serving = account(world.a, names.PROBER), account(world.a, "credit")
    until(lambda: world.who[CONTROL].may("list", "secrets", DECOY_NAMESPACE), "the control's role is known")

    def ask(who: str) -> int:
        body = None if not question.body else json.loads(question.body)
        kind = question.content_type if body else ""
        return world.who[who].ask(question.method, question.path, body, kind=kind, dry=False).status

    assert ask(CONTROL) not in (401, 403)
    asking = ANONYMOUS if question.anonymous else prober
    assert {who: ask(who) for who in (asking, serving, ANNA, BERT)} == dict.fromkeys((asking, serving, ANNA, BERT), 403)


def test_an_owner_in_another_namespace_is_none_and_costs_only_who_forged_it(world: World) -> None:
    """B's objects that say they belong to A's: Kubernetes finds no such owner in B, and collects them."""
    anna, bert = world.who[ANNA], world.who[BERT]
    path = f"{OURS}/{world.a}/r1plusdeployments/credit"
    before = anna.do("GET", path)
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_DEPLOYMENT,
        "name": "credit",
        "uid": before["metadata"]["uid"],
    }
    there = f"/api/v1/namespaces/{world.b}/configmaps"
    own = bert.do("POST", there, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own"}})
    for name, refs in (("forged", [owner | {"controller": True}]), ("honest", [{"apiVersion": "v1", "kind": "ConfigMap", "name": "own", "uid": own["metadata"]["uid"]}])):  # fmt: skip
        bert.do(
            "POST",
            there,
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": refs}},
        )
    until(lambda: bert.ask("GET", f"{there}/forged").status == 404, "what was forged is collected")
    assert bert.ask("GET", f"{there}/honest").status == 200
    after = anna.do("GET", path)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_deployment_that_says_it_belongs_to_another_tenants_goes_alone(world: World) -> None:
    anna, bert = world.who[ANNA], world.who[BERT]
    there = anna.do("GET", f"{OURS}/{world.a}/r1plusdeployments/credit")
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_DEPLOYMENT,
        "name": "credit",
        "uid": there["metadata"]["uid"],
    }
    forged = CREDIT | {"metadata": {"name": "forged", "ownerReferences": [owner]}}
    bert.do("POST", f"{OURS}/{world.b}/r1plusdeployments", forged)
    until(lambda: bert.ask("GET", f"{OURS}/{world.b}/r1plusdeployments/forged").status == 404, "it is collected")
    assert anna.ask("GET", f"{OURS}/{world.a}/r1plusdeployments/credit").status == 200
