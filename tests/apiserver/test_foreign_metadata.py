"""What others may write on an object of the operator's: so much metadata, of so many managers, that its own finds room.

Kubernetes bounds an object's annotations together, and its size: whoever fills them up keeps the operator from its object.
"""

import uuid
from collections.abc import Iterator

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.gateway import LABEL_GATEWAY
from r1plus_operator.api import kinds
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import CHILD, Json, config_map, deployment, manifest, pod_template, tenant_namespace
from support.apiserver.people import APPLY, Answer, Person, people, until_pods_are_taken
from support.apiserver.rights import OPERATOR
from support.apiserver.walls import REVISION, assert_held, pod_of

pytestmark = pytest.mark.apiserver
REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet")
SERVES = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_REVISION: REVISION, names.LABEL_SERVING: "true"}
MOST_BYTES, MOST_MANAGERS = 16 * 1024, 64
MARKED: dict[str, tuple[str, Resource, dict[str, str]]] = {
    "a child": ("children", kinds.CONFIG_MAP, CHILD),
    "a serving pod": ("serving-pods", kinds.POD, SERVES),
    "a ReplicaSet of a deployment": ("replica-sets", REPLICA_SET, {names.LABEL_DEPLOYMENT: "credit"}),
    "a ReplicaSet of a gateway": ("gateway-replica-sets", REPLICA_SET, {LABEL_GATEWAY: "true"}),
}
"""Policy, kind and labels of each."""


@pytest.fixture(scope="module")
def paths(installed_server: ApiServer, admin: Person) -> Iterator[dict[str, str]]:
    """One object of each kind, made by who may make it."""
    namespace = f"f-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
    until_pods_are_taken(admin, namespace)
    with people(installed_server, OPERATOR) as who:
        who[OPERATOR].do("POST", kinds.CONFIG_MAP.path(namespace), config_map("credit", labels=CHILD))
        deployments = kinds.BY_KIND["Deployment"].path(namespace)
        who[OPERATOR].do("POST", deployments, deployment(REVISION, SERVES, CHILD))
        found = {
            "a child": kinds.CONFIG_MAP.path(namespace, "credit"),
            "a serving pod": kinds.POD.path(namespace, pod_of(admin, namespace, f"{names.LABEL_SERVING}=true")),
        }
        for what in ("a ReplicaSet of a deployment", "a ReplicaSet of a gateway"):
            name, labels = what.replace(" ", "-").lower(), MARKED[what][2]
            spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": pod_template({"app": name})}
            admin.do("POST", REPLICA_SET.path(namespace), manifest(REPLICA_SET, name, labels=labels, spec=spec))
            found[what] = REPLICA_SET.path(namespace, name)
        yield found


@pytest.mark.parametrize(("what", "policy"), [(what, MARKED[what][0]) for what in MARKED], ids=MARKED)
def test_more_metadata_than_there_is_room_for_is_refused(
    admin: Person, paths: dict[str, str], what: str, policy: str
) -> None:
    def annotate(size: int) -> Answer:
        return admin.ask("PATCH", paths[what], {"metadata": {"annotations": {"example.com/note": "x" * size}}})

    assert_held(annotate(MOST_BYTES), policy, "take 16384 bytes together")
    assert annotate(MOST_BYTES - 1024).status == 200


@pytest.mark.parametrize(("what", "policy"), [(what, MARKED[what][0]) for what in MARKED], ids=MARKED)
def test_one_field_manager_too_many_is_refused(admin: Person, paths: dict[str, str], what: str, policy: str) -> None:
    resource, name = MARKED[what][1], paths[what].rsplit("/", 1)[1]

    def apply(number: int) -> Answer:
        """Own one annotation as one more manager."""
        body: Json = manifest(resource, name)
        body["metadata"]["annotations"] = {f"example.com/{number}": ""}
        return admin.ask("PATCH", f"{paths[what]}?fieldManager=m{number}", body, kind=APPLY, dry=False)

    answers: list[Answer] = []
    while (not answers or answers[-1].status == 200) and len(answers) <= MOST_MANAGERS:
        answers.append(apply(len(answers)))
    assert_held(answers[-1], policy, "64 field managers may own fields")
    # The operator or a controller is among the 64.
    assert MOST_MANAGERS - 4 <= len(answers) - 1 < MOST_MANAGERS
