"""PodMonitor and PrometheusRule of one deployment, where prometheus-operator's CRDs exist.

The accuracy rule compares the *upper* exact bound of the last sweep with the threshold: it fires only when chance alone
cannot explain the loss. No data has its own alert; it is never good news.
"""

from r1plus_contract import metrics
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.inputs import Json, OperatorConfig
from r1plus_operator.plan.objects import Owner

GROUP_VERSION = "monitoring.coreos.com/v1"
RUNBOOKS = "https://github.com/r1plus/r1plus/blob/main/monitoring/runbooks"
NO_DATA_FOR = "10m"


def pod_monitor(owner: Owner, config: OperatorConfig) -> Json:
    """Scrape the monitor and Triton of every pod of the deployment, Ready or not: a gate is watched, too."""
    endpoint = {"interval": config.scrape_interval, "scrapeTimeout": "5s", "path": "/metrics"}
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PodMonitor",
        "metadata": owner.metadata(owner.name),
        "spec": {
            "selector": owner.pods,
            "podMetricsEndpoints": [{**endpoint, "port": "monitor"}, {**endpoint, "port": "triton-metrics"}],
        },
    }


def prometheus_rule(owner: Owner, spec: R1PlusDeploymentSpec, serving: str | None, config: OperatorConfig) -> Json:
    """The alerts of one deployment, about the revision that takes traffic."""
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "PrometheusRule",
        "metadata": owner.metadata(owner.name),
        "spec": {
            "groups": [
                {
                    "name": group_name(owner.namespace, owner.name),
                    "interval": config.scrape_interval,
                    "rules": rules(owner.namespace, owner.name, serving, spec.accuracy.threshold),
                }
            ]
        },
    }


def group_name(namespace: str, deployment: str) -> str:
    """Of the deployment's alerts, unique in a Prometheus that loads every tenant's rules: no slash is in a name."""
    return f"r1plus/{namespace}/{deployment}"


def rules(namespace: str, deployment: str, serving: str | None, threshold: float) -> list[Json]:
    """The rules themselves, apart so that promtool can test them. `serving=None`: nothing takes traffic yet."""
    if serving is None:
        return []
    select = f'{{namespace="{namespace}",deployment="{deployment}",revision="{serving}"}}'
    labels = {"severity": "critical", "team": "platform", "namespace": namespace, "deployment": deployment}
    ratio, upper = metrics.ACCURACY_RATIO, metrics.ACCURACY_UPPER_BOUND_RATIO
    results = metrics.PROBE_RESULTS_TOTAL
    scored = f'{results}{select[:-1]},outcome=~"correct|incorrect"}}'
    return [
        {
            "alert": metrics.ALERT_BELOW_THRESHOLD,
            "expr": f"min by (namespace, deployment, revision) ({upper}{select}) < {threshold:g}",
            "labels": labels,
            "annotations": {
                "summary": f"{namespace}/{deployment} answers less of its golden suite right than {threshold:g}",
                "description": (
                    "Revision {{ $labels.revision }}: even the upper 99.9 % bound of the last sweep, {{ $value |"
                    f" humanizePercentage }}}}, is below the threshold of {threshold:g}. The count is in {ratio}."
                ),
                "runbook_url": f"{RUNBOOKS}/{metrics.ALERT_BELOW_THRESHOLD}.md",
            },
        },
        {
            "alert": metrics.ALERT_NO_DATA,
            "expr": f"absent({scored}) or sum without (outcome, task) (increase({scored}[15m])) == 0",
            "for": NO_DATA_FOR,
            "labels": {**labels, "severity": "warning"},
            "annotations": {
                "summary": f"Nothing is known of the accuracy of {namespace}/{deployment}",
                "description": (
                    f"No probe of revision {serving} was scored in 15 minutes: the monitor is down, has no suite, or"
                    " Prometheus cannot reach it. Traffic goes on, unwatched."
                ),
                "runbook_url": f"{RUNBOOKS}/{metrics.ALERT_NO_DATA}.md",
            },
        },
    ]
