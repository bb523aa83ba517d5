"""A server that speaks Triton's streaming protocol over grpc.aio and answers as a script says.

A script is an async generator: it yields `Piece`s, may await gates of the test, and may raise `FailureError`.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from r1plus_contract import inference


@dataclass(frozen=True)
class Piece:
    """One response."""

    text: str = ""
    completion_tokens: int = 0
    prompt_tokens: int = 7
    finish_reason: str = ""


class FailureError(Exception):
    """Ends a script: with a response that is an error, as the engine does, or with a gRPC status, as a pod that is gone."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


Inputs = dict[str, Any]
Script = Callable[[Inputs], AsyncIterator[Piece]]
_FORMS = {"INT32": "<i", "FP32": "<f", "UINT64": "<Q"}


def read_inputs(request: pb.ModelInferRequest) -> Inputs:
    """Return the tensors of a request by name; BYTES as text."""
    values: Inputs = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        assert list(tensor.shape) == [1]
        if tensor.datatype == "BYTES":
            assert int.from_bytes(raw[:4], "little") == len(raw) - 4
            values[tensor.name] = raw[4:].decode()
        elif tensor.datatype == "BOOL":
            values[tensor.name] = raw == b"\x01"
        else:
            (values[tensor.name],) = struct.unpack(_FORMS[tensor.datatype], raw)
    return values


def build_response(piece: Piece) -> pb.ModelStreamInferResponse:
    """Return a response as Triton's Python backend sends it."""
    inner = pb.ModelInferResponse(model_name="r1plus")
    for name, text in (("text_output", piece.text), ("finish_reason", piece.finish_reason)):
        inner.outputs.add(name=name, datatype="BYTES", shape=[1])
        data = text.encode()
        inner.raw_output_contents.append(len(data).to_bytes(4, "little") + data)
    for name, number in (("prompt_tokens", piece.prompt_tokens), ("completion_tokens", piece.completion_tokens)):
        inner.outputs.add(name=name, datatype="INT32", shape=[1])
        inner.raw_output_contents.append(struct.pack("<i", number))
    return pb.ModelStreamInferResponse(infer_response=inner)


def answer(*tokens: str, finish_reason: str = "stop", gap_s: float = 0.0) -> Script:
    """Return a script that sends these tokens, `gap_s` apart."""

    async def run(_: Inputs) -> AsyncIterator[Piece]:
        for count, token in enumerate(tokens, 1):
            if gap_s:
                await asyncio.sleep(gap_s)
            yield Piece(token, count)
        yield Piece("", len(tokens), finish_reason=finish_reason)

    return run


async def stay_silent(_: Inputs) -> AsyncIterator[Piece]:
    """Answer nothing until the client leaves: a script."""
    await asyncio.Event().wait()
    yield Piece()


async def count_up(inputs: Inputs) -> AsyncIterator[Piece]:
    """Answer with as many tokens as the prompt says, a hundred in a second: a script."""
    most = int(inputs["text_input"])
    for count in range(1, most + 1):
        yield Piece("a ", count)
        await asyncio.sleep(0.01)
    yield Piece("", most, finish_reason="stop")


def fail(code: grpc.StatusCode, message: str, *tokens: str) -> Script:
    """Return a script that sends these tokens and then fails."""

    async def run(_: Inputs) -> AsyncIterator[Piece]:
        for count, token in enumerate(tokens, 1):
            yield Piece(token, count)
        raise FailureError(code, message)

    return run


@dataclass
class Gated:
    """A script whose tokens the test lets go one by one."""

    tokens: tuple[str, ...]
    _allowed: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    def release(self, count: int = 1) -> None:
        """Let this many more tokens go; the end is one."""
        for _ in range(count):
            self._allowed.put_nowait(None)

    async def __call__(self, _: Inputs) -> AsyncIterator[Piece]:
        for count, token in enumerate(self.tokens, 1):
            await self._allowed.get()
            yield Piece(token, count)
        await self._allowed.get()
        yield Piece("", len(self.tokens), finish_reason="stop")


@dataclass
class PromptCounter:
    """Counts so many tokens for each prompt, and how often it is asked."""

    tokens: int = 7
    asked: int = 0

    def __call__(self, _: Inputs) -> int:
        self.asked += 1
        return self.tokens


_NO_ROOM = (inference.QUEUE_FULL, inference.SCHEMA_MEMORY_FULL)


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Remembers what was asked and how each request ended."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.count_tokens: Callable[[Inputs], int] = PromptCounter()
        self.answer_count: Script = self._count
        """What it sends where it is asked to count."""
        self.inputs: list[Inputs] = []
        self.ids: list[str] = []
        self.schema_owners: list[str] = []
        self.running = 0
        self.most_running = 0
        self.cancelled = 0
        self.sent_tokens = 0
        self.knows_usage = True
        """Whether it tells what a request that was cut has used; older images do not."""
        self.is_silent_on_usage = False
        """Whether it ends the stream of such a question without a response."""
        self.usage: dict[str, tuple[int, int]] = {}
        """By request id: tokens of prompt and answer that were counted."""
        self._ended: dict[str, asyncio.Event] = {}
        self.port = 0

    async def ModelStreamInfer(  # noqa: N802 - the protocol's name
        self, requests: AsyncIterator[pb.ModelInferRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        assert "triton_grpc_error" not in dict(context.invocation_metadata()), "Triton 2.51 dies of it"
        async for request in requests:
            inputs = read_inputs(request)
            if named := request.parameters["usage_of"].string_param:
                if not self.is_silent_on_usage:
                    yield await self._tell_usage(named)
                continue
            if inputs.pop("count_only", False):
                async for piece in self.answer_count(inputs):
                    yield build_response(piece)
                continue
            self.inputs.append(inputs)
            self.ids.append(request.id)
            self.schema_owners.append(request.parameters["schema_owner"].string_param)
            self._ended[request.id] = asyncio.Event()
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                async for piece in self.script(inputs):
                    self.sent_tokens = max(self.sent_tokens, piece.completion_tokens)
                    self.usage[request.id] = (piece.prompt_tokens, piece.completion_tokens)
                    yield build_response(piece)
            except FailureError as error:
                if error.code is grpc.StatusCode.UNAVAILABLE and not str(error).startswith(_NO_ROOM):
                    await context.abort(error.code, str(error))
                yield pb.ModelStreamInferResponse(error_message=str(error))
            except (asyncio.CancelledError, GeneratorExit):
                self.cancelled += 1
                raise
            finally:
                self.running -= 1
                self._ended[request.id].set()

    def remember(self, request_id: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Have run a request to its end."""
        self.usage[request_id] = (prompt_tokens, completion_tokens)
        self._ended[request_id] = asyncio.Event()
        self._ended[request_id].set()

    async def _count(self, inputs: Inputs) -> AsyncIterator[Piece]:
        yield Piece(prompt_tokens=self.count_tokens(inputs), finish_reason="stop")

    async def _tell_usage(self, request_id: str) -> pb.ModelStreamInferResponse:
        if not self.knows_usage or request_id not in self._ended:
            return pb.ModelStreamInferResponse(error_message="text_input: is missing")
        await self._ended[request_id].wait()
        prompt, completion = self.usage.get(request_id, (0, 0))
        return build_response(Piece("", completion, prompt, "cancelled"))

    @property
    def messages(self) -> Any:
        """The messages of the last request."""
        return json.loads(self.inputs[-1]["messages"])


@asynccontextmanager
async def serving(fake: FakeTriton, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[FakeTriton]:
    """Serve until the block ends; calls in flight then end as with a killed pod."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    fake.port = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(grace=None)
