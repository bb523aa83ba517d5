"""Requests that wait before they have a slot: how many of a key, and how much memory their bodies take."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_gateway.http.accounting.admission import MOST_SEARCHES
from r1plus_gateway.http.completions import reservations
from support.gateway.access import ALICE
from support.gateway.fake_embedder import EMBEDDING
from support.gateway.fake_triton import Gated, Inputs, Piece, answer
from support.gateway.rig import Rig, running
from support.gateway.tenant_data import Volume
from support.tables import for_each
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts
BOB = "Bearer r1p_bob"
LINE, SLOTS = 4, 16
HELD = "x" * 1500
Ends = list[tuple[int, str]]


async def ask(rig: Rig, text: str, ends: Ends, **fields: Any) -> None:
    """Ask, and note status and code."""
    async with rig.chat(text, **fields) as response:
        got = await response.json()
        ends.append((response.status, "" if response.status == 200 else got["error"]["code"]))


async def ask_as_bob(rig: Rig, text: str) -> int:
    """Ask with another key; return the status."""
    rig.authenticator.callers["r1p_bob"] = replace(ALICE, id="bob")
    body = {"model": "credit", "messages": [{"role": "user", "content": text}]}
    async with rig.post("/v1/chat/completions", body, Authorization=BOB) as response:
        await response.read()
        return int(response.status)


def count_refused(ends: Ends) -> int:
    """Return how many were refused, as all that ended before the rest goes on."""
    assert set(ends) <= {(503, "queue_full")}, ends
    return len(ends)


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
@for_each("kind", {"for a search": "search", "for their prompt to be counted": "count"})
async def test_a_line_of_a_key_is_bounded_and_another_key_does_not_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, times: float
) -> None:
    monkeypatch.setattr(reservations, "COUNT_SECONDS", 600.0)
    gate = asyncio.Event()

    async def count(inputs: Inputs) -> AsyncIterator[Piece]:
        if HELD in inputs["text_input"]:
            await gate.wait()
        yield Piece(prompt_tokens=7, finish_reason="stop")

    volume = Volume(tmp_path / "volume").make()
    settings = {"embedding": EMBEDDING, "data": {"hasKnowledge": True}, "limits": {"queuePerKey": LINE}}
    capabilities = ["messages"] if kind == "search" else ["messages", "count_only"]
    async with (
        volume.open() as store,
        running(tmp_path, answer("a"), settings=settings, store=store, capabilities=capabilities, batch=SLOTS) as rig,
    ):
        rig.pod.answer_count, fields, most = count, {}, LINE + LINE + SLOTS
        if kind == "search":
            async with rig.post("/v1/vector_stores", {"name": "handbook"}) as response:
                fields = {"knowledge": {"vector_store_ids": [(await response.json())["id"]]}}
            rig.embedder.gate, most = gate, MOST_SEARCHES + LINE + SLOTS
        ends: Ends = []
        number = round(most * times + 0.4)
        asking = [asyncio.create_task(ask(rig, HELD, ends, **fields)) for _ in range(number)]
        await eventually(lambda: count_refused(ends) == number - most, "those beyond the line are refused")
        assert await ask_as_bob(rig, "Hi") == 200
        gate.set()
        await asyncio.gather(*asking)
        assert Counter(status for status, _ in ends) == Counter({200: most, 503: number - most})
        async with rig.chat(HELD, **fields) as response:
            assert response.status == 200


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
@for_each("capabilities", {
    "whose engine counts prompts": ("messages", "count_only"),
    "whose engine counts none": ("messages",),
})  # fmt: skip
async def test_a_key_has_a_few_requests_at_the_ledger_and_another_key_comes_next(
    tmp_path: Path, capabilities: Sequence[str], times: float
) -> None:
    """Each takes a place before the store's writer, which all keys share."""
    settings = {"limits": {"queuePerKey": LINE}}
    async with running(tmp_path, answer("a"), settings=settings, capabilities=capabilities, batch=SLOTS) as rig:
        rig.ledger.gate, most = asyncio.Event(), LINE + LINE + SLOTS
        ends: Ends = []
        number = round(most * times + 0.4)
        asking = [asyncio.create_task(ask(rig, "Hi", ends)) for _ in range(number)]
        await eventually(lambda: count_refused(ends) == number - most, "those beyond the line are refused")
        await eventually(lambda: rig.ledger.arrived == LINE, "a few are at the ledger")
        others = asyncio.create_task(ask_as_bob(rig, "Hi"))
        await eventually(lambda: rig.ledger.arrived == LINE + 1, "another key's comes next")
        rig.ledger.gate.set()
        await asyncio.gather(*asking)
        assert await others == 200
        assert len([status for status, _ in ends if status == 200]) >= LINE, "the others go on as the queue has room"
        async with rig.chat("Hi") as response:
            assert response.status == 200


@for_each("times", {"the bound": 1.0, "a tenth more": 1.1, "ten times as much": 10.0})
async def test_the_bodies_of_requests_that_wait_have_a_bound_and_others_are_served(
    tmp_path: Path, times: float
) -> None:
    """One runs, and its body counts no longer; two that wait fill their key's share."""
    script, most = Gated(("a",)), 2
    limits = {"bodyBytes": 4096, "bodiesBytes": 16 * 1024}
    async with running(tmp_path, script, settings={"limits": limits}, batch=1) as rig:
        ends: Ends = []
        asking = [asyncio.create_task(ask(rig, HELD, ends))]
        await rig.until_running(1)
        number = round(most * times + 0.4)
        asking += [asyncio.create_task(ask(rig, HELD, ends)) for _ in range(number)]
        await eventually(lambda: count_refused(ends) == number - most, "those beyond its share are refused")
        await eventually(lambda: rig.gateway.models.queue.waiting == most, "the others wait for a slot")
        others = asyncio.create_task(ask_as_bob(rig, HELD))
        await eventually(lambda: rig.gateway.models.queue.waiting == most + 1, "another key's waits in its turn")
        script.release(2 * (most + 2))
        await asyncio.gather(*asking)
        assert await others == 200
        assert Counter(status for status, _ in ends) == Counter({200: most + 1, 503: number - most})
        script.release(2)
        async with rig.chat(HELD) as response:
            assert response.status == 200
