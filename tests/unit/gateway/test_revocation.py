"""A key that is revoked: what runs for it ends, in the replica that is asked and in the others, and is billed."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from r1plus_gateway.access.caller import Caller, CallerKind, Outcome, TokenUsage
from r1plus_gateway.http import server
from r1plus_gateway.store.administration.admin import create_key, revoke_key
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.access import KEY
from support.gateway.fake_triton import Gated, Inputs, Piece
from support.gateway.rig import Rig, read_events, read_typed_events, read_until, running
from support.gateway.tenant_data import ADMIN
from support.tables import for_each
from support.waiting import eventually

BODY = {"model": "credit", "messages": [{"role": "user", "content": "Hi"}]}
BOB = "r1p_bob"
CODE: dict[str, Any] = {"capabilities": ["messages", "response_schema"]}


def revoke(rig: Rig) -> int:
    """Revoke the key that asks, as the admin API does; return how many requests ended."""
    return rig.gateway.models.requests.revoke("alice")


def begin(rig: Rig, key: str = KEY, **fields: Any) -> asyncio.Task[tuple[int, bytes]]:
    """Ask in the background."""

    async def ask() -> tuple[int, bytes]:
        async with rig.post("/v1/chat/completions", {**BODY, **fields}, Authorization=f"Bearer {key}") as response:
            return response.status, await response.read()

    return asyncio.create_task(ask())


def read_code(body: bytes) -> str:
    return str(orjson.loads(body)["error"]["code"])


async def until_revoked(rig: Rig, usage: TokenUsage, *, still_open: int = 0) -> None:
    """Wait until the one request of the revoked key is settled, with this usage; `still_open`: those of other keys."""
    await rig.until_settled(still_open=still_open)
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage) == (Outcome.REVOKED, usage)
    assert rig.metric("r1plus_gateway_requests_total", model="credit", key="alice", outcome="refused") == 1
    assert "alice" not in rig.gateway.models.requests.list_callers()


async def test_a_stream_ends_with_an_error_and_is_billed_as_the_engine_counted(tmp_path: Path) -> None:
    script = Gated(("a", "b", "c"))
    async with running(tmp_path, script) as rig, rig.chat(stream=True) as response:
        script.release()
        await read_until(response, b'"content":"a"')
        rig.pod.usage[rig.pod.ids[-1]] = (7, 2)
        assert revoke(rig) == 1
        events = await read_events(response)
        assert [event["error"]["code"] for event in events] == ["key_revoked"]
        await rig.until_running(0)
        await until_revoked(rig, TokenUsage(7, 2))


async def test_a_whole_answer_becomes_401(tmp_path: Path) -> None:
    script = Gated(("a", "b"))
    async with running(tmp_path, script) as rig:
        asked = begin(rig)
        script.release()
        await eventually(lambda: rig.pod.sent_tokens == 1, "a token is sent")
        revoke(rig)
        status, body = await asked
        assert (status, read_code(body)) == (401, "key_revoked")
        await rig.until_running(0)
        await until_revoked(rig, TokenUsage(7, 1))


@for_each("is_streamed", {"streamed": True, "whole": False})
async def test_what_waits_for_a_slot_leaves_the_queue_and_costs_nothing(tmp_path: Path, is_streamed: bool) -> None:
    script = Gated(())
    async with running(tmp_path, script, batch=1) as rig:
        rig.authenticator.callers[BOB] = Caller(CallerKind.API_KEY, "bob")
        other = begin(rig, BOB)
        await rig.until_running(1)
        asked = begin(rig, stream=is_streamed)
        await eventually(lambda: rig.gateway.models.queue.waiting == 1, "one waits")
        revoke(rig)
        status, body = await asked
        assert (status, read_code(body)) == (401, "key_revoked")
        await until_revoked(rig, TokenUsage(0, 0), still_open=1)
        assert rig.gateway.models.queue.waiting == 0
        script.release()
        assert (await other)[0] == 200, "another key's answer goes on"


async def test_a_request_that_was_authenticated_before_generates_nothing_after_it(tmp_path: Path) -> None:
    async with running(tmp_path, Gated(())) as rig:
        rig.ledger.gate = asyncio.Event()
        asked = begin(rig)
        await eventually(lambda: rig.ledger.arrived, "it is being reserved")
        revoke(rig)
        rig.ledger.gate.set()
        status, body = await asked
        assert (status, read_code(body)) == (401, "key_revoked")
        await until_revoked(rig, TokenUsage(0, 0))
        assert rig.pod.inputs == []


@for_each("is_streamed", {"streamed": True, "whole": False})
async def test_no_round_begins_after_a_program_that_ran_meanwhile(tmp_path: Path, is_streamed: bool) -> None:
    async def write_program(_: Inputs) -> AsyncIterator[Piece]:
        text = json.dumps({"name": "code_interpreter", "arguments": {"code": "print(1)"}})
        yield Piece(text, 5, finish_reason="stop")

    async with running(tmp_path, write_program, **CODE) as rig:
        rig.calculator.gate = asyncio.Event()

        async def ask() -> tuple[int, str]:
            async with rig.respond("Go", tools=[{"type": "code_interpreter"}], stream=is_streamed) as response:
                if not is_streamed:
                    return response.status, (await response.json())["error"]["code"]
                events = await read_typed_events(response)
                assert events[-1]["type"] == "response.failed"
                return response.status, events[-2]["code"]

        asked = asyncio.create_task(ask())
        await eventually(lambda: rig.calculator.programs, "a program runs")
        revoke(rig)
        rig.calculator.gate.set()
        assert await asked == ((200 if is_streamed else 401), "key_revoked")
        await until_revoked(rig, TokenUsage(7, 5))
        assert len(rig.pod.inputs) == 1


async def test_no_answer_begins_after_a_translation_that_ran_meanwhile(tmp_path: Path) -> None:
    async with running(tmp_path, Gated(("a",)), contextTokens=4096, **CODE) as rig:
        question = "Mia has 7 trolleys with 12 crates each. 5 crates are empty. How many crates are full?"
        asked = begin(rig, math_mode=True, messages=[{"role": "user", "content": question}])
        await rig.until_running(1)
        assert "grammar" in rig.pod.inputs[0]
        revoke(rig)
        status, body = await asked
        assert (status, read_code(body)) == (401, "key_revoked")
        await until_revoked(rig, TokenUsage(0, 0))
        assert len(rig.pod.inputs) == 1


async def test_an_answer_that_is_whole_already_stays_so(tmp_path: Path) -> None:
    script = Gated(("a",))
    async with running(tmp_path, script) as rig:
        asked = begin(rig)
        script.release(2)
        assert (await asked)[0] == 200
        assert revoke(rig) == 0
        assert rig.ledger.settled[0].outcome is Outcome.ANSWERED


async def make_key(rig: Rig, store: TenantStore) -> str:
    """Make a key whose requests the rig's key stands for; return its id."""
    key_id = (await create_key(store, ADMIN, KeySpec("app"))).key.id
    rig.authenticator.callers[KEY] = Caller(CallerKind.API_KEY, key_id)
    return key_id


async def test_the_admin_api_ends_what_runs_in_its_own_process(tmp_path: Path, store: TenantStore) -> None:
    async with running(tmp_path, Gated(()), store=store) as rig:
        key_id = await make_key(rig, store)
        rig.authenticator.callers["admin"] = ADMIN
        asked = begin(rig)
        await rig.until_running(1)
        path, headers = f"/v1/admin/keys/{key_id}", {"Authorization": "Bearer admin"}
        async with rig.client.delete(rig.url + path, headers=headers) as response:
            assert response.status == 200
        assert (await asked)[0] == 401


async def test_another_replica_ends_what_runs_of_a_key_that_was_revoked(
    tmp_path: Path, store: TenantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REVOCATION_SECONDS", 0.01)
    script = Gated(())
    async with running(tmp_path, script, store=store) as rig:
        valid = Caller(CallerKind.API_KEY, (await create_key(store, ADMIN, KeySpec("other"))).key.id)
        rig.authenticator.callers |= {BOB: valid, "own": Caller(CallerKind.SERVICE_ACCOUNT, "team-credit/app")}
        key_id = await make_key(rig, store)
        asked, others = begin(rig), [begin(rig, BOB), begin(rig, "own")]
        await rig.until_running(3)
        await revoke_key(store, ADMIN, key_id)
        assert (await asked)[0] == 401
        await rig.until_running(2)
        script.release(2)
        assert [status for status, _ in await asyncio.gather(*others)] == [200, 200]
