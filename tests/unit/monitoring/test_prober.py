"""The prober from mounted files to token and report, on a scripted engine."""

import asyncio
import itertools
import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import pytest

from r1plus_contract.monitor.admission import Admission, read_token
from r1plus_contract.monitor.settings import ControlOrder
from r1plus_contract.verdict import Gate, GateReport, Phase, Verdict, WatchStanding
from r1plus_monitoring.probe.client import Failure, ProbeReply
from r1plus_monitoring.process.prober import Prober
from r1plus_monitoring.session.watch import RAISED_PER_MINUTE
from support.monitoring.scripted import (
    ADDITIONS,
    WHOLE_GATE,
    Pod,
    ScriptedEngine,
    comes_to,
    decide,
    gate_report,
    running,
    small_suite,
    stored_state,
    until,
    watched,
    watching,
)


def failed(pod: Pod) -> GateReport:
    return gate_report(pod, verdict=Verdict.FAIL, reason="TooManyLost", lost=9)


async def reads_settings(pod: Pod, prober: Prober, pace: int) -> None:
    """Mount settings of another pace, and wait until the prober has looked at its files and taken them over."""
    pod.mount(probes_per_minute=pace)
    await until(lambda: prober._settings is not None and prober._settings.probes_per_minute == pace, "the pace")


async def test_a_sound_engine_passes_and_is_admitted(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine(delay=0.001)
    report = await decide(pod, engine)
    assert (report.verdict, report.reason, report.admitted) == (Verdict.PASS, "Passed", True)
    assert report.gate is not None
    assert (report.gate.items, report.gate.lost, report.gate.allowed) == (50, 0, 2)
    assert report.gate.probes == WHOLE_GATE
    token = read_token(pod.admission)
    assert token is not None
    assert (token.identity, token.verdict, token.gate) == (pod.identity.digest(), Verdict.PASS, Gate.ENFORCE)
    assert engine.most_running == pod.identity.batch


async def test_a_bad_engine_fails_and_is_never_admitted(pod: Pod) -> None:
    pod.mount()
    report = await decide(pod, ScriptedEngine(wrong=ADDITIONS))
    assert (report.verdict, report.reason, report.admitted) == (Verdict.FAIL, "TooManyLost", False)
    assert report.message.startswith("lost 25 of 50 items, 2 allowed at threshold 0.96; additions 25 of 25")
    assert read_token(pod.admission) is None


async def test_a_refusal_says_how_many_probes_had_no_answer(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()

    async def starve(item: str, before: int) -> ProbeReply | None:
        return ProbeReply(failure=Failure.TIMEOUT) if item in ADDITIONS else None

    engine.behaviour = starve
    report = await decide(pod, engine)
    assert (report.verdict, report.reason) == (Verdict.FAIL, "TooManyLost")
    assert re.search("; [5-9][0-9] probes timed out and 0 got a server error, which count", report.message), (
        report.message
    )


async def test_a_refused_engine_is_not_asked_any_more(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine(wrong=ADDITIONS)
    async with watched(pod, engine) as prober:
        asked = len(engine.asked)
        for pace in (50_000, 60_000, 70_000):
            await reads_settings(pod, prober, pace)
        assert len(engine.asked) == asked


async def test_nothing_is_admitted_while_the_gate_runs(pod: Pod) -> None:
    tokens: list[Admission | None] = []

    async def note_token(item: str, before: int) -> None:
        tokens.append(read_token(pod.admission))

    pod.mount()
    await decide(pod, ScriptedEngine(behaviour=note_token))
    assert tokens[:WHOLE_GATE] == [None] * WHOLE_GATE
    assert read_token(pod.admission) is not None


async def test_observe_admits_at_once_and_judges_beside_the_traffic(pod: Pod) -> None:
    pod.mount(gate=Gate.OBSERVE)
    engine = ScriptedEngine(wrong=ADDITIONS, is_ready=False)
    async with running(pod, engine) as prober:
        await until(lambda: prober.publisher.report.reason == "WaitingForModel", "waiting for the model")
        assert read_token(pod.admission) is None
        engine.is_ready = True
        await until(lambda: read_token(pod.admission), "a token")
        report = await watching(prober)
        assert (report.verdict, report.admitted) == (Verdict.FAIL, True)
        assert engine.most_running == 1
        assert report.sweep is not None
        assert report.sweep.correct == 25
        assert read_token(pod.admission) is not None


async def test_the_first_gate_beside_traffic_is_as_fast_as_a_count(pod: Pod) -> None:
    """Nothing else watches the pod until it has decided."""
    pod.mount(gate=Gate.OBSERVE, probes_per_minute=1)
    clock = itertools.count(step=60 / RAISED_PER_MINUTE)
    async with running(pod, ScriptedEngine(wrong=ADDITIONS), monotonic=lambda: next(clock)) as prober:
        assert (await watching(prober)).verdict is Verdict.FAIL


def order(pod: Pod, token: str = "credit@1.0") -> ControlOrder:
    return ControlOrder(pod.identity.digest(), token)


# The operator tells the newest verdict first. A Pass of batch 1 was won beside traffic, and lets no new pod in.
@pytest.mark.parametrize(
    ("mounted", "wrong", "expected"),
    [
        pytest.param(lambda pod: {"known": (gate_report(pod),)}, set(),
                     {"verdict": Verdict.PASS, "message": "said elsewhere", "admitted": True},
                     id="a known Pass needs a short check only"),
        pytest.param(lambda pod: {"known": (gate_report(pod), gate_report(pod, control="credit@1.0")),
                                  "control": order(pod)}, set(),
                     {"gate.control": "credit@1.0", "gate.message": "said elsewhere"},
                     id="a further pod of a control that passed needs a short check only"),
        pytest.param(lambda pod: {"known": (gate_report(pod),), "control": ControlOrder("0" * 64, "credit@1.0")}, set(),
                     {"gate.control": "", "message": "said elsewhere"},
                     id="an order about another revision is passed over"),
        pytest.param(lambda pod: {"known": (gate_report(pod),)}, ADDITIONS,
                     {"verdict": Verdict.FAIL, "reason": "TooManyLost", "admitted": False},
                     id="a pod that answers unlike its revision is gated in full"),
        pytest.param(lambda pod: {"known": (gate_report(pod, batch=1),)}, set(),
                     {"gate.batch": 4, "gate.probes": WHOLE_GATE},
                     id="a Pass won beside traffic at batch 1 does not spare the gate"),
        pytest.param(lambda pod: {"known": (gate_report(pod, batch=1, acknowledged="a token"), failed(pod))}, set(),
                     {"verdict": Verdict.PASS, "admitted": True, "gate.batch": 4},
                     id="a Fail that an acknowledgement replaced is not adopted by a new pod"),
        pytest.param(lambda pod: {"known": (failed(pod),), "threshold": 0.5}, set(), {"verdict": Verdict.PASS},
                     id="a lower threshold is a new question"),
        pytest.param(lambda pod: {"known": (gate_report(pod, threshold=0.9, lost=1),), "threshold": 0.98}, set(),
                     {"message": "said elsewhere"},
                     id="a passed gate under another threshold is read again from its figures"),
    ],
)  # fmt: skip
async def test_what_a_new_pod_takes_over(
    pod: Pod, mounted: Callable[[Pod], dict[str, Any]], wrong: set[str], expected: dict[str, object]
) -> None:
    assert pod.identity.batch == 4
    pod.mount(**mounted(pod))
    report = await decide(pod, ScriptedEngine(wrong=wrong))
    assert {path: attrgetter(path)(report) for path in expected} == expected
    assert (read_token(pod.admission) is not None) is report.admitted


async def test_a_pod_whose_failures_do_not_repeat_fails_its_short_check_and_is_gated_in_full(pod: Pod) -> None:
    """It loses no item: each capital is wrong when it is asked first, and right from then on."""

    async def err_once(prompt: str, before: int) -> ProbeReply | None:
        return ProbeReply("no", "stop", 5, 1) if prompt.startswith("capitals") and before == 0 else None

    pod.mount(known=(gate_report(pod),))
    engine = ScriptedEngine(behaviour=err_once)
    report = await decide(pod, engine)
    assert report.gate is not None
    assert (report.gate.probes, report.gate.failures, report.admitted) == (WHOLE_GATE, 5, True), "5 of 25 are not drawn"
    assert len(engine.asked) >= WHOLE_GATE + 80


async def test_a_known_fail_is_reported_again_and_not_retried(pod: Pod) -> None:
    pod.mount(known=(failed(pod),))
    engine = ScriptedEngine()
    report = await decide(pod, engine)
    assert (report.verdict, report.message, report.admitted) == (Verdict.FAIL, "said elsewhere", False)
    assert engine.asked == []


async def test_a_control_is_a_whole_gate_although_a_pass_is_known_and_says_which_order_it_answers(pod: Pod) -> None:
    pod.mount(known=(gate_report(pod),), gate=Gate.OBSERVE, control=order(pod))
    engine = ScriptedEngine(delay=0.001)
    async with running(pod, engine) as prober:
        await comes_to(prober, Phase.GATING)
        assert read_token(pod.admission) is None
        report = await watching(prober)
        assert report.gate is not None
        assert (report.gate.control, report.gate.probes, report.gate.batch) == ("credit@1.0", 200, pod.identity.batch)
        assert read_token(pod.admission) is not None


async def test_a_pod_that_serves_already_is_controlled_at_the_full_batch(pod: Pod) -> None:
    pod.mount()
    async with watched(pod, ScriptedEngine()) as prober:
        pod.mount(control=order(pod), probes_per_minute=1)
        await until(lambda: (gate := prober.publisher.report.gate) and gate.control, "a control")
        report = prober.publisher.report
        assert report.gate is not None
        assert (report.gate.control, report.gate.batch) == ("credit@1.0", pod.identity.batch)


async def test_whoever_turns_to_observe_lets_a_refused_engine_in_and_sees_it_watched(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine(wrong=ADDITIONS)) as prober:
        gate = (await watching(prober)).gate
        pod.mount(gate=Gate.OBSERVE)
        await until(lambda: read_token(pod.admission), "a token")
        await until(lambda: prober.publisher.report.sweep is not None, "a sweep")
        assert (prober.publisher.report.verdict, prober.publisher.report.gate) == (Verdict.FAIL, gate)


async def test_whoever_waits_sees_how_far_the_gate_is(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine(answers=64)) as prober:
        await until(lambda: (p := prober.publisher.report.progress) is not None and p.done > 60, "progress")
        report = prober.publisher.report
        assert report.progress is not None
        assert (report.phase, report.reason, report.progress.total) == (Phase.GATING, "GateRunning", 200)
        assert report.progress.text.startswith("sweep 2 of 3 at batch 4: ")
        assert report.progress.text.endswith(" of 50")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda p: p.mount(promised_hash="0" * 64), "SuiteHashMismatch", id="another hash is promised"),
        pytest.param(lambda p: p.mount(suite=(small_suite()[0], small_suite(20)[1]), promised_hash="0" * 64),
                     "SuiteHashMismatch", id="items were changed"),
        pytest.param(lambda p: None, "SettingsMissing", id="nothing is mounted"),
        pytest.param(lambda p: (p.mount(), (p.accuracy / "suite.json").unlink()), "SuiteMissing", id="no suite"),
        pytest.param(lambda p: (p.mount(), (p.accuracy / "settings.json").write_text("{}")), "SettingsInvalid",
                     id="settings lack fields"),
        pytest.param(lambda p: (p.mount(), (p.root / "revision" / "identity.json").unlink()), "IdentityMissing",
                     id="no identity"),
    ],
)  # fmt: skip
async def test_what_cannot_be_scored_is_no_data(pod: Pod, change: Callable[[Pod], object], reason: str) -> None:
    change(pod)
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        report = await comes_to(prober, Phase.BLOCKED)
        assert (report.verdict, report.reason) == (Verdict.NO_DATA, reason)
        assert read_token(pod.admission) is None
        assert engine.asked == []


async def test_a_mended_suite_unblocks(pod: Pod) -> None:
    pod.mount(promised_hash="0" * 64)
    async with running(pod, ScriptedEngine()) as prober:
        await comes_to(prober, Phase.BLOCKED)
        pod.mount()
        assert (await watching(prober)).verdict is Verdict.PASS


async def test_observe_admits_without_a_suite_but_not_without_an_identity(pod: Pod) -> None:
    pod.mount(gate=Gate.OBSERVE, promised_hash="0" * 64)
    async with running(pod, ScriptedEngine()) as prober:
        await until(lambda: read_token(pod.admission), "a token")
        assert prober.publisher.report.reason == "SuiteHashMismatch"
    (pod.admission / "token").unlink()
    (pod.root / "revision" / "identity.json").write_text("{}")
    async with running(pod, ScriptedEngine()) as prober:
        await until(lambda: prober.publisher.report.reason == "IdentityInvalid", "blocked")
        assert read_token(pod.admission) is None


async def test_a_new_suite_that_fails_moves_the_verdict_and_leaves_the_token(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()
    async with watched(pod, engine) as prober:
        first = read_token(pod.admission)
        engine.most_running = 0
        engine.wrong = ADDITIONS
        pod.mount(suite=small_suite(24))
        await until(lambda: prober.publisher.report.verdict is Verdict.FAIL, "a Fail on the new suite")
        await watching(prober)
        assert read_token(pod.admission) == first
        assert engine.most_running == 1, "traffic may flow: probes are guests"


async def test_an_engine_that_is_gone_is_no_evidence_but_errors_are(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()

    async def broken(item: str, before: int) -> ProbeReply | None:
        return ProbeReply(failure=Failure.SERVER_ERROR) if item in ADDITIONS else None

    async def gone(item: str, before: int) -> ProbeReply | None:
        engine.is_ready = False
        return ProbeReply(failure=Failure.TRANSPORT)

    async with running(pod, engine) as prober:
        await until(lambda: prober.publisher.report.sweep, "a sweep")
        await watching(prober)
        engine.behaviour = gone
        await until(lambda: not engine.is_ready, "the engine gone")
        before = prober.publisher.report.sweep
        asked, looks = len(engine.asked), engine.ready_looks
        await until(lambda: engine.ready_looks > looks + 10, "many looks for an engine that is gone")
        assert (prober.publisher.report.verdict, prober.publisher.report.sweep) == (Verdict.PASS, before)
        assert len(engine.asked) <= asked + 1
        engine.behaviour, engine.is_ready = broken, True
        await until(lambda: prober.publisher.report.reason == "ServerErrors", "server errors counted")
        report = prober.publisher.report
        assert report.verdict is Verdict.PASS, "what it answers is right"
        assert report.watch is not None
        assert report.watch.standing is WatchStanding.ERRORS
        assert (report.watch.error_evidence, report.watch.evidence) == (1.0, 0.0)
        assert "items got no answer, and the sweep stopped early because of errors" in report.message


async def test_a_gate_through_a_restart_of_the_engine_still_passes(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()

    async def crash_once(item: str, before: int) -> ProbeReply | None:
        if len(engine.asked) in range(60, 64):
            engine.is_ready = False
            asyncio.get_running_loop().call_later(0.05, setattr, engine, "is_ready", True)
            return ProbeReply(failure=Failure.TRANSPORT)
        return None

    engine.behaviour = crash_once
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert report.verdict is Verdict.PASS


async def test_an_item_without_a_score_is_inconclusive_and_the_gate_starts_anew(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()
    seen: list[str] = []

    async def never(item: str, before: int) -> ProbeReply | None:
        return ProbeReply(failure=Failure.TRANSPORT) if item == "capitals-007" else None

    engine.behaviour = never
    async with running(pod, engine) as prober:
        await until(lambda: prober.publisher.report.verdict is Verdict.INCONCLUSIVE, "inconclusive")
        assert read_token(pod.admission) is None
        assert prober.publisher.report.phase is Phase.GATING, "nobody watches what nobody let in"
        seen.append(prober.publisher.report.reason)
        engine.behaviour = None
        await until(lambda: prober.publisher.report.verdict is Verdict.PASS, "a Pass from a new gate")
    assert seen == ["ItemsUnscored"]


@pytest.mark.unit_slow
async def test_a_half_done_gate_goes_on_after_a_restart(pod: Pod) -> None:
    pod.mount()
    first, seconds = ScriptedEngine(), itertools.count()
    first.answers = 120
    # Scores are stored once a second: a clock on which each look is a second later has all of them stored.
    async with running(pod, first, monotonic=lambda: float(next(seconds))) as prober:
        await until(lambda: stored_scores(pod) > 100, "half a gate stored")
        sequence = prober.publisher.report.sequence
    stored = stored_scores(pod)
    second = ScriptedEngine()
    report = await decide(pod, second)
    assert report.verdict is Verdict.PASS
    assert report.gate is not None
    assert report.gate.probes == WHOLE_GATE
    assert report.sequence > sequence
    assert report.gate.decided_at
    assert stored > 100
    assert len(second.asked) >= WHOLE_GATE - stored


def stored_scores(pod: Pod) -> int:
    half = stored_state(pod).gate
    return sum(len(row.replace(".", "")) for row in half.record.full.values()) if half else 0


async def test_a_restart_after_the_token_watches_at_once(pod: Pod) -> None:
    pod.mount()
    await decide(pod, ScriptedEngine())
    engine = ScriptedEngine(answers=0)
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert (report.verdict, report.admitted) == (Verdict.PASS, True)
        await until(lambda: engine.most_running == 1, "a probe")


async def test_settings_that_change_the_pace_alone_do_not_start_anew(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine()) as prober:
        gate = (await watching(prober)).gate
        await reads_settings(pod, prober, 60_000)
        assert prober.publisher.report.gate == gate
        assert prober.publisher.report.phase is Phase.WATCHING
