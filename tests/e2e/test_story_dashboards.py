"""After the story: the live Prometheus has an answer to every panel of every dashboard, and evaluates every rule.

It runs after `test_story`, by its name, on whatever that left serving.
"""

import re
import time
from collections.abc import Iterator, Sequence

import pytest

from e2e import chart, gateways
from e2e.gateways import GatewayAsker
from e2e.regression import Regression
from e2e.story import GATE_SECONDS, Name
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract import metrics
from support.dashboards.asking import AskingError, Chosen, Line, Window, ask, rules
from support.dashboards.boards import BOARDS, Panel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

SEEN_SECONDS = 600.0
"""The operator's and the pods' first scrapes, and two more for a rate."""
AT_LEAST_SECONDS = 3.0
WINDOW_SECONDS, STEP_SECONDS = 1800.0, 15.0
PANELS = [pytest.param(panel, id=f"{name}: {panel.title}") for name, board in BOARDS.items() for panel in board.panels]
RIGHTLY_EMPTY = {
    ("deployment", metrics.CONFIRMED_RATIO),
    ("usage", 'outcome=~"budget_exhausted'),
    ("usage", f"rate({metrics.GATEWAY_CANCELLED_TOTAL}"),
}
"""Board, and a part of a query: while no detector has alarmed, and the gateway has refused nobody and nobody has left."""
CLOSED = (AskingError,)
"""Prometheus may close a connection while it reads its rules anew."""
ALERTS = {value for name, value in vars(metrics).items() if name.startswith("ALERT_")}


@pytest.fixture(scope="session")
def shown(regression: Regression) -> Name:
    """A deployment that serves and is probed."""
    regression.first_day.result()
    return regression.full


@pytest.fixture(scope="module")
def asked(shown: Name, target: Target) -> Iterator[GatewayAsker]:
    """A program that asks the tenant's gateway as long as panels are looked at, with a key that has a budget."""
    gateways.until_ready(target.kube, shown.namespace, print)
    key = gateways.create_key(target.kube, shown.namespace, "dashboards", "--budget", "1000000")
    with (
        gateways.reach(target, shown.namespace) as url,
        GatewayAsker(url, pause_s=2.0, key=key.secret, model=shown.name) as asker,
    ):
        yield asker


@pytest.fixture(scope="session")
def prometheus(target: Target) -> Iterator[str]:
    """Its base URL."""
    with target.prometheus() as url:
        yield url


@pytest.fixture(scope="session")
def deadline(shown: Name, prometheus: str) -> float:
    """Of all panels together: what is not there by then will not come."""
    return time.monotonic() + SEEN_SECONDS


def empty(url: str, panel: Panel, name: Name) -> list[str]:
    """Queries of the panel that have no number at any time; one that Prometheus refuses is an error."""
    now, chosen = time.time(), Chosen(name.namespace, name.name)
    window = Window(now - WINDOW_SECONDS, now, STEP_SECONDS)
    found = {expr: ask(url, chosen.fill(expr), window) for expr in panel.queries}
    expected = [part for board, part in RIGHTLY_EMPTY if board == panel.board]
    return [expr for expr, lines in found.items() if not lines and not any(part in expr for part in expected)]


@pytest.mark.parametrize("panel", PANELS)
def test_the_panel_is_not_empty(
    shown: Name, asked: GatewayAsker, prometheus: str, deadline: float, panel: Panel
) -> None:
    seconds = max(deadline - time.monotonic(), AT_LEAST_SECONDS)
    what = f"something to show under {panel.title!r}"

    def missing() -> list[str]:
        """Which queries show nothing."""
        try:
            return empty(prometheus, panel, shown)
        except CLOSED as error:
            return [str(error)]

    wait_for(lambda: not missing(), what, lambda: "\n".join([*missing(), asked.summary()]), seconds=seconds)


def test_every_rule_is_loaded_and_can_be_evaluated(shown: Name, prometheus: str) -> None:
    def ours() -> list[dict[str, str]] | None:
        found = [rule for rule in rules(prometheus) if rule["name"] in ALERTS and rule["health"] != "unknown"]
        return found if {rule["name"] for rule in found} == ALERTS else None

    found = wait_for(ours, "all rules loaded and evaluated", seconds=GATE_SECONDS, retry_on=CLOSED)
    assert {rule["name"]: rule.get("lastError", "") for rule in found if rule["health"] != "ok"} == {}


def test_the_operators_rules_are_about_the_job_that_prometheus_has(shown: Name, prometheus: str) -> None:
    def find() -> list[str]:
        return [rule["query"] for rule in rules(prometheus) if rule["name"] == metrics.ALERT_OPERATOR_STALLED]

    stalled = wait_for(find, f"{metrics.ALERT_OPERATOR_STALLED} is loaded", retry_on=CLOSED)
    jobs = {job for query in stalled for job in re.findall(r'job="([^"]+)"', query)}
    assert len(jobs) == 1
    (job,) = jobs
    assert job.startswith(f"{chart.NAMESPACE}/")

    def is_up() -> Sequence[Line]:
        now = time.time()
        return ask(prometheus, f'up{{job="{job}"}} == 1', Window(now - 60.0, now, STEP_SECONDS))

    up = wait_for(is_up, f"{job} is scraped", retry_on=CLOSED)
    assert all(line.labels["namespace"] == chart.NAMESPACE for line in up)


def test_a_tenants_namespace_is_its_own_in_what_the_operator_says(shown: Name, prometheus: str) -> None:
    def told() -> bool:
        now = time.time()
        about = f'{{namespace="{shown.namespace}",deployment="{shown.name}",type="Ready"}}'
        return bool(ask(prometheus, metrics.DEPLOYMENT_CONDITION + about, Window(now - 60.0, now, STEP_SECONDS)))

    wait_for(told, f"the operator speaks of {shown}", retry_on=CLOSED)
