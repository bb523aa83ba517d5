"""Checks of Prometheus: whether alerts can fire, and whether it sees what tenants' namespaces have."""

import re

from r1plus_cli.preflight.cluster_view import ClusterView, Json
from r1plus_cli.preflight.outcome import ChartValue, CheckOutcome, not_known, ok, warn

DEFAULT_NAMESPACE = "monitoring"
"""The chart's monitoring.namespace."""
LEAST_OPERATOR = (0, 73)
KINDS = tuple(f"monitoring.coreos.com/v1/{plural}" for plural in ("podmonitors", "prometheusrules"))
VERSION_ANNOTATION = "operator.prometheus.io/version"
SELECTORS = ("podMonitorNamespaceSelector", "ruleNamespaceSelector", "podMonitorSelector", "ruleSelector")
_OPENSHIFT_USERS = "openshift-user-workload-monitoring"


def check_prometheus_operator(view: ClusterView) -> CheckOutcome:
    """Judge whether the kinds are there that alerts and dashboards need."""
    missing = [kind.rpartition("/")[2] for kind in KINDS if kind not in view.served]
    if missing:
        remedy = f"install prometheus-operator {'.'.join(map(str, LEAST_OPERATOR))} or newer, then upgrade the chart"
        return warn(f"{', '.join(missing)} of monitoring.coreos.com/v1 are not served", remedy)
    text = _read_version(view.prometheus_crd or {})
    numbers = re.match(r"v?(\d+)\.(\d+)", text)
    if numbers and (int(numbers[1]), int(numbers[2])) < LEAST_OPERATOR:
        return warn(f"CRDs of {text}", "upgrade prometheus-operator: the chart's PodMonitors use fields of 0.73")
    return ok(f"CRDs of {text}" if text else "its kinds are served; version not known")


def check_prometheus(view: ClusterView) -> CheckOutcome:
    """Judge where Prometheus is, and whether it selects PodMonitors and rules in tenants' namespaces."""
    if any(kind not in view.served for kind in KINDS):
        return warn("no prometheus-operator", "see above")
    if view.prometheuses is None:
        return not_known("prometheuses.monitoring.coreos.com")
    if not view.prometheuses:
        return warn("no Prometheus", "make a Prometheus, and set monitoring.namespace to where it is")
    chosen = min(view.prometheuses, key=_rank)
    namespace, name = (str(chosen["metadata"][field]) for field in ("namespace", "name"))
    values = []
    if namespace != DEFAULT_NAMESPACE:
        reason = f"Prometheus {name} is there; network policies let no other namespace scrape"
        values.append(ChartValue("monitoring.namespace", namespace, reason))
    seen = f"{namespace}/{name}" + (f", and {len(view.prometheuses) - 1} more" if len(view.prometheuses) > 1 else "")
    if narrow := [field for field in SELECTORS if chosen["spec"].get(field) != {}]:
        remedy = (
            "set them to {} in its spec, or to labels of tenants' namespaces (kube-prometheus-stack:"
            " podMonitorSelectorNilUsesHelmValues and ruleSelectorNilUsesHelmValues: false)"
        )
        return warn(f"{seen}: {', '.join(narrow)} may leave tenants' namespaces out", remedy, *values)
    return ok(f"{seen} selects everything", *values)


def _rank(prometheus: Json) -> tuple[bool, bool, str]:
    """Return the order among several: the chart's default namespace, then that for users' workloads on OpenShift."""
    namespace = str(prometheus["metadata"]["namespace"])
    return namespace != DEFAULT_NAMESPACE, namespace != _OPENSHIFT_USERS, namespace


def _read_version(crd: Json) -> str:
    return str(((crd.get("metadata") or {}).get("annotations") or {}).get(VERSION_ANNOTATION, ""))
