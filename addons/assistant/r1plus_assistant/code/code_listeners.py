"""What an answer does while its programs run: nothing, or the events of a stream. See `RoundsListener`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from r1plus_assistant.calculation.desk import CalculatorDesk
from r1plus_assistant.code.code_rounds import CodeRounds, Executor
from r1plus_gateway.http.completions.answers import EventWriter
from r1plus_gateway.http.completions.event_stream import EventStream, read_whole
from r1plus_gateway.http.completions.reservations import count_prompt
from r1plus_gateway.http.completions.steps import ReservedDraft
from r1plus_gateway.http.parts import GatewayParts
from r1plus_gateway.http.schemas.code_tool import CodeCall
from r1plus_gateway.serving.generation import Generation
from r1plus_gateway.serving.triton_wire import Prompt


class CodeEventWriter(EventWriter, Protocol):
    """The events of a stream whose programs the gateway runs."""

    def build_code_begin(self, call: CodeCall) -> bytes:
        """Return the events of a program that is about to run."""

    def build_code_end(self, call: CodeCall) -> bytes:
        """Return the events of a program that was run."""


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


class ProgramRounds:
    """The rounds of one answer; see `AnswerRounds`."""

    def __init__(self, rounds: CodeRounds) -> None:
        self._rounds = rounds

    @property
    def calls(self) -> Sequence[CodeCall]:
        """See `AnswerRounds`."""
        return self._rounds.calls

    @property
    def is_cut(self) -> bool:
        """See `AnswerRounds`."""
        return self._rounds.is_cut

    @property
    def is_mixed(self) -> bool:
        """See `AnswerRounds`."""
        return len(self._rounds.revisions) > 1

    async def finish(self, generation: Generation) -> tuple[Generation, str]:
        """See `AnswerRounds`."""
        return await self._rounds.finish(generation, WholeRounds())

    async def finish_stream(
        self, generation: Generation, stream: EventStream, events: EventWriter
    ) -> tuple[Generation, str]:
        """See `AnswerRounds`."""
        return await self._rounds.finish(generation, StreamedRounds(stream, cast(CodeEventWriter, events)))


@dataclass(frozen=True, slots=True)
class RoundsRunner:
    """Runs programs of answers at one desk."""

    desk: CalculatorDesk
    parts: GatewayParts

    def open(self, job: ReservedDraft, prompt: Prompt) -> ProgramRounds:
        """See `RoundsOpener`."""
        request, call = replace(job.request, prompt=prompt), job.draft.call
        return ProgramRounds(
            CodeRounds(
                self.desk,
                self.parts.models,
                self.parts.metrics,
                count_prompt,
                job.draft.pool,
                request,
                job.bill,
                call.running,
            )
        )
