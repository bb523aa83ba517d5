"""Condition IsolationVerified of a namespace: the first check that applies. What is unproven is Unknown, never True."""

from collections.abc import Mapping

from r1plus_contract import names
from r1plus_contract.monitor.isolation import IsolationPart
from r1plus_operator.api.conditions import Finding, Reason
from r1plus_operator.plan.observation import NamespaceFacts
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy.isolation_test_run import OVERDUE_RUNS, IsolationTestResult
from r1plus_policies.isolation import IsolationJudgement, IsolationVerdict

RESTRICTED_LEVEL = "restricted"
MAX_LISTED = 12
MAX_CLOCK_SKEW = 60.0
"""Seconds by which the clock that stamps a Job's end may be ahead of ours. A later end is not believed."""


def derive_isolation_condition(
    namespace: NamespaceFacts,
    is_probed: bool,
    policy_digests: Mapping[str, str],
    newest: IsolationTestResult | None,
    config: OperatorConfig,
    now: float,
) -> Finding:
    """Return the condition. `policy_digests` are of what serves; `newest` is the newest isolation test that ended."""
    tested = _report_tests(namespace, is_probed, policy_digests, newest, config, now)
    if tested.status == "True" and not config.isolation.has_enforced_policies:
        text = (
            f"{tested.message}, but the chart's admission policies refuse nothing, so tenants can change network"
            " policies and verdicts; set admissionPolicy.enabled: true and admissionPolicy.action: Deny"
        )
        return Finding("Unknown", Reason.POLICIES_NOT_ENFORCED, text)
    return tested


def _report_tests(
    namespace: NamespaceFacts,
    is_probed: bool,
    policy_digests: Mapping[str, str],
    newest: IsolationTestResult | None,
    config: OperatorConfig,
    now: float,
) -> Finding:
    if namespace.pod_security != RESTRICTED_LEVEL:
        level = namespace.pod_security or "none"
        text = (
            f"Namespace {namespace.name} does not enforce Pod Security {RESTRICTED_LEVEL}, so a pod may bypass network"
            " policies through its node. The platform team must set the label"
            f" {names.LABEL_POD_SECURITY}={RESTRICTED_LEVEL}; it is {level}"
        )
        return Finding("False", Reason.NAMESPACE_NOT_RESTRICTED, text)
    if not is_probed:
        text = "Isolation is not tested: set the chart's isolation.decoyNamespace"
        return Finding("Unknown", Reason.PROBING_OFF, text)
    ended_at = newest.ended_at if newest else None
    latest = ended_at + OVERDUE_RUNS * config.isolation.interval if ended_at is not None else 0.0
    if newest is not None and ended_at is not None and ended_at - MAX_CLOCK_SKEW <= now <= latest:
        return _report_run(newest.judgement)
    if not policy_digests:
        text = "Isolation is not tested yet: no deployment in this namespace is serving"
        return Finding("Unknown", Reason.PENDING, text)
    if ended_at is None:
        text = "The first isolation test is running, or waits for the decoy pod; wait a minute or two"
        return Finding("Unknown", Reason.PROBING, text)
    text = (
        "The last isolation test is too long ago, or ahead of this clock, so its result no longer counts; see"
        f" `kubectl get jobs -n {namespace.name} -l {names.LABEL_ISOLATION}={IsolationPart.PROBE.value}`"
    )
    return Finding("Unknown", Reason.PROBE_OVERDUE, text)


def _report_run(judgement: IsolationJudgement) -> Finding:
    if judgement.verdict is IsolationVerdict.NOT_ENFORCED:
        text = (
            f"No connection to the decoy was blocked ({_list_some(judgement.open)}): nothing in this cluster enforces"
            " NetworkPolicy; install or start a network plugin that does, such as Calico or Cilium"
        )
        return Finding("False", Reason.NETWORK_POLICY_NOT_ENFORCED, text)
    if judgement.verdict is IsolationVerdict.OPEN:
        text = "Forbidden connections were not blocked; runbook R1PlusIsolationBroken says what to do: "
        text += _list_some(judgement.open)
        return Finding("False", Reason.ISOLATION_BROKEN, text)
    if judgement.verdict is IsolationVerdict.HELD:
        total, untested_names = len(judgement.held) + len(judgement.unseen), judgement.unseen
        text = f"{len(judgement.held)} of {total} forbidden connections were blocked"
        rest = f". {len(untested_names)} could not be tested: {_list_some(untested_names)}" if untested_names else ""
        return Finding("True", Reason.ISOLATION_ENFORCED, text + rest)
    causes = []
    if judgement.failed:
        causes.append(f" No result for {_list_some(judgement.failed)}.")
    if judgement.unseen:
        causes.append(f" The control could not connect either: {_list_some(judgement.unseen)}.")
    text = f"Isolation is not proven; see the pods of the isolation test's Jobs.{''.join(causes)}"
    return Finding("Unknown", Reason.PROBE_FAILED, text)


def _list_some(attempts: tuple[str, ...]) -> str:
    rest = f" and {len(attempts) - MAX_LISTED} more" if len(attempts) > MAX_LISTED else ""
    return f"{', '.join(attempts[:MAX_LISTED])}{rest}"
