"""A new version of the suite beside the one that counts: the watch goes on, and no slip in the new one says anything."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

import pytest

from r1plus_contract import metrics
from r1plus_contract.monitor.admission import read_token
from r1plus_contract.suites.suite import load_suite
from r1plus_contract.suites.suite_reference import write_reference
from r1plus_contract.verdict import Gate, GateReport, Phase, Verdict, WatchStanding
from r1plus_monitoring.probe.client import Failure, ProbeReply
from r1plus_monitoring.process.prober import Prober
from support.monitoring.replaying import OWN, WRONG, alter_unseen
from support.monitoring.scripted import (
    ADDITIONS,
    WHOLE_GATE,
    Pod,
    ScriptedEngine,
    comes_to,
    decide,
    gate_report,
    loaded,
    metric,
    running,
    small_suite,
    stored_state,
    until,
    watched,
    watching,
)
from support.waiting import eventually

NEW = small_suite(strata=("letters", "numbers"))
NEW_SUITE = load_suite(*NEW)
NEW_HASH = NEW_SUITE.header.sha256
NEW_ITEMS = {item.id for item in NEW_SUITE.items}
LETTERS = {item for item in NEW_ITEMS if item.startswith("letters")}
OLD_HASH = loaded().header.sha256


@contextlib.asynccontextmanager
async def serving(pod: Pod, engine: ScriptedEngine) -> AsyncIterator[Prober]:
    """Run a prober that watches by the small suite; tests then mount another one."""
    pod.mount()
    async with watched(pod, engine) as prober:
        yield prober


def shadow_gate(prober: Prober) -> GateReport | None:
    shadow = prober.publisher.report.shadow
    return shadow.gate if shadow else None


async def gate_on_the_new_suite(prober: Prober) -> GateReport:
    """Wait until the suite that is asked beside has been decided on."""
    return await eventually(lambda: shadow_gate(prober), "a gate on the new suite", period_s=0.005)


def said(prober: Prober) -> tuple[WatchStanding | None, Verdict | None]:
    """What the watch says by the suite that counts, and the gate by the new one."""
    report, gate = prober.publisher.report, shadow_gate(prober)
    return report.watch.standing if report.watch else None, gate.verdict if gate else None


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(set(), Verdict.PASS), (LETTERS, Verdict.FAIL)], ids=["a sound one", "one that is lost"]
)
async def test_the_watch_goes_on_by_the_former_suite_until_the_new_one_counts(
    pod: Pod, wrong: set[str], verdict: Verdict
) -> None:
    engine = ScriptedEngine(wrong=wrong)
    async with serving(pod, engine) as prober:
        page = prober.publisher.build_outcome_page(0)
        pod.mount(suite=NEW, former=small_suite())
        gate, report = await gate_on_the_new_suite(prober), prober.publisher.report
        assert (gate.verdict, gate.suite_hash, gate.batch) == (verdict, NEW_HASH, 1)
        assert (report.verdict, report.suite_hash, report.admitted) == (Verdict.PASS, OLD_HASH, True)
        assert report.watch is not None
        assert report.watch.standing is WatchStanding.STEADY
        after = prober.publisher.build_outcome_page(0)
        assert (after.epoch, after.suite_hash) == (page.epoch, OLD_HASH)
        assert after.newest > page.newest, "the watch was never cut off"
        assert not {outcome.item for outcome in after.outcomes} & NEW_ITEMS
        shadowed = metric(prober, metrics.SHADOW_PROBE_RESULTS_TOTAL)
        assert shadowed == sum(item in NEW_ITEMS for item in engine.asked)
        assert metric(prober, metrics.PROBE_RESULTS_TOTAL, task="letters") == 0
        assert metric(prober, metrics.PROBE_RESULTS_TOTAL, outcome="incorrect") == 0
        probes = shadowed + metric(prober, metrics.PROBE_RESULTS_TOTAL)
        assert metric(prober, metrics.PROBE_TOKENS_TOTAL, direction="prompt") == 5 * probes

        token = read_token(pod.admission)
        pod.mount(suite=NEW)
        await until(lambda: prober.publisher.report.suite_hash == NEW_HASH, "the new suite")
        report = await watching(prober)
        assert (report.verdict, report.gate, report.shadow) == (verdict, gate, None)
        assert read_token(pod.admission) == token, "a token that stands is never taken back"


async def test_a_fall_by_the_former_suite_is_seen_while_the_new_one_is_asked(pod: Pod) -> None:
    engine = ScriptedEngine()
    async with serving(pod, engine) as prober:
        engine.delay = 0.002
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: prober.publisher.report.shadow, "a shadow")
        engine.wrong |= ADDITIONS
        await until(lambda: said(prober)[0] is WatchStanding.BELOW_THRESHOLD, "the former suite's count")
        assert prober.publisher.report.verdict is Verdict.FAIL


@pytest.mark.unit_slow
@pytest.mark.parametrize("restarted", [False, True], ids=["a prober that lives", "a prober that was killed meanwhile"])
async def test_what_a_pod_that_had_fallen_failed_is_asked_anew_once_it_is_mended_and_acknowledged(
    pod: Pod, restarted: bool
) -> None:
    engine = ScriptedEngine()
    async with contextlib.AsyncExitStack() as stack:
        prober = await stack.enter_async_context(serving(pod, engine))
        engine.wrong |= ADDITIONS | LETTERS
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: said(prober) == (WatchStanding.BELOW_THRESHOLD, Verdict.FAIL), "a fall, by both suites")
        if restarted:
            await stack.aclose()
        engine.wrong.clear()
        pod.mount(suite=NEW, former=small_suite(), acknowledged="mended")
        if restarted:
            prober = await stack.enter_async_context(running(pod, engine))

        def mended() -> bool:
            assert said(prober) != (WatchStanding.STEADY, Verdict.FAIL)
            return said(prober) == (WatchStanding.STEADY, Verdict.PASS)

        await until(mended, "a watch that is steady, and another gate on the new suite")


async def test_how_far_it_is_is_told_in_tens(pod: Pod) -> None:
    seen: set[tuple[int, bool]] = set()

    async def note_progress(prompt: str, before: int) -> None:
        if shadow := prober.publisher.report.shadow:
            seen.add((shadow.percent, shadow.gate is None))

    engine = ScriptedEngine()
    async with serving(pod, engine) as prober:
        engine.behaviour = note_progress
        pod.mount(suite=NEW, former=small_suite())
        await gate_on_the_new_suite(prober)
        await until(lambda: (100, False) in seen, "its end told")
    assert {percent % 10 for percent, _ in seen} == {0}
    assert {undecided for percent, undecided in seen if percent < 100} == {True}
    assert len(seen) > 3


async def test_a_killed_prober_goes_on_from_half_of_it(pod: Pod) -> None:
    engine = ScriptedEngine()
    async with serving(pod, engine) as prober:
        engine.delay = 0.01
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: stored_state(pod).shadow, "half of a gate in the file")
    half = stored_state(pod).shadow
    assert half is not None
    done = sum(len(row) - row.count(".") for row in half.record.full.values())
    assert done > 0
    again = ScriptedEngine()
    async with running(pod, again) as prober:
        await gate_on_the_new_suite(prober)
        assert sum(item in NEW_ITEMS for item in again.asked) == WHOLE_GATE - done
    assert stored_state(pod).shadow is None


async def test_what_another_pod_found_is_not_asked_again(pod: Pod) -> None:
    known = gate_report(pod, NEW_SUITE, verdict=Verdict.FAIL, reason="TooManyLost", lost=9, batch=1)
    engine = ScriptedEngine()
    async with serving(pod, engine) as prober:
        pod.mount(suite=NEW, former=small_suite(), known=(known,))
        await until(lambda: shadow_gate(prober) == known, "what was found")
        assert not set(engine.asked) & NEW_ITEMS


@pytest.mark.parametrize("changed", [{"threshold": 0.9}, {"suite": small_suite(strata=("letters", "words"))}], ids=["another threshold", "yet another suite"])  # fmt: skip
async def test_another_suite_or_threshold_is_asked_afresh(pod: Pod, changed: dict[str, object]) -> None:
    is_changed = asyncio.Event()

    async def hold_back(prompt: str, before: int) -> None:
        """The first gate on the new suite is not over before something is changed."""
        if prompt in NEW_ITEMS and before > 0:
            await is_changed.wait()

    engine = ScriptedEngine()
    async with serving(pod, engine) as prober:
        engine.behaviour = hold_back
        pod.mount(suite=NEW, former=small_suite())
        await until(lambda: (s := prober.publisher.report.shadow) and s.percent >= 20, "a fifth of it")
        pod.mount(**{"suite": NEW, "former": small_suite(), **changed})  # type: ignore[arg-type]
        await until(lambda: (s := prober.publisher.report.shadow) and s.percent < 20, "another gate")
        is_changed.set()
        gate = await gate_on_the_new_suite(prober)
        assert gate.threshold == changed.get("threshold", 0.96)
        assert (gate.suite_hash == NEW_HASH) is ("suite" not in changed)
        assert gate.probes == WHOLE_GATE


async def test_a_suite_that_is_not_what_it_promises_is_told_and_stops_nothing(pod: Pod) -> None:
    engine = ScriptedEngine()
    async with serving(pod, engine) as prober:
        pod.mount(suite=NEW, promised_hash="0" * 64, former=small_suite())
        await until(lambda: prober.publisher.report.shadow, "a shadow")
        report = prober.publisher.report
        assert report.shadow is not None
        assert report.shadow.problem.startswith("SuiteHashMismatch: ")
        assert (report.verdict, report.suite_hash) == (Verdict.PASS, OLD_HASH)
        asked = len(engine.asked)
        await until(lambda: len(engine.asked) > asked + 50, "the watch")
        assert not set(engine.asked) & NEW_ITEMS


async def test_a_scorer_that_breaks_ends_the_shadow_before_it_finds_anything(pod: Pod) -> None:
    async def break_scorer(prompt: str, before: int) -> None:
        if prompt in NEW_ITEMS:
            engine.behaviour = None
            alter_unseen(pod, "former-reference.jsonl")

    engine = ScriptedEngine(wrong=LETTERS)
    async with serving(pod, engine) as prober:
        pod.mount(suite=NEW, former=small_suite())
        (pod.accuracy / "former-reference.jsonl").write_text(write_reference([OWN, WRONG]))
        engine.behaviour = break_scorer
        report = await comes_to(prober, Phase.BLOCKED)
        assert (report.reason, report.shadow) == ("SuiteMismatch", None)
        assert NEW_HASH not in [known.suite_hash for known in stored_state(pod).reports]
        (pod.accuracy / "former-reference.jsonl").write_text(write_reference([OWN, WRONG]))
        await gate_on_the_new_suite(prober)


async def test_a_gate_that_decides_nothing_is_begun_again(pod: Pod) -> None:
    unreachable = sorted(LETTERS)[:5]

    async def absent(prompt: str, before: int) -> ProbeReply | None:
        return ProbeReply(failure=Failure.TRANSPORT) if prompt in unreachable and before < 5 else None

    async with serving(pod, ScriptedEngine(behaviour=absent)) as prober:
        pod.mount(suite=NEW, former=small_suite())
        assert (await gate_on_the_new_suite(prober)).verdict is Verdict.PASS


async def test_a_candidate_is_judged_by_the_new_suite_alone(pod: Pod) -> None:
    pod.mount(suite=NEW, former=small_suite(), former_for=("another",))
    engine = ScriptedEngine()
    report = await decide(pod, engine)
    assert (report.verdict, report.suite_hash, report.shadow) == (Verdict.PASS, NEW_HASH, None)
    assert set(engine.asked) == NEW_ITEMS


async def test_a_pod_that_may_not_serve_asks_nothing_beside_its_gate(pod: Pod) -> None:
    pod.mount(suite=NEW, former=small_suite())
    engine = ScriptedEngine(wrong=ADDITIONS)
    report = await decide(pod, engine)
    assert (report.verdict, report.admitted) == (Verdict.FAIL, False)
    assert not set(engine.asked) & NEW_ITEMS
    assert report.shadow is not None
    assert dataclasses.replace(report.shadow, suite="") == dataclasses.replace(report.shadow, suite="", percent=0)


@pytest.mark.unit_slow
async def test_the_gate_of_the_one_and_the_watch_of_the_other_are_asked_one_at_a_time_each(pod: Pod) -> None:
    pod.mount(gate=Gate.OBSERVE)
    engine = ScriptedEngine(delay=0.001)
    async with watched(pod, engine) as prober:
        pod.mount(suite=NEW, former=small_suite(), gate=Gate.OBSERVE)
        await gate_on_the_new_suite(prober)
        assert engine.most_running == 2
