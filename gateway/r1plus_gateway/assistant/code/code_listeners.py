"""What an answer does while its programs run: nothing, or the events of a stream. See `RoundsListener`."""

import asyncio

from r1plus_gateway.assistant.code.code_interpreter import CodeCall
from r1plus_gateway.assistant.code.code_rounds import Executor
from r1plus_gateway.http.completions.answers import CodeEventWriter
from r1plus_gateway.http.completions.event_stream import EventStream, read_whole
from r1plus_gateway.serving.generation import Generation


class WholeRounds:
    """For an answer that is sent as a whole."""

    async def read(self, generation: Generation) -> str:
        """See `RoundsListener`."""
        return await read_whole(generation)

    async def run(self, call: CodeCall, execute: Executor) -> CodeCall:
        """See `RoundsListener`."""
        return await execute(call)


class StreamedRounds:
    """For a stream: a program is sent before it runs, and its outputs after it."""

    def __init__(self, stream: EventStream, events: CodeEventWriter) -> None:
        self._stream = stream
        self._events = events

    async def read(self, generation: Generation) -> str:
        """See `RoundsListener`."""
        self._stream.follow(generation)
        return await read_whole(generation, self._stream)

    async def run(self, call: CodeCall, execute: Executor) -> CodeCall:
        """See `RoundsListener`. Heartbeats keep the connection while the calculator starts."""
        await self._stream.write(self._events.build_code_begin(call))
        task = asyncio.create_task(execute(call))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=self._stream.tick_seconds)
                if self._stream.needs_heartbeat:
                    await self._stream.write_heartbeat()
            await self._stream.write(self._events.build_code_end(task.result()))
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
