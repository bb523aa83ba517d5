"""One deployment: is it right, how sure is that, what is being done about it."""

from r1plus_contract import metrics
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.verdict import Verdict
from r1plus_dashboards.build import (
    RANGE,
    RATE,
    WIDTH,
    Board,
    GraphEvent,
    Panel,
    PanelKind,
    Query,
    of_one,
    per_second,
    quantile,
)

_RESULTS = metrics.PROBE_RESULTS_TOTAL
_RIGHT = f'outcome="{OutcomeLabel.CORRECT}"'
_COUNTED = f'outcome=~"{"|".join(one for one in OutcomeLabel.ALL if one != OutcomeLabel.UNSCORABLE)}"'
LEAST_SHOWN = 1e-6
"""Of the evidence: 0 has no place on a logarithmic scale."""


def _share_right(by: str) -> str:
    right, counted = (f"sum by ({by}) (increase({of_one(_RESULTS, only)}[1h]))" for only in (_RIGHT, _COUNTED))
    return f"{right} / {counted}"


def _evidence(metric: str, by: str) -> str:
    return f"clamp_min(max by ({by}) ({of_one(metric)}), {LEAST_SHOWN})"


RATIO = Query(f"min by (revision) ({of_one(metrics.ACCURACY_RATIO)})", "{{revision}}")
LOWER = Query(f"min by (revision) ({of_one(metrics.ACCURACY_LOWER_BOUND_RATIO)})", "{{revision}}, lower bound")
UPPER = Query(f"min by (revision) ({of_one(metrics.ACCURACY_UPPER_BOUND_RATIO)})", "{{revision}}, upper bound")
THRESHOLD = Query(f"max({of_one(metrics.ACCURACY_THRESHOLD_RATIO)})", "threshold")
CONFIRMED = Query(f"min by (revision) ({of_one(metrics.CONFIRMED_RATIO)})", "{{revision}}, counted after the alarm")
ACCURACY = Panel(
    "Accuracy",
    "Share of the golden suite that was right in the last complete sweep, with its 99.9 % bounds, and the threshold.",
    (RATIO, LOWER, UPPER, THRESHOLD, CONFIRMED),
    unit="percentunit",
    highest=1,
)
"""README's picture is drawn from the same queries."""

_ACCURACY = (
    ACCURACY,
    Panel(
        "Evidence of a change",
        "Evidence of each pod's detectors and of all pods; at 1 the alarm is raised, and it stays.",
        (
            Query(_evidence(metrics.DETECTOR_EVIDENCE_RATIO, "pod, detector"), "{{pod}}, {{detector}}"),
            Query(
                _evidence(metrics.POOL_EVIDENCE_RATIO, "revision, detector"), "all pods of {{revision}}, {{detector}}"
            ),
            Query("vector(1)", "alarm"),
        ),
        PanelKind.LOG,
    ),
    Panel(
        "Accuracy by task",
        "Share of right answers in the last hour's probes; errors and time-outs count as wrong.",
        (Query(_share_right("task"), "{{task}}"),),
        unit="percentunit",
        highest=1,
    ),
    Panel(
        "Revisions side by side",
        "Share of right answers in the last hour's probes: the serving revision next to its candidate or predecessor.",
        (Query(_share_right("revision"), "{{revision}}"),),
        unit="percentunit",
        highest=1,
    ),
    Panel(
        "Accuracy by pod and node",
        "The last complete sweep. If one row is bad, look at the pod and its node; if all are, at the revision.",
        (
            Query(
                f"min by (pod, node) ({of_one(metrics.ACCURACY_RATIO)}"
                f" * on (pod) group_left (node) group by (pod, node) ({of_one('up')}))",
                "{{pod}} on {{node}}",
            ),
        ),
        PanelKind.GRID,
        unit="percentunit",
    ),
    Panel(
        "State since the gate",
        "Number of pods by state; all 0 while no pod is admitted.",
        (Query(f"sum by (standing) ({of_one(metrics.STANDING)})", "{{standing}}"),),
        PanelKind.STACKED,
    ),
)
_GATE = (
    Panel(
        "Verdict",
        "Verdict of the gate, or of a later sweep that contradicts it.",
        (Query(f"max by (revision, verdict) ({of_one(metrics.GATE_VERDICT)}) == 1", "{{revision}} {{verdict}}"),),
        PanelKind.STATES,
    ),
    Panel(
        "Progress of the gate",
        "Share of its probes that are scored.",
        (Query(f"max by (revision) ({of_one(metrics.GATE_PROGRESS_RATIO)})", "{{revision}}"),),
        unit="percentunit",
        highest=1,
    ),
    Panel(
        "Rollbacks",
        "In the time shown, by reason.",
        (Query(f"sum by (reason) (increase({of_one(metrics.ROLLBACKS_TOTAL)}[{RANGE}]))", "{{reason}}"),),
        PanelKind.STAT,
        width=WIDTH // 3,
    ),
    Panel(
        "What blocks a rollback",
        "1: for this reason the operator does not roll back.",
        (Query(f"max by (reason) ({of_one(metrics.ROLLBACK_BLOCKED)})", "{{reason}}"),),
        PanelKind.STAT,
        width=WIDTH // 3,
    ),
    Panel(
        "Pods put in quarantine",
        "In the time shown.",
        (Query(f"sum(increase({of_one(metrics.QUARANTINES_TOTAL)}[{RANGE}]))"),),
        PanelKind.STAT,
        width=WIDTH // 3,
    ),
)
_PROBES = (
    Panel(
        "Probes a minute, by outcome",
        "unscorable: the scorer failed.",
        (Query(f"60 * sum by (outcome) ({per_second(of_one(_RESULTS))})", "{{outcome}}"),),
        PanelKind.STACKED,
    ),
    Panel(
        "Probes through the Service a minute, by outcome",
        "Sent like a user's request: by Service name, through network policies. They test the path, not a pod.",
        (
            Query(
                f"60 * sum by (outcome) ({per_second(of_one(metrics.SERVICE_PROBE_RESULTS_TOTAL))})",
                "{{outcome}}",
            ),
        ),
        PanelKind.STACKED,
    ),
    Panel(
        "Since a probe was last scored",
        "By the node's clock. R1PlusAccuracyNoData fires about two minutes after a probe's time limit.",
        (
            Query(
                f"time() - max by (pod) ({of_one(metrics.PROBE_LAST_SCORED_TIMESTAMP_SECONDS)} > 0)",
                "{{pod}}",
            ),
        ),
        unit="s",
    ),
    Panel(
        "Probes' share of all tokens",
        "The cost of monitoring.",
        (
            Query(
                f"sum({per_second(of_one(metrics.PROBE_TOKENS_TOTAL))})"
                f" / sum({per_second(of_one(metrics.ENGINE_TOKENS_TOTAL))})",
                "share",
            ),
        ),
        unit="percentunit",
    ),
    Panel(
        "Probes not sent, a minute",
        "Probes give way to users, down to a minimum rate.",
        (Query(f"60 * sum by (reason) ({per_second(of_one(metrics.PROBE_SKIPPED_TOTAL))})", "{{reason}}"),),
    ),
    Panel(
        "How long a probe takes",
        "Until the whole answer is there.",
        tuple(Query(quantile(q, of_one(f"{metrics.PROBE_DURATION_SECONDS}_bucket")), f"{q:.0%}") for q in (0.5, 0.95)),
        unit="s",
    ),
    Panel(
        "Restarts of the monitor's process",
        "The supervisor restarts it; the pod goes on serving.",
        (Query(f"max by (pod) ({of_one(metrics.PROBER_RESTARTS_TOTAL)})", "{{pod}}"),),
    ),
)
_FAILED = f'verdict="{Verdict.FAIL}"'
DEPLOYMENT = Board(
    uid="r1plus-deployment",
    title="R1+ / deployment",
    meaning="One R1PlusDeployment: its accuracy, how certain that is, and what the operator does.",
    of_one=True,
    rows=(("Is it right?", _ACCURACY), ("Gate and rollbacks", _GATE), ("Probes", _PROBES)),
    events=(
        GraphEvent("Rolled back", f"sum by (reason) (increase({of_one(metrics.ROLLBACKS_TOTAL)}[{RATE}])) > 0", "red"),
        GraphEvent("Gate failed", f"max by (revision) ({of_one(metrics.GATE_VERDICT, _FAILED)}) == 1", "orange"),
        GraphEvent("Refused", f"max({of_one(metrics.CANDIDATE_REFUSED)}) == 1", "yellow"),
    ),
)
