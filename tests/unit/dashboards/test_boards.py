"""Dashboards: every query is one that Prometheus takes and finds something for, on series labelled as the rooms label
them; what the chart ships is what the code says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from r1plus_contract import metrics
from r1plus_contract.gateway import DataReason, GatewayOutcome
from r1plus_contract.suite import load_suite
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_dashboards import generate
from r1plus_dashboards.asking import Chosen
from r1plus_dashboards.build import Board, PanelKind, Query
from r1plus_dashboards.generate import BOARDS
from r1plus_gateway.access.caller import Usage
from r1plus_gateway.access.usage import KeyBudget
from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.serving.generation import State, Times
from r1plus_monitoring.report.exposition import Exposition
from r1plus_operator.metrics.instruments import OperatorMetrics
from r1plus_operator.plan.manifests.promql import format_series
from support.promtool import promtool

ROOT = Path(__file__).parents[3]
CHOSEN = Chosen("team", "credit", rate_interval="5m")
QUERIES = [
    pytest.param(query, id=f"{name}: {panel.title} {place}")
    for name, board in BOARDS.items()
    for panel in board.panels
    for place, query in enumerate(panel.queries)
]
EVENTS = [event.expr for board in BOARDS.values() for event in board.events]

POD = {"namespace": "team", "deployment": "credit", "revision": "credit-1", "pod": "p1"}
"""On what a pod's monitor says, and, by the PodMonitor, on what its Triton does."""
CR = {"namespace": "team", "deployment": "credit", "pod": "operator-1"}
ABOVE_ZERO = "0+3x60"


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
    asked = [query.expr for param in QUERIES for query in param.values if isinstance(query, Query)]
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


@pytest.mark.parametrize("query", QUERIES)
def test_the_query_is_sound_and_finds_something(empty: str, query: Query) -> None:
    assert f"({CHOSEN.fill(query.expr)})" not in empty


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
    gateway.observe("credit", "key", SimpleNamespace(times=times, usage=Usage(3, 11)))  # type: ignore[arg-type]
    gateway.count_request("credit", "key", GatewayOutcome.ANSWERED)
    gateway.count_usage("credit", "key", Usage(3, 11))
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
    asked = {name for p in QUERIES for q in p.values for name in re.findall(r"r1plus_\w+", q.expr)}  # type: ignore[attr-defined]
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in asked} <= known


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_what_grafana_gets_holds_every_panel_and_query(board: Board) -> None:
    name = next(name for name, found in BOARDS.items() if found is board)
    shipped = json.loads((ROOT / generate.FILES / "dashboards" / f"{name}.json").read_text())
    panels: list[dict[str, Any]] = [panel for panel in shipped["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in board.panels]
    for made, meant in zip(panels, board.panels, strict=True):
        assert [target["expr"] for target in made["targets"]] == [query.expr for query in meant.queries]
        assert made["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert made["description"]
        assert all(target["instant"] == (meant.kind in (PanelKind.STAT, PanelKind.TABLE)) for target in made["targets"])
    variables = [variable["name"] for variable in shipped["templating"]["list"]]
    own = ["deployment"] if board.of_one else ["model", "key"] if board.of_tenant else []
    assert variables == (["datasource", "namespace", *own] if own else ["datasource"])
    assert [name for name in own if f"${name}" not in json.dumps(panels)] == []
    assert ("$namespace" in json.dumps(panels)) is bool(own)


def test_titles_and_uids_are_not_used_twice() -> None:
    assert len({board.uid for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        assert len({panel.title for panel in board.panels}) == len(board.panels)


def test_nothing_shipped_is_stale() -> None:
    assert generate.differences(ROOT) == []


def test_a_file_that_is_edited_absent_or_left_over_is_named_and_put_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / generate.RULES).mkdir(parents=True)
    (tmp_path / generate.RULES / "operator.yaml").write_text("groups: []\n")
    generate.write(tmp_path)
    assert generate.main(["--check", f"--root={tmp_path}"]) == 0
    edited, absent = generate.FILES / "rules" / "operator.yaml", generate.FILES / "dashboards" / "fleet.json"
    left = generate.FILES / "dashboards" / "gone.json"
    (tmp_path / edited).write_text("edited")
    (tmp_path / absent).unlink()
    (tmp_path / left).write_text("{}")
    assert generate.main(["--check", f"--root={tmp_path}"]) == 1
    told = sorted(capsys.readouterr().err.splitlines())
    assert told == sorted(
        f"{path}; run: make generate"
        for path in (f"{edited}: differs", f"{absent}: is absent", f"{left}: is left over")
    )
    generate.write(tmp_path)
    assert generate.differences(tmp_path) == []
