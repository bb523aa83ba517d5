"""Revisions that lost the operator's mark: what a pass fetches by name, and what it does with it."""

from typing import Any

import pytest
from aiohttp import web

from r1plus_contract import names
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.observer import Observer
from r1plus_operator.observe.unmarked_revisions import UnmarkedRevisions
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from support.http_server import serving
from support.operator.enqueued_keys import EnqueuedKeys
from support.plan.world import serve_world
from support.tables import for_each

KEY, NAME = DeploymentKey("t", "credit"), "credit-0123456789"
OWNER = {"apiVersion": names.API_VERSION, "kind": "R1PlusDeployment", "name": "credit", "uid": "u", "controller": True}
FORMER = {**OWNER, "uid": "of a namesake that was there before"}
MARKED = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: "credit"}
UNMARKED = {names.LABEL_DEPLOYMENT: "credit"}
CR = {"metadata": {"name": "credit", "namespace": "t", "uid": "u", "resourceVersion": "5"}, "spec": {"tier": "full"}}


def child(kind: str, labels: dict[str, str], *owners: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": NAME, "namespace": "t", "uid": "r", "resourceVersion": "7", "labels": labels}
    if owners:
        meta["ownerReferences"] = list(owners)
    return {"kind": kind, "metadata": meta}


def store(observer: Observer, obj: dict[str, Any]) -> None:
    reflector = observer.children[obj["kind"]]
    projected = reflector._project_object(obj)
    assert projected is not None
    reflector.store.upsert(projected)


def lose(observer: Observer) -> None:
    """Let the watch say that the revision, which was there, is gone."""
    reflector = observer.children["ControllerRevision"]
    projected = reflector._project_object(child("ControllerRevision", MARKED, OWNER))
    assert projected is not None
    reflector._on_change("DELETED", projected)


async def find(live: list[dict[str, Any]], *, is_lost: bool, runs: bool) -> tuple[list[UnmarkedRevisions], int]:
    """Return what two passes find, and how often the API server was asked."""
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query["fieldSelector"])
        return web.json_response({"metadata": {"resourceVersion": "9"}, "items": live})

    path = "/apis/apps/v1/namespaces/t/controllerrevisions"
    async with serving(web.get(path, answer)) as url, ApiClient(ApiConnection(url)) as client:
        observer = Observer(client, EnqueuedKeys(), {})
        observer.ingest("ADDED", CR)
        if runs:
            store(observer, child("Deployment", MARKED, OWNER))
        if is_lost:
            lose(observer)
        found = [await observer._revisions.find(KEY) for _ in range(2)]
    assert set(asked) <= {f"metadata.name={NAME}"}
    return found, len(asked)


@for_each("labels, owners, is_own, is_foreign", {
    "its mark is gone, and it is controlled": (UNMARKED, [OWNER], True, False),
    "all labels are gone, and it is controlled": ({}, [OWNER], True, False),
    "mark and controller are gone": (UNMARKED, [], False, True),
    "another R1PlusDeployment controls it": (UNMARKED, [FORMER], False, True),
    "the watch brings it a moment later": (MARKED, [OWNER], True, False),
    "the watch brings it, and it lost its controller": (MARKED, [], True, False),
    "the watch brings it, and another R1PlusDeployment controls it": (MARKED, [FORMER], False, False),
})  # fmt: skip
@pytest.mark.parametrize("runs", [True, False], ids=["its Deployment runs", "the watch has lost it"])
async def test_a_revision_without_the_mark_is_found(
    labels: dict[str, str], owners: list[dict[str, Any]], is_own: bool, is_foreign: bool, runs: bool
) -> None:
    live = child("ControllerRevision", labels, *owners)
    found, count = await find([live], is_lost=not runs, runs=runs)
    for one in found:
        assert [name for _, name in one.own] == [NAME] * is_own
        assert one.foreign == (NAME,) * is_foreign
        assert [name for _, name in one.orphans] == [NAME] * (is_foreign and not owners)
        assert bool(one.objection) is is_foreign
    assert count == (2 if runs or is_own or is_foreign else 1)


async def test_what_was_deleted_is_asked_for_once() -> None:
    found, count = await find([], is_lost=True, runs=False)
    assert (found, count) == ([UnmarkedRevisions()] * 2, 1)


async def test_usually_nobody_is_asked() -> None:
    found, count = await find([], is_lost=False, runs=False)
    assert (found, count) == ([UnmarkedRevisions()] * 2, 0)


@for_each("config_owner, is_selected, is_restored", {
    "it serves": ("u-1", True, True),
    "it serves, and its ConfigMap is somebody else's": ("another", True, False),
    "it does not serve": ("u-1", False, False),
})  # fmt: skip
async def test_what_serves_and_is_gone_is_made_again(config_owner: str, is_selected: bool, is_restored: bool) -> None:
    world = serve_world()
    name = world.selected()
    parts = [world.one("Deployment", name), world.one("Service", "credit"), world.one("ConfigMap", name)]
    for part in parts:
        part["metadata"]["resourceVersion"] = "7"
    deployment, service, config = parts
    config["metadata"]["ownerReferences"][0] = {**OWNER, "uid": config_owner}
    if not is_selected:
        service["spec"]["selector"] |= {names.LABEL_REVISION: "nothing-promoted"}

    async def answer(request: web.Request) -> web.Response:
        items = [config] if request.path.endswith("/configmaps") else []
        return web.json_response({"metadata": {"resourceVersion": "9"}, "items": items})

    paths = "/apis/apps/v1/namespaces/team/controllerrevisions", "/api/v1/namespaces/team/configmaps"
    async with serving(*(web.get(path, answer) for path in paths)) as url, ApiClient(ApiConnection(url)) as client:
        observer = Observer(client, EnqueuedKeys(), {})
        observer.ingest("ADDED", {**CR, "metadata": {**CR["metadata"], "namespace": "team", "uid": "u-1"}})
        store(observer, deployment)
        store(observer, service)
        found = await observer._revisions.find(DeploymentKey("team", "credit"))
    stored = world.one("ControllerRevision", name)
    assert [live["data"] for live in found.own.values()] == [stored["data"]] * is_restored
