"""Asks the engine one item over Triton's gRPC stream, and names every failure outside.

Called by `probes`. Tests put a scripted engine behind the `Engine` protocol.
"""

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

import aiohttp
import grpc
import numpy as np
from aiohttp.client_proto import ResponseHandler
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from r1plus_contract import inference
from r1plus_contract.inference import MOST_TOKEN_BYTES
from r1plus_contract.metrics import ENGINE_RUNNING_REQUESTS, ENGINE_WAITING_REQUESTS
from r1plus_contract.process.connections import PLAIN, BoundedResponse, limit_responses
from r1plus_contract.process.streams import read_at_most
from r1plus_contract.suites.suite import SuiteSampling

_LOAD_SERIES: Final = re.compile(rf"({ENGINE_RUNNING_REQUESTS}|{ENGINE_WAITING_REQUESTS})[ {{]")


class Failure(StrEnum):
    """Why there is no answer to score."""

    SERVER_ERROR = "server error"
    """The engine refused or broke off: the item failed."""
    TIMEOUT = "timeout"
    """The answer came to a halt, or did not end in time: the item failed."""
    TRANSPORT = "transport"
    """No server there, or no model loaded: nothing was scored."""


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """A whole answer, or the failure that came instead. The text is scored and dropped, never kept or logged."""

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: Failure | None = None
    detail: str = ""
    """Of a failure: the status, for the log. Never an answer's text."""


class EngineClient(Protocol):
    """The engine as the prober sees it."""

    async def is_model_ready(self) -> bool:
        """Return whether the model answers readiness now."""

    async def count_waiting_requests(self) -> int | None:
        """Return how many requests wait for a slot now; None where the engine does not report it."""

    async def count_user_requests(self) -> int | None:
        """Return how many requests run or wait now, without probes; None where the engine does not report it."""

    async def ask(self, prompt: str, sampling: SuiteSampling) -> ProbeReply:
        """Ask for one answer. Never raises for what the engine or the network does."""

    async def close(self) -> None:
        """Close the connections."""


UNIX: Final = "unix:"
"""An address begins with it that is a socket's path."""
_READY_PATH: Final = f"/v2/models/{inference.MODEL_NAME}/ready"
_READY_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_METRICS_TIMEOUT: Final = aiohttp.ClientTimeout(total=1)
MOST_METRICS_BYTES: Final = 1024 * 1024
MOST_MESSAGE_BYTES: Final = 256 * 1024
"""Of one gRPC message: pieces of answers are far smaller, and a gate has as many in flight as its batch."""
LONGEST_ANSWER: Final = 3.0
"""A whole answer may take so many times as long as the wait for one piece of it. An engine that only trickles delays
each alarm by this factor."""

LONG_PROMPT_CHARACTERS: Final = 4000
SECONDS_PER_CHARACTER: Final = 0.004
"""Of a longer prompt, which takes its time to be read. Two idle cores read 6,000 tokens with a model of 0.5B parameters
four times as fast."""


class _Response(BoundedResponse, ResponseHandler):
    """Triton's answers."""


def _open_session(address: str) -> aiohttp.ClientSession:
    """Return a client of one endpoint of Triton.

    Triton's container may be compromised: its answers are bounded, nothing is unpacked, no redirect is followed.
    """
    is_socket = address.startswith(UNIX)
    connector = aiohttp.UnixConnector(address.removeprefix(UNIX)) if is_socket else aiohttp.TCPConnector()
    return aiohttp.ClientSession(
        f"http://{'localhost' if is_socket else address}",
        connector=limit_responses(connector, _Response),
        timeout=_READY_TIMEOUT,
        headers=PLAIN,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class StreamClient(Protocol):
    """What `TritonEngine` uses of `tritonclient.grpc.aio.InferenceServerClient`."""

    def stream_infer(self, inputs_iterator: AsyncIterator[dict[str, Any]]) -> Any:
        """Return an async iterator of (result, error), with a method `cancel`."""

    async def close(self) -> None:
        """Close the connection."""


class TritonEngine:
    """Triton in the same pod: readiness over HTTP, answers over gRPC streams (the model is decoupled)."""

    def __init__(
        self, http: str, grpc_target: str, timeout: float, metrics: str = "", *, streams: StreamClient | None = None
    ) -> None:
        """`timeout` in seconds bounds the wait for each piece of an answer. Must be built inside a running event loop.

        So an engine that hangs is noticed as soon, and one that is slow on a busy node is still judged by its answers.

        `metrics`: address of Triton's metrics; without them the number of waiting requests is unknown. An address is
        host and port, or `unix:PATH`. `streams`: opens streams of answers; by default gRPC to `grpc_target`.
        """
        self._http = _open_session(http)
        self._metrics = _open_session(metrics) if metrics else None
        self._timeout = timeout
        limits = [("grpc.max_receive_message_length", MOST_MESSAGE_BYTES)]
        self._grpc: StreamClient = streams or InferenceServerClient(grpc_target, channel_args=limits)
        self._streaming: set[object] = set()
        """Probes that have had a response and have not ended: the engine surely counts them as running."""
        self._reading: dict[object, float] = {}
        """Probe without a response -> seconds that its prompt may take to be read. The engine reads one by one."""

    async def is_model_ready(self) -> bool:
        """Return whether the model is ready. Server readiness is no substitute: it fails during any load."""
        try:
            async with self._http.get(_READY_PATH, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def count_waiting_requests(self) -> int | None:
        """Return the sum over the engine's own gauge; None where it cannot be read."""
        return parse_load(await self._read_metrics()).get(ENGINE_WAITING_REQUESTS)

    async def count_user_requests(self) -> int | None:
        """Return what the engine's gauges say, less the probes that stream before and after they are read.

        A probe that begins or ends meanwhile counts as a user's: rather one too many than one too few.
        """
        before = set(self._streaming)
        load = parse_load(await self._read_metrics())
        if load.keys() != {ENGINE_RUNNING_REQUESTS, ENGINE_WAITING_REQUESTS}:
            return None
        return max(0, sum(load.values()) - len(before & self._streaming))

    async def _read_metrics(self) -> str:
        """Return Triton's exposition text; empty where it cannot be read."""
        if self._metrics is None:
            return ""
        try:
            async with self._metrics.get("/metrics", timeout=_METRICS_TIMEOUT, allow_redirects=False) as response:
                response.raise_for_status()
                body = await read_at_most(response.content.iter_chunked(64 * 1024), MOST_METRICS_BYTES)
                return body.decode()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError):
            return ""

    async def ask(self, prompt: str, sampling: SuiteSampling) -> ProbeReply:
        """Stream one answer to its end. A cancellation always ends it, whatever gRPC says instead."""
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        reply = await self._ask_in_time(prompt, sampling)
        # grpc.aio swallows a cancellation that comes while a call to a dying server begins, and reports that server.
        if task.cancelling() > before:
            raise asyncio.CancelledError
        return reply

    async def _ask_in_time(self, prompt: str, sampling: SuiteSampling) -> ProbeReply:
        clock = asyncio.get_running_loop().time
        asked, mark = clock(), object()
        self._reading[mark] = compute_reading_seconds(prompt)
        reading = sum(self._reading.values())

        def note_piece() -> None:
            self._reading.pop(mark, None)
            timeout.reschedule(compute_deadline(clock(), asked + reading, self._timeout))

        try:
            async with asyncio.timeout(self._timeout + reading) as timeout:
                return await self._stream(prompt, sampling, note_piece)
        except TimeoutError:
            seconds = clock() - asked
            return ProbeReply(failure=Failure.TIMEOUT, detail=f"it came to a halt, or had no end after {seconds:.0f} s")
        except InferenceServerException as error:
            return _classify_error(error)
        except grpc.aio.AioRpcError as error:
            return ProbeReply(failure=_classify_status(error.code()), detail=str(error.code()))
        finally:
            self._reading.pop(mark, None)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()
        if self._metrics is not None:
            await self._metrics.close()
        await self._grpc.close()

    async def _stream(self, prompt: str, sampling: SuiteSampling, note_piece: Callable[[], None]) -> ProbeReply:
        request = {"model_name": inference.MODEL_NAME, "inputs": build_inputs(prompt, sampling)}
        stream = self._grpc.stream_infer(_yield_once(request))
        pieces: list[str] = []
        room = MOST_TOKEN_BYTES * sampling.max_new_tokens
        mark = object()
        reply = ProbeReply(failure=Failure.SERVER_ERROR, detail="the stream ended without a finish reason")
        try:
            # To its end: a stream that is dropped counts as a cancelled request in the server.
            async for result, error in stream:
                note_piece()
                if error is not None:
                    return _classify_error(error)
                part = _read_response(result)
                if part.failure:
                    return part
                room -= len(part.text.encode())
                if room < 0:
                    return _reject_long_answer(sampling)
                pieces.append(part.text)
                self._streaming.add(mark)
                if part.finish_reason:
                    self._streaming.discard(mark)
                    reply = replace(part, text="".join(pieces))
        finally:
            self._streaming.discard(mark)
            stream.cancel()
        return reply


def compute_reading_seconds(prompt: str) -> float:
    """Return the seconds that the first piece of an answer may take longer because a prompt is long."""
    return SECONDS_PER_CHARACTER * max(0, len(prompt) - LONG_PROMPT_CHARACTERS)


def compute_deadline(now: float, began: float, timeout: float) -> float:
    """Return until when the next piece of an answer has to come, on the clock of the arguments, in seconds."""
    return min(now + timeout, began + LONGEST_ANSWER * timeout)


def _reject_long_answer(sampling: SuiteSampling) -> ProbeReply:
    most = MOST_TOKEN_BYTES * sampling.max_new_tokens
    return ProbeReply(
        failure=Failure.SERVER_ERROR,
        detail=f"the answer is larger than {most} bytes, which {sampling.max_new_tokens} tokens cannot be",
    )


def parse_load(exposition: str) -> dict[str, int]:
    """Parse Triton's exposition text: gauge -> sum over its series; without one that is absent or is no number."""
    load: dict[str, int] = {}
    for line in exposition.splitlines():
        if match := _LOAD_SERIES.match(line):
            try:
                load[match[1]] = load.get(match[1], 0) + int(float(line.rpartition(" ")[2]))
            except (ValueError, OverflowError):
                return {}
    return load


def build_inputs(prompt: str, sampling: SuiteSampling) -> list[InferInput]:
    """Build the request's inputs; optional ones only where the suite differs from the default."""
    inputs = [
        _build_bytes_input(inference.PROMPT, prompt),
        _build_input(inference.MAX_NEW_TOKENS, "INT32", np.array([sampling.max_new_tokens], np.int32)),
        _build_input(inference.TEMPERATURE, "FP32", np.array([sampling.temperature], np.float32)),
    ]
    if sampling.top_p != 1.0:
        inputs.append(_build_input(inference.TOP_P, "FP32", np.array([sampling.top_p], np.float32)))
    if sampling.repetition_penalty != 1.0:
        penalty = np.array([sampling.repetition_penalty], np.float32)
        inputs.append(_build_input(inference.REPETITION_PENALTY, "FP32", penalty))
    if sampling.stop:
        inputs.append(_build_bytes_input(inference.STOP, json.dumps(sampling.stop, ensure_ascii=False)))
    if sampling.system:
        inputs.append(_build_bytes_input(inference.SYSTEM, sampling.system))
    return inputs


def _build_bytes_input(name: str, text: str) -> InferInput:
    return _build_input(name, "BYTES", np.array([text.encode()], dtype=np.object_))


def _build_input(name: str, datatype: str, value: Any) -> InferInput:
    tensor = InferInput(name, [1], datatype)
    tensor.set_data_from_numpy(value)
    return tensor


async def _yield_once(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request


def _read_response(result: Any) -> ProbeReply:
    """Return one response of a stream: its piece of text, and in the last one why it ended and the counts."""
    try:
        return ProbeReply(
            text=_read_text(result, inference.TEXT),
            finish_reason=_read_text(result, inference.FINISH_REASON),
            prompt_tokens=_read_number(result, inference.PROMPT_TOKENS),
            completion_tokens=_read_number(result, inference.COMPLETION_TOKENS),
        )
    except (ValueError, TypeError, OverflowError, struct.error):
        return ProbeReply(failure=Failure.SERVER_ERROR, detail="a response cannot be read: not UTF-8, or other tensors")


def _read_text(result: Any, name: str) -> str:
    value = result.as_numpy(name)
    if value is None or value.size == 0:
        return ""
    first = value.flat[0]
    return first.decode() if isinstance(first, bytes) else str(first)


def _read_number(result: Any, name: str) -> int:
    value = result.as_numpy(name)
    return 0 if value is None or value.size == 0 else int(value.flat[0])


def _classify_error(error: InferenceServerException) -> ProbeReply:
    """Map an error to a failure: a stream carries text alone, a call that never reached a model carries a status."""
    message, status = str(error.message() or ""), str(error.status() or "")
    if "DEADLINE_EXCEEDED" in status:
        return ProbeReply(failure=Failure.TIMEOUT, detail=status)
    if message.startswith(inference.QUEUE_FULL):
        return ProbeReply(failure=Failure.TRANSPORT, detail="the engine's queue is full")
    is_unavailable = any(sign in status for sign in ("UNAVAILABLE", "CANCELLED", "NOT_FOUND"))
    if is_unavailable or inference.is_not_loaded(message):
        return ProbeReply(failure=Failure.TRANSPORT, detail=status or "the model is not loaded")
    return ProbeReply(failure=Failure.SERVER_ERROR, detail=status or "the model answered with an error")


def _classify_status(code: grpc.StatusCode) -> Failure:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure.TIMEOUT
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.NOT_FOUND):
        return Failure.TRANSPORT
    return Failure.SERVER_ERROR
