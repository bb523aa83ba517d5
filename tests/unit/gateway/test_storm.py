"""Many clients that leave at any moment before pods that fail at any moment: what must hold afterwards.

Each request is settled exactly once (the ledger fails on a second time), no slot, place in the queue or count stays taken.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from r1plus_gateway.access.caller import Outcome
from support.gateway.access import ALICE
from support.gateway.fake_triton import FailureError, FakeTriton, Inputs, Piece, serving
from support.gateway.rig import Rig, running
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts

REQUESTS = 120
LEAVING, LEAVING_SHARE = "I leave", 0.15
CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)


class Weather:
    """A script and clients whose behaviour a seed decides."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def answer(self, inputs: Inputs) -> AsyncIterator[Piece]:
        """Send some tokens; fail sometimes, before them or between; to a client that leaves send one, and no end."""
        if LEAVING in inputs["text_input"]:
            yield Piece("0 ", 1)
            await asyncio.Event().wait()
        tokens = self._random.randrange(1, 8)
        breaks_at = self._random.randrange(0, 16)
        for number in range(tokens):
            if number == breaks_at:
                raise FailureError(self._random.choice(CODES), "QueueFull" if self._random.random() < 0.3 else "gone")
            await asyncio.sleep(self._random.random() * 0.01)
            yield Piece(f"{number} ", number + 1)
        yield Piece("", tokens, finish_reason="stop")

    async def ask(self, rig: Rig) -> None:
        """Ask; leave at the first token, after a random time, or never."""
        if self._random.random() < LEAVING_SHARE:
            async with rig.chat(LEAVING, stream=True) as response:
                await response.content.readany()
            return
        patience = self._random.choice((0.02, 0.1, 0.3, 60.0))
        try:
            async with asyncio.timeout(patience), rig.chat(stream=self._random.random() < 0.7) as response:
                await response.read()
        except TimeoutError:
            pass


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_stays_taken(tmp_path: Path, seed: int) -> None:
    weather = Weather(seed)
    limits = {"queuePerKey": REQUESTS}
    other = FakeTriton(weather.answer)
    async with (
        running(tmp_path, weather.answer, batch=3, settings={"limits": limits}) as rig,
        serving(other, "127.0.0.2", rig.pod.port),
    ):
        pool = rig.gateway.models.find("credit", ALICE)
        assert pool is not None
        rig.addresses = frozenset({"127.0.0.1", "127.0.0.2"})
        await pool.refresh()
        asks = [asyncio.create_task(weather.ask(rig)) for _ in range(REQUESTS)]
        await eventually(lambda: rig.pod.inputs and other.inputs, "both pods are asked")
        rig.addresses = frozenset({"127.0.0.1"})  # one pod leaves the name service under load
        await pool.refresh()
        await asyncio.gather(*asks)
        await rig.until_settled(rig.ledger.arrived)
        await rig.until_running(0)
        await eventually(lambda: other.running == 0, "the pod that left is done")
        queue = rig.gateway.models.queue
        await eventually(lambda: (queue.waiting, queue.count_running("credit")) == (0, 0), "the queue is empty")
        await eventually(lambda: pool.choose().requests == 0, "the pod is free")
        assert max(rig.pod.most_running, other.most_running) <= 6
    outcomes = Counter(entry.outcome for entry in rig.ledger.settled)
    assert outcomes.keys() <= {Outcome.ANSWERED, Outcome.CANCELLED, Outcome.FAILED}
    assert outcomes[Outcome.ANSWERED] >= 5
    assert outcomes[Outcome.CANCELLED] + outcomes[Outcome.FAILED] >= 5
