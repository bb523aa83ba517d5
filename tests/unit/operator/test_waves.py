"""Refreshes go in waves: at most so many deployments of the cluster roll out at once, in an order that names decide."""

from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.waves import Waves
from r1plus_operator.plan.revision.refresh import Cause, Refresh, RefreshOutcome, SlotRequest

WAVE = "runtime-2"


def key(number: int) -> DeploymentKey:
    return DeploymentKey("team", f"d{number:04d}")


def revision(of: DeploymentKey) -> tuple[str, str]:
    return of[0], f"{of[1]}-0123456789"


def begin(waves: Waves, of: DeploymentKey, outcome: RefreshOutcome | None = None, wave: str = WAVE) -> None:
    """Write the ControllerRevision of a candidate, or how it ended, and end the pass."""
    waves.record(revision(of), of, Refresh(Cause.AUTOMATIC, wave, 1.0, outcome=outcome))
    waves.set_waiting(of, None)
    waves.release(of)


def line_up(slots: int, *deployments: DeploymentKey, requested: bool = False) -> Waves:
    waves = Waves(slots)
    for one in deployments:
        assert not waves.grant_slot(one).is_granted
        waves.set_waiting(one, SlotRequest(WAVE, requested))
        waves.release(one)
    return waves


def test_no_more_begin_at_once_than_there_are_slots() -> None:
    waves = line_up(2, *map(key, range(5)))
    assert [waves.grant_slot(key(n)).is_granted for n in range(5)] == [True, True, False, False, False]
    begin(waves, key(0))
    begin(waves, key(1))
    assert waves.list_turns() == []
    begin(waves, key(0), RefreshOutcome.PROMOTED)
    assert waves.list_turns() == [key(2)]


def test_passes_that_are_made_at_once_do_not_take_one_slot_twice() -> None:
    waves = line_up(1, key(1), key(2))
    assert waves.grant_slot(key(1)).is_granted
    waves.set_waiting(key(0), SlotRequest(WAVE, is_requested=True))
    assert not waves.grant_slot(key(0)).is_granted
    waves.release(key(1))
    assert waves.grant_slot(key(0)).is_granted


def test_names_decide_the_order_and_a_persons_request_comes_first() -> None:
    waves = line_up(1, key(3), key(2), key(4))
    waves.set_waiting(key(4), SlotRequest(WAVE, is_requested=True))
    order = []
    for _ in range(3):
        (turn,) = waves.list_turns()
        order.append(turn)
        begin(waves, turn, RefreshOutcome.PROMOTED)
    assert order == [key(4), key(2), key(3)]


def test_a_failure_stops_its_wave_and_no_other_until_it_is_acknowledged() -> None:
    waves = line_up(3, key(1), key(2))
    waves.set_waiting(key(3), SlotRequest("another", is_requested=False))
    begin(waves, key(1), RefreshOutcome.FAILED)
    assert waves.list_turns() == [key(3)]
    assert waves.grant_slot(key(2)).stopped_waves == {WAVE}
    begin(waves, key(1), RefreshOutcome.USER_ACK)
    assert waves.list_turns() == [key(2), key(3)]


def test_who_waits_hears_that_its_wave_is_stopped_and_goes_on() -> None:
    waves = line_up(1, key(1), key(2))
    waves.set_waiting(key(3), SlotRequest("another", is_requested=False))
    failed = Refresh(Cause.AUTOMATIC, WAVE, 1.0, outcome=RefreshOutcome.FAILED)
    assert waves.record(revision(key(0)), key(0), failed) == [key(1), key(2)]
    assert waves.record(revision(key(9)), key(9), failed) == []
    assert waves.forget(revision(key(9))) == []
    assert waves.forget(revision(key(0))) == [key(1), key(2)]


def test_what_is_gone_holds_no_slot_and_stops_nothing() -> None:
    waves = line_up(1, key(2))
    begin(waves, key(1))
    assert waves.list_turns() == []
    waves.forget(revision(key(1)))
    assert waves.list_turns() == [key(2)]
    waves.set_waiting(key(2), None)
    assert waves.list_turns() == []


def test_whose_candidate_cannot_be_written_keeps_nobody_waiting() -> None:
    waves = line_up(1, key(1), key(2))
    assert waves.grant_slot(key(1)).is_granted
    waves.set_waiting(key(1), None)  # It begins, and the API server refuses the write.
    waves.release(key(1))
    assert waves.list_turns() == [key(2)]


def test_who_is_on_its_way_may_begin_again() -> None:
    waves = line_up(1)
    begin(waves, key(1))
    assert waves.grant_slot(key(1)).is_granted


def test_a_new_leader_counts_what_it_finds() -> None:
    waves = Waves(2)
    for n in range(2):
        waves.record(revision(key(n)), key(n), Refresh(Cause.AUTOMATIC, WAVE, 1.0))
    waves.set_waiting(key(5), SlotRequest(WAVE, is_requested=True))
    assert not waves.grant_slot(key(5)).is_granted
