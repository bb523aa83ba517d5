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
                    "Since a pass last went well",
                    "Every deployment is looked at every 19 minutes at the latest.",
                    (Query(f"time() - max({metrics.LAST_PASS_TIMESTAMP_SECONDS} > 0)", "seconds"),),
                    unit="s",
                ),
                Panel(
                    "Passes a second",
                    "error: to be tried again, more and more slowly.",
                    (Query(f"sum by (result) ({per_second(metrics.RECONCILE_TOTAL)})", "{{result}}"),),
                    PanelKind.STACKED,
                ),
                Panel(
                    "How long a pass takes",
                    "Reading is from memory: it is the writes.",
                    tuple(
                        Query(quantile(q, f"{metrics.RECONCILE_DURATION_SECONDS}_bucket"), f"{q:.0%}")
                        for q in (0.5, 0.95)
                    ),
                    unit="s",
                ),
                Panel(
                    "Deployments that wait for a pass",
                    "Of the replica that leads; a standby's are worked on by nobody.",
                    (Query(f"max({metrics.QUEUE_DEPTH} and on (pod) {metrics.LEADER} == 1)", "waiting"),),
                ),
                Panel(
                    "Writes to the API server in the time shown",
                    "In a steady state there are none but the Lease's.",
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
                    "Deployments that ask for what did not pass.",
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
                    "Rollbacks in want of something",
                    "Deployments that fell and are not rolled back, though their spec asks for it.",
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
                    "Isolation verified",
                    "1: the newest isolation test blocked every forbidden connection, and its control got through."
                    " 0: not so. -1: unknown, for example before a deployment serves there.",
                    (Query(f"min by (namespace) ({metrics.ISOLATION_VERIFIED})", "{{namespace}}"),),
                    PanelKind.STATES,
                    width=WIDTH // 3,
                ),
                Panel(
                    "Attempts of each tenant's newest test",
                    "open: got through. unseen: blocked, but its control was blocked as well, which proves nothing.",
                    (
                        Query(
                            f"sum by (outcome) (max by (namespace, outcome) ({metrics.ISOLATION_TRIES}))", "{{outcome}}"
                        ),
                    ),
                    PanelKind.STACKED,
                    width=WIDTH // 3,
                ),
                Panel(
                    "Since the newest test",
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
