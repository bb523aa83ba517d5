"""A deployment's placement within what the platform team allows its tenant."""

from dataclasses import replace
from typing import Any

from r1plus_contract.verdict import Verdict
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.tenants import TenantPlacement
from r1plus_operator.plan.deployment import Plan, plan
from r1plus_operator.plan.observation import TenantView
from support.plan.falls import fallen
from support.plan.tenant_world import TenantWorld
from support.plan.world import CONFIG, FULL, NEXT, World, serve_world

SPOT: dict[str, Any] = {"key": "spot", "operator": "Exists"}
ON_SPOT: dict[str, Any] = {"placement": {"tolerations": [SPOT]}}


def plan_under(world: World, placement: TenantPlacement | None) -> Plan:
    """Plan a pass in a tenant to whom this is allowed."""
    tenant = TenantView("True", Reason.ISOLATION_ENFORCED, "", placement=placement)
    return plan(replace(world.observed(), tenant=tenant), CONFIG, world.now)


def capacity(planned: Plan) -> tuple[str, str]:
    return next((c["reason"], c["message"]) for c in planned.status["conditions"] if c["type"] == "CapacityFits")


def assert_makes_nothing_new(planned: Plan) -> None:
    kinds = {obj["kind"] for stage in planned.apply for obj in stage}
    assert not {"Deployment", "ControllerRevision"} & kinds


def test_a_placement_that_is_not_allowed_is_never_made() -> None:
    world = World({**FULL, **ON_SPOT})
    planned = plan_under(world, TenantPlacement())
    reason, message = capacity(planned)
    assert reason == "PlacementNotAllowed"
    assert message.startswith("spec.placement.tolerations[0]: spot: R1PlusTenant tenant does not allow this toleration")
    assert "spec.placement.tolerations of R1PlusTenant tenant" in message
    assert_makes_nothing_new(planned)


def test_what_serves_keeps_its_place_and_only_something_new_needs_leave() -> None:
    world = serve_world(**ON_SPOT)
    now = plan_under(world, TenantPlacement())
    assert (now.writes, capacity(now)[0]) == (0, "Fits")
    world.spec = {**world.spec, **NEXT}
    refused = plan_under(world, TenantPlacement())
    assert (refused.delete, capacity(refused)[0]) == ((), "PlacementNotAllowed")
    # What serves keeps the newest spec that could be read; nothing else is written.
    assert [(obj["kind"], obj["metadata"]["name"]) for stage in refused.apply for obj in stage] == [
        ("ControllerRevision", world.selected())
    ]
    allowed = plan_under(world, TenantPlacement.model_validate({"tolerations": [SPOT]}))
    assert capacity(allowed)[0] == "Fits"
    assert [obj for stage in allowed.apply for obj in stage if obj["kind"] == "Deployment"]


def test_a_tenants_placement_is_that_of_its_r1plustenant() -> None:
    placement = {"nodeSelectors": [{"pool": "credit"}], "tolerations": [SPOT]}
    read = TenantWorld(spec={"placement": placement}).plan().view.placement
    assert read == TenantPlacement.model_validate(placement)
    unreadable = {"placement": {"tolerations": [{"operator": "Exists"}]}}
    for spec in (None, {}, unreadable):
        assert TenantWorld(spec=spec).plan().view.placement == TenantPlacement()


UNREADABLE: dict[str, Any] = {"placement": {"tolerations": [{"operator": "Exists"}]}}


def plan_under_unreadable(world: World) -> Plan:
    """Plan a pass in a tenant whose R1PlusTenant cannot be read."""
    view = TenantWorld(spec=UNREADABLE).plan().view
    return plan(replace(world.observed(), tenant=view), CONFIG, world.now)


def test_under_an_r1plustenant_that_cannot_be_read_nothing_new_begins() -> None:
    planned = plan_under_unreadable(World(FULL))
    reason, message = capacity(planned)
    assert reason == "PlacementNotAllowed"
    assert "ask the platform team to correct it: spec.placement: tolerations need a key" in message
    assert_makes_nothing_new(planned)


def test_under_an_r1plustenant_that_cannot_be_read_what_serves_keeps_its_place() -> None:
    world = serve_world()
    now = plan_under_unreadable(world)
    assert (now.delete, capacity(now)[0]) == ((), "Fits")
    assert not [obj for stage in now.apply for obj in stage if obj["kind"] == "Deployment"]
    world.spec = {**world.spec, **NEXT}
    waiting = plan_under_unreadable(world)
    assert (waiting.delete, capacity(waiting)[0]) == ((), "PlacementNotAllowed")
    assert not [obj for stage in waiting.apply for obj in stage if obj["kind"] == "Deployment"]


def test_without_a_cluster_nothing_is_known_of_it() -> None:
    assert capacity(plan_under(World({**FULL, **ON_SPOT}), None))[0] == "Fits"


def test_a_rollback_leads_to_no_place_that_is_not_allowed_any_more() -> None:
    world, good, bad = fallen(**ON_SPOT)
    world.spec = {**world.spec, "placement": {}}
    world.settle()
    candidate = world.candidate()
    world.start_pods(candidate, ready=True).gate(candidate, Verdict.PASS).settle()
    assert world.selected() == candidate
    world.wait(60.0).drop()
    allowed = plan_under(world, TenantPlacement.model_validate({"tolerations": [SPOT]}))
    assert allowed.facts.blocked == ""
    refused = plan_under(world, TenantPlacement())
    assert refused.facts.blocked == "PlacementNotAllowed"
    assert not [obj for stage in refused.apply for obj in stage if obj["metadata"]["name"] in (good, bad)]
