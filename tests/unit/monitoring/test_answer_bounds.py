"""What an engine streams into the monitor: it is bounded, and whatever it is, the prober goes on."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import grpc
import pytest
from aiohttp import web
from tritonclient.grpc import InferResult, service_pb2_grpc
from tritonclient.grpc import service_pb2 as pb

from r1plus_contract import inference
from r1plus_contract.inference import MOST_TOKEN_BYTES, QUEUE_FULL
from r1plus_contract.metrics import ENGINE_WAITING_REQUESTS
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_monitoring.probe.client import (
    LONG_PROMPT_CHARACTERS,
    MOST_MESSAGE_BYTES,
    MOST_METRICS_BYTES,
    Failure,
    ProbeReply,
    TritonEngine,
    compute_deadline,
    compute_reading_seconds,
)
from support.http_server import serving
from support.monitoring.patience import wait_long_for_metrics
from support.virtual_time import read_loop_time, skip_seconds
from support.waiting import eventually

SAMPLING = SuiteSampling(max_new_tokens=4)
MOST = MOST_TOKEN_BYTES * SAMPLING.max_new_tokens
TIMEOUT = 60.0
Script = Iterable[tuple[float, pb.ModelStreamInferResponse]]
"""Responses, each with the seconds since the one before."""


class Scripted(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Triton's streaming protocol, over which it sends what a test lets it send."""

    def __init__(self, responses: Iterator[pb.ModelStreamInferResponse]) -> None:
        self._responses = responses
        self.sent = 0

    def ModelStreamInfer(  # noqa: N802 - the protocol's name
        self, _requests: object, context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for response in self._responses:
            self.sent += 1
            yield response


def response(text: bytes, reason: str = "", shape: int = 1, datatype: str = "BYTES") -> pb.ModelStreamInferResponse:
    inner = pb.ModelInferResponse(model_name=inference.MODEL_NAME)
    for name, data in ((inference.TEXT, text), (inference.FINISH_REASON, reason.encode())):
        inner.outputs.add(name=name, datatype=datatype, shape=[shape])
        inner.raw_output_contents.append(len(data).to_bytes(4, "little") + data)
    return pb.ModelStreamInferResponse(infer_response=inner)


@contextmanager
def engine_that_sends(responses: Iterator[pb.ModelStreamInferResponse]) -> Iterator[tuple[Scripted, str]]:
    scripted = Scripted(responses)
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(scripted, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield scripted, f"127.0.0.1:{port}"
        server.stop(grace=None).wait()


async def ask(target: str, seconds: float = 600, prompt: str = "hello") -> ProbeReply:
    engine = TritonEngine("127.0.0.1:1", target, timeout=seconds)
    try:
        return await engine.ask(prompt, SAMPLING)
    finally:
        await engine.close()


async def test_an_engine_that_streams_without_end_is_cut_off_at_what_the_tokens_allow() -> None:
    endless = (response(b"x" * 2**17) for _ in range(4000))
    with engine_that_sends(endless) as (scripted, target):
        reply = await ask(target)
    assert reply == ProbeReply(
        failure=Failure.SERVER_ERROR, detail=f"the answer is larger than {MOST} bytes, which 4 tokens cannot be"
    )
    assert scripted.sent < 1000


async def test_one_message_beyond_any_answer_is_not_taken_in() -> None:
    with engine_that_sends(iter([response(b"x" * MOST_MESSAGE_BYTES)])) as (_, target):
        reply = await ask(target)
    # Which of the two is a race inside gRPC: the refusal of the message, or of what comes after it.
    codes = ("StatusCode.RESOURCE_EXHAUSTED", "StatusCode.INTERNAL")
    assert (reply.failure, reply.detail in codes) == (Failure.SERVER_ERROR, True), reply


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(response(b"\xff\xfe"), id="text that is not UTF-8"),
        pytest.param(response(b"x", shape=7), id="a shape that its data does not have"),
        pytest.param(response(b"x", datatype="FP64"), id="another type"),
    ],
)
async def test_a_response_that_cannot_be_read_is_the_engines_fault_and_ends_no_prober(
    bad: pb.ModelStreamInferResponse,
) -> None:
    with engine_that_sends(iter([bad, response(b"", "stop")])) as (_, target):
        reply = await ask(target)
    assert (reply.failure, reply.text) == (Failure.SERVER_ERROR, "")
    assert reply.detail.startswith("a response cannot be read")


async def test_control_the_longest_answer_that_the_tokens_allow_is_taken() -> None:
    pieces = iter([response(b"x" * (MOST // 2)), response(b""), response(b"y" * (MOST // 2), "length")])
    with engine_that_sends(pieces) as (_, target):
        reply = await ask(target)
    assert (reply.failure, len(reply.text), reply.finish_reason) == (None, MOST, "length")


class ScriptedStreams:
    """Streams whose responses come so many seconds after the one before. One per question."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)

    def stream_infer(self, _requests: AsyncIterator[dict[str, Any]]) -> "ScriptedStream":
        return ScriptedStream(self._scripts.pop(0))

    async def close(self) -> None:
        pass


class ScriptedStream:
    """An answer of Triton in this process, so that its seconds are those of the loop."""

    def __init__(self, script: Script) -> None:
        self._script = iter(script)

    def __aiter__(self) -> "ScriptedStream":
        return self

    async def __anext__(self) -> tuple[InferResult, None]:
        for seconds, response in self._script:
            await asyncio.sleep(seconds)
            return InferResult(response.infer_response), None
        raise StopAsyncIteration

    def cancel(self) -> None:
        pass


async def ask_scripted(*scripts: Script, prompts: tuple[str, ...] = ("hello",)) -> list[ProbeReply]:
    """Ask one question after the other of an engine that has `TIMEOUT` seconds for each piece."""
    engine = TritonEngine("127.0.0.1:1", "127.0.0.1:1", TIMEOUT, streams=ScriptedStreams(*scripts))
    try:
        return [await engine.ask(prompt, SAMPLING) for prompt in prompts]
    finally:
        await engine.close()


async def test_an_answer_that_goes_on_is_no_timeout_however_slow_the_node_is(virtual_time: None) -> None:
    began = read_loop_time()
    (reply,) = await ask_scripted([(50, response(b"x")), (50, response(b"x")), (50, response(b"y", "stop"))])
    assert (reply.failure, reply.text) == (None, "xxy")
    assert read_loop_time() - began > TIMEOUT


async def test_an_answer_that_comes_to_a_halt_is_a_timeout(virtual_time: None) -> None:
    (reply,) = await ask_scripted([(50, response(b"x")), (61, response(b"y", "stop"))])
    assert reply.failure is Failure.TIMEOUT


@pytest.mark.parametrize(
    ("now", "deadline"),
    [
        pytest.param(100.0, 160.0, id="the first piece has a minute"),
        pytest.param(150.0, 210.0, id="each further piece has a minute"),
        pytest.param(230.0, 280.0, id="the last one has to come within three"),
    ],
)
def test_each_piece_of_an_answer_has_its_time_and_the_whole_has_three_times_that(now: float, deadline: float) -> None:
    assert compute_deadline(now, 100.0, 60.0) == deadline


@pytest.mark.parametrize(
    ("characters", "seconds"),
    [
        pytest.param(100, 0.0, id="a question has none"),
        pytest.param(4000, 0.0, id="a thousand tokens have none"),
        pytest.param(14_000, 40.0, id="4,000 tokens have 40 s"),
        pytest.param(104_000, 400.0, id="32,000 tokens have 400 s"),
    ],
)
def test_a_long_prompt_has_time_to_be_read(characters: int, seconds: float) -> None:
    assert compute_reading_seconds("x" * characters) == pytest.approx(seconds)


LATE = (TIMEOUT * 1.5, response(b"y", "stop"))
LONG_PROMPT = "x" * (LONG_PROMPT_CHARACTERS + 150_000)


@pytest.mark.parametrize(
    ("prompt", "failure"),
    [
        pytest.param(LONG_PROMPT, None, id="a long prompt is read"),
        pytest.param("hello", Failure.TIMEOUT, id="a short prompt is not, and the engine hangs"),
    ],
)
async def test_the_first_piece_may_come_as_late_as_its_prompt_is_long(
    prompt: str, failure: Failure | None, virtual_time: None
) -> None:
    (reply,) = await ask_scripted([LATE], prompts=(prompt,))
    assert reply.failure == failure


async def test_a_long_prompt_that_was_answered_leaves_its_time_to_no_other(virtual_time: None) -> None:
    """Else a hang would show later by the minutes of each that was asked before."""
    long, short = await ask_scripted([(0, response(b"y", "stop"))], [LATE], prompts=(LONG_PROMPT, "hello"))
    assert (long.failure, short.failure) == (None, Failure.TIMEOUT)


async def test_a_stream_that_hangs_is_given_up() -> None:
    """Over gRPC, whose threads know nothing of the loop's clock."""
    asked, end = Event(), Event()

    def hang() -> Iterator[pb.ModelStreamInferResponse]:
        asked.set()
        end.wait()
        yield response(b"y", "stop")

    with engine_that_sends(hang()) as (_, target):
        asking = asyncio.create_task(ask(target, TIMEOUT))
        await eventually(asked.is_set, "the engine is asked")
        skip_seconds(TIMEOUT)
        reply = await asking
        end.set()
    assert reply.failure is Failure.TIMEOUT


async def test_a_full_queue_says_nothing_of_the_engines_answers() -> None:
    refusal = pb.ModelStreamInferResponse(error_message=f"{QUEUE_FULL}: 64 requests wait; try again later")
    with engine_that_sends(iter([refusal])) as (_, target):
        reply = await ask(target)
    assert reply.failure is Failure.TRANSPORT


async def test_metrics_without_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_long_for_metrics(monkeypatch)
    sent = 0

    async def metrics(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in endless_metrics():
            await answer.write(piece)
            sent += len(piece)
        return answer

    async with serving(web.get("/metrics", metrics)) as url:
        engine = TritonEngine("127.0.0.1:1", "127.0.0.1:1", 1, url.removeprefix("http://"))
        assert await engine.count_waiting_requests() == 3
        await engine.close()
    assert sent < 64 * MOST_METRICS_BYTES


def endless_metrics() -> Iterator[bytes]:
    yield f"{ENGINE_WAITING_REQUESTS} 3\n".encode()
    for _ in range(400):
        yield b"# " + b"x" * 2**20 + b"\n"
