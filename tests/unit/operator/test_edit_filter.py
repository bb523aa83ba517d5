"""What kopf gets of a watch: everything that is new, and of edits without end few; the newest of them is never lost."""

import asyncio
import json
from typing import Any

import kopf
import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.requests import Request, Verb, build_annotations, read_requests
from r1plus_operator.observe.edits.edit_filter import EditFilter
from r1plus_operator.observe.edits.kopf_watch import open_session
from r1plus_operator.observe.keys import DeploymentKey, PassKey
from r1plus_operator.observe.observer import Observer
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.fairness import Pace, PaceLimits, Priority
from support.http_server import serving
from support.operator.enqueued_keys import EnqueuedKeys
from support.runtime.clock import ManualClock
from support.runtime.contention import Contended
from support.tables import for_each

LIMITS = PaceLimits(at_once=2, burst_per_second=2.0, burst=4)
PATH = "/apis/r1plus.ai/v1alpha1/r1plusdeployments"
Json = dict[str, Any]


def cr(
    version: int, *, generation: int = 1, name: str = "credit", uid: str = "u", status: str = "", **meta: Any
) -> Json:
    head = {"name": name, "namespace": "t", "uid": uid, "generation": generation, "resourceVersion": str(version)}
    spec = {"tier": "full", "accuracy": {"probesPerMinute": generation}}
    return {"metadata": {**head, **meta}, "spec": spec, "status": {"suite": status}}


class Watch:
    """A filter before an observer. What it lets through is observed at once, as kopf does it within milliseconds."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.passes = EnqueuedKeys()
        self.observer = Observer(ApiClient(ApiConnection("http://127.0.0.1:1")), self.passes, {})
        self.pace: Pace[tuple[str, ...]] = Pace(lambda key: key[0], Contended(), LIMITS, clock=self.clock)
        self.filter = EditFilter(self.observer, self.pace)
        self.versions: list[int] = []

    def send(self, kind: str, obj: Json) -> bool:
        """Send an event; return whether kopf gets it."""
        line = orjson.dumps({"type": kind, "object": obj})
        event = json.loads(self.filter.filter_line(line))
        self.versions.append(int(event["object"]["metadata"]["resourceVersion"]))
        if event["type"] == "BOOKMARK":
            return False
        assert event == json.loads(line), "as the API server sent it"
        self.observer.ingest(event["type"], event["object"], has_turn=True)
        return True

    @property
    def generation(self) -> int:
        """Of the deployment, as it is observed."""
        return int(self.observer.crs["t", "credit"]["metadata"]["generation"])


def flooded() -> Watch:
    """A namespace that has used its turns; its deployment's generation 3 is observed, in version 3."""
    watch = Watch()
    watch.send("ADDED", cr(1))
    assert watch.send("MODIFIED", cr(2, generation=2))
    assert watch.send("MODIFIED", cr(3, generation=3))
    return watch


@for_each(
    ("kind", "obj"),
    {
        "a new deployment": ("ADDED", cr(9, name="other", uid="o")),
        "a namesake after it": ("ADDED", cr(9, uid="other")),
        "its deletion": ("DELETED", cr(9)),
        "a deletion that waits for a finalizer": ("MODIFIED", cr(9, generation=4, deletionTimestamp="now")),
        "one that it has not heard of": ("MODIFIED", cr(9, name="other", uid="o")),
        "a bookmark": ("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
        "an error": ("ERROR", {"kind": "Status", "code": 410, "metadata": {"resourceVersion": "9"}}),
    },
)
def test_in_a_flood_kopf_gets_at_once(kind: str, obj: Json) -> None:
    watch = flooded()
    line = orjson.dumps({"type": kind, "object": obj})
    assert watch.filter.filter_line(line) == line


@for_each(
    "obj",
    {
        "an edit": cr(9, generation=4),
        "a request": cr(9, generation=3, annotations={"r1plus.ai/rollback": "{}"}),
        "a label": cr(9, generation=3, labels={"a": "b"}),
        "a version that an answer told of": cr(3, generation=3),
        "an older one": cr(2, generation=2),
    },
)
def test_in_a_flood_kopf_gets_a_bookmark_in_place_of(obj: Json) -> None:
    watch = flooded()
    assert not watch.send("MODIFIED", obj)
    assert watch.versions[-1] == int(obj["metadata"]["resourceVersion"]), "kopf watches on from there"


def test_a_status_is_observed_at_once_without_kopf_and_causes_no_pass() -> None:
    watch = flooded()
    before = len(watch.passes.all)
    assert not watch.send("MODIFIED", cr(9, generation=3, status="new"))
    assert watch.observer.crs["t", "credit"]["status"] == {"suite": "new"}
    assert len(watch.passes.all) == before


def test_a_line_that_cannot_be_read_is_kopfs_to_refuse(caplog: pytest.LogCaptureFixture) -> None:
    assert Watch().filter.filter_line(b'{"type": ') == b'{"type": '
    assert "kopf gets it as it is" in caplog.text


def test_an_edit_that_waits_is_observed_at_its_turn_in_its_newest_state_and_enqueued_once() -> None:
    watch = flooded()
    before = len(watch.passes.all)
    for number in range(4, 50):
        watch.send("MODIFIED", cr(number, generation=number))
    assert watch.generation == 3
    watch.clock.advance(1.0)
    assert (watch.generation, len(watch.passes.all)) == (49, before + 1)


def test_an_edit_that_an_answer_has_told_of_is_not_undone_at_its_turn() -> None:
    watch = flooded()
    watch.send("MODIFIED", cr(4, generation=4))
    watch.observer.update_cached(cr(5, generation=5))
    watch.clock.advance(10.0)
    assert watch.generation == 5


def test_a_list_that_kopf_delivers_late_does_not_undo_an_edit_whose_event_got_no_further_than_the_filter() -> None:
    watch = flooded()
    watch.filter.begin_list()
    watch.observer.update_cached(cr(5, generation=5))
    assert not watch.send("MODIFIED", cr(5, generation=5)), "an answer told of it"
    watch.observer.ingest(None, cr(4, generation=4))
    assert watch.generation == 5


def test_after_a_restore_the_lists_older_versions_are_observed() -> None:
    watch = flooded()
    watch.filter.begin_list()
    watch.observer.ingest(None, cr(2, generation=2))
    assert watch.generation == 2


@for_each(
    ("kind", "obj"),
    {
        "the deployment is deleted": ("DELETED", cr(5)),
        "it is being deleted": ("MODIFIED", cr(5, generation=4, deletionTimestamp="now")),
        "a namesake is edited": ("MODIFIED", cr(5, uid="other")),
    },
)
def test_an_edit_that_waits_is_dropped_once(kind: str, obj: Json) -> None:
    watch = flooded()
    watch.send("MODIFIED", cr(4, generation=4))
    watch.send(kind, obj)
    state = dict(watch.observer.crs)
    watch.clock.advance(60.0)
    assert watch.observer.crs == state


def test_a_request_goes_at_the_next_turn_however_many_edits_wait() -> None:
    watch = Watch()
    others = [f"d{number}" for number in range(50)]
    for number, name in enumerate([*others, "credit"], 1):
        watch.send("ADDED", cr(number, name=name, uid=name))
    for number, name in enumerate(["credit", *others], 100):
        watch.send("MODIFIED", cr(number, generation=2, name=name, uid=name))
    text = build_annotations(Verb.ROLLBACK, Request("anna", "", "2026-11-28T12:00:00.000000Z"))
    assert not watch.send("MODIFIED", cr(200, generation=2, name="credit", uid="credit", annotations=text))
    watch.clock.advance(PaceLimits().longest_seconds)
    assert read_requests(watch.observer.crs["t", "credit"]["metadata"])[Verb.ROLLBACK].by == "anna"


KINDS = st.sampled_from(["edit", "status", "answer", "label", "delete and create"])


@given(st.lists(st.tuples(st.sampled_from("abc"), KINDS, st.sampled_from([0.0, 0.1, 3.0])), max_size=60))
def test_after_any_history_the_newest_state_is_observed_and_had_a_pass(history: list[tuple[str, str, float]]) -> None:
    watch = Watch()
    live: dict[str, Json] = {}
    seen: dict[DeploymentKey, int] = {}
    version = 0

    def look(key: PassKey, _: Priority) -> None:
        if isinstance(key, DeploymentKey) and key in watch.observer.crs:
            seen[key] = watch.observer.crs[key]["metadata"]["generation"]

    watch.passes.on_add = look
    for name, kind, seconds in history:
        watch.clock.advance(seconds)
        version += 1
        old = live.get(name)
        if old is None or kind == "delete and create":
            if old is not None:
                watch.send("DELETED", old | {"metadata": old["metadata"] | {"resourceVersion": str(version)}})
                version += 1
            live[name] = cr(version, name=name, uid=f"{name}{version}")
            watch.send("ADDED", live[name])
            continue
        meta = old["metadata"]
        generation = meta["generation"] + (kind == "edit")
        text = f"of {version}" if kind in ("status", "answer") else old["status"]["suite"]
        labels = {"labels": {"v": str(version)}} if kind == "label" else {}
        live[name] = cr(version, generation=generation, name=name, uid=meta["uid"], status=text, **labels)
        if kind == "answer":
            watch.observer.update_cached(live[name])
        watch.send("MODIFIED", live[name])
    watch.clock.advance(600.0)
    assert not any(group.waiting for group in watch.pace._groups.values())
    for name, newest in live.items():
        cached = watch.observer.crs["t", name]
        assert (cached["spec"], cached["status"]) == (newest["spec"], newest["status"])
        assert cached["metadata"]["resourceVersion"] == newest["metadata"]["resourceVersion"]
        assert seen["t", name] == newest["metadata"]["generation"]


async def test_kopfs_session_reads_a_watch_whose_lines_are_cut_anywhere_and_refusals_as_they_are() -> None:
    watch = flooded()
    events = [
        ("MODIFIED", cr(4, generation=4)),
        ("ADDED", cr(5, name="other", uid="o")),
        ("MODIFIED", cr(6, generation=6)),
    ]
    text = b"".join(orjson.dumps({"type": kind, "object": obj}) + b"\n" for kind, obj in events)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            return web.json_response({"items": [], "at": request.headers["Authorization"]})
        if request.query.get("resourceVersion") == "0":
            return web.json_response({"code": 410}, status=410)
        response = web.StreamResponse()
        await response.prepare(request)
        for at in range(0, len(text), 100):
            await response.write(text[at : at + 100])
            await asyncio.sleep(0)
        await response.write(b'{"type":"MODIFIED","obj')
        return response

    async with serving(web.get(PATH, answer)) as url:
        session = open_session(kopf.ConnectionInfo(server=url, token="secret"), watch.filter).aiohttp_session
        async with session:
            async with session.get(f"{url}{PATH}?watch=true&resourceVersion=0") as refused:
                assert (refused.status, await refused.json()) == (410, {"code": 410})
            async with session.get(f"{url}{PATH}?watch=true") as response:
                lines = b"".join([chunk async for chunk in response.content.iter_chunked(2**20)]).splitlines()
            assert [json.loads(line)["type"] for line in lines] == ["BOOKMARK", "ADDED", "BOOKMARK"]
            assert [json.loads(line)["object"]["metadata"]["resourceVersion"] for line in lines] == ["4", "5", "6"]
            async with session.get(f"{url}{PATH}?limit=20") as listed:
                assert await listed.json() == {"items": [], "at": "Bearer secret"}
    watch.clock.advance(60.0)
    assert watch.generation == 3, "the list is newer than what waited"
