"""What the operator has made in a tenant: nobody there deletes, takes over or binds it, whatever RBAC allows.

Each refusal comes with its control: the same request for an object of one's own, or by the platform team.
"""

import json
import uuid
from collections.abc import Iterator

import pytest

from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.admission_world import OURS, OWN, AdmissionWorld, TenantRights, read
from support.apiserver.child_bodies import OPTIONAL, SERVED, WRITES_CHILDREN, build_child, build_unmarked
from support.apiserver.manifests import CHILD, MARK, Json, manifest
from support.apiserver.people import STRATEGIC, Answer, Person, people
from support.apiserver.rights import account
from support.apiserver.walls import assert_held

pytestmark = pytest.mark.apiserver
BINDER = "system:serviceaccount:kube-system:persistent-volume-binder"
COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"


@pytest.fixture(scope="module")
def tenant_rights() -> TenantRights:
    return WRITES_CHILDREN


@pytest.fixture(scope="module")
def children(world: AdmissionWorld) -> AdmissionWorld:
    """The tenant, with an object of each kind of the operator's and one of its administrator's."""
    for kind, resource in SERVED.items():
        world.operator.do("POST", world.path(resource), build_child(kind, OURS))
        world.mallory.do("POST", world.path(resource), build_unmarked(kind, OWN))
    return world


@pytest.fixture(scope="module")
def pod_account(world: AdmissionWorld) -> Iterator[Person]:
    """The account of a serving pod, to which somebody has given the administrator's roles by mistake."""
    name = account(world.namespace, OURS)
    with people(world.server, name) as who:
        world.bind(who[name], WRITES_CHILDREN)
        yield who[name]


@pytest.mark.parametrize("kind", SERVED)
def test_no_child_of_any_kind_can_be_deleted(children: AdmissionWorld, kind: str) -> None:
    ours, own = (children.path(SERVED[kind], name) for name in (OURS, OWN))
    assert_held(children.mallory.ask("DELETE", ours), "kept", f"{OURS} belongs to the operator")
    assert children.mallory.ask("DELETE", own).status == 200


@pytest.mark.parametrize("kind", SERVED)
def test_no_child_of_any_kind_goes_with_a_collection(children: AdmissionWorld, kind: str) -> None:
    collection = children.path(SERVED[kind])
    assert_held(children.mallory.ask("DELETE", collection), "kept", " belongs to the operator")
    of_own = f"{collection}?fieldSelector=metadata.name%3D{OWN}"
    assert children.mallory.ask("DELETE", of_own).status == 200


@pytest.mark.parametrize("kind", SERVED)
def test_no_owner_of_a_child_of_any_kind_can_be_changed(children: AdmissionWorld, kind: str) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": OWN, "uid": str(uuid.uuid4())}
    edit = {"metadata": {"ownerReferences": [owner]}}
    ours, own = (children.path(SERVED[kind], name) for name in (OURS, OWN))
    assert_held(children.mallory.ask("PATCH", ours, edit), "children", "changes its owner")
    assert children.mallory.ask("PATCH", own, edit).status == 200


@pytest.mark.parametrize("kind", SERVED)
def test_the_account_of_a_pod_takes_no_child_of_any_kind(
    children: AdmissionWorld, pod_account: Person, kind: str
) -> None:
    ours, own = (children.path(SERVED[kind], name) for name in (OURS, OWN))
    edit = {"metadata": {"ownerReferences": [], "labels": {names.LABEL_MANAGED_BY: None}}}
    assert_held(pod_account.ask("DELETE", ours), "kept", f"{OURS} belongs to the operator")
    assert_held(pod_account.ask("DELETE", children.path(SERVED[kind])), "kept", " belongs to the operator")
    assert_held(pod_account.ask("PATCH", ours, edit), "children", "managed-by")
    assert pod_account.ask("DELETE", own).status == 200


@pytest.mark.parametrize("kind", SERVED)
def test_no_mark_can_be_taken_off_or_put_on(children: AdmissionWorld, kind: str) -> None:
    off, on = {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}, {"metadata": {"labels": MARK}}
    assert_held(children.mallory.ask("PATCH", children.path(SERVED[kind], OURS), off), "children", "managed-by")
    assert_held(children.mallory.ask("PATCH", children.path(SERVED[kind], OWN), on), "children", "")


@pytest.mark.parametrize("kind", OPTIONAL)
def test_optional_kinds_of_children_are_kept_like_the_others(
    world: AdmissionWorld, optional_kinds: None, kind: str
) -> None:
    world.operator.do("POST", world.path(OPTIONAL[kind]), build_child(kind, "credit", CHILD))
    mallory, path, collection = world.mallory, world.path(OPTIONAL[kind], "credit"), world.path(OPTIONAL[kind])
    assert_held(mallory.ask("DELETE", path), "kept", "belongs to the operator")
    assert_held(mallory.ask("DELETE", collection), "kept", "belongs to the operator")
    assert_held(mallory.ask("PATCH", path, {"spec": {"groups": [{"name": "x"}]}}), "children", "spec: belongs")
    orphan = {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "1"}]}}
    assert_held(mallory.ask("PATCH", path, orphan), "children", "changes its owner")
    own = manifest(OPTIONAL[kind], "mallorys-own", spec={})
    assert mallory.ask("POST", collection, own).status == 201


@pytest.mark.parametrize(
    "edit",
    [
        {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}}},
        {"imagePullSecrets": [{"name": "mine"}]},
        {"secrets": [{"name": "mine"}]},
    ],
    ids=["a cloud's role", "a pull secret", "a secret"],
)
def test_the_account_of_serving_pods_gets_nothing(children: AdmissionWorld, admin: Person, edit: Json) -> None:
    ours, own = (children.path(SERVED["ServiceAccount"], name) for name in (OURS, OWN))
    assert_held(children.mallory.ask("PATCH", ours, edit), "children", "only the platform team")
    assert children.mallory.ask("PATCH", own, edit).status == 200
    assert admin.ask("PATCH", ours, edit).status == 200


VOLUME: Json = {"spec": {"volumeName": "pv-that-mallory-filled"}}


@pytest.fixture(scope="module")
def binder(children: AdmissionWorld) -> Iterator[Person]:
    """Kubernetes' controller of claims."""
    with people(children.server, BINDER) as who:
        who[BINDER].gets("update", "persistentvolumeclaims", children.namespace)
        yield who[BINDER]


def bind_claim(who: Person, path: str) -> Answer:
    """Write the claim with a volume, whole, as Kubernetes' controller does."""
    live = read(who, path)
    return who.ask("PUT", path, live | {"spec": live["spec"] | VOLUME["spec"]})


def test_nobody_binds_a_claim_of_the_operators_to_a_volume_of_ones_own(
    children: AdmissionWorld, binder: Person, admin: Person
) -> None:
    ours, own = (children.path(SERVED["PersistentVolumeClaim"], name) for name in (OURS, OWN))
    assert_held(children.mallory.ask("PATCH", ours, VOLUME), "children", "spec.volumeName: Kubernetes binds")
    assert children.mallory.ask("PATCH", own, VOLUME).status == 200
    for one in (binder, admin):
        assert bind_claim(one, ours).status == 200


def test_the_operator_does_not_bind_its_stored_claim(children: AdmissionWorld, binder: Person) -> None:
    path = children.path(SERVED["PersistentVolumeClaim"], OURS)
    assert_held(children.operator.ask("PATCH", path, VOLUME), "operator-reach", "no dataSource")
    assert bind_claim(binder, path).status == 200


def test_the_platform_team_and_the_garbage_collector_still_delete(children: AdmissionWorld, admin: Person) -> None:
    path = children.path(kinds.CONFIG_MAP, OURS)
    with people(children.server, COLLECTOR) as who:
        for one in (admin, who[COLLECTOR]):
            assert one.ask("DELETE", path).status == 200


def test_others_may_still_label_a_child(children: AdmissionWorld) -> None:
    edit = {"metadata": {"labels": {"cost-centre": "17"}}}
    answer = children.mallory.ask("PATCH", children.path(kinds.CONFIG_MAP, OURS), edit, kind=STRATEGIC)
    assert json.loads(answer.text)["metadata"]["labels"]["cost-centre"] == "17"
