"""Recorded answers of the reference through the live scorer: as recorded, or nothing is decided and somebody is paged."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from r1plus_contract import metrics
from r1plus_contract.monitor.admission import read_token
from r1plus_contract.suites.suite import Item
from r1plus_contract.suites.suite_reference import RecordedAnswer, read_reference
from r1plus_contract.verdict import Gate, MonitorReport, Phase, Verdict
from r1plus_monitoring.curate.record import read_suite
from r1plus_monitoring.process.prober import Prober
from r1plus_monitoring.scoring.replay import PER_STRATUM, record, replay
from r1plus_monitoring.scoring.scorers import score
from r1plus_monitoring.scoring.sources import read_sources
from support.monitoring.replaying import CUT, OWN, WRONG, alter_unseen, give
from support.monitoring.scripted import Pod, ScriptedEngine, loaded, running, stored_state, until, watched, watching

SUITE = loaded()
SUITES = Path(__file__).parents[3] / "monitoring" / "suites"


@pytest.mark.parametrize(
    ("recorded", "differing"),
    [
        pytest.param((), (), id="nothing recorded, nothing differs"),
        pytest.param((OWN, WRONG, CUT), (), id="every score as it was"),
        pytest.param((OWN, replace(OWN, score="incorrect")), ("item additions-000: incorrect as recorded, correct now",), id="a scorer that calls right what it called wrong"),
        pytest.param((replace(WRONG, score="correct"), CUT), ("item additions-000: correct as recorded, incorrect now",), id="and the other way round"),
        pytest.param((replace(CUT, score="correct"), WRONG, replace(WRONG, score="correct")), ("item capitals-001: correct as recorded, incorrect now", "item additions-000: correct as recorded, incorrect now"), id="each one that differs"),
    ],
)  # fmt: skip
def test_replay(recorded: Sequence[RecordedAnswer], differing: tuple[str, ...]) -> None:
    assert replay(SUITE, recorded) == differing


ITEMS = tuple(
    Item(f"{stratum}-{n}", stratum, f"{stratum} {n}?", "contains", (f"answer {n}",))
    for stratum in ("loans", "savings")
    for n in range(9)
)
ANSWERS = {item.id: (f"It is {item.answers[0]}.", "stop") for item in ITEMS}


def test_what_is_recorded_has_right_and_wrong_answers_of_every_stratum_and_is_small() -> None:
    made = record(ITEMS, ANSWERS, seed=1)
    for stratum in ("loans", "savings"):
        scores = [one.score for one in made if one.item.startswith(stratum)]
        assert scores.count("correct") >= PER_STRATUM
        assert scores.count("incorrect") >= PER_STRATUM
    assert len(made) <= 2 * 3 * PER_STRATUM
    assert len(set(made)) == len(made)


def test_a_scorer_that_calls_everything_right_or_everything_wrong_is_found_out() -> None:
    """By the record itself, since the scorer cannot be exchanged: it holds both scores for one item."""
    made = record(ITEMS, ANSWERS, seed=1)
    both = {one.item for one in made if one.score == "correct"} & {one.item for one in made if one.score == "incorrect"}
    assert len(both) >= PER_STRATUM


@given(
    st.dictionaries(st.sampled_from([item.id for item in ITEMS]), st.tuples(st.text(max_size=20), st.just("stop"))),
    st.integers(),
)
def test_whatever_was_recorded_replays_as_it_was(answers: dict[str, tuple[str, str]], seed: int) -> None:
    made = record(ITEMS, answers, seed)
    by_id = {item.id: item for item in ITEMS}
    assert all(score(by_id[one.item], one.answer, one.finish_reason) == one.score for one in made)
    assert record(ITEMS, answers, seed) == made


@pytest.mark.parametrize(
    "name", ["smollm2-full-v1", "smollm2-lite-v1", "smollm2-edge-v1", "qwen-lite-v1", "qwen-full-v1"]
)
def test_the_shipped_suites_hold_answers_of_their_reference_that_replay(name: str) -> None:
    suite = read_suite(SUITES / name)
    recorded = read_reference((SUITES / name / "reference.jsonl").read_bytes().decode(), suite)
    assert replay(suite, recorded) == ()
    assert {one.score for one in recorded} == {"correct", "incorrect"}
    strata = {item.id: item.stratum for item in suite.items}
    assert {strata[one.item] for one in recorded} == set(suite.strata())


# -- In the prober -----------------------------------------------------------------------------------------------------


pytestmark = pytest.mark.usefixtures("mounted")


def remove(pod: Pod) -> None:
    give(pod, OWN)
    (pod.accuracy / "reference.jsonl").unlink()


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        pytest.param(lambda pod: give(pod, WRONG, replace(OWN, score="incorrect")), "item additions-000: incorrect as recorded, correct now", id="another score than recorded"),
        pytest.param(lambda pod: give(pod, *[replace(OWN, item=f"additions-00{n}", score="incorrect") for n in range(5)]), "additions-002: incorrect as recorded, correct now and 2 more", id="many of them"),
        pytest.param(lambda pod: give(pod, OWN, promised="0" * 64), "its sha256 is not 000", id="other answers than the operator has taken"),
        pytest.param(remove, "its sha256 is not", id="answers that are gone"),
        pytest.param(lambda pod: (pod.accuracy / "reference.jsonl").write_text("{"), "reference.jsonl:1: RecordedAnswer: not JSON", id="answers that are none"),
        pytest.param(lambda pod: (pod.accuracy / "reference.jsonl").write_bytes(b"\xff"), "cannot be read", id="answers that are no text"),
    ],
)  # fmt: skip
def test_a_mismatch_takes_the_suite_away(pod: Pod, mount: Callable[[Pod], None], words: str) -> None:
    mount(pod)
    found = read_sources(pod.accuracy)
    assert found.problem is not None
    assert (found.problem.reason, found.suite, found.replay_passed) == ("SuiteMismatch", None, False)
    assert words in found.problem.message
    assert "accuracy is unknown; restore the suite" in found.problem.message


def test_answers_that_replay_say_so_and_without_any_nothing_is_claimed(pod: Pod) -> None:
    assert read_sources(pod.accuracy).replay_passed is None
    give(pod, OWN, WRONG, CUT)
    found = read_sources(pod.accuracy)
    assert (found.problem, found.replay_passed, found.suite is not None) == (None, True, True)


def test_an_older_operator_promises_no_hash(pod: Pod) -> None:
    give(pod, OWN, promised="")
    assert read_sources(pod.accuracy).replay_passed is True


def replays(prober: Prober) -> list[float]:
    """Return what the metric of the replay says, if it says anything."""
    families = text_string_to_metric_families(prober.exposition.render().decode())
    return [sample.value for family in families for sample in family.samples if sample.name == metrics.SCORER_REPLAY]


async def mismatch(prober: Prober) -> MonitorReport:
    """Wait until the prober decides nothing any more since its scorer is not what it was."""
    await until(lambda: prober.publisher.report.reason == "SuiteMismatch", "a mismatch")
    assert prober.publisher.report.verdict is Verdict.NO_DATA
    return prober.publisher.report


async def test_a_mismatch_is_no_data_never_pass_and_mended_it_goes_on(pod: Pod) -> None:
    give(pod, replace(OWN, score="incorrect"))
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        assert (await mismatch(prober)).phase is Phase.BLOCKED
        assert replays(prober) == [0.0]
        assert (read_token(pod.admission), engine.asked) == (None, [])
        give(pod, OWN)
        assert (await watching(prober)).verdict is Verdict.PASS
        assert replays(prober) == [1.0]


@pytest.mark.unit_slow
async def test_answers_are_replayed_again_in_time_though_no_file_seems_to_have_changed(pod: Pod) -> None:
    give(pod, OWN, WRONG)
    async with running(pod, ScriptedEngine(), replay_every=0.2) as prober:
        gate = (await watching(prober)).gate
        alter_unseen(pod)
        await mismatch(prober)
        assert replays(prober) == [0.0]
    give(pod, OWN, WRONG)
    async with running(pod, ScriptedEngine(), replay_every=0.02) as prober:
        sweep = (await watching(prober)).sweep
        await until(lambda: prober.publisher.report.sweep is not sweep, "a sweep that no replay cuts off")
        assert (prober.publisher.report.gate, prober.publisher.report.verdict) == (gate, Verdict.PASS)


async def test_before_an_alarm_is_counted_the_scorer_is_asked_whether_it_is_what_it_was(pod: Pod) -> None:
    give(pod, OWN, WRONG)
    engine = ScriptedEngine()
    async with watched(pod, engine) as prober:
        alter_unseen(pod)
        engine.wrong = {item.id for item in SUITE.items}
        assert (await mismatch(prober)).phase is Phase.BLOCKED
        watch = stored_state(pod).watch
        assert watch is not None
        assert watch.alarmed_at
        assert watch.confirmed is None, "nothing was counted by it"


async def test_before_a_gate_fails_the_scorer_is_asked_whether_it_is_what_it_was(pod: Pod) -> None:
    async def break_scorer(item: str, before: int) -> None:
        if (item, before) == (engine.asked[0], 0):
            alter_unseen(pod)

    give(pod, OWN, WRONG)
    engine = ScriptedEngine(wrong={item.id for item in SUITE.items}, behaviour=break_scorer)
    async with running(pod, engine) as prober:
        assert (await mismatch(prober)).phase is Phase.BLOCKED
        assert stored_state(pod).reports == ()


async def test_a_scorer_found_broken_beside_traffic_takes_the_verdict_and_leaves_the_token(pod: Pod) -> None:
    pod.mount(gate=Gate.OBSERVE)
    async with watched(pod, ScriptedEngine()) as prober:
        assert replays(prober) == []
        token = read_token(pod.admission)
        give(pod, replace(OWN, score="incorrect"))
        await mismatch(prober)
        assert read_token(pod.admission) == token
