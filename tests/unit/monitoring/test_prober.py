"""The prober from mounted files to token and report, on a scripted engine."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from r1plus_contract.admission import read_token
from r1plus_contract.settings import ControlOrder
from r1plus_contract.suite import SCORER_VERSION
from r1plus_contract.verdict import Gate, GateReport, Phase, Standing, Verdict
from r1plus_monitoring.client import Failure, Reply
from r1plus_monitoring.state import StateStore
from unit.monitoring.scripted import Pod, ScriptedEngine, loaded, running, small_suite, until, watching

ADDITIONS = {f"additions-{n:03}" for n in range(25)}


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path)


def known(pod: Pod, verdict: Verdict, threshold: float = 0.96, lost: int = 0) -> GateReport:
    suite = loaded()
    return GateReport(
        verdict=verdict,
        reason="Passed" if verdict is Verdict.PASS else "TooManyLost",
        message="said elsewhere",
        identity=pod.identity.digest(),
        suite=suite.header.name,
        suite_hash=suite.header.sha256,
        scorer_version=SCORER_VERSION,
        threshold=threshold,
        items=50,
        lost=lost,
        allowed=2,
        batch=pod.identity.batch,
    )


async def test_a_sound_engine_passes_and_is_admitted(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine(delay=0.001)
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert (report.verdict, report.reason, report.admitted) == (Verdict.PASS, "Passed", True)
        assert report.gate is not None
        assert (report.gate.items, report.gate.lost, report.gate.allowed) == (50, 0, 2)
        assert report.gate.probes == 200
        token = read_token(pod.admission)
        assert token is not None
        assert (token.identity, token.verdict, token.gate) == (pod.identity.digest(), Verdict.PASS, Gate.ENFORCE)
        assert engine.most_running == pod.identity.batch


async def test_a_bad_engine_fails_and_is_never_admitted(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine(wrong=ADDITIONS)) as prober:
        report = await watching(prober)
        assert (report.verdict, report.reason, report.admitted) == (Verdict.FAIL, "TooManyLost", False)
        assert report.message.startswith("lost 25 of 50 items, 2 allowed at threshold 0.96; additions 25 of 25")
        assert read_token(pod.admission) is None


async def test_a_refused_engine_is_not_asked_any_more(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine(wrong=ADDITIONS)
    async with running(pod, engine) as prober:
        await watching(prober)
        asked = len(engine.asked)
        await asyncio.sleep(0.1)
        assert len(engine.asked) == asked


async def test_nothing_is_admitted_while_the_gate_runs(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine(delay=0.005)
    async with running(pod, engine) as prober:
        await until(lambda: prober.bulletin.report.phase is Phase.GATING, "gating")
        while prober.bulletin.report.phase is Phase.GATING:
            assert read_token(pod.admission) is None or len(engine.asked) >= 200
            await asyncio.sleep(0.002)
        assert read_token(pod.admission) is not None


async def test_observe_admits_at_once_and_judges_beside_the_traffic(pod: Pod) -> None:
    pod.mount(gate=Gate.OBSERVE)
    engine = ScriptedEngine(wrong=ADDITIONS, is_ready=False)
    async with running(pod, engine) as prober:
        await until(lambda: prober.bulletin.report.reason == "WaitingForModel", "waiting for the model")
        assert read_token(pod.admission) is None
        engine.is_ready = True
        await until(lambda: read_token(pod.admission) is not None, "a token")
        report = await watching(prober)
        assert (report.verdict, report.admitted) == (Verdict.FAIL, True)
        assert engine.most_running == 1
        assert report.sweep is not None
        assert report.sweep.correct == 25
        assert read_token(pod.admission) is not None


async def test_a_known_pass_needs_a_short_check_only(pod: Pod) -> None:
    pod.mount(known=(known(pod, Verdict.PASS),))
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert (report.verdict, report.message) == (Verdict.PASS, "said elsewhere")
        assert read_token(pod.admission) is not None


def order(pod: Pod, token: str = "credit@1.0") -> ControlOrder:
    return ControlOrder(pod.identity.digest(), token)


async def test_a_control_is_a_whole_gate_although_a_pass_is_known_and_says_which_order_it_answers(pod: Pod) -> None:
    pod.mount(known=(known(pod, Verdict.PASS),), gate=Gate.OBSERVE, control=order(pod))
    engine = ScriptedEngine(delay=0.001)
    async with running(pod, engine) as prober:
        await until(lambda: prober.bulletin.report.phase is Phase.GATING, "gating")
        assert read_token(pod.admission) is None
        report = await watching(prober)
        assert report.gate is not None
        assert (report.gate.control, report.gate.probes, report.gate.batch) == ("credit@1.0", 200, pod.identity.batch)
        assert read_token(pod.admission) is not None


async def test_a_further_pod_of_a_control_that_passed_needs_a_short_check_only(pod: Pod) -> None:
    answered = dataclasses.replace(known(pod, Verdict.PASS), control="credit@1.0")
    pod.mount(known=(known(pod, Verdict.PASS), answered), control=order(pod))
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert report.gate is not None
        assert (report.gate.control, report.gate.message) == ("credit@1.0", "said elsewhere")


async def test_a_pod_that_serves_already_is_controlled_at_the_full_batch(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine(delay=0.001)
    async with running(pod, engine) as prober:
        await watching(prober)
        pod.mount(control=order(pod), probes_per_minute=1)
        await until(lambda: bool(prober.bulletin.report.gate and prober.bulletin.report.gate.control), "a control")
        report = prober.bulletin.report
        assert report.gate is not None
        assert (report.gate.control, report.gate.batch) == ("credit@1.0", pod.identity.batch)


async def test_an_order_about_another_revision_is_passed_over(pod: Pod) -> None:
    pod.mount(known=(known(pod, Verdict.PASS),), control=ControlOrder("0" * 64, "credit@1.0"))
    async with running(pod, ScriptedEngine()) as prober:
        report = await watching(prober)
        assert report.gate is not None
        assert (report.gate.control, report.message) == ("", "said elsewhere")


async def test_a_pod_that_answers_unlike_its_revision_is_gated_in_full(pod: Pod) -> None:
    pod.mount(known=(known(pod, Verdict.PASS),))
    async with running(pod, ScriptedEngine(wrong=ADDITIONS)) as prober:
        report = await watching(prober)
        assert (report.verdict, report.reason) == (Verdict.FAIL, "TooManyLost")
        assert read_token(pod.admission) is None


async def test_a_pass_won_beside_traffic_at_batch_1_does_not_spare_the_gate(pod: Pod) -> None:
    pod.mount(known=(dataclasses.replace(known(pod, Verdict.PASS), batch=1),))
    async with running(pod, ScriptedEngine(delay=0.001)) as prober:
        report = await watching(prober)
        assert report.gate is not None
        assert (report.gate.batch, report.gate.probes) == (pod.identity.batch, 200)


async def test_a_fail_that_an_acknowledgement_replaced_is_not_adopted_by_a_new_pod(pod: Pod) -> None:
    """The operator tells the newest first: a Pass of batch 1, which lets no new pod in, and the Fail before it."""
    mended = dataclasses.replace(known(pod, Verdict.PASS), batch=1, acknowledged="a token")
    pod.mount(known=(mended, known(pod, Verdict.FAIL, lost=9)))
    async with running(pod, ScriptedEngine()) as prober:
        report = await watching(prober)
        assert (report.verdict, report.admitted) == (Verdict.PASS, True)
        assert report.gate is not None
        assert report.gate.batch == pod.identity.batch


async def test_a_known_fail_is_reported_again_and_not_retried(pod: Pod) -> None:
    pod.mount(known=(known(pod, Verdict.FAIL, lost=9),))
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert (report.verdict, report.message, report.admitted) == (Verdict.FAIL, "said elsewhere", False)
        assert engine.asked == []


async def test_whoever_turns_to_observe_lets_a_refused_engine_in_and_sees_it_watched(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine(wrong=ADDITIONS)) as prober:
        gate = (await watching(prober)).gate
        pod.mount(gate=Gate.OBSERVE)
        await until(lambda: read_token(pod.admission) is not None, "a token")
        await until(lambda: prober.bulletin.report.sweep is not None, "a sweep")
        assert (prober.bulletin.report.verdict, prober.bulletin.report.gate) == (Verdict.FAIL, gate)


async def test_whoever_waits_sees_how_far_the_gate_is(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine(delay=0.01)) as prober:
        await until(lambda: (p := prober.bulletin.report.progress) is not None and p.done > 60, "progress")
        report = prober.bulletin.report
        assert report.progress is not None
        assert (report.phase, report.reason, report.progress.total) == (Phase.GATING, "GateRunning", 200)
        assert report.progress.text.startswith("sweep 2 of 3 at batch 4: ")
        assert report.progress.text.endswith(" of 50")


async def test_a_lower_threshold_is_a_new_question(pod: Pod) -> None:
    pod.mount(known=(known(pod, Verdict.FAIL, lost=9),), threshold=0.5)
    async with running(pod, ScriptedEngine()) as prober:
        assert (await watching(prober)).verdict is Verdict.PASS


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
async def test_what_cannot_be_scored_is_no_data(pod: Pod, change: object, reason: str) -> None:
    change(pod)  # type: ignore[operator]
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await until(lambda: prober.bulletin.report.phase is Phase.BLOCKED, "blocked")
        report = prober.bulletin.report
        assert (report.verdict, report.reason) == (Verdict.NO_DATA, reason)
        assert read_token(pod.admission) is None
        assert engine.asked == []


async def test_a_mended_suite_unblocks(pod: Pod) -> None:
    pod.mount(promised_hash="0" * 64)
    async with running(pod, ScriptedEngine()) as prober:
        await until(lambda: prober.bulletin.report.phase is Phase.BLOCKED, "blocked")
        pod.mount()
        assert (await watching(prober)).verdict is Verdict.PASS


async def test_observe_admits_without_a_suite_but_not_without_an_identity(pod: Pod) -> None:
    pod.mount(gate=Gate.OBSERVE, promised_hash="0" * 64)
    async with running(pod, ScriptedEngine()) as prober:
        await until(lambda: read_token(pod.admission) is not None, "a token")
        assert prober.bulletin.report.reason == "SuiteHashMismatch"
    (pod.admission / "token").unlink()
    (pod.root / "revision" / "identity.json").write_text("{}")
    async with running(pod, ScriptedEngine()) as prober:
        await until(lambda: prober.bulletin.report.reason == "IdentityInvalid", "blocked")
        assert read_token(pod.admission) is None


async def test_a_new_suite_that_fails_moves_the_verdict_and_leaves_the_token(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await watching(prober)
        first = read_token(pod.admission)
        engine.most_running = 0
        engine.wrong = ADDITIONS
        pod.mount(suite=small_suite(24))
        await until(lambda: prober.bulletin.report.verdict is Verdict.FAIL, "a Fail on the new suite")
        await until(lambda: prober.bulletin.report.phase is Phase.WATCHING, "watching")
        assert read_token(pod.admission) == first
        assert engine.most_running == 1, "traffic may flow: probes are guests"


async def test_an_engine_that_is_gone_is_no_evidence_but_errors_are(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()

    async def broken(item: str, before: int) -> Reply | None:
        return Reply(failure=Failure.SERVER_ERROR) if item in ADDITIONS else None

    async def gone(item: str, before: int) -> Reply | None:
        engine.is_ready = False
        return Reply(failure=Failure.TRANSPORT)

    async with running(pod, engine) as prober:
        await until(lambda: prober.bulletin.report.sweep is not None, "watching")
        await watching(prober)
        engine.behaviour = gone
        await until(lambda: not engine.is_ready, "the engine gone")
        before = prober.bulletin.report.sweep
        asked = len(engine.asked)
        await asyncio.sleep(0.2)
        assert (prober.bulletin.report.verdict, prober.bulletin.report.sweep) == (Verdict.PASS, before)
        assert len(engine.asked) <= asked + 1
        engine.behaviour, engine.is_ready = broken, True
        await until(lambda: prober.bulletin.report.reason == "ServerErrors", "server errors counted")
        report = prober.bulletin.report
        assert report.verdict is Verdict.PASS, "what it answers is right"
        assert report.watch is not None
        assert report.watch.standing is Standing.ERRORS
        assert (report.watch.error_evidence, report.watch.evidence) == (1.0, 0.0)
        assert "items got no answer, and the sweep was broken off for errors" in report.message


async def test_a_gate_through_a_restart_of_the_engine_still_passes(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()

    async def crash_once(item: str, before: int) -> Reply | None:
        if len(engine.asked) in range(60, 64):
            engine.is_ready = False
            asyncio.get_running_loop().call_later(0.1, setattr, engine, "is_ready", True)
            return Reply(failure=Failure.TRANSPORT)
        return None

    engine.behaviour = crash_once
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert report.verdict is Verdict.PASS


async def test_an_item_without_a_score_is_inconclusive_and_the_gate_starts_anew(pod: Pod) -> None:
    pod.mount()
    engine = ScriptedEngine()
    seen: list[str] = []

    async def never(item: str, before: int) -> Reply | None:
        return Reply(failure=Failure.TRANSPORT) if item == "capitals-007" else None

    engine.behaviour = never
    async with running(pod, engine) as prober:
        await until(lambda: prober.bulletin.report.verdict is Verdict.INCONCLUSIVE, "inconclusive")
        assert read_token(pod.admission) is None
        assert prober.bulletin.report.phase is Phase.GATING, "nobody watches what nobody let in"
        seen.append(prober.bulletin.report.reason)
        engine.behaviour = None
        await until(lambda: prober.bulletin.report.verdict is Verdict.PASS, "a Pass from a new gate")
    assert seen == ["ItemsUnscored"]


async def test_a_half_done_gate_goes_on_after_a_restart(pod: Pod) -> None:
    pod.mount()
    first = ScriptedEngine(delay=0.03)
    async with running(pod, first) as prober:
        await until(lambda: StateStore(pod.state).state.gate is not None and len(first.asked) > 140, "half a gate")
        await until(lambda: _stored(pod) > 100, "its outcomes stored")
        sequence = prober.bulletin.report.sequence
    stored = _stored(pod)
    second = ScriptedEngine()
    async with running(pod, second) as prober:
        report = await watching(prober)
        assert report.verdict is Verdict.PASS
        assert report.gate is not None
        assert report.gate.probes == 200
        assert report.sequence > sequence
        assert report.gate.decided_at
    asked_for_gate = 200 - stored
    assert stored > 100
    assert len(second.asked) >= asked_for_gate


async def test_a_restart_after_the_token_watches_at_once(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine()) as prober:
        await watching(prober)
    engine = ScriptedEngine(delay=1000)
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert (report.verdict, report.admitted) == (Verdict.PASS, True)
        await until(lambda: engine.most_running == 1, "a probe")


async def test_settings_that_change_the_pace_alone_do_not_start_anew(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine()) as prober:
        gate = (await watching(prober)).gate
        pod.mount(probes_per_minute=60_000)
        await until(lambda: prober._settings is not None and prober._settings.probes_per_minute == 60_000, "the pace")
        assert prober.bulletin.report.gate == gate
        assert prober.bulletin.report.phase is Phase.WATCHING


async def test_a_passed_gate_under_another_threshold_is_read_again_from_its_figures(pod: Pod) -> None:
    passed = dataclasses.replace(known(pod, Verdict.PASS, threshold=0.9), lost=1)
    pod.mount(known=(passed,), threshold=0.98)
    async with running(pod, ScriptedEngine()) as prober:
        assert (await watching(prober)).message == "said elsewhere"


def _stored(pod: Pod) -> int:
    half = StateStore(pod.state).state.gate
    return sum(len(row.replace(".", "")) for row in half.record.full.values()) if half else 0
