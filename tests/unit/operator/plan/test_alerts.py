"""The alerts, judged by the real promtool: when they fire, when they are silent, and that a changed rule would be seen."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import binaries
from devcluster.cache import binary
from devcluster.steps import Steps
from r1plus_operator.plan.alerts import rules

SERIES = '{namespace="team", deployment="credit", revision="credit-1"'
UPPER = f"r1plus_accuracy_upper_bound_ratio{SERIES}}}"
SCORED = f'r1plus_probe_results_total{SERIES}, task="capitals", outcome="correct"}}'
FAILED = f'r1plus_probe_results_total{SERIES}, task="capitals", outcome="error"}}'
BELOW, NO_DATA = "R1PlusAccuracyBelowThreshold", "R1PlusAccuracyNoData"

CASES = [
    pytest.param({UPPER: "0.62x60"}, BELOW, True, id="an upper bound below the threshold fires"),
    pytest.param({UPPER: "0.98x60"}, BELOW, False, id="an upper bound at the threshold is silent"),
    pytest.param({UPPER: "1x60"}, BELOW, False, id="a sound engine is silent"),
    pytest.param({}, BELOW, False, id="no data says nothing of the accuracy"),
    pytest.param({UPPER.replace("credit-1", "credit-2"): "0.62x60"}, BELOW, False, id="a revision that takes no traffic is silent"),
    pytest.param({UPPER.replace("team", "other"): "0.62x60"}, BELOW, False, id="another tenant's engine is silent"),
    pytest.param({}, NO_DATA, True, id="no series at all: nothing is known, and that is told"),
    pytest.param({SCORED: "7x60"}, NO_DATA, True, id="a count that stands still: nothing is known"),
    pytest.param({FAILED: "0+6x60"}, NO_DATA, True, id="errors alone are no data"),
    pytest.param({SCORED: "0+6x60"}, NO_DATA, False, id="probes that are scored keep it silent"),
    pytest.param({SCORED: "0+6x60", FAILED: "7x60"}, NO_DATA, False, id="scored probes beside an old error keep it silent"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def promtool() -> None:
    """Built where the cache lacks it: the embedded cluster does without."""
    if not binary("promtool").exists():
        binaries.build(Steps(1), ("promtool",))


def verdict(folder: Path, group: list[dict[str, Any]], series: dict[str, str], alert: str, *, firing: bool) -> bool:
    """Whether promtool finds `alert` firing (or silent) after 45 minutes."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": group}]}))
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": spread(values)} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
                        "eval_time": "45m",
                        "exp_samples": [{"labels": "{}", "value": int(firing)}],
                    }
                ],
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [str(binary("promtool")), "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True
    )
    return done.returncode == 0


def spread(values: str) -> str:
    """`7x60` is promtool's `7+0x60`."""
    return values if "+" in values else values.replace("x", "+0x")


@pytest.fixture(scope="module")
def group() -> list[dict[str, Any]]:
    return rules("team", "credit", "credit-1", 0.98)


@pytest.mark.parametrize(("series", "alert", "firing"), CASES)
def test_the_alert_says_so_and_a_test_of_the_opposite_fails(
    tmp_path: Path, group: list[dict[str, Any]], series: dict[str, str], alert: str, firing: bool
) -> None:
    assert verdict(tmp_path, group, series, alert, firing=firing)
    assert not verdict(tmp_path, group, series, alert, firing=not firing)


MUTANTS = [
    pytest.param(BELOW, ("< 0.98", "<= 0.98"), {UPPER: "0.98x60"}, False, id="< made <="),
    pytest.param(BELOW, ("< 0.98", "> 0.98"), {UPPER: "0.62x60"}, True, id="< made >"),
    pytest.param(BELOW, ('revision="credit-1"', 'revision=~".+"'), {UPPER.replace("credit-1", "credit-2"): "0.62x60"}, False, id="any revision"),
    pytest.param(NO_DATA, ("== 0", "> 0"), {SCORED: "7x60"}, True, id="== 0 made > 0"),
    pytest.param(NO_DATA, ("absent(", "present_over_time("), {}, True, id="absence not looked for"),
    pytest.param(NO_DATA, ("correct|incorrect", "correct|incorrect|error"), {FAILED: "0+6x60"}, True, id="errors counted as data"),
]  # fmt: skip


@pytest.mark.parametrize(("alert", "change", "series", "firing"), MUTANTS)
def test_a_mutated_rule_is_caught(
    tmp_path: Path,
    group: list[dict[str, Any]],
    alert: str,
    change: tuple[str, str],
    series: dict[str, str],
    firing: bool,
) -> None:
    mutated = [{**r, "expr": r["expr"].replace(*change)} if r["alert"] == alert else r for r in group]
    if "present_over_time" in change[1]:
        mutated = [{**r, "expr": r["expr"].split(" or ")[1]} if r["alert"] == alert else r for r in group]
    assert mutated != group
    assert not verdict(tmp_path, mutated, series, alert, firing=firing)


def test_every_alert_has_its_runbook(group: list[dict[str, Any]]) -> None:
    runbooks = Path(__file__).parents[4] / "monitoring" / "runbooks"
    for rule in group:
        page = runbooks / rule["annotations"]["runbook_url"].rsplit("/", 1)[-1]
        text = page.read_text()
        for heading in ("Meaning", "Impact", "Diagnosis", "Mitigation"):
            assert heading in text
        assert rule["alert"] in text
