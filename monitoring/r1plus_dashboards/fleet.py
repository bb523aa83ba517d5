"""All deployments at a glance: which are right, which are not, who carries what load."""

from r1plus_contract import metrics
from r1plus_contract.verdict import WatchStanding
from r1plus_dashboards.build import RANGE, WIDTH, Board, Panel, PanelKind, Query, per_second
from r1plus_operator.api.conditions import ConditionType

_DEPLOYMENT = "namespace, deployment"
_NAMED = "{{namespace}}/{{deployment}}"
_MARGIN = f"{metrics.ACCURACY_RATIO} - {metrics.ACCURACY_THRESHOLD_RATIO}"


def _holds(kind: ConditionType) -> str:
    """1 for each deployment whose condition is True, 0 for every other."""
    return f'max by ({_DEPLOYMENT}) ({metrics.DEPLOYMENT_CONDITION}{{type="{kind}"}}) == bool 1'


def _number(title: str, meaning: str, expr: str) -> Panel:
    return Panel(title, meaning, (Query(expr),), PanelKind.STAT, width=WIDTH // 6)


STANDING_BELOW = f'max by ({_DEPLOYMENT}) ({metrics.STANDING}{{standing="{WatchStanding.BELOW_THRESHOLD}"}})'
FLEET = Board(
    uid="r1plus-fleet",
    title="R1+ / fleet",
    meaning="Every R1PlusDeployment of the cluster.",
    rows=(
        (
            "Overview",
            (
                _number("Deployments", "R1PlusDeployments in the cluster.", f"count({_holds(ConditionType.READY)})"),
                _number("Ready", "Deployments that take traffic.", f"sum({_holds(ConditionType.READY)})"),
                _number(
                    "Verified",
                    "Deployments whose spec has passed its gate.",
                    f"sum({_holds(ConditionType.QUALITY_VERIFIED)})",
                ),
                _number("Below the threshold", "Counted after an alarm.", f"sum({STANDING_BELOW})"),
                _number(
                    "Alerts", "Firing now.", 'count(ALERTS{alertname=~"R1Plus.+",alertstate="firing"}) or vector(0)'
                ),
                _number("Rollbacks", "In the time shown.", f"sum(increase({metrics.ROLLBACKS_TOTAL}[{RANGE}]))"),
            ),
        ),
        (
            "Accuracy",
            (
                Panel(
                    "Above the threshold by",
                    "Share of the golden suite right in the last sweep, minus the threshold; the worst pod.",
                    (Query(f"min by ({_DEPLOYMENT}) ({_MARGIN})", _NAMED),),
                    unit="percentunit",
                ),
                Panel(
                    "Verdicts",
                    "Of each deployment's pods.",
                    (
                        Query(
                            f"max by ({_DEPLOYMENT}, verdict) ({metrics.GATE_VERDICT}) == 1",
                            f"{_NAMED} {{{{verdict}}}}",
                        ),
                    ),
                    PanelKind.STATES,
                ),
                Panel(
                    "One by one",
                    "The worst pod's last sweep, the threshold, seconds since a probe was scored.",
                    (
                        Query(f"min by ({_DEPLOYMENT}) ({metrics.ACCURACY_RATIO})", "accuracy"),
                        Query(f"max by ({_DEPLOYMENT}) ({metrics.DEPLOYMENT_THRESHOLD_RATIO})", "threshold"),
                        Query(
                            f"time() - max by ({_DEPLOYMENT}) ({metrics.PROBE_LAST_SCORED_TIMESTAMP_SECONDS} > 0)",
                            "seconds since a probe",
                        ),
                    ),
                    PanelKind.TABLE,
                    width=WIDTH,
                ),
            ),
        ),
        (
            "Load",
            (
                Panel(
                    "Tokens answered a second",
                    "For users and probes.",
                    (
                        Query(
                            f"sum by ({_DEPLOYMENT}) ("
                            + per_second(f'{metrics.ENGINE_TOKENS_TOTAL}{{direction="completion"}}')
                            + ")",
                            _NAMED,
                        ),
                    ),
                    PanelKind.STACKED,
                ),
                Panel(
                    "Requests that wait for a slot",
                    "Above 0 for long: more requests come than are answered.",
                    (Query(f"sum by ({_DEPLOYMENT}) ({metrics.ENGINE_WAITING_REQUESTS})", _NAMED),),
                    PanelKind.STACKED,
                ),
            ),
        ),
    ),
)
