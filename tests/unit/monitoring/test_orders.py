"""What an operator may order of a pod beside its gate: who is let in again, and whose half gate is whose."""

import dataclasses
from pathlib import Path

import pytest

from r1plus_contract.admission import read_token
from r1plus_contract.settings import ControlOrder
from r1plus_contract.suite import SCORER_VERSION
from r1plus_contract.verdict import GateReport, Phase, Verdict
from r1plus_monitoring.state import StateStore
from unit.monitoring.scripted import Pod, ScriptedEngine, loaded, running, until, watching

ADDITIONS = {f"additions-{n:03}" for n in range(25)}
WHOLE_GATE = 200


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod.make(tmp_path)


def passed(pod: Pod, **changes: object) -> GateReport:
    header = loaded().header
    report = GateReport(
        Verdict.PASS, "Passed", "said elsewhere", pod.identity.digest(), header.name, header.sha256, SCORER_VERSION,
        0.96, 50, 0, 2, batch=pod.identity.batch,
    )  # fmt: skip
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


async def test_what_is_restored_and_answers_as_it_did_needs_a_short_check_only(pod: Pod) -> None:
    pod.mount(known=(passed(pod),), restored=pod.identity.digest())
    async with running(pod, ScriptedEngine()) as prober:
        report = await watching(prober)
        assert (report.verdict, report.message, report.admitted) == (Verdict.PASS, "said elsewhere", True)


async def test_what_is_restored_after_its_suite_changed_beside_traffic_needs_a_short_check_only(pod: Pod) -> None:
    pod.mount(known=(passed(pod, batch=1),), restored=pod.identity.digest())
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await until(lambda: read_token(pod.admission) is not None, "a token")
        assert len(engine.asked) < WHOLE_GATE
        assert (await watching(prober)).message == "said elsewhere"


async def test_what_is_restored_and_has_fallen_is_let_in_and_says_so(pod: Pod) -> None:
    pod.mount(known=(passed(pod),), restored=pod.identity.digest())
    engine = ScriptedEngine(wrong=ADDITIONS, delay=0.005)
    async with running(pod, engine) as prober:
        await until(lambda: read_token(pod.admission) is not None, "a token")
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
    pod.mount(known=(passed(pod, **known),), restored=pod.identity.digest() if restored == "its own" else restored)
    async with running(pod, ScriptedEngine(wrong=ADDITIONS)) as prober:
        report = await watching(prober)
        assert (report.verdict, report.admitted) == (Verdict.FAIL, False)
        assert read_token(pod.admission) is None


async def test_half_of_another_gate_is_no_part_of_a_controls(pod: Pod) -> None:
    """The sweeps of before say nothing of today's node."""
    pod.mount()
    engine = ScriptedEngine(delay=0.01)
    async with running(pod, engine) as prober:
        await until(lambda: (p := prober.bulletin.report.progress) is not None and p.done > 60, "half a gate")
        await until(lambda: StateStore(pod.state).state.gate is not None, "it is stored")
    for token in ("one", "another"):
        pod.mount(control=ControlOrder(pod.identity.digest(), token))
        engine = ScriptedEngine(delay=0.01)
        async with running(pod, engine) as prober:
            await until(lambda: prober.bulletin.report.phase is Phase.GATING, "gating")
            await until(lambda: (p := prober.bulletin.report.progress) is not None and p.done > 60, "half of it")
            await until(lambda: (g := StateStore(pod.state).state.gate) is not None and g.order == token, "stored")  # noqa: B023
    engine = ScriptedEngine(delay=0.01)  # The sweeps after the gate are asked, too, until somebody looks.
    async with running(pod, engine) as prober:
        report = await watching(prober)
        assert report.gate is not None
        assert (report.gate.control, report.gate.probes) == ("another", WHOLE_GATE)
        assert len(engine.asked) < WHOLE_GATE + 20, "its own half counts"
    pod.mount(control=ControlOrder(pod.identity.digest(), "third"))
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await until(lambda: bool((g := prober.bulletin.report.gate) and g.control == "third"), "a control")
        assert len(engine.asked) >= WHOLE_GATE


async def test_a_gate_that_an_acknowledgement_asked_for_says_which_and_is_nobody_elses_half(pod: Pod) -> None:
    pod.mount()
    async with running(pod, ScriptedEngine()) as prober:
        await watching(prober)
        pod.mount(acknowledged="first")
        await until(lambda: bool((g := prober.bulletin.report.gate) and g.acknowledged == "first"), "an answer")
        assert prober.bulletin.report.acknowledged == "first"
    pod.mount(acknowledged="second", probes_per_minute=1)
    slow = ScriptedEngine(delay=0.2)
    async with running(pod, slow) as prober:
        await until(lambda: (g := StateStore(pod.state).state.gate) is not None and g.order == "second", "half of it")
    pod.mount(acknowledged="third")
    engine = ScriptedEngine()
    async with running(pod, engine) as prober:
        await until(lambda: bool((g := prober.bulletin.report.gate) and g.acknowledged == "third"), "an answer", 60)
        assert prober.bulletin.report.gate is not None
        assert len(engine.asked) >= prober.bulletin.report.gate.probes
