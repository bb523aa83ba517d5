"""How large a tenant makes metadata: of an R1PlusDeployment, which every edit sends whole to all who watch, and of children.

Others' annotations and labels on the operator's objects leave it room for its own writes.
"""

import uuid
from collections.abc import Callable, Iterator

import pytest

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.resources import Resource
from support.apiserver.admission_world import SERVICE, AdmissionWorld, TenantRights, read
from support.apiserver.chart import policies
from support.apiserver.manifests import CHILD, POLICY_BINDING, Json, manifest, pod, r1plus_deployment
from support.apiserver.people import APPLY, Answer, Person
from support.apiserver.walls import assert_held
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
DEPLOYMENTS: Resource = kinds.R1PLUS_DEPLOYMENT
MOST = 16 * 1024
"""Bytes that the metadata of an R1PlusDeployment may take."""
NAME = "n" * 60
"""Long enough that few names take many bytes."""
BINDING = "r1plus-operator-metadata-size"
LIMIT = 256 * 1024
"""Bytes that Kubernetes lets an object have of annotations."""
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")


@pytest.fixture(scope="module")
def tenant_rights() -> TenantRights:
    return TenantRights(("admin", names.ROLE_TENANT_ADMIN))


def owner(number: int) -> Json:
    """Return an owner that nobody has made."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": f"{NAME}-{number}", "uid": str(uuid.uuid4())}


LARGE: dict[str, Json] = {
    "one annotation": {"annotations": {"example.com/text": "x" * MOST}},
    "one annotation of few characters": {"annotations": {"example.com/text": "\N{OK HAND SIGN}" * (MOST // 4)}},
    "as many bytes of annotations as Kubernetes lets an object have": {
        "annotations": {f"example.com/{number}": "x" * 1000 for number in range(250)}
    },
    "labels": {"labels": {f"example.com/{NAME}{number}": NAME for number in range(250)}},
    "many labels": {"labels": {f"{NAME}{number}": "" for number in range(999)}},
    "many annotations": {"annotations": {str(number): "" for number in range(999)}},
    "finalizers": {"finalizers": [f"example.com/{NAME}{number}" for number in range(500)]},
    "owners": {"ownerReferences": [owner(number) for number in range(500)]},
}


def create(world: AdmissionWorld, metadata: Json) -> Answer:
    """Make a deployment with this metadata, as a dry run."""
    body = r1plus_deployment("large", world.namespace)
    body["metadata"] |= metadata
    return world.admin.ask("POST", world.path(DEPLOYMENTS), body)


@pytest.mark.parametrize("what", LARGE)
def test_metadata_that_every_edit_would_send_to_all_who_watch_is_refused(world: AdmissionWorld, what: str) -> None:
    answer = create(world, LARGE[what])
    assert answer.status == 403, answer
    assert f"'{BINDING}'" in answer.text
    assert " bytes, more than the allowed 16384" in answer.text
    assert "remove the largest annotation" in answer.text


def test_what_tools_write_fits(world: AdmissionWorld) -> None:
    copy = {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * (MOST - 100)}}
    assert create(world, copy).status == 201


def test_many_managers_of_one_object_are_refused_with_the_remedy(world: AdmissionWorld) -> None:
    admin, path = world.admin, world.path(DEPLOYMENTS, "managed")
    body = r1plus_deployment("managed", world.namespace)
    body["metadata"]["annotations"] = {f"example.com/{NAME}{number}": "" for number in range(100)}

    def apply(number: int) -> Answer:
        """Own all annotations, as one more manager."""
        return admin.ask("PATCH", f"{path}?fieldManager=m{number}", body, kind=APPLY, dry=False)

    answers = [apply(number) for number in range(10)]
    assert answers[0].status == 201, answers[0]
    assert answers[-1].status == 403, answers[-1]
    assert "metadata.managedFields: " in answers[-1].text
    cleared = admin.ask("PATCH", path, {"metadata": {"managedFields": [{}]}}, dry=False)
    assert cleared.status == 200, cleared
    assert apply(11).status == 200


@pytest.fixture
def before_the_policy(admin: Person) -> Iterator[Callable[[Json], None]]:
    """Make a deployment while the policy is not in force."""
    (binding,) = (
        one for one in policies() if one["kind"] == POLICY_BINDING.kind and one["metadata"]["name"] == BINDING
    )
    bindings = POLICY_BINDING.path()

    def make(body: Json) -> None:
        path = DEPLOYMENTS.path(body["metadata"]["namespace"])
        admin.do("DELETE", f"{bindings}/{BINDING}")
        try:
            wait_until(lambda: admin.ask("POST", path, body).status == 201, "the policy is not in force")
            admin.do("POST", path, body)
        finally:
            admin.do("POST", bindings, binding)
        other = body | {"metadata": body["metadata"] | {"name": "other"}}
        wait_until(lambda: admin.ask("POST", path, other).status == 403, "the policy is in force again")

    yield make


def test_what_was_large_before_can_be_edited_and_deleted_and_not_grow(
    world: AdmissionWorld, before_the_policy: Callable[[Json], None]
) -> None:
    admin, body = world.admin, r1plus_deployment("old", world.namespace)
    body["metadata"] |= {"annotations": {"example.com/text": "x" * 2 * MOST}, "finalizers": ["example.com/last"]}
    before_the_policy(body)
    path = world.path(DEPLOYMENTS, "old")

    def edit(**fields: Json) -> Answer:
        return admin.ask("PATCH", path, fields, dry=False)

    assert edit(spec={"replicas": 2}).status == 200
    assert edit(metadata={"annotations": {"example.com/text": "x" * (2 * MOST - 1)}}).status == 200
    grown = edit(metadata={"annotations": {"example.com/text": "x" * 2 * MOST}})
    assert (grown.status, f"'{BINDING}'" in grown.text) == (403, True), grown
    assert admin.ask("DELETE", path, dry=False).status == 200
    assert edit(metadata={"finalizers": None}).status == 200
    wait_until(lambda: admin.ask("GET", path).status == 404, "it is gone")


def test_many_annotations_of_an_r1plusdeployment_are_refused_at_once(world: AdmissionWorld) -> None:
    world.mallory.do("POST", world.path(DEPLOYMENTS), r1plus_deployment("credit", world.namespace))
    many = {f"k{number}": "" for number in range(300)} | {"r1plus.ai/requested-pin": "x"}
    answer = world.mallory.ask("PATCH", world.path(DEPLOYMENTS, "credit"), {"metadata": {"annotations": many}})
    assert answer.status == 403, answer


@pytest.fixture(scope="module")
def serving(world: AdmissionWorld) -> str:
    """Name of a pod that serves."""
    return world.start_serving()


def fill(size: int) -> Json:
    """Return a patch of one annotation of nearly as many bytes as Kubernetes lets an object have."""
    return {"metadata": {"annotations": {"example.com/fill": "x" * size}}}


@pytest.mark.parametrize("field", ["annotations", "labels"])
def test_metadata_of_others_leaves_the_operator_room(world: AdmissionWorld, serving: str, field: str) -> None:
    mallory, own = world.mallory, world.path(kinds.POD, f"own-{field}")
    mallory.do("POST", world.path(kinds.POD), pod(f"own-{field}"))
    service = manifest(SERVICE, f"r1plus-{field}", labels=CHILD, spec={"ports": [{"port": 8001}]})
    world.operator.do("POST", world.path(SERVICE), service)
    many = {"metadata": {field: {f"k{number}": "" for number in range(300)}}}
    small = {"metadata": {field: {"example.com/mine": "x"}}}
    children = world.path(SERVICE, f"r1plus-{field}"), "children"
    for path, policy in ((world.path(kinds.POD, serving), "serving-pods"), children):
        for body in (many, fill(LIMIT - 400)):
            assert_held(mallory.ask("PATCH", path, body), policy, "16384 bytes")
        assert mallory.ask("PATCH", path, small).status == 200
    assert mallory.ask("PATCH", own, fill(LIMIT - 400)).status == 200


def test_metadata_of_others_on_a_replica_set_leaves_the_operator_room(world: AdmissionWorld, serving: str) -> None:
    (name,) = [one["metadata"]["name"] for one in read(world.mallory, world.path(REPLICA_SETS))["items"]]
    path = world.path(REPLICA_SETS, name)
    assert_held(world.mallory.ask("PATCH", path, fill(LIMIT - 2000)), "replica-sets", "16384 bytes")
    small = {"metadata": {"annotations": {"example.com/mine": "x"}}}
    assert world.mallory.ask("PATCH", path, small).status == 200
