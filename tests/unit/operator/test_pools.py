"""Pooled detectors as the operator keeps them: whom they hear, what they pass over, when they are written down."""

from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.jsonable import ContractError
from r1plus_contract.monitor.outcomes import MOST_OUTCOMES, OutcomePage, ProbeOutcome, ProbeResult
from r1plus_operator.observe.monitors.pooled_detectors import AT_ONCE, CHECKPOINT_SECONDS, FASTEST, Pools
from r1plus_operator.plan.accuracy.pooled_detector import PoolRequest
from r1plus_policies.detector.detector import DetectorKey

KEY = ("team", "credit")
HASH = "h" * 64
WANTED = PoolRequest(
    key=DetectorKey("", "credit-1", HASH, 0.98),
    identity="id",
    scorer_version="1",
    alarm_at=1e5,
    probes_per_minute=6,
    items=frozenset(f"i{n}" for n in range(8)),
    pods=frozenset({"a", "b"}),
    quarantined_pods=frozenset(),
    checkpoint="",
)


class Rig:
    """Pools with a clock that the test turns."""

    def __init__(self, wanted: PoolRequest = WANTED) -> None:
        self.now = 0.0
        self.evidence: list[tuple[Any, ...]] = []
        self.pools = Pools(lambda: self.now, lambda *told: self.evidence.append(told))
        self.pools.set_request(KEY, wanted)

    def view(self, **sweeps: str) -> Any:
        found = self.pools.read_view(KEY, lambda: sweeps)
        assert found is not None
        return found


def page(results: str, *, first: int = 1, **changes: Any) -> OutcomePage:
    """A page of outcomes: 1 correct, 0 incorrect, e an error."""
    outcomes = tuple(ProbeOutcome(n, f"i{n % 8}", ProbeResult(r)) for n, r in enumerate(results, first))
    whole = OutcomePage("epoch", "credit-1", "id", HASH, "1", 8, 1, first + len(results) - 1, outcomes)
    return replace(whole, **changes)


def test_pods_are_asked_from_what_was_heard_last_and_only_those_that_the_plan_trusts() -> None:
    rig = Rig()
    assert (rig.pools.find_start(KEY, "a"), rig.pools.find_start(KEY, "c"), rig.pools.find_start(("x", "y"), "a")) == (
        0,
        None,
        None,
    )
    rig.pools.fold_page(KEY, "a", page("111"))
    assert rig.pools.find_start(KEY, "a") == 3
    rig.pools.fold_page(KEY, "c", page("000"))
    assert rig.pools.find_start(KEY, "c") is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"revision": "credit-2"}, id="another revision"),
        pytest.param({"identity": "other"}, id="another identity"),
        pytest.param({"suite_hash": "0" * 64}, id="another suite"),
        pytest.param({"scorer_version": "2"}, id="another scorer"),
        pytest.param({"epoch": ""}, id="no epoch"),
        pytest.param({"epoch": "e" * 65}, id="an epoch without end"),
        pytest.param({"oldest": -1}, id="a negative number"),
        pytest.param({"newest": 2**53}, id="a number beyond all"),
        pytest.param({"acknowledged_after": 5}, id="an acknowledgement after all outcomes"),
        pytest.param({"acknowledged_after": -1}, id="an acknowledgement before all numbers"),
        pytest.param({"outcomes": (ProbeOutcome(1, "mine", ProbeResult.INCORRECT),)}, id="an item of its own"),
        pytest.param({"outcomes": (ProbeOutcome(1, "i1", ProbeResult.INCORRECT),) * 2001}, id="more than a page holds"),
    ],
)
def test_a_page_that_is_not_what_was_asked_for_changes_nothing(changes: dict[str, Any]) -> None:
    rig = Rig()
    with pytest.raises(ContractError):
        rig.pools.fold_page(KEY, "a", page("0000", **changes))
    assert rig.pools.find_start(KEY, "a") == 0
    assert rig.view()[0].evidence == 0.0


def test_a_backlog_is_folded_in_pieces_and_no_outcome_twice() -> None:
    rig = Rig()
    backlog = page("1" * 600)
    for heard in (AT_ONCE, 2 * AT_ONCE, 600, 600):
        rig.pools.fold_page(KEY, "a", backlog)
        assert rig.pools.find_start(KEY, "a") == heard


def test_a_monitor_that_reports_faster_than_it_probes_hides_no_drop_of_the_others() -> None:
    rig = Rig()
    newest = 0
    for probe in range(1, 301):
        rig.now += 10
        heard = rig.pools.find_start(KEY, "a") or 0
        rig.pools.fold_page(KEY, "a", page("1" * MOST_OUTCOMES, first=heard + 1, epoch="flood"))
        rig.pools.fold_page(KEY, "b", page("0" if probe % 2 else "1", first=probe))
        newest = rig.pools.find_start(KEY, "a") or 0
        if rig.view()[0].evidence >= 1:
            break
    assert rig.view()[0].evidence >= 1, f"no alarm in 300 probes of the other pod, half of them wrong; {newest} counted"
    assert newest <= MOST_OUTCOMES + FASTEST * probe


def test_what_waits_for_an_acknowledgement_is_counted_at_once_when_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    """A monitor reads its file a minute after the operator has written it, and is polled all the while."""
    rig = Rig(replace(WANTED, acknowledged="t2"))
    for _ in range(12):
        rig.now += 5
        rig.pools.fold_page(KEY, "a", page("1" * MOST_OUTCOMES, acknowledged=""))
    assert rig.pools.find_start(KEY, "a") == 0
    for _ in range(MOST_OUTCOMES // AT_ONCE):
        rig.pools.fold_page(KEY, "a", page("1" * MOST_OUTCOMES, acknowledged="t2"))
    assert rig.pools.find_start(KEY, "a") == MOST_OUTCOMES
    assert not caplog.records


def test_the_pool_without_its_worst_pod_is_not_that_pods_alarm() -> None:
    rig = Rig()
    rig.pools.fold_page(KEY, "a", page("0" * 40))
    view, news = rig.view()
    assert news
    assert (view.evidence >= 1, view.without_worst) == (True, 0.0)
    rig.pools.fold_page(KEY, "b", page("1" * 40))
    view, _ = rig.view()
    assert view.without_worst < 1
    rig.pools.fold_page(KEY, "b", page("0" * 40, first=41))
    view, news = rig.view(a="12:00", b="12:01")
    assert news
    assert (view.without_worst >= 1, view.before_alarm) == (True, {"a": "12:00", "b": "12:01"})
    assert rig.view(a="13:00")[0].before_alarm == {"a": "12:00", "b": "12:01"}


def test_it_is_written_down_at_an_alarm_and_else_every_five_minutes() -> None:
    rig = Rig()
    rig.pools.fold_page(KEY, "a", page("1"))
    assert rig.view()[0].checkpoint == ""
    rig.now = CHECKPOINT_SECONDS - 1
    assert rig.view() == (rig.view()[0], False)
    rig.now = CHECKPOINT_SECONDS
    view, news = rig.view()
    assert (bool(view.checkpoint), news) == (True, True)
    rig.pools.fold_page(KEY, "a", page("0" * 40, first=2))
    rang, news = rig.view()
    assert news
    assert rang.checkpoint != view.checkpoint
    rig.pools.fold_page(KEY, "a", page("1", first=42))
    assert rig.view() == (replace(rig.view()[0], checkpoint=rang.checkpoint), False)


def test_where_no_outcome_was_heard_there_is_nothing_to_write_down() -> None:
    rig = Rig()
    rig.pools.fold_page(KEY, "a", page(""))
    rig.now = CHECKPOINT_SECONDS
    assert rig.view() == (rig.view()[0], False)
    assert rig.view()[0].checkpoint == ""
    rig.pools.fold_page(KEY, "a", page("1"))
    rig.now = 2 * CHECKPOINT_SECONDS
    assert rig.view()[0].checkpoint != ""


def test_a_checkpoint_too_large_for_an_annotation_leaves_the_one_before() -> None:
    rig = Rig()
    rig.pools.fold_page(KEY, "a", page("1"))
    rig.now = CHECKPOINT_SECONDS
    before = rig.view()[0].checkpoint
    for number in range(700):
        rig.pools.fold_page(KEY, f"{number:0200d}", page("1"))
    rig.now = 2 * CHECKPOINT_SECONDS
    assert (bool(before), rig.view()[0].checkpoint) == (True, before)


def test_a_new_leader_goes_on_from_the_checkpoint_and_hears_nothing_twice() -> None:
    old = Rig()
    old.pools.fold_page(KEY, "a", page("1011"))
    old.pools.fold_page(KEY, "b", page("11"))
    old.now = CHECKPOINT_SECONDS
    written = old.view()[0].checkpoint
    new = Rig(replace(WANTED, checkpoint=written))
    assert (new.pools.find_start(KEY, "a"), new.pools.find_start(KEY, "b")) == (4, 2)
    for rig in (old, new):
        rig.pools.fold_page(KEY, "a", page("101101"))
    assert new.view()[0].evidence == old.view()[0].evidence


@pytest.mark.parametrize("stored", ["", "{", '{"key":{}}', "x" * 100])
def test_a_checkpoint_that_cannot_be_read_is_none(stored: str) -> None:
    rig = Rig(replace(WANTED, checkpoint=stored))
    rig.pools.fold_page(KEY, "a", page("1"))
    assert rig.pools.find_start(KEY, "a") == 1


def test_evidence_of_another_suite_is_not_taken_over() -> None:
    rig = Rig()
    rig.pools.fold_page(KEY, "a", page("0" * 40))
    assert rig.view()[0].evidence > 0.0
    rig.pools.set_request(KEY, replace(WANTED, key=replace(WANTED.key, suite_hash="n" * 64)))
    assert rig.view()[0].evidence == 0.0


def test_an_acknowledgement_ends_the_pools_alarm_for_this_leader_and_the_next() -> None:
    rig = Rig()
    for pod in "ab":
        rig.pools.fold_page(KEY, pod, page("0" * 40))
    written = rig.view(a="12:00")[0].checkpoint
    token = replace(WANTED, acknowledged="t2", checkpoint=written)
    new = Rig(token)
    rig.pools.set_request(KEY, token)
    for leader in (rig, new):
        view, _ = leader.view()
        assert (view.evidence, view.without_worst, view.worst, view.before_alarm) == (0.0, 0.0, "", {})
        assert view.is_of("credit-1", HASH, "t2")
        assert leader.pools.find_start(KEY, "a") == 40
        leader.pools.fold_page(KEY, "a", page("0" * 80, acknowledged="", acknowledged_after=0))
        leader.pools.fold_page(KEY, "a", page("0" * 80, acknowledged="t2", acknowledged_after=80))
        assert (leader.view()[0].evidence, leader.pools.find_start(KEY, "a")) == (0.0, 80)
        leader.pools.fold_page(KEY, "a", page("0" * 120, acknowledged="t2", acknowledged_after=80))
        assert leader.view()[0].evidence >= 1


def test_what_was_swept_before_an_alarm_is_not_forgotten_with_the_leader() -> None:
    old = Rig()
    for pod in "ab":
        old.pools.fold_page(KEY, pod, page("0" * 40))
    view, _ = old.view(a="12:00", b="12:01")
    new = Rig(replace(WANTED, checkpoint=view.checkpoint))
    assert new.view(a="13:00", b="13:01")[0].before_alarm == {"a": "12:00", "b": "12:01"}


def test_a_pod_that_comes_back_out_of_quarantine_is_heard_once() -> None:
    rig = Rig()
    rig.pools.fold_page(KEY, "a", page("0" * 8))
    rig.pools.fold_page(KEY, "b", page("1" * 8))
    rig.pools.set_request(KEY, replace(WANTED, pods=frozenset({"b"}), quarantined_pods=frozenset({"a"})))
    rig.pools.fold_page(KEY, "a", page("0" * 60))
    rig.pools.set_request(KEY, WANTED)
    rig.pools.fold_page(KEY, "a", page("0" * 8))
    once = Rig()
    once.pools.fold_page(KEY, "b", page("1" * 8))
    once.pools.fold_page(KEY, "a", page("0" * 8))
    assert rig.view()[0].evidence == once.view()[0].evidence


def test_a_pod_in_quarantine_is_taken_out_of_the_pool_and_not_asked() -> None:
    rig = Rig()
    rig.pools.fold_page(KEY, "a", page("0" * 40))
    rig.pools.fold_page(KEY, "b", page("1" * 40))
    assert rig.view()[0].evidence >= 1
    rig.pools.set_request(KEY, replace(WANTED, pods=frozenset({"b"}), quarantined_pods=frozenset({"a"})))
    assert rig.view()[0].evidence < 1
    assert rig.pools.find_start(KEY, "a") is None


def test_a_pod_that_is_gone_leaves_its_evidence() -> None:
    rig = Rig()
    rig.pools.fold_page(KEY, "a", page("0" * 40))
    rig.pools.set_request(KEY, replace(WANTED, pods=frozenset({"b"})))
    assert rig.view()[0].evidence >= 1


def test_what_nobody_wants_is_dropped_and_told_of_no_more() -> None:
    rig = Rig()
    rig.view()
    assert [(key, pool.key.revision) for key, pool in rig.evidence] == [(KEY, "credit-1")]
    rig.pools.set_request(KEY, None)
    assert rig.pools.read_view(KEY, dict) is None
