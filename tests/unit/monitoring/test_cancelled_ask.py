"""Cancelling a probe, whatever gRPC makes of it: a prober that is told to end must not go on."""

import asyncio

import grpc
import pytest

from r1plus_contract.suites.suite import SuiteSampling
from r1plus_monitoring.probe.client import TritonEngine


class LosingStream:
    """A stream whose server dies as it begins: grpc.aio turns the cancellation into the status of the call."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    def stream_infer(self, _requests: object) -> "LosingStream":
        return self

    def __aiter__(self) -> "LosingStream":
        return self

    async def __anext__(self) -> object:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            metadata = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, metadata, metadata) from None
        return None

    def cancel(self) -> None:
        """Nothing is left to cancel."""

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_cancelled_question_ends_though_grpc_reports_a_lost_server_instead() -> None:
    engine = TritonEngine("127.0.0.1:1", "127.0.0.1:1", timeout=600)
    await engine._grpc.close()
    engine._grpc = stream = LosingStream()
    asking = asyncio.create_task(engine.ask("hello", SuiteSampling()))
    await stream.begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await engine.close()
