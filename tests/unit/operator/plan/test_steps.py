"""The steps of a pass: none of them changes what it takes, whatever a deployment is going through."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType

from r1plus_contract.requests import Verb
from r1plus_contract.verdict import Verdict
from r1plus_operator.plan.accuracy.gate_results import record_gate_results
from r1plus_operator.plan.accuracy.mounted_suites import MountedSuites
from r1plus_operator.plan.accuracy.suite_selection import SuiteSelector
from r1plus_operator.plan.deployment import plan
from r1plus_operator.plan.inputs import PassInputs
from r1plus_operator.plan.revision.foreign_pods import split_foreign_pods
from r1plus_operator.plan.revision.resolution import resolve_spec
from r1plus_operator.plan.revision.storage import read_revisions
from r1plus_operator.plan.rollback.assessment import assess_health, choose_rollout_revision
from r1plus_operator.plan.rollout.choice import choose_revision
from r1plus_operator.plan.rollout.decision import decide_rollout
from r1plus_operator.plan.rollout.records import record_last_valid, record_rollout, retry_expired
from support.plan.falls import controlled, fallen
from support.plan.world import FULL, NEXT, World, serve_world
from support.tables import for_each


def new_world() -> World:
    """Return a world in which nothing has been written yet."""
    return World(dict(FULL))


def candidate_world() -> World:
    """Return a world whose candidate has just passed its gate beside traffic."""
    world = serve_world()
    candidate = world.apply(**NEXT)
    return world.start_pods(candidate, ready=True).gate(candidate, Verdict.PASS)


def dropped_world() -> World:
    """Return a world whose second revision has just been counted below the threshold."""
    return fallen()[0]


def control_world() -> World:
    """Return a world whose control has just passed, and is ready."""
    world, good, _ = controlled()
    world.control(Verdict.PASS).settle()
    return world.set_ready(good)


def refresh_world() -> World:
    """Return a world with a request for the operator's newer images."""
    world = serve_world()
    world.config = replace(world.config, triton_image="registry.local/triton:2")
    return world.ask(Verb.REFRESH, revision=world.selected())


STATES = {
    "a new deployment": new_world,
    "a candidate that takes traffic now": candidate_world,
    "an accuracy drop": dropped_world,
    "a rollback that ends now": control_world,
    "a refresh that begins now": refresh_world,
}


@for_each("build", STATES)
def test_a_pass_changes_nothing_that_it_observed(build: Callable[[], World]) -> None:
    world = build()
    observed = world.observed()
    before = deepcopy(observed)
    planned = plan(observed, world.config, world.now)
    assert planned.writes
    assert observed == before


@for_each("build", STATES)
def test_no_step_changes_the_revisions_that_it_takes(build: Callable[[], World]) -> None:
    """Read-only mappings go through all steps: one that wrote into its input would raise a TypeError."""
    world = build()
    observed, config = world.observed(), world.config
    stored = MappingProxyType(read_revisions(observed.children))
    resolution = resolve_spec(observed, config, stored)
    inputs = PassInputs(split_foreign_pods(observed, stored), config, world.now, resolution.spec)
    choice = choose_revision(inputs, resolution, stored)
    selector = SuiteSelector(inputs, choice.target, MountedSuites())

    chosen = MappingProxyType(choice.revisions)
    gated = MappingProxyType(record_gate_results(inputs, chosen, selector.select(chosen)))
    assessment = assess_health(inputs, selector, MappingProxyType(retry_expired(inputs, gated)), choice.spec_revision)
    rollback = assessment.outcome.rollback if assessment.outcome else None
    assessed = MappingProxyType(assessment.revisions)
    name = choose_rollout_revision(inputs, assessment, choice.spec_revision)
    rollout = decide_rollout(inputs, assessed, selector.select(assessed), name, rollback)
    after = MappingProxyType(record_rollout(inputs, assessed, rollout, choice.spec_revision, name, rollback))
    final = record_last_valid(inputs, after, choice.spec_revision, selector.select(after), {})

    world.pass_once()
    assert [r.name for r in final.values()] == [r.name for r in read_revisions(world.children).values()]
    assert [r.promoted_at for r in final.values()] == [r.promoted_at for r in read_revisions(world.children).values()]
