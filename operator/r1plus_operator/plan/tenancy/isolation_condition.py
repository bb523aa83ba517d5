"""IsolationVerified of a namespace: the first that applies. What nobody has shown is Unknown, never True."""

from collections.abc import Mapping

from r1plus_contract import names
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.observation import NamespaceFacts
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy.isolation_test_run import OVERDUE_RUNS, Ran
from r1plus_policies.isolation import IsolationJudgement, IsolationVerdict

RESTRICTED = "restricted"
MOST_TOLD = 12
AHEAD = 60.0
"""Seconds by which the clock that stamps a Job's end may be ahead of ours. A later end is none that was seen."""


def verified(
    namespace: NamespaceFacts,
    probes: bool,
    standing: Mapping[str, str],
    newest: Ran | None,
    config: OperatorConfig,
    now: float,
) -> Finding:
    """`standing`: the walls of what serves; `newest`: the newest run of the prober that has ended."""
    if namespace.pod_security != RESTRICTED:
        said = namespace.pod_security or "none"
        text = (
            f"metadata.labels[{names.LABEL_POD_SECURITY}] of namespace {namespace.name}: {said}, not {RESTRICTED}: a"
            " pod on its node's network or file system passes every wall; the platform team sets it, the operator never"
        )
        return Finding("False", Reason.NAMESPACE_NOT_RESTRICTED, text)
    if not probes:
        return Finding("Unknown", Reason.PROBING_OFF, "The chart's isolation.decoyNamespace is empty: nobody tries")
    ended_at = newest.ended_at if newest else None
    fresh = ended_at is not None and ended_at - AHEAD <= now <= ended_at + OVERDUE_RUNS * config.isolation.interval
    if newest is not None and fresh:
        return _of_run(newest.judgement)
    if not standing:
        return Finding("Unknown", Reason.PENDING, "The prober knocks under the walls of what serves; nothing does")
    if ended_at is None:
        return Finding("Unknown", Reason.PROBING, "The first run of the prober is under way, or waits for the decoy")
    text = "The last run of the prober is too long ago, or ahead of this clock: it says nothing of now; see its Jobs"
    return Finding("Unknown", Reason.PROBE_OVERDUE, text)


def _of_run(told: IsolationJudgement) -> Finding:
    if told.verdict is IsolationVerdict.NOT_ENFORCED:
        text = (
            f"Every door of the decoy's was open ({_some(told.open)}): nothing in this cluster enforces NetworkPolicy;"
            " install or start a network plugin that does, such as Calico or Cilium"
        )
        return Finding("False", Reason.NETWORK_POLICY_NOT_ENFORCED, text)
    if told.verdict is IsolationVerdict.OPEN:
        text = f"Not shut: {_some(told.open)}; runbook R1PlusIsolationBroken says what each means"
        return Finding("False", Reason.WALL_OPEN, text)
    if told.verdict is IsolationVerdict.HELD:
        tries = len(told.held) + len(told.unseen)
        text = f"{len(told.held)} of {tries} tries were shut, and open to their control"
        beside = (
            f"; not shown, since the control found nothing there either: {_some(told.unseen)}" if told.unseen else ""
        )
        return Finding("True", Reason.WALLS_HELD, text + beside)
    text = f"The run shows nothing; without a proof: {_some((*told.failed, *told.unseen))}; see the pods of its Jobs"
    return Finding("Unknown", Reason.PROBE_FAILED, text)


def _some(named: tuple[str, ...]) -> str:
    rest = f" and {len(named) - MOST_TOLD} more" if len(named) > MOST_TOLD else ""
    return f"{', '.join(named[:MOST_TOLD])}{rest}"
