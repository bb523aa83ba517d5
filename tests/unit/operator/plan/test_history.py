"""What the registry is told: all that a rollout, a refusal and a way back leave in the cluster, and nothing that drifts."""

from dataclasses import replace

import pytest

from r1plus_contract.history import AlarmFact, EvaluationFact, RevisionFact, RolloutEvent, RolloutFact
from r1plus_contract.requests import Verb
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_operator.plan.revision import registry_facts
from support.plan.falls import FULL, fallen, rolled_back
from support.plan.world import CATALOG, World, suite


def events(world: World) -> list[tuple[str, RolloutEvent, str]]:
    facts = registry_facts.collect_facts(world.observed())
    return [(f.revision, f.event, f.to) for f in facts if isinstance(f, RolloutFact)]


def test_a_revision_that_serves_is_told_with_its_identity_its_gate_and_its_promotion() -> None:
    world = World(dict(FULL))
    name = world.bring_up()
    facts = registry_facts.collect_facts(world.observed())
    (revision,) = [f for f in facts if isinstance(f, RevisionFact)]
    assert (revision.name, revision.number, revision.deployment) == (name, 1, "u-1")
    assert (revision.engine, revision.context) == ("smollm2-full-f16", 2048)
    assert revision.engine_digest == revision.identity["engineDigest"]
    assert revision.monitor_image == "registry.local/monitor:1"
    (evaluation,) = [f for f in facts if isinstance(f, EvaluationFact)]
    assert (evaluation.revision, evaluation.report.verdict) == (name, Verdict.PASS)
    assert (name, RolloutEvent.PROMOTED, "") in events(world)
    assert not [f for f in facts if isinstance(f, AlarmFact)]


def test_a_refused_revision_is_told_with_its_figures() -> None:
    world = World(dict(FULL))
    good = world.bring_up()
    refused = world.apply(context={"maxTokens": 1024})
    world.start_pods(refused).settle()
    world.gate(refused, Verdict.FAIL, lost=2).settle()
    assert world.selected() == good
    found = {
        f.revision: f.report for f in registry_facts.collect_facts(world.observed()) if isinstance(f, EvaluationFact)
    }
    assert (found[refused].verdict, found[refused].lost, found[refused].items) == (Verdict.FAIL, 2, 4)
    assert (refused, RolloutEvent.CANDIDATE, "") in events(world)
    assert (refused, RolloutEvent.PROMOTED, "") not in events(world)


def test_a_way_back_is_told_step_by_step_and_the_fall_with_what_was_lost() -> None:
    world, good, bad = rolled_back()
    steps = [event for name, event, to in events(world) if (name, to) == (bad, good)]
    assert steps == [RolloutEvent.CONTROL_BEGAN, RolloutEvent.CONTROL_PASSED, RolloutEvent.ROLLED_BACK]
    (alarm,) = [f for f in registry_facts.collect_facts(world.observed()) if isinstance(f, AlarmFact)]
    assert (alarm.source, alarm.reason, alarm.revision) == ("deployment", "RolledBack", bad)
    assert (alarm.before, alarm.now) == ("4/4", "2/4")


def test_a_promotion_that_waited_for_no_pass_tells_why() -> None:
    world = World({**FULL, "accuracy": {"gate": "Observe"}})
    name = world.apply()
    world.start_pods(name, ready=True).settle()
    assert world.selected() == name
    promoted = [
        f
        for f in registry_facts.collect_facts(world.observed())
        if isinstance(f, RolloutFact) and f.event is RolloutEvent.PROMOTED
    ]
    assert [(f.revision, f.cause) for f in promoted] == [(name, "Observe")]
    enforced = World(dict(FULL))
    enforced.bring_up()
    assert "Observe" not in {
        f.cause for f in registry_facts.collect_facts(enforced.observed()) if isinstance(f, RolloutFact)
    }


def test_what_people_ask_for_is_told_with_who_when_and_why() -> None:
    world = World(dict(FULL))
    name = world.bring_up()
    for verb in (Verb.PIN, Verb.PAUSE, Verb.ACK):
        world.ask(verb, revision=name, at="2026-11-24T17:30:00.5Z")
    asked = [
        f
        for f in registry_facts.collect_facts(world.observed())
        if isinstance(f, RolloutFact) and f.event is RolloutEvent.REQUESTED
    ]
    assert [(f.revision, f.at, f.cause, f.text) for f in asked] == [
        (name, 1795541400.5, verb, "alice: a reason") for verb in ("pin", "pause", "ack")
    ]


@pytest.mark.parametrize(
    "at", ["", "soon", "0001-01-01", "9999-12-31T23:59:59-23:59", "1e99", "0001-01-01T00:00:00+23:59"]
)
def test_a_request_of_no_time_is_not_told(at: str) -> None:
    world = World(dict(FULL))
    world.bring_up()
    world.ask(Verb.PIN, at=at)
    assert RolloutEvent.REQUESTED not in {event for _, event, _ in events(world)}


def test_a_pods_alarm_is_told_once_it_has_one() -> None:
    world, _, bad = fallen()
    (pod,) = world.pods
    assert not [
        f
        for f in registry_facts.collect_facts(world.observed())
        if isinstance(f, AlarmFact) and f.source != "deployment"
    ]
    watch = world.reports[pod].watch
    assert watch is not None
    for standing, count in ((WatchStanding.BELOW_THRESHOLD, 1), (WatchStanding.STEADY, 0)):
        alarmed = replace(watch, standing=standing, alarmed_at="2026-01-01T00:00:00Z")
        world.reports[pod] = replace(world.reports[pod], watch=alarmed)
        found = [
            f
            for f in registry_facts.collect_facts(world.observed())
            if isinstance(f, AlarmFact) and f.source != "deployment"
        ]
        assert len(found) == count
    world.reports[pod] = replace(world.reports[pod], watch=replace(watch, alarmed_at="x" * 999, lost_since_gate=("y" * 999,) * 99))  # fmt: skip
    (fact,) = [
        f
        for f in registry_facts.collect_facts(world.observed())
        if isinstance(f, AlarmFact) and f.source != "deployment"
    ]
    assert (fact.source, fact.revision, fact.now) == (f"pod/{pod}", bad, "2/4")
    assert (len(fact.since), len(fact.lost), {len(item) for item in fact.lost}) == (250, 50, {250})


def test_passes_that_change_nothing_tell_nothing_new() -> None:
    world, _, _ = rolled_back()
    before = registry_facts.collect_facts(world.observed())
    world.wait(3600.0).settle()
    assert registry_facts.collect_facts(world.observed()) == before


def test_only_a_suite_that_was_judged_by_is_told_and_whose_it_is() -> None:
    shipped = replace(suite("smollm2-full-v1"), digest="shipped")
    own = replace(suite("own", "x"), digest="own")
    world = World(dict(FULL), suites={"smollm2-full-v1": shipped, "own": own})
    hashes = (shipped.suite.header.sha256, own.suite.header.sha256)
    found = registry_facts.collect_suite_facts(world.observed(), frozenset({"shipped"}), hashes)
    assert [(f.namespace, f.name, len(f.items)) for f in found] == [("", "smollm2-full-v1", 4), ("team", "own", 4)]
    assert [f.name for f in registry_facts.collect_suite_facts(world.observed(), frozenset(), hashes[1:])] == ["own"]


@pytest.mark.parametrize("known", CATALOG, ids=lambda known: known.name)
def test_an_engine_is_told_with_where_its_files_come_from_and_on_whose_word(known: object) -> None:
    live = {"spec": known.spec.model_dump(mode="json", by_alias=True)}  # type: ignore[attr-defined]
    fact = registry_facts.build_engine_fact(known, live)  # type: ignore[arg-type]
    assert (fact.name, fact.sha256, fact.image) == (known.name, known.spec.artifact.sha256, known.spec.artifact.image)  # type: ignore[attr-defined]
    assert fact.inherited_from == (known.spec.reference.inherited_from or "")  # type: ignore[attr-defined]
    assert (
        registry_facts.build_engine_fact(known, {"spec": {**live["spec"], "version": "9.9.9"}}).spec_digest
        != fact.spec_digest
    )  # type: ignore[arg-type]
