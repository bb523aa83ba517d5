"""A client under load in a process of its own: `python -m bench.gateway.load PATH TARGET STREAMS TOKENS GAP_MS OUT`.

It writes one JSON object: how long each token took from the pod, lost tokens, its own processor time, when it cut what.
"""

import argparse
import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop
from tritonclient.grpc import service_pb2

from r1plus_contract import inference
from r1plus_gateway.serving.triton_wire import METHOD, Prompt, Sampling, build_request
from support.gateway.access import KEY

TOKEN = re.compile(rb"t(\d+):(\d+) ")


@dataclass
class Stream:
    """What one stream saw. Times in nanoseconds."""

    name: str
    delays: list[int] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    cut_ns: int = 0

    def see(self, data: bytes) -> None:
        """Note the tokens in these bytes."""
        now = time.monotonic_ns()
        for number, sent in TOKEN.findall(data):
            self.numbers.append(int(number))
            self.delays.append(now - int(sent))
            self.arrivals.append(now)


Opener = Callable[[Stream, str], AsyncIterator[bytes]]


def read_http(target: str, model: str, key: str) -> Opener:
    """Return a reader of server-sent events over a plain socket: a client costs as little as it can."""
    host, _, port = target.rpartition(":")

    async def read(stream: Stream, prompt: str) -> AsyncIterator[bytes]:
        body = json.dumps(
            {"model": model, "stream": True, "max_tokens": 4096, "messages": [{"role": "user", "content": prompt}]}
        ).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {target}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(head.encode() + body)
            start = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in start[:16]:
                raise SystemExit(f"{start.decode()} {(await reader.read(500)).decode()}")
            while True:
                data = await reader.read(65536)
                if not data:
                    return
                yield data
                if b"[DONE]" in data:
                    return
        finally:
            if stream.cut_ns == -1:
                stream.cut_ns = time.monotonic_ns()
            writer.transport.abort()

    return read


def read_grpc(channel: Any) -> Opener:
    """Return a reader of bare grpc.aio, which does what every client of Triton has to."""
    open_stream = channel.stream_stream(
        METHOD,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )

    async def read(stream: Stream, prompt: str) -> AsyncIterator[bytes]:
        call = open_stream()
        await call.write(build_request(stream.name, Prompt(prompt), Sampling(4096)))
        await call.done_writing()
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                inner = response.infer_response
                for tensor, content in zip(inner.outputs, inner.raw_output_contents, strict=True):
                    if tensor.name == inference.TEXT:
                        yield content[4:]
        finally:
            if stream.cut_ns == -1:
                stream.cut_ns = time.monotonic_ns()
            call.cancel()

    return read


async def run_stream(opener: Opener, stream: Stream, tokens: int, gap_ms: float, cut_after: int | None) -> None:
    """Read one stream, or cut it after so many tokens; with 0 before the first one."""
    reading = opener(stream, f"{stream.name} {tokens} {gap_ms}")

    async def read() -> None:
        async for data in reading:
            stream.see(data)
            if cut_after and len(stream.numbers) >= cut_after:
                stream.cut_ns = -1
                break
        await reading.aclose()  # type: ignore[attr-defined]

    if cut_after == 0:
        task = asyncio.create_task(read())
        await asyncio.sleep(gap_ms / 2000)
        stream.cut_ns = -1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    else:
        await read()


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run all streams, spread over one gap, so that tokens do not come at once."""
    channel = grpc.aio.insecure_channel(options.target) if options.path == "grpc" else None
    opener = read_grpc(channel) if channel else read_http(options.target, options.model, options.key)
    streams = [Stream(f"{options.name}-{number}") for number in range(options.streams)]

    async def begin(number: int, stream: Stream) -> None:
        await asyncio.sleep(options.gap_ms / 1000 * number / options.streams)
        cut = None if options.cut is None else options.cut + (number % 5 if options.cut else 0)
        await run_stream(opener, stream, options.tokens, options.gap_ms, cut)

    started, processor = time.monotonic(), time.process_time()
    await asyncio.gather(*(begin(number, stream) for number, stream in enumerate(streams)))
    seconds, processor = time.monotonic() - started, time.process_time() - processor
    if channel:
        await channel.close()
    whole = list(range(1, options.tokens + 1))
    return {
        "first_ms": [stream.delays[0] / 1e6 for stream in streams if stream.delays],
        "delay_ms": [delay / 1e6 for stream in streams for delay in stream.delays],
        "gap_ms": [
            (after - before) / 1e6
            for stream in streams
            for before, after in zip(stream.arrivals, stream.arrivals[1:], strict=False)
        ],
        "lost": 0 if options.cut is not None else sum(stream.numbers != whole for stream in streams),
        "seconds": seconds,
        "processor_seconds": processor,
        "events": sum(len(stream.numbers) for stream in streams),
        "cuts": {stream.name: stream.cut_ns for stream in streams if stream.cut_ns},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", choices=["grpc", "http"])
    parser.add_argument("target")
    parser.add_argument("streams", type=int)
    parser.add_argument("tokens", type=int)
    parser.add_argument("gap_ms", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="s")
    parser.add_argument("--model", default="credit")
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--cut", type=int, help="cut each stream after so many tokens, or a few more; 0: before any")
    options = parser.parse_args()
    options.out.write_text(json.dumps(uvloop.run(run(options))))
