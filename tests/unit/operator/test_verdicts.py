"""The road of the verdicts: what a monitor that stopped answering counts as, and from when on."""

import itertools
import logging
import math
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.verdict import (
    GateReport,
    MonitorReport,
    Phase,
    StratumFigures,
    SweepFigures,
    Verdict,
    Watch,
    WatchStanding,
)
from r1plus_operator.api import kinds
from r1plus_operator.main import MOST_LOGGED, OneLineFormatter
from r1plus_operator.observe import pod_projection, projections
from r1plus_operator.observe.monitors.monitor_poller import CONCURRENCY, SHARES, MonitorPoller
from r1plus_operator.observe.monitors.pooled_detectors import Pools
from r1plus_operator.observe.observer import Observer
from r1plus_operator.observe.pod_projection import ServingPod
from r1plus_operator.observe.projections import Child
from r1plus_operator.plan.accuracy.unresponsive import MONITOR_SILENT, SILENT_SECONDS, build_silent_report
from r1plus_operator.plan.observation import AgeBounds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from support.http_server import serving
from support.operator.enqueued_keys import EnqueuedKeys
from support.virtual_time import read_loop_time
from support.waiting import eventually

CR = {"metadata": {"namespace": "t", "name": "credit", "uid": "cr1"}}
OWNER = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "name": "credit", "uid": "cr1"}
WATCH = Watch(WatchStanding.STEADY, 4)
PASSES = MonitorReport("credit-a", "id", Phase.WATCHING, Verdict.PASS, "Passed", "", "s", "hash", watch=WATCH)


def controller(kind: str, name: str, uid: str) -> dict[str, Any]:
    return {"kind": kind, "name": name, "uid": uid, "controller": True}


def child(kind: str, name: str, uid: str, **meta: Any) -> Child:
    head = {"namespace": "t", "name": name, "uid": uid, "resourceVersion": "1"}
    return projections.project_child(kinds.BY_KIND[kind], {"metadata": head | meta})


def pod(ip: str, *, runs: bool = True, **meta: Any) -> dict[str, Any]:
    labels = {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_DEPLOYMENT: "credit",
        names.LABEL_REVISION: "credit-a",
    }
    statuses = [{"name": "monitor", "ready": runs, "state": {}}, {"name": "triton", "ready": True, "state": {}}]
    head = {
        "name": "credit-a-0",
        "namespace": "t",
        "uid": "p1",
        "labels": labels,
        "annotations": {names.ANNOTATION_OWNER_UID: "cr1"},
        "ownerReferences": [controller("ReplicaSet", "credit-a-7d9f", "rs1")],
    }
    return {"metadata": head | meta, "spec": {}, "status": {"podIP": ip, "containerStatuses": statuses}}


class Road:
    """A verdict source, one pod, its monitor on loopback, and a clock."""

    source: MonitorPoller
    session: aiohttp.ClientSession
    port: int

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.rest = 0.0
        """Seconds that a round goes on after a report that was news."""
        self.asked = EnqueuedKeys(on_add=self._rest)
        self.says: MonitorReport | None = PASSES
        self.text = ""
        """What is said instead."""
        self.observer = Observer(ApiClient(ApiConnection("http://127.0.0.1:1")), self.asked, {}, clock=lambda: self.now)
        self.observer.crs["t", "credit"] = CR
        revision = child("ControllerRevision", "credit-a", "cr-a", ownerReferences=[OWNER | {"controller": True}])
        self.observer.children["ControllerRevision"].store.upsert(revision)

    def _rest(self, *_: object) -> None:
        self.now += self.rest

    def put(self, obj: dict[str, Any]) -> None:
        if (projected := pod_projection.project_pod(obj)) is not None:
            self.observer.pods.store.upsert(projected)

    async def after(self, seconds: float) -> MonitorReport | None:
        """What counts as said by the pod after one more round."""
        self.now += seconds
        await self.source.poll_all(self.session)
        return self.observer.monitors.reports.get("p1")


def no_pools(road: Road) -> Pools:
    return Pools(lambda: road.now, lambda key, pool: None)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture
async def road() -> AsyncIterator[Road]:
    found = Road()

    async def verdict(_: web.Request) -> web.Response:
        said = found.text or (dumps(found.says) if found.says else "")
        return web.json_response(text=said) if said else web.Response(status=503)

    async with serving(web.get("/verdict", verdict)) as url, aiohttp.ClientSession() as found.session:
        found.port = port_of(url)
        pools = no_pools(found)
        found.source = MonitorPoller(found.observer, pools, 10.0, random.Random(1), found.port, lambda: found.now)
        found.put(pod("127.0.0.1"))
        yield found


async def test_what_answers_while_the_monitors_container_does_not_run_is_not_believed(road: Road) -> None:
    road.put(pod("127.0.0.1", runs=False))
    assert await road.after(0) is None
    road.put(pod("127.0.0.1"))
    assert await road.after(1) == PASSES
    road.put(pod("127.0.0.1", runs=False))
    road.says = replace(PASSES, verdict=Verdict.FAIL)
    assert await road.after(1) == PASSES
    found = await road.after(SILENT_SECONDS)
    assert (found.verdict, found.reason) == (Verdict.NO_DATA, MONITOR_SILENT)
    road.put(pod("127.0.0.1"))
    assert await road.after(1) == road.says


async def test_a_monitor_that_stopped_answering_is_taken_at_its_word_for_two_minutes_and_then_is_no_data(
    road: Road,
) -> None:
    assert await road.after(0) == PASSES
    road.says = None
    assert await road.after(SILENT_SECONDS - 1) == PASSES
    news = len(road.asked.all)
    found = await road.after(1)
    assert (found.phase, found.verdict, found.reason) == (Phase.BLOCKED, Verdict.NO_DATA, MONITOR_SILENT)
    assert "credit-a-0" in found.message
    assert found.watch == WATCH
    assert len(road.asked.all) == news + 1
    assert await road.after(10) == found
    assert len(road.asked.all) == news + 1


async def test_an_answer_that_is_the_same_is_read_once(road: Road) -> None:
    first = await road.after(0)
    assert await road.after(10) is first
    road.says = replace(PASSES, message="another")
    second = await road.after(10)
    assert (second, await road.after(10)) == (road.says, second)
    road.says = PASSES
    assert await road.after(10) == PASSES


async def test_a_count_ended_between_the_reading_before_it_and_the_first_of_it_whatever_its_node_says(
    road: Road,
) -> None:
    def count(finished_at: str) -> MonitorReport:
        return replace(PASSES, watch=replace(WATCH, confirmation=SweepFigures(2, 4, 0.0, 1.0, finished_at)))

    async def read_age(seconds: float) -> AgeBounds:
        await road.after(seconds)
        return road.observer.monitors.list_count_ages(road.observer.pods.store.items())["credit-a-0"]

    road.says = count("2026-01-01T00:00:00Z")
    assert await read_age(0) == AgeBounds(0.0, math.inf)
    assert await read_age(30) == AgeBounds(30.0, math.inf)
    road.says = None
    await road.after(SILENT_SECONDS)
    road.says = count("1999-01-01T00:00:00Z")
    assert await read_age(10) == AgeBounds(0.0, SILENT_SECONDS + 10)
    assert await read_age(30) == AgeBounds(30.0, SILENT_SECONDS + 40)
    road.says = replace(PASSES, watch=None)
    await road.after(10)
    road.says = count("1999-01-01T00:00:00Z")
    assert await read_age(10) == AgeBounds(50.0, SILENT_SECONDS + 60), "its monitor was started again"


async def test_a_monitor_that_answered_at_the_beginning_of_a_long_round_is_not_silent_at_its_end(road: Road) -> None:
    road.rest = SILENT_SECONDS
    assert await road.after(0) == PASSES
    assert len(road.asked.all) == 1


async def test_a_monitor_that_answers_again_is_heard_again_at_once(road: Road) -> None:
    await road.after(0)
    road.says = None
    await road.after(SILENT_SECONDS)
    road.says = PASSES
    assert await road.after(10) == PASSES
    road.says = None
    assert await road.after(SILENT_SECONDS - 1) == PASSES


async def test_a_monitor_that_never_answered_a_new_operator_is_no_data_two_minutes_after_it_was_first_asked(
    road: Road,
) -> None:
    road.says = None
    assert await road.after(0) is None
    assert await road.after(SILENT_SECONDS - 1) is None
    found = await road.after(1)
    assert (found.verdict, found.reason) == (Verdict.NO_DATA, MONITOR_SILENT)
    assert (found.revision, found.suite_hash) == ("credit-a", "")


@pytest.mark.parametrize(
    "obj",
    [
        pytest.param(pod("127.0.0.1", runs=False), id="its monitor has not started: the engine is copied"),
        pytest.param(pod("127.0.0.1", deletionTimestamp="now"), id="it goes away"),
        pytest.param(pod(""), id="it has no address yet"),
    ],
)
async def test_a_pod_that_owes_no_answer_is_not_silent(road: Road, obj: dict[str, Any]) -> None:
    road.says = None
    road.put(obj)
    await road.after(0)
    assert await road.after(10 * SILENT_SECONDS) is None


async def test_of_a_pod_that_is_gone_nothing_is_kept(road: Road) -> None:
    await road.after(0)
    road.observer.pods.store.drop(("t", "credit-a-0"))
    assert await road.after(10) is None
    road.says = None
    road.put(pod("127.0.0.1"))
    assert await road.after(SILENT_SECONDS) is None


def test_a_monitor_that_could_not_score_keeps_its_reason() -> None:
    blocked = replace(PASSES, phase=Phase.BLOCKED, verdict=Verdict.NO_DATA, reason="SuiteMismatch")
    facts = pod_projection.project_pod(pod("127.0.0.1"))
    assert build_silent_report(blocked, facts.facts, "t") == blocked


async def test_how_many_requests_run_is_as_new_as_the_last_answer_and_no_news(road: Road) -> None:
    for count in (3, 0):
        road.says = replace(PASSES, user_requests=count)
        report = await road.after(10)
        assert report is not None
        assert report.user_requests == count
    assert len(road.asked.all) == 1
    road.says = None
    assert await road.after(10) == PASSES, "nothing is known of them any more"
    assert len(road.asked.all) == 1


FOREIGN_PODS = {
    "it has the mark alone": {"labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}, "ownerReferences": []},
    "its Job is none that is known": {
        "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_VOLUME: "r1plus-engine-1"},
        "ownerReferences": [controller("Job", "r1plus-engine-1", "another")],
    },
    "its deployment is none that is known": {"labels": {names.LABEL_DEPLOYMENT: "x", names.LABEL_REVISION: "credit-a"}},
    "its revision is none that is known": {
        "labels": {names.LABEL_DEPLOYMENT: "credit", names.LABEL_REVISION: "credit-b"}
    },
    "it was made for another deployment of that name": {"annotations": {names.ANNOTATION_OWNER_UID: "cr0"}},
    "another ReplicaSet made it": {"ownerReferences": [controller("ReplicaSet", "mine-7d9f", "rs2")]},
    "it is in another namespace": {"namespace": "evil"},
}


@pytest.mark.parametrize("meta", FOREIGN_PODS.values(), ids=FOREIGN_PODS)
async def test_only_pods_of_known_revisions_and_jobs_are_contacted(meta: dict[str, Any]) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=503)

    road = Road()
    road.observer.children["Job"].store.upsert(
        child("Job", "r1plus-engine-1", "job1", labels={names.LABEL_VOLUME: "r1plus-engine-1"})
    )
    filler = {
        "name": "filler",
        "uid": "p2",
        "labels": {names.LABEL_VOLUME: "r1plus-engine-1"},
        "ownerReferences": [controller("Job", "r1plus-engine-1", "job1")],
    }
    async with serving(web.get("/{path}", answer)) as url, aiohttp.ClientSession() as session:
        source = MonitorPoller(road.observer, no_pools(road), 10.0, random.Random(1), port_of(url))
        road.put(pod("127.0.0.1", **meta))
        await source.poll_all(session)
        assert asked == []
        road.put(pod("127.0.0.1"))
        road.put(pod("127.0.0.1", **filler))
        await source.poll_all(session)
        assert sorted(asked) == ["/progress", "/verdict"]


async def test_pods_that_swallow_packets_delay_no_other_tenants_monitor(virtual_time: None) -> None:
    road = Road()
    evil = {**OWNER, "uid": "cr2"}
    road.observer.crs["evil", "credit"] = {"metadata": {"namespace": "evil", "name": "credit", "uid": "cr2"}}
    road.observer.children["ControllerRevision"].store.upsert(
        child("ControllerRevision", "credit-a", "cr-b", namespace="evil", ownerReferences=[evil | {"controller": True}])
    )
    for number in range(120):
        meta = {"namespace": "evil", "annotations": {names.ANNOTATION_OWNER_UID: "cr2"}}
        road.put(pod("127.9.9.9", name=f"credit-a-{number}", uid=f"x{number}", **meta))
    for number in range(40):
        road.put(pod("127.0.0.1", name=f"credit-a-{number}", uid=f"g{number}"))

    async def verdict(_: web.Request) -> web.Response:
        return web.json_response(text=dumps(PASSES))

    never = aiohttp.ClientTimeout(total=3600)
    async with (
        serving(web.get("/verdict", verdict)) as url,
        aiohttp.ClientSession(timeout=never) as session,
    ):
        silent_server = socket.create_server(("127.9.9.9", port_of(url)), backlog=200)
        source = MonitorPoller(
            road.observer, no_pools(road), 10.0, random.Random(1), port_of(url), clock=read_loop_time
        )

        async def all_are_heard() -> bool:
            await source.poll_all(session)
            return {f"g{number}" for number in range(40)} <= road.observer.monitors.reports.keys()

        for _ in range(2):
            road.observer.monitors.reports.clear()
            await eventually(all_are_heard, "every genuine monitor is heard")
        with silent_server:
            assert connections(silent_server) <= CONCURRENCY // SHARES
        await source.close()


def connections(listener: socket.socket) -> int:
    """Return how many wait to be accepted."""
    listener.setblocking(False)
    for number in itertools.count():
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return number
    raise AssertionError


async def test_pods_of_a_dead_node_come_after_those_that_answered(road: Road) -> None:
    asked: list[str] = []

    class Listed(MonitorPoller):
        async def _poll_report(self, session: aiohttp.ClientSession, pod: ServingPod) -> None:
            asked.append(pod.name)
            await super()._poll_report(session, pod)

    source = Listed(road.observer, no_pools(road), 10.0, random.Random(1), road.port, lambda: road.now)
    road.put(pod("127.9.9.8", name="credit-a-", uid="dead"))
    for expected in (["credit-a-0", "credit-a-"], ["credit-a-0", "credit-a-"]):
        asked.clear()
        await source.poll_all(road.session)
        assert asked == expected


def adopted_revision() -> Child:
    """Return a revision that was orphaned, and taken over by a namesake of its R1PlusDeployment: its template stays."""
    annotations = {names.ANNOTATION_OWNER_UID: "cr0"}
    template = {"metadata": {"annotations": annotations}, "spec": {}}
    owner = OWNER | {"controller": True}
    meta = {"namespace": "t", "name": "credit-a", "uid": "cr-a", "resourceVersion": "1", "ownerReferences": [owner]}
    body = {"metadata": meta, "data": {"template": template}}
    return projections.project_child(kinds.BY_KIND["ControllerRevision"], body)


async def test_pods_of_a_revision_that_a_namesake_has_taken_over_are_still_asked(road: Road) -> None:
    road.observer.children["ControllerRevision"].store.upsert(adopted_revision())
    assert await road.after(0) is None, "control: a pod of another R1PlusDeployment"
    road.put(pod("127.0.0.1", annotations={names.ANNOTATION_OWNER_UID: "cr0"}))
    assert await road.after(0) == PASSES


async def test_what_a_pod_said_last_does_not_stand_once_nobody_asks_it_any_more(road: Road) -> None:
    assert await road.after(0) == PASSES
    road.observer.children["ControllerRevision"].store.drop(("t", "credit-a"))
    assert await road.after(0) is None


@pytest.mark.parametrize("threshold", ["9" * 400, "NaN"], ids=["beyond any float", "no number"])
async def test_a_figure_that_nothing_can_be_computed_from_is_not_said(road: Road, threshold: str) -> None:
    road.text = dumps(PASSES).replace('"threshold":null', f'"threshold":{threshold}')
    assert await road.after(0) is None
    road.text = ""
    assert await road.after(0) == PASSES


async def test_what_fails_for_one_namespace_ends_nothing(
    road: Road, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("int too large to convert to float")

    with monkeypatch.context() as patch:
        patch.setattr(road.observer.monitors, "store_report", fail)
        assert await road.after(0) is None
    assert "Monitors of namespace t could not be polled" in caplog.text
    assert await road.after(0) == PASSES


async def test_what_a_pod_says_is_logged_as_one_short_line(road: Road, caplog: pytest.LogCaptureFixture) -> None:
    road.says = replace(PASSES, revision="credit-b\n2026-01-01 ERROR Lease lost\x1b[2J" + "x" * 200_000)
    with caplog.at_level(logging.WARNING):
        await road.after(0)
    (record,) = caplog.records
    line = OneLineFormatter("%(levelname)s %(message)s").format(record)
    assert line.startswith("WARNING Monitor of pod t/credit-a-0 reports another revision: 'credit-b")
    assert line.isprintable()
    assert len(line) < 300


@pytest.mark.parametrize(
    ("said", "line"),
    [
        pytest.param("a\nERROR b", "a\\nERROR b", id="a line of its own"),
        pytest.param("a\u2028b\x1b[2J\x85", "a\\u2028b\\x1b[2J\\x85", id="what a terminal or a log reader acts on"),
        pytest.param("Grüße", "Grüße", id="control: text"),
        pytest.param("x" * 300_000, "x" * MOST_LOGGED, id="a long text"),
    ],
)
def test_whatever_is_logged_is_one_bounded_line(said: str, line: str) -> None:
    record = logging.LogRecord("any", logging.ERROR, "", 0, "%s", (said,), None)
    assert OneLineFormatter("%(message)s").format(record) == line


GATE = GateReport(Verdict.PASS, "Passed", "", "id", "s", "hash", "1", 0.98, 210, 0, 4, batch=8)
SWEEP = SweepFigures(205, 210, 0.9, 1.0, "2026-01-01T00:00:00Z")
IMPOSSIBLE = {
    "a gate of more items than a number in the status has digits": replace(PASSES, gate=replace(GATE, items=2**62)),
    "a gate that lost fewer items than none": replace(PASSES, gate=replace(GATE, lost=-(10**18))),
    "a stratum of that size": replace(PASSES, gate=replace(GATE, strata=(StratumFigures("a", 2**62, 0, 0),))),
    "a sweep of that size": replace(PASSES, sweep=replace(SWEEP, correct=2**61, total=2**62)),
    "a sweep with more right answers than answers": replace(PASSES, sweep=replace(SWEEP, correct=211)),
    "a count after an alarm of that size": replace(PASSES, watch=replace(WATCH, confirmation=replace(SWEEP, total=2**62))),
}  # fmt: skip


@pytest.mark.parametrize("report", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
async def test_a_report_of_impossible_numbers_is_no_answer(
    road: Road, report: MonitorReport, caplog: pytest.LogCaptureFixture
) -> None:
    road.put(pod("127.0.0.1"))
    road.says = replace(PASSES, gate=GATE, sweep=SWEEP, sequence=2**40)
    assert await road.after(0.0) == road.says
    road.says = replace(report, sequence=2**40 + 1)
    assert (before := await road.after(10.0)) is not None
    assert before.sequence == 2**40
    assert "invalid and ignored: MonitorReport." in caplog.text
    silent = await road.after(SILENT_SECONDS)
    assert silent is not None
    assert silent.reason == MONITOR_SILENT
