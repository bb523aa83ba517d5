"""What a request alone does not show: what controllers make of it afterwards."""

import json
from collections.abc import Callable, Iterator

import pytest

from e2e import story
from e2e.isolation.cases import core
from e2e.isolation.matrix import Trial
from e2e.isolation.people import Ask
from e2e.isolation.stage import CLAIM, INTRUDER, KEEPER, MODEL, Place, Side, World
from e2e.kube import Json
from e2e.objects import ordinary_pod
from e2e.waiting import wait_for
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

TOKEN = "kubernetes.io/service-account-token"


@pytest.fixture
def made(world: World) -> Iterator[Callable[[str, Json], None]]:
    """Makes an object of A's as its administrator; it is gone afterwards."""
    paths = []

    def make(plural: str, body: Json) -> None:
        answer = world.a.admin.ask(Ask("POST", core(world.a.namespace, plural), body))
        assert answer.done, answer
        paths.append(core(world.a.namespace, f"{plural}/{body['metadata']['name']}"))

    yield make
    for path in paths:
        world.a.admin.ask(Ask("DELETE", path))


def found(world: World, plural: str, name: str) -> Json:
    """An object of A's as its administrator sees it; empty: there is none."""
    answer = world.a.admin.ask(Ask("GET", core(world.a.namespace, f"{plural}/{name}")))
    return answer.json if answer.done else {}


@pytest.mark.vector(1)
def test_a_secret_cannot_be_made_to_hold_a_token_of_anothers_account(
    world: World, trial: Trial, made: Callable[[str, Json], None]
) -> None:
    trial.by(world.a.admin_name, world.a.admin.name())
    uid = json.loads(world.kube.kubectl("get", "sa", INTRUDER, "-n", world.b.namespace, "-o", "json"))["metadata"][
        "uid"
    ]

    def secret(name: str, notes: Json) -> Json:
        meta = {"name": name, "namespace": world.a.namespace, "annotations": notes}
        return {"apiVersion": "v1", "kind": "Secret", "type": TOKEN, "metadata": meta}

    made(
        "secrets",
        secret(
            "stolen",
            {
                f"{TOKEN.rpartition('/')[0]}/service-account.name": INTRUDER,
                f"{TOKEN.rpartition('/')[0]}/service-account.uid": uid,
            },
        ),
    )
    made("secrets", secret("own", {f"{TOKEN.rpartition('/')[0]}/service-account.name": INTRUDER}))
    own = wait_for(lambda: found(world, "secrets", "own").get("data", {}).get("token"), "a token for one's own account")
    trial.open("a token of one's own account", bool(own))
    stolen = wait_for(lambda: not found(world, "secrets", "stolen"), "the other one is taken away")
    trial.shut("a token of B's account", stolen)


@pytest.mark.vector(8)
def test_a_volume_that_is_bound_is_not_given_to_another_claim(
    world: World, trial: Trial, made: Callable[[str, Json], None]
) -> None:
    trial.by(world.a.admin_name, world.a.admin.name())
    theirs = world.kube.get("persistentvolumeclaims", world.b.namespace, CLAIM) or {}
    volume, request = theirs["spec"]["volumeName"], {"requests": {"storage": "16Mi"}}
    head: Json = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    meta = {"name": "grabs", "namespace": world.a.namespace}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": request,
        "storageClassName": theirs["spec"]["storageClassName"],
    }
    made("persistentvolumeclaims", {**head, "metadata": meta, "spec": {**spec, "volumeName": volume}})
    made("pods", ordinary_pod("grabs", world.a.namespace, world.image, claim="grabs"))
    own = world.kube.get("persistentvolumeclaims", world.a.namespace, CLAIM) or {}
    trial.open(
        "a claim of one's own is bound, and so is B's", all(one["status"]["phase"] == "Bound" for one in (own, theirs))
    )

    def waits() -> str | None:
        conditions = found(world, "pods", "grabs").get("status", {}).get("conditions") or ()
        return next((c["message"] for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None)

    said = wait_for(waits, "the pod with that claim finds no node")
    trial.shut("the claim", found(world, "persistentvolumeclaims", "grabs")["status"]["phase"] != "Bound", said)
    trial.shut("the pod", found(world, "pods", "grabs")["status"]["phase"] == "Pending", said)


@pytest.mark.vector(8)
def test_a_claim_of_the_same_name_is_ones_own(world: World, trial: Trial) -> None:
    trial.by(world.a.admin_name, world.a.admin.name())

    def read(side: Side) -> str:
        return Place(world.kube, side.namespace, KEEPER, "main").run("cat", "/claim/private")

    trial.open("B reads its own", read(world.b) == world.b.canary)
    trial.shut("A reads B's", read(world.a) == world.a.canary, read(world.a))


@pytest.mark.vector(8)
def test_a_claim_cannot_be_filled_from_another_namespaces(world: World, trial: Trial) -> None:
    """The field that would name it needs a feature that is off; it is dropped, and nothing of B's is copied."""
    trial.by(world.a.admin_name, world.a.admin.name())
    source = {"kind": "PersistentVolumeClaim", "name": CLAIM}
    head: Json = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "copies"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}

    def source_of(reference: Json) -> Json:
        path = f"{core(world.a.namespace, 'persistentvolumeclaims')}?dryRun=All"
        answer = world.a.admin.ask(Ask("POST", path, {**head, "spec": {**spec, "dataSourceRef": reference}}))
        said = answer.json.get("spec", {}).get("dataSourceRef") or {}
        return {key: value for key, value in said.items() if value}

    trial.open("a source of one's own namespace", source_of(source) == source, source_of(source))
    found = source_of({**source, "namespace": world.b.namespace})
    trial.shut("B's", "namespace" not in found, found)


@pytest.mark.vector(10)
def test_an_owner_in_another_namespace_is_no_owner(
    world: World, trial: Trial, made: Callable[[str, Json], None]
) -> None:
    """What names one is collected as an orphan; the owner does not notice."""
    trial.by(world.a.admin_name, world.a.admin.name())
    before = {side.namespace: world.kube.get("r1plusdeployments", side.namespace, MODEL) for side in (world.a, world.b)}

    def build_child(name: str, side: Side) -> Json:
        uid = (before[side.namespace] or {})["metadata"]["uid"]
        owner = {"apiVersion": API_VERSION, "kind": KIND_DEPLOYMENT, "name": MODEL, "uid": uid}
        meta = {"name": name, "namespace": world.a.namespace, "ownerReferences": [owner]}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}

    made("configmaps", build_child("owned-by-a", world.a))
    made("configmaps", build_child("owned-by-b", world.b))
    gone = wait_for(lambda: not found(world, "configmaps", "owned-by-b"), "the orphan is collected")
    trial.open("one with an owner of its own namespace stays", bool(found(world, "configmaps", "owned-by-a")))
    after = world.kube.get("r1plusdeployments", world.b.namespace, MODEL) or {}
    assert before[world.b.namespace] is not None
    same = after["metadata"]["generation"] == (before[world.b.namespace] or {})["metadata"]["generation"]
    trial.shut("B's deployment", gone and same and "deletionTimestamp" not in after["metadata"], after["metadata"])


@pytest.mark.vector(10)
def test_who_may_not_hold_up_a_deletion_cannot_name_an_owner_that_waits(world: World, trial: Trial) -> None:
    trial.by(world.a.admin_name, world.a.admin.name())
    uid = (world.kube.get("r1plusdeployments", world.b.namespace, MODEL) or {})["metadata"]["uid"]
    owner: Json = {"apiVersion": API_VERSION, "kind": KIND_DEPLOYMENT, "name": MODEL, "uid": uid}

    def ask(reference: Json) -> int:
        meta = {"name": "holds", "namespace": world.a.namespace, "ownerReferences": [reference]}
        body: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}
        return world.a.admin.ask(Ask("POST", f"{core(world.a.namespace, 'configmaps')}?dryRun=All", body)).status

    trial.open("an owner that does not wait", ask(owner) == 201)
    trial.shut("one that does", ask({**owner, "blockOwnerDeletion": True}) == 403)


@pytest.mark.vector(11)
def test_a_tenant_at_its_quota_takes_nothing_from_another(world: World, trial: Trial) -> None:
    """A asks for more than it has; at the same moment B gets what it asks for, and serves."""
    trial.by(world.a.admin_name, world.a.admin.name())
    plain = ordinary_pod("one-more", world.b.namespace, world.image)
    seen = world.b.admin.ask(Ask("POST", f"{core(world.b.namespace, 'pods')}?dryRun=All", plain))
    trial.open("B gets a pod", seen.done, seen)
    refused = []
    for number in range(20):
        pod = ordinary_pod(f"greedy-{number}", world.a.namespace, world.image, command=("sleep", "infinity"))
        answer = world.a.admin.ask(Ask("POST", core(world.a.namespace, "pods"), pod))
        if not answer.done:
            refused.append(answer)
            break
    still = world.b.admin.ask(Ask("POST", f"{core(world.b.namespace, 'pods')}?dryRun=All", plain))
    for number in range(20):
        world.a.admin.ask(Ask("DELETE", core(world.a.namespace, f"pods/greedy-{number}")))
    trial.shut("A gets on for ever", bool(refused) and "exceeded quota" in refused[0].text, refused)
    trial.shut("B gets none", still.done and bool(story.ready_pod(world.kube, world.b.name)), still)
