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
    "Share of the golden suite right in the last complete sweep, with its 99.9 % bounds, and the least that may serve.",
    (RATIO, LOWER, UPPER, THRESHOLD, CONFIRMED),
    unit="percentunit",
    highest=1,
)
"""README's picture is drawn from the same queries."""

_ACCURACY = (
    ACCURACY,
    Panel(
        "Evidence of a change",
        "Of each pod's detectors and of the pool, as a share of what raises the alarm: it rings at 1, and stays.",
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
        "Right among all probes of the last hour; errors and time-outs count as wrong.",
        (Query(_share_right("task"), "{{task}}"),),
        unit="percentunit",
        highest=1,
    ),
    Panel(
        "Revisions side by side",
        "Right among all probes of the last hour: what serves beside its candidate, or beside what served before.",
        (Query(_share_right("revision"), "{{revision}}"),),
        unit="percentunit",
        highest=1,
    ),
    Panel(
        "Accuracy by pod and node",
        "The last complete sweep. One bad row is a pod or its node; all of them are the revision.",
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
        "What the watch says",
        "How many pods stand where since the gate; all at 0 while none is admitted.",
        (Query(f"sum by (standing) ({of_one(metrics.STANDING)})", "{{standing}}"),),
        PanelKind.STACKED,
    ),
)
_GATE = (
    Panel(
        "Verdict",
        "Of the gate, or of the last sweep where that no longer bears it out.",
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
        "In the time shown, by what they were for.",
        (Query(f"sum by (reason) (increase({of_one(metrics.ROLLBACKS_TOTAL)}[{RANGE}]))", "{{reason}}"),),
        PanelKind.STAT,
        width=WIDTH // 3,
    ),
    Panel(
        "In the way of a rollback",
        "1: for this reason the operator does not go back.",
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
        "unscorable: the scorer itself failed.",
        (Query(f"60 * sum by (outcome) ({per_second(of_one(_RESULTS))})", "{{outcome}}"),),
        PanelKind.STACKED,
    ),
    Panel(
        "Probes through the Service a minute, by outcome",
        "As a user asks: by name, through network policies, to any pod. It measures the path, not the pod that asks.",
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
        "By the clock of its node. An alert comes about two minutes after the time that a probe may take.",
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
        "What watching costs.",
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
        "They give way to users, but for a floor.",
        (Query(f"60 * sum by (reason) ({per_second(of_one(metrics.PROBE_SKIPPED_TOTAL))})", "{{reason}}"),),
    ),
    Panel(
        "How long a probe takes",
        "To the whole answer.",
        tuple(Query(quantile(q, of_one(f"{metrics.PROBE_DURATION_SECONDS}_bucket")), f"{q:.0%}") for q in (0.5, 0.95)),
        unit="s",
    ),
    Panel(
        "Times the prober was started anew",
        "By its supervisor; the pod goes on serving.",
        (Query(f"max by (pod) ({of_one(metrics.PROBER_RESTARTS_TOTAL)})", "{{pod}}"),),
    ),
)
_FAILED = f'verdict="{Verdict.FAIL}"'
DEPLOYMENT = Board(
    uid="r1plus-deployment",
    title="R1+ / deployment",
    meaning="One R1PlusDeployment: is it right, how sure is that, and what is done about it.",
    of_one=True,
    rows=(("Is it right?", _ACCURACY), ("Gate and rollbacks", _GATE), ("Probes", _PROBES)),
    events=(
        GraphEvent("Rolled back", f"sum by (reason) (increase({of_one(metrics.ROLLBACKS_TOTAL)}[{RATE}])) > 0", "red"),
        GraphEvent("Gate failed", f"max by (revision) ({of_one(metrics.GATE_VERDICT, _FAILED)}) == 1", "orange"),
        GraphEvent("Refused", f"max({of_one(metrics.CANDIDATE_REFUSED)}) == 1", "yellow"),
    ),
)
