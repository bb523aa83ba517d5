"""Dashboards: every query is one that Prometheus takes and finds something for, on series labelled as the rooms label
them; panels are what Grafana can show."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client import generate_latest

from r1plus_contract import metrics
from r1plus_contract.gateway import DataReason, GatewayOutcome
from r1plus_contract.suites.suite import load_suite
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_gateway.access.caller import TokenUsage
from r1plus_gateway.access.usage import KeyBudget
from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.serving.generation import State, Times
from r1plus_monitoring.report.exposition import Exposition
from r1plus_operator.metrics.instruments import OperatorMetrics
from r1plus_operator.plan.manifests.promql import format_series
from support.dashboards.asking import Chosen
from support.dashboards.boards import BOARDS, Board
from support.paths import ROOT
from support.promtool import promtool

CHOSEN = Chosen("team", "credit", rate_interval="5m")
QUERIES = [
    pytest.param(expr, id=f"{name}: {panel.title} {place}")
    for name, board in BOARDS.items()
    for panel in board.panels
    for place, expr in enumerate(panel.queries)
]
EVENTS = [expr for board in BOARDS.values() for expr in board.events]

POD = {"namespace": "team", "deployment": "credit", "revision": "credit-1", "pod": "p1"}
"""On what a pod's monitor says, and, by the PodMonitor, on what its Triton does."""
CR = {"namespace": "team", "deployment": "credit", "pod": "operator-1"}
ABOVE_ZERO = "0+3x60"
GRAFANA_COLUMNS = 24


Scraped = Iterator[tuple[str, dict[str, str], str]]
"""Metric, labels, values."""


def of_a_pod() -> Scraped:
    """What a pod's monitor and Triton say while it serves and is probed."""
    gauges = (
        metrics.ACCURACY_RATIO, metrics.ACCURACY_LOWER_BOUND_RATIO, metrics.ACCURACY_UPPER_BOUND_RATIO, metrics.CONFIRMED_RATIO,
        metrics.ACCURACY_THRESHOLD_RATIO, metrics.GATE_PROGRESS_RATIO, metrics.SCORER_REPLAY,
        metrics.PROBE_LAST_SCORED_TIMESTAMP_SECONDS, metrics.ENGINE_RUNNING_REQUESTS, metrics.ENGINE_WAITING_REQUESTS,
    )  # fmt: skip
    yield from ((name, POD, "1x60") for name in gauges)
    yield metrics.PROBER_RESTARTS_TOTAL, POD, "0x60"
    for outcome in metrics.OutcomeLabel.ALL:
        yield metrics.PROBE_RESULTS_TOTAL, POD | {"task": "capitals", "outcome": outcome}, ABOVE_ZERO
    yield metrics.PROBE_SKIPPED_TOTAL, POD | {"reason": "engine_busy"}, "0x60"
    for direction in ("prompt", "completion"):
        yield metrics.PROBE_TOKENS_TOTAL, POD | {"direction": direction}, ABOVE_ZERO
        yield metrics.ENGINE_TOKENS_TOTAL, POD | {"direction": direction}, ABOVE_ZERO
    for bound in ("0.5", "+Inf"):
        yield f"{metrics.PROBE_DURATION_SECONDS}_bucket", POD | {"task": "capitals", "le": bound}, ABOVE_ZERO
        yield f"{metrics.ENGINE_TIME_TO_FIRST_TOKEN_SECONDS}_bucket", POD | {"le": bound}, ABOVE_ZERO
    suite = {"suite": "s", "suite_hash": "h", "scorer_version": "1"}
    yield metrics.GOLDEN_SUITE_INFO, POD | suite, "1x60"
    for verdict in Verdict:
        yield metrics.GATE_VERDICT, POD | {"verdict": verdict.value}, "1x60" if verdict is Verdict.PASS else "0x60"
    for standing in WatchStanding:
        yield metrics.STANDING, POD | {"standing": standing.value}, "0x60"
    for detector in ("accuracy", "errors"):
        yield metrics.DETECTOR_EVIDENCE_RATIO, POD | {"detector": detector}, "0x60"
    for outcome in metrics.OutcomeLabel.ALL:
        yield metrics.SERVICE_PROBE_RESULTS_TOTAL, POD | {"outcome": outcome}, ABOVE_ZERO
    for result in ("ok", "refused", "queue_full", "schema_memory_full", "cancelled", "error"):
        yield metrics.ENGINE_REQUESTS_TOTAL, POD | {"result": result}, ABOVE_ZERO
    yield metrics.ENGINE_SCHEMA_USED_RATIO, POD, "0.1x60"
    yield "up", POD | {"node": "n1", "endpoint": "triton-metrics"}, "1x60"


def of_a_gateway() -> Scraped:
    """What a tenant's gateway says of its callers, and the operator of it."""
    gateway = {"namespace": "team", "pod": "r1plus-gateway-1"}
    caller = gateway | {"model": "credit", "key": "bwHFlxl2joC2"}
    for outcome in GatewayOutcome:
        yield metrics.GATEWAY_REQUESTS_TOTAL, caller | {"outcome": outcome.value}, ABOVE_ZERO
    for direction in ("prompt", "completion"):
        yield metrics.GATEWAY_TOKENS_TOTAL, caller | {"direction": direction}, ABOVE_ZERO
    for state in ("queued", "waiting", "streaming", "ended"):
        yield metrics.GATEWAY_CANCELLED_TOTAL, caller | {"state": state}, ABOVE_ZERO
    of_model = gateway | {"model": "credit"}
    for histogram, summary in (
        (metrics.GATEWAY_TIME_TO_FIRST_TOKEN_SECONDS, metrics.GATEWAY_KEY_FIRST_TOKEN_SECONDS),
        (metrics.GATEWAY_TIME_PER_OUTPUT_TOKEN_SECONDS, metrics.GATEWAY_KEY_OUTPUT_TOKEN_SECONDS),
        (metrics.GATEWAY_QUEUE_SECONDS, metrics.GATEWAY_KEY_QUEUE_SECONDS),
    ):
        for bound in ("0.5", "+Inf"):
            yield f"{histogram}_bucket", of_model | {"le": bound}, ABOVE_ZERO
        for part in ("sum", "count"):
            yield f"{summary}_{part}", caller, ABOVE_ZERO
    for name in (metrics.GATEWAY_RUNNING_REQUESTS, metrics.GATEWAY_WAITING_REQUESTS, metrics.GATEWAY_PODS):
        yield name, of_model, "1x60"
    of_key = gateway | {"key": "bwHFlxl2joC2"}
    yield from (
        (name, of_key, "5x60") for name in (metrics.GATEWAY_BUDGET_LIMIT_TOKENS, metrics.GATEWAY_BUDGET_LEFT_TOKENS)
    )
    for reason in DataReason:
        yield metrics.GATEWAY_DATA_STATE, gateway | {"reason": reason.value}, f"{int(reason is DataReason.READY)}x60"
    yield from (
        (name, gateway, "9x60") for name in (metrics.GATEWAY_CONTENT_BYTES, metrics.GATEWAY_CONTENT_LIMIT_BYTES)
    )
    yield metrics.GATEWAY_READY_PODS, {"pod": "operator-1", "namespace": "team"}, "1x60"


def of_the_operator() -> Scraped:
    """What it says of itself and of the deployment."""
    for result in ("ok", "error"):
        yield metrics.RECONCILE_TOTAL, {"pod": "operator-1", "result": result}, ABOVE_ZERO
    for bound in ("0.5", "+Inf"):
        yield f"{metrics.RECONCILE_DURATION_SECONDS}_bucket", {"pod": "operator-1", "le": bound}, ABOVE_ZERO
    for detector in ("accuracy", "errors"):
        yield metrics.POOL_EVIDENCE_RATIO, CR | {"revision": "credit-1", "detector": detector}, "0x60"
    yield metrics.API_WRITES_TOTAL, {"pod": "operator-1", "kind": "Service"}, ABOVE_ZERO
    for name in (metrics.QUEUE_DEPTH, metrics.LEADER, metrics.LAST_PASS_TIMESTAMP_SECONDS):
        yield name, {"pod": "operator-1"}, "1x60"
    for kind in ("Ready", "QualityVerified"):
        yield metrics.DEPLOYMENT_CONDITION, CR | {"type": kind}, "1x60"
    yield metrics.DEPLOYMENT_THRESHOLD_RATIO, CR, "0.98x60"
    yield metrics.ROLLBACKS_TOTAL, CR | {"reason": "BelowThreshold"}, "0x60"
    yield metrics.ROLLBACK_BLOCKED, CR | {"reason": "NoCapacity"}, "0x60"
    yield metrics.CANDIDATE_REFUSED, CR, "0x60"
    yield metrics.ROLLOUT_OVERDUE, CR, "0x60"
    yield metrics.QUARANTINES_TOTAL, CR, "0x60"
    for name in (metrics.ISOLATION_VERIFIED, metrics.ISOLATION_RUN_TIMESTAMP_SECONDS):
        yield name, {"pod": "operator-1", "namespace": "team"}, "1x60"
    for outcome in ("held", "open", "unseen"):
        yield metrics.ISOLATION_TRIES, {"pod": "operator-1", "namespace": "team", "outcome": outcome}, "1x60"


WORLD = [*of_a_pod(), *of_the_operator(), *of_a_gateway()]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What promtool complains of: expressions that yield nothing, or nothing but NaN."""
    folder = tmp_path_factory.mktemp("boards")
    asked = [str(param.values[0]) for param in QUERIES]
    test = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": format_series(name, **labels), "values": re.sub(r"^([\d.]+)x", r"\1+0x", values)}
                    for name, labels, values in WORLD
                ],
                "promql_expr_test": [
                    {
                        "expr": f"count(({CHOSEN.fill(expr)}) > -Inf) > bool 0",
                        "eval_time": "50m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                    for expr in asked
                ],
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", "test.yaml", cwd=folder)
    told = done.stdout + done.stderr
    assert ("SUCCESS" in told) == (done.returncode == 0), told
    return told.replace('\\"', '"')


@pytest.mark.parametrize("expr", QUERIES)
def test_the_query_is_sound_and_finds_something(empty: str, expr: str) -> None:
    assert f"({CHOSEN.fill(expr)})" not in empty


@pytest.mark.parametrize("expr", EVENTS)
def test_the_query_of_an_event_is_sound(tmp_path: Path, expr: str) -> None:
    rules = {"groups": [{"name": "g", "rules": [{"record": "r", "expr": CHOSEN.fill(expr)}]}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    done = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_query_that_finds_nothing_is_told(tmp_path: Path) -> None:
    test = {"tests": [{"interval": "1m", "promql_expr_test": [{"expr": "count((up) > -Inf) > bool 0", "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": 1}]}]}]}  # fmt: skip
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", "test.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "count((up) > -Inf)" in done.stdout + done.stderr


ELSEWHERE = {"pod", "node", "endpoint", "le"}
"""Put there by Prometheus, or by a histogram."""


def labels_in(text: str) -> dict[str, set[str]]:
    """Metric -> its labels, of an exposition."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line[:1] != "#":
            name, _, rest = line.partition("{")
            found.setdefault(name.split(" ")[0], set()).update(re.findall(r'(\w+)="', rest))
    return found


def gateway_exposition() -> str:
    """Return what a gateway exports after a request."""
    gateway = GatewayMetrics()
    times = Times(1.0, 1.1, started=1.2, first_token=2.0, ended=3.0)
    gateway.observe("credit", "key", SimpleNamespace(times=times, usage=TokenUsage(3, 11)))  # type: ignore[arg-type]
    gateway.count_request("credit", "key", GatewayOutcome.ANSWERED)
    gateway.count_usage("credit", "key", TokenUsage(3, 11))
    gateway.count_cancelled("credit", "key", State.QUEUED)
    gateway.update_keys([KeyBudget("key", 2, 1)], ["key"])
    gateway.set_data_state(DataReason.READY)
    gateway.set_pods("credit", 1)
    gateway.set_load("credit", 1, 1)
    return gateway.render().decode()


def test_the_series_tried_are_labelled_as_the_monitor_and_the_operator_label_them() -> None:
    monitor = Exposition("team", "credit", "credit-1")
    folder = ROOT / "monitoring" / "suites" / "smollm2-edge-v1"
    suite = load_suite((folder / "suite.json").read_text(), (folder / "items.jsonl").read_text())
    monitor.set_suite(suite, 0.98)
    instruments = OperatorMetrics()
    said = labels_in(monitor.render().decode()) | labels_in(generate_latest(instruments.registry).decode())
    tried: dict[str, set[str]] = {}
    for name, labels, _ in WORLD:
        tried.setdefault(name, set()).update(set(labels) - ELSEWHERE)
    # The tenant's namespace comes from the gateway's target.
    said |= {name: labels | {"namespace"} for name, labels in labels_in(gateway_exposition()).items()}
    both = said.keys() & tried.keys()
    assert len(both) >= 26
    assert {name: said[name] - ELSEWHERE for name in both} == {name: tried[name] for name in both}


def test_every_metric_asked_for_is_the_contracts() -> None:
    known = {value for name, value in vars(metrics).items() if name.isupper() and str(value).startswith("r1plus_")}
    asked = {name for param in QUERIES for name in re.findall(r"r1plus_\w+", str(param.values[0]))}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in asked} <= known


OF_ONE, OF_TENANT = {"deployment", "serving"}, {"usage"}
"""About the deployment that is chosen above the panels; about the tenant."""


def test_these_are_the_dashboards() -> None:
    assert set(BOARDS) == {"fleet", "operator", *OF_ONE, *OF_TENANT}


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_a_panel_says_what_it_shows_and_asks_the_chosen_prometheus(board: Board) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in board.panels:
        assert panel.raw["description"], panel.title
        assert panel.raw["datasource"] == source, panel.title
        assert {tuple(target["datasource"].items()) for target in panel.raw["targets"]} == {tuple(source.items())}
        is_one_moment = panel.raw["type"] in ("stat", "table")
        assert {target["instant"] for target in panel.raw["targets"]} == {is_one_moment}, panel.title


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_every_variable_of_a_dashboard_is_used(board: Board) -> None:
    own = ["deployment"] if board.name in OF_ONE else ["model", "key"] if board.name in OF_TENANT else []
    assert board.variables == (("datasource", "namespace", *own) if own else ("datasource",))
    panels = json.dumps([dict(panel.raw) for panel in board.panels])
    assert [name for name in own if f"${name}" not in panels] == []
    assert ("$namespace" in panels) is bool(own)


def test_panels_lie_beside_and_below_each_other() -> None:
    for board in BOARDS.values():
        cells = [
            (column, line)
            for panel in board.raw["panels"]
            for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells)), board.name
        assert max(column for column, _ in cells) < GRAFANA_COLUMNS


def test_titles_uids_and_queries_letters_are_not_used_twice() -> None:
    assert len({board.raw["uid"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        assert len({panel.title for panel in board.panels}) == len(board.panels)
        for panel in board.panels:
            assert len({target["refId"] for target in panel.raw["targets"]}) == len(panel.queries), panel.title
