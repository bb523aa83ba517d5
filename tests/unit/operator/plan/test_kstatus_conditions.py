"""Reconciling and Stalled: what GitOps tools take an R1PlusDeployment or an R1PlusTenant for."""

from collections.abc import Mapping

import pytest

from r1plus_contract.verdict import Gate
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.standings import STANDINGS
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.events import build_transition_events
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.status.conditions import MAX_CONDITIONS, build_conditions
from r1plus_operator.plan.status.kstatus_conditions import derive_deployment_standing, derive_tenant_standing
from support.tables import for_each

NOTHING = None
NOW = 1_800_000_000.0


def deployment_findings(
    progressing: str, quality: str, engine: str = "True EngineLoaded"
) -> dict[ConditionType, Finding]:
    return {
        ConditionType.READY: Finding("True", Reason.SERVING, "ready"),
        ConditionType.ENGINE_READY: build_finding(engine, "engine"),
        ConditionType.QUALITY_VERIFIED: build_finding(quality, "quality"),
        ConditionType.PROGRESSING: build_finding(progressing, "progressing"),
    }


def build_finding(outcome: str, message: str) -> Finding:
    status, reason = outcome.split()
    return Finding(status, Reason(reason), message)


def blocked_by(reason: Reason) -> Problem:
    return Problem(ConditionType.CAPACITY_FITS, reason, "problem")


def read(found: Mapping[ConditionType, Finding]) -> tuple[str, str, str] | None:
    """Return type, reason and message of the one condition; None: there is none."""
    rows = [(kind.value, one.reason.value, one.message) for kind, one in found.items() if one.status == "True"]
    assert len(rows) == len(found) <= 1
    return rows[0] if rows else None


DEPLOYMENTS = {
    "at its end, with a Pass, it is neither": ("False Complete", "True GatePassed", NOTHING),
    "a candidate that is gated moves": ("True RollingOut", "Unknown GateRunning", ("Reconciling", "RollingOut", "progressing")),
    "a rollback under way moves": ("True RollingBack", "False RollingBack", ("Reconciling", "RollingBack", "progressing")),
    "a refused candidate stalls, with the figures of its gate": (
        "False CandidateRefused", "False GateFailed", ("Stalled", "CandidateRefused", "quality"),
    ),
    "a rollback that is done stalls: the spec is not served": ("False RolledBack", "False RolledBack", ("Stalled", "RolledBack", "quality")),
    "a blocked rollback stalls": ("False RollbackBlocked", "False RollbackBlocked", ("Stalled", "RollbackBlocked", "progressing")),
    "a deadline that passed stalls": ("False DeadlineExceeded", "Unknown NotYetKnown", ("Stalled", "DeadlineExceeded", "progressing")),
    "a spec that is not valid stalls": ("False InvalidSpec", "Unknown Pending", ("Stalled", "InvalidSpec", "progressing")),
    "a write that is refused stalls": ("False WriteRefused", "True GatePassed", ("Stalled", "WriteRefused", "progressing")),
    "no replicas for a candidate stall": ("False Blocked", "Unknown NotYetKnown", ("Stalled", "Blocked", "progressing")),
    "what serves below its threshold stalls": ("False Complete", "False BelowThreshold", ("Stalled", "BelowThreshold", "quality")),
    "what serves and failed under new terms stalls": ("False Complete", "False GateFailed", ("Stalled", "GateFailed", "quality")),
    "what serves and is gated again moves": ("False Complete", "Unknown GateRunning", ("Reconciling", "GateRunning", "quality")),
    "what serves without a fresh report is neither": ("False Complete", "Unknown NoData", NOTHING),
    "paused is neither": ("False Paused", "False GateFailed", NOTHING),
    "pinned is neither": ("False Pinned", "False GateFailed", NOTHING),
}  # fmt: skip


@for_each("progressing, quality, expected", DEPLOYMENTS)
def test_the_rollout_decides_and_at_its_end_the_quality(progressing: str, quality: str, expected: object) -> None:
    assert read(derive_deployment_standing(deployment_findings(progressing, quality), None, Gate.ENFORCE)) == expected


PROBLEMS = {
    "what a person has to change stalls": (Reason.NO_NODE_FITS, ("Stalled", "NoNodeFits", "problem")),
    "a spec without an engine stalls": (Reason.ENGINE_NOT_FOUND, ("Stalled", "EngineNotFound", "problem")),
    "what is only not known yet moves": (Reason.PENDING, ("Reconciling", "Pending", "problem")),
}


@for_each("reason, expected", PROBLEMS)
def test_what_blocks_a_rollout_gives_reason_and_message(reason: Reason, expected: object) -> None:
    findings = deployment_findings("False Blocked", "Unknown Pending")
    assert read(derive_deployment_standing(findings, blocked_by(reason), Gate.ENFORCE)) == expected


DELIVERIES = {
    "an engine on its way moves": ("True Delivering", "Unknown Delivering", ("Reconciling", "Delivering", "engine")),
    "a full volume stalls": ("False StorageFull", "False StorageFull", ("Stalled", "StorageFull", "engine")),
    "a digest that is another one stalls": (
        "False EngineDigestMismatch", "False EngineDigestMismatch", ("Stalled", "EngineDigestMismatch", "engine"),
    ),
}  # fmt: skip


@for_each("progressing, engine, expected", DELIVERIES)
def test_a_delivery_is_explained_by_the_engine(progressing: str, engine: str, expected: object) -> None:
    findings = deployment_findings(progressing, "Unknown NotYetKnown", engine)
    assert read(derive_deployment_standing(findings, None, Gate.ENFORCE)) == expected


def test_a_failed_gate_that_the_spec_only_observes_stalls_nothing() -> None:
    assert (
        derive_deployment_standing(deployment_findings("False Complete", "False GateFailed"), None, Gate.OBSERVE) == {}
    )


TENANTS = {
    "a namespace that is set up is neither": ({"Ready": "True NetworkPoliciesApplied", "IsolationVerified": "Unknown Probing"}, NOTHING),
    "a spec that is not valid stalls": (
        {"Ready": "False InvalidSpec", "GatewayReady": "Unknown InvalidSpec"}, ("Stalled", "InvalidSpec", "Ready"),
    ),
    "broken isolation stalls, and comes before a gateway that starts": (
        {"Ready": "True NetworkPoliciesApplied", "IsolationVerified": "False IsolationBroken", "GatewayReady": "False Starting"},
        ("Stalled", "IsolationBroken", "IsolationVerified"),
    ),
    "a gateway that starts moves": (
        {"Ready": "True NetworkPoliciesApplied", "GatewayReady": "False Starting", "DataReady": "Unknown Starting"},
        ("Reconciling", "Starting", "GatewayReady"),
    ),
    "a key that only a person has stalls": (
        {"Ready": "True NetworkPoliciesApplied", "GatewayReady": "False KeyMissing"}, ("Stalled", "KeyMissing", "GatewayReady"),
    ),
    "a gateway that is switched off is neither": (
        {"Ready": "True NetworkPoliciesApplied", "GatewayReady": "False Disabled", "DataReady": "Unknown Disabled"}, NOTHING,
    ),
    "a deletion is neither: kstatus sees it itself": ({"Ready": "False Deleting", "IsolationVerified": "Unknown Pending"}, NOTHING),
}  # fmt: skip


@for_each("outcomes, expected", TENANTS)
def test_of_a_tenant_the_first_condition_that_stalls_or_moves_decides(
    outcomes: Mapping[str, str], expected: object
) -> None:
    assert (
        read(derive_tenant_standing({ConditionType(kind): build_finding(one, kind) for kind, one in outcomes.items()}))
        == expected
    )


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_standing(reason: Reason) -> None:
    assert reason in STANDINGS


def build_condition(kind: str, status: str = "True", reason: str = "Old") -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def test_a_stale_stalled_goes_and_conditions_of_other_managers_stay() -> None:
    before = {"conditions": [build_condition("Stalled"), build_condition("example.com/Approved")]}
    found = build_conditions({ConditionType.READY: Finding("True", Reason.SERVING, "")}, before, 2, NOW)
    assert [one["type"] for one in found] == ["Ready", "example.com/Approved"]
    assert found[1] == before["conditions"][1]


def test_more_conditions_of_other_managers_than_fit_give_way() -> None:
    before = {"conditions": [build_condition(f"example.com/C{number}") for number in range(MAX_CONDITIONS)]}
    found = build_conditions({ConditionType.STALLED: Finding("True", Reason.BLOCKED, "")}, before, 2, NOW)
    assert len(found) == MAX_CONDITIONS
    assert found[0]["type"] == "Stalled"


def test_no_event_repeats_what_another_condition_says() -> None:
    before = {"conditions": [build_condition("Stalled", reason="Blocked")]}
    after = {"conditions": [build_condition("Stalled", reason="CandidateRefused"), build_condition("Reconciling")]}
    assert build_transition_events(before, after) == ()
