"""Requests that end before gRPC's own task has begun, on the real grpc.aio: none of them waits for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from r1plus_gateway.serving.errors import AnswerFailedError, CallerRevokedError
from r1plus_gateway.serving.generation import Generation
from r1plus_gateway.serving.running_requests import RunningRequest
from r1plus_gateway.serving.triton_wire import METHOD
from support.gateway.access import ALICE
from support.gateway.fake_triton import FakeTriton, Gated, serving
from support.gateway.rig import Rig, running
from support.tables import for_each
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts

TURNS = 40
"""Of the event loop: by then the request has been sent, on a quiet machine."""
SILENCE_SECONDS = 0.0005
USES: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "write": lambda call: call.write(pb.ModelInferRequest()),
    "read": lambda call: call.read(),
    "done_writing": lambda call: call.done_writing(),
    "code": lambda call: call.code(),
    "details": lambda call: call.details(),
}


async def wait_turns(turns: int) -> None:
    """Let the event loop turn so often."""
    for _ in range(turns):
        await asyncio.sleep(0)


@for_each("use", USES)
@for_each("status, options", {
    "cancelled": (grpc.StatusCode.CANCELLED, {}),
    "too late": (grpc.StatusCode.DEADLINE_EXCEEDED, {"timeout": -1.0}),
})  # fmt: skip
@for_each("turns", {"before its task has begun": 0, "when it has": 1})
async def test_a_call_that_has_ended_answers(
    use: Callable[[Any], Awaitable[Any]], status: grpc.StatusCode, options: dict[str, float], turns: int
) -> None:
    async with (
        serving(FakeTriton(Gated(("a",)))) as pod,
        grpc.aio.insecure_channel(f"127.0.0.1:{pod.port}") as channel,
    ):
        serialize, read = pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
        call = channel.stream_stream(METHOD, request_serializer=serialize, response_deserializer=read)(**options)
        await wait_turns(turns)
        if status is grpc.StatusCode.CANCELLED:
            call.cancel()
        await asyncio.gather(use(call), return_exceptions=True)
        assert await call.code() is status


def begin(rig: Rig, request_id: str, request: RunningRequest | None = None) -> Generation:
    """Begin a request at the pod."""
    pool = rig.gateway.models.find("credit", ALICE)
    assert pool is not None
    message = pb.ModelInferRequest(id=request_id)
    return rig.gateway.models.begin(pool, request or RunningRequest("alice"), message)


async def test_a_request_that_is_cancelled_at_any_turn_of_the_loop_ends(tmp_path: Path) -> None:
    async with running(tmp_path, Gated(("a",))) as rig:
        turns = 0
        while turns < TURNS or not rig.pod.ids:  # on a machine that does other things it takes more to reach the engine
            assert turns < 100 * TURNS, "none has reached the engine"
            generation = begin(rig, f"at-{turns}")
            await wait_turns(turns)
            await generation.end()
            assert generation.is_ended
            turns += 1
        await rig.until_running(0)


async def test_a_request_whose_caller_is_revoked_at_any_turn_of_the_loop_ends_with_that(tmp_path: Path) -> None:
    async with running(tmp_path, Gated(("a",))) as rig:
        for turns in range(TURNS):
            request = RunningRequest("alice")
            generation = begin(rig, f"at-{turns}", request)
            await wait_turns(turns)
            request.revoke()
            async with asyncio.timeout(30):
                while not generation.is_ended:
                    await generation.wait()
            assert isinstance(generation.error, CallerRevokedError)


async def test_a_request_ends_as_that_of_a_silent_engine_at_whichever_turn_the_loop_stands_still(
    tmp_path: Path,
) -> None:
    limits = {"silenceSeconds": SILENCE_SECONDS}
    async with running(tmp_path, Gated(("a",)), settings={"limits": limits}) as rig:
        for turns in range(TURNS):
            generation = begin(rig, f"at-{turns}")
            await wait_turns(turns)
            until = asyncio.get_running_loop().time() + 2 * SILENCE_SECONDS
            while asyncio.get_running_loop().time() < until:
                pass
            await eventually(lambda generation=generation: generation.is_ended, f"it ends, after {turns} turns")
            assert isinstance(generation.error, AnswerFailedError)
            assert "the engine was silent" in str(generation.error)
        await rig.until_running(0)
