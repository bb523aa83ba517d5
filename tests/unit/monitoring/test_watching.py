"""The watch on a scripted engine: alarm, count, standing; and that no death of anything loses evidence."""

import asyncio
import dataclasses
import socket
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from r1plus_contract import metrics as names
from r1plus_contract.jsonable import loads
from r1plus_contract.monitor.admission import read_token
from r1plus_contract.monitor.outcomes import MOST_OUTCOMES, OutcomePage, ProbeResult
from r1plus_contract.verdict import Gate, GateReport, MonitorReport, Phase, Verdict, WatchStanding
from r1plus_monitoring.probe.client import ProbeReply
from r1plus_monitoring.process.prober import Prober
from r1plus_monitoring.report.web import serve
from r1plus_monitoring.store.state import StateStore
from r1plus_policies.detector.detector import DetectorEvidence, observe_answer
from r1plus_policies.watch.memory import WatchState
from support.monitoring.scripted import (
    ADDITIONS,
    Pod,
    ScriptedEngine,
    gate_report,
    loaded,
    running,
    stored_state,
    until,
    watched,
    watching,
)

SOUND_SWEEP = 50
ASKED_BY_A_GATE = 4
"""Times that it asks a sound item: three sweeps at the batch, one at batch 1."""


pytestmark = pytest.mark.usefixtures("mounted")


def standing(prober: Prober) -> WatchStanding | None:
    return prober.publisher.report.watch.standing if prober.publisher.report.watch else None


async def stands_at(prober: Prober, wanted: WatchStanding) -> MonitorReport:
    await until(lambda: standing(prober) is wanted, wanted.value)
    return prober.publisher.report


async def another_sweep(prober: Prober, correct: int) -> None:
    before = prober.publisher.report.sweep
    await until(
        lambda: (s := prober.publisher.report.sweep) is not before and s is not None and s.correct == correct, "a sweep"
    )


def stored(pod: Pod) -> WatchState:
    found = stored_state(pod).watch
    assert found is not None
    return found


def passed_but_for(pod: Pod, *lost: str, verdict: Verdict = Verdict.PASS) -> GateReport:
    return gate_report(pod, verdict=verdict, lost=len(lost), lost_items=lost)


async def test_an_engine_that_falls_is_found_counted_and_stays_below_until_somebody_says_so(pod: Pod) -> None:
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        gate = (await watching(prober)).gate
        assert standing(prober) is WatchStanding.STEADY
        engine.wrong = ADDITIONS
        report = await stands_at(prober, WatchStanding.BELOW_THRESHOLD)
        assert (report.verdict, report.reason, report.gate) == (Verdict.FAIL, "AccuracyBelowThreshold", gate)
        assert report.message == (
            "25 items lost since the gate: additions 25; 25 of 50 lost in all, 2 allowed at threshold 0.96; "
            "share of right first answers at most 0.716 (alpha 0.001)"
        )
        assert report.watch is not None
        assert report.watch.confirmation is not None
        assert (report.watch.confirmation.correct, report.watch.confirmation.total) == (25, 50)
        assert (report.watch.evidence, report.watch.lost_since_gate) == (1.0, tuple(sorted(ADDITIONS)))
        text = prober.exposition.render().decode()
        assert (
            f'{names.STANDING}{{deployment="credit",namespace="bank",revision="credit-1",standing="BelowThreshold"}} 1.0'
            in text
        )
        assert f'{names.CONFIRMED_RATIO}{{deployment="credit",namespace="bank",revision="credit-1"}} 0.5' in text
        assert read_token(pod.admission) is not None
        engine.wrong = set()
        await another_sweep(prober, SOUND_SWEEP)
        assert (prober.publisher.report.verdict, standing(prober)) == (Verdict.FAIL, WatchStanding.BELOW_THRESHOLD)


async def test_a_change_above_the_threshold_is_told_and_one_that_grows_is_counted_again(pod: Pod) -> None:
    engine = ScriptedEngine()
    async with watched(pod, engine) as prober:
        engine.wrong = {"capitals-003"}
        report = await stands_at(prober, WatchStanding.CHANGED)
        assert (report.verdict, report.reason) == (Verdict.PASS, "AccuracyChanged")
        assert (
            report.message == "1 item lost since the gate: capitals 1; 1 of 50 lost in all, 2 allowed at threshold 0.96"
        )
        engine.wrong = {"capitals-003", "capitals-004", "capitals-005", "additions-001"}
        report = await stands_at(prober, WatchStanding.BELOW_THRESHOLD)
        assert "4 items lost since the gate: capitals 3, additions 1" in report.message


async def test_counting_is_said_and_goes_on_after_a_restart_and_only_counts_once(pod: Pod) -> None:
    engine = ScriptedEngine()
    hold, counted = asyncio.Event(), list[str]()

    async def slow(item: str, before: int) -> ProbeReply | None:
        if standing(prober) is WatchStanding.CONFIRMING:
            counted.append(item)
            if len(counted) > 10:
                await hold.wait()
        return None

    async with watched(pod, engine) as prober:
        engine.wrong, engine.behaviour = ADDITIONS, slow
        report = await stands_at(prober, WatchStanding.CONFIRMING)
        assert (report.verdict, report.reason) == (Verdict.PASS, "AccuracyConfirming")
        assert "lost items are being counted over all 50" in report.message
        await until(lambda: len(counted) > 10, "a count under way")
    counting = stored(pod).counting
    assert counting is not None
    second = ScriptedEngine(wrong=ADDITIONS)
    async with running(pod, second) as prober:
        await stands_at(prober, WatchStanding.BELOW_THRESHOLD)
    assert stored(pod).confirmed is not None
    assert stored(pod).confirmed.seed == counting.seed  # type: ignore[union-attr]


async def test_an_acknowledged_alarm_ends_with_a_pass_of_the_gates_sweeps(pod: Pod) -> None:
    engine = ScriptedEngine(wrong=set())
    async with watched(pod, engine) as prober:
        engine.wrong = ADDITIONS
        await stands_at(prober, WatchStanding.BELOW_THRESHOLD)
        before = prober.publisher.build_outcome_page(0)
        assert (before.acknowledged, before.acknowledged_after) == ("", 0)
        pod.mount(acknowledged="first")
        await until(lambda: stored(pod).acknowledged == "first", "an answer to the acknowledgement")
        report = prober.publisher.report
        assert (report.verdict, standing(prober)) == (Verdict.FAIL, WatchStanding.BELOW_THRESHOLD), "nothing was mended"
        assert (report.threshold, report.acknowledged) == (0.96, "first")
        engine.wrong, engine.most_running = set(), 0
        pod.mount(acknowledged="second")
        report = await stands_at(prober, WatchStanding.STEADY)
        assert (report.verdict, report.reason, report.acknowledged) == (Verdict.PASS, "Passed", "second")
        assert report.watch is not None
        assert report.watch.alarmed_at == ""
        assert stored(pod).accuracy.alarmed is False
        assert engine.most_running == 1, "traffic flows meanwhile"
        page = prober.publisher.build_outcome_page(0)
        assert (page.acknowledged, page.acknowledged_after >= before.newest) == ("second", True)
        assert all(o.result is ProbeResult.CORRECT for o in page.outcomes if o.sequence > page.acknowledged_after)
        gate = report.gate
        await another_sweep(prober, SOUND_SWEEP)
        assert prober.publisher.report.gate is gate, "an acknowledgement is acted on once"


@pytest.mark.unit_slow
async def test_a_pod_that_is_born_under_an_acknowledgement_has_nothing_to_acknowledge(pod: Pod) -> None:
    pod.mount(acknowledged="long ago")
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        gate = (await watching(prober)).gate
        await another_sweep(prober, SOUND_SWEEP)
        assert stored(pod).acknowledged == "long ago"
        page = prober.publisher.build_outcome_page(0)
        assert (page.acknowledged, page.acknowledged_after) == ("long ago", 0)
        assert prober.publisher.report.gate is gate, "the gate was not run again"


async def test_a_lower_threshold_judges_the_same_count_anew(pod: Pod) -> None:
    engine = ScriptedEngine()
    async with watched(pod, engine) as prober:
        engine.wrong = {f"additions-{n:03}" for n in range(4)}
        await stands_at(prober, WatchStanding.BELOW_THRESHOLD)
        pod.mount(threshold=0.5)
        report = await stands_at(prober, WatchStanding.CHANGED)
        assert (report.verdict, report.threshold) == (Verdict.PASS, 0.5)


async def test_nothing_is_lost_and_no_number_given_twice_when_the_prober_dies(pod: Pod) -> None:
    async def wrong_after_its_gate(prompt: str, before: int) -> ProbeReply | None:
        return ProbeReply("no", "stop", 5, 1) if prompt == "capitals-003" and before >= ASKED_BY_A_GATE else None

    engine = ScriptedEngine(behaviour=wrong_after_its_gate)
    pages: list[OutcomePage] = []
    for _ in range(3):
        async with running(pod, engine) as prober:
            await watching(prober)
            begun = prober.publisher.build_outcome_page(0).newest
            await until(lambda: prober.publisher.build_outcome_page(0).newest > begun + 20, "outcomes")  # noqa: B023
            pages.append(prober.publisher.build_outcome_page(0))
    assert len({page.epoch for page in pages}) == 1
    assert pages[0].outcomes == pages[2].outcomes[: len(pages[0].outcomes)]
    assert [o.sequence for o in pages[2].outcomes] == list(range(1, pages[2].newest + 1))
    results = [o.result for o in pages[2].outcomes if o.item == "capitals-003"]
    assert results == [ProbeResult.INCORRECT] * len(results)


async def test_evidence_is_the_same_whether_the_prober_died_or_not(pod: Pod) -> None:
    """The journal is ahead of the state file by up to a second; what it holds is heard again, once."""
    engine = ScriptedEngine()
    async with watched(pod, engine) as prober:
        engine.wrong = {"capitals-003"}
        await until(lambda: prober.publisher.build_outcome_page(0).newest > 120, "outcomes")
    behind, journal = stored(pod), prober.publisher.build_outcome_page(0)
    assert behind.sequence <= journal.newest
    async with running(pod, ScriptedEngine(is_ready=False)) as prober:
        await until(lambda: prober.publisher.report.reason == "WaitingForModel", "a restart")
    engine = ScriptedEngine(wrong={"capitals-003"})
    async with running(pod, engine) as prober:
        await until(lambda: stored(pod).sequence >= journal.newest, "the rest heard")
        first = stored(pod)
    fresh = dataclasses.replace(first.accuracy, evidence=DetectorEvidence(), failed=())
    for outcome in prober.publisher.build_outcome_page(0).outcomes[: first.sequence]:
        fresh = observe_answer(fresh, outcome.item, outcome.result is ProbeResult.CORRECT)
    assert first.accuracy == fresh


async def test_evidence_that_a_version_with_five_bets_stored_is_kept(pod: Pod) -> None:
    async with watched(pod, ScriptedEngine()) as prober:
        await until(lambda: bool(stored(pod).accuracy.evidence.logs), "evidence stored")
    newest, watch = prober.publisher.build_outcome_page(0).newest, stored(pod)
    five = dataclasses.replace(watch.accuracy, evidence=DetectorEvidence((9.0, 1.0, -2.0, 3.0, 0.0)))
    StateStore(pod.state).save(
        dataclasses.replace(stored_state(pod), watch=dataclasses.replace(watch, accuracy=five, sequence=newest))
    )
    async with watched(pod, ScriptedEngine(answers=0)):
        assert stored(pod).accuracy.ratio == pytest.approx(five.ratio)
        assert stored(pod).accuracy.evidence != five.evidence


async def test_a_lost_state_file_is_made_up_from_the_outcomes(pod: Pod) -> None:
    engine = ScriptedEngine()
    async with watched(pod, engine) as prober:
        engine.wrong = {"capitals-003"}
        await until(lambda: prober.publisher.build_outcome_page(0).newest > 120, "outcomes")
    epoch, newest = prober.publisher.build_outcome_page(0).epoch, prober.publisher.build_outcome_page(0).newest
    (pod.state / "state.json").unlink()
    pod.mount(known=(passed_but_for(pod),))
    # It answers nothing: an answer that is right would take back what is to be seen.
    async with watched(pod, ScriptedEngine(answers=0)) as prober:
        assert stored(pod).sequence >= newest
        assert stored(pod).accuracy.failed == ("capitals-003",)
        assert prober.publisher.build_outcome_page(0).epoch == epoch


@pytest.mark.unit_slow
async def test_a_lost_journal_is_a_new_epoch_and_no_lost_evidence(pod: Pod) -> None:
    async with watched(pod, ScriptedEngine(wrong=set())) as prober:
        await another_sweep(prober, SOUND_SWEEP)
        epoch = prober.publisher.build_outcome_page(0).epoch
        await until(lambda: bool(stored(pod).accuracy.evidence.logs), "evidence stored")
    evidence = stored(pod).accuracy.evidence
    (pod.state / "outcomes.jsonl").unlink()
    async with watched(pod, ScriptedEngine(answers=0)) as prober:
        page = prober.publisher.build_outcome_page(0)
        assert (page.epoch != epoch, page.oldest, page.newest) == (True, 1, 0)
        assert stored(pod).accuracy.evidence == evidence


@pytest.mark.parametrize("hours", [pytest.param(1, id="an hour ahead"), pytest.param(-1, id="an hour behind")])
async def test_a_clock_that_is_off_is_no_alarm_and_loses_nothing(pod: Pod, hours: int) -> None:
    engine = ScriptedEngine()
    async with watched(pod, engine) as prober:
        await another_sweep(prober, SOUND_SWEEP)
    newest = prober.publisher.build_outcome_page(0).newest
    async with watched(pod, engine, clock=lambda: datetime.now(UTC) + timedelta(hours=hours)) as prober:
        await another_sweep(prober, SOUND_SWEEP)
        assert (standing(prober), prober.publisher.report.verdict) == (WatchStanding.STEADY, Verdict.PASS)
        page = prober.publisher.build_outcome_page(0)
        assert page.newest > newest
        kept = range(max(1, page.newest - MOST_OUTCOMES + 1), page.newest + 1)
        assert [o.sequence for o in page.outcomes] == list(kept)


@pytest.mark.unit_slow
async def test_what_the_gate_had_lost_is_not_watched(pod: Pod) -> None:
    pod.mount(known=(passed_but_for(pod, "capitals-001", "capitals-002"),))
    async with watched(pod, ScriptedEngine(wrong={"capitals-001", "capitals-002"})) as prober:
        for _ in range(3):
            await another_sweep(prober, SOUND_SWEEP - 2)
        page = prober.publisher.build_outcome_page(0)
        assert page.watched == 48
        assert {"capitals-001", "capitals-002"}.isdisjoint(o.item for o in page.outcomes)
        assert standing(prober) is WatchStanding.STEADY


async def test_where_the_gate_stopped_early_the_first_sweep_tells_what_is_watched(pod: Pod) -> None:
    pod.mount(gate=Gate.OBSERVE, known=(passed_but_for(pod, *sorted(ADDITIONS)[:3], verdict=Verdict.FAIL),))
    async with running(pod, ScriptedEngine(wrong=ADDITIONS)) as prober:
        report = await watching(prober)
        assert report.watch is not None
        assert report.watch.watched == 0
        await until(lambda: prober.publisher.build_outcome_page(0).watched == 25, "a first sweep")
        await until(lambda: prober.publisher.build_outcome_page(0).newest > 30, "outcomes")
        assert ADDITIONS.isdisjoint(o.item for o in prober.publisher.build_outcome_page(0).outcomes)
        assert (standing(prober), prober.publisher.report.reason) == (WatchStanding.STEADY, "Passed")


async def test_a_refused_pod_is_not_watched(pod: Pod) -> None:
    async with running(pod, ScriptedEngine(wrong=ADDITIONS)) as prober:
        report = await watching(prober)
        assert (report.verdict, report.watch) == (Verdict.FAIL, None)
        assert (report.threshold, report.acknowledged) == (0.96, None)
        page = prober.publisher.build_outcome_page(0)
        assert (page.epoch, page.watched, page.newest, page.outcomes) == ("", 0, 0, ())


async def test_a_busy_engine_is_asked_less_and_the_skips_are_counted(pod: Pod) -> None:
    engine = ScriptedEngine(queue=7)
    async with watched(pod, engine) as prober:
        asked, looks = len(engine.asked), engine.looks
        await until(lambda: len(engine.asked) > asked + 5, "the floor")
        assert engine.looks - looks >= 4 * 5
        assert b'reason="engine_busy",revision="credit-1"} 0.0' not in prober.exposition.render()


async def test_the_steadiness_cannot_be_one(pod: Pod) -> None:
    pod.mount(steadiness=1.0)
    async with running(pod, ScriptedEngine()) as prober:
        await until(lambda: prober.publisher.report.phase is Phase.BLOCKED, "blocked")
        report = prober.publisher.report
        assert (report.verdict, report.reason) == (Verdict.NO_DATA, "SettingsInvalid")
        assert report.message.startswith("steadiness: 1.0 must be at least 0.5 and below 1")


async def test_outcomes_over_http(pod: Pod) -> None:
    async with watched(pod, ScriptedEngine()) as prober:
        await until(lambda: prober.publisher.build_outcome_page(0).newest > 10, "outcomes")
        runner = await serve(prober.publisher, prober.exposition, socket.create_server(("127.0.0.1", 0)))
        try:
            host, port = runner.addresses[0][:2]
            async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
                async with session.get("/outcomes?since=4") as response:
                    page = loads(OutcomePage, await response.read())
                    assert page.outcomes[0].sequence == 5
                    assert (page.revision, page.suite_hash) == ("credit-1", loaded().header.sha256)
                for bad in ("-1", "x", "1.5", "9" * 40, "٣"):
                    async with session.get("/outcomes", params={"since": bad}) as response:
                        assert response.status == 400
                        assert "must be a whole number, 0 or more" in await response.text()
        finally:
            await runner.cleanup()


async def test_a_stricter_threshold_keeps_a_counted_drop_and_repeats_the_gate_at_the_fast_pace(pod: Pod) -> None:
    engine = ScriptedEngine(wrong={"additions-000", "additions-001"})
    async with running(pod, engine) as prober:
        assert (await watching(prober)).verdict is Verdict.PASS
        engine.wrong = {f"additions-{n:03}" for n in range(8)}
        await stands_at(prober, WatchStanding.BELOW_THRESHOLD)
        seen: list[MonitorReport] = []
        publish = prober.publisher.update

        def update(**changes: object) -> None:
            publish(**changes)
            seen.append(prober.publisher.report)

        prober.publisher.update = update  # type: ignore[method-assign]
        pod.mount(threshold=0.98, probes_per_minute=1)
        await until(lambda: any(r.threshold == 0.98 and r.watch for r in seen), "a report under the new threshold")
        report = prober.publisher.report
        assert (report.verdict, report.reason, report.phase) == (Verdict.FAIL, "AccuracyBelowThreshold", Phase.WATCHING)
        assert "1 allowed at threshold 0.98" in report.message
        assert all(
            r.watch and r.watch.standing is WatchStanding.BELOW_THRESHOLD for r in seen if r.phase is Phase.GATING
        )
        await until(lambda: (g := prober.publisher.report.gate) is not None and g.threshold == 0.98, "the gate's Fail")
        assert prober.publisher.report.verdict is Verdict.FAIL


async def test_a_sound_engine_under_a_stricter_threshold_is_watched_while_its_gate_is_repeated(pod: Pod) -> None:
    engine = ScriptedEngine(wrong={"additions-000", "additions-001"})
    async with watched(pod, engine) as prober:
        asked, gate_asks = len(engine.asked), asyncio.Event()
        engine.wrong = set()

        async def hold(item: str, before: int) -> ProbeReply | None:
            await gate_asks.wait()
            return None

        engine.behaviour = hold
        pod.mount(threshold=0.98, probes_per_minute=1)
        await until(lambda: (r := prober.publisher.report).threshold == 0.98 and r.watch is not None, "the watch")
        report = prober.publisher.report
        assert (report.verdict, report.phase, report.reason) == (Verdict.NO_DATA, Phase.GATING, "GateRunning")
        assert report.watch is not None
        assert report.watch.standing is WatchStanding.STEADY
        gate_asks.set()
        await until(lambda: prober.publisher.report.verdict is Verdict.PASS, "the Pass")
        assert prober.publisher.report.gate is not None
        assert prober.publisher.report.gate.threshold == 0.98
        assert len(engine.asked) - asked >= ASKED_BY_A_GATE * SOUND_SWEEP
