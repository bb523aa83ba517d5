"""What the operator's metrics tell of tenants' walls: every series from the first pass on, and none of who is gone."""

import pytest
from prometheus_client import CollectorRegistry

from r1plus_contract import metrics
from r1plus_operator.api.conditions import Reason
from r1plus_operator.metrics.isolation import IsolationMetrics
from r1plus_operator.plan.observation import TenantView
from r1plus_operator.plan.tenancy.isolation_test_run import IsolationTestResult, IsolationTestRun
from r1plus_policies.isolation import IsolationJudgement, IsolationVerdict

RUN = IsolationTestRun("team", "u", "credit", {}, 100)
TOLD = IsolationJudgement(IsolationVerdict.OPEN, held=("a", "b", "c"), open=("d",), unseen=("e", "f"), failed=("g",))
ENDED = IsolationTestResult(RUN, {}, TOLD, 140.5, 140.5)


def view(status: str = "True") -> TenantView:
    return TenantView(status, Reason.ISOLATION_ENFORCED, "")


def told() -> tuple[IsolationMetrics, CollectorRegistry]:
    registry = CollectorRegistry()
    return IsolationMetrics(registry), registry


def series(registry: CollectorRegistry) -> dict[str, float]:
    """`metric namespace outcome` -> value."""
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


@pytest.mark.parametrize(("status", "value"), [("True", 1), ("False", 0), ("Unknown", -1)])
def test_the_condition_as_a_number(status: str, value: int) -> None:
    isolation, registry = told()
    isolation.record("team", view(status), None)
    assert series(registry)[f"{metrics.ISOLATION_VERIFIED} team"] == value


def test_before_the_first_run_every_outcome_is_there_and_no_time_is() -> None:
    isolation, registry = told()
    isolation.record("team", view("Unknown"), None)
    assert series(registry) == {
        f"{metrics.ISOLATION_VERIFIED} team": -1,
        **{f"{metrics.ISOLATION_TRIES} team {outcome}": 0 for outcome in ("held", "open", "unseen")},
    }


def test_the_newest_run_is_counted_and_what_has_no_proof_counts_as_unseen() -> None:
    isolation, registry = told()
    isolation.record("team", view("False"), ENDED)
    found = series(registry)
    assert [found[f"{metrics.ISOLATION_TRIES} team {outcome}"] for outcome in ("held", "open", "unseen")] == [3, 1, 3]
    assert found[f"{metrics.ISOLATION_RUN_TIMESTAMP_SECONDS} team"] == 140.5


def test_a_later_pass_takes_the_place_of_an_earlier_one_and_tenants_do_not_mix() -> None:
    isolation, registry = told()
    isolation.record("team", view("False"), ENDED)
    isolation.record("other", view(), None)
    isolation.record(
        "team",
        view(),
        IsolationTestResult(RUN, {}, IsolationJudgement(IsolationVerdict.HELD, held=("a",)), 200.0, 200.0),
    )
    found = series(registry)
    assert found[f"{metrics.ISOLATION_TRIES} team open"] == 0
    assert found[f"{metrics.ISOLATION_TRIES} team held"] == 1
    assert found[f"{metrics.ISOLATION_TRIES} other held"] == 0
    assert found[f"{metrics.ISOLATION_RUN_TIMESTAMP_SECONDS} team"] == 200.0


def test_who_is_gone_leaves_no_series() -> None:
    isolation, registry = told()
    isolation.record("team", view(), ENDED)
    isolation.record("other", view(), None)
    isolation.forget("team")
    isolation.forget("never was")
    assert {name.split()[1] for name in series(registry)} == {"other"}


def test_the_names_are_known_before_there_is_a_tenant() -> None:
    _, registry = told()
    assert {family.name for family in registry.collect()} == {
        metrics.ISOLATION_VERIFIED,
        metrics.ISOLATION_TRIES,
        metrics.ISOLATION_RUN_TIMESTAMP_SECONDS,
    }
    with pytest.raises(ValueError, match="Duplicated"):
        IsolationMetrics(registry)
