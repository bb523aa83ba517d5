"""The operator itself: does it lead, does it keep up, what does it write."""

from r1plus_contract import metrics
from r1plus_dashboards.build import RANGE, WIDTH, Board, Panel, PanelKind, Query, per_second, quantile

_EACH = "namespace, deployment"
OPERATOR = Board(
    uid="r1plus-operator",
    title="R1+ / operator",
    meaning="The controller of all R1PlusDeployments. What serves goes on without it.",
    rows=(
        (
            "Does it work?",
            (
                Panel(
                    "Who leads",
                    "1 on the replica that holds the Lease.",
                    (Query(f"max by (pod) ({metrics.LEADER})", "{{pod}}"),),
                    PanelKind.STATES,
                ),
                Panel(
                    "Since the last successful reconcile",
                    "Every deployment is reconciled at least every 19 minutes.",
                    (Query(f"time() - max({metrics.LAST_PASS_TIMESTAMP_SECONDS} > 0)", "seconds"),),
                    unit="s",
                ),
                Panel(
                    "Reconciles a second",
                    "error: retried with growing delays.",
                    (Query(f"sum by (result) ({per_second(metrics.RECONCILE_TOTAL)})", "{{result}}"),),
                    PanelKind.STACKED,
                ),
                Panel(
                    "How long a reconcile takes",
                    "Reads come from memory, so this is the time of the writes.",
                    tuple(
                        Query(quantile(q, f"{metrics.RECONCILE_DURATION_SECONDS}_bucket"), f"{q:.0%}")
                        for q in (0.5, 0.95)
                    ),
                    unit="s",
                ),
                Panel(
                    "Deployments that wait for a reconcile",
                    "On the leader; a standby does not work on its queue.",
                    (Query(f"max({metrics.QUEUE_DEPTH} and on (pod) {metrics.LEADER} == 1)", "waiting"),),
                ),
                Panel(
                    "Writes to the API server in the time shown",
                    "In a steady state only the Lease is written.",
                    (Query(f"sum by (kind) (increase({metrics.API_WRITES_TOTAL}[{RANGE}]))", "{{kind}}"),),
                    PanelKind.STAT,
                ),
            ),
        ),
        (
            "What it found and did",
            (
                Panel(
                    "Deployments by condition",
                    "How many have it True.",
                    (
                        Query(
                            f"sum by (type) (max by ({_EACH}, type) ({metrics.DEPLOYMENT_CONDITION}) == bool 1)",
                            "{{type}}",
                        ),
                    ),
                ),
                Panel(
                    "Refused by their gate",
                    "Deployments whose new revision failed its gate.",
                    (Query(f"sum(max by ({_EACH}) ({metrics.CANDIDATE_REFUSED}))"),),
                    PanelKind.STAT,
                    width=WIDTH // 6,
                ),
                Panel(
                    "Rollbacks",
                    "In the time shown.",
                    (Query(f"sum(increase({metrics.ROLLBACKS_TOTAL}[{RANGE}]))"),),
                    PanelKind.STAT,
                    width=WIDTH // 6,
                ),
                Panel(
                    "Blocked rollbacks",
                    "Deployments below the threshold that should be rolled back and are not.",
                    (Query(f'sum(max by ({_EACH}) ({metrics.ROLLBACK_BLOCKED}{{reason!="AlertOnly"}}))'),),
                    PanelKind.STAT,
                    width=WIDTH // 6,
                ),
            ),
        ),
        (
            "Isolation between tenants",
            (
                Panel(
                    "Isolation proven",
                    "1: the newest isolation test found every forbidden connection blocked. 0: not all were blocked."
                    " -1: unknown, for example before anything serves.",
                    (Query(f"min by (namespace) ({metrics.ISOLATION_VERIFIED})", "{{namespace}}"),),
                    PanelKind.STATES,
                    width=WIDTH // 3,
                ),
                Panel(
                    "Attempts of each tenant's newest isolation test",
                    "open: not blocked. unseen: blocked, but not proven, because the control failed as well.",
                    (
                        Query(
                            f"sum by (outcome) (max by (namespace, outcome) ({metrics.ISOLATION_TRIES}))", "{{outcome}}"
                        ),
                    ),
                    PanelKind.STACKED,
                    width=WIDTH // 3,
                ),
                Panel(
                    "Since the newest isolation test",
                    "One an hour, and one after each change of a network policy.",
                    (
                        Query(
                            f"time() - max by (namespace) ({metrics.ISOLATION_RUN_TIMESTAMP_SECONDS})", "{{namespace}}"
                        ),
                    ),
                    unit="s",
                    width=WIDTH // 3,
                ),
            ),
        ),
    ),
)
