"""Attacks that a review of commit 035d42d found, each by its number there: what is refused stands beside its control."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import (
    MARK,
    ROLE_BINDING,
    Json,
    config_map,
    deployment,
    manifest,
    pod_template,
    r1plus_deployment,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.memory import MEMORY_LIMIT, peak_bytes
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import STRATEGIC, Person, people
from support.apiserver.rights import OPERATOR, account
from support.apiserver.tenant import Tenant
from support.apiserver.walls import POLICY, assert_held
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
MALLORY = "mallory"
"""Administers tenant A by both roles: the operator's, and Kubernetes' own `admin`."""
OWN, OURS = "mallorys-own", "r1plus-engine-0123456789"

BODIES: dict[str, dict[str, Any]] = {
    "ConfigMap": {"data": {"a": "b"}},
    "ServiceAccount": {"automountServiceAccountToken": False},
    "Service": {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}},
    "ControllerRevision": {"revision": 1, "data": {"a": "b"}},
    "Deployment": {"spec": deployment("d", {"a": "b"})["spec"]},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}},
    "PersistentVolumeClaim": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    "Job": {"spec": {"template": {"spec": pod_template({})["spec"] | {"restartPolicy": "Never"}}}},
    "ResourceQuota": {"spec": {"hard": {"pods": "1000"}}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "1m"}}]}},
    "RoleBinding": {
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.ROLE_TENANT_VIEWER
        },
        "subjects": [user("vera")],
    },
}  # fmt: skip
"""Of every kind of child that this server has."""
KINDS = {kind: kinds.BY_KIND[kind] for kind in BODIES}


def child(kind: str, name: str, marked: bool) -> Json:
    body = BODIES[kind]
    if kind == "RoleBinding" and not marked:
        body = body | {"roleRef": body["roleRef"] | {"name": "view"}}
    return manifest(KINDS[kind], name, labels=MARK if marked else None, **body)


class Attack:
    """Mallory in her namespace, where the operator has made a child of every kind."""

    def __init__(self, namespace: str, mallory: Person, pod: Person) -> None:
        self.namespace = namespace
        self.mallory = mallory
        self.pod = pod
        """The account of a serving pod, to which somebody has given Mallory's roles by mistake."""

    def path(self, resource: Resource, name: str = "") -> str:
        return resource.path(self.namespace, name or None)


@pytest.fixture(scope="module")
def attack(installed_server: ApiServer, admin: Person) -> Iterator[Attack]:
    namespace = f"a-{uuid.uuid4().hex[:10]}"
    pod = account(namespace, OURS)
    with people(installed_server, MALLORY, OPERATOR, pod) as who:
        mallory, operator = who[MALLORY], who[OPERATOR]
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
        given = role_binding(namespace, "r1plus-tenant-admins", names.ROLE_TENANT_ADMIN, user(MALLORY))
        given["metadata"]["labels"] = POLICY
        operator.do("POST", ROLE_BINDING.path(namespace), given)
        mistake = role_binding(namespace, "mistake", names.ROLE_TENANT_ADMIN, user(pod))
        admin.do("POST", ROLE_BINDING.path(namespace), mistake)
        # Kubernetes' admin, and what it does not have: whatever RBAC says, the policies must hold.
        rules = [{"apiGroups": [kind.group], "resources": [kind.plural], "verbs": ["*"]} for kind in KINDS.values()]
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "all"},
            "rules": rules,
        }
        admin.do("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles", role)
        # What is waited for comes last: bindings are known in their order.
        for name, kind in (("admin", "ClusterRole"), ("all", "Role")):
            admin.do(
                "POST",
                ROLE_BINDING.path(namespace),
                role_binding(namespace, name, name, user(MALLORY), user(pod), kind=kind),
            )
        for kind in KINDS.values():
            mallory.gets("deletecollection", kind.plural, namespace, kind.group)
        made = Attack(namespace, mallory, who[pod])
        for kind, resource in KINDS.items():
            operator.do("POST", made.path(resource), child(kind, OURS, marked=True))
            mallory.do("POST", made.path(resource), child(kind, OWN, marked=False))
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_finding_01_no_child_of_any_kind_can_be_deleted(attack: Attack, kind: str) -> None:
    ours, own = (attack.path(KINDS[kind], name) for name in (OURS, OWN))
    assert_held(attack.mallory.ask("DELETE", ours), "kept", f"{OURS} belongs to the operator")
    assert attack.mallory.ask("DELETE", own).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_finding_01_no_child_of_any_kind_goes_with_a_collection(attack: Attack, kind: str) -> None:
    collection = attack.path(KINDS[kind])
    assert_held(attack.mallory.ask("DELETE", collection), "kept", " belongs to the operator")
    of_own = f"{collection}?fieldSelector=metadata.name%3D{OWN}"
    assert attack.mallory.ask("DELETE", of_own).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_finding_01_no_owner_of_a_child_of_any_kind_can_be_changed(attack: Attack, kind: str) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": OWN, "uid": str(uuid.uuid4())}
    edit = {"metadata": {"ownerReferences": [owner]}}
    assert_held(attack.mallory.ask("PATCH", attack.path(KINDS[kind], OURS), edit), "children", "changes its owner")
    assert attack.mallory.ask("PATCH", attack.path(KINDS[kind], OWN), edit).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_finding_01_the_account_of_a_pod_takes_no_child_of_any_kind(attack: Attack, kind: str) -> None:
    ours, own = (attack.path(KINDS[kind], name) for name in (OURS, OWN))
    edit = {"metadata": {"ownerReferences": [], "labels": {names.LABEL_MANAGED_BY: None}}}
    assert_held(attack.pod.ask("DELETE", ours), "kept", f"{OURS} belongs to the operator")
    assert_held(attack.pod.ask("DELETE", attack.path(KINDS[kind])), "kept", " belongs to the operator")
    assert_held(attack.pod.ask("PATCH", ours, edit), "children", "managed-by")
    assert attack.pod.ask("DELETE", own).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_finding_01_no_mark_can_be_taken_off_or_put_on(attack: Attack, kind: str) -> None:
    off, on = {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}, {"metadata": {"labels": MARK}}
    assert_held(attack.mallory.ask("PATCH", attack.path(KINDS[kind], OURS), off), "children", "managed-by")
    assert_held(attack.mallory.ask("PATCH", attack.path(KINDS[kind], OWN), on), "children", "")


@pytest.mark.parametrize(
    "edit",
    [
        {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}}},
        {"imagePullSecrets": [{"name": "mine"}]},
        {"secrets": [{"name": "mine"}]},
    ],
    ids=["a cloud's role", "a pull secret", "a secret"],
)
def test_finding_01_the_account_of_serving_pods_gets_nothing(attack: Attack, admin: Person, edit: Json) -> None:
    ours, own = (attack.path(KINDS["ServiceAccount"], name) for name in (OURS, OWN))
    assert_held(attack.mallory.ask("PATCH", ours, edit), "children", "only the platform team")
    assert attack.mallory.ask("PATCH", own, edit).status == 200
    assert admin.ask("PATCH", ours, edit).status == 200


SHADOWS = {
    "the settings, suite and verdicts of monitors": ("ConfigMap", "other-accuracy"),
    "a revision's configuration": ("ConfigMap", "other-0123456789"),
    "a revision's Deployment": ("Deployment", "other-0123456789"),
    "a revision": ("ControllerRevision", "other-0123456789"),
    "an engine's volume": ("PersistentVolumeClaim", "r1plus-engine-0123456789"),
    "the account of the isolation test": ("ServiceAccount", "r1plus-prober"),
    "what lets pods out": ("NetworkPolicy", "r1plus-callers"),
}


@pytest.mark.parametrize(("kind", "name"), SHADOWS.values(), ids=SHADOWS)
def test_finding_01_nobody_else_makes_an_object_at_a_name_that_pods_mount(attack: Attack, kind: str, name: str) -> None:
    body = child(kind, name, marked=False)
    assert_held(
        attack.mallory.ask("POST", attack.path(KINDS[kind]), body), "names", f"{name} is a name that the operator"
    )
    own = child(kind, f"x{name.removeprefix('r1plus-')}x", marked=False)
    assert attack.mallory.ask("POST", attack.path(KINDS[kind]), own).status == 201


@pytest.mark.parametrize(("kind", "name"), SHADOWS.values(), ids=SHADOWS)
def test_finding_01_nobody_else_changes_or_deletes_an_unmarked_object_at_such_a_name(
    attack: Attack, admin: Person, kind: str, name: str
) -> None:
    """The platform team has made one there, or it is older than the policies."""
    other = name.replace("0123456789", "abcdefabcd").replace("prober", "other").replace("callers", "other")
    path = attack.path(KINDS[kind], other)
    admin.do("POST", attack.path(KINDS[kind]), child(kind, other, marked=False))
    said = f"{other} is a name that the operator"
    assert_held(attack.mallory.ask("PATCH", path, {"metadata": {"annotations": {"a": "b"}}}), "names", said)
    one_by_one = f"{attack.path(KINDS[kind])}?fieldSelector=metadata.name%3D{other}"
    for way in (path, one_by_one):
        assert_held(attack.mallory.ask("DELETE", way), "names", said)
    assert admin.ask("DELETE", path).status == 200


@pytest.fixture(scope="module")
def references(attack: Attack, admin: Person) -> dict[str, Json]:
    """Owner references that an unmarked object may have. The owners are there: else the garbage collector takes it."""
    owners = {}
    for name in ("credit", "support"):
        made = admin.do("POST", kinds.R1PLUS_DEPLOYMENT.path(attack.namespace), r1plus_deployment(name))
        owners[name] = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, **_identity(made)}
    other = admin.do("POST", attack.path(kinds.CONFIG_MAP), config_map("credit", attack.namespace))
    return {
        "ours": owners["credit"] | {"controller": True},
        "not-controlled": owners["credit"],
        "of-another-kind": {"apiVersion": "v1", "kind": "ConfigMap", **_identity(other), "controller": True},
        "of-another": owners["support"] | {"controller": True},
    }


def _identity(obj: Json) -> Json:
    return {key: obj["metadata"][key] for key in ("name", "uid")}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "RoleBinding"])
def test_finding_01_the_operator_marks_again_what_its_deployment_controls_and_nothing_else(
    attack: Attack, admin: Person, installed_server: ApiServer, references: dict[str, Json], kind: str
) -> None:
    mark = {"metadata": {"labels": {**MARK, names.LABEL_DEPLOYMENT: "credit"}}}
    # No RoleBinding is a deployment's child, and RBAC lets the operator give no other role.
    said = {"not-controlled": "does not overwrite it", "of-another-kind": "does not overwrite it"}
    said |= {"of-another": "belongs to another R1PlusDeployment"}
    with people(installed_server, OPERATOR) as who:
        for name, reference in references.items():
            unmarked = child(kind, name, marked=False)
            unmarked["metadata"]["ownerReferences"] = [reference]
            admin.do("POST", attack.path(KINDS[kind]), unmarked)
            answer = who[OPERATOR].ask("PATCH", attack.path(KINDS[kind], name), mark)
            if name in said:
                assert_held(answer, "foreign-objects", said[name])
            else:
                assert answer.status == 200, answer


def test_finding_01_a_generated_name_is_no_way_around(attack: Attack) -> None:
    body = config_map("", attack.namespace)
    body["metadata"] = {"generateName": "r1plus-engine-"}
    assert_held(attack.mallory.ask("POST", attack.path(kinds.CONFIG_MAP), body), "names", "is a name that the operator")
    body["metadata"] = {"generateName": "mine-"}
    assert attack.mallory.ask("POST", attack.path(kinds.CONFIG_MAP), body).status == 201


def test_finding_01_the_platform_team_and_the_garbage_collector_still_delete(
    attack: Attack, admin: Person, installed_server: ApiServer
) -> None:
    path = attack.path(kinds.CONFIG_MAP, OURS)
    collector = "system:serviceaccount:kube-system:generic-garbage-collector"
    with people(installed_server, collector) as who:
        for one in (admin, who[collector]):
            assert one.ask("DELETE", path).status == 200


def test_finding_01_others_may_still_label_a_child(attack: Attack) -> None:
    edit = {"metadata": {"labels": {"cost-centre": "17"}}}
    answer = attack.mallory.ask("PATCH", attack.path(kinds.CONFIG_MAP, OURS), edit, kind=STRATEGIC)
    assert json.loads(answer.text)["metadata"]["labels"]["cost-centre"] == "17"


async def fill(client: ApiClient, namespace: str, count: int, size: int) -> None:
    """Write so many ConfigMaps that pass for golden suites, of so many bytes each."""
    turns = asyncio.Semaphore(8)

    async def write(number: int) -> None:
        async with turns:
            body = config_map(f"suite-{number}", namespace, {names.LABEL_SUITE: "x"}, **{"items.jsonl": "x" * size})
            await client.create(kinds.CONFIG_MAP, body)

    await asyncio.gather(*(write(number) for number in range(count)))


@pytest.mark.parametrize(
    ("count", "size"),
    [
        pytest.param(120, 1_000_000, id="120 of 1 MB"),
        pytest.param(200, 1_000_000, id="200 of 1 MB", marks=pytest.mark.apiserver_long),
        pytest.param(5000, 1_000, id="5000 of 1 kB", marks=pytest.mark.apiserver_long),
    ],
)
@pytest.mark.parametrize("is_tenant", [False, True], ids=["in a namespace that is no tenant", "in a tenant"])
async def test_finding_02_golden_suites_that_nothing_names_do_not_stop_the_operator(
    operator: OperatorProcess, client: ApiClient, tenant: Tenant, count: int, size: int, is_tenant: bool
) -> None:
    noisy = tenant_namespace(f"noisy-{uuid.uuid4().hex[:10]}")
    if not is_tenant:
        del noisy["metadata"]["labels"]
    await client.create(kinds.NAMESPACE, noisy)
    namespace = noisy["metadata"]["name"]
    await fill(client, namespace, count, size)
    for number in range(2):
        operator.restart()
        await eventually(operator.leads, "the operator leads")
        await tenant.deploy(f"credit-{number}", tier="full")
        await tenant.candidate(f"credit-{number}")
        assert peak_bytes(operator.pid) < 0.6 * MEMORY_LIMIT
    for number in range(count):
        await client.delete(kinds.CONFIG_MAP, f"suite-{number}", namespace)
