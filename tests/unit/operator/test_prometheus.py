"""What Prometheus says is read into facts; that it does not answer for a while is no news."""

import random

import aiohttp
import pytest
from aiohttp import web

from r1plus_operator.plan.inputs import PrometheusView, RuleFacts, TargetFacts
from r1plus_operator.prometheus import PATIENCE_SECONDS, PrometheusSource
from support.http_server import serving

RULE = {"name": "R1PlusAccuracyBelowThreshold", "query": "x < 1", "health": "ok", "type": "alerting"}
RULES = {"groups": [{"name": "r1plus/team/credit", "file": "f", "rules": [RULE, {**RULE, "lastError": "bad"}]}]}
TARGETS = {
    "activeTargets": [
        {"labels": {"namespace": "team", "pod": "p", "endpoint": "monitor"}, "health": "up", "lastError": ""},
        {
            "labels": {"namespace": "team", "pod": "p", "endpoint": "triton-metrics"},
            "health": "down",
            "lastError": "no",
        },
        {"labels": {"job": "prometheus"}, "health": "up", "lastError": ""},
    ]
}


class Heard:
    """Collects what it is told."""

    def __init__(self) -> None:
        self.views: list[PrometheusView] = []

    def take_prometheus(self, view: PrometheusView) -> None:
        self.views.append(view)


class Server:
    """Prometheus's two answers, or whatever else a test sets."""

    def __init__(self) -> None:
        self.body: object = None
        self.status = 200

    async def answer(self, request: web.Request) -> web.Response:
        data = RULES if request.path.endswith("/rules") else TARGETS
        return web.json_response(self.body or {"status": "success", "data": data}, status=self.status)


async def look(server: Server) -> PrometheusView:
    async with serving(web.get("/prefix/api/v1/{what}", server.answer)) as url, aiohttp.ClientSession() as session:
        return await PrometheusSource(Heard(), f"{url}/prefix/", 1.0, random.Random(1)).ask(session)


async def test_rules_go_by_group_and_targets_by_pod() -> None:
    view = await look(Server())
    assert view.error == ""
    assert view.rules == {
        "r1plus/team/credit": (RuleFacts(RULE["name"], "x < 1", ""), RuleFacts(RULE["name"], "x < 1", "bad"))
    }
    assert view.targets == {
        ("team", "p"): (TargetFacts("monitor", "up", ""), TargetFacts("triton-metrics", "down", "no"))
    }


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        pytest.param({"status": "error", "error": "query timed out"}, 200, "query timed out", id="an error of its own"),
        pytest.param({"message": "no"}, 403, "403", id="a refusal"),
        pytest.param([1], 200, "", id="something else that speaks HTTP"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_and_nothing_else(body: object, status: int, word: str) -> None:
    server = Server()
    server.body, server.status = body, status
    view = await look(server)
    assert view.error
    assert word in view.error
    assert (view.rules, view.targets) == ({}, {})


def test_silence_is_news_only_when_it_lasts() -> None:
    now, heard = [0.0], Heard()
    source = PrometheusSource(heard, "http://p", 1.0, random.Random(1), clock=lambda: now[0])
    silent, well = PrometheusView("http://p", "no answer"), PrometheusView("http://p")
    source.take(silent)
    assert heard.views == [silent]
    source.take(well)
    now[0] = PATIENCE_SECONDS
    source.take(silent)
    assert heard.views == [silent, well]
    now[0] = PATIENCE_SECONDS + 1
    source.take(silent)
    assert heard.views == [silent, well, silent]
