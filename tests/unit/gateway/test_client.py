"""The Python client, sync and async alike, against a real HTTP server that answers as each test says."""

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from r1plus_client import (
    APIError,
    AsyncClient,
    AuthenticationError,
    BudgetExhaustedError,
    Client,
    Evidence,
    GatewayConnectionError,
    InvalidRequestError,
    Message,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    Usage,
)
from r1plus_client.protocol import EventDecoder, compute_retry_delay
from support.http_server import serving
from support.paths import TESTS
from support.ports import free_port

GENERATION = {
    "model": "credit",
    "text": "Stockholm",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    "system_fingerprint": "credit-1/abc",
}
CHAT = {
    "model": "credit",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    "system_fingerprint": "credit-1/abc",
}
HEADERS = {"x-request-id": "req-1", "x-r1plus-revision": "credit-1", "x-r1plus-verdict": "Pass"}
EVIDENCE = Evidence("credit-1", "Pass", "credit-1/abc")
EVENT_STREAM = {**HEADERS, "content-type": "text/event-stream"}


@dataclass
class Gateway:
    """What the server answers, in turn, and what it was asked."""

    answers: list[web.Response | Callable[[web.Request], Any]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.path, dict(request.headers), body))
        answer = self.answers.pop(0)
        return answer if isinstance(answer, web.Response) else await answer(request)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    async with serving(web.route("*", "/{path:.*}", made.handle)) as made.url:
        yield made


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a method of a client of either kind. Of a stream: its pieces and its whole."""

    async def call_async(url: str, method: str, client: dict[str, Any], arguments: dict[str, Any]) -> Any:
        async with AsyncClient(url, **{"api_key": "r1p_key", **client}) as made:
            answer = await getattr(made, method)(**arguments)
            if not method.startswith("stream"):
                return answer
            pieces = [text async for text in answer]
            return pieces, answer.result

    def call_sync(url: str, method: str, client: dict[str, Any], arguments: dict[str, Any]) -> Any:
        with Client(url, **{"api_key": "r1p_key", **client}) as made:
            answer = getattr(made, method)(**arguments)
            return answer if not method.startswith("stream") else (list(answer), answer.result)

    async def run(url: str, method: str, client: dict[str, Any] | None = None, **arguments: Any) -> Any:
        if request.param == "async":
            return await call_async(url, method, client or {}, arguments)
        return await asyncio.to_thread(call_sync, url, method, client or {}, arguments)

    return run


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1plus_client.protocol.FIRST_DELAY_SECONDS", 0.0)
    for name in ("R1PLUS_BASE_URL", "R1PLUS_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(body, status=status, headers={**HEADERS, **headers})


def refusal(status: int, code: str = "", headers: dict[str, str] | None = None, **more: str) -> web.Response:
    error = {"message": "no", "type": "some_error", "code": code, **more}
    return web.json_response({"error": error}, status=status, headers={**HEADERS, **(headers or {})})


def stream(*chunks: bytes, breaks: bool = False) -> Callable[[web.Request], Any]:
    """Answer with these chunks; `breaks`: then cut the connection."""

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM)
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if breaks:
            assert request.transport is not None
            request.transport.abort()
        return response

    return respond


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(content: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content} if content else {}, "finish_reason": reason}
    return event(model="credit", system_fingerprint="credit-1/abc", choices=[choice])


DONE = b"data: [DONE]\n\n"


async def test_generate_sends_what_was_given_and_returns_the_answer(gateway: Gateway, call: Any) -> None:
    gateway.answers = [answer(GENERATION)]
    made = await call(
        gateway.url + "/v1/", "generate", model="credit", prompt="Capital?", max_new_tokens=5, stop="\n", preset="code"
    )
    assert (made.text, made.finish_reason, made.usage) == ("Stockholm", "stop", Usage(7, 2))
    assert (made.model, made.evidence, made.request_id, made.usage.total_tokens) == ("credit", EVIDENCE, "req-1", 9)
    method, path, headers, body = gateway.requests[0]
    assert (method, path, headers["Authorization"]) == ("POST", "/v1/generate", "Bearer r1p_key")
    wanted = {"model": "credit", "prompt": "Capital?", "stream": False, "max_new_tokens": 5, "stop": ["\n"]}
    assert body == {**wanted, "preset": "code"}


async def test_chat_takes_messages_of_either_form_and_other_fields(gateway: Gateway, call: Any) -> None:
    gateway.answers = [answer(CHAT)]
    messages = [Message("system", "Be short."), {"role": "user", "content": "Hi"}]
    made = await call(
        gateway.url, "chat", model="credit", messages=messages, seed=7, max_new_tokens=9, extra={"user": "u"}
    )
    assert (made.text, made.message.role, made.usage, made.evidence) == ("Hello", "assistant", Usage(3, 1), EVIDENCE)
    assert gateway.requests[0][3] == {
        "model": "credit",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
        "seed": 7,
        "max_completion_tokens": 9,
        "stream": False,
        "user": "u",
    }


async def test_streams_yield_text_and_then_the_whole(gateway: Gateway, call: Any) -> None:
    usage = event(model="credit", choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2})
    first = delta("Stöck")
    gateway.answers = [
        stream(b": heartbeat\n\n", first[:25], first[25:] + delta("holm"), delta("", "stop"), usage, DONE)
    ]
    pieces, made = await call(gateway.url, "stream_chat", model="credit", messages=[])
    assert (pieces, made.text, made.finish_reason) == (["Stöck", "holm"], "Stöckholm", "stop")
    assert (made.usage, made.evidence, made.request_id) == (Usage(3, 2), EVIDENCE, "req-1")
    assert gateway.requests[0][3]["stream_options"] == {"include_usage": True}

    last = event(model="credit", text="", finish_reason="length", usage=GENERATION["usage"])
    gateway.answers = [stream(event(model="credit", text="a"), event(text="b"), last, DONE)]
    pieces, generation = await call(gateway.url, "stream_generate", model="credit", prompt="x")
    assert (pieces, generation.text, generation.finish_reason) == (["a", "b"], "ab", "length")
    assert generation.usage == Usage(7, 2)


@pytest.mark.parametrize(
    ("chunks", "breaks", "message", "code"),
    [
        pytest.param((delta("ab"), event(error={"message": "pod died", "code": "pod_failed"})), False, "pod died", "pod_failed", id="an error event"),
        pytest.param((delta("ab"),), False, "broke off after 2 characters", "", id="an end without DONE"),
        pytest.param((delta("ab"),), True, "broke off after 2 characters", "", id="a cut connection"),
    ],
)  # fmt: skip
async def test_a_stream_that_ends_early_keeps_what_arrived_and_is_not_repeated(
    gateway: Gateway, call: Any, chunks: tuple[bytes, ...], breaks: bool, message: str, code: str
) -> None:
    gateway.answers = [stream(*chunks, breaks=breaks), answer(CHAT)]
    with pytest.raises(StreamInterruptedError, match=message) as caught:
        await call(gateway.url, "stream_chat", model="credit", messages=[])
    assert (caught.value.text, caught.value.code, len(gateway.requests)) == ("ab", code, 1)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        pytest.param(lambda: refusal(400, param="temperature"), InvalidRequestError, id="400"),
        pytest.param(lambda: refusal(401, "invalid_api_key"), AuthenticationError, id="401"),
        pytest.param(lambda: refusal(403), PermissionDeniedError, id="403"),
        pytest.param(lambda: refusal(404, "model_not_found"), NotFoundError, id="404"),
        pytest.param(lambda: refusal(413), InvalidRequestError, id="413"),
        pytest.param(lambda: refusal(429, "insufficient_quota", {"x-should-retry": "false"}), BudgetExhaustedError, id="budget"),
        pytest.param(lambda: refusal(429, "rate_limit_exceeded", {"retry-after": "3600"}), RateLimitError, id="a long wait"),
        pytest.param(lambda: web.Response(status=400, text="<html>proxy"), InvalidRequestError, id="no error of the gateway"),
        pytest.param(lambda: web.Response(status=302, headers={"location": "http://elsewhere/"}), InvalidRequestError, id="a redirect"),
    ],
)  # fmt: skip
async def test_refusals_have_types_and_are_not_repeated(
    gateway: Gateway, call: Any, response: Callable[[], web.Response], kind: type[APIError]
) -> None:
    gateway.answers = [response(), answer(GENERATION)]
    with pytest.raises(kind) as caught:
        await call(gateway.url, "generate", model="credit", prompt="x")
    assert (type(caught.value), len(gateway.requests)) == (kind, 1)


async def test_an_error_names_field_code_and_request(gateway: Gateway, call: Any) -> None:
    gateway.answers = [refusal(429, "rate_limit_exceeded", {"retry-after": "90"}, param="model")]
    with pytest.raises(RateLimitError, match=r"no \(request req-1\)") as caught:
        await call(gateway.url, "list_models")
    error = caught.value
    assert (error.status, error.param, error.type, error.retry_after) == (429, "model", "some_error", 90.0)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(gateway: Gateway, call: Any, status: int) -> None:
    gateway.answers = [refusal(status, headers={"retry-after": "0"}), refusal(status), answer(GENERATION)]
    assert (await call(gateway.url, "generate", model="credit", prompt="x")).text == "Stockholm"


@pytest.mark.parametrize(("status", "kind"), [(503, OverloadedError), (500, ServerError)])
async def test_after_the_last_try_the_error_is_raised(
    gateway: Gateway, call: Any, status: int, kind: type[APIError]
) -> None:
    gateway.answers = [refusal(status), refusal(status), refusal(status)]
    with pytest.raises(kind):
        await call(gateway.url, "generate", {"max_retries": 1}, model="credit", prompt="x")
    assert len(gateway.requests) == 2


async def test_models_and_usage_are_read(gateway: Gateway, call: Any) -> None:
    gateway.answers = [answer({"data": [{"id": "credit", "context_tokens": 1024}]}), answer({"tokens": 5})]
    (model,) = await call(gateway.url, "list_models")
    assert (model.id, model.details["context_tokens"]) == ("credit", 1024)
    assert await call(gateway.url, "read_usage") == {"tokens": 5}


async def test_a_gateway_that_is_away_is_a_connection_error(call: Any) -> None:
    with pytest.raises(GatewayConnectionError, match="cannot be reached"):
        await call(f"http://127.0.0.1:{free_port()}", "list_models")


@pytest.mark.unit_slow
async def test_an_answer_that_takes_too_long_is_not_asked_for_again(gateway: Gateway, call: Any) -> None:
    release = asyncio.Event()

    async def wait(request: web.Request) -> web.Response:
        await release.wait()
        return answer(GENERATION)

    gateway.answers = [wait, wait]
    client = {"timeout": httpx.Timeout(10.0, read=1.0)}
    with pytest.raises(GatewayConnectionError, match="took too long"):
        await call(gateway.url, "generate", client, model="credit", prompt="x")
    release.set()
    assert len(gateway.requests) == 1


async def test_leaving_a_stream_ends_the_request(gateway: Gateway) -> None:
    left = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM)
        await response.prepare(request)
        try:
            while True:
                await response.write(delta("a"))
                await asyncio.sleep(0)
        finally:
            left.set()

    gateway.answers = [endless]
    async with AsyncClient(gateway.url) as client, await client.stream_chat(model="credit", messages=[]) as pieces:
        async for _ in pieces:
            break
    await asyncio.wait_for(left.wait(), 60.0)


async def test_a_token_file_is_read_for_each_request(gateway: Gateway, call: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    for token in ("first", "second"):
        file.write_text(f"{token}\n", encoding="ascii")
        gateway.answers = [answer({"data": []})]
        await call(gateway.url, "list_models", {"api_key": None, "token_file": file})
    assert [headers["Authorization"] for _, _, headers, _ in gateway.requests] == ["Bearer first", "Bearer second"]


async def test_length_is_r1s_name_for_max_new_tokens(gateway: Gateway, call: Any) -> None:
    gateway.answers = [answer(GENERATION)]
    with pytest.warns(DeprecationWarning, match="use `max_new_tokens`"):
        await call(gateway.url, "generate", model="credit", prompt="x", length=9)
    assert gateway.requests[0][3]["max_new_tokens"] == 9
    with pytest.warns(DeprecationWarning), pytest.raises(ValueError, match="contradict each other"):
        await call(gateway.url, "generate", model="credit", prompt="x", length=9, max_new_tokens=8)


async def test_an_unknown_option_is_named(gateway: Gateway, call: Any) -> None:
    with pytest.raises(TypeError, match="unknown option tempreature; there are length, math_mode, max_new_tokens"):
        await call(gateway.url, "generate", model="credit", prompt="x", tempreature=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({}, "base_url: missing; give it, or set R1PLUS_BASE_URL", id="no URL"),
        pytest.param({"base_url": "gateway:443"}, "no http", id="no scheme"),
        pytest.param({"base_url": "http://g", "api_key": "a\nb"}, "copied with a line break", id="a line break"),
        pytest.param({"base_url": "http://g", "api_key": "a", "token_file": "f"}, "give one of them", id="two credentials"),
    ],
)  # fmt: skip
def test_wrong_arguments_say_what_to_do(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Client(**arguments)
    assert "a\nb" not in str(caught.value)


def test_the_environment_fills_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1PLUS_BASE_URL", "http://gateway/v1")
    monkeypatch.setenv("R1PLUS_API_KEY", "r1p_env")
    with Client() as client:
        access = client._access
    assert (access.base_url, access.build_headers()) == ("http://gateway", {"authorization": "Bearer r1p_env"})
    assert "r1p_env" not in repr(access)


@pytest.mark.parametrize(
    ("status", "headers", "attempt", "least", "most"),
    [
        pytest.param(None, {}, 1, 0.375, 0.5, id="the first delay"),
        pytest.param(503, {}, 3, 1.5, 2.0, id="it doubles"),
        pytest.param(503, {}, 10**6, 6.0, 8.0, id="to a maximum"),
        pytest.param(503, {"retry-after": "7"}, 1, 7.0, 7.0, id="what the gateway asks for"),
    ],
)
def test_retry_delay(
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
    headers: dict[str, str],
    attempt: int,
    least: float,
    most: float,
) -> None:
    monkeypatch.setattr("r1plus_client.protocol.FIRST_DELAY_SECONDS", 0.5)
    delay = compute_retry_delay(status, headers, attempt)
    assert delay is not None
    assert least <= delay <= most


@pytest.mark.parametrize(
    "headers", [{"retry-after": "61"}, {"retry-after": "-1"}, {"retry-after": "nan"}, {"x-should-retry": "false"}]
)
def test_no_retry(headers: dict[str, str]) -> None:
    assert compute_retry_delay(503, headers, 1) is None


def test_events_are_cut_wherever_chunks_end() -> None:
    text = b'data: {"a":\ndata: 1}\r\n\r\n: comment\n\nevent: x\ndata: b\n\n'
    for size in range(1, len(text) + 1):
        decoder = EventDecoder()
        events = [e for at in range(0, len(text), size) for e in decoder.feed(text[at : at + size])]
        assert events == [b'{"a":\n1}', b"b"], size


def test_the_wheel_needs_httpx_and_nothing_else() -> None:
    project = tomllib.loads((TESTS.parent / "addons" / "client" / "pyproject.toml").read_text(encoding="utf-8"))
    assert [name.split(">")[0] for name in project["project"]["dependencies"]] == ["httpx"]
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["r1plus_client"]


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_id_of_dots_reaches_no_other_object(name: str) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ValueError, match="an id is"):
        client.vector_stores.remove_file(name, "file_1")  # with "..": DELETE /v1/files/file_1


@pytest.mark.parametrize("name", ["", " ", "anna ", "an\nna", "Änne"])
def test_a_name_that_no_header_has_does_not_become_the_keys_own(name: str) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ValueError, match="end_user"):
        client.for_end_user(name)
