"""Where a pause, a Problem, a request and a withdrawn candidate meet."""

from dataclasses import replace

from r1plus_contract.requests import Verb
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_contract.verdict import Verdict
from support.plan.falls import DAY, NEXT, controlled, fallen
from support.plan.world import FULL, World, serve_world

IN_PLACE = {"strategy": "InPlace"}


def promote(world: World, **spec: object) -> str:
    """Bring up what the changed spec asks for, and let it serve well for a day."""
    world.apply(**spec)
    name = world.bring_up()
    world.gate(name, Verdict.PASS).steady().settle()
    world.wait(DAY).settle()
    return name


def paused_world() -> World:
    """Return a world whose first revision serves, and that is paused."""
    return serve_world().change(rollout={"paused": True})


def test_a_rollback_that_was_refused_is_not_carried_out_later() -> None:
    world = World({**FULL, "accuracy": {"onBreach": "Rollback"}})
    oldest = world.bring_up()
    world.wait(DAY).settle()
    older, newest = promote(world, **NEXT), promote(world, context={"maxTokens": 512})
    world.ask(Verb.ROLLBACK, revision=older).settle()
    assert f"{newest} serves" in world.status["requestRefused"]
    world.drop("i0", "i1").settle()
    world.start_pods(older).pass_control(older).start_pods(older, ready=True).settle()
    world.gate(older, Verdict.PASS).steady().settle()
    assert world.selected() == older
    assert oldest not in world.deployments()


def test_during_a_pause_the_status_and_alerts_speak_of_what_serves() -> None:
    world = serve_world(accuracy={"onBreach": "Rollback"})
    serving = world.selected()
    world.apply(**NEXT)
    candidate = world.candidate()
    world.start_pods(candidate).settle()
    world.change(rollout={"paused": True}).settle()
    world.gate(candidate, Verdict.PASS).settle()
    world.set_ready(candidate).settle()
    assert (world.selected(), world.status["revision"]) == (serving, serving)
    rule = str(world.one("PrometheusRule", "credit"))
    assert (serving in rule, candidate in rule) == (True, False)
    world.expect(Ready="True Serving")


def test_a_pause_in_place_does_not_say_that_what_serves_was_stopped() -> None:
    world = serve_world(rollout=IN_PLACE)
    world.change(rollout={**IN_PLACE, "paused": True}, **NEXT).settle()
    world.expect(Ready="True Serving", Progressing="False Paused")


def test_of_what_was_deleted_during_a_pause_nothing_is_said_to_be_starting() -> None:
    world = paused_world()
    serving = world.selected()
    world.children.pop(("Deployment", serving))
    service = world.children.pop(("Service", "credit"))
    world.pods.clear()
    world.settle()
    remedy = 'r1plus resume credit -n team --reason "..."'
    said = ("spec.rollout.paused", "starts and repairs nothing", f"Deployment {serving}", remedy)
    world.expect(Ready=("False NotServing", *said), EngineReady=("Unknown Paused", *said))
    world.children["Service", "credit"] = service
    world.change(rollout={}).settle()
    world.start_pods(serving, ready=True).settle()
    world.expect(Ready="True Serving", EngineReady="True EngineLoaded")


def test_during_a_pause_a_service_that_was_deleted_leads_nowhere() -> None:
    world = paused_world()
    world.children.pop(("Service", "credit"))
    world.settle()
    world.expect(Ready=("False NoEndpoints", "Service credit", "starts and repairs nothing", "r1plus resume credit"))


def test_what_was_scaled_down_by_hand_during_a_pause_was_not_stopped_for_a_candidate() -> None:
    world = paused_world()
    world.one("Deployment", world.selected())["spec"]["replicas"] = 0
    world.pods.clear()
    world.settle()
    world.expect(Ready=("False NotServing", "spec.rollout.paused", "by hand", "r1plus resume credit"))


def test_a_candidate_that_a_pause_keeps_from_starting_is_not_said_to_be_loading() -> None:
    world = paused_world()
    world.change(**NEXT).settle()
    world.expect(EngineReady=("Unknown Paused", "r1plus resume credit"), Ready="True Serving")


def test_a_control_in_place_goes_on_after_a_pause_and_what_dropped_does_not_return() -> None:
    world, good, bad = controlled(rollout=IN_PLACE)
    world.change(rollout={**IN_PLACE, "paused": True}).settle()
    world.change(rollout=IN_PLACE).settle()
    assert world.revision(bad).rollback is not None
    assert world.status["candidate"] == good
    assert world.deployments().get(bad, 0) == 0


def test_a_problem_of_one_pass_forgets_no_withdrawal() -> None:
    world = serve_world(rollout=IN_PLACE)
    serving = world.selected()
    world.change(**NEXT)
    for _ in range(4):
        world.pass_once()
        world.pods = {name: pod for name, pod in world.pods.items() if pod.revision != serving}
    candidate = world.candidate()
    world.start_pods(candidate)
    world.set_pods(candidate, unschedulable="0/1 nodes: Insufficient memory", unschedulable_since=world.now)
    world.settle()
    world.wait(310).settle()
    world.start_pods(serving, ready=True).settle()
    expiry, suites = world.revision(candidate).expiry, world.suites
    assert expiry is not None
    world.wait(100).alter(suites={}).settle()
    world.alter(suites=suites).settle()
    assert world.revision(candidate).expiry == expiry
    assert world.deployments()[serving] == 1
    world.expect(Ready="True Serving")


def test_under_a_problem_a_raised_threshold_does_not_bind_what_serves() -> None:
    world = serve_world(accuracy={"onBreach": "Rollback", "threshold": 0.7})
    reached = Measurement("e", "batch 1", 4, 3, {"s": "3/4"}, ("i3",))
    world.suites = {name: replace(one, reference_result=reached) for name, one in world.suites.items()}
    world.steady().settle()
    for engine in ({"version": "9.9.9"}, {}):
        world.apply(accuracy={"onBreach": "Rollback", "threshold": 1.0}, engine=engine)
        assert world.monitor_settings().threshold == 0.7


def test_switches_of_a_spec_that_cannot_be_read_are_heeded() -> None:
    world, good, _ = fallen()
    world.steady().settle()
    world.change(batching={"maxBatchSize": 0}, rollout={"pinned": True}).settle()
    world.drop("i0", "i1").settle()
    assert good not in world.deployments()
    world.change(rollout={"paused": True}).settle()
    world.expect(Progressing=("False Paused", "batching.maxBatchSize"))
    world.change(rollout={"paused": False}).settle()
    assert world.condition("Progressing")[1] != "Paused"
