"""AlertsWired says what Prometheus says: each thing that can be missing has its reason, its words and its remedy."""

from dataclasses import replace

import pytest

from r1plus_contract import metrics
from r1plus_operator.plan.observation import PrometheusState, RuleFacts, TargetFacts
from r1plus_operator.plan.status.conditions import ALERTS_GRACE_SECONDS
from support.plan.world import NEXT, World

URL = "http://prometheus:9090"
UP = (TargetFacts("monitor", "up", ""), TargetFacts("triton-metrics", "up", ""))
REFUSED = TargetFacts("triton-metrics", "down", "connection refused")


def served(**rule: str) -> tuple[World, PrometheusState]:
    """A deployment that serves, and a Prometheus that has all of it."""
    world = World({"tier": "full", "context": {"maxTokens": 2048}})
    revision = world.bring_up()
    query = f'min({metrics.ACCURACY_UPPER_BOUND_RATIO}{{revision="{revision}"}}) < 0.98'
    facts = {"name": metrics.ALERT_BELOW_THRESHOLD, "query": query, "error": "", **rule}
    return world, PrometheusState(URL, "", (RuleFacts(**facts),), dict.fromkeys(world.pods, UP))


def condition(world: World, wiring: PrometheusState | None) -> tuple[str, str, str]:
    world.wiring = wiring
    world.wait(ALERTS_GRACE_SECONDS).settle()
    return world.condition("AlertsWired")


def test_rule_loaded_and_targets_up_is_wired() -> None:
    world, wiring = served()
    status, reason, message = condition(world, wiring)
    assert (status, reason) == ("True", "Wired")
    assert message.endswith("2 of 2 scrape targets of 1 pod are up")


def test_while_nobody_asks_nothing_is_known() -> None:
    world, _ = served()
    assert condition(world, None)[:2] == ("Unknown", "PrometheusNotConfigured")


@pytest.mark.parametrize(
    ("broken", "status", "reason", "words"),
    [
        pytest.param({"error": "Connection refused"}, "Unknown", "PrometheusUnreachable", [URL, "Connection refused", "prometheusURL"], id="no answer"),
        pytest.param({"rules": ()}, "False", "RuleNotLoaded", ["team/credit", "ruleSelector"], id="the rule is not selected"),
        pytest.param({"rules": (RuleFacts("Another", 'x{revision="credit-1"}', ""),)}, "False", "RuleNotLoaded", ["ruleSelector"], id="another rule of the group"),
        pytest.param({"rules": (RuleFacts(metrics.ALERT_BELOW_THRESHOLD, 'x{revision="credit-old"} < 1', ""),)}, "False", "RuleNotLoaded", ["another revision", "minute"], id="the rule of a former revision"),
        pytest.param({"targets": {}}, "False", "TargetMissing", ["team/credit", "podMonitorSelector"], id="no target"),
        pytest.param({"targets": (UP[0], REFUSED)}, "False", "TargetDown", ["triton-metrics", "connection refused"], id="a target is down"),
        pytest.param({"targets": (TargetFacts("monitor", "down", "context deadline exceeded"),)}, "False", "TargetDown", ["network policy", "monitoring.namespace"], id="a target is walled off"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(broken: dict[str, object], status: str, reason: str, words: list[str]) -> None:
    world, wiring = served()
    if found_targets := broken.get("targets"):
        broken = {"targets": dict.fromkeys(world.pods, found_targets)}
    found = condition(world, replace(wiring, **broken))  # type: ignore[arg-type]
    assert found[:2] == (status, reason)
    assert [word for word in words if word not in found[2]] == []


def test_just_after_a_switch_it_is_no_trouble_that_prometheus_has_not_read_the_rules_yet() -> None:
    world, wiring = served()
    world.wiring = replace(wiring, rules=(), targets={})
    world.now = 1000.0
    planned = world.pass_once()
    world.expect(AlertsWired="Unknown Pending")
    assert planned.requeue_after is not None
    assert world.now + planned.requeue_after <= 1000.0 + 2 * ALERTS_GRACE_SECONDS


def test_a_rule_that_cannot_be_evaluated_is_told_with_prometheus_words() -> None:
    world, wiring = served(error="many-to-many matching not allowed")
    status, reason, message = condition(world, wiring)
    assert (status, reason) == ("False", "RuleFailing")
    assert "many-to-many" in message


def test_a_target_that_is_not_scraped_yet_is_no_alarm() -> None:
    world, wiring = served()
    fresh = {name: (*UP, TargetFacts("monitor", "unknown", "")) for name in world.pods}
    assert condition(world, replace(wiring, targets=fresh))[:2] == ("True", "Wired")


def test_a_candidate_that_is_loading_is_no_trouble_of_what_takes_traffic() -> None:
    world, wiring = served()
    candidate = world.apply(**NEXT)
    world.start_pods(candidate)
    loading = {name: (UP[0], REFUSED) for name, pod in world.pods.items() if pod.revision == candidate}
    status, reason, message = condition(world, replace(wiring, targets={**wiring.targets, **loading}))
    assert (status, reason) == ("True", "Wired")
    assert "of 1 pod " in message


def test_what_prometheus_saw_of_a_pod_while_it_was_loading_is_no_trouble_until_it_has_looked_again() -> None:
    """A promotion makes it the pod that serves at once; Prometheus scrapes it again only later."""
    world, wiring = served()
    down = replace(wiring, targets=dict.fromkeys(world.pods, (UP[0], REFUSED)))
    world.wait(ALERTS_GRACE_SECONDS)
    world.wiring = down
    planned = world.set_pods(ready_since=world.now).pass_once()
    world.expect(AlertsWired=("Unknown Pending", "connection refused"))
    assert planned.requeue_after == pytest.approx(ALERTS_GRACE_SECONDS)
    assert condition(world, down)[:2] == ("False", "TargetDown")


def test_a_pod_in_quarantine_takes_no_traffic_so_its_scrapes_do_not_count() -> None:
    world, wiring = served()
    (serving,) = world.pods
    world.pods["held"] = replace(world.pods[serving], name="held", uid="uid-held", quarantine="{}", replica_set="")
    found = condition(world, replace(wiring, targets={serving: UP, "held": (REFUSED,)}))
    assert found[:2] == ("True", "Wired")
