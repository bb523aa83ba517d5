"""Would anybody hear of a fall? Read from what Prometheus says of its rules and targets, never from what we applied.

A chain of checks over one `Wiring`; the first that speaks decides, and each names what is missing and the remedy.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from r1plus_contract import metrics
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.observation import Observation, PrometheusState

Check = Callable[[Observation, PrometheusState, str], Finding | None]


def wiring(observed: Observation, serving: str, pods: Collection[str]) -> Finding:
    """The condition for the revision that serves, of which these pods take traffic."""
    seen = observed.prometheus_state
    if seen is None:
        text = "Nobody asks Prometheus whether it has loaded the rule; set the chart's monitoring.prometheusURL"
        return Finding("Unknown", Reason.PROMETHEUS_NOT_ASKED, text)
    seen = replace(seen, targets={pod: targets for pod, targets in seen.targets.items() if pod in pods})
    found = next((finding for check in CHECKS if (finding := check(observed, seen, serving))), None)
    if found:
        return found
    health = [target.health for targets in seen.targets.values() for target in targets]
    counted = f"{len(seen.targets)} pod{'s' * (len(seen.targets) != 1)}"
    figures = f"{health.count('up')} of {len(health)} scrape targets of {counted} are up"
    return Finding("True", Reason.WIRED, f"Prometheus has the rules of revision {serving} and scrapes it: {figures}")


def unreachable(_observed: Observation, seen: PrometheusState, _serving: str) -> Finding | None:
    """Prometheus does not answer the operator."""
    if not seen.error:
        return None
    remedy = "check monitoring.prometheusURL and the network policies between the operator and Prometheus"
    return Finding("Unknown", Reason.PROMETHEUS_UNREACHABLE, f"Prometheus at {seen.url}: {seen.error}; {remedy}")


def rule_not_loaded(observed: Observation, seen: PrometheusState, serving: str) -> Finding | None:
    """The PrometheusRule exists, and Prometheus knows nothing of it, or only of a former revision's."""
    where = f"PrometheusRule {observed.namespace}/{observed.name}"
    if not any(rule.name == metrics.ALERT_BELOW_THRESHOLD for rule in seen.rules):
        remedy = "its ruleSelector and ruleNamespaceSelector must match the object's labels and its namespace"
        return Finding("False", Reason.RULE_NOT_LOADED, f"{where} is not loaded by Prometheus at {seen.url}: {remedy}")
    if not all(f'"{serving}"' in rule.query for rule in seen.rules):
        text = f"{where}: Prometheus still has the rules of another revision; it reads new ones within a minute or two"
        return Finding("False", Reason.RULE_NOT_LOADED, text)
    return None


def rule_failing(_observed: Observation, seen: PrometheusState, _serving: str) -> Finding | None:
    """A rule is loaded and cannot be evaluated."""
    failing = next((rule for rule in seen.rules if rule.error), None)
    if failing is None:
        return None
    return Finding("False", Reason.RULE_FAILING, f"Prometheus cannot evaluate {failing.name}: {failing.error}")


def target_missing(observed: Observation, seen: PrometheusState, serving: str) -> Finding | None:
    """The pods are not scraped at all."""
    if seen.targets:
        return None
    where = f"PodMonitor {observed.namespace}/{observed.name}"
    remedy = "its podMonitorSelector and podMonitorNamespaceSelector must match the object's labels and its namespace"
    text = f"{where}: Prometheus at {seen.url} scrapes no pod of revision {serving}; {remedy}"
    return Finding("False", Reason.TARGET_MISSING, text)


def target_down(_observed: Observation, seen: PrometheusState, _serving: str) -> Finding | None:
    """A scrape fails; one that ends in silence was most likely dropped by a wall."""
    scraped = ((pod, target) for pod, targets in seen.targets.items() for target in targets)
    pod, down = next(((pod, target) for pod, target in scraped if target.health == "down"), ("", None))
    if down is None:
        return None
    text = f"Prometheus cannot scrape the endpoint {down.endpoint} of pod {pod}: {down.error}"
    if "deadline exceeded" in down.error or "timeout" in down.error:
        text += "; a network policy may drop it: the chart's monitoring.namespace must be Prometheus's own namespace"
    return Finding("False", Reason.TARGET_DOWN, text)


CHECKS: Final[tuple[Check, ...]] = (unreachable, rule_not_loaded, rule_failing, target_missing, target_down)
"""In order: what is nearer to Prometheus first, since what comes after it cannot be known without it."""
