"""Condition AlertsWired: would an accuracy drop raise an alert? Prometheus answers that, not the objects we applied.

A chain of checks over one `PrometheusState`. The first finding decides; each names what is missing and the remedy.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from r1plus_contract import metrics
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.observation import Observation, PrometheusState

Check = Callable[[Observation, PrometheusState, str], Finding | None]


def derive_alerts_condition(observation: Observation, revision: str, pods: Collection[str]) -> Finding:
    """Return the condition for the revision that serves; `pods` are its pods in traffic."""
    prometheus = observation.prometheus_state
    if prometheus is None:
        text = "Alert rules are not checked: set the chart's monitoring.prometheusURL"
        return Finding("Unknown", Reason.PROMETHEUS_NOT_CONFIGURED, text)
    prometheus = replace(
        prometheus, targets={pod: targets for pod, targets in prometheus.targets.items() if pod in pods}
    )
    failed_check = next(
        (failed_check for check in CHECKS if (failed_check := check(observation, prometheus, revision))), None
    )
    if failed_check:
        return failed_check
    health = [target.health for targets in prometheus.targets.values() for target in targets]
    pod_count = f"{len(prometheus.targets)} pod{'s' * (len(prometheus.targets) != 1)}"
    figures = f"{health.count('up')} of {len(health)} scrape targets of {pod_count} are up"
    return Finding("True", Reason.WIRED, f"Prometheus has the rules of revision {revision} and scrapes it: {figures}")


def check_reachable(_observation: Observation, prometheus: PrometheusState, _revision: str) -> Finding | None:
    """Report that Prometheus does not answer the operator."""
    if not prometheus.error:
        return None
    remedy = "check monitoring.prometheusURL and the network policies between the operator and Prometheus"
    return Finding(
        "Unknown",
        Reason.PROMETHEUS_UNREACHABLE,
        f"Prometheus at {prometheus.url} cannot be asked for its rules: {prometheus.error}; {remedy}",
    )


def check_rules_loaded(observation: Observation, prometheus: PrometheusState, revision: str) -> Finding | None:
    """Report that Prometheus has not loaded the PrometheusRule, or has only an earlier revision's."""
    rule_name = f"PrometheusRule {observation.namespace}/{observation.name}"
    if not any(rule.name == metrics.ALERT_BELOW_THRESHOLD for rule in prometheus.rules):
        remedy = "its ruleSelector and ruleNamespaceSelector must match the object's labels and its namespace"
        return Finding(
            "False",
            Reason.RULE_NOT_LOADED,
            f"Prometheus at {prometheus.url} has not loaded {rule_name}, so no alert can fire: {remedy}",
        )
    if not all(f'"{revision}"' in rule.query for rule in prometheus.rules):
        text = f"Prometheus still has another revision's {rule_name}; it reads the new one within a minute or two"
        return Finding("False", Reason.RULE_NOT_LOADED, text)
    return None


def check_rule_evaluation(_observation: Observation, prometheus: PrometheusState, _revision: str) -> Finding | None:
    """Report a rule that is loaded and cannot be evaluated."""
    failing_rule = next((rule for rule in prometheus.rules if rule.error), None)
    if failing_rule is None:
        return None
    text = f"Prometheus cannot evaluate {failing_rule.name}, so that alert cannot fire: {failing_rule.error}"
    return Finding("False", Reason.RULE_FAILING, f"{text}; see Prometheus's page /rules and its log")


def check_targets_exist(observation: Observation, prometheus: PrometheusState, revision: str) -> Finding | None:
    """Report that no pod is scraped."""
    if prometheus.targets:
        return None
    remedy = "its podMonitorSelector and podMonitorNamespaceSelector must match the object's labels and its namespace"
    text = f"Prometheus at {prometheus.url} scrapes no pod of revision {revision}, so no accuracy alert can fire"
    text += f"; PodMonitor {observation.namespace}/{observation.name}: {remedy}"
    return Finding("False", Reason.TARGET_MISSING, text)


def check_targets_up(_observation: Observation, prometheus: PrometheusState, _revision: str) -> Finding | None:
    """Report a scrape that fails; a network policy probably blocks one that times out."""
    scrapes = ((pod, target) for pod, targets in prometheus.targets.items() for target in targets)
    pod, down = next(((pod, target) for pod, target in scrapes if target.health == "down"), ("", None))
    if down is None:
        return None
    text = f"Prometheus cannot scrape the endpoint {down.endpoint} of pod {pod}: {down.error}"
    if "deadline exceeded" in down.error or "timeout" in down.error:
        text += "; a network policy may drop it: the chart's monitoring.namespace must be Prometheus's own namespace"
    else:
        text += "; see the pod's log and Prometheus's page /targets"
    return Finding("False", Reason.TARGET_DOWN, text)


CHECKS: Final[tuple[Check, ...]] = (
    check_reachable,
    check_rules_loaded,
    check_rule_evaluation,
    check_targets_exist,
    check_targets_up,
)
"""In this order, because each check needs the answers of the ones before it."""
