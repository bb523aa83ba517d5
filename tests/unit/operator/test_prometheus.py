"""What Prometheus says is read into facts; that it does not answer for a while is no news."""

import random
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import yaml
from aiohttp import web

from r1plus_operator.observe.prometheus_poller import (
    GROUPS_AT_ONCE,
    MOST_TEXT,
    PATIENCE_SECONDS,
    PrometheusPoller,
)
from r1plus_operator.plan.observation import PrometheusView, RuleFacts, TargetFacts
from support.http_server import serving
from support.prometheus import prometheus
from support.waiting import eventually

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
    """Collects what it is told, and asks about some deployments."""

    def __init__(self, *deployments: tuple[str, str]) -> None:
        self.crs: dict[tuple[str, str], Any] = dict.fromkeys(deployments)
        self.views: list[PrometheusView] = []

    def update_prometheus(self, view: PrometheusView) -> None:
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
        heard = Heard(("team", "credit"), ("team", "debit"))
        return await PrometheusPoller(heard, f"{url}/prefix/", 1.0, random.Random(1)).poll(session)


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
    source = PrometheusPoller(heard, "http://p", 1.0, random.Random(1), clock=lambda: now[0])
    silent, well = PrometheusView("http://p", "no answer"), PrometheusView("http://p")
    source.publish(silent)
    assert heard.views == [silent]
    source.publish(well)
    now[0] = PATIENCE_SECONDS
    source.publish(silent)
    assert heard.views == [silent, well]
    now[0] = PATIENCE_SECONDS + 1
    source.publish(silent)
    assert heard.views == [silent, well, silent]


def target(number: int) -> dict[str, Any]:
    """One as prometheus-operator's relabelling sees it: some 3 kB."""
    discovered = {f"__meta_kubernetes_pod_label_{n}": "some-application-name" for n in range(60)}
    labels = {"namespace": "other", "pod": f"pod-{number}", "endpoint": "metrics"}
    return {"discoveredLabels": discovered, "labels": labels, "health": "up", "lastError": ""}


class BigPrometheus:
    """One with the targets and rules of others, as many as a test says, and `team/credit` among them.

    It filters as Prometheus does, unless `filters` is False, as an old one.
    """

    def __init__(self, others: int, *, filters: bool = True) -> None:
        self.others = others
        self.filters = filters
        self.answered = 0
        """Answers that were read to their end; the others were cut."""
        self.asked: list[web.Request] = []
        self.groups: list[dict[str, Any]] = [*RULES["groups"]]
        self.targets = TARGETS["activeTargets"][:2]

    async def rules(self, request: web.Request) -> web.StreamResponse:
        wanted = request.query.getall("rule_group[]", [])
        text = {**RULE, "query": "x" * 3000}
        others = [{"name": f"others-{n}", "file": "f", "rules": [text]} for n in range(self.others)]
        groups = [group for group in (*self.groups, *others) if not self.filters or group["name"] in wanted]
        return await self.stream(request, b'"groups":', groups)

    async def all_targets(self, request: web.Request) -> web.StreamResponse:
        pool = request.query.get("scrapePool")
        if self.filters and pool:
            pools = {"podMonitor/team/credit/0": self.targets[:1], "podMonitor/team/credit/1": self.targets[1:]}
            return await self.stream(request, b'"activeTargets":', pools.get(pool, []))
        return await self.stream(request, b'"activeTargets":', [*map(target, range(self.others)), *self.targets])

    async def stream(self, request: web.Request, key: bytes, items: list[Any]) -> web.StreamResponse:
        self.asked.append(request)
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b'{"status":"success","data":{' + key + b"[")
        for number, item in enumerate(items):
            await answer.write((b"," if number else b"") + orjson.dumps(item))
        await answer.write(b"]}}")
        self.answered += 1
        return answer


async def views(server: BigPrometheus, rounds: int, *deployments: tuple[str, str]) -> list[PrometheusView]:
    routes = web.get("/api/v1/rules", server.rules), web.get("/api/v1/targets", server.all_targets)
    async with serving(*routes) as url, aiohttp.ClientSession() as session:
        source = PrometheusPoller(Heard(*deployments), url, 1.0, random.Random(1))
        return [await source.poll(session) for _ in range(rounds)]


async def test_the_targets_and_rules_of_others_are_not_read_however_many_there_are() -> None:
    server = BigPrometheus(10_000)
    found = await views(server, 3, ("team", "credit"), ("team", "debit"))
    assert [view.error for view in found] == [""] * 3
    for view in found:
        assert set(view.rules) == {"r1plus/team/credit"}
        assert view.targets == {
            ("team", "p"): (TargetFacts("monitor", "up", ""), TargetFacts("triton-metrics", "down", "no"))
        }
    # The first look finds out that all together are too many; the others ask for what is theirs.
    assert len(server.asked) - server.answered == 1


async def test_a_prometheus_without_filters_is_read_up_to_a_limit_and_named() -> None:
    server = BigPrometheus(10_000, filters=False)
    (view,) = await views(server, 1, ("team", "credit"))
    assert (view.rules, view.targets) == ({}, {})
    assert "/api/v1/rules" in view.error
    assert "larger than 4 MiB and was not read" in view.error
    assert "rule_group[] and scrapePool" in view.error
    assert server.answered == 0


async def test_a_small_prometheus_without_filters_is_read_whole() -> None:
    (view,) = await views(BigPrometheus(100, filters=False), 1, ("team", "credit"))
    assert view.error == ""
    assert set(view.rules) == {"r1plus/team/credit"}
    assert ("team", "p") in view.targets


async def test_many_deployments_are_asked_about_in_short_requests() -> None:
    server = BigPrometheus(0)
    names = [("n" * 60 + f"-{number}", "d" * 40) for number in range(GROUPS_AT_ONCE + 1)]
    await views(server, 1, *names)
    paths = [str(request.rel_url) for request in server.asked]
    assert len(paths) == 3
    assert max(map(len, paths)) < 8000


async def test_an_error_that_prometheus_reports_is_cut_short() -> None:
    server = BigPrometheus(0)
    server.groups = [{"name": "r1plus/team/credit", "file": "f", "rules": [{**RULE, "lastError": "x" * 100_000}]}]
    server.targets = [{**TARGETS["activeTargets"][0], "lastError": "x" * 100_000}]
    (view,) = await views(server, 1, ("team", "credit"))
    assert len(view.rules["r1plus/team/credit"][0].error) == MOST_TEXT
    assert len(view.targets["team", "p"][0].error) == MOST_TEXT


def scraped(pool: str, namespace: str) -> dict[str, Any]:
    """Return the configuration of a scrape pool of one pod."""
    labels = {"namespace": namespace, "pod": "p"}
    return {"job_name": pool, "static_configs": [{"targets": ["127.0.0.1:1"], "labels": labels}]}


@pytest.mark.unit_slow
async def test_a_real_prometheus_knows_these_filters(tmp_path: Path) -> None:
    pools = (("podMonitor/team/credit/0", "team"), ("podMonitor/other/credit/0", "other"))
    groups = [{"name": f"r1plus/{name}/credit", "rules": [{"alert": "A", "expr": "1"}]} for _, name in pools]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    with prometheus(tmp_path, scrape_configs=[scraped(*pool) for pool in pools], rule_files=["rules.yml"]) as url:
        async with aiohttp.ClientSession() as session:
            source = PrometheusPoller(Heard(("team", "credit")), url, 1.0, random.Random(1))

            async def look() -> PrometheusView | None:
                view = await source.poll(session)
                return view if len(view.targets) == 2 and view.rules else None

            everything = await eventually(look, "Prometheus knows its targets")
            assert set(everything.rules) == {"r1plus/team/credit"}
            source._by_pool = True
            assert set((await source.poll(session)).targets) == {("team", "p")}
