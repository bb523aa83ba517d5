"""Whole and streamed answers through a real socket, before a pod that answers on a script."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from r1plus_gateway.access.caller import Outcome, TokenUsage
from r1plus_gateway.http.completions.completion_forms import ChatEvents
from r1plus_gateway.http.schemas.tools import parse_tool_answer
from support.gateway.fake_triton import Gated, Inputs, answer, fail
from support.gateway.rig import read_events, read_until, running
from support.tables import for_each


async def test_a_chat_has_the_form_of_openai(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Stock", "holm")) as rig, rig.chat("Capital of Sweden?") as response:
        body = await response.json()
        assert response.status == 200
        assert body.pop("id") == f"chatcmpl-{response.headers['x-request-id']}"
        assert isinstance(body.pop("created"), int)
        assert body == {
            "object": "chat.completion",
            "model": "credit",
            "system_fingerprint": "credit-1@sha256:0123456789ab",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Stockholm", "refusal": None, "annotations": []},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        }
        assert response.headers["x-r1plus-revision"] == "credit-1"
        assert response.headers["x-r1plus-verdict"] == "Pass"
        assert response.headers["x-r1plus-gate"] == '"credit-v1";items=210;lost=3;allowed=4;point=gated'
        assert response.headers["x-ratelimit-limit-requests"] == "60"
        assert response.headers["x-ratelimit-remaining-requests"] == "59"
        assert response.headers["x-ratelimit-reset-requests"] == "1.000s"
        assert {name for name in response.headers if name.lower().endswith(("-tokens", "-limit-budget-tokens"))} == {
            "x-ratelimit-remaining-budget-tokens"
        }, "no limit of tokens has a header"
        assert rig.pod.inputs == [{"text_input": "Capital of Sweden?"}]
        assert rig.pod.ids == [response.headers["x-request-id"]]


async def test_a_stream_has_the_form_of_openai(tmp_path: Path) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    async with running(tmp_path, answer("Grüß", " Gott")) as rig, rig.chat(**asked) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["X-Accel-Buffering"] == "no"
        *chunks, done = await read_events(response)
    assert done == "[DONE]"
    *spoken, usage = chunks
    assert {(chunk["id"], chunk["object"], chunk["model"], chunk["system_fingerprint"]) for chunk in chunks} == {
        (chunks[0]["id"], "chat.completion.chunk", "credit", "credit-1@sha256:0123456789ab")
    }
    assert all(chunk["usage"] is None for chunk in spoken)
    choices = [choice for chunk in spoken for choice in chunk["choices"]]
    assert choices[0] == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Grüß Gott"
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert choices[-1]["delta"] == {}
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


async def test_a_stream_has_no_usage_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig, rig.chat(stream=True) as response:
        *chunks, _ = await read_events(response)
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


async def test_each_token_goes_out_when_it_comes(tmp_path: Path) -> None:
    script = Gated(("one", "two"))
    script.release()
    async with running(tmp_path, script) as rig, rig.chat(stream=True) as response:
        await read_until(response, b'"content":"one"')
        script.release(2)
        assert b"[DONE]" in await read_until(response, b"[DONE]")
        await rig.until_settled()
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage) == (Outcome.ANSWERED, TokenUsage(7, 2))
    assert settlement.evidence is not None
    assert settlement.evidence.revision == "credit-1"


async def test_a_text_completion_is_raw(tmp_path: Path) -> None:
    async with running(tmp_path, answer(" time", finish_reason="length")) as rig:
        body = {"model": "credit", "prompt": "Once upon a", "max_tokens": 1, "stop": "\n", "seed": -1}
        async with rig.post("/v1/completions", body) as response:
            got = await response.json()
    assert got["object"] == "text_completion"
    assert got["choices"] == [{"index": 0, "text": " time", "logprobs": None, "finish_reason": "length"}]
    assert rig.pod.inputs == [
        {"text_input": "Once upon a", "raw_prompt": True, "max_new_tokens": 1, "stop": '["\\n"]', "seed": 2**64 - 1}
    ]


async def test_the_native_form_streams_text_and_ends_with_the_usage(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Hel", "lo")) as rig:
        body = {"model": "credit", "prompt": "Hi", "system": "Be short.", "stream": True}
        async with rig.post("/v1/generate", body) as response:
            *chunks, done = await read_events(response)
    assert "".join(chunk["text"] for chunk in chunks) == "Hello"
    assert chunks[-1]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 2
    assert done == "[DONE]"
    assert rig.pod.inputs == [{"text_input": "Hi", "system": "Be short."}]


async def test_length_still_works_and_is_deprecated(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig:
        async with rig.post("/v1/generate", {"model": "credit", "prompt": "Hi", "length": 5}) as response:
            assert response.headers["Deprecation"] == "true"
            assert (await response.json())["text"] == "a"
        assert rig.pod.inputs[0]["max_new_tokens"] == 5
        both = {"model": "credit", "prompt": "Hi", "length": 5, "max_new_tokens": 6}
        async with rig.post("/v1/generate", both) as response:
            error = (await response.json())["error"]
            assert (response.status, error["param"]) == (400, "length")


@for_each("fields, sampling", {
    "nothing": ({}, {}),
    "the code preset as a model id": ({"model": "credit:code"}, {"temperature": 0.1, "top_p": 0.92}),
    "the code preset as a field": ({"preset": "code"}, {"temperature": 0.1, "top_p": 0.92}),
    "the creative preset": ({"preset": "creative"}, {"repetition_penalty": 1.2}),
    "the math preset": ({"preset": "math"}, {"temperature": 0.0}),
    "what a request sets wins over its preset": ({"preset": "code", "temperature": 0}, {"temperature": 0.0, "top_p": 0.92}),
})  # fmt: skip
async def test_sampling(tmp_path: Path, fields: dict[str, Any], sampling: Inputs) -> None:
    async with running(tmp_path, answer("a")) as rig, rig.chat(**fields) as response:
        assert response.status == 200
        (inputs,) = rig.pod.inputs
    del inputs["text_input"]
    assert inputs == {name: pytest.approx(value) for name, value in sampling.items()}


@for_each("capabilities, limit, sent, reserved", {
    "counted: the default, or what the context leaves": (["count_only"], None, 24, 1024),
    "counted: what is asked for": (["count_only"], 10, 10, 1010),
    "not counted: the engine decides, all of the context is reserved": ([], None, None, 2 + 256 + 512),
    "not counted: bytes bound the tokens": ([], 10, 10, 2 + 256 + 10),
})  # fmt: skip
async def test_tokens_are_reserved(
    tmp_path: Path, capabilities: list[str], limit: int | None, sent: int | None, reserved: int
) -> None:
    async with running(tmp_path, answer("a"), capabilities=capabilities) as rig:
        rig.pod.count_tokens = lambda inputs: 1000
        async with rig.chat(max_tokens=limit) as response:
            assert response.status == 200
    assert rig.pod.inputs[0].get("max_new_tokens") == sent
    assert rig.ledger.settled[0].reservation.tokens == reserved


async def test_a_conversation_goes_as_messages_where_the_engine_takes_them(tmp_path: Path) -> None:
    conversation = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    body = {"model": "credit", "messages": conversation}
    async with running(tmp_path, answer("a"), capabilities=["messages"]) as rig:
        async with rig.post("/v1/chat/completions", body) as response:
            assert response.status == 200
        assert rig.pod.messages == [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hi!"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Bye"},
        ]
    async with running(tmp_path, answer("a")) as rig, rig.post("/v1/chat/completions", body) as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"], error["code"]) == (400, "messages", "unsupported_parameter")


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}


async def test_a_schema_reaches_an_engine_that_follows_it(tmp_path: Path) -> None:
    async with running(tmp_path, answer('{"city":"Oslo"}'), capabilities=["response_schema"]) as rig:
        async with rig.chat(response_format=FORMAT) as response:
            assert response.status == 200
        assert json.loads(rig.pod.inputs[0]["response_schema"]) == SCHEMA
    async with running(tmp_path, answer("a")) as rig, rig.chat(response_format=FORMAT) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "response_format")


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather now", "parameters": SCHEMA}}]


@for_each("fields, owner", {
    "no schema": ({}, ""),
    "a schema of the caller's": ({"response_format": FORMAT}, "caller:alice"),
    "tools of the caller's": ({"tools": TOOLS}, "caller:alice"),
    "any object": ({"response_format": {"type": "json_object"}}, "gateway"),
})  # fmt: skip
async def test_the_engine_hears_whose_share_of_its_memory_a_schema_takes(
    tmp_path: Path, fields: dict[str, Any], owner: str
) -> None:
    async with running(tmp_path, answer('{"content":""}'), capabilities=["messages", "response_schema"]) as rig:
        async with rig.chat(**fields) as response:
            assert response.status == 200
        assert rig.pod.schema_owners == [owner]


async def test_a_schema_that_no_pod_has_memory_for_is_refused_for_a_minute(tmp_path: Path) -> None:
    """With its field, and without a restart as the remedy."""
    full = fail(grpc.StatusCode.UNAVAILABLE, "SchemaMemoryFull: response_schema: the engine keeps 5")
    async with running(tmp_path, full, capabilities=["response_schema"]) as rig:
        async with rig.chat(response_format=FORMAT) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "60")
            error = (await response.json())["error"]
        assert (error["code"], error["param"]) == ("schema_memory_full", "response_format.json_schema.schema")
        assert "restart" not in error["message"]
        assert rig.metric("r1plus_gateway_requests_total", model="credit", key="alice", outcome="overloaded") == 1


CALL = '{"name":"weather","arguments":{"city":"Oslo"}}'


async def test_a_tool_is_called(tmp_path: Path) -> None:
    async with running(tmp_path, answer(CALL[:9], CALL[9:]), capabilities=["response_schema"]) as rig:
        async with rig.chat("Weather in Oslo?", tools=TOOLS) as response:
            (choice,) = (await response.json())["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
        assert "Weather now" in rig.pod.inputs[0]["system"]
        async with rig.chat("Weather in Oslo?", tools=TOOLS, stream=True) as response:
            *chunks, _ = await read_events(response)
    calls = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in chunks]
    (call,) = next(entry for entry in calls if entry)
    assert call["index"] == 0
    assert call["function"]["name"] == "weather"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_integers_beyond_64_bits_reach_the_engine_as_floats(tmp_path: Path) -> None:
    limit = 10**30
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"maximum": limit}}}]
    calls = [{"function": {"name": "f", "arguments": {"a": -limit}}}]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": calls}]
    body = json.dumps({"model": "credit", "messages": messages, "tools": tools}).encode()
    async with running(tmp_path, answer(CALL), capabilities=["messages", "response_schema"]) as rig:
        async with rig.post("/v1/chat/completions", body) as response:
            assert response.status == 200
        assert '"maximum":1e+30' in rig.pod.inputs[0]["response_schema"]
        assert '{"a":-1e+30}' in rig.pod.messages[-1]["content"]


CUT: dict[str, tuple[str, str]] = {
    "a text": ('{"content":"Hello \\"wor', 'Hello "wor'),
    "a text before its first character": ('{"content":"', ""),
    "a text up to a stop string": ('{"content":"Hello END wor', "Hello "),
    "a call": ('{"name":"weather","arguments":{"ci', ""),
    "what is neither yet": ('{"na', ""),
}


@for_each("written, content", CUT)
async def test_a_cut_answer_under_tools_is_its_text_and_no_json(tmp_path: Path, written: str, content: str) -> None:
    script = answer(written, finish_reason="length")
    fields: Any = {"tools": TOOLS, "stop": "END"}
    async with running(tmp_path, script, capabilities=["messages", "response_schema"]) as rig:
        async with rig.chat(**fields) as response:
            (choice,) = (await response.json())["choices"]
        async with rig.chat(stream=True, **fields) as response:
            *events, done = await read_events(response)
        async with rig.respond(tools=[{"type": "function", "name": "weather"}], stop="END") as response:
            answered = await response.json()
    assert (choice["message"]["content"], choice["finish_reason"], done) == (content, "length", "[DONE]")
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == content
    assert (answered["status"], answered["output"][-1]["content"][0]["text"]) == ("incomplete", content)


async def test_text_instead_of_a_tool_is_content(tmp_path: Path) -> None:
    script = answer('{"content":"Hi"}')
    async with running(tmp_path, script, capabilities=["response_schema"]) as rig, rig.chat(tools=TOOLS) as response:
        (choice,) = (await response.json())["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi", "stop")


@for_each("text, content, arguments, finish_reason", {
    "a call is whole": (CALL, "", ['{"city":"Oslo"}'], "tool_calls"),
    "text ends before it": ('{"content":"It is in \\nOslo now"}', "It is in ", [], "stop"),
    "text without it is whole": ('{"content":"Hi"}', "Hi", [], "stop"),
})  # fmt: skip
async def test_a_stop_string_ends_the_text_under_tools_and_never_the_json_around_it(
    tmp_path: Path, text: str, content: str, arguments: list[str], finish_reason: str
) -> None:
    asked: dict[str, Any] = {"tools": TOOLS, "stop": ["Oslo", "\nOslo"]}
    async with running(tmp_path, answer(text), capabilities=["response_schema"]) as rig:
        async with rig.chat(**asked) as response:
            (choice,) = (await response.json())["choices"]
        async with rig.chat(**asked, stream=True) as response:
            *chunks, _ = await read_events(response)
        assert [one.get("stop") for one in rig.pod.inputs] == [None, None], "the engine, which writes JSON, has none"
    chunked = [chunk["choices"][0] for chunk in chunks]
    for messages, reason in (
        ([choice["message"]], choice["finish_reason"]),
        ([one["delta"] for one in chunked], chunked[-1]["finish_reason"]),
    ):
        assert reason == finish_reason
        assert "".join(one.get("content") or "" for one in messages) == content
        calls = [call["function"]["arguments"] for one in messages for call in one.get("tool_calls", ())]
        assert calls == arguments


@for_each("body", {
    "another identity": '{"revision":"credit-1","identity":"ff","phase":"Watching","verdict":"Pass","reason":"","message":""}',
    "another revision": '{"revision":"credit-9","identity":"1d","phase":"Watching","verdict":"Pass","reason":"","message":""}',
    "no report": "<html>",
})  # fmt: skip
async def test_what_does_not_match_is_unverified(tmp_path: Path, body: str) -> None:
    async with running(tmp_path, answer("a")) as rig:
        rig.monitor.body = body
        async with rig.chat() as response:
            assert response.headers["x-r1plus-verdict"] == "unverified"
            assert "x-r1plus-revision" not in response.headers
            assert (await response.json())["system_fingerprint"] is None
    assert rig.ledger.settled[0].evidence is None


@for_each("fields, point", {
    "no sampling": ({}, "gated"),
    "the default temperature": ({"temperature": 0, "top_p": 0.5, "seed": 1}, "gated"),
    "a higher temperature": ({"temperature": 2}, "unmeasured"),
    "a penalty": ({"repetition_penalty": 1.1}, "unmeasured"),
    "a preset that a suite has measured": ({"model": "credit:code"}, "measured"),
    "that preset, by its field": ({"preset": "code"}, "measured"),
    "that preset and another temperature": ({"model": "credit:code", "temperature": 0.2}, "unmeasured"),
    "that preset and temperature 0": ({"model": "credit:code", "temperature": 0}, "gated"),
    "a preset that none has measured": ({"model": "credit:creative"}, "unmeasured"),
    "a calculation": ({"math_mode": True}, "unmeasured"),
    "a preset that calculates": ({"model": "credit:math"}, "unmeasured"),
})  # fmt: skip
@for_each("is_streamed", {"streamed": True, "whole": False})
async def test_the_gates_figures_say_whether_they_are_of_such_an_answer(
    tmp_path: Path, fields: dict[str, Any], point: str, is_streamed: bool
) -> None:
    async with (
        running(tmp_path, answer("a", "b"), measuredPresets=["code"]) as rig,
        rig.chat(stream=is_streamed, **fields) as response,
    ):
        assert response.headers["x-r1plus-gate"].endswith(f";point={point}")


async def test_models_usage_and_key(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a", "b"), measuredPresets=["code"]) as rig:
        async with rig.chat() as response:
            assert response.status == 200
        async with rig.get("/v1/models") as response:
            listed = {entry["id"]: entry["r1plus"] for entry in (await response.json())["data"]}
        assert {name: about["accuracy"] for name, about in listed.items()} == {
            "credit": "gated",
            "credit:code": "measured",
            "credit:creative": "unmeasured",
            "credit:math": "unmeasured",
        }
        assert listed["credit"]["default_temperature"] == 0
        assert listed["credit:code"]["default_temperature"] == 0.1
        async with rig.get("/v1/models/credit:code") as response:
            assert (await response.json())["id"] == "credit:code"
        async with rig.get("/v1/usage") as response:
            assert (await response.json())["data"] == [
                {"model": "credit", "requests": 1, "prompt_tokens": 7, "completion_tokens": 2}
            ]
        async with rig.get("/v1/key") as response:
            key = await response.json()
        assert (key["id"], key["models"], key["limits"]["requests_per_minute"]) == ("alice", ["credit"], 60)
        assert key["features"] == ["calculator", "code_interpreter"]
        rig.calculator.runs_code = False
        async with rig.get("/v1/key") as response:
            assert (await response.json())["features"] == ["calculator"]


async def test_metrics_and_probes(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a", "b")) as rig:
        async with rig.chat() as response:
            assert response.status == 200
        internal = f"http://127.0.0.1:{rig.gateway.internal_port}"
        async with rig.client.get(f"{internal}/metrics") as response:
            text = await response.text()
        assert 'r1plus_gateway_requests_total{key="alice",model="credit",outcome="answered"} 1.0' in text
        assert 'r1plus_gateway_tokens_total{direction="completion",key="alice",model="credit"} 2.0' in text
        assert 'r1plus_gateway_time_to_first_token_seconds_count{model="credit"} 1.0' in text
        assert 'r1plus_gateway_pods{model="credit"} 1.0' in text
        for path in ("/healthz", "/readyz"):
            async with rig.client.get(internal + path) as response:
                assert response.status == 200


def test_a_call_that_nests_too_deep_to_be_written_is_content() -> None:
    text = '{"name":"f","arguments":' + "[" * 260 + "]" * 260 + "}"
    assert parse_tool_answer(text).content == text


async def test_a_failure_within_a_stream_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And writes no second head, which a client would read as a part of the answer."""

    def fail(*_: Any) -> bytes:
        raise RuntimeError

    monkeypatch.setattr(ChatEvents, "build_end", fail)
    async with running(tmp_path, answer("a")) as rig, rig.chat(stream=True) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            assert b"internal_error" not in await response.read()
