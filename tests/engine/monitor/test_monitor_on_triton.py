"""The monitor against a real tritonserver: what its client makes of it, and the whole way to a token."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.monitor.admission import read_token
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_contract.verdict import Phase, Verdict
from r1plus_monitoring.probe.client import Failure, TritonEngine
from r1plus_monitoring.process.prober import Prober
from support.engine.models import WRONG_ADDITIONS, write_scripted_model
from support.engine.server import Server, serving
from support.monitoring.scripted import Pod
from support.ports import free_port
from support.waiting import eventually

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

SECONDS = 120.0
"""For an answer, on a slow machine."""


@contextlib.asynccontextmanager
async def connected(http: str, grpc: str, seconds: float = SECONDS) -> AsyncIterator[TritonEngine]:
    engine = TritonEngine(http, grpc, seconds)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
async def engine(scripted_server: Server) -> AsyncIterator[TritonEngine]:
    async with connected(scripted_server.http, scripted_server.grpc) as found:
        yield found


async def test_an_answer_comes_whole_with_its_counts(engine: TritonEngine) -> None:
    assert await engine.is_model_ready()
    reply = await engine.ask("hello", SuiteSampling())
    assert (reply.text, reply.finish_reason, reply.failure) == ("yes", "stop", None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 2)


async def test_sampling_arrives_as_the_suite_says(engine: TritonEngine) -> None:
    sampling = SuiteSampling(
        max_new_tokens=9, temperature=0.5, top_p=0.25, repetition_penalty=1.5, stop=("\n", "é"), system="be brief"
    )
    plain = json.loads((await engine.ask("what was sent", SuiteSampling())).text)
    assert plain == {"max_new_tokens": 24, "temperature": 0.0}
    full = json.loads((await engine.ask("what was sent", sampling)).text)
    assert full == {
        "max_new_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.25,
        "repetition_penalty": 1.5,
        "stop": '["\\n", "é"]',
        "system": "be brief",
    }


@pytest.mark.parametrize(
    ("prompt", "seconds", "failure"),
    [
        pytest.param("refuse", SECONDS, Failure.SERVER_ERROR, id="an error response is the server's fault"),
        pytest.param(
            "break off", SECONDS, Failure.SERVER_ERROR, id="a stream without a finish reason is the server's fault"
        ),
        pytest.param("never", 2.0, Failure.TIMEOUT, id="an answer after the deadline is a time-out"),
    ],
)
async def test_failures_have_names(scripted_server: Server, prompt: str, seconds: float, failure: Failure) -> None:
    async with connected(scripted_server.http, scripted_server.grpc, seconds) as engine:
        assert (await engine.ask(prompt, SuiteSampling())).failure is failure
        engine._timeout = SECONDS  # The next one has all the time that it needs.
        assert (await engine.ask("hello", SuiteSampling())).text == "yes", "the next one is not affected"


async def test_nobody_there_is_a_transport_failure() -> None:
    async with connected(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}") as engine:
        assert not await engine.is_model_ready()
        assert (await engine.ask("hello", SuiteSampling())).failure is Failure.TRANSPORT


async def test_sixteen_at_once_all_get_their_own_answers(engine: TritonEngine) -> None:
    prompts = [f"additions-{n:03}" for n in range(16)]
    replies = await asyncio.gather(*(engine.ask(prompt, SuiteSampling()) for prompt in prompts))
    assert [r.text for r in replies] == ["no" if p in WRONG_ADDITIONS else "yes" for p in prompts]


@contextlib.asynccontextmanager
async def probing(pod: Pod, http: str, grpc: str) -> AsyncIterator[Prober]:
    """A prober at work on the server at these addresses."""
    config = replace(pod.config(), triton_http=http, triton_grpc=grpc)
    # Long for an answer, which takes milliseconds, and short for one that is lost with its server.
    prober = Prober(config, TritonEngine(http, grpc, 10))
    task = asyncio.create_task(prober.run())
    try:
        yield prober
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("threshold", "verdict"),
    [
        pytest.param(0.98, Verdict.FAIL, id="ten of fifty items wrong are refused at 0.98"),
        pytest.param(0.6, Verdict.PASS, id="and let in at 0.6"),
    ],
)
async def test_the_gate_on_a_real_server(
    scripted_server: Server, tmp_path: Path, threshold: float, verdict: Verdict
) -> None:
    pod = Pod.make(tmp_path)
    pod.mount(threshold=threshold)
    async with probing(pod, scripted_server.http, scripted_server.grpc) as prober:
        await eventually(
            lambda: prober.publisher.report.phase is Phase.WATCHING,
            "there is a verdict",
            evidence=lambda: f"{prober.publisher.report}\n{scripted_server.last_words()}",
        )
        report = prober.publisher.report
        assert report.verdict is verdict
        assert report.gate is not None
        assert report.gate.lost == 10
        assert (read_token(pod.admission) is not None) == (verdict is Verdict.PASS)


async def test_a_server_that_dies_while_watched_is_no_verdict(tmp_path: Path, installed: Path) -> None:
    ports = (free_port(), free_port(), free_port())
    models = write_scripted_model(tmp_path)
    (tmp_path / "pod").mkdir()
    pod = Pod.make(tmp_path / "pod")
    pod.mount()
    async with probing(pod, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}") as prober:
        with serving(Server(tmp_path, installed, models, guarded=False, ports=ports)):
            await eventually(lambda: prober.publisher.report.verdict is Verdict.PASS, "a Pass")
        await eventually(lambda: b'model_not_ready"} 0.0' not in prober.exposition.render(), "skipped probes")
        assert prober.publisher.report.verdict is Verdict.PASS
        sweep = prober.publisher.report.sweep
        with serving(Server(tmp_path, installed, models, guarded=False, ports=ports)):
            await eventually(lambda: prober.publisher.report.sweep not in (None, sweep), "the next sweep", 600)
            assert prober.publisher.report.verdict is Verdict.PASS
