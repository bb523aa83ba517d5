"""AlertsWired says what Prometheus says: each thing that can be missing has its reason, its words and its remedy."""

from dataclasses import replace

import pytest

from r1plus_contract import metrics
from r1plus_operator.plan.inputs import RuleFacts, TargetFacts, Wiring
from r1plus_operator.plan.report import WIRING_SECONDS
from support.plan.world import World

URL = "http://prometheus:9090"
UP = (TargetFacts("monitor", "up", ""), TargetFacts("triton-metrics", "up", ""))


def served(**rule: str) -> tuple[World, Wiring]:
    """A deployment that serves, and a Prometheus that has all of it."""
    world = World({"tier": "full", "context": {"maxTokens": 2048}})
    revision = world.bring_up()
    query = f'min({metrics.ACCURACY_UPPER_BOUND_RATIO}{{revision="{revision}"}}) < 0.98'
    facts = {"name": metrics.ALERT_BELOW_THRESHOLD, "query": query, "error": "", **rule}
    return world, Wiring(URL, "", (RuleFacts(**facts),), UP)


def condition(world: World, wiring: Wiring | None) -> tuple[str, str, str]:
    world.wiring = wiring
    world.wait(WIRING_SECONDS).settle()
    return world.condition("AlertsWired")


def test_rule_loaded_and_targets_up_is_wired() -> None:
    world, wiring = served()
    status, reason, message = condition(world, wiring)
    assert (status, reason) == ("True", "Wired")
    assert "2 targets up" in message


def test_while_nobody_asks_nothing_is_known() -> None:
    world, _ = served()
    assert condition(world, None)[:2] == ("Unknown", "PrometheusNotAsked")


@pytest.mark.parametrize(
    ("broken", "status", "reason", "words"),
    [
        pytest.param({"error": "Connection refused"}, "Unknown", "PrometheusUnreachable", [URL, "Connection refused", "prometheusURL"], id="no answer"),
        pytest.param({"rules": ()}, "False", "RuleNotLoaded", ["team/credit", "ruleSelector"], id="the rule is not selected"),
        pytest.param({"rules": (RuleFacts("Another", 'x{revision="credit-1"}', ""),)}, "False", "RuleNotLoaded", ["ruleSelector"], id="another rule of the group"),
        pytest.param({"rules": (RuleFacts(metrics.ALERT_BELOW_THRESHOLD, 'x{revision="credit-old"} < 1', ""),)}, "False", "RuleNotLoaded", ["another revision", "minute"], id="the rule of a former revision"),
        pytest.param({"targets": ()}, "False", "TargetMissing", ["team/credit", "podMonitorSelector"], id="no target"),
        pytest.param({"targets": (UP[0], TargetFacts("triton-metrics", "down", "connection refused"))}, "False", "TargetDown", ["triton-metrics", "connection refused"], id="a target is down"),
        pytest.param({"targets": (TargetFacts("monitor", "down", "context deadline exceeded"),)}, "False", "TargetDown", ["network policy", "monitoring.namespace"], id="a target is walled off"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(broken: dict[str, object], status: str, reason: str, words: list[str]) -> None:
    world, wiring = served()
    found = condition(world, replace(wiring, **broken))  # type: ignore[arg-type]
    assert found[:2] == (status, reason)
    assert [word for word in words if word not in found[2]] == []


def test_just_after_a_switch_it_is_no_trouble_that_prometheus_has_not_read_the_rules_yet() -> None:
    world, wiring = served()
    world.wiring = replace(wiring, rules=(), targets=())
    world.now = 1000.0
    planned = world.pass_once()
    world.expect(AlertsWired="Unknown Pending")
    assert planned.requeue_after is not None
    assert world.now + planned.requeue_after <= 1000.0 + 2 * WIRING_SECONDS


def test_a_rule_that_cannot_be_evaluated_is_told_with_prometheus_words() -> None:
    world, wiring = served(error="many-to-many matching not allowed")
    status, reason, message = condition(world, wiring)
    assert (status, reason) == ("False", "RuleFailing")
    assert "many-to-many" in message


def test_a_target_that_is_not_scraped_yet_is_no_alarm() -> None:
    world, wiring = served()
    fresh = (*UP, TargetFacts("monitor", "unknown", ""))
    assert condition(world, replace(wiring, targets=fresh))[:2] == ("True", "Wired")
