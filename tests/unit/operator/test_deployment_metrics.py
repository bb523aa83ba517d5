"""Each deployment's series: all there from the first pass on, true after each, and gone with the deployment."""

import math
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from r1plus_contract import metrics
from r1plus_operator.metrics.deployments import DeploymentMetrics
from r1plus_operator.plan.status.metrics import PlanMetrics
from r1plus_policies.detector.detector import DetectorEvidence, DetectorKey
from r1plus_policies.detector.pool import DetectorPair, Pool
from r1plus_policies.rollback.response import BLOCK_REASONS

KEY = ("team", "credit")
WHOSE = {"namespace": "team", "deployment": "credit"}
FACTS = PlanMetrics("full", 0.98)
QUARTER = DetectorEvidence((math.log(0.25e5),))
POOL = Pool(
    DetectorKey("", "credit-1", "h" * 64, 0.98), 1e5, DetectorPair(DetectorEvidence(), QUARTER), right=300, answered=300
)


def status(**conditions: str) -> dict[str, Any]:
    made = [{"type": kind, "status": value, "reason": "X"} for kind, value in conditions.items()]
    return {"revision": "credit-1", "engine": "f16", "conditions": made}


def rig() -> tuple[CollectorRegistry, DeploymentMetrics]:
    registry = CollectorRegistry()
    return registry, DeploymentMetrics(registry)


def series(registry: CollectorRegistry) -> dict[str, int]:
    return {m.name: len(m.samples) for m in registry.collect() if m.samples}


def test_every_label_set_is_there_from_the_first_pass_on() -> None:
    registry, told = rig()
    told.record(KEY, status(Ready="True"), FACTS)
    for why in BLOCK_REASONS:
        assert registry.get_sample_value(metrics.ROLLBACK_BLOCKED, {**WHOSE, "reason": why}) == 0
    for cause in ("BelowThreshold", "Requested"):
        assert registry.get_sample_value(metrics.ROLLBACKS_TOTAL, {**WHOSE, "reason": cause}) == 0
    assert registry.get_sample_value(metrics.QUARANTINES_TOTAL, WHOSE) == 0
    assert registry.get_sample_value(metrics.DEPLOYMENT_THRESHOLD_RATIO, WHOSE) == 0.98
    assert registry.get_sample_value(metrics.CANDIDATE_REFUSED, WHOSE) == 0
    assert registry.get_sample_value(metrics.ROLLOUT_OVERDUE, WHOSE) == 0
    assert registry.get_sample_value(metrics.DEPLOYMENT_INFO, {**WHOSE, "revision": "credit-1", "tier": "full", "engine": "f16"}) == 1  # fmt: skip


def test_conditions_are_one_nought_or_minus_one() -> None:
    registry, told = rig()
    told.record(KEY, status(Ready="True", QualityVerified="False", EngineReady="Unknown"), FACTS)
    values = {k: registry.get_sample_value(metrics.DEPLOYMENT_CONDITION, {**WHOSE, "type": k}) for k in ("Ready", "QualityVerified", "EngineReady", "Progressing")}  # fmt: skip
    assert values == {"Ready": 1, "QualityVerified": 0, "EngineReady": -1, "Progressing": -1}


@pytest.mark.parametrize(
    ("reason", "told"),
    [("DeadlineExceeded", (0, 1)), ("CandidateRefused", (1, 0)), ("RollingOut", (0, 0))],
    ids=["past its deadline", "refused", "on its way"],
)
def test_a_rollout_that_does_not_end_well_is_told_apart(reason: str, told: tuple[int, int]) -> None:
    registry, metrics_ = rig()
    progressing = {"type": "Progressing", "status": "False", "reason": reason}
    metrics_.record(KEY, {"conditions": [progressing]}, FACTS)
    found = [registry.get_sample_value(name, WHOSE) for name in (metrics.CANDIDATE_REFUSED, metrics.ROLLOUT_OVERDUE)]
    assert tuple(found) == told


def test_what_bars_an_answer_stands_while_it_does() -> None:
    registry, told = rig()
    told.record(KEY, status(), PlanMetrics("full", 0.98, blocked="NoCapacity"))
    told.record(KEY, status(), PlanMetrics("full", 0.98, blocked="Cooldown"))
    values = {
        why: registry.get_sample_value(metrics.ROLLBACK_BLOCKED, {**WHOSE, "reason": why}) for why in BLOCK_REASONS
    }
    assert {why for why, value in values.items() if value} == {"Cooldown"}


def test_what_a_pass_did_is_counted_once() -> None:
    registry, told = rig()
    told.record(KEY, status(), PlanMetrics("full", 0.98, rolled_back="BelowThreshold", quarantined=True))
    told.record(KEY, status(), FACTS)
    assert registry.get_sample_value(metrics.ROLLBACKS_TOTAL, {**WHOSE, "reason": "BelowThreshold"}) == 1
    assert registry.get_sample_value(metrics.QUARANTINES_TOTAL, WHOSE) == 1


def test_another_revision_replaces_the_one_before() -> None:
    registry, told = rig()
    told.record(KEY, status(), FACTS)
    told.record(KEY, {**status(), "revision": "credit-2"}, FACTS)
    told.record_pool(KEY, POOL)
    told.record_pool(KEY, replace(POOL, key=replace(POOL.key, revision="credit-2")))
    assert series(registry)[metrics.DEPLOYMENT_INFO] == 1
    assert series(registry)[metrics.POOL_EVIDENCE_RATIO] == 2
    labels = {**WHOSE, "revision": "credit-2", "detector": "errors"}
    assert registry.get_sample_value(metrics.POOL_EVIDENCE_RATIO, labels) == pytest.approx(0.25)


def test_an_interval_is_shown_while_there_are_answers_to_make_it_of() -> None:
    registry, told = rig()
    whose = {**WHOSE, "revision": "credit-1"}
    bounds = metrics.POOL_ACCURACY_LOWER_RATIO, metrics.POOL_ACCURACY_UPPER_RATIO
    told.record_pool(KEY, replace(POOL, right=0, answered=0))
    assert [registry.get_sample_value(name, whose) for name in bounds] == [None, None]
    told.record_pool(KEY, POOL)
    lower, upper = (registry.get_sample_value(name, whose) or 0.0 for name in bounds)
    assert 0.9 < lower < upper == 1.0
    told.record_pool(KEY, replace(POOL, right=150))
    assert (registry.get_sample_value(bounds[1], whose) or 1.0) < 0.7
    told.record_pool(KEY, replace(POOL, right=0, answered=0))
    assert [registry.get_sample_value(name, whose) for name in bounds] == [None, None]


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"outdated": True, "vulnerable": True, "reason": "RuntimeOutdated"}, (1, 1, 0)),
        ({"outdated": True, "vulnerable": False, "reason": "RefreshFailed"}, (1, 0, 1)),
        ({"outdated": False, "vulnerable": False, "reason": "Current"}, (0, 0, 0)),
    ],
)
def test_outdated_and_vulnerable_images_are_exported(fields: dict[str, Any], values: tuple[int, ...]) -> None:
    registry, exported = rig()
    images = {"triton": "t:1", "monitor": "m:1"}
    exported.record(KEY, status(Ready="True"), replace(FACTS, runtime={**images, **fields}))
    assert registry.get_sample_value(metrics.RUNTIME_OUTDATED, {**WHOSE, **images}) == values[0]
    assert registry.get_sample_value(metrics.RUNTIME_VULNERABLE, WHOSE) == values[1]
    assert registry.get_sample_value(metrics.REFRESH_FAILED, WHOSE) == values[2]


def test_nothing_is_left_of_a_deployment_that_is_gone() -> None:
    registry, told = rig()
    told.record(KEY, status(Ready="True"), FACTS)
    told.record_pool(KEY, POOL)
    assert len(series(registry)) > 10
    told.forget(KEY)
    told.forget(KEY)
    assert series(registry) == {}
