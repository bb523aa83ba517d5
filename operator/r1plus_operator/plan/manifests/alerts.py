"""Builders of a deployment's PodMonitor and PrometheusRule, for clusters with prometheus-operator's CRDs.

The rules are about the revision that takes traffic, and change only with it and with the spec. What only the operator
knows (refusals, rollbacks) is in the chart's rules for all deployments, monitoring/rules/operator.yaml.
monitoring/runbooks has a page per alert.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from r1plus_contract import metrics, names
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_operator.api.conditions import ConditionType
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.manifests.children import ChildOwner
from r1plus_operator.plan.manifests.promql import escape_template, format_series
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.settings import AlertTerms, OperatorConfig

GROUP_VERSION = "monitoring.coreos.com/v1"
DEFAULT_TERMS = AlertTerms()
SCRAPE_LIMITS: Final[Mapping[str, int | str]] = MappingProxyType(
    {
        "sampleLimit": 2500,
        "labelLimit": 32,
        "labelNameLengthLimit": 64,
        "labelValueLengthLimit": 512,
        "bodySizeLimit": "1MiB",
    }
)
"""Limits of one pod's scrape: twice what a monitor exports with the longest names and the most strata (1,285 samples,
483 kB). Beyond them the scrape fails, so a broken pod cannot fill Prometheus' memory."""
ENDPOINT_TERMS: Final[Mapping[str, str | bool]] = MappingProxyType(
    {"scrapeTimeout": "5s", "followRedirects": False, "honorTimestamps": False}
)
"""Of every endpoint. A compromised pod could redirect Prometheus, which reaches more than the pod does, to any address.
By timestamps of its own its series would outlive it."""
MONITOR_SERIES: Final = "r1plus_(accuracy|gate|golden_suite|probe|prober|scorer|service_probe|shadow_probe)_.+"
ENGINE_SERIES: Final = "r1plus_engine_.+|nv_.+|vllm:.+"
"""Names that a monitor, and Triton with its backends, may export. Rules select series by name and label: with the name
of another program's series, a compromised container would silence the alerts about it, its monitor or the operator."""
SLOW_SECONDS, NEVER_SLOW_SECONDS, SLOWER = 5, 1, 3
"""Time to the first token, 95th percentile: seconds that are always too long, seconds that never are, and the factor
over yesterday in between."""
FULL_SCHEMAS: Final = 0.8
"""Part of the memory for compiled schemas above which an engine has not been emptied in time."""
LEAST_FRESH_SECONDS, SPARED_TURNS, ANSWER_SECONDS = 90, 5, 60
"""Maximum age of a pod's newest score: at least this many seconds; this many probe intervals, since a busy engine is
spared four of five probes; plus the wait for a piece of an answer. A whole one may take ten times as long: where the
answers take minutes, too few are scored to know the accuracy."""


def build_pod_monitor(owner: ChildOwner, config: OperatorConfig) -> Json:
    """Return the PodMonitor. It scrapes monitor and Triton of every pod, Ready or not, so that gates are visible.

    The monitor's series have the labels of their deployment. Triton's series and `up` get them from the pod. Neither
    can export the other's series, the operator's, or those of another deployment.
    """
    endpoint = {"interval": config.scrape_interval, "path": "/metrics", **ENDPOINT_TERMS}
    serving_label = _relabel_from_pod_label("serving", names.LABEL_SERVING)
    triton = [
        serving_label,
        _relabel_from_pod_label("deployment", names.LABEL_DEPLOYMENT),
        _relabel_from_pod_label("revision", names.LABEL_REVISION),
        _build_relabeling("node", "node_name"),
    ]
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PodMonitor",
        "metadata": owner.build_metadata(owner.name),
        "spec": {
            "selector": owner.pod_selector,
            **SCRAPE_LIMITS,
            "podMetricsEndpoints": [
                {
                    **endpoint,
                    "port": "monitor",
                    "relabelings": [serving_label],
                    "metricRelabelings": [keep_series(MONITOR_SERIES), _set_label("deployment", owner.name)],
                },
                {
                    **endpoint,
                    "port": "triton-metrics",
                    "relabelings": triton,
                    "metricRelabelings": [keep_series(ENGINE_SERIES)],
                },
            ],
        },
    }


def list_scrape_pools(namespace: str, deployment: str) -> tuple[str, ...]:
    """Return the names of the scrape pools of a deployment's PodMonitor, one per endpoint."""
    return tuple(f"podMonitor/{namespace}/{deployment}/{endpoint}" for endpoint in range(2))


def _relabel_from_pod_label(target: str, label: str) -> Json:
    return _build_relabeling(target, "label_" + re.sub(r"[^a-zA-Z0-9]", "_", label))


def _build_relabeling(target: str, source: str) -> Json:
    """Return a relabeling. `action` is the default, but explicit: the API server adds it, and it would be drift."""
    return {"action": "replace", "sourceLabels": [f"__meta_kubernetes_pod_{source}"], "targetLabel": target}


def keep_series(names: str) -> Json:
    """Return the relabeling that drops all series but those whose name matches `names`, a regular expression."""
    return {"action": "keep", "sourceLabels": ["__name__"], "regex": names}


def _set_label(target: str, value: str) -> Json:
    """Return the relabeling that sets a label of each series, whatever the series says."""
    return {"action": "replace", "targetLabel": target, "replacement": value}


def build_prometheus_rule(
    owner: ChildOwner, spec: R1PlusDeploymentSpec, revision: str, config: OperatorConfig, items: int | None = None
) -> Json:
    """Return the alerts about the revision that takes traffic. `items`: size of the suite that judges it."""
    scope = AlertScope(owner.namespace, owner.name, revision)
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PrometheusRule",
        "metadata": owner.build_metadata(owner.name),
        "spec": {
            "groups": [
                {
                    "name": format_group_name(owner.namespace, owner.name),
                    "interval": config.scrape_interval,
                    "rules": build_rules(
                        scope,
                        spec.accuracy.threshold,
                        spec.replicas,
                        spec.accuracy.probes_per_minute,
                        config.alerts,
                        items,
                    ),
                }
            ]
        },
    }


def format_group_name(namespace: str, deployment: str) -> str:
    """Return the name of a deployment's rule group, unique in a Prometheus with all tenants' rules."""
    return f"r1plus/{namespace}/{deployment}"


@dataclass(frozen=True, slots=True)
class AlertScope:
    """Deployment and revision of the alerts. It builds every selector of a rule."""

    namespace: str
    deployment: str
    revision: str

    def select_serving(self, metric: str, **labels: str | tuple[str, ...]) -> str:
        """Return the selector of pods that take traffic. Pods without the label `serving` count as such."""
        return self.select_all(metric, revision=self.revision, serving=("true", ""), **labels)

    def select_all(self, metric: str, **labels: str | tuple[str, ...]) -> str:
        """Return the selector of all pods of the deployment."""
        return format_series(metric, namespace=self.namespace, deployment=self.deployment, **labels)


@dataclass(frozen=True, slots=True)
class Alert:
    """An alerting rule. `summary` continues after the deployment's name."""

    name: str
    severity: str
    component: str
    expr: str
    hold: str
    """How long `expr` must hold; empty: it fires at once, because `expr` is a decision already."""
    summary: str
    description: str
    """Why, and what to do."""
    figures: str = ""
    """A sentence, last in the description."""

    def to_rule(self, scope: AlertScope, terms: AlertTerms) -> Json:
        """Return the rule in Prometheus' format."""
        namespace, deployment = escape_template(scope.namespace), escape_template(scope.deployment)
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": self.hold} if self.hold else {}),
            "labels": {
                **terms.labels,
                "severity": terms.severities.get(self.severity, self.severity),
                "component": self.component,
                "namespace": namespace,
                "deployment": deployment,
            },
            "annotations": {
                "summary": f"{namespace}/{deployment} {self.summary}",
                "description": (
                    f"{self.description} See `r1plus status {deployment} -n {namespace}` and the runbook."
                    f" Revision {escape_template(scope.revision)}.{self.figures and ' '}{self.figures}"
                ),
                "runbook_url": terms.build_runbook_url(self.name),
            },
        }


def build_rules(
    scope: AlertScope,
    threshold: float,
    replicas: int = 1,
    probes_per_minute: int = 6,
    terms: AlertTerms = DEFAULT_TERMS,
    items: int | None = None,
) -> list[Json]:
    """Return the rules, for promtool's tests as well. With 0 replicas there are no alerts about absent pods."""
    alerts = [*_build_accuracy_alerts(scope, threshold, items), *_build_probe_alerts(scope), *_build_load_alerts(scope)]
    if replicas:
        alerts += _build_absence_alerts(scope, probes_per_minute)
    return [alert.to_rule(scope, terms) for alert in alerts]


def _build_accuracy_alerts(scope: AlertScope, threshold: float, items: int | None) -> Iterator[Alert]:
    """Yield the alerts about what the monitors measure."""
    upper = scope.select_serving(metrics.ACCURACY_UPPER_BOUND_RATIO)
    # The bound replaces the confirmed count for an older monitor, and for a pod without a Pass (gate: Observe).
    below_threshold = scope.select_serving(metrics.STANDING, standing=WatchStanding.BELOW_THRESHOLD)
    # In a sweep, probes without an answer count as not right: with too many of them the bound shows an outage.
    errors = f"{scope.select_serving(metrics.DETECTOR_EVIDENCE_RATIO, detector='errors')} >= 1"
    below = f"{below_threshold} == 1 or on (pod) ({upper} < {threshold} unless on (pod) {errors})"
    target = f"{escape_template(scope.deployment)} -n {escape_template(scope.namespace)}"
    yield Alert(
        metrics.ALERT_BELOW_THRESHOLD,
        "critical",
        "accuracy",
        f"count by (revision) ({below})",
        "",
        f"answers {_format_items_right(scope, items)} right, below the threshold of {threshold}",
        "Users get wrong answers. The operator rolls back only if spec.accuracy.onBreach is Rollback.",
        "Pods below the threshold: {{ $value }}.",
    )
    yield Alert(
        metrics.ALERT_CHANGED,
        "warning",
        "accuracy",
        f"count by (revision) ({scope.select_serving(metrics.STANDING, standing=WatchStanding.CHANGED)} == 1)",
        "",
        "answers differently than when it passed its gate",
        "It lost items since then but is still above its threshold, so traffic stays. Accept it by"
        f' `r1plus ack {target} --reason "..."`, or go back by `r1plus rollback {target} --reason "..."`.',
        f"Pods that lost items: {{{{ $value }}}}; threshold {threshold}.",
    )
    yield Alert(
        metrics.ALERT_NOT_VERIFIED,
        "warning",
        "accuracy",
        f"max by (revision) ({scope.select_serving(metrics.GATE_VERDICT, verdict=Verdict.PASS)}) == 0",
        "10m",
        "serves a revision that does not pass its gate",
        "Its gate failed or is undecided and spec.accuracy.gate is Observe, or accuracy fell later. Set Enforce, or"
        " choose another engine.",
    )


def _format_items_right(scope: AlertScope, items: int | None) -> str:
    """Return the template for the number of items that the worst pod answers correctly."""
    if items is None:
        return "too few items"
    shares = f"{scope.select_serving(metrics.CONFIRMED_RATIO)} or {scope.select_serving(metrics.ACCURACY_RATIO)}"
    figure = '{{ . | first | value | printf "%.0f" }}'
    return f"{{{{ with query `{items} * min({shares})` }}}}{figure}{{{{ else }}}}too few{{{{ end }}}} of {items} items"


def _build_probe_alerts(scope: AlertScope) -> Iterator[Alert]:
    """Yield the alerts about what prevents the monitors from measuring."""
    yield Alert(
        metrics.ALERT_SERVER_ERRORS,
        "warning",
        "accuracy",
        f"count by (revision) ({scope.select_serving(metrics.DETECTOR_EVIDENCE_RATIO, detector='errors')} >= 1)",
        "",
        "has an outage: it fails or times out on too many probes",
        "Users get errors at about the same rate. This says nothing about the accuracy of answers. Check the log"
        " of container triton, and the load.",
        "Pods with this alarm: {{ $value }}.",
    )
    yield Alert(
        metrics.ALERT_SUITE_MISMATCH,
        "critical",
        "accuracy",
        f"count by (revision) ({scope.select_serving(metrics.SCORER_REPLAY)} == 0)",
        "",
        "cannot be measured: its golden suite or scorer has changed",
        "Recorded answers no longer get their recorded scores, so accuracy is unknown and traffic stays. Restore the"
        " suite, or the monitor's image.",
        "Pods with this problem: {{ $value }}.",
    )


def _build_load_alerts(scope: AlertScope) -> Iterator[Alert]:
    """Yield the alerts about latency and load."""
    first_token = metrics.ENGINE_TIME_TO_FIRST_TOKEN_SECONDS + "_bucket"
    now, yesterday = (
        f"histogram_quantile(0.95, sum by (le) (rate({selector})))"
        for selector in (f"{scope.select_serving(first_token)}[10m]", f"{scope.select_all(first_token)}[1h] offset 1d")
    )
    limit = f"clamp({SLOWER} * {yesterday}, {NEVER_SLOW_SECONDS}, {SLOW_SECONDS})"
    yield Alert(
        metrics.ALERT_HIGH_LATENCY,
        "warning",
        "serving",
        # Without requests yesterday the quantile is NaN or absent, and only the absolute limit counts.
        f"{now} > ({limit} >= {NEVER_SLOW_SECONDS} or vector({SLOW_SECONDS}))",
        "10m",
        "starts its answers late",
        f"The first token comes after more than {SLOW_SECONDS} s, or {SLOWER} times as late as at this hour yesterday."
        " Check the load and the nodes.",
        "One answer in 20 starts after {{ $value | humanizeDuration }} or later.",
    )
    queue = f"{scope.select_serving(metrics.ENGINE_WAITING_REQUESTS)}[15m]"
    rejected = f"{scope.select_serving(metrics.ENGINE_REQUESTS_TOTAL, result='queue_full')}[5m]"
    yield Alert(
        metrics.ALERT_QUEUE_GROWING,
        "warning",
        "serving",
        # A full queue does not grow any more.
        f"60 * sum(rate({rejected})) > 1 or 60 * sum(deriv({queue})) > 1 and sum(min_over_time({queue})) > 0",
        "5m",
        "gets more requests than it answers",
        "Requests have waited for 15 minutes, or are refused because the queue is full. Raise spec.replicas, or slow"
        " the callers down.",
        'Requests more every minute: {{ $value | printf "%.0f" }}.',
    )
    yield Alert(
        metrics.ALERT_SCHEMA_MEMORY_FULL,
        "warning",
        "serving",
        f"max by (revision) ({scope.select_serving(metrics.ENGINE_SCHEMA_USED_RATIO)}) > {FULL_SCHEMAS}",
        "15m",
        "has little memory for further schemas and grammars",
        "Callers send many different ones, and the engine is never idle to be emptied. Further ones may be refused."
        " Find the callers, or raise spec.replicas.",
        "Used is {{ $value | humanizePercentage }}.",
    )


def _build_absence_alerts(scope: AlertScope, probes_per_minute: int) -> Iterator[Alert]:
    """Yield the alerts about data and pods that are absent."""
    limit = max(LEAST_FRESH_SECONDS, round(SPARED_TURNS * 60 / probes_per_minute) + ANSWER_SECONDS)
    # A monitor that is dead or hangs is not scraped: its series end with the first failed scrape. After a restart it
    # has no score yet. Only changes of the timestamp count, because a node's clock may be wrong by an hour.
    last_scored = scope.select_serving(metrics.PROBE_LAST_SCORED_TIMESTAMP_SECONDS)
    stuck = f"max by (pod) ({last_scored}) == max by (pod) ({last_scored} offset {limit}s)"
    scored = f"max by (pod) ({last_scored} > 0) unless {stuck}"
    loaded_pods, pods = scope.select_serving(metrics.ENGINE_RUNNING_REQUESTS), scope.select_serving("up")
    yield Alert(
        metrics.ALERT_NO_DATA,
        "warning",
        "accuracy",
        # The engine's series exist once it has loaded. `up`, which Triton's endpoint has as well, exists as long as the
        # pod does, whether or not it answers: a deleted pod owes no data.
        f"group by (pod) ({loaded_pods} offset 2m or {pods} offset 10m) and on (pod) {pods} unless on (pod) ({scored})"
        f" or on () absent({scored})",
        "2m",
        "is not monitored: its accuracy is unknown",
        "The monitor hangs, has no suite or gets only errors, or Prometheus cannot reach it. Traffic goes on; check the"
        " log of container monitor.",
        f"{{{{ with $labels.pod }}}}Pod {{{{ . }}}}: no{{{{ else }}}}No{{{{ end }}}} probe was scored in {limit} s.",
    )
    ready = scope.select_all(metrics.DEPLOYMENT_CONDITION, type=ConditionType.READY)
    yield Alert(
        metrics.ALERT_DOWN,
        "critical",
        "serving",
        # The operator reports readiness. Without its series, a Triton that Prometheus reaches counts as ready.
        f"(max({ready} >= 0) or sum({pods}) or vector(0)) == 0",
        "5m",
        "does not serve: none of its pods is ready",
        "Every request fails. Condition Ready says why.",
    )
