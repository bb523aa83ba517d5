"""The monitor against a real tritonserver: what its client makes of it, and the whole way to a token."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from engine.monitor.triton_server import Server, free_port, serving, write_model
from r1plus_contract.admission import read_token
from r1plus_contract.suite import Sampling
from r1plus_contract.verdict import Phase, Verdict
from r1plus_monitoring.client import Failure, TritonEngine
from r1plus_monitoring.prober import Prober
from support.monitoring.scripted import Pod, until

pytestmark = pytest.mark.triton

ADDITIONS = {f"additions-{n:03}" for n in range(3, 13)}


@dataclass
class Place:
    """One server and how to start it again."""

    root: Path
    http: int
    grpc: int
    server: Server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("triton")
    http, grpc = free_port(), free_port()
    with serving(root, write_model(root, ADDITIONS), http, grpc) as server:
        yield Place(root, http, grpc, server)


async def test_an_answer_comes_whole_with_its_counts(place: Place) -> None:
    engine = TritonEngine(place.server.http, place.server.grpc, timeout=10)
    try:
        assert await engine.ready()
        reply = await engine.ask("hello", Sampling())
        assert (reply.text, reply.finish_reason, reply.failure) == ("yes", "stop", None)
        assert (reply.prompt_tokens, reply.completion_tokens) == (7, 2)
    finally:
        await engine.close()


async def test_sampling_arrives_as_the_suite_says(place: Place) -> None:
    engine = TritonEngine(place.server.http, place.server.grpc, timeout=10)
    sampling = Sampling(
        max_new_tokens=9, temperature=0.5, top_p=0.25, repetition_penalty=1.5, stop=("\n", "é"), system="be brief"
    )
    try:
        plain = json.loads((await engine.ask("what was sent", Sampling())).text)
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
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("prompt", "failure"),
    [
        pytest.param("refuse", Failure.SERVER_ERROR, id="an error response is the server's fault"),
        pytest.param("break off", Failure.SERVER_ERROR, id="a stream without a finish reason is the server's fault"),
        pytest.param("slow", Failure.TIMEOUT, id="an answer after the deadline is a time-out"),
    ],
)
async def test_failures_have_names(place: Place, prompt: str, failure: Failure) -> None:
    engine = TritonEngine(place.server.http, place.server.grpc, timeout=1)
    try:
        assert (await engine.ask(prompt, Sampling())).failure is failure
        assert (await engine.ask("hello", Sampling())).text == "yes", "the next one is not affected"
    finally:
        await engine.close()


async def test_nobody_there_is_a_transport_failure() -> None:
    engine = TritonEngine(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", timeout=10)
    try:
        assert not await engine.ready()
        assert (await engine.ask("hello", Sampling())).failure is Failure.TRANSPORT
    finally:
        await engine.close()


async def test_sixteen_at_once_all_get_their_own_answers(place: Place) -> None:
    engine = TritonEngine(place.server.http, place.server.grpc, timeout=10)
    prompts = [f"additions-{n:03}" for n in range(16)]
    try:
        replies = await asyncio.gather(*(engine.ask(prompt, Sampling()) for prompt in prompts))
        assert [r.text for r in replies] == ["no" if p in ADDITIONS else "yes" for p in prompts]
    finally:
        await engine.close()


async def decided(prober: Prober, server: Server, seconds: float = 60.0) -> None:
    """Wait for the verdict; where it does not come, say what the monitor and the server say."""
    try:
        await until(lambda: prober.bulletin.report.phase is Phase.WATCHING, "a verdict", seconds)
    except AssertionError as error:
        error.add_note(
            f"{prober.bulletin.report}\nserver ended: {server.process.poll()}\n{server.log.read_text()[-3000:]}"
        )
        raise


@pytest.mark.parametrize(
    ("threshold", "verdict"),
    [
        pytest.param(0.98, Verdict.FAIL, id="ten of fifty items wrong are refused at 0.98"),
        pytest.param(0.6, Verdict.PASS, id="and let in at 0.6"),
    ],
)
async def test_the_gate_on_a_real_server(place: Place, tmp_path: Path, threshold: float, verdict: Verdict) -> None:
    pod = Pod.make(tmp_path)
    pod.mount(threshold=threshold)
    config = replace(pod.config(), triton_http=place.server.http, triton_grpc=place.server.grpc)
    engine = TritonEngine(config.triton_http, config.triton_grpc, 10)
    prober = Prober(config, engine)
    task = asyncio.create_task(prober.run())
    try:
        await decided(prober, place.server)
        report = prober.bulletin.report
        assert report.verdict is verdict
        assert report.gate is not None
        assert report.gate.lost == 10
        assert (read_token(pod.admission) is not None) == (verdict is Verdict.PASS)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_server_that_dies_while_watched_is_no_verdict(tmp_path: Path) -> None:
    http, grpc = free_port(), free_port()
    models = write_model(tmp_path, set())
    folder = tmp_path / "pod"
    folder.mkdir()
    pod = Pod.make(folder)
    pod.mount()
    config = replace(pod.config(), triton_http=f"127.0.0.1:{http}", triton_grpc=f"127.0.0.1:{grpc}")
    prober = Prober(config, TritonEngine(config.triton_http, config.triton_grpc, 10))
    task = asyncio.create_task(prober.run())
    try:
        with serving(tmp_path, models, http, grpc):
            await until(lambda: prober.bulletin.report.verdict is Verdict.PASS, "a Pass", 60)
        await until(lambda: b'model_not_ready"} 0.0' not in prober.exposition.text(), "skipped probes")
        assert prober.bulletin.report.verdict is Verdict.PASS
        sweep = prober.bulletin.report.sweep
        with serving(tmp_path, models, http, grpc):
            await until(lambda: prober.bulletin.report.sweep not in (None, sweep), "the next sweep", 60)
            assert prober.bulletin.report.verdict is Verdict.PASS
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
