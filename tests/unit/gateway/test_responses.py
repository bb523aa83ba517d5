"""`POST /v1/responses`: its prompts are a chat's, its answers and events are OpenAI's, and nothing is stored."""

import asyncio
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from r1plus_assistant.conversations.indexed_history import index_items
from r1plus_assistant.responses import response_form
from r1plus_assistant.responses.response_form import MOST_SENTENCES_AT_ONCE, ResponseForm
from r1plus_assistant.responses.response_items import build_messages
from r1plus_assistant.responses.response_requests import Continuation
from r1plus_gateway.access.caller import Caller, Outcome, TokenUsage
from r1plus_gateway.http.body.fields import Fields
from r1plus_gateway.http.completions.messages import MOST_MESSAGES, describe_call
from r1plus_gateway.http.completions.requests import ModelName
from r1plus_gateway.settings import Capability, ModelSettings
from support.gateway.access import ALICE
from support.gateway.content import say
from support.gateway.fake_triton import Gated, Inputs, Piece, answer, fail
from support.gateway.rig import read_typed_events, read_until, running
from support.tables import for_each
from support.waiting import eventually

CAPABILITIES = ["messages", "response_schema"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Weather now", "parameters": SCHEMA}
FLAT = {"type": "function", **WEATHER}
NESTED = {"type": "function", "function": WEATHER}
CALL = '{"name":"weather","arguments":{"city":"Oslo"}}'
USER = {"role": "user", "content": "Weather?"}


def build_call_item(call_id: str, city: str) -> dict[str, Any]:
    """Return a past call, as an answer has it."""
    own = {"id": f"fc_{call_id}", "status": "completed", "call_id": call_id}
    return {"type": "function_call", **own, "name": "weather", "arguments": json.dumps({"city": city})}


def build_chat_call(call_id: str, city: str) -> dict[str, Any]:
    """Return a past call, as a chat has it."""
    function = {"name": "weather", "arguments": json.dumps({"city": city})}
    return {"id": call_id, "type": "function", "function": function}


async def test_a_response_has_the_form_of_openai(tmp_path: Path) -> None:
    async with (
        running(tmp_path, answer("Stock", "holm")) as rig,
        rig.respond("Capital of Sweden?", metadata={"trace": "7"}, store=True, user="u") as response,
    ):
        body = await response.json()
        assert response.status == 200
        request_id = response.headers["x-request-id"]
        assert isinstance(body.pop("created_at"), int)
        assert isinstance(body.pop("completed_at"), int)
        assert body == {
            "id": f"resp_{request_id}",
            "object": "response",
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "model": "credit",
            "previous_response_id": None,
            "store": False,
            "background": False,
            "truncation": "disabled",
            "parallel_tool_calls": False,
            "max_tool_calls": None,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "safety_identifier": None,
            "prompt_cache_key": None,
            "instructions": None,
            "text": {"format": {"type": "text"}},
            "metadata": {"trace": "7"},
            "tools": [],
            "tool_choice": "auto",
            "temperature": 0,
            "top_p": 1,
            "max_output_tokens": None,
            "output": [
                {
                    "type": "message",
                    "id": f"msg_{request_id}",
                    "status": "completed",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "Stockholm", "annotations": [], "logprobs": []}],
                }
            ],
            "usage": {
                "input_tokens": 7,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 2,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 9,
            },
            "r1plus": {
                "revision": "credit-1",
                "engine_digest": "sha256:0123456789abcdef",
                "verdict": "Pass",
                "storage": "not_requested",
            },
        }
        assert response.headers["x-r1plus-revision"] == "credit-1"
        assert response.headers["x-r1plus-verdict"] == "Pass"
        assert response.headers["x-ratelimit-remaining-requests"] == "59"
        assert rig.pod.inputs == [{"text_input": "Capital of Sweden?"}]
        assert rig.pod.ids == [request_id]
        assert rig.metric("r1plus_gateway_requests_total", model="credit", key="alice", outcome="answered") == 1
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage) == (Outcome.ANSWERED, TokenUsage(7, 2))
    assert settlement.evidence is not None
    assert settlement.evidence.revision == "credit-1"


async def test_what_does_not_match_is_unverified(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig:
        rig.monitor.body = "<html>"
        async with rig.respond() as response:
            evidence = (await response.json())["r1plus"]
    assert evidence == {
        "revision": None,
        "engine_digest": None,
        "verdict": "unverified",
        "storage": "not_requested",
    }


@for_each("response, chat", {
    "a text": ({"input": "Hi"}, {"messages": [{"role": "user", "content": "Hi"}]}),
    "a message without a type": ({"input": [USER]}, {"messages": [USER]}),
    "a message of parts": (
        {"input": [{"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
    ),
    "instructions": (
        {"instructions": "Be brief.", "input": "Hi"},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
    ),
    "empty instructions": ({"instructions": "", "input": "Hi"}, {"messages": [{"role": "user", "content": "Hi"}]}),
    "a developer's message": (
        {"input": [{"role": "developer", "content": "Be brief."}, USER]},
        {"messages": [{"role": "developer", "content": "Be brief."}, USER]},
    ),
    "an answer that is sent back": (
        {"input": [USER, {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "phase": "final_answer", "content": [
                {"type": "output_text", "text": "Rain.", "annotations": [], "logprobs": []}]}, USER]},
        {"messages": [USER, {"role": "assistant", "content": "Rain."}, USER]},
    ),
    "two answers, one after the other": (
        {"input": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, USER]},
        {"messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, USER]},
    ),
    "tools": (
        {"input": [USER], "tools": [{**FLAT, "strict": True}]},
        {"messages": [USER], "tools": [NESTED]},
    ),
    "tools and instructions": (
        {"instructions": "Be brief.", "input": [USER], "tools": [FLAT]},
        {"messages": [{"role": "system", "content": "Be brief."}, USER], "tools": [NESTED]},
    ),
    "a tool that has to be called": (
        {"input": [USER], "tools": [FLAT], "tool_choice": "required"},
        {"messages": [USER], "tools": [NESTED], "tool_choice": "required"},
    ),
    "one of two tools": (
        {"input": [USER], "tools": [FLAT, {"type": "function", "name": "f"}],
         "tool_choice": {"type": "function", "name": "f"}},
        {"messages": [USER], "tools": [NESTED, {"type": "function", "function": {"name": "f"}}],
         "tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    "tools that may not be called": (
        {"input": [USER], "tools": [FLAT], "tool_choice": "none"},
        {"messages": [USER], "tools": [NESTED], "tool_choice": "none"},
    ),
    "calls after a text, and their results": (
        {"input": [USER, {"role": "assistant", "content": "I look."},
                   build_call_item("c1", "Oslo"), build_call_item("c2", "Rome"),
                   {"type": "function_call_output", "call_id": "c1", "output": "Rain"},
                   {"type": "function_call_output", "call_id": "c2", "output": [
                       {"type": "input_text", "text": "Sun"}]}],
         "tools": [FLAT]},
        {"messages": [USER, {"role": "assistant", "content": "I look.",
                             "tool_calls": [build_chat_call("c1", "Oslo"), build_chat_call("c2", "Rome")]},
                      {"role": "tool", "tool_call_id": "c1", "content": "Rain"},
                      {"role": "tool", "tool_call_id": "c2", "content": "Sun"}],
         "tools": [NESTED]},
    ),
    "a call after a result": (
        {"input": [USER, build_call_item("c1", "Oslo"),
                   {"type": "function_call_output", "call_id": "c1", "output": "Rain"},
                   build_call_item("c2", "Rome"),
                   {"type": "function_call_output", "call_id": "c2", "output": "Sun"}]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [build_chat_call("c1", "Oslo")]},
                      {"role": "tool", "tool_call_id": "c1", "content": "Rain"},
                      {"role": "assistant", "tool_calls": [build_chat_call("c2", "Rome")]},
                      {"role": "tool", "tool_call_id": "c2", "content": "Sun"}]},
    ),
    "a schema": (
        {"input": "Hi", "text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}},
        {"messages": [{"role": "user", "content": "Hi"}],
         "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}},
    ),
    "any JSON": (
        {"input": "Hi", "text": {"format": {"type": "json_object"}}},
        {"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}},
    ),
    "sampling": (
        {"input": "Hi", "max_output_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": "x",
         "repetition_penalty": 1.1, "preset": "code"},
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3,
         "stop": "x", "repetition_penalty": 1.1, "preset": "code"},
    ),
})  # fmt: skip
async def test_the_engine_gets_what_it_gets_of_a_chat(
    tmp_path: Path, response: dict[str, Any], chat: dict[str, Any]
) -> None:
    async with running(tmp_path, answer("a"), capabilities=CAPABILITIES) as rig:
        for path, body in (("/v1/responses", response), ("/v1/chat/completions", chat)):
            async with rig.post(path, {"model": "credit", **body}) as got:
                assert got.status == 200, await got.text()
        first, second = rig.pod.inputs
    assert first == second


async def test_an_engine_that_takes_no_conversation_names_the_input(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig, rig.respond([USER, USER]) as response:
        error = (await response.json())["error"]
    assert (response.status, error["param"], error["code"]) == (400, "input", "unsupported_parameter")


@for_each("path, body, param", {
    "a chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "{}"}]}, "messages"),
    "a text": ("/v1/completions", {"prompt": "{}"}, "prompt"),
    "the native form": ("/v1/generate", {"prompt": "{}"}, "prompt"),
    "a response": ("/v1/responses", {"input": "{}"}, "input"),
})  # fmt: skip
async def test_a_prompt_that_is_too_long_is_named(tmp_path: Path, path: str, body: Any, param: str) -> None:
    too_long = fail(grpc.StatusCode.INVALID_ARGUMENT, "text_input: prompt has 2001 tokens; the context of 1024")
    async with running(tmp_path, too_long) as rig:
        for text in ("x", "x" * (16 * 1024 + 1)):  # refused by the engine, and before it
            sent = json.loads(json.dumps(body).replace("{}", text))
            async with rig.post(path, {"model": "credit", **sent}) as response:
                error = (await response.json())["error"]
            assert (response.status, error["code"], error["param"]) == (400, "context_length_exceeded", param)


async def test_a_schema_that_the_engine_refuses_is_named(tmp_path: Path) -> None:
    refused = fail(grpc.StatusCode.INVALID_ARGUMENT, "response_schema: cannot be compiled")
    form = {"type": "json_schema", "name": "city", "schema": SCHEMA}
    async with running(tmp_path, refused, capabilities=CAPABILITIES) as rig:
        for fields, param in (({"text": {"format": form}}, "text.format.schema"), ({"tools": [FLAT]}, "tools")):
            async with rig.respond(**fields) as response:
                assert (response.status, (await response.json())["error"]["param"]) == (400, param)


@for_each("fields, repeated", {
    "a preset": ({"model": "credit:code"}, {"model": "credit:code", "temperature": 0.1, "top_p": 0.92}),
    "a limit": ({"max_output_tokens": 7}, {"max_output_tokens": 7}),
    "instructions": ({"instructions": "Be brief."}, {"instructions": "Be brief."}),
    "a format": (
        {"text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}}},
        {"text": {"format": {"type": "json_schema", "name": "city", "description": None, "schema": SCHEMA,
                             "strict": True}}},
    ),
    "tools": (
        {"tools": [FLAT], "tool_choice": {"type": "function", "name": "weather", "strict": 1}},
        {"tools": [{**FLAT, "strict": True}], "tool_choice": {"type": "function", "name": "weather"}},
    ),
    "a bare tool": (
        {"tools": [{"type": "function", "name": "f"}]},
        {"tools": [{"type": "function", "name": "f", "description": None, "parameters": None, "strict": True}],
         "tool_choice": "auto"},
    ),
    "metadata at its bounds": (
        {"metadata": {f"{n:064}": "v" * 512 for n in range(16)}},
        {"metadata": {f"{n:064}": "v" * 512 for n in range(16)}},
    ),
})  # fmt: skip
async def test_a_response_repeats_what_it_was_made_with(
    tmp_path: Path, fields: dict[str, Any], repeated: dict[str, Any]
) -> None:
    async with running(tmp_path, answer(CALL), capabilities=CAPABILITIES) as rig, rig.respond(**fields) as response:
        got = await response.json()
    assert {name: got[name] for name in repeated} == repeated


async def test_tools_that_events_would_repeat_at_length_are_refused(tmp_path: Path) -> None:
    large = {"type": "function", "name": "f", "parameters": {"description": "x" * 60_000}}
    async with running(tmp_path, answer("a"), capabilities=CAPABILITIES) as rig:
        async with rig.respond(tools=[large] * 4, tool_choice="none") as response:
            assert response.status == 200
        async with rig.respond(tools=[large] * 5, tool_choice="none") as response:
            assert (response.status, (await response.json())["error"]["param"]) == (400, "tools")


async def test_a_stream_has_the_events_of_openai(tmp_path: Path) -> None:
    async with running(tmp_path, answer("Grüß", ' "Gott"')) as rig, rig.respond(stream=True) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-r1plus-revision"] == "credit-1"
        request_id = response.headers["x-request-id"]
        *events, done = await read_typed_events(response)
    assert done == "[DONE]"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    created, in_progress, *middle, completed = events
    deltas = [event for event in middle if event["type"] == "response.output_text.delta"]
    assert "".join(event["delta"] for event in deltas) == 'Grüß "Gott"'
    place = {"item_id": f"msg_{request_id}", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": 'Grüß "Gott"', "annotations": [], "logprobs": []}
    item = {"type": "message", "id": f"msg_{request_id}", "role": "assistant"}
    for event in events:
        del event["sequence_number"]
    assert deltas[0] == {"type": "response.output_text.delta", **place, "delta": deltas[0]["delta"], "logprobs": []}
    assert [event for event in middle if event not in deltas] == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {**item, "status": "completed", "content": [part]},
        },
    ]
    assert middle[2 : 2 + len(deltas)] == deltas
    assert (created["type"], in_progress["type"], completed["type"]) == (
        "response.created",
        "response.in_progress",
        "response.completed",
    )
    begun, whole = created["response"], completed["response"]
    assert in_progress["response"] == begun
    assert (begun["status"], begun["output"], begun["usage"]) == ("in_progress", [], None)
    changed = {name for name in whole if whole[name] != begun[name]}
    assert changed == {"status", "completed_at", "output", "usage"}
    assert whole["output"] == [{**item, "status": "completed", "content": [part]}]
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (7, 2)


async def test_each_token_goes_out_when_it_comes(tmp_path: Path) -> None:
    script = Gated(("one", "two"))
    script.release()
    async with running(tmp_path, script) as rig, rig.respond(stream=True) as response:
        await read_until(response, b'"delta":"one"')
        script.release(2)
        assert b'"delta":"two"' in await read_until(response, b"[DONE]")
        await rig.until_settled()


async def test_an_answer_that_is_cut_by_its_limit_is_incomplete(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a", finish_reason="length")) as rig:
        async with rig.respond() as response:
            whole = await response.json()
        async with rig.respond(stream=True) as response:
            *_, last, done = await read_typed_events(response)
    assert (last["type"], done) == ("response.incomplete", "[DONE]")
    for got in (whole, last["response"]):
        assert (got["status"], got["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (got["completed_at"], got["output"][0]["status"]) == (None, "incomplete")


async def test_a_tool_is_called(tmp_path: Path) -> None:
    async with (
        running(tmp_path, answer(CALL[:9], CALL[9:]), capabilities=CAPABILITIES) as rig,
        rig.respond("Weather in Oslo?", tools=[FLAT]) as response,
    ):
        got = await response.json()
        (item,) = got["output"]
        item_id = f"fc_{response.headers['x-request-id']}"
    call_id = item.pop("call_id")
    assert call_id.startswith("call_")
    assert item == {
        "type": "function_call",
        "id": item_id,
        "status": "completed",
        "name": "weather",
        "arguments": '{"city":"Oslo"}',
    }
    assert got["status"] == "completed"


async def test_a_tool_is_called_in_a_stream(tmp_path: Path) -> None:
    script = answer(CALL, finish_reason="length")
    async with (
        running(tmp_path, script, capabilities=CAPABILITIES) as rig,
        rig.respond("Weather in Oslo?", tools=[FLAT], stream=True) as response,
    ):
        *events, done = await read_typed_events(response)
        item_id = f"fc_{response.headers['x-request-id']}"
    assert done == "[DONE]"
    assert [event.pop("sequence_number") for event in events] == list(range(len(events)))
    _, _, added, delta, arguments, ended, last = events
    call_id = added["item"]["call_id"]
    item = {"type": "function_call", "id": item_id, "call_id": call_id, "name": "weather"}
    assert added == {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**item, "status": "in_progress", "arguments": ""},
    }
    place = {"item_id": item_id, "output_index": 0}
    text = '{"city":"Oslo"}'
    assert delta == {"type": "response.function_call_arguments.delta", **place, "delta": text}
    assert arguments == {
        "type": "response.function_call_arguments.done",
        **place,
        "name": "weather",
        "arguments": text,
    }
    whole = {**item, "status": "completed", "arguments": text}
    assert ended == {"type": "response.output_item.done", "output_index": 0, "item": whole}
    assert (last["type"], last["response"]["output"]) == ("response.completed", [whole])


async def test_a_stop_string_cuts_no_call_of_a_response(tmp_path: Path) -> None:
    async with (
        running(tmp_path, answer(CALL), capabilities=CAPABILITIES) as rig,
        rig.respond("Weather in Oslo?", tools=[FLAT], stop="Oslo") as response,
    ):
        (item,) = (await response.json())["output"]
        assert "stop" not in rig.pod.inputs[0]
    assert item["arguments"] == '{"city":"Oslo"}'


async def test_text_instead_of_a_tool_is_a_message(tmp_path: Path) -> None:
    async with running(tmp_path, answer('{"content":"Hi"}'), capabilities=CAPABILITIES) as rig:
        async with rig.respond(tools=[FLAT]) as response:
            whole = (await response.json())["output"]
        async with rig.respond(tools=[FLAT], stream=True) as response:
            events = await read_typed_events(response)
    kinds = [event["type"].removeprefix("response.") for event in events[:-1]]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    for output in (whole, events[-2]["response"]["output"]):
        assert output[0]["content"][0]["text"] == "Hi"


@for_each("fields, text", {"a text": ({}, "onetwo"), "under tools": ({"tools": [FLAT]}, None)})
async def test_a_pod_that_dies_within_a_stream_fails_the_response(
    tmp_path: Path, fields: dict[str, Any], text: str | None
) -> None:
    script = fail(grpc.StatusCode.UNAVAILABLE, "Socket closed", "one", "two")
    async with (
        running(tmp_path, script, capabilities=CAPABILITIES) as rig,
        rig.respond(stream=True, **fields) as response,
    ):
        *events, error, failed = await read_typed_events(response)
        await rig.until_settled()
    assert "".join(event.get("delta", "") for event in events) == (text or "")
    assert [event["sequence_number"] for event in (*events, error, failed)] == list(range(len(events) + 2))
    assert error["error"] == {
        "message": error["message"],
        "type": "server_error",
        "param": error["param"],
        "code": error["code"],
    }
    assert (error["type"], error["code"], error["param"]) == ("error", "answer_failed", None)
    got = failed["response"]
    assert (failed["type"], got["status"], got["completed_at"]) == ("response.failed", "failed", None)
    assert got["error"] == {"code": "server_error", "message": error["message"]}
    assert (got["usage"]["input_tokens"], got["usage"]["output_tokens"]) == (7, 2)
    parts = [(item["status"], item["content"][0]["text"]) for item in got["output"]]
    assert parts == ([("incomplete", text)] if text else [])
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage) == (Outcome.FAILED, TokenUsage(7, 2))


async def test_an_error_after_a_heartbeat_is_an_event(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def script(_: Inputs) -> Any:
        await gate.wait()
        async for piece in fail(grpc.StatusCode.INVALID_ARGUMENT, "top_p: 2 exceeds 1")({}):
            yield piece

    limits = {"heartbeatSeconds": 0.05}
    async with running(tmp_path, script, settings={"limits": limits}) as rig, rig.respond(stream=True) as response:
        assert (await read_until(response, b": heartbeat\n\n")).startswith(b": heartbeat")
        gate.set()
        *_, error, failed = await read_typed_events(response)
    assert error["message"] == "top_p: 2 exceeds 1"
    assert failed["response"]["error"] == {"code": "invalid_prompt", "message": "top_p: 2 exceeds 1"}


@for_each("script, status, code", {
    "no pod takes it": (fail(grpc.StatusCode.UNAVAILABLE, "gone"), 503, "model_unavailable"),
    "the engine failed": (fail(grpc.StatusCode.INTERNAL, "out of memory"), 502, "answer_failed"),
})  # fmt: skip
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_a_request_that_fails_before_its_answer_is_an_error(
    tmp_path: Path, script: Any, status: int, code: str, is_streamed: bool
) -> None:
    async with running(tmp_path, script) as rig, rig.respond(stream=is_streamed) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (status, code)
        await rig.until_settled()
    assert [(entry.outcome, entry.usage) for entry in rig.ledger.settled] == [(Outcome.FAILED, TokenUsage(0, 0))]


async def test_a_client_that_leaves_within_a_stream_pays_for_what_the_engine_counted(tmp_path: Path) -> None:
    script = Gated(("a", "b", "c"))
    script.release(2)
    async with running(tmp_path, script) as rig:
        async with rig.respond(stream=True) as response:
            await read_until(response, b'"delta":"b"')
            response.close()
        await rig.until_running(0)
        await rig.until_settled()
        assert rig.metric("r1plus_gateway_cancelled_total", model="credit", key="alice", state="streaming") == 1
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage) == (Outcome.CANCELLED, TokenUsage(7, 2))


async def test_a_text_that_looks_like_a_part_of_an_event_stays_text(tmp_path: Path) -> None:
    text = '\n\ndata: [DONE]\n\nevent: error\x1aTEXT\x1a"1000000000000000'

    async def script(_: Inputs) -> Any:
        yield Piece(text, 1)
        yield Piece("", 1, finish_reason="stop")

    async with running(tmp_path, script) as rig, rig.respond(stream=True) as response:
        events = await read_typed_events(response)
    assert [event["delta"] for event in events[:-1] if "delta" in event] == [text]
    assert events[-2]["response"]["output"][0]["content"][0]["text"] == text


@for_each("item, path", {
    "an item that is stored": ({"type": "item_reference", "id": "msg_1"}, "input[0].type"),
    "an id without more": ({"id": "msg_1"}, "input[0].type"),
})  # fmt: skip
async def test_an_item_by_its_id_alone_is_refused(tmp_path: Path, item: dict[str, str], path: str) -> None:
    async with running(tmp_path, answer("a")) as rig, rig.respond([item, USER]) as response:
        error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, path)
    assert "send the item itself" in error["message"]


REASONED = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}], "status": None}


async def test_what_another_model_has_thought_is_left_out(tmp_path: Path) -> None:
    """Clients send it back with the rest of an answer."""
    async with running(tmp_path, answer("a"), capabilities=["messages"]) as rig:
        async with rig.respond([{"role": "user", "content": "Hi"}, REASONED, USER]) as response:
            assert response.status == 200
        assert "Hm" not in str(rig.pod.inputs[0])
        for items, param in ((REASONED, "input"), ({**REASONED, "x": 1}, "input[0].x")):
            async with rig.respond([items]) as response:
                assert (response.status, (await response.json())["error"]["param"]) == (400, param)
        async with rig.respond([REASONED] * (MOST_MESSAGES + 1)) as response:
            assert (response.status, (await response.json())["error"]["param"]) == (400, "input")


async def test_searches_alone_are_nothing_to_answer(tmp_path: Path) -> None:
    search = {"type": "file_search_call", "queries": ["a"]}
    async with running(tmp_path, answer("a")) as rig, rig.respond([search, search]) as response:
        error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, "input")
    assert "send a message, too" in error["message"]


@for_each("fields", {
    "a response": {"previous_response_id": "resp_1"},
    "a conversation": {"conversation": "conv_1"},
    "a conversation as an object": {"conversation": {"id": "conv_1"}},
})  # fmt: skip
async def test_nothing_can_be_continued(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with running(tmp_path, answer("a")) as rig, rig.respond(**fields) as response:
        error = (await response.json())["error"]
        assert rig.pod.inputs == []
    assert (response.status, error["param"], error["code"]) == (400, next(iter(fields)), "unsupported_parameter")
    assert "send the whole conversation" in error["message"]


async def test_earlier_messages_come_between_instructions_and_input() -> None:
    """By a reader that knows some; a gateway without a store knows none."""

    async def read_continuation(_: Fields, __: ModelSettings, caller: Caller) -> Continuation:
        said = (("user", f"I am {caller.id}."), ("assistant", "Hello."))
        items = [{"type": "message", "role": role, "content": [{"text": text}]} for role, text in said]
        return Continuation(items=items)

    fields = Fields({"model": "credit", "input": "Who am I?", "instructions": "Be brief."})
    model = ModelSettings("credit", "h", 1024, 4, capabilities=tuple(Capability))
    request = await ResponseForm(read_continuation).read_request(
        fields, ModelName("credit", "credit", ""), model, ALICE
    )
    assert request.prompt.messages is not None
    assert [tuple(entry.values()) for entry in json.loads(request.prompt.messages)] == [
        ("system", "Be brief."),
        ("user", "I am alice."),
        ("assistant", "Hello."),
        ("user", "Who am I?"),
    ]


async def test_a_caller_packs_one_memory_at_a_time_and_another_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of one key wait, each for a part of a second; another key's is packed meanwhile."""
    known = index_items([say("It is so. " * (MOST_SENTENCES_AT_ONCE + 1))])
    begun, released = list[str](), threading.Event()
    pack = response_form.parse_response

    def wait(fields: Fields, *values: Any) -> Any:
        begun.append(fields.get("user"))
        assert begun[-1] == "bob" or released.wait(60)
        return pack(fields, *values)

    async def read_continuation(*_: Any) -> Continuation:
        return Continuation(recollection=known)

    monkeypatch.setattr(response_form, "parse_response", wait)
    form = ResponseForm(read_continuation)
    model = ModelSettings("credit", "h", 1024, 4, capabilities=tuple(Capability))

    async def ask(name: str) -> None:
        fields = Fields({"model": "credit", "input": "Is it?", "memory": {"enabled": True}, "user": name})
        await form.read_request(fields, ModelName("credit", "credit", ""), model, replace(ALICE, id=name))

    asking = [asyncio.create_task(ask("alice")) for _ in range(10)]
    try:
        await eventually(lambda: begun, "one is packed")
        await ask("bob")
        assert begun == ["alice", "bob"]
    finally:
        released.set()
    await asyncio.gather(*asking)
    assert begun == ["alice", "bob", *["alice"] * 9]


def test_many_calls_in_a_row_are_read_in_the_time_that_their_length_takes() -> None:
    """The event loop waits meanwhile: joined one by one these calls took 17 s, and take 0.1 s."""
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "x" * 4000}
    began = time.process_time()
    messages = build_messages([{"type": "message", "role": "user", "content": [{"text": "Hi"}]}, *[call] * 2048])
    assert time.process_time() - began < 5.0
    assert [message.role for message in messages] == ["user", "assistant"]
    assert messages[1].content == "\n".join([describe_call("f", "x" * 4000)] * 2048)


@pytest.mark.parametrize(
    ("kinds", "roles"),
    [
        ("uac", "u a"),
        ("uacc", "u a"),
        ("uc", "u a"),
        ("ucocc", "u a u a"),
        ("ucac", "u a a"),
        ("c", "a"),
    ],
)
def test_a_call_joins_the_message_before_it(kinds: str, roles: str) -> None:
    """u: a user's message, a: an assistant's, c: a call, o: its output."""
    items: dict[str, Any] = {
        "u": {"type": "message", "role": "user", "content": [{"text": "Hi"}]},
        "a": {"type": "message", "role": "assistant", "content": [{"text": "Hello"}]},
        "c": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        "o": {"type": "function_call_output", "call_id": "c", "output": "7"},
    }
    messages = build_messages([items[kind] for kind in kinds])
    assert " ".join(message.role[0] for message in messages) == roles
    assert sum(message.content.count('"name":"f"') for message in messages) == kinds.count("c")
