"""The caches: which events ask for a pass, and which are older than what we know."""

from collections.abc import Awaitable
from typing import Any

import pytest
from aiohttp import web

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.verdict import MonitorReport, Phase, Verdict
from r1plus_operator.api import kinds
from r1plus_operator.observe import pod_projection, projections, suite_projection
from r1plus_operator.observe.keys import CATALOG, DeploymentKey, VolumesKey
from r1plus_operator.observe.observer import Observer
from r1plus_operator.plan.observation import Observation
from r1plus_operator.plan.revision.refresh import Cause, Refresh, RefreshOutcome, SlotRequest
from r1plus_operator.plan.tenancy.volumes import plan_volumes
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.resources import Resource
from support.http_server import serving
from support.operator.enqueued_keys import EnqueuedKeys
from support.plan.tenant_world import CONFIG
from support.plan.world import World
from support.tables import for_each

KEY = DeploymentKey("t", "credit")
OWNER = {"kind": "R1PlusDeployment", "uid": "u", "controller": True}


def observer(**options: Any) -> tuple[Observer, EnqueuedKeys]:
    enqueued = EnqueuedKeys()
    return Observer(ApiClient(ApiConnection("http://127.0.0.1:1")), enqueued, {}, **options), enqueued


def seen_by(observer: Observer) -> Observation:
    """The deployment as it is observed."""
    found = observer.observe(KEY)
    assert found is not None
    return found


def known() -> Observer:
    """An observer that knows the deployment in version 5."""
    seen, _ = observer()
    seen.ingest("ADDED", cr(5))
    return seen


def cr(version: int, *, uid: str = "u", generation: int = 1, tier: str = "full", **meta: Any) -> dict[str, Any]:
    head = {"name": "credit", "namespace": "t", "uid": uid, "generation": generation, "resourceVersion": str(version)}
    return {"metadata": {**head, **meta}, "spec": {"tier": tier}, "status": {"suite": f"of {version}"}}


@pytest.mark.parametrize(
    ("event", "passes"),
    [
        (cr(6, generation=2), 2),
        (cr(6, uid="other"), 2),
        (cr(6, deletionTimestamp="now"), 2),
        (cr(6), 1),
        (cr(6, annotations={"a": "b"}), 1),
        (cr(4, generation=2), 1),
    ],
    ids=[
        "another spec asks for a pass",
        "so does a namesake",
        "and the beginning of a deletion",
        "another status does not",
        "nor an annotation",
        "nor anything older than what is known",
    ],
)
def test_what_asks_for_a_pass(event: dict[str, Any], passes: int) -> None:
    seen, asked = observer()
    seen.ingest("ADDED", cr(5))
    seen.ingest("MODIFIED", event)
    assert asked.all == [KEY] * passes


def test_what_a_tenant_may_change_without_end_is_told_apart_from_what_is_new() -> None:
    seen, enqueued = observer()
    seen.ingest("ADDED", cr(5))
    assert (len(enqueued.all), enqueued.edits) == (1, [])
    seen.ingest("MODIFIED", cr(6, generation=2))
    assert (len(enqueued.all), enqueued.edits) == (2, [KEY]), "an edit"
    seen.update_cached(cr(7, generation=3))
    assert (len(enqueued.all), enqueued.edits) == (3, [KEY] * 2), "one that an answer shows"
    meta = {"name": "own", "namespace": "t", "uid": "s", "resourceVersion": "8"}
    suite = suite_projection.project_suite_version({"metadata": meta})
    seen._on_suite_change("ADDED", suite)
    assert (len(enqueued.all), enqueued.edits) == (4, [KEY] * 2), "a suite that comes"
    seen._on_suite_change("MODIFIED", suite)
    assert (len(enqueued.all), enqueued.edits) == (5, [KEY] * 3), "one that is changed"
    seen.ingest("DELETED", cr(9, generation=3))
    assert (len(enqueued.all), len(enqueued.edits)) == (6, 3), "the end"


def test_an_event_from_before_our_own_status_does_not_undo_what_its_answer_told() -> None:
    seen = known()
    seen.update_cached(cr(7))
    seen.ingest("MODIFIED", cr(6))
    assert seen_by(seen).cr["status"] == {"suite": "of 7"}


def test_an_answer_that_shows_another_spec_asks_for_a_pass() -> None:
    seen, asked = observer()
    seen.ingest("ADDED", cr(5))
    seen.update_cached(cr(7, generation=2, tier="lite"))
    assert asked.all == [KEY, KEY]


def test_an_answer_brings_no_cr_back_that_is_gone() -> None:
    seen = known()
    assert seen.observe(KEY) is not None
    seen.ingest("DELETED", cr(6))
    seen.update_cached(cr(7))
    assert seen.observe(KEY) is None


def test_a_list_decides_even_where_the_server_has_gone_back_in_time() -> None:
    seen, asked = observer()
    seen.ingest("ADDED", cr(50))
    seen.begin_list()
    seen.ingest(None, cr(5, generation=2))
    assert asked.all == [KEY, KEY]


async def test_a_child_that_we_wrote_is_observed_at_once_and_asks_for_no_pass() -> None:
    seen, asked = observer()
    seen.ingest("ADDED", cr(5))
    labels = {"r1plus.ai/deployment": "credit"}
    meta = {"name": "credit", "namespace": "t", "uid": "s", "ownerReferences": [OWNER], "labels": labels}
    child = {"kind": "Service", "apiVersion": "v1", "metadata": meta, "spec": {"type": "ClusterIP"}}

    async def write() -> dict[str, Any]:
        return {**child, "metadata": {**meta, "resourceVersion": "6"}}

    answer: Awaitable[dict[str, Any]] = write()
    await seen.write_through(child, answer)
    assert seen_by(seen).children == {("Service", "credit"): child}
    assert asked.all == [KEY]
    seen.evict("Service", "t", "credit")
    assert seen_by(seen).children == {}


def test_a_child_that_is_being_deleted_is_not_there() -> None:
    seen = known()
    meta = {"name": "c", "namespace": "t", "uid": "s", "ownerReferences": [OWNER], "deletionTimestamp": "now"}
    reflector = seen.children["Service"]
    projected = reflector._project_object({"metadata": meta, "spec": {}})
    assert projected is not None
    reflector.store.upsert(projected)
    assert seen_by(seen).children == {}


FOREIGN = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "y", "controller": True}
FORMER = {**OWNER, "uid": "of a namesake that was there before"}


@for_each("owners, label, is_ours", {
    "one that it controls": ([OWNER], "another", True),
    "one whose reference was taken away": ([], "credit", True),
    "one whose reference does not say any more that it controls": ([{**OWNER, "controller": False}], "credit", True),
    "one that another object is said to control": ([FOREIGN], "credit", True),
    "one of a namesake that was there before": ([FORMER], "credit", False),
    "one with the label of another": ([], "another", False),
})  # fmt: skip
def test_a_child_whose_owner_reference_was_edited_is_still_there(
    owners: list[dict[str, Any]], label: str, is_ours: bool
) -> None:
    seen = known()
    meta = {
        "name": "c",
        "namespace": "t",
        "uid": "s",
        "ownerReferences": owners,
        "labels": {names.LABEL_DEPLOYMENT: label},
    }
    reflector = seen.children["Service"]
    projected = reflector._project_object({"metadata": meta, "spec": {}})
    assert projected is not None
    reflector.store.upsert(projected)
    assert bool(seen_by(seen).children) is is_ours


def pod(uid: str) -> dict[str, Any]:
    labels = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_REVISION: "credit-a"}
    return {"metadata": {"name": "credit-a-0", "namespace": "t", "uid": uid, "labels": labels}, "spec": {}}


@pytest.mark.parametrize(
    ("uid", "heard"),
    [pytest.param("p1", True, id="the pod that said it"), pytest.param("p2", False, id="its namesake, made anew")],
)
def test_what_a_monitor_said_is_its_own_pods(uid: str, heard: bool) -> None:
    seen = known()
    seen.monitors.reports["p1"] = MonitorReport("credit-a", "", Phase.WATCHING, Verdict.PASS, "Passed", "")
    projected = pod_projection.project_pod(pod(uid))
    assert projected is not None
    seen.pods.store.upsert(projected)
    assert set(seen_by(seen).reports) == ({"credit-a-0"} if heard else set())


KINDS = ("PersistentVolumeClaim", "ControllerRevision", "Job", "Deployment")
CLAIM, REVISION, JOB, DEPLOYMENT = (kinds.BY_KIND[kind] for kind in KINDS)
VOLUME = "r1plus-engine-0123456789abcdef"


def part(kind: str, **more: Any) -> dict[str, Any]:
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_VOLUME: VOLUME}
    meta = {"name": VOLUME, "namespace": "t", "uid": f"u-{kind}", "resourceVersion": "3", "labels": labels}
    return {"metadata": meta | more, "spec": {}}


def put(seen: Observer, resource: Resource, obj: dict[str, Any]) -> None:
    """What the stream brings."""
    projected = projections.project_child(resource, obj)
    seen.children[resource.kind].store.upsert(projected)
    seen._on_child_change(resource, "ADDED", projected)


def test_what_belongs_to_a_volume_asks_for_the_pass_of_its_namespace() -> None:
    seen, asked = observer()
    put(seen, CLAIM, part("PersistentVolumeClaim"))
    assert asked.all == [VolumesKey("t")]
    asked.clear()
    seen._on_engine_change("MODIFIED", projections.CachedObject("", "bank", "u", None))
    assert asked.all == [CATALOG, VolumesKey("t")]


def test_a_claim_that_goes_is_no_place_for_an_engine() -> None:
    seen = known()
    notes = {names.ANNOTATION_DELIVERED: "a" * 64}
    put(seen, CLAIM, part("PersistentVolumeClaim", annotations=notes))
    assert seen_by(seen).volumes[VOLUME].delivered_digest == "a" * 64
    put(seen, CLAIM, part("PersistentVolumeClaim", annotations=notes, deletionTimestamp="now"))
    assert VOLUME not in seen_by(seen).volumes
    assert seen.observe_volumes("t").deleting == {("PersistentVolumeClaim", VOLUME)}


@for_each("mounts, goes", {
    "its revision lost its mark, and its Deployment mounts it": ({"persistentVolumeClaim": {"claimName": VOLUME}}, False),
    "no revision needs it any more": ({"emptyDir": {}}, True),
})  # fmt: skip
def test_a_claim_that_a_deployment_mounts_stays(mounts: dict[str, Any], goes: bool) -> None:
    """Else no further pod could mount it: it would wait for those that run, and then be filled again."""
    seen, asked = observer()
    put(seen, CLAIM, part("PersistentVolumeClaim"))
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: "credit"}
    runs = part("Deployment", name="credit-0123456789", labels=labels, ownerReferences=[OWNER])
    runs["spec"] = {"template": {"spec": {"volumes": [{"name": "engine", **mounts}]}}}
    put(seen, DEPLOYMENT, runs)
    deleted = plan_volumes(seen.observe_volumes("t"), CONFIG, 0.0).delete
    assert [kind for kind, _, _ in deleted] == ["PersistentVolumeClaim"] * goes
    asked.clear()
    seen._on_child_change(DEPLOYMENT, "DELETED", projections.project_child(DEPLOYMENT, runs))
    assert VolumesKey("t") in asked.all


def test_an_orphaned_history_keeps_its_volume_and_is_not_deleted() -> None:
    """`kubectl delete --cascade=orphan`: nobody controls the revision any more, and its pods go on running."""
    seen, _ = observer()
    world = World({"tier": "full", "context": {"maxTokens": 2048}, "delivery": {"mode": "Volume"}})
    world.settle()
    (revision,) = world.live("ControllerRevision")
    meta = {**revision["metadata"], "namespace": "t", "uid": "r", "resourceVersion": "3", "ownerReferences": []}
    put(seen, REVISION, {**revision, "metadata": meta})
    found = seen.observe_volumes("t")
    assert [need.owners for need in found.needs] == [()]
    assert found.live == {}


@pytest.mark.parametrize("outcome", [None, RefreshOutcome.FAILED], ids=["which holds a slot", "which stopped its wave"])
def test_a_deployment_that_is_being_deleted_keeps_nobody_waiting(outcome: RefreshOutcome | None) -> None:
    """Finalizers of others may keep it for ever, and no pass ends what its revision says."""
    (seen, asked), waits = observer(slots=1), DeploymentKey("t", "waits")
    seen.namespaces.store.upsert(
        projections.project_namespace({"metadata": {"name": "t", "uid": "n", "labels": {names.LABEL_TENANT: "true"}}})
    )
    seen.ingest("ADDED", cr(1))
    record = dumps(Refresh(Cause.AUTOMATIC, "w", 1.0, outcome=outcome))
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: "credit"}
    meta = {"name": "credit-a", "namespace": "t", "uid": "r", "resourceVersion": "3", "labels": labels}
    notes = {"annotations": {names.ANNOTATION_REFRESH: record}, "ownerReferences": [OWNER | {"name": "credit"}]}
    put(seen, REVISION, {"metadata": meta | notes, "data": {}, "revision": 1})
    seen._slots.record_all("u")
    seen.waves.set_waiting(waits, SlotRequest("w", is_requested=False))
    assert seen.waves.list_turns() == []
    asked.clear()
    seen.ingest("MODIFIED", cr(2, deletionTimestamp="now"))
    assert seen.waves.list_turns() == [waits]
    assert waits in asked.all


async def test_a_deployment_that_is_deleted_while_the_list_is_read_does_not_come_back() -> None:
    observers: list[Observer] = []
    other = cr(4) | {"metadata": cr(4)["metadata"] | {"name": "other", "uid": "o"}}

    async def answer(request: web.Request) -> web.Response:
        if "continue" not in request.query:
            meta = {"resourceVersion": "7", "continue": "more"}
            return web.json_response({"metadata": meta, "items": [other]})
        observers[0].ingest("DELETED", cr(8))
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": [cr(5)]})

    async with (
        serving(web.get("/apis/r1plus.ai/v1alpha1/r1plusdeployments", answer)) as url,
        ApiClient(ApiConnection(url)) as client,
    ):
        observers.append(Observer(client, EnqueuedKeys(), {}))
        observers[0].ingest("ADDED", cr(5))
        await observers[0]._read_crs()
    assert set(observers[0].crs) == {("t", "other")}


async def test_a_deployment_that_a_list_has_no_more_gets_a_last_pass() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})

    async with (
        serving(web.get("/apis/r1plus.ai/v1alpha1/r1plusdeployments", answer)) as url,
        ApiClient(ApiConnection(url)) as client,
    ):
        asked = EnqueuedKeys()
        observer = Observer(client, asked, {})
        observer.ingest("ADDED", cr(5))
        asked.clear()
        await observer._read_crs()
    assert (dict(observer.crs), asked.all) == ({}, [KEY]), "the gateway and the metrics must forget it"
