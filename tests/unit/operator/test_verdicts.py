"""The road of the verdicts: what a monitor that stopped answering counts as, and from when on."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.verdict import MonitorReport, Phase, Standing, Verdict, Watch
from r1plus_operator import projections
from r1plus_operator.observe import Key, Observer
from r1plus_operator.plan.silence import MONITOR_SILENT, SILENT_SECONDS, silent
from r1plus_operator.pools import Pools
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import Connection
from r1plus_operator.verdicts import VerdictSource
from support.http_server import serving

KEY = ("t", "credit")
WATCH = Watch(Standing.STEADY, 4)
PASSES = MonitorReport("credit-a", "id", Phase.WATCHING, Verdict.PASS, "Passed", "", "s", "hash", watch=WATCH)


def pod(ip: str, *, runs: bool = True, **meta: Any) -> dict[str, Any]:
    labels = {names.LABEL_DEPLOYMENT: "credit", names.LABEL_REVISION: "credit-a"}
    statuses = [{"name": "monitor", "ready": runs, "state": {}}, {"name": "triton", "ready": True, "state": {}}]
    head = {"name": "credit-a-0", "namespace": "t", "uid": "p1", "labels": labels}
    return {"metadata": head | meta, "spec": {}, "status": {"podIP": ip, "containerStatuses": statuses}}


class Road:
    """A verdict source, one pod, its monitor on loopback, and a clock."""

    source: VerdictSource
    session: aiohttp.ClientSession

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.rest = 0.0
        """Seconds that a round goes on after a report that was news."""
        self.asked: list[Key] = []
        self.says: MonitorReport | None = PASSES
        self.observer = Observer(ApiClient(Connection("http://127.0.0.1:1")), self._news, {})

    def _news(self, key: Key) -> None:
        self.asked.append(key)
        self.now += self.rest

    def put(self, obj: dict[str, Any]) -> None:
        projected = projections.pod(obj)
        assert projected is not None
        self.observer.pods.store.put(projected)

    async def after(self, seconds: float) -> MonitorReport | None:
        """What counts as said by the pod after one more round."""
        self.now += seconds
        await self.source.ask_all(self.session)
        return self.observer.reports.get("p1")


@pytest.fixture
async def road() -> AsyncIterator[Road]:
    found = Road()

    async def verdict(_: web.Request) -> web.Response:
        return web.Response(status=503) if found.says is None else web.json_response(text=dumps(found.says))

    async with serving(web.get("/verdict", verdict)) as url, aiohttp.ClientSession() as found.session:
        pools = Pools(lambda: found.now, lambda key, pool: None)
        port = int(url.rpartition(":")[2])
        found.source = VerdictSource(found.observer, pools, 10.0, random.Random(1), port, lambda: found.now)
        found.put(pod("127.0.0.1"))
        yield found


async def test_a_monitor_that_stopped_answering_is_taken_at_its_word_for_two_minutes_and_then_is_no_data(
    road: Road,
) -> None:
    assert await road.after(0) == PASSES
    road.says = None
    assert await road.after(SILENT_SECONDS - 1) == PASSES
    news = len(road.asked)
    found = await road.after(1)
    assert (found.phase, found.verdict, found.reason) == (Phase.BLOCKED, Verdict.NO_DATA, MONITOR_SILENT)
    assert "credit-a-0" in found.message
    assert found.watch == WATCH
    assert len(road.asked) == news + 1
    assert await road.after(10) == found
    assert len(road.asked) == news + 1


async def test_a_monitor_that_answered_at_the_beginning_of_a_long_round_is_not_silent_at_its_end(road: Road) -> None:
    road.rest = SILENT_SECONDS
    assert await road.after(0) == PASSES
    assert len(road.asked) == 1


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
    facts = projections.pod(pod("127.0.0.1"))
    assert silent(blocked, facts.facts, "t") == blocked
