"""Findings 9 and 11: newer images and engines reach what serves by a gated candidate, on request or in waves."""

from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.requests import Verb
from r1plus_contract.verdict import Verdict
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.observation import WaveView
from r1plus_operator.plan.revision.record import Runtime
from r1plus_operator.plan.revision.refresh import SLOT_SECONDS, RefreshOutcome
from r1plus_operator.plan.settings import OperatorConfig, RuntimeUpdate
from r1plus_policies.rollout import RETRY_SECONDS
from support.plan.falls import ROLLBACK
from support.plan.world import CATALOG, CONFIG, DAY, NEXT, World, serve_world, start_world
from support.tables import for_each

PATCHED = replace(CONFIG, triton_image="registry.local/triton:2", monitor_image="registry.local/monitor:2")
LATER = replace(PATCHED, triton_image="registry.local/triton:3")
AUTOMATIC = replace(PATCHED, runtime_update=RuntimeUpdate.AUTOMATIC)
OLD, NEW = Runtime(CONFIG.triton_image, CONFIG.monitor_image), Runtime(PATCHED.triton_image, PATCHED.monitor_image)


def upgraded(config: OperatorConfig = PATCHED, **spec: Any) -> tuple[World, str]:
    """Return a world whose first revision serves, and whose operator has newer images since; and that revision."""
    world = serve_world(**spec)
    serving = world.selected()
    world.wait(DAY).alter(config=config).settle()
    return world, serving


def refreshed(**spec: Any) -> tuple[World, str, str]:
    """Return a world after a refresh, what served before and what serves."""
    world, before = upgraded(**spec)
    world.ask(Verb.REFRESH, revision=before)
    return world, before, world.bring_up()


def runtime_status(world: World) -> tuple[bool, str]:
    return world.status["runtime"]["outdated"], world.status["runtime"]["reason"]


def test_an_operator_upgrade_rolls_nothing_out_and_says_what_is_outdated() -> None:
    world, serving = upgraded()
    world.expect(serves=serving, runs={serving: 1}, Progressing="False Complete")
    assert len(world.revisions()) == 1
    assert runtime_status(world) == (True, "RuntimeOutdated")
    assert world.status["runtime"]["triton"] == CONFIG.triton_image


def test_an_operator_upgrade_leaves_the_inputs_of_stored_revisions_and_a_refresh_brings_the_new_ones() -> None:
    """Inputs are in config.pbtxt, which is stored. The hash of a revision does not cover it (docs/calling.md)."""
    world, before = upgraded()
    data = world.one("ControllerRevision", before)["data"]
    data["configPbtxt"] = older = data["configPbtxt"].replace('"messages"', '"an_input_of_before"')
    assert '"messages"' not in older
    world.settle()
    world.expect(serves=before, runs={before: 1}, Progressing="False Complete")
    assert (len(world.revisions()), world.revision(before).config_pbtxt) == (1, older)
    world.ask(Verb.REFRESH, revision=before).settle()
    candidate = world.candidate()
    assert '"messages"' in world.revision(candidate).config_pbtxt
    assert world.revision(before).config_pbtxt == older


def test_a_refresh_gates_a_candidate_on_the_new_images_before_it_serves() -> None:
    world, before = upgraded()
    world.ask(Verb.REFRESH, revision=before).settle()
    candidate = world.candidate()
    world.expect(serves=before, runs={before: 1, candidate: 1}, Progressing="True RollingOut")
    assert runtime_status(world) == (True, "RefreshUnderWay")
    assert (world.revision(before).runtime, world.revision(candidate).runtime) == (OLD, NEW)
    assert world.revision(candidate).identity.monitor_image == NEW.monitor
    world.start_pods(candidate, ready=True).settle()
    assert world.selected() == before
    world.bring_up()
    world.expect(serves=candidate, Progressing="False Complete")
    assert runtime_status(world) == (False, "Current")
    assert world.revision(candidate).refresh.outcome is RefreshOutcome.PROMOTED


def test_a_pass_of_the_old_images_is_no_pass_of_the_new_ones() -> None:
    """Not even where the monitor's image is all that changed."""
    world, before = upgraded(replace(CONFIG, monitor_image=NEW.monitor))
    world.ask(Verb.REFRESH, revision=before).settle()
    assert world.revision(world.candidate()).identity_digest != world.revision(before).identity_digest


def test_a_candidate_that_its_gate_refuses_leaves_what_serves() -> None:
    world, before = upgraded()
    world.ask(Verb.REFRESH, revision=before).settle()
    candidate = world.candidate()
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    world.expect(serves=before, runs={before: 1}, Progressing="False CandidateRefused")
    assert runtime_status(world) == (True, "RefreshFailed")


def test_a_pass_is_due_when_its_slot_goes_to_the_next_one() -> None:
    world, before = upgraded(rollout={"deadline": "8h"})
    world.ask(Verb.REFRESH, revision=before).settle()
    began = world.revision(world.candidate()).refresh.began_at
    world.wait(began + SLOT_SECONDS - 20.0 - world.now).settle()
    assert world.plan().requeue_after == pytest.approx(began + SLOT_SECONDS - world.now)


def test_a_request_is_answered_once() -> None:
    world, _, after = refreshed()
    world.alter(config=LATER).wait(DAY).settle()
    world.expect(serves=after, runs={after: 1}, Progressing="False Complete")
    assert runtime_status(world) == (True, "RuntimeOutdated")


def test_a_request_where_nothing_is_newer_is_answered_at_once() -> None:
    world = serve_world()
    serving = world.selected()
    world.ask(Verb.REFRESH, revision=serving).settle()
    world.alter(config=PATCHED).settle()
    world.expect(serves=serving, runs={serving: 1}, Progressing="False Complete")


def test_a_request_about_what_served_before_asks_for_nothing() -> None:
    world, before = upgraded()
    after = world.apply(**NEXT)
    world.bring_up()
    world.alter(config=LATER).ask(Verb.REFRESH, revision=before).settle()
    world.expect(serves=after, Progressing="False Complete")


def test_a_spec_that_is_changed_and_changed_back_keeps_the_newer_images() -> None:
    world, before, after = refreshed(**NEXT)
    world.wait(DAY).apply(context={"maxTokens": 2048})
    assert world.bring_up() != after
    world.wait(DAY).change(**NEXT)
    world.start_pods(after, ready=True).settle()
    assert world.selected() == after
    assert before != after


def test_after_a_change_on_newer_images_the_old_ones_do_not_come_back() -> None:
    world = serve_world()
    first = world.selected()
    world.wait(DAY).alter(config=PATCHED).apply(**NEXT)
    second = world.bring_up()
    assert world.revision(second).runtime == NEW
    world.wait(DAY).apply(context={"maxTokens": 2048})
    third = world.bring_up()
    assert third not in (first, second)
    assert world.revision(third).runtime == NEW


def test_without_newer_images_a_stored_revision_is_taken_as_it_was() -> None:
    world = serve_world()
    first = world.selected()
    world.wait(DAY).apply(**NEXT)
    world.bring_up()
    world.alter(config=PATCHED).wait(DAY).change(context={"maxTokens": 2048}).settle()
    assert world.candidate() == first


def test_a_refresh_of_what_does_not_serve_says_so_once_and_begins_no_candidate() -> None:
    world, serving = upgraded()
    world.ask(Verb.REFRESH, revision="credit-another").settle()
    world.settle()
    refusal = world.status["refreshRefused"]
    assert f"the refresh is not carried out: it names revision credit-another, but {serving} serves" in refusal
    assert world.notes.count("RequestRefused") == 1
    world.expect(serves=serving, runs={serving: 1}, Progressing="False Complete")
    assert len(world.revisions()) == 1


def test_a_refresh_that_the_promoting_pass_answers_is_not_called_refused() -> None:
    world, before = upgraded()
    after = world.apply(**NEXT)
    world.settle()
    world.start_pods(after).settle()
    world.gate(after, Verdict.PASS).settle()
    world.set_ready(after).ask(Verb.REFRESH, revision=before).settle()
    assert (world.selected(), world.revision(after).refresh.outcome) == (after, RefreshOutcome.NOTHING_NEWER)
    assert "refreshRefused" not in world.status and "RequestRefused" not in world.notes


def test_a_refused_refresh_begins_nothing_when_what_it_names_serves_again() -> None:
    world, before, after = refreshed(**ROLLBACK)
    world.ask(Verb.REFRESH, revision=before).settle()
    assert "refreshRefused" in world.status
    world.ask(Verb.ROLLBACK, revision=after).settle()
    world.start_pods(before).pass_control(before).start_pods(before, ready=True).settle()
    world.wait(60.0).settle()
    world.expect(serves=before, runs={before: 1}, QualityVerified="False RolledBack")
    assert runtime_status(world) == (True, "RuntimeOutdated")
    assert "refreshRefused" in world.status
    world.ask(Verb.REFRESH, revision=before).settle()
    assert "refreshRefused" not in world.status


def test_a_rollback_returns_to_exactly_what_passed_and_a_refresh_is_offered() -> None:
    world, before, after = refreshed(**ROLLBACK)
    world.wait(60.0).settle()
    world.gate(after, Verdict.PASS).drop().settle()
    assert world.status["candidate"] == before
    world.start_pods(before).pass_control(before).start_pods(before, ready=True).settle()
    world.wait(60.0).settle()
    world.expect(serves=before, runs={before: 1}, QualityVerified="False RolledBack")
    assert world.revision(before).runtime == OLD
    assert runtime_status(world) == (True, "RuntimeOutdated")
    world.ask(Verb.REFRESH, revision=before).alter(config=LATER).settle()
    world.expect(serves=before, runs={before: 1})
    assert runtime_status(world) == (True, "RefreshWaits")
    assert "r1plus ack" in world.status["runtime"]["message"]


BARS: dict[str, tuple[dict[str, Any], str]] = {"a pin": ({"rollout": {"pinned": True}}, "r1plus unpin")}


@for_each("spec, words", BARS)
def test_a_refresh_waits_for(spec: dict[str, Any], words: str) -> None:
    world, before = upgraded(**spec)
    world.ask(Verb.REFRESH, revision=before).settle()
    world.expect(serves=before, runs={before: 1})
    assert runtime_status(world) == (True, "RefreshWaits")
    assert words in world.status["runtime"]["message"]


def test_a_first_revision_that_cannot_start_gets_the_mended_image_when_it_is_asked_for() -> None:
    world = start_world()
    broken = world.candidate()
    world.alter(config=PATCHED).settle()
    assert world.candidate() == broken
    world.ask(Verb.REFRESH).settle()
    assert world.revision(world.candidate()).runtime == NEW
    world.bring_up()


def test_a_rolled_back_chart_leaves_what_serves_with_its_images() -> None:
    world, before = upgraded()
    world.ask(Verb.REFRESH, revision=before).settle()
    candidate = world.candidate()
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    world.alter(config=CONFIG).settle()
    world.expect(serves=before, runs={before: 1}, Progressing="False Complete")
    assert runtime_status(world) == (False, "Current")


def test_images_that_come_again_change_no_stored_revision() -> None:
    world = serve_world()
    for config in (PATCHED, CONFIG, PATCHED, CONFIG, PATCHED):
        stored = {one["metadata"]["name"]: one["data"] for one in world.live("ControllerRevision")}
        before = world.selected()
        world.wait(DAY).alter(config=config).ask(Verb.REFRESH, revision=before)
        after = world.bring_up()
        assert after not in stored
        assert runtime_status(world) == (False, "Current")
        assert all(
            stored.get(name, data) == data
            for name, data in ((one["metadata"]["name"], one["data"]) for one in world.live("ControllerRevision"))
        )


def automatic(**spec: Any) -> tuple[World, str]:
    return upgraded(AUTOMATIC, **spec)


def test_automatic_begins_a_candidate_by_itself() -> None:
    world, before = automatic()
    world.expect(serves=before, Progressing="True RollingOut")
    after = world.bring_up()
    assert world.revision(after).runtime == NEW
    assert runtime_status(world) == (False, "Current")


@for_each("spec, words", {
    "an outage": ({"rollout": {"strategy": "InPlace"}}, "InPlace"),
    "a pin": ({"rollout": {"pinned": True}}, "r1plus unpin"),
})  # fmt: skip
def test_automatic_never_starts(spec: dict[str, Any], words: str) -> None:
    world, before = automatic(**spec)
    world.expect(serves=before, runs={before: 1}, Progressing="False")
    assert runtime_status(world) == (True, "RefreshWaits")
    assert words in world.status["runtime"]["message"]
    assert world.plan().slot is None


def test_an_outage_that_a_person_asks_for_is_made() -> None:
    world, before = automatic(rollout={"strategy": "InPlace"})
    world.ask(Verb.REFRESH, revision=before).settle()
    assert world.deployments()[before] == 0


def test_automatic_does_not_meddle_with_a_rollout_of_the_spec() -> None:
    world, before = upgraded()
    candidate = world.apply(**NEXT)
    world.alter(config=replace(LATER, runtime_update=RuntimeUpdate.AUTOMATIC)).settle()
    assert world.candidate() == candidate
    world.expect(serves=before, runs={before: 1, candidate: 1})


@for_each("config, ask", {"a person's request": (PATCHED, True), "the operator's own": (AUTOMATIC, False)})
def test_without_a_slot_waits(config: OperatorConfig, ask: bool) -> None:
    world = serve_world()
    serving = world.selected()
    world.alter(config=config, wave=WaveView(is_granted=False))
    if ask:
        world.ask(Verb.REFRESH, revision=serving)
    world.settle()
    world.expect(serves=serving, runs={serving: 1}, Progressing="False Complete")
    assert runtime_status(world) == (True, "RefreshWaits")
    slot = world.plan().slot
    assert slot is not None
    assert slot.is_requested is ask
    world.alter(wave=WaveView()).settle()
    assert world.plan().slot is None
    world.expect(Progressing="True RollingOut")


def test_an_edit_of_the_spec_takes_no_slot() -> None:
    world, before = upgraded()
    world.alter(wave=WaveView(is_granted=False))
    candidate = world.apply(**NEXT)
    world.expect(serves=before, runs={before: 1, candidate: 1})
    assert world.revision(candidate).refresh is None


def test_a_stopped_wave_begins_nothing_though_slots_are_free() -> None:
    world = serve_world()
    serving = world.selected()
    world.alter(config=AUTOMATIC, wave=WaveView(stopped_waves=frozenset([NEW.digest]))).settle()
    world.expect(serves=serving, runs={serving: 1})
    assert "r1plus rollouts -A" in world.status["runtime"]["message"]


def outcome(world: World, revision: str) -> RefreshOutcome | None:
    record = world.revision(revision).refresh
    assert record is not None
    return record.outcome


def candidate_of_wave(**spec: Any) -> tuple[World, str]:
    world, _ = automatic(**spec)
    candidate = world.candidate()
    assert outcome(world, candidate) is None
    return world, candidate


def test_a_failed_gate_stops_the_wave_until_somebody_has_looked() -> None:
    world, candidate = candidate_of_wave()
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    assert outcome(world, candidate) is RefreshOutcome.FAILED
    world.ask(Verb.ACK).settle()
    assert outcome(world, candidate) is RefreshOutcome.USER_ACK
    world.expect(Progressing="False CandidateRefused")


def test_a_candidate_that_does_not_start_stops_the_wave() -> None:
    world, candidate = candidate_of_wave()
    world.start_pods(candidate).wait(3600.0).settle()
    world.expect(Progressing="False DeadlineExceeded")
    assert outcome(world, candidate) is RefreshOutcome.FAILED


def test_a_candidate_without_room_stops_nobody() -> None:
    world, candidate = candidate_of_wave()
    world.start_pods(candidate).set_pods(candidate, unschedulable="0/1 nodes are available").wait(3600.0).settle()
    assert outcome(world, candidate) is RefreshOutcome.NO_ROOM


@for_each("spec", {
    "another spec": NEXT,
    "a pin": {"rollout": {"pinned": True}},
    "no replicas": {"replicas": 0},
    "a spec that nothing can serve": {"engine": {"precision": "Q99"}},
})  # fmt: skip
def test_a_tenant_gives_its_slot_back_by(spec: dict[str, Any]) -> None:
    world, candidate = candidate_of_wave()
    world.change(**spec).settle()
    assert outcome(world, candidate) is RefreshOutcome.SUPERSEDED


def test_no_deadline_of_a_tenant_holds_a_slot_for_ever() -> None:
    world, candidate = candidate_of_wave(rollout={"deadline": "24h"})
    world.start_pods(candidate).settle()
    requeue = world.plan().requeue_after
    assert requeue is not None
    world.wait(SLOT_SECONDS - 10.0).settle()
    assert outcome(world, candidate) is None
    world.wait(10.0).settle()
    assert outcome(world, candidate) is RefreshOutcome.OVERDUE
    world.bring_up()
    assert outcome(world, candidate) is RefreshOutcome.PROMOTED


def test_a_deadline_that_a_clock_ahead_ended_stops_no_wave_for_long() -> None:
    world, candidate = candidate_of_wave()
    world.start_pods(candidate).wait(DAY).settle()
    assert outcome(world, candidate) is RefreshOutcome.FAILED
    world.wait(-DAY).settle()
    assert outcome(world, candidate) is None
    world.bring_up()
    assert outcome(world, candidate) is RefreshOutcome.PROMOTED


def test_a_slot_that_was_lost_to_a_problem_does_not_hide_a_failure() -> None:
    world, candidate = candidate_of_wave()
    world.start_pods(candidate)
    nodes = world.nodes
    world.alter(nodes=()).settle()
    assert outcome(world, candidate) is RefreshOutcome.SUPERSEDED
    world.alter(nodes=nodes).settle()
    world.gate(candidate, Verdict.FAIL, lost=3).settle()
    assert outcome(world, candidate) is RefreshOutcome.FAILED


def test_a_later_runtime_goes_on_after_one_that_failed() -> None:
    world, candidate = candidate_of_wave()
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    world.alter(config=replace(LATER, runtime_update=RuntimeUpdate.AUTOMATIC)).settle()
    assert world.candidate() != candidate
    world.bring_up()
    assert runtime_status(world) == (False, "Current")


def test_a_candidate_that_is_tried_again_holds_a_slot_again_while_it_is_asked_for() -> None:
    world, candidate = candidate_of_wave()
    world.start_pods(candidate).set_pods(candidate, unschedulable="0/1 nodes are available").wait(3600.0).settle()
    world.wait(RETRY_SECONDS).settle()
    assert world.deployments()[candidate] == 1
    assert outcome(world, candidate) is None
    world.change(**NEXT).settle()
    assert outcome(world, candidate) is RefreshOutcome.SUPERSEDED


def test_a_failed_candidate_that_is_promoted_after_all_stops_nobody() -> None:
    world, candidate = candidate_of_wave()
    world.start_pods(candidate).wait(3600.0).settle()
    assert outcome(world, candidate) is RefreshOutcome.FAILED
    world.change(rollout={"deadline": "9h"}).bring_up()
    world.expect(serves=candidate)
    assert outcome(world, candidate) is RefreshOutcome.PROMOTED


def newer(version: str = "1.1.0") -> Engine:
    """Return the engine that serves, in a newer version."""
    old = next(engine for engine in CATALOG if engine.name == "smollm2-full-f16")
    return Engine(f"smollm2-full-f16-{version}", old.spec.model_copy(update={"version": version}))


def offered(*, granted: bool = True, ask: bool = False, **spec: Any) -> tuple[World, str]:
    """Return a world whose catalog has a newer engine than the one that serves; and the revision that serves."""
    world = serve_world(**spec)
    serving = world.selected()
    world.wait(DAY).alter(engines=(*CATALOG, newer()), wave=WaveView(is_granted=granted))
    if ask:
        world.ask(Verb.REFRESH, revision=serving)
    world.settle()
    return world, serving


def test_a_newer_engine_waits_for_a_slot() -> None:
    world, serving = offered(granted=False)
    world.expect(serves=serving, runs={serving: 1}, Progressing="False Complete")
    assert runtime_status(world) == (False, "RefreshWaits")
    slot = world.plan().slot
    assert slot is not None
    assert slot.wave.startswith("smollm2-full-f16-1.1.0@")
    world.alter(wave=WaveView()).settle()
    candidate = world.candidate()
    assert world.revision(candidate).engine == "smollm2-full-f16-1.1.0"
    assert outcome(world, candidate) is None
    world.alter(wave=WaveView(is_granted=False)).settle()
    world.bring_up()
    world.expect(serves=candidate, Progressing="False Complete")
    assert outcome(world, candidate) is RefreshOutcome.PROMOTED


@for_each("spec, words", {
    "an outage": ({"rollout": {"strategy": "InPlace"}}, "InPlace"),
    "a pin": ({"rollout": {"pinned": True}}, "r1plus unpin"),
})  # fmt: skip
def test_a_newer_engine_never_starts(spec: dict[str, Any], words: str) -> None:
    world, serving = offered(**spec)
    world.expect(serves=serving, runs={serving: 1})
    assert words in world.status["runtime"]["message"]


def test_a_newer_engine_that_a_person_asks_for_is_rolled_out_by_an_outage_too() -> None:
    world, serving = offered(ask=True, rollout={"strategy": "InPlace"})
    assert world.deployments()[serving] == 0
    assert world.revision(world.candidate()).engine == "smollm2-full-f16-1.1.0"


@for_each("change", {
    "another context": NEXT,
    "an engine by name of its version": {"engine": {"version": "1.1.0"}},
})  # fmt: skip
def test_who_edits_the_spec_gets_the_newer_engine_at_once_by(change: dict[str, Any]) -> None:
    world, _ = offered(granted=False)
    candidate = world.apply(**change)
    assert world.revision(candidate).engine == "smollm2-full-f16-1.1.0"
    assert world.revision(candidate).refresh is None


def test_a_version_that_the_spec_no_longer_names_is_an_edit() -> None:
    world, serving = offered(engine={"version": "1.0.0"})
    world.expect(serves=serving, Progressing="False Complete")
    world.alter(wave=WaveView(is_granted=False))
    candidate = world.apply(engine={})
    assert world.revision(candidate).engine == "smollm2-full-f16-1.1.0"


def test_a_failed_engine_does_not_keep_patched_images_away() -> None:
    world, serving = offered(granted=False)
    slot = world.plan().slot
    assert slot is not None
    world.alter(config=PATCHED).settle()
    slot = world.plan().slot
    assert slot is not None
    world.alter(wave=WaveView(stopped_waves=frozenset([slot.wave]))).ask(Verb.REFRESH, revision=serving).settle()
    candidate = world.revision(world.candidate())
    assert (candidate.engine, candidate.runtime) == ("smollm2-full-f16", NEW)


def test_a_newer_engine_that_its_gate_refused_stays_refused() -> None:
    world, serving = offered()
    candidate = world.candidate()
    world.start_pods(candidate).gate(candidate, Verdict.FAIL, lost=3).settle()
    world.wait(DAY).settle()
    world.expect(serves=serving, runs={serving: 1}, Progressing="False CandidateRefused")
    assert outcome(world, candidate) is RefreshOutcome.FAILED


def test_a_larger_node_is_no_reason_to_leave_what_was_refreshed() -> None:
    """Nor is it one to leave what serves: test_node_fit.py."""
    world, _, after = refreshed()
    world.wait(60.0).alter(nodes=(*world.nodes, replace(world.nodes[0], name="n2", memory_bytes=200 * 2**30))).settle()
    world.expect(serves=after, runs={after: 1}, Progressing="False Complete")


def test_a_request_together_with_an_edit_is_answered_by_the_edits_own_candidate() -> None:
    """In one pass: our own writes bring no other one."""
    world, before = upgraded()
    world.ask(Verb.REFRESH, revision=before).change(**NEXT).pass_once()
    assert world.plan().writes == 0
    candidate = world.candidate()
    assert world.revision(candidate).runtime == NEW
    assert outcome(world, candidate) is RefreshOutcome.NOTHING_NEWER
    assert world.bring_up() == candidate


def test_a_paused_deployment_begins_nothing_and_holds_no_slot() -> None:
    world, before = upgraded(CONFIG)
    world.change(rollout={"paused": True}).alter(config=AUTOMATIC).settle()
    world.expect(serves=before, runs={before: 1})
    assert "r1plus resume" in world.status["runtime"]["message"]
    world, candidate = candidate_of_wave()
    world.change(rollout={"paused": True}).settle()
    assert outcome(world, candidate) is RefreshOutcome.SUPERSEDED
