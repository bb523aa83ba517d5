"""A pod that emits tokens on a fixed timetable, in a process of its own: `python -m bench.gateway.timetable`.

Each token is `t<number>:<monotonic ns when it was sent> `, so that a reader on this machine knows how long it took. The
prompt says `ID TOKENS GAP_MS`. Over HTTP the same process is the pod's monitor, an OpenAI mock on the same timetable
for LiteLLM, and `GET /stats` tells what each request was sent and when it was cancelled.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import uvloop
from aiohttp import web

from r1plus_contract.jsonable import dumps
from support.gateway.fake_triton import FakeTriton, Inputs, Piece, serving
from support.gateway.rig import REPORT


@dataclass
class Sent:
    """What one request was sent."""

    tokens: int = 0
    cancelled_ns: int = 0
    request_id: str = ""
    """As the gateway named it."""


class Timetable:
    """Tokens on time: the gap is counted from the first token, so that delays do not add up."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.pod = FakeTriton(self.answer)

    async def emit(self, prompt: str) -> AsyncIterator[tuple[int, str]]:
        """Yield number and text of each token."""
        name, count, gap_ms = prompt.split()
        sent = self.sent[name] = Sent()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            for number in range(1, int(count) + 1):
                if (rest := begin + number * float(gap_ms) / 1000 - loop.time()) > 0:
                    await asyncio.sleep(rest)
                sent.tokens = number
                yield number, f"t{number}:{time.monotonic_ns()} "
        except (asyncio.CancelledError, GeneratorExit):
            sent.cancelled_ns = time.monotonic_ns()
            raise

    async def answer(self, inputs: Inputs) -> AsyncIterator[Piece]:
        """Answer as Triton does."""
        number = 0
        async for number, text in self.emit(inputs["text_input"]):
            yield Piece(text, number)
        yield Piece("", number, finish_reason="stop")

    async def get_stats(self, _: web.Request) -> web.Response:
        """Return what was sent, by request, and forget it."""
        names = [inputs["text_input"].split()[0] for inputs in self.pod.inputs]
        for name, request_id in zip(names, self.pod.ids, strict=True):
            if name in self.sent:
                self.sent[name].request_id = request_id
        stats = {name: asdict(sent) for name, sent in self.sent.items()}
        self.sent.clear()
        return web.json_response(stats)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer as OpenAI does."""
        body = await request.json()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

        async def write(delta: dict[str, str], reason: str | None) -> None:
            choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
            await response.write(b"data: " + json.dumps({**head, "choices": choices}).encode() + b"\n\n")

        await write({"role": "assistant", "content": ""}, None)
        async for _, text in self.emit(body["messages"][-1]["content"]):
            await write({"content": text}, None)
        await write({}, "stop")
        await response.write(b"data: [DONE]\n\n")
        return response


async def get_verdict(_: web.Request) -> web.Response:
    """Answer as the monitor does."""
    return web.Response(text=dumps(REPORT), content_type="application/json")


async def serve(grpc_port: int, http_port: int) -> None:
    """Serve until killed."""
    timetable = Timetable()
    app = web.Application()
    app.router.add_get("/stats", timetable.get_stats)
    app.router.add_get("/verdict", get_verdict)
    app.router.add_post("/v1/chat/completions", timetable.chat)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", http_port, backlog=1024).start()
    async with serving(timetable.pod, port=grpc_port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--grpc", type=int, required=True)
    parser.add_argument("--http", type=int, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.grpc, options.http))
