"""Whether somebody could go back by hand is told as it is: where to, or what each earlier revision lacks."""

from dataclasses import replace

from r1plus_contract.verdict import GateReport, MonitorReport, Phase, StratumFigures, Verdict, Watch, WatchStanding
from r1plus_operator.plan.rollback import eligibility
from r1plus_operator.plan.rollback.drop import list_lost_items
from r1plus_policies.gate.verdict import MOST_LOST_ITEMS
from r1plus_policies.rollback.response import PastRevision
from support.plan.world import World, suite
from support.tables import for_each

DAY = 86_400.0
GOOD = PastRevision("credit-a", 1000.0, 600.0, has_passed=True, has_engine=True)
LACKS = {
    "nothing": ({}, ""),
    "a Pass": ({"has_passed": False}, "has not passed the current suite"),
    "trust": ({"given_up": True}, "was itself rolled back"),
    "its engine": ({"has_engine": False}, "replaced by another of the same name"),
    "time": ({"served_seconds": 163.0}, "carried traffic for only 2 min of the required 10 min"),
    "two things": ({"has_passed": False, "served_seconds": 82.0}, "passed the current suite and threshold; carried traffic for only 82 s"),
}  # fmt: skip


@for_each("changes, expected", LACKS)
def test_what_a_revision_lacks_is_named(changes: dict[str, float], expected: str) -> None:
    found = eligibility.rollback_blockers([replace(GOOD, **changes)], {"credit-a": "f16"}, 600.0)
    assert (found == ()) if not expected else (found[0].startswith("credit-a (f16) ") and expected in found[0])


def test_the_newest_come_first_and_not_all_are_told() -> None:
    past = [replace(GOOD, name=f"r{n}", promoted_at=float(n), has_passed=False) for n in range(9)]
    found = eligibility.rollback_blockers(past, {r.name: "e" for r in past}, 600.0)
    assert [line.split()[0] for line in found] == ["r8", "r7", "r6", "r5", "r4"]


def fallen_after(seconds: float) -> tuple[World, str]:
    """A revision served so long before another one took over, which has fallen; the user wants to be told only."""
    world = World({"tier": "full", "context": {"maxTokens": 2048}, "accuracy": {"onBreach": "Alert"}})
    first = world.bring_up()
    world.now += seconds
    world.apply(context={"maxTokens": 1024})
    world.start_pods(first, ready=True)
    second = world.bring_up()
    world.settle()
    world.gate(second, Verdict.PASS).drop("i0", "i1").settle()
    return world, first


def test_a_rollback_by_hand_is_offered_where_one_can_be() -> None:
    world, first = fallen_after(DAY)
    command = '`r1plus rollback NAME -n NAMESPACE --reason "..."`'
    assert f"{command} goes back to {first} by hand" in world.status["incident"]["next"]
    assert world.status["lastGood"] == first
    assert "rollbackBlockers" not in world.status


def test_a_rollback_by_hand_is_not_offered_where_none_can_be_and_it_is_said_why() -> None:
    world, first = fallen_after(60.0)
    for told in (world.status["incident"]["next"], world.condition("QualityVerified")[2]):
        assert "r1plus rollback" not in told
        assert f"can be the rollback target now: {first} (" in told
        assert "of the required 10 min" in told
    assert "lastGood" not in world.status
    assert world.status["rollbackBlockers"][0].startswith(first)
    world.now += 3600.0
    assert world.settle().writes == 0, "what it lacks does not drift"


def report(*, gate: GateReport | None = None, lost: tuple[str, ...] = ()) -> MonitorReport:
    watch = Watch(WatchStanding.BELOW_THRESHOLD, 4, lost_since_gate=lost)
    return MonitorReport("r", "i", Phase.WATCHING, Verdict.FAIL, "x", "x", gate=gate, watch=watch)


def test_lost_items_are_counted_by_the_gate_though_it_names_only_some() -> None:
    strata = (StratumFigures("s", 4, 3, 0), StratumFigures("none of ours", 9, 9, 0))
    failed = GateReport(Verdict.FAIL, "x", "x", "i", "s", "h", "1", 0.98, 4, 3, 0, strata, lost_items=("i0",))
    found = suite("smollm2-full-v1").suite
    assert found is not None
    assert list_lost_items(report(gate=failed), found) == ("s: 3 of 4 (i0, ...)",)
    assert list_lost_items(report(gate=replace(failed, lost_items=())), found) == ("s: 3 of 4",)


def test_lost_items_are_counted_by_the_confirming_sweep_though_it_names_only_some() -> None:
    found = suite("smollm2-full-v1").suite
    assert found is not None
    said = report(lost=("i1",))
    assert said.watch is not None
    counted = replace(said, watch=replace(said.watch, strata=(StratumFigures("s", 4, 3, 0),)))
    assert list_lost_items(counted, found) == ("s: 3 of 4 (i1, ...)",)


def test_a_count_of_named_items_that_may_be_cut_is_a_least_one() -> None:
    found = suite("smollm2-full-v1").suite
    assert found is not None
    assert list_lost_items(report(lost=("i0", "i1")), found) == ("s: 2 of 4 (i0, i1)",)
    many = ("i0", "i1", *(f"x{n}" for n in range(MOST_LOST_ITEMS - 2)))
    assert list_lost_items(report(lost=many), found) == ("s: at least 2 of 4 (i0, i1)",)
