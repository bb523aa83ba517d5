"""What the chart ships for Prometheus and Grafana: whole, about this release, and only where it is wanted."""

import json
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from r1plus_contract import metrics
from r1plus_operator.metrics.deployments import DeploymentMetrics
from r1plus_operator.plan.status.metrics import PlanMetrics
from r1plus_policies.detector.detector import DetectorKey
from r1plus_policies.detector.pool import Pool
from support.chart import CHART, PROMETHEUS_OPERATOR, Objects, Render, one
from support.promtool import Case, failures, promtool

BOARDS = sorted(path.stem for path in (CHART / "files" / "dashboards").glob("*.json"))


def rules(objects: Objects) -> list[dict[str, Any]]:
    """Of the operator's PrometheusRule; none where there is none."""
    return [r for o in objects if o["kind"] == "PrometheusRule" for g in o["spec"]["groups"] for r in g["rules"]]


def boards(objects: Objects) -> dict[str, dict[str, str]]:
    """The ConfigMaps that Grafana's sidecar takes up: name -> data."""
    labelled = [o for o in objects if o["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    return {o["metadata"]["name"]: o["data"] for o in labelled}


def test_the_rules_are_sound_and_about_this_releases_own_job(render: Render, tmp_path: Path) -> None:
    found = rules(render(kinds=PROMETHEUS_OPERATOR))
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": found}]}))
    assert promtool("check", "rules", "rules.yaml", cwd=tmp_path).returncode == 0
    assert {rule["alert"] for rule in found} >= {metrics.ALERT_OPERATOR_STALLED, metrics.ALERT_ROLLED_BACK}
    absent = next(rule for rule in found if rule["labels"].get("cause") == "absent")
    mine, other = ('up{job="r1plus-system/r1plus-operator"}', 'up{job="elsewhere/r1plus-operator"}')
    cases = [Case("ours answers", {mine: "1x60"}, 0), Case("another release's answers", {other: "1x60"}, 1)]
    assert failures(tmp_path, [absent], cases) == set()


def test_labels_severities_and_runbooks_are_the_installations(render: Render) -> None:
    shipped = rules(render(kinds=PROMETHEUS_OPERATOR))
    terms = {
        "runbookURL": "https://wiki.example.com/r1plus",
        "labels": {"service": "models"},
        "severities": {"critical": "page"},
    }
    # helm merges maps: a label of the chart's own goes by null.
    given = {"monitoring": {"alerts": {**terms, "labels": {**terms["labels"], "team": None}}}}
    own = rules(render(given, kinds=PROMETHEUS_OPERATOR))
    assert len(own) == len(shipped) >= 6
    for rule, was in zip(own, shipped, strict=True):
        severity = "page" if was["labels"]["severity"] == "critical" else was["labels"]["severity"]
        kept = {key: value for key, value in was["labels"].items() if key != "team"}
        assert rule["labels"] == kept | {"service": "models", "severity": severity}
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.com/r1plus/{rule['alert']}.md"
        assert {**rule, "labels": 0, "annotations": 0} == {**was, "labels": 0, "annotations": 0}
        assert was["labels"]["team"] == "platform"
        assert was["annotations"]["runbook_url"].endswith(f"/r1plus/blob/main/monitoring/runbooks/{was['alert']}.md")


def test_the_objectives_of_gateways_are_the_installations(render: Render) -> None:
    objectives = {"gatewayErrorRatio": 0.001, "gatewayFirstTokenSeconds": 2.5}
    found = rules(render({"monitoring": {"objectives": objectives}}, kinds=PROMETHEUS_OPERATOR))
    by_name = {rule["alert"]: rule for rule in found}
    errors, latency = by_name[metrics.ALERT_GATEWAY_ERRORS], by_name[metrics.ALERT_GATEWAY_HIGH_LATENCY]
    assert "> 0.001 and" in errors["expr"]
    assert "at most 0.001." in errors["annotations"]["description"]
    assert "> 2.5 and" in latency["expr"]
    assert "longer than 2.5 s" in latency["annotations"]["description"]
    assert "@" not in str([rule for rule in found if rule["labels"]["component"] == "gateway"])


def test_the_operator_names_the_tenants_namespace_itself(render: Render) -> None:
    (endpoint,) = one(render(kinds=PROMETHEUS_OPERATOR), "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True


LIMITS = ("sampleLimit", "labelLimit", "labelNameLengthLimit", "labelValueLengthLimit", "bodySizeLimit")


def test_every_scrape_of_the_chart_is_bounded(render: Render) -> None:
    found = [o for o in render(kinds=PROMETHEUS_OPERATOR) if o["kind"] == "PodMonitor"]
    assert {one["metadata"]["name"] for one in found} == {"r1plus-operator", "r1plus-registry"}
    assert [[key for key in LIMITS if key not in one["spec"]] for one in found] == [[], []]


def test_the_limit_of_the_operator_has_room_for_5000_deployments(render: Render) -> None:
    monitors = [o for o in render(kinds=PROMETHEUS_OPERATOR) if o["kind"] == "PodMonitor"]
    limit = next(o["spec"]["sampleLimit"] for o in monitors if o["metadata"]["name"] == "r1plus-operator")
    registry = CollectorRegistry()
    exported = DeploymentMetrics(registry)
    exported.record(("team", "credit"), {}, PlanMetrics("full", 0.98))
    exported.record_pool(
        ("team", "credit"), Pool(DetectorKey("", "credit-1", "h" * 64, 0.98), 1e5, right=1, answered=1)
    )
    samples = sum(len(metric.samples) for metric in registry.collect())
    assert 5000 * samples < limit


def test_every_dashboard_arrives_byte_for_byte_for_grafanas_sidecar(render: Render) -> None:
    shipped = {f"r1plus-operator-dashboard-{name}": name for name in BOARDS}
    found = boards(render())
    assert set(found) == set(shipped)
    assert BOARDS == ["deployment", "fleet", "operator", "serving", "usage"]
    for name, data in found.items():
        assert data == {
            f"r1plus-{shipped[name]}.json": (CHART / "files" / "dashboards" / f"{shipped[name]}.json").read_text()
        }
        (text,) = data.values()
        assert json.loads(text)["uid"] == f"r1plus-{shipped[name]}"


def test_who_wants_no_dashboards_gets_none(render: Render) -> None:
    assert boards(render({"monitoring": {"dashboards": False}})) == {}
