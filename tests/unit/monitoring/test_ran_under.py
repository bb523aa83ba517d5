"""What a report says of where its gate was run, and under which mounted files."""

import asyncio
import hashlib
from dataclasses import replace

from r1plus_contract.monitor.settings import hash_config
from r1plus_contract.suites.suite import SCORER_VERSION
from r1plus_contract.verdict import Gate, Phase, Verdict
from r1plus_monitoring.store.state import PartialGate, StateStore
from r1plus_policies.gate.run import GateRecord
from r1plus_policies.gate.verdict import VerdictSubject
from support.monitoring.scripted import (
    ADDITIONS,
    Pod,
    ScriptedEngine,
    comes_to,
    decide,
    gate_report,
    loaded,
    running,
    small_suite,
    stored_state,
    until,
    watching,
)


def digest_of(pod: Pod) -> str:
    """Return the digest of what is mounted, as the operator takes it of the ConfigMap that it writes."""
    files = [path for path in pod.accuracy.iterdir() if not path.name.startswith("..")]
    return hash_config({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})


async def test_a_forged_pass_is_not_reported_as_run_here(pod: Pod) -> None:
    """The engine answers half of the suite wrongly, and a verdict that another pod would tell of is mounted."""
    pod.mount()
    async with running(pod, ScriptedEngine(wrong=ADDITIONS, delay=0.02)) as prober:
        await comes_to(prober, Phase.GATING)
        pod.mount(gate=Gate.OBSERVE, known=(gate_report(pod),))
        report = await watching(prober)
        assert report.gate is not None
        assert (report.gate.verdict, report.ran_under) == (Verdict.PASS, "")


async def test_a_pass_names_the_files_that_were_mounted_when_its_gate_began(pod: Pod) -> None:
    pod.mount()
    before, go_on = digest_of(pod), asyncio.Event()

    async def wait(item: str, asked: int) -> None:
        if len(engine.asked) > 100:
            await go_on.wait()

    engine = ScriptedEngine(behaviour=wait)
    async with running(pod, engine) as prober:
        await until(lambda: len(engine.asked) > 100, "half of a gate")
        pod.mount(probes_per_minute=599_999)
        await until(lambda: prober._config_digest == digest_of(pod) != before, "the new files are read")
        go_on.set()
        assert (await watching(prober)).ran_under == before


async def test_half_a_gate_that_goes_on_after_a_restart_was_begun_under_the_former_files(pod: Pod) -> None:
    pod.mount()
    before = digest_of(pod)
    async with running(pod, ScriptedEngine(answers=0)):
        await until((pod.state / "heartbeat").exists, "a prober")
    subject = VerdictSubject(pod.identity.digest(), "small-v1", loaded().header.sha256, SCORER_VERSION)
    half = PartialGate(subject, 0.96, pod.identity.batch, GateRecord(1), 0.0, "", before)
    StateStore(pod.state).save(replace(stored_state(pod), gate=half))
    pod.mount(probes_per_minute=599_999)
    assert (await decide(pod, ScriptedEngine())).ran_under == before != digest_of(pod)


async def test_a_pass_of_another_pod_is_not_said_to_have_been_run_here(pod: Pod) -> None:
    pod.mount(known=(gate_report(pod),))
    report = await decide(pod, ScriptedEngine())
    assert (report.verdict, report.ran_under) == (Verdict.PASS, "")


async def test_a_prober_that_is_started_again_still_knows_that_it_ran_the_gate(pod: Pod) -> None:
    pod.mount()
    under = digest_of(pod)
    first = await decide(pod, ScriptedEngine())
    assert first.gate is not None
    pod.mount(known=(replace(first.gate, message="of another pod"),))
    again = await decide(pod, ScriptedEngine())
    assert (first.ran_under, again.ran_under, again.gate) == (under, under, first.gate)
    assert digest_of(pod) != under


async def test_a_shadowed_suite_names_the_files_of_its_own_gate(pod: Pod) -> None:
    pod.mount()
    await decide(pod, ScriptedEngine())
    pod.mount(suite=small_suite(strata=("letters",)), former=small_suite())
    under = digest_of(pod)
    async with running(pod, ScriptedEngine()) as prober:
        await until(lambda: (s := prober.publisher.report.shadow) and s.gate, "the new suite's gate is decided")
        shadow = prober.publisher.report.shadow
        assert shadow is not None
        assert (shadow.ran_under, prober.publisher.report.ran_under != under) == (under, True)
    assert len(stored_state(pod).gates) == 2
