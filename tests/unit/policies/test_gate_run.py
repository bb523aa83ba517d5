"""The gate as a state machine: what it asks, when, and that a restart changes nothing; then its power, by simulation."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.verdict import Verdict
from r1plus_policies.gate.run import SINGLE, GateRecord, GateRun, Probe
from r1plus_policies.gate.verdict import GateItem, GateReason, Rules, Score
from support.examples import count_examples
from support.tables import for_each

C, F, X = Score.CORRECT, Score.FAILED, Score.UNSCORED
Answer = Callable[[Probe], Score]


def items(n: int = 12, strata: int = 2) -> list[GateItem]:
    return [GateItem(f"i{i:03}", f"s{i % strata}") for i in range(n)]


def run_to_end(run: GateRun, answer: Answer, batch: int = 4, most: int = 100_000) -> list[Probe]:
    """Keep the slots full, answer the oldest first; the probes in the order asked."""
    asked: list[Probe] = []
    flying: list[Probe] = []
    while run.decision is None and len(asked) < most:
        new = run.next_probes(batch - len(flying))
        asked += new
        flying += new
        assert flying, "nothing in flight and nothing decided"
        probe = flying.pop(0)
        run.record(probe, answer(probe))
    return asked


def test_a_sound_engine_is_asked_everything_once_per_sweep() -> None:
    run = GateRun(items(), Rules(0.9, 4), GateRecord(1))
    asked = run_to_end(run, lambda _: C)
    assert Counter(p.sweep for p in asked) == {0: 12, 1: 12, 2: 12, SINGLE: 12}
    assert all(Counter(p.item for p in asked if p.sweep == s) == {i.id: 1 for i in items()} for s in (0, 1, 2, SINGLE))
    assert run.decision.verdict is Verdict.PASS
    assert (run.probe_count, run.probe_total) == (48, 48)


def test_every_sweep_has_an_order_of_its_own() -> None:
    asked = run_to_end(GateRun(items(), Rules(0.9, 4), GateRecord(1)), lambda _: C)
    orders = {tuple(p.item for p in asked if p.sweep == s) for s in (0, 1, 2, SINGLE)}
    assert len(orders) == 4


def test_slots_are_full_across_sweeps_and_single_at_batch_1() -> None:
    run = GateRun(items(), Rules(0.9, 4), GateRecord(1))
    first = run.next_probes(100)
    assert len(first) == 36, "three sweeps, and none of batch 1 while they fly"
    for probe in first:
        run.record(probe, C)
    alone = run.next_probes(100)
    assert [p.sweep for p in alone] == [SINGLE]
    assert run.next_probes(100) == ()


def test_a_failure_at_batch_1_is_asked_twice_more() -> None:
    def answer(probe: Probe) -> Score:
        return F if probe.sweep == SINGLE and probe.item == "i003" and singles.pop() else C

    singles = [False, False, True]
    run = GateRun(items(), Rules(0.5, 4), GateRecord(1))
    asked = run_to_end(run, answer)
    assert [p.item for p in asked if p.sweep == SINGLE].count("i003") == 3
    assert (run.probe_count, run.probe_total) == (50, 50)
    assert run.decision.figures.lost_items == ()


@for_each("unscored, verdict", {
    "twice without a score and then right is a Pass": (2, Verdict.PASS),
    "three times without a score is not": (3, Verdict.INCONCLUSIVE),
})  # fmt: skip
@pytest.mark.parametrize("sweep", [0, 1, 2, SINGLE])
def test_retries_without_a_score(unscored: int, verdict: Verdict, sweep: int) -> None:
    def answer(probe: Probe) -> Score:
        return X if (probe.item, probe.sweep) == ("i005", sweep) and probe.attempt < unscored else C

    run = GateRun(items(), Rules(0.9, 4), GateRecord(1))
    run_to_end(run, answer)
    assert run.decision.verdict is verdict


def test_only_missing_scores_are_retried_never_failures() -> None:
    run = GateRun(items(), Rules(0.1, 4), GateRecord(1))
    asked = run_to_end(run, lambda p: F if p.item == "i002" else C)
    assert Counter(p.item for p in asked if p.sweep != SINGLE)["i002"] == 3


def test_a_bad_engine_fails_after_two_sweeps() -> None:
    run = GateRun(items(), Rules(0.9, 4), GateRecord(1))
    asked = run_to_end(run, lambda _: F)
    assert (run.decision.reason, len(run.decision.figures.lost_items)) == (GateReason.TOO_MANY_LOST, 12)
    assert len(asked) <= 24 + 3
    assert run.next_probes(10) == ()


def test_a_slow_answer_of_a_sweep_does_not_let_half_of_the_next_one_decide() -> None:
    run = GateRun(items(), Rules(0.9, 4), GateRecord(1))
    slow, *others = run.next_probes(12 + 5)
    assert Counter(probe.sweep for probe in others) == {0: 11, 1: 5}
    for probe in (*others, slow):
        run.record(probe, F)
    assert run.decision is None, "one whole sweep loses nothing, though five items have failed twice"
    run_to_end(run, lambda _: F)
    assert len(run.decision.figures.lost_items) == 12


def test_progress_in_words() -> None:
    run = GateRun(items(), Rules(0.9, 4), GateRecord(1))
    for probe in run.next_probes(12 + 5):
        run.record(probe, C)
    assert run.progress_text == "sweep 2 of 3 at batch 4: 5 of 12"
    for probe in run.next_probes(19):
        run.record(probe, C)
    assert run.progress_text == "sweep at batch 1: 0 of 12"


@settings(max_examples=count_examples(60))
@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(1, 6))
def test_a_restart_at_any_point_asks_only_what_is_missing(seed: int, cut: int, batch: int) -> None:
    chance = random.Random(seed)
    bad = {(i.id, s): chance.random() < 0.1 for i in items() for s in (0, 1, 2, SINGLE)}

    def answer(probe: Probe) -> Score:
        return F if bad[probe.item, probe.sweep] else C

    rules = Rules(0.6, batch)
    whole = GateRun(items(), rules, GateRecord(seed))
    run_to_end(whole, answer, batch)
    first = GateRun(items(), rules, GateRecord(seed))
    run_to_end(first, answer, batch, most=cut)
    stored = loads(GateRecord, dumps(first.snapshot()))
    second = GateRun(items(), rules, stored)
    if second.decision is None:
        asked = run_to_end(second, answer, batch)
        assert not [p for p in asked if p.sweep != SINGLE and stored.full.get(p.item, "...")[p.sweep] != "."]
    assert second.decision.verdict is whole.decision.verdict


@settings(max_examples=count_examples(60))
@given(st.data())
def test_whatever_the_order_of_answers_the_run_ends_and_a_pass_has_every_score(data: st.DataObject) -> None:
    run = GateRun(items(8), Rules(0.7, 3), GateRecord(data.draw(st.integers(0, 1000))))
    flying: list[Probe] = []
    for _ in range(2000):
        if run.decision is not None:
            break
        flying += run.next_probes(data.draw(st.integers(0, 3)) if flying else 3)
        probe = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
        run.record(probe, data.draw(st.sampled_from([C, C, C, C, F, X])))
    assert run.decision is not None
    if run.decision.verdict is Verdict.PASS:
        assert all(None not in s.full and s.single and not s.unscored for s in run.scores)


@for_each("misuse, words", {
    "no items": (lambda: GateRun([], Rules(0.9, 1), GateRecord(1)), "at least one"),
    "a record of another suite":
        (lambda: GateRun(items(), Rules(0.9, 1), GateRecord(1, {"other": "1.."})), "item other is not in the suite"),
    "a score that nobody asked for":
        (lambda: GateRun(items(), Rules(0.9, 1), GateRecord(1)).record(Probe("i000", 0), C), "not in flight"),
})  # fmt: skip
def test_misuse_is_refused(misuse: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        misuse()


# At N = 200 three sweeps pass a healthy engine .9993 of the time, fail 3 % broken always and +4 %
# per request .996 of the time. Runs here are fewer and seeded, so that each expectation is a range.
@for_each("broken, flip, passes", {
    "a healthy engine passes": (0, 0.01, (0.95, 1.0)),
    "two items lost for good pass": (2, 0.01, (0.9, 1.0)),
    "3 % of items lost for good fail": (6, 0.01, (0.0, 0.0)),
    "10 % fail": pytest.param(20, 0.01, (0.0, 0.0), marks=pytest.mark.unit_long),
    "40 % fail": pytest.param(80, 0.01, (0.0, 0.0), marks=pytest.mark.unit_long),
    "four more percent at random fail as unstable": (0, 0.0496, (0.0, 0.05)),
    "nine more percent at random fail": pytest.param(0, 0.0991, (0.0, 0.0), marks=pytest.mark.unit_long),
})  # fmt: skip
def test_the_power_of_the_gate(broken: int, flip: float, passes: tuple[float, float]) -> None:
    population, runs, passed = items(200, 4), 60, 0
    for seed in range(runs):
        chance = random.Random(seed)
        bad = {population[i].id for i in range(broken)}
        run = GateRun(population, Rules(0.98, 16), GateRecord(seed))
        run_to_end(run, lambda p, bad=bad, chance=chance: F if p.item in bad or chance.random() < flip else C, 16)  # type: ignore[misc]
        passed += run.decision.verdict is Verdict.PASS
    assert passes[0] <= passed / runs <= passes[1]
