"""What the API server lets a tenant write of an R1PlusDeployment, since every edit is sent whole to all who watch."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from r1plus_operator.api import kinds
from r1plus_operator.runtime.resources import Resource
from support.apiserver.chart import policies
from support.apiserver.manifests import POLICY_BINDING, Json, r1plus_deployment, tenant_namespace
from support.apiserver.people import APPLY, Answer, Person
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
DEPLOYMENTS: Resource = kinds.R1PLUS_DEPLOYMENT
MOST = 16 * 1024
"""Bytes that the metadata of an R1PlusDeployment may take."""
NAME = "n" * 60
"""Long enough that few names take many bytes."""
BINDING = "r1plus-operator-metadata-size"


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


@pytest.fixture(scope="module")
def namespace(admin: Person) -> str:
    """A tenant's namespace."""
    name = f"noise-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(name))
    return name


def create(admin: Person, namespace: str, metadata: Json) -> Answer:
    """Make a deployment with this metadata, as a dry run."""
    body = r1plus_deployment("large", namespace)
    body["metadata"] |= metadata
    return admin.ask("POST", DEPLOYMENTS.path(namespace), body)


@pytest.mark.parametrize("what", LARGE)
def test_finding_02_metadata_that_every_edit_would_send_to_all_who_watch_is_refused(
    admin: Person, namespace: str, what: str
) -> None:
    answer = create(admin, namespace, LARGE[what])
    assert answer.status == 403, answer
    assert f"'{BINDING}'" in answer.text
    assert " bytes, more than the allowed 16384" in answer.text
    assert "remove the largest annotation" in answer.text


def test_finding_02_what_tools_write_fits(admin: Person, namespace: str) -> None:
    copy = {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * (MOST - 100)}}
    assert create(admin, namespace, copy).status == 201


def test_finding_02_many_managers_of_one_object_are_refused_with_the_remedy(admin: Person, namespace: str) -> None:
    path = DEPLOYMENTS.path(namespace, "managed")
    body = r1plus_deployment("managed", namespace)
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


def test_finding_02_what_was_large_before_can_be_edited_and_deleted_and_not_grow(
    admin: Person, namespace: str, before_the_policy: Callable[[Json], None]
) -> None:
    body = r1plus_deployment("old", namespace)
    body["metadata"] |= {"annotations": {"example.com/text": "x" * 2 * MOST}, "finalizers": ["example.com/last"]}
    before_the_policy(body)
    path = DEPLOYMENTS.path(namespace, "old")

    def edit(**fields: Json) -> Answer:
        return admin.ask("PATCH", path, fields, dry=False)

    assert edit(spec={"replicas": 2}).status == 200
    assert edit(metadata={"annotations": {"example.com/text": "x" * (2 * MOST - 1)}}).status == 200
    grown = edit(metadata={"annotations": {"example.com/text": "x" * 2 * MOST}})
    assert (grown.status, f"'{BINDING}'" in grown.text) == (403, True), grown
    assert admin.ask("DELETE", path, dry=False).status == 200
    assert edit(metadata={"finalizers": None}).status == 200
    wait_until(lambda: admin.ask("GET", path).status == 404, "it is gone")
