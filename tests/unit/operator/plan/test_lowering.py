"""A measured reference over a deployment's life: no catalog and no spec lowers what serves, unless it is said to."""

import pytest

from r1plus_contract.verdict import Phase, Verdict
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.revision.record import find_current_revision
from r1plus_operator.plan.revision.storage import read_revision
from support.plan.world import CATALOG, World, serve_world

FULL = {"tier": "full", "context": {"maxTokens": 2048}}
F16 = next(engine for engine in CATALOG if engine.name == "smollm2-full-f16")


def newer(version: str, correct: int) -> Engine:
    """Another build of the full engine, measured on the same suite of 211 items."""
    measured = F16.spec.reference.measured
    reached = measured.model_copy(update={"correct_at_batch": correct, "correct_at_batch_1": 211})
    reference = F16.spec.reference.model_copy(update={"measured": reached})
    return Engine(f"full-{version}", F16.spec.model_copy(update={"version": version, "reference": reference}))


def served() -> World:
    world = serve_world()
    assert world.status["engine"] == "smollm2-full-f16"
    return world


def test_a_newer_engine_that_reaches_as_much_is_rolled_out() -> None:
    world = served()
    world.alter(engines=(*CATALOG, newer("1.1.0", 211))).settle()
    assert world.revision().engine == "full-1.1.0"


def test_a_newer_engine_that_reaches_less_moves_nothing() -> None:
    world = served()
    before = world.status
    world.engines = (*CATALOG, newer("1.1.0", 210))
    assert not world.pass_once().writes
    assert world.status == before


def test_asked_for_by_its_version_it_is_refused_by_how_much_and_what_serves_stays() -> None:
    world = served()
    stable = world.selected()
    world.engines = (*CATALOG, newer("1.1.0", 200))
    world.apply(engine={"version": "1.1.0"})
    status, reason, message = world.condition("EngineReady")
    assert (status, reason) == ("False", "ReferenceLower")
    assert [
        words
        for words in ("200 of 211", "211 of 211", "5.21 points", "spec.accuracy.allowLower")
        if words not in message
    ] == []
    assert world.selected() == stable
    assert world.one("Deployment", stable)["spec"]["replicas"] == 1
    assert len(world.live("ControllerRevision")) == 1


@pytest.mark.parametrize("asked", [{}, {"engine": {"version": "1.1.0"}}], ids=["by itself", "asked for"])
def test_where_it_is_said_it_is_taken_and_then_is_the_measure_for_the_next(asked: dict[str, object]) -> None:
    world = served()
    world.engines = (*CATALOG, newer("1.1.0", 205))
    world.change(accuracy={"allowLower": True}, **asked)
    name = world.bring_up()
    assert world.status["engine"] == "full-1.1.0"
    world.engines = (*CATALOG, newer("1.1.0", 205), newer("1.2.0", 204), newer("1.1.5", 206))
    world.apply(accuracy={}, engine={})
    assert world.revision().engine == "full-1.1.5"
    assert world.selected() == name


def test_another_tier_has_another_suite_and_is_no_lowering() -> None:
    world = served()
    world.apply(tier="lite")
    assert world.revision().engine == "smollm2-lite-q8-0"


def test_what_serves_is_what_was_promoted_last_and_not_what_was_tried_last() -> None:
    world = served()
    candidate = world.apply(engine={"precision": "Q4_1"})
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    serves = find_current_revision(read_revision(live) for live in world.live("ControllerRevision"))
    assert serves.engine == "smollm2-full-f16"
    assert find_current_revision([]) is None


def test_a_gate_that_is_repeated_during_traffic_is_the_reason_that_is_printed() -> None:
    world = serve_world()
    serves = world.selected()
    assert world.status["reason"] == "Serving"
    world.report(
        phase=Phase.GATING, verdict=Verdict.NO_DATA, gate=None, threshold=0.99, reason="GateRunning", progress=None
    )
    world.change(accuracy={"threshold": 0.99})
    stored = world.one("ControllerRevision", serves)["metadata"]["annotations"]
    stored.pop("r1plus.ai/verdict")
    world.settle()
    world.expect(serves=serves, Ready="True Serving", QualityVerified="Unknown GateRunning")
    assert world.status["reason"] == "GateRunning"
