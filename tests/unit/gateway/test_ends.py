"""How requests end before their answer does: clients that leave, pods that die, queues that are full, slow readers."""

import asyncio
import http.client
import io
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from r1plus_gateway.access.caller import AccessError, Caller, CallerKind, Outcome, TokenUsage
from r1plus_gateway.serving.running_requests import RunningRequest
from support.gateway.access import ALICE, KEY
from support.gateway.fake_triton import FakeTriton, Gated, Inputs, Piece, Script, answer, fail, serving
from support.gateway.rig import FakeMonitor, Rig, read_events, read_until, running
from support.tables import for_each
from support.waiting import eventually

HANGING = fail(
    grpc.StatusCode.INTERNAL,
    "Failed to process the request(s) for model instance 'r1plus_0_0', message: Stub process 'r1plus_0_0' is not healthy.",
)
"""What tritonserver 2.51 answers while the engine's process is stopped."""


def begin(rig: Rig, **fields: Any) -> asyncio.Task[Any]:
    """Ask in the background; cancelling the task closes the connection."""

    async def ask() -> Any:
        async with rig.chat(**fields) as response:
            return response.status, await response.read()

    return asyncio.create_task(ask())


def build_stream_request(version: str = "HTTP/1.1") -> bytes:
    """Return a request for a stream, as bytes."""
    body = json.dumps({"model": "credit", "messages": [{"role": "user", "content": "Hi"}], "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions {version}\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def stop_reading(client: socket.socket, rig: Rig, version: str = "HTTP/1.1") -> None:
    """Ask for a stream, and read none of it."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", rig.gateway.port))
    await asyncio.get_running_loop().sock_sendall(client, build_stream_request(version))


async def leave(task: asyncio.Task[Any]) -> None:
    """Close the client's connection."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@for_each("is_streamed", {"streamed": True, "whole": False})
async def test_a_client_that_leaves_before_the_first_token_cancels(tmp_path: Path, is_streamed: bool) -> None:
    async with running(tmp_path, Gated(("a",))) as rig:
        task = begin(rig, stream=is_streamed)
        await rig.until_running(1)
        await leave(task)
        await rig.until_running(0)
        await rig.until_settled()
        assert rig.pod.cancelled == 1
        assert rig.metric("r1plus_gateway_cancelled_total", model="credit", key="alice", state="waiting") == 1
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage) == (Outcome.CANCELLED, TokenUsage(0, 0))


@for_each("is_streamed", {"streamed": True, "whole": False})
async def test_a_client_that_leaves_within_the_answer_pays_for_what_the_engine_counted(
    tmp_path: Path, is_streamed: bool
) -> None:
    script = Gated(("a", "b", "c"))
    async with running(tmp_path, script) as rig:
        task = begin(rig, stream=is_streamed)
        script.release(2)
        await eventually(lambda: rig.pod.sent_tokens == 2, "two tokens are sent")
        await leave(task)
        await rig.until_running(0)
        await rig.until_settled()
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage) == (Outcome.CANCELLED, TokenUsage(7, 2))


@for_each("knows_usage, usage", {"now": (True, TokenUsage(7, 5)), "before": (False, TokenUsage(7, 2))})
async def test_tokens_that_no_response_has_shown_are_paid_if_the_engine_counts_them(
    tmp_path: Path, knows_usage: bool, usage: TokenUsage
) -> None:
    """Text is held back until a character is whole. An older image does not tell: then what was seen counts."""
    seen = asyncio.Event()

    async def script(_: Inputs) -> AsyncIterator[Piece]:
        yield Piece("a", 2)
        rig.pod.usage[rig.pod.ids[-1]] = (7, 5)
        seen.set()
        await asyncio.Event().wait()

    async with running(tmp_path, script) as rig:
        rig.pod.knows_usage = knows_usage
        async with rig.chat(stream=True) as response:
            await read_until(response, b'"a"')
            await seen.wait()
            response.close()
        await rig.until_settled()
    assert rig.ledger.settled[0].usage == usage


async def test_a_prompt_that_was_read_is_paid_though_no_response_came(tmp_path: Path) -> None:
    async with running(tmp_path, Gated(("a",))) as rig:
        task = begin(rig)
        await rig.until_running(1)
        rig.pod.usage[rig.pod.ids[-1]] = (7, 0)
        await leave(task)
        await rig.until_settled()
    assert rig.ledger.settled[0].usage == TokenUsage(7, 0)


@pytest.mark.unit_slow
@for_each("seconds", {"of a silent engine": 2.0, "of a request that was cancelled before": 300.0})
async def test_who_cancels_while_the_usage_is_asked_does_not_make_it_free(tmp_path: Path, seconds: float) -> None:
    started, asked, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def script(_: Inputs) -> AsyncIterator[Piece]:
        rig.pod.usage["one"] = (7, 0)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            asked.set()
            await answered.wait()
        yield Piece()

    async with running(tmp_path, script, settings={"limits": {"silenceSeconds": seconds}}) as rig:
        pool = rig.gateway.models.find("credit", ALICE)
        assert pool is not None
        generation = rig.gateway.models.begin(pool, RunningRequest("alice"), pb.ModelInferRequest(id="one"))
        await started.wait()
        if seconds > 2:
            generation.cancel()
        await asked.wait()
        generation.cancel()
        answered.set()
        await generation.end()
    assert generation.usage == TokenUsage(7, 0)


async def test_an_engine_that_does_not_say_what_it_used_makes_nothing_free(tmp_path: Path) -> None:
    script = Gated(("a", "b", "c"))
    async with running(tmp_path, script, capabilities=["count_only"]) as rig:
        rig.pod.is_silent_on_usage = True
        rig.pod.count_tokens = lambda _: 9
        await leave_and_settle(rig, begin(rig), 1)
        script.release(2)
        task = begin(rig, stream=True)
        await eventually(lambda: rig.pod.sent_tokens == 2, "two tokens are sent")
        await leave_and_settle(rig, task, 2)
    assert [entry.usage for entry in rig.ledger.settled] == [TokenUsage(9, 0), TokenUsage(9, 2)]


async def leave_and_settle(rig: Rig, task: asyncio.Task[Any], settled: int) -> None:
    """Let the client leave a request that runs, and wait for its settlement."""
    await rig.until_running(1)
    await leave(task)
    await rig.until_settled(settled)


async def test_a_slow_reader_pays_for_what_the_engine_counted(tmp_path: Path) -> None:
    limits = {"slowReaderBytes": 64 * 1024}
    async with running(tmp_path, Endless(), settings={"limits": limits}, contextTokens=65536) as rig:
        with socket.socket() as client:
            await stop_reading(client, rig)
            await rig.until_settled()
        await rig.until_running(0)
    assert rig.ledger.settled[0].usage == TokenUsage(*rig.pod.usage[rig.pod.ids[0]])


@for_each("version", {"in chunks": "HTTP/1.1", "to its end, in HTTP/1.0": "HTTP/1.0"})
async def test_a_client_that_reads_late_gets_every_token_in_order(tmp_path: Path, version: str) -> None:
    tokens = [f"{number:05}{'x' * 8192}" for number in range(1000)]  # more than the kernel keeps
    settings = {"limits": {"slowReaderBytes": 16 * 1024 * 1024}}
    async with running(tmp_path, answer(*tokens), settings=settings, contextTokens=65536) as rig:
        with socket.socket() as client:
            await stop_reading(client, rig, version)
            await eventually(lambda: rig.pod.sent_tokens == len(tokens), "all tokens are sent")
            reader, writer = await asyncio.open_connection(sock=client)
            sent = await reader.read(-1)
            writer.close()
        await rig.until_settled()
    events = [line.removeprefix(b"data: ") for line in read_body(sent).split(b"\n\n") if line]
    assert events.pop() == b"[DONE]"
    text = "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)
    assert text == "".join(tokens)
    assert [entry.outcome for entry in rig.ledger.settled] == [Outcome.ANSWERED]


def read_body(sent: bytes) -> bytes:
    """Return the body of an answer whose bytes these are."""
    response = http.client.HTTPResponse(SimpleNamespace(makefile=lambda _: io.BytesIO(sent)))  # type: ignore[arg-type]
    response.begin()
    return response.read()


async def test_a_client_that_closes_its_sending_half_has_left(tmp_path: Path) -> None:
    async with running(tmp_path, Gated(("a",))) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.gateway.port)
        writer.write(build_stream_request())
        await rig.until_running(1)
        writer.write_eof()
        assert await reader.read() == b""
        await rig.until_running(0)
        await rig.until_settled()
        writer.close()


async def test_a_client_that_leaves_the_queue_frees_its_place(tmp_path: Path) -> None:
    script = Gated(("a",))
    async with running(tmp_path, script, batch=1) as rig:
        first = begin(rig)
        await rig.until_running(1)
        second = begin(rig)
        await eventually(lambda: rig.gateway.models.queue.waiting == 1, "one waits")
        await leave(second)
        await eventually(lambda: rig.gateway.models.queue.waiting == 0, "none waits")
        script.release(2)
        assert (await first)[0] == 200
        await rig.until_settled(2)
        assert rig.metric("r1plus_gateway_cancelled_total", model="credit", key="alice", state="queued") == 1
        assert len(rig.pod.inputs) == 1


async def test_a_client_that_leaves_while_tokens_are_reserved_gets_them_back(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig:
        rig.ledger.gate = asyncio.Event()
        task = begin(rig)
        await eventually(lambda: rig.ledger.arrived == 1, "the ledger is asked")
        await leave(task)
        rig.ledger.gate.set()
        await rig.until_settled()
    assert [entry.outcome for entry in rig.ledger.settled] == [Outcome.CANCELLED]
    assert rig.pod.inputs == []


class Endless:
    """A script without an end, one kilobyte a token."""

    async def __call__(self, _: Inputs) -> AsyncIterator[Piece]:
        count = 0
        while True:
            count += 1
            yield Piece("x" * 1024, count)
            await asyncio.sleep(0)


@for_each("limits", {
    "by bytes": {"slowReaderBytes": 64 * 1024, "slowReaderSeconds": 3600},
    "by seconds": {"slowReaderSeconds": 0.2, "slowReaderBytes": 64 * 1024 * 1024},
})  # fmt: skip
async def test_a_client_that_does_not_read_is_cut(tmp_path: Path, limits: dict[str, Any]) -> None:
    async with running(tmp_path, Endless(), settings={"limits": limits}, contextTokens=65536) as rig:
        with socket.socket() as client:
            await stop_reading(client, rig)
            await rig.until_settled()
        await rig.until_running(0)
    (settlement,) = rig.ledger.settled
    assert settlement.outcome is Outcome.SLOW_READER
    assert settlement.usage.completion_tokens > 0


async def test_a_pod_that_dies_within_a_stream_ends_it_with_an_error_and_no_done(tmp_path: Path) -> None:
    script = fail(grpc.StatusCode.UNAVAILABLE, "Socket closed", "one", "two")
    async with running(tmp_path, script) as rig, rig.chat(stream=True) as response:
        *chunks, last = await read_events(response)
        await rig.until_settled()
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "onetwo"
    assert last["error"]["type"] == "server_error"
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage) == (Outcome.FAILED, TokenUsage(7, 2))


@for_each("script, status, code", {
    "refused by the engine": (fail(grpc.StatusCode.INVALID_ARGUMENT, "top_p: 2 exceeds 1"), 400, "invalid_value"),
    "too long": (
        fail(grpc.StatusCode.INVALID_ARGUMENT, "text_input: prompt has 2001 tokens; more than the context of 1024"),
        400,
        "context_length_exceeded",
    ),
    "the engine's queue is full": (fail(grpc.StatusCode.UNAVAILABLE, "QueueFull: the engine has 5"), 503, "queue_full"),
    "no memory for its schema": (
        fail(grpc.StatusCode.UNAVAILABLE, "SchemaMemoryFull: response_schema: the engine keeps 5"),
        503,
        "schema_memory_full",
    ),
    "no pod takes it": (fail(grpc.StatusCode.UNAVAILABLE, "gone"), 503, "model_unavailable"),
    "the engine's process hangs": (HANGING, 503, "model_unavailable"),
    "the engine failed": (fail(grpc.StatusCode.INTERNAL, "out of memory"), 502, "answer_failed"),
})  # fmt: skip
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_a_request_that_fails_before_its_answer(
    tmp_path: Path, script: Any, status: int, code: str, is_streamed: bool
) -> None:
    async with running(tmp_path, script) as rig, rig.chat(stream=is_streamed) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == code
        assert ("Retry-After" in response.headers) == (status == 503)
        await rig.until_settled()
    assert [(entry.outcome, entry.usage) for entry in rig.ledger.settled] == [(Outcome.FAILED, TokenUsage(0, 0))]


@for_each("gone", {"that is gone": fail(grpc.StatusCode.UNAVAILABLE, "gone"), "whose engine hangs": HANGING})
async def test_a_request_leaves_a_pod_once_before_its_first_token(tmp_path: Path, gone: Script) -> None:
    healthy = FakeTriton(answer("a"))
    async with running(tmp_path, gone) as rig, serving(healthy, "127.0.0.2", rig.pod.port):
        rig.addresses = frozenset({"127.0.0.1", "127.0.0.2"})
        await refresh(rig)
        for _ in range(3):
            async with rig.chat() as response:
                assert response.status == 200
    assert len(healthy.inputs) == 3
    assert len(rig.pod.inputs) == 1


async def test_a_schema_that_one_pod_has_no_memory_for_is_sent_to_another(tmp_path: Path) -> None:
    """That pod stays in use: other requests go on there."""
    full = fail(grpc.StatusCode.UNAVAILABLE, "SchemaMemoryFull: response_schema: the engine keeps 5")
    free = FakeTriton(answer("a"))
    async with running(tmp_path, full) as rig, serving(free, "127.0.0.2", rig.pod.port):
        rig.addresses = frozenset({"127.0.0.1", "127.0.0.2"})
        await refresh(rig)
        for _ in range(4):
            async with rig.chat() as response:
                assert response.status == 200
    assert len(free.inputs) == 4
    assert len(rig.pod.inputs) > 1


async def test_an_older_pod_that_does_not_know_an_input_is_left_for_a_newer_one(tmp_path: Path) -> None:
    older = fail(grpc.StatusCode.INVALID_ARGUMENT, "unexpected inference input 'messages' for model 'r1plus'")
    newer = FakeTriton(answer("a"))
    async with running(tmp_path, older) as rig, serving(newer, "127.0.0.2", rig.pod.port):
        rig.addresses = frozenset({"127.0.0.1", "127.0.0.2"})
        await refresh(rig)
        async with rig.chat() as response:
            assert response.status == 200
    assert len(newer.inputs) == 1


async def refresh(rig: Rig) -> None:
    """Resolve the model's name now."""
    pool = rig.gateway.models.find("credit", ALICE)
    assert pool is not None
    await pool.refresh()


async def test_a_pod_that_leaves_dns_finishes_what_it_runs_and_gets_nothing_new(tmp_path: Path) -> None:
    script = Gated(("a",))
    async with running(tmp_path, script) as rig:
        old = begin(rig)
        await rig.until_running(1)
        async with serving(FakeTriton(answer("b")), "127.0.0.2", rig.pod.port) as other:
            rig.addresses = frozenset({"127.0.0.2"})
            await refresh(rig)
            assert (await begin(rig))[0] == 200
            script.release(2)
            assert (await old)[0] == 200
            assert (len(rig.pod.inputs), len(other.inputs)) == (1, 1)


async def test_requests_go_to_the_pod_with_the_fewest(tmp_path: Path) -> None:
    script = Gated(())
    async with running(tmp_path, script) as rig, serving(FakeTriton(script), "127.0.0.2", rig.pod.port) as other:
        rig.addresses = frozenset({"127.0.0.1", "127.0.0.2"})
        await refresh(rig)
        tasks = [begin(rig) for _ in range(6)]  # all that one caller has of eight slots
        await eventually(lambda: (rig.pod.running, other.running) == (3, 3), "both run three")
        script.release(6)
        assert [status for status, _ in await asyncio.gather(*tasks)] == [200] * 6


async def test_without_a_pod_the_answer_comes_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig:
        rig.addresses = frozenset()
        await refresh(rig)
        async with rig.chat() as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "2")
        async with rig.client.get(f"{rig.url}/readyz") as response:
            assert response.status == 200


async def test_a_full_queue_refuses_before_anything_is_reserved(tmp_path: Path) -> None:
    script = Gated(())
    async with running(tmp_path, script, batch=1, settings={"limits": {"queuePerKey": 1}}) as rig:
        running_one = begin(rig)
        await rig.until_running(1)
        waiting_one = begin(rig)
        await eventually(lambda: rig.gateway.models.queue.waiting == 1, "one waits")
        async with rig.chat() as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "2")
            assert (await response.json())["error"]["code"] == "queue_full"
        assert rig.ledger.arrived == 2
        script.release(2)
        assert [status for status, _ in await asyncio.gather(running_one, waiting_one)] == [200, 200]


async def test_accounts_of_one_foreign_namespace_wait_together_and_leave_room_for_others(tmp_path: Path) -> None:
    script = Gated(())
    async with running(
        tmp_path, script, batch=1, namespaces=["team-web"], settings={"limits": {"queuePerKey": 1}}
    ) as rig:
        for name in ("one", "two"):
            account = Caller(CallerKind.SERVICE_ACCOUNT, f"team-web/{name}", "team-web", group="team-web")
            rig.authenticator.callers[name] = account
        body = {"model": "credit", "messages": [{"role": "user", "content": "Hi"}]}

        async def ask_as(name: str) -> int:
            async with rig.post("/v1/chat/completions", body, Authorization=f"Bearer {name}") as response:
                return int(response.status)

        first = begin(rig)
        await rig.until_running(1)
        second = asyncio.create_task(ask_as("one"))
        await eventually(lambda: rig.gateway.models.queue.waiting == 1, "one waits")
        assert await ask_as("two") == 503
        own = begin(rig)
        await eventually(lambda: rig.gateway.models.queue.waiting == 2, "the tenant's own caller waits beside them")
        script.release(3)
        assert [status for status, _ in await asyncio.gather(first, own)] == [200, 200]
        assert await second == 200
        assert rig.metric("r1plus_gateway_requests_total", model="credit", key="team-web", outcome="answered") == 1


@for_each("error, retry_after, should_retry", {
    "too many requests": (AccessError(429, "rate_limit_exceeded", "slower", retry_after=1.2), "2", None),
    "no budget left": (AccessError(429, "insufficient_quota", "no tokens left"), None, "false"),
})  # fmt: skip
async def test_a_refused_reservation(
    tmp_path: Path, error: AccessError, retry_after: str | None, should_retry: str | None
) -> None:
    async with running(tmp_path, answer("a")) as rig:
        rig.ledger.refusal = error
        async with rig.chat() as response:
            assert response.status == 429
            assert response.headers.get("Retry-After") == retry_after
            assert response.headers.get("x-should-retry") == should_retry
            assert (await response.json())["error"]["code"] == error.code
    assert rig.pod.inputs == []


async def test_a_heartbeat_comes_while_there_is_nothing_to_say(tmp_path: Path) -> None:
    script = Gated(("a",))
    limits = {"heartbeatSeconds": 0.05}
    async with running(tmp_path, script, settings={"limits": limits}) as rig, rig.chat(stream=True) as response:
        assert (await read_until(response, b": heartbeat\n\n")).startswith(b": heartbeat")
        script.release()
        await read_until(response, b'"content":"a"')
        await read_until(response, b": heartbeat\n\n")
        script.release()
        await read_until(response, b"[DONE]")


async def test_an_error_after_a_heartbeat_is_an_event(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def script(_: Inputs) -> AsyncIterator[Piece]:
        await gate.wait()
        async for piece in fail(grpc.StatusCode.INVALID_ARGUMENT, "top_p: 2 exceeds 1")({}):
            yield piece

    limits = {"heartbeatSeconds": 0.05}
    async with running(tmp_path, script, settings={"limits": limits}) as rig, rig.chat(stream=True) as response:
        await read_until(response, b": heartbeat\n\n")
        gate.set()
        events = await read_events(response)
    assert events[-1]["error"]["message"] == "top_p: 2 exceeds 1"


@pytest.mark.unit_slow
@for_each("seconds", {"after it was sent, also on a machine that stalls": 2.0, "before it was sent": 0.0001})
async def test_a_silent_engine_fails_the_request(tmp_path: Path, seconds: float) -> None:
    limits = {"silenceSeconds": seconds}
    async with running(tmp_path, Gated(("a",)), settings={"limits": limits}) as rig, rig.chat() as response:
        assert response.status == 502
        assert "silent" in (await response.json())["error"]["message"]
        await rig.until_running(0)


async def test_a_ledger_that_cannot_settle_does_not_take_the_answer_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, answer("a")) as rig:
        rig.ledger.trouble = OSError("No space left on device")
        async with rig.chat() as response:
            assert response.status == 200
        assert rig.metric("r1plus_gateway_unsettled_total") == 1
    assert "could not be settled" in caplog.text


async def test_metrics_that_fail_leave_no_reservation_and_take_no_answer_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError

    async with running(tmp_path, answer("a")) as rig:
        monkeypatch.setattr(rig.metrics, "observe", fail)
        async with rig.chat() as response:
            assert response.status == 200
        await rig.until_settled()
    assert "could not be counted: ValueError" in caplog.text


async def test_who_may_call(tmp_path: Path) -> None:
    account = CallerKind.SERVICE_ACCOUNT
    async with running(tmp_path, answer("a"), namespaces=["team-web"]) as rig:
        rig.authenticator.callers |= {
            "own": Caller(account, "team-credit/app", "team-credit"),
            "invited": Caller(account, "team-web/app", "team-web"),
            "other": Caller(account, "team-x/app", "team-x"),
            "other model": Caller(CallerKind.API_KEY, "bob", models=frozenset({"debit"})),
        }
        statuses = {}
        bodies = []
        for key in ("own", "invited", "other", "other model", "nobody"):
            body = {"model": "credit", "messages": [{"role": "user", "content": "Hi"}]}
            async with rig.post("/v1/chat/completions", body, Authorization=f"Bearer {key}") as response:
                statuses[key] = response.status
                bodies.append(await response.text())
        assert statuses == {"own": 200, "invited": 200, "other": 404, "other model": 404, "nobody": 401}
        missing = {"model": "nothing", "messages": [{"role": "user", "content": "Hi"}]}
        async with rig.post("/v1/chat/completions", missing) as response:
            assert (await response.text()).replace("nothing", "credit") == bodies[2]


async def test_the_drain_lets_answers_end(tmp_path: Path) -> None:
    script = Gated(("a",))
    async with running(tmp_path, script) as rig:
        task = begin(rig)
        await rig.until_running(1)
        asyncio.get_running_loop().call_soon(script.release, 2)
    assert (await task)[0] == 200
    assert [entry.outcome for entry in rig.ledger.settled] == [Outcome.ANSWERED]


@pytest.mark.unit_slow
async def test_answers_that_outlive_the_drain_are_cut_and_settled(tmp_path: Path) -> None:
    drain_seconds = 1.0
    loop = asyncio.get_running_loop()

    async def waits_once() -> bool:
        """On a machine that does other things it may be late; who waits twice takes twice as long every time."""
        async with running(tmp_path, Gated(("a",)), settings={"drainSeconds": drain_seconds}) as rig:
            task = begin(rig)
            await rig.until_running(1)
            start = loop.time()
        seconds = loop.time() - start
        await asyncio.gather(task, return_exceptions=True)
        assert [entry.outcome for entry in rig.ledger.settled] == [Outcome.CANCELLED]
        assert seconds >= drain_seconds
        return seconds < 2 * drain_seconds

    await eventually(waits_once, "it waits once, not twice")


async def _flood(text: str) -> AsyncIterator[Piece]:
    """Answer without end: a script."""
    count = 0
    while True:
        count += 1
        yield Piece(text, min(count, 9))
        await asyncio.sleep(0)


@for_each("text", {"with text": "x" * 1000, "without": ""})
@for_each("is_streamed", {"streamed": True, "whole": False})
async def test_an_answer_without_end_fails_before_it_fills_the_gateways_memory(
    tmp_path: Path, is_streamed: bool, text: str
) -> None:
    async with running(tmp_path, lambda _: _flood(text)) as rig, rig.chat(stream=is_streamed) as response:
        body = await response.read()
        assert response.status == (200 if is_streamed else 502)
        assert b"the engine's answer is larger than 262144 bytes or 4096 responses" in body
        assert len(body) < 2**20
        await rig.until_running(0)
        await rig.until_settled()
        assert rig.ledger.settled[0].outcome is Outcome.FAILED


async def test_a_count_that_is_answered_by_text_without_end_is_no_count(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a"), capabilities=["messages", "count_only"]) as rig:
        rig.pod.answer_count = lambda _: _flood("x" * 1000)
        async with rig.chat() as response:
            assert response.status == 200
    (settlement,) = rig.ledger.settled
    assert settlement.reservation.tokens > 256, "by the prompt's bytes, as where the engine cannot count"


@for_each(
    "said, status, usage",
    {
        "more than the context holds": ((2**31 - 1, 2**31 - 1), 200, TokenUsage(1024, 1024)),
        "a prompt of fewer than none": ((-(2**31), 1), 502, TokenUsage(0, 1)),
        "an answer of fewer than none": ((7, -5), 502, TokenUsage(0, 0)),
    },
)
async def test_an_engine_does_not_spend_a_callers_budget_by_what_it_says(
    tmp_path: Path, said: tuple[int, int], status: int, usage: TokenUsage
) -> None:
    async def say(_: Inputs) -> AsyncIterator[Piece]:
        yield Piece("a", said[1], said[0], "stop")

    async with running(tmp_path, say) as rig:
        async with rig.chat() as response:
            assert response.status == status
        await rig.until_settled()
    (settlement,) = rig.ledger.settled
    assert settlement.usage == usage


async def test_a_pods_monitor_does_not_lead_the_gateway_to_another_address(tmp_path: Path) -> None:
    async with FakeMonitor().listen() as elsewhere, running(tmp_path, answer("a")) as rig:
        rig.monitor.location = f"http://127.0.0.1:{elsewhere.port}/verdict"
        async with rig.chat() as response:
            assert response.status == 200
            assert response.headers["x-r1plus-verdict"] == "unverified"
        assert (rig.monitor.asked, elsewhere.asked) == (1, 0)
