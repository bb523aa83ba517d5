"""What a real Prometheus takes of a pod by the limits of its PodMonitor: all that is genuine, and no flood."""

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from r1plus_contract import metrics
from r1plus_contract.suites.suite import Suite, load_suite
from r1plus_contract.verdict import SweepFigures, Watch, WatchStanding
from r1plus_monitoring.report.exposition import MOST_TASKS, Exposition
from r1plus_operator.plan.manifests.alerts import SCRAPE_LIMITS, build_pod_monitor
from r1plus_operator.plan.manifests.children import ChildOwner
from r1plus_operator.plan.manifests.promql import format_series
from r1plus_operator.plan.tenancy.gateway_objects import build_pod_monitor as build_gateway_pod_monitor
from support.http_server import serving
from support.monitoring.scripted import small_suite
from support.plan.world import CONFIG
from support.prometheus import prometheus
from support.waiting import eventually

NAMESPACE, DEPLOYMENT = "n" * 63, "d" * 40
FIGURES = SweepFigures(1, 2, 0.1, 0.2, "2030-01-01T00:00:00Z")


def suite_with(strata: int) -> Suite:
    """Return a suite with an item for each of so many strata, whose names are as long as none."""
    return load_suite(*small_suite(1, tuple(f"{n:05}" + "s" * 500 for n in range(strata))))


def largest() -> Exposition:
    """Return what a monitor exports whose suite has as many strata as items."""
    exposition = Exposition(NAMESPACE, DEPLOYMENT, f"{DEPLOYMENT}-0123456789")
    suite = suite_with(500)
    exposition.set_suite(suite, 0.98)
    exposition.set_accuracy(FIGURES)
    exposition.set_watch(Watch(WatchStanding.STEADY, 4, confirmation=FIGURES))
    exposition.set_replay(True)
    for stratum in suite.strata():
        exposition.record_probe(stratum, "correct", 0.1, 1, 1)
    return exposition


def test_a_suite_of_a_stratum_per_item_exports_half_of_the_limits() -> None:
    text = largest().render().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    tasks = {sample.labels["task"] for sample in samples if "task" in sample.labels}
    assert len(tasks) == MOST_TASKS + 1
    assert {task for task in tasks if not re.fullmatch(r"\d{5}s{123}", task)} == {"other"}
    assert len(samples) < int(SCRAPE_LIMITS["sampleLimit"]) / 1.9
    assert len(text) < 2**20 / 1.9


FLOODS = {
    "many series": (b"".join(b'a{n="%d"} 1\n' % n for n in range(2600)), "sample limit exceeded"),
    "a long body": (b"# " + b"x" * 2**20 + b"\n", "body size limit exceeded"),
    "many labels": (b"a{" + b",".join(b'l%d="x"' % n for n in range(40)) + b"} 1\n", "label_limit exceeded"),
    "a long label name": (b"a{" + b"l" * 100 + b'="x"} 1\n', "label_name_length_limit exceeded"),
    "a long label value": (b'a{l="' + b"x" * 600 + b'"} 1\n', "label_value_length_limit exceeded"),
}


@pytest.fixture
def config() -> dict[str, Any]:
    """As prometheus-operator writes it of the PodMonitor."""
    made = build_pod_monitor(ChildOwner({"metadata": {"name": "credit", "namespace": "team", "uid": "u"}}), CONFIG)
    (followed,) = {endpoint["followRedirects"] for endpoint in made["spec"]["podMetricsEndpoints"]}
    limits = {re.sub("[A-Z]", lambda upper: f"_{upper[0].lower()}", key): most for key, most in SCRAPE_LIMITS.items()}
    # What a target has of its own, as relabelling leaves it.
    labels = {
        "namespace": NAMESPACE,
        "pod": "p" * 253,
        "container": "monitor",
        "endpoint": "monitor",
        "node": "n" * 253,
    }
    return {
        "scrape_interval": "1s",
        "follow_redirects": followed,
        **limits,
        "static_configs": [{"targets": [], "labels": labels}],
    }


@pytest.mark.unit_slow
async def test_prometheus_takes_all_that_is_genuine_and_no_flood(tmp_path: Path, config: dict[str, Any]) -> None:
    bodies = {"genuine": largest().render(), **{name: body for name, (body, _) in FLOODS.items()}}
    by_path = {f"/{number}": pair for number, pair in enumerate(bodies.items())}
    genuine, by_path["/elsewhere"] = "/0", ("redirected", b"")

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            raise web.HTTPFound(genuine)
        return web.Response(body=by_path[request.path][1], content_type="text/plain")

    async with serving(web.get("/{path}", answer)) as url, aiohttp.ClientSession() as session:
        config["static_configs"][0]["targets"] = [url.removeprefix("http://")]
        jobs = [{**config, "job_name": name, "metrics_path": path} for path, (name, _) in by_path.items()]
        with prometheus(tmp_path, scrape_configs=jobs) as server:

            async def health() -> dict[str, tuple[str, str]] | None:
                async with session.get(f"{server}/api/v1/targets") as response:
                    targets = (await response.json())["data"]["activeTargets"]
                found = {one["scrapePool"]: (one["health"], one["lastError"]) for one in targets}
                is_whole = len(found) == len(jobs) and "unknown" not in dict(found.values())
                is_late = any("deadline exceeded" in error for _, error in found.values())
                return found if is_whole and not is_late else None

            found = await eventually(health, "every target was scraped", retry_on=(aiohttp.ClientError,))
    assert found.pop("genuine") == ("up", "")
    assert found.pop("redirected") == ("down", "server returned HTTP status 302 Found")
    for name, (state, error) in found.items():
        assert state == "down"
        assert FLOODS[name][1] in error


def write_sample(name: str, **labels: str) -> str:
    return f"{format_series(name, **labels)} 1\n"


PASS = {"revision": "credit-0123456789", "verdict": "Pass"}
OF_ANOTHER = {"deployment": "payments", **PASS}
FORGED = (
    write_sample(metrics.GATE_VERDICT, **OF_ANOTHER)
    + write_sample(metrics.PROBE_LAST_SCORED_TIMESTAMP_SECONDS, revision=PASS["revision"])
    + write_sample(metrics.DEPLOYMENT_CONDITION, deployment="credit", type="Ready")
    + write_sample(metrics.GATEWAY_CONTENT_LIMIT_BYTES)
    + write_sample(metrics.ENGINE_RUNNING_REQUESTS)
    + write_sample("ALERTS", alertname="R1PlusDown")
    + f"nv_energy_consumption 1 {10**12}\n"
)
OWN = {
    "monitor": {(metrics.GATE_VERDICT, "credit"), (metrics.PROBE_LAST_SCORED_TIMESTAMP_SECONDS, "credit")},
    "triton-metrics": {(metrics.ENGINE_RUNNING_REQUESTS, "credit"), ("nv_energy_consumption", "credit")},
    "internal": {(metrics.GATEWAY_CONTENT_LIMIT_BYTES, "")},
}


def to_snake_case(rule: dict[str, Any]) -> dict[str, Any]:
    return {re.sub("[A-Z]", lambda upper: f"_{upper[0].lower()}", key): value for key, value in rule.items()}


@pytest.mark.unit_slow
async def test_a_container_exports_no_series_that_others_are_judged_by(tmp_path: Path) -> None:
    owner = ChildOwner({"metadata": {"name": "credit", "namespace": "team", "uid": "u"}})
    monitors = [build_pod_monitor(owner, CONFIG), build_gateway_pod_monitor("team", CONFIG)]
    endpoints = {one["port"]: one for made in monitors for one in made["spec"]["podMetricsEndpoints"]}
    assert endpoints.keys() == OWN.keys()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=FORGED, content_type="text/plain")

    async with serving(web.get("/metrics", answer)) as url, aiohttp.ClientSession() as session:
        jobs = []
        for port, endpoint in endpoints.items():
            labels = {"endpoint": port, **({"deployment": "credit"} if port == "triton-metrics" else {})}
            jobs.append(
                {
                    "job_name": port,
                    "scrape_interval": "1s",
                    "honor_timestamps": endpoint["honorTimestamps"],
                    "metric_relabel_configs": [to_snake_case(rule) for rule in endpoint["metricRelabelings"]],
                    "static_configs": [{"targets": [url.removeprefix("http://")], "labels": labels}],
                }
            )
        with prometheus(tmp_path, scrape_configs=jobs) as server:

            async def read_series(port: str) -> set[tuple[str, str]]:
                query = {"query": f'{{endpoint="{port}",__name__!~"up|scrape_.+"}}'}
                async with session.get(f"{server}/api/v1/query", params=query) as response:
                    result = (await response.json())["data"]["result"]
                return {(one["metric"]["__name__"], one["metric"].get("deployment", "")) for one in result}

            async def read_all() -> dict[str, set[tuple[str, str]]] | None:
                found = {port: await read_series(port) for port in OWN}
                return found if all(found.values()) else None

            found = await eventually(read_all, "every endpoint was scraped", retry_on=(aiohttp.ClientError,))
    assert found == OWN
