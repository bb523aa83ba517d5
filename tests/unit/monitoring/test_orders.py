"""What an operator may order of a pod beside its gate: who is let in again, and whose half gate is whose."""

import pytest

from r1plus_contract.monitor.admission import read_token
from r1plus_contract.monitor.settings import ControlOrder
from r1plus_contract.verdict import Phase, Verdict
from support.monitoring.scripted import (
    ADDITIONS,
    WHOLE_GATE,
    Pod,
    ScriptedEngine,
    comes_to,
    decide,
    gate_report,
    running,
    stored_state,
    until,
    watched,
    watching,
)


async def test_what_is_restored_and_answers_as_it_did_needs_a_short_check_only(pod: Pod) -> None:
    pod.mount(known=(gate_report(pod),), restored=pod.identity.digest())
    report = await decide(pod, ScriptedEngine())
    assert (report.verdict, report.message, report.admitted) == (Verdict.PASS, "said elsewhere", True)


async def test_what_is_restored_after_its_suite_changed_beside_traffic_needs_a_short_check_only(pod: Pod) -> None:
    pod.mount(known=(gate_report(pod, batch=1),), restored=pod.identity.digest())
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await until(lambda: read_token(pod.admission), "a token")
        assert len(engine.asked) < WHOLE_GATE
        assert (await watching(prober)).message == "said elsewhere"


async def test_what_is_restored_and_has_fallen_is_let_in_and_says_so(pod: Pod) -> None:
    pod.mount(known=(gate_report(pod),), restored=pod.identity.digest())
    engine = ScriptedEngine(wrong=ADDITIONS, delay=0.005)
    async with running(pod, engine) as prober:
        await until(lambda: read_token(pod.admission), "a token")
        assert len(engine.asked) < WHOLE_GATE, "after the short check"
        report = await watching(prober)
        assert (report.verdict, report.reason, report.admitted) == (Verdict.FAIL, "TooManyLost", True)
        assert report.gate is not None
        assert report.gate.batch == 1, "beside its traffic"
        assert report.watch is not None


@pytest.mark.parametrize(
    ("known", "restored"),
    [
        pytest.param({}, "", id="of what nothing is restored"),
        pytest.param({}, "0" * 64, id="while another revision is"),
        pytest.param({"verdict": Verdict.FAIL, "lost": 9}, "its own", id="that never passed"),
        pytest.param({"suite_hash": "0" * 64}, "its own", id="that passed another suite"),
    ],
)
async def test_nobody_else_is_let_in(pod: Pod, known: dict[str, object], restored: str) -> None:
    pod.mount(known=(gate_report(pod, **known),), restored=pod.identity.digest() if restored == "its own" else restored)
    report = await decide(pod, ScriptedEngine(wrong=ADDITIONS))
    assert (report.verdict, report.admitted) == (Verdict.FAIL, False)
    assert read_token(pod.admission) is None


async def run_half_a_gate(pod: Pod, order: str) -> None:
    """Run a prober until it has asked more than a quarter of a gate for this order, and stored some of it."""
    async with running(pod, ScriptedEngine(answers=64)) as prober:
        await comes_to(prober, Phase.GATING)
        await until(lambda: (p := prober.publisher.report.progress) is not None and p.done > 60, "half a gate")
        await until(lambda: (g := stored_state(pod).gate) is not None and g.order == order, "it is stored")


async def test_half_of_another_gate_is_no_part_of_a_controls(pod: Pod) -> None:
    """The sweeps of before say nothing of today's node."""
    pod.mount()
    await run_half_a_gate(pod, "")
    for token in ("one", "another"):
        pod.mount(control=ControlOrder(pod.identity.digest(), token))
        await run_half_a_gate(pod, token)
    report = await decide(pod, ScriptedEngine(answers=WHOLE_GATE - 1))
    assert report.gate is not None
    assert (report.gate.control, report.gate.probes) == ("another", WHOLE_GATE), "its own half counts"
    pod.mount(control=ControlOrder(pod.identity.digest(), "third"))
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await until(lambda: (g := prober.publisher.report.gate) and g.control == "third", "a control")
        assert len(engine.asked) >= WHOLE_GATE


async def test_a_gate_that_an_acknowledgement_asked_for_says_which_and_is_nobody_elses_half(pod: Pod) -> None:
    pod.mount()
    async with watched(pod, ScriptedEngine()) as prober:
        pod.mount(acknowledged="first")
        await until(lambda: (g := prober.publisher.report.gate) and g.acknowledged == "first", "an answer")
        assert prober.publisher.report.acknowledged == "first"
    pod.mount(acknowledged="second", probes_per_minute=1)
    async with running(pod, ScriptedEngine(delay=0.2)):
        await until(lambda: (g := stored_state(pod).gate) is not None and g.order == "second", "half of it")
    pod.mount(acknowledged="third")
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await until(lambda: (g := prober.publisher.report.gate) and g.acknowledged == "third", "an answer")
        assert prober.publisher.report.gate is not None
        assert len(engine.asked) >= prober.publisher.report.gate.probes
