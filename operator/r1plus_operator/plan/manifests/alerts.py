"""PodMonitor and PrometheusRule of one deployment, where prometheus-operator's CRDs exist.

The rules are about the revision that takes traffic, and change only with it and with the spec. What the operator alone
knows (refusals, rollbacks) is told for all deployments at once by the chart's rules, monitoring/rules/operator.yaml.
A page per alert: monitoring/runbooks.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from r1plus_contract import metrics, names
from r1plus_contract.verdict import Standing, Verdict
from r1plus_operator.api.conditions import ConditionType
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.manifests.children import Owner
from r1plus_operator.plan.manifests.promql import plain, series
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
"""What Prometheus takes of one pod: twice what a monitor exports with the longest names and the most strata that it
tells apart (1,285 samples, 483 kB). Beyond it a scrape fails, and a broken pod fills no memory but its own."""
SLOW_SECONDS, NEVER_SLOW_SECONDS, SLOWER = 5, 1, 3
"""To the first token, of the slowest answer in 20: always too long; never worth an alert; times yesterday's."""
LEAST_FRESH_SECONDS, SPARED_TURNS, ANSWER_SECONDS = 90, 5, 60
"""How old the newest score of a pod may be: at least so much, and so many turns (a busy engine is spared four of five)
with a probe that takes as long as it may."""


def pod_monitor(owner: Owner, config: OperatorConfig) -> Json:
    """Scrape the monitor and Triton of every pod of the deployment, Ready or not: a gate is watched, too.

    The monitor's series say whose they are. Triton's and `up` get it from the pod: they stand for pods that are there.
    """
    # A pod that was taken over would send Prometheus, which reaches more than the pod does, to any address.
    endpoint = {"interval": config.scrape_interval, "scrapeTimeout": "5s", "path": "/metrics", "followRedirects": False}
    serving = _of_pod_label("serving", names.LABEL_SERVING)
    triton = [
        serving,
        _of_pod_label("deployment", names.LABEL_DEPLOYMENT),
        _of_pod_label("revision", names.LABEL_REVISION),
        _relabeling("node", "node_name"),
    ]
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PodMonitor",
        "metadata": owner.metadata(owner.name),
        "spec": {
            "selector": owner.pods,
            **SCRAPE_LIMITS,
            "podMetricsEndpoints": [
                {**endpoint, "port": "monitor", "relabelings": [serving]},
                {**endpoint, "port": "triton-metrics", "relabelings": triton},
            ],
        },
    }


def scrape_pools(namespace: str, deployment: str) -> tuple[str, ...]:
    """Return what prometheus-operator calls the pools of a deployment's PodMonitor, one per endpoint."""
    return tuple(f"podMonitor/{namespace}/{deployment}/{endpoint}" for endpoint in range(2))


def _of_pod_label(target: str, label: str) -> Json:
    return _relabeling(target, "label_" + re.sub(r"[^a-zA-Z0-9]", "_", label))


def _relabeling(target: str, source: str) -> Json:
    """`action` is the schema's default: unsaid, the API server would add it, and every pass would find it astray."""
    return {"action": "replace", "sourceLabels": [f"__meta_kubernetes_pod_{source}"], "targetLabel": target}


def prometheus_rule(
    owner: Owner, spec: R1PlusDeploymentSpec, serving: str, config: OperatorConfig, items: int | None = None
) -> Json:
    """The alerts of one deployment, about the revision that takes traffic. `items`: of the suite that judges it."""
    about = Subject(owner.namespace, owner.name, serving)
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PrometheusRule",
        "metadata": owner.metadata(owner.name),
        "spec": {
            "groups": [
                {
                    "name": group_name(owner.namespace, owner.name),
                    "interval": config.scrape_interval,
                    "rules": rules(
                        about,
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


def group_name(namespace: str, deployment: str) -> str:
    """Of the deployment's alerts, unique in a Prometheus that loads every tenant's rules: no slash is in a name."""
    return f"r1plus/{namespace}/{deployment}"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose alerts, and about which revision; every selector of a rule is made here."""

    namespace: str
    deployment: str
    revision: str

    def serving(self, metric: str, **labels: str | tuple[str, ...]) -> str:
        """Of the pods that take traffic. One in quarantine takes none; who has no such label is believed to."""
        return self.whole(metric, revision=self.revision, serving=("true", ""), **labels)

    def whole(self, metric: str, **labels: str | tuple[str, ...]) -> str:
        """Of the deployment, whatever the revision."""
        return series(metric, namespace=self.namespace, deployment=self.deployment, **labels)


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule before it is written down. `summary` goes on after the deployment's name."""

    name: str
    severity: str
    component: str
    expr: str
    hold: str
    """For how long `expr` must hold; empty where it is a decision already."""
    summary: str
    description: str

    def rule(self, about: Subject, terms: AlertTerms) -> Json:
        """As Prometheus reads it."""
        namespace, deployment = plain(about.namespace), plain(about.deployment)
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
                "description": f"{self.description} Revision {plain(about.revision)}.",
                "runbook_url": terms.build_runbook_url(self.name),
            },
        }


def rules(
    about: Subject,
    threshold: float,
    replicas: int = 1,
    probes_per_minute: int = 6,
    terms: AlertTerms = DEFAULT_TERMS,
    items: int | None = None,
) -> list[Json]:
    """The rules themselves, apart so that promtool can test them. A deployment of no replicas is not missed."""
    found = [*_accuracy(about, threshold, items), *_probing(about), *_load(about)]
    if replicas:
        found += _absence(about, probes_per_minute)
    return [alert.rule(about, terms) for alert in found]


def _accuracy(about: Subject, threshold: float, items: int | None) -> Iterator[Alert]:
    """What the monitors found."""
    upper = about.serving(metrics.ACCURACY_UPPER_BOUND_RATIO)
    # The bound stands in for the confirmed count where a pod has an older monitor, or never passed (gate: Observe).
    below = (
        f"{about.serving(metrics.STANDING, standing=Standing.BELOW_THRESHOLD)} == 1 or on (pod) {upper} < {threshold}"
    )
    yield Alert(
        metrics.ALERT_BELOW_THRESHOLD,
        "critical",
        "accuracy",
        f"count by (revision) ({below})",
        "",
        f"answers {_items_right(about, items)} right, below the threshold of {threshold}",
        "Pods below it: {{ $value }}, by the count that followed an alarm or by a sweep's upper 99.9 % bound.",
    )
    yield Alert(
        metrics.ALERT_CHANGED,
        "warning",
        "accuracy",
        f"count by (revision) ({about.serving(metrics.STANDING, standing=Standing.CHANGED)} == 1)",
        "",
        "answers otherwise than when it passed its gate",
        f"Pods that lost items since then and are still above the threshold of {threshold}: {{{{ $value }}}}.",
    )
    yield Alert(
        metrics.ALERT_NOT_VERIFIED,
        "warning",
        "accuracy",
        f"max by (revision) ({about.serving(metrics.GATE_VERDICT, verdict=Verdict.PASS)}) == 0",
        "10m",
        "serves a revision that has no Pass",
        "Its gate failed or is undecided and spec.accuracy.gate is Observe, or what had passed is below the threshold.",
    )


def _items_right(about: Subject, items: int | None) -> str:
    """How many items the worst pod answers right, as Prometheus fills it in when the alert fires."""
    if items is None:
        return "too few items"
    shares = f"{about.serving(metrics.CONFIRMED_RATIO)} or {about.serving(metrics.ACCURACY_RATIO)}"
    figure = '{{ . | first | value | printf "%.0f" }}'
    return f"{{{{ with query `{items} * min({shares})` }}}}{figure}{{{{ else }}}}too few{{{{ end }}}} of {items} items"


def _probing(about: Subject) -> Iterator[Alert]:
    """What keeps the monitors from finding out."""
    yield Alert(
        metrics.ALERT_SERVER_ERRORS,
        "warning",
        "accuracy",
        f"count by (revision) ({about.serving(metrics.DETECTOR_EVIDENCE_RATIO, detector='errors')} >= 1)",
        "",
        "errs or times out on too many probes",
        "The detector of server errors alarmed in {{ $value }} of its pods: callers get no answer as well.",
    )
    yield Alert(
        metrics.ALERT_SUITE_MISMATCH,
        "critical",
        "accuracy",
        f"count by (revision) ({about.serving(metrics.SCORER_REPLAY)} == 0)",
        "",
        "is judged by a suite or a scorer that is broken",
        "In {{ $value }} of its pods recorded answers do not get their recorded scores: what is counted means nothing.",
    )


def _load(about: Subject) -> Iterator[Alert]:
    """What callers feel."""
    first_token = metrics.ENGINE_TIME_TO_FIRST_TOKEN_SECONDS + "_bucket"
    now, yesterday = (
        f"histogram_quantile(0.95, sum by (le) (rate({selected})))"
        for selected in (f"{about.serving(first_token)}[10m]", f"{about.whole(first_token)}[1h] offset 1d")
    )
    limit = f"clamp({SLOWER} * {yesterday}, {NEVER_SLOW_SECONDS}, {SLOW_SECONDS})"
    yield Alert(
        metrics.ALERT_HIGH_LATENCY,
        "warning",
        "serving",
        # Nothing was asked yesterday: the quantile is NaN or absent, and only the absolute limit counts.
        f"{now} > ({limit} >= {NEVER_SLOW_SECONDS} or vector({SLOW_SECONDS}))",
        "10m",
        "begins its answers late",
        "One answer in 20 begins after {{ $value | humanizeDuration }} or later:"
        f" over {SLOW_SECONDS} s, or {SLOWER} times what it was at this hour yesterday.",
    )
    waiting = f"{about.serving(metrics.ENGINE_WAITING_REQUESTS)}[15m]"
    sent_away = f"{about.serving(metrics.ENGINE_REQUESTS_TOTAL, result='queue_full')}[5m]"
    yield Alert(
        metrics.ALERT_QUEUE_GROWING,
        "warning",
        "serving",
        # A queue that is full grows no more.
        f"60 * sum(rate({sent_away})) > 1 or 60 * sum(deriv({waiting})) > 1 and sum(min_over_time({waiting})) > 0",
        "5m",
        "is asked more than it answers",
        'Every minute {{ $value | printf "%.0f" }} more requests wait, in a queue that was not empty for 15 minutes,'
        " or are sent away because it is full.",
    )


def _absence(about: Subject, probes_per_minute: int) -> Iterator[Alert]:
    """What is not there, though it should be."""
    limit = max(LEAST_FRESH_SECONDS, round(SPARED_TURNS * 60 / probes_per_minute) + ANSWER_SECONDS)
    # A monitor that dies or hangs is not scraped: its series end with the first scrape that fails. One that was started
    # anew has scored nothing yet.
    # That the figure moves says that somebody scores; what it is hangs on a clock, and a node's may be off by an hour.
    scored = about.serving(metrics.PROBE_LAST_SCORED_TIMESTAMP_SECONDS)
    stuck = f"max by (pod) ({scored}) == max by (pod) ({scored} offset {limit}s)"
    fresh = f"max by (pod) ({scored} > 0) unless {stuck}"
    loaded, pods = about.serving(metrics.ENGINE_RUNNING_REQUESTS), about.serving("up")
    yield Alert(
        metrics.ALERT_NO_DATA,
        "warning",
        "accuracy",
        # The engine's series say that it has loaded; a new one has time for it. `up` (Triton's, too) says that a pod is
        # there, whether or not it answers: one that is gone owes no data.
        f"group by (pod) ({loaded} offset 2m or {pods} offset 10m) and on (pod) {pods} unless on (pod) ({fresh})"
        f" or on () absent({fresh})",
        "2m",
        "serves unwatched: nothing is known of its accuracy",
        f"No probe{{{{ with $labels.pod }}}} of pod {{{{ . }}}}{{{{ end }}}} was scored in the last {limit} s: the"
        " monitor is down or hangs, has no suite, gets errors only, or Prometheus cannot reach it.",
    )
    ready = about.whole(metrics.DEPLOYMENT_CONDITION, type=ConditionType.READY)
    yield Alert(
        metrics.ALERT_DOWN,
        "critical",
        "serving",
        # The operator knows what is Ready. Where it says nothing, a Triton that Prometheus reaches is taken for it.
        f"(max({ready} >= 0) or sum({pods}) or vector(0)) == 0",
        "5m",
        "serves nobody: none of its pods is ready",
        "Every request fails.",
    )
