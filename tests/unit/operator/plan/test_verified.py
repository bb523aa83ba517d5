"""IsolationVerified: which of what could be said is said, and that nothing but a run that held says True."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_operator.plan.observation import NamespaceFacts
from r1plus_operator.plan.settings import IsolationTerms, OperatorConfig
from r1plus_operator.plan.tenancy.isolation_condition import MAX_LISTED, derive_isolation_condition
from r1plus_operator.plan.tenancy.isolation_test_run import OVERDUE_RUNS, IsolationTestResult, IsolationTestRun
from r1plus_policies.isolation import IsolationJudgement, IsolationVerdict
from support.plan.tenant_world import CONFIG, facts

NOW = 100_000.0
HOUR = CONFIG.isolation.interval
STANDING = {"credit": "w"}


def ran(verdict: IsolationVerdict, ago: float = 60.0, **told: Any) -> IsolationTestResult:
    at = NOW - ago
    return IsolationTestResult(
        IsolationTestRun("team", "u", "credit", STANDING, int(at) - 40), {}, IsolationJudgement(verdict, **told), at, at
    )


HELD = ran(IsolationVerdict.HELD, held=("decoy-pod:8000", "secret"))
OPEN = ran(IsolationVerdict.OPEN, held=("secret",), open=("decoy-pod:8000", "kubelet"))
NOT_ENFORCED = ran(IsolationVerdict.NOT_ENFORCED, open=("decoy-pod:8000", "decoy-service"))
UNPROVEN = ran(IsolationVerdict.UNPROVEN, unseen=("decoy-pod:8000",), failed=("own-service",))
GOING_ON = replace(HELD, jobs_ended_at=None, ended_at=None)


@pytest.mark.parametrize(
    ("namespace", "probes", "standing", "newest", "status", "reason", "says"),
    [
        pytest.param(facts(), True, STANDING, HELD, "True", "IsolationEnforced", "2 of 2 forbidden connections", id="a run that held"),
        pytest.param(
            facts(), True, STANDING, replace(HELD, judgement=IsolationJudgement(IsolationVerdict.HELD, held=("a",), unseen=("metadata",))),
            "True", "IsolationEnforced", "1 of 2 forbidden connections were blocked. 1 could not be tested: metadata", id="what is not shown is named",
        ),
        pytest.param(facts(), True, STANDING, OPEN, "False", "IsolationBroken", ": decoy-pod:8000, kubelet", id="what is open is named"),
        pytest.param(facts(), True, STANDING, NOT_ENFORCED, "False", "NetworkPolicyNotEnforced", "(decoy-pod:8000, decoy-service)", id="a network that enforces nothing"),
        pytest.param(facts(), True, STANDING, UNPROVEN, "Unknown", "ProbeFailed", "No result for own-service. The control could not connect either: decoy-pod:8000.", id="a run that shows nothing"),
        pytest.param(facts(), True, STANDING, None, "Unknown", "Probing", "first isolation test", id="no run yet"),
        pytest.param(facts(), True, STANDING, GOING_ON, "Unknown", "Probing", "first isolation test", id="none that has ended"),
        pytest.param(facts(), True, {}, None, "Unknown", "Pending", "no deployment in this namespace is serving", id="nothing to knock under the walls of"),
        pytest.param(facts(), True, {}, HELD, "True", "IsolationEnforced", "", id="what stopped serving a moment ago was shown"),
        pytest.param(facts(), True, {}, ran(IsolationVerdict.HELD, 3 * HOUR), "Unknown", "Pending", "no deployment in this namespace is serving", id="what serves no more is not overdue"),
        pytest.param(facts(), True, STANDING, ran(IsolationVerdict.HELD, OVERDUE_RUNS * HOUR), "True", "IsolationEnforced", "", id="a run that is just good enough"),
        pytest.param(facts(), True, STANDING, ran(IsolationVerdict.HELD, OVERDUE_RUNS * HOUR + 1), "Unknown", "ProbeOverdue", "too long ago", id="one that is not"),
        pytest.param(facts(), True, STANDING, ran(IsolationVerdict.OPEN, OVERDUE_RUNS * HOUR + 1), "Unknown", "ProbeOverdue", "", id="nor is one that was open"),
        pytest.param(facts(), False, STANDING, None, "Unknown", "ProbingOff", "isolation.decoyNamespace", id="nobody tries"),
        pytest.param(facts(pod_security="baseline"), True, STANDING, HELD, "False", "NamespaceNotRestricted", "it is baseline", id="a pod may leave its walls, whatever held"),
        pytest.param(facts(pod_security=""), False, {}, None, "False", "NamespaceNotRestricted", "it is none", id="likewise where nothing is said"),
        pytest.param(facts(pod_security="Restricted"), True, STANDING, HELD, "False", "NamespaceNotRestricted", "Restricted", id="and to the letter"),
    ],
)  # fmt: skip
def test_what_is_said(
    namespace: NamespaceFacts, probes: bool, standing: dict[str, str], newest: IsolationTestResult | None, status: str, reason: str, says: str
) -> None:  # fmt: skip
    found = derive_isolation_condition(namespace, probes, standing, newest, CONFIG, NOW)
    assert (found.status, found.reason) == (status, reason)
    assert says in found.message


@pytest.mark.parametrize(
    ("newest", "status", "reason"),
    [
        pytest.param(HELD, "Unknown", "PoliciesNotEnforced", id="a run that held proves nothing that lasts"),
        pytest.param(OPEN, "False", "IsolationBroken", id="what is open stays open"),
        pytest.param(None, "Unknown", "Probing", id="no run yet is said first"),
    ],
)
def test_where_admission_policies_refuse_nothing_isolation_is_never_verified(
    newest: IsolationTestResult | None, status: str, reason: str
) -> None:
    lax = replace(CONFIG, isolation=replace(CONFIG.isolation, has_enforced_policies=False))
    found = derive_isolation_condition(facts(), True, STANDING, newest, lax, NOW)
    assert (found.status, found.reason) == (status, reason)
    assert ("admissionPolicy.action: Deny" in found.message) == (reason == "PoliciesNotEnforced")


def test_how_long_a_run_is_good_for_follows_from_how_often_there_is_one() -> None:
    often: OperatorConfig = replace(CONFIG, isolation=IsolationTerms("decoy", interval=60))
    assert (
        derive_isolation_condition(facts(), True, STANDING, ran(IsolationVerdict.HELD, 150), often, NOW).status
        == "True"
    )
    assert (
        derive_isolation_condition(facts(), True, STANDING, ran(IsolationVerdict.HELD, 151), often, NOW).status
        == "Unknown"
    )


def test_of_many_the_first_are_told_and_how_many_more_there_are() -> None:
    names = tuple(f"door-{i}" for i in range(MAX_LISTED + 3))
    found = derive_isolation_condition(facts(), True, STANDING, ran(IsolationVerdict.OPEN, open=names), CONFIG, NOW)
    assert f"door-{MAX_LISTED - 1} and 3 more" in found.message
    assert f"door-{MAX_LISTED}" not in found.message
    exactly = derive_isolation_condition(
        facts(), True, STANDING, ran(IsolationVerdict.OPEN, open=names[:MAX_LISTED]), CONFIG, NOW
    )
    assert "more" not in exactly.message


@given(
    st.builds(facts, pod_security=st.sampled_from(["restricted", "baseline", ""])),
    st.booleans(),
    st.sampled_from([{}, STANDING]),
    st.sampled_from([None, HELD, OPEN, NOT_ENFORCED, UNPROVEN, GOING_ON]),
    st.floats(0, 10 * HOUR),
)
def test_only_a_fresh_run_that_held_in_a_restricted_namespace_is_good_news(
    namespace: NamespaceFacts, probes: bool, standing: dict[str, str], newest: IsolationTestResult | None, later: float
) -> None:
    found = derive_isolation_condition(namespace, probes, standing, newest, CONFIG, NOW + later)
    good = namespace.pod_security == "restricted" and probes and newest is HELD and later <= OVERDUE_RUNS * HOUR - 60
    assert (found.status == "True") is good
