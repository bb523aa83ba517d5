"""A new version of the suite beside the one that counts: the watch goes on, and no slip in the new one says anything."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from r1plus_contract import metrics
from r1plus_contract.admission import read_token
from r1plus_contract.suite import SCORER_VERSION, load_suite
from r1plus_contract.suite_reference import write_reference
from r1plus_contract.verdict import Gate, GateReport, Phase, Standing, Verdict
from r1plus_monitoring.client import Failure, Reply
from r1plus_monitoring.prober import Prober
from r1plus_monitoring.state import StateStore
from unit.monitoring.scripted import Pod, ScriptedEngine, loaded, running, small_suite, until, watching
from unit.monitoring.test_replay import OWN, WRONG, alter_unseen

NEW = small_suite(strata=("letters", "numbers"))
NEW_HASH = load_suite(*NEW).header.sha256
NEW_ITEMS = {item.id for item in load_suite(*NEW).items}
LETTERS = {item for item in NEW_ITEMS if item.startswith("letters")}
OLD_HASH = loaded().header.sha256
WHOLE_GATE = 200


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path)


def counted(prober: Prober, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(prober.exposition.text().decode())
    samples = [s for family in families for s in family.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def decided(prober: Prober) -> GateReport | None:
    shadow = prober.bulletin.report.shadow
    return shadow.gate if shadow else None


def said(prober: Prober) -> tuple[Standing | None, Verdict | None]:
    """What the watch says by the suite that counts, and the gate by the new one."""
    report, gate = prober.bulletin.report, decided(prober)
    return report.watch.standing if report.watch else None, gate.verdict if gate else None


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(set(), Verdict.PASS), (LETTERS, Verdict.FAIL)], ids=["a sound one", "one that is lost"]
)
async def test_the_watch_goes_on_by_the_former_suite_until_the_new_one_counts(
    pod: Pod, wrong: set[str], verdict: Verdict
) -> None:
    pod.mount()
    engine = ScriptedEngine(wrong=wrong)
    async with running(pod, engine) as prober:
        await watching(prober)
        page = prober.bulletin.outcomes(0)
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: decided(prober) is not None, "a gate on the new suite")
        report, gate = prober.bulletin.report, decided(prober)
        assert gate is not None
        assert (gate.verdict, gate.suite_hash, gate.batch) == (verdict, NEW_HASH, 1)
        assert (report.verdict, report.suite_hash, report.admitted) == (Verdict.PASS, OLD_HASH, True)
        assert report.watch is not None
        assert report.watch.standing is Standing.STEADY
        after = prober.bulletin.outcomes(0)
        assert (after.epoch, after.suite_hash) == (page.epoch, OLD_HASH)
        assert after.newest > page.newest, "the watch was never cut off"
        assert not {outcome.item for outcome in after.outcomes} & NEW_ITEMS
        shadowed = counted(prober, metrics.SHADOW_PROBE_RESULTS_TOTAL)
        assert shadowed == sum(item in NEW_ITEMS for item in engine.asked)
        assert counted(prober, metrics.PROBE_RESULTS_TOTAL, task="letters") == 0
        assert counted(prober, metrics.PROBE_RESULTS_TOTAL, outcome="incorrect") == 0
        probes = shadowed + counted(prober, metrics.PROBE_RESULTS_TOTAL)
        assert counted(prober, metrics.PROBE_TOKENS_TOTAL, direction="prompt") == 5 * probes

        token = read_token(pod.admission)
        pod.mount(suite=NEW)
        await until(lambda: prober.bulletin.report.suite_hash == NEW_HASH, "the new suite")
        report = await watching(prober)
        assert (report.verdict, report.gate, report.shadow) == (verdict, gate, None)
        assert read_token(pod.admission) == token, "a token that stands is never taken back"


async def test_a_fall_by_the_former_suite_is_seen_while_the_new_one_is_asked(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await watching(prober)
        engine.delay = 0.002
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: prober.bulletin.report.shadow is not None, "a shadow")
        engine.wrong |= {f"additions-{n:03}" for n in range(25)}

        def fell() -> bool:
            said = prober.bulletin.report.watch
            return said is not None and said.standing is Standing.BELOW_THRESHOLD

        await until(fell, "the former suite's count", 60)
        assert prober.bulletin.report.verdict is Verdict.FAIL


@pytest.mark.parametrize("restarted", [False, True], ids=["a prober that lives", "a prober that was killed meanwhile"])
async def test_what_a_pod_that_had_fallen_failed_is_asked_anew_once_it_is_mended_and_acknowledged(
    pod: Pod, restarted: bool
) -> None:
    pod.mount()
    engine = ScriptedEngine()
    async with contextlib.AsyncExitStack() as stack:
        prober = await stack.enter_async_context(running(pod, engine))
        await watching(prober)
        engine.wrong |= {f"additions-{n:03}" for n in range(25)} | LETTERS
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: said(prober) == (Standing.BELOW_THRESHOLD, Verdict.FAIL), "a fall, by both suites", 60)
        if restarted:
            await stack.aclose()
        engine.wrong.clear()
        pod.mount(suite=NEW, former=small_suite(), acknowledged="mended")
        if restarted:
            prober = await stack.enter_async_context(running(pod, engine))

        def mended() -> bool:
            assert said(prober) != (Standing.STEADY, Verdict.FAIL)
            return said(prober) == (Standing.STEADY, Verdict.PASS)

        await until(mended, "a watch that is steady, and another gate on the new suite", 60)


async def test_how_far_it_is_is_told_in_tens(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await watching(prober)
        engine.delay = 0.002
        pod.mount(suite=NEW, former=small_suite())
        seen = set()

        def over() -> bool:
            if shadow := prober.bulletin.report.shadow:
                seen.add((shadow.percent, shadow.gate is None))
            return decided(prober) is not None

        await until(over, "a gate on the new suite")
        assert {percent % 10 for percent, _ in seen} == {0}
        assert {undecided for percent, undecided in seen if percent < 100} == {True}
        assert (100, False) in seen
        assert len(seen) > 3


async def test_a_killed_prober_goes_on_from_half_of_it(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await watching(prober)
        engine.delay = 0.01
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: StateStore(pod.state).state.shadow is not None, "half of a gate in the file")
    half = StateStore(pod.state).state.shadow
    assert half is not None
    done = sum(len(row) - row.count(".") for row in half.record.full.values())
    assert done > 0
    again = ScriptedEngine()
    async with running(pod, again) as prober:
        await until(lambda: decided(prober) is not None, "a gate on the new suite")
        assert sum(item in NEW_ITEMS for item in again.asked) == WHOLE_GATE - done
    assert StateStore(pod.state).state.shadow is None


async def test_what_another_pod_found_is_not_asked_again(pod: Pod) -> None:
    header = load_suite(*NEW).header
    known = GateReport(
        Verdict.FAIL, "TooManyLost", "said elsewhere", pod.identity.digest(), header.name, NEW_HASH, SCORER_VERSION,
        0.96, 50, 9, 2, batch=1,
    )  # fmt: skip
    pod.mount()
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await watching(prober)
        pod.mount(suite=NEW, former=small_suite(), known=(known,))
        await until(lambda: decided(prober) == known, "what was found")
        assert not set(engine.asked) & NEW_ITEMS


@pytest.mark.parametrize("changed", [{"threshold": 0.9}, {"suite": small_suite(strata=("letters", "words"))}], ids=["another threshold", "yet another suite"])  # fmt: skip
async def test_another_suite_or_threshold_is_asked_afresh(pod: Pod, changed: dict[str, object]) -> None:
    pod.mount()
    engine = ScriptedEngine(delay=0.0005)
    async with running(pod, engine) as prober:
        await watching(prober)
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: (s := prober.bulletin.report.shadow) is not None and s.percent >= 20, "a fifth of it")
        pod.mount(**{"suite": NEW, "former": small_suite(), **changed})  # type: ignore[arg-type]
        await until(lambda: decided(prober) is not None, "a gate")
        gate = decided(prober)
        assert gate is not None
        assert gate.threshold == changed.get("threshold", 0.96)
        assert (gate.suite_hash == NEW_HASH) is ("suite" not in changed)
        assert gate.probes == WHOLE_GATE


async def test_a_suite_that_is_not_what_it_promises_is_told_and_stops_nothing(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await watching(prober)
        pod.mount(suite=NEW, promised_hash="0" * 64, former=small_suite())
        await until(lambda: prober.bulletin.report.shadow is not None, "a shadow")
        report = prober.bulletin.report
        assert report.shadow is not None
        assert report.shadow.problem.startswith("SuiteHashMismatch: ")
        assert (report.verdict, report.suite_hash) == (Verdict.PASS, OLD_HASH)
        asked = len(engine.asked)
        await until(lambda: len(engine.asked) > asked + 50, "the watch")
        assert not set(engine.asked) & NEW_ITEMS


async def test_a_scorer_that_breaks_ends_the_shadow_before_it_finds_anything(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine(wrong=LETTERS)
    async with running(pod, engine) as prober:
        await watching(prober)
        engine.delay = 0.01
        pod.mount(suite=NEW, former=small_suite())
        (pod.accuracy / "former-reference.jsonl").write_text(write_reference([OWN, WRONG]))
        await until(lambda: bool(set(engine.asked) & NEW_ITEMS), "a shadow")
        alter_unseen(pod, "former-reference.jsonl")
        await until(lambda: prober.bulletin.report.phase is Phase.BLOCKED, "blocked")
        assert (prober.bulletin.report.reason, prober.bulletin.report.shadow) == ("SuiteMismatch", None)
        assert NEW_HASH not in [known.suite_hash for known in StateStore(pod.state).state.reports]
        (pod.accuracy / "former-reference.jsonl").write_text(write_reference([OWN, WRONG]))
        await until(lambda: decided(prober) is not None, "a gate by a scorer that is sound again")


async def test_a_gate_that_decides_nothing_is_begun_again(pod: Pod) -> None:
    pod.mount()

    async def absent(prompt: str, before: int) -> Reply | None:
        return Reply(failure=Failure.TRANSPORT) if prompt in LETTERS and before < 5 else None

    engine = ScriptedEngine(behaviour=absent)
    async with running(pod, engine) as prober:
        await watching(prober)
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: decided(prober) is not None, "a gate on the new suite", 60)
        gate = decided(prober)
        assert gate is not None
        assert gate.verdict is Verdict.PASS


async def test_a_candidate_is_judged_by_the_new_suite_alone(pod: Pod) -> None:
    pod.mount(suite=NEW, former=small_suite(), former_for=("another",))
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert (report.verdict, report.suite_hash, report.shadow) == (Verdict.PASS, NEW_HASH, None)
        assert set(engine.asked) == NEW_ITEMS


async def test_a_pod_that_may_not_serve_asks_nothing_beside_its_gate(pod: Pod) -> None:
    pod.mount(suite=NEW, former=small_suite())
    engine = ScriptedEngine(wrong={f"additions-{n:03}" for n in range(25)})
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert (report.verdict, report.admitted) == (Verdict.FAIL, False)
        assert not set(engine.asked) & NEW_ITEMS
        assert report.shadow is not None
        assert dataclasses.replace(report.shadow, suite="") == dataclasses.replace(report.shadow, suite="", percent=0)


async def test_the_gate_of_the_one_and_the_watch_of_the_other_are_asked_one_at_a_time_each(pod: Pod) -> None:
    pod.mount(gate=Gate.OBSERVE)
    engine = ScriptedEngine(delay=0.001)
    async with running(pod, engine) as prober:
        await watching(prober)
        pod.mount(suite=NEW, former=small_suite(), gate=Gate.OBSERVE)
        await until(lambda: decided(prober) is not None, "a gate on the new suite")
        assert engine.most_running == 2
