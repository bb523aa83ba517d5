"""The real `openai` client against the gateway: what applications see."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from r1plus_gateway.access.caller import AccessError, Outcome
from support.gateway.access import KEY
from support.gateway.fake_triton import Gated, Script, answer, fail
from support.gateway.rig import Rig, running

QUESTION: Any = [{"role": "user", "content": "Capital of Sweden?"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@asynccontextmanager
async def client(folder: Path, script: Script, **model: Any) -> AsyncIterator[tuple[Rig, AsyncOpenAI]]:
    """A gateway, and a client that retries at once."""
    async with running(folder, script, **model) as rig, AsyncOpenAI(base_url=f"{rig.url}/v1", api_key=KEY) as ai:
        yield rig, ai


async def test_a_chat(tmp_path: Path) -> None:
    async with client(tmp_path, answer("Stock", "holm")) as (_, ai):
        got = await ai.chat.completions.create(model="credit", messages=QUESTION)
    assert got.choices[0].message.content == "Stockholm"
    assert got.usage is not None
    assert got.usage.total_tokens == 9
    assert got._request_id
    assert got.id.endswith(got._request_id)


async def test_a_stream_with_its_usage(tmp_path: Path) -> None:
    async with client(tmp_path, answer("Stock", "holm")) as (_, ai):
        stream = await ai.chat.completions.create(
            model="credit:code", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Stockholm"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


async def test_the_clients_own_stream_helper_reads_it(tmp_path: Path) -> None:
    async with (
        client(tmp_path, answer("Stock", "holm")) as (_, ai),
        ai.chat.completions.stream(model="credit", messages=QUESTION) as stream,
    ):
        got = await stream.get_final_completion()
    assert got.choices[0].message.content == "Stockholm"
    assert got.choices[0].finish_reason == "stop"


async def test_a_preset_as_an_extra_field_and_the_list_of_models(tmp_path: Path) -> None:
    async with client(tmp_path, answer("a")) as (rig, ai):
        await ai.chat.completions.create(model="credit", messages=QUESTION, extra_body={"preset": "code"})
        assert rig.pod.inputs[0]["top_p"] == pytest.approx(0.92)
        assert [model.id async for model in ai.models.list()] == [
            "credit",
            "credit:code",
            "credit:creative",
            "credit:math",
        ]
        assert (await ai.models.retrieve("credit:math")).owned_by == "r1plus"


async def test_a_tool_call_of_a_stream(tmp_path: Path) -> None:
    script = answer('{"name":"weather","arguments":{"city":"Oslo"}}')
    async with (
        client(tmp_path, script, capabilities=["response_schema"]) as (_, ai),
        ai.chat.completions.stream(model="credit", messages=QUESTION, tools=TOOLS) as stream,
    ):
        got = await stream.get_final_completion()
    (call,) = got.choices[0].message.tool_calls or []
    assert call.function.name == "weather"
    assert got.choices[0].finish_reason == "tool_calls"


async def test_errors_are_the_clients_classes(tmp_path: Path) -> None:
    async with client(tmp_path, answer("a")) as (_, ai):
        with pytest.raises(openai.BadRequestError) as refused:
            await ai.chat.completions.create(model="credit", messages=QUESTION, n=2)
        assert (refused.value.param, refused.value.code) == ("n", "unsupported_parameter")
        with pytest.raises(openai.NotFoundError) as missing:
            await ai.chat.completions.create(model="debit", messages=QUESTION)
        assert missing.value.code == "model_not_found"
        assert missing.value.request_id
        with pytest.raises(openai.AuthenticationError):
            await ai.with_options(api_key="r1p_mallory").chat.completions.create(model="credit", messages=QUESTION)


@pytest.mark.unit_slow
async def test_an_exhausted_budget_is_not_tried_again_and_a_rate_limit_is(tmp_path: Path) -> None:
    async with client(tmp_path, answer("a")) as (rig, ai):
        rig.ledger.refusal = AccessError(429, "insufficient_quota", "no tokens are left")
        with pytest.raises(openai.RateLimitError) as exhausted:
            await ai.chat.completions.create(model="credit", messages=QUESTION)
        assert (exhausted.value.code, rig.ledger.arrived) == ("insufficient_quota", 1)
        rig.ledger.refusal = AccessError(429, "rate_limit_exceeded", "slower", retry_after=0.01)
        with pytest.raises(openai.RateLimitError):
            await ai.with_options(max_retries=1).chat.completions.create(model="credit", messages=QUESTION)
        assert rig.ledger.arrived == 3


async def test_a_stream_that_breaks_off_raises(tmp_path: Path) -> None:
    async with client(tmp_path, fail(grpc.StatusCode.INTERNAL, "out of memory", "Stock")) as (_, ai):
        stream = await ai.chat.completions.create(model="credit", messages=QUESTION, stream=True)
        text = ""
        with pytest.raises(openai.APIError, match="out of memory"):
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
    assert text == "Stock"


class City(BaseModel):
    """What a parsed response is."""

    name: str


async def test_a_response(tmp_path: Path) -> None:
    async with client(tmp_path, answer("Stock", "holm")) as (_, ai):
        got = await ai.responses.create(model="credit", input="Capital of Sweden?")
    assert (got.output_text, got.status, got.store) == ("Stockholm", "completed", False)
    assert got.usage is not None
    assert got.usage.total_tokens == 9
    assert got._request_id
    assert got.id == f"resp_{got._request_id}"
    Response.model_validate(got.model_dump(by_alias=True))


async def test_a_conversation_of_responses_without_storage(tmp_path: Path) -> None:
    """Each request sends the answers before it back, as the client gives them."""
    async with client(tmp_path, answer("Stockholm"), capabilities=["messages"]) as (rig, ai):
        asked: Any = [{"role": "user", "content": "Capital of Sweden?"}]
        first = await ai.responses.create(model="credit", input=asked)
        asked += first.output
        asked.append({"role": "user", "content": "And of Norway?"})
        await ai.responses.create(model="credit", input=asked)
        assert rig.pod.messages == [
            {"role": "user", "content": "Capital of Sweden?"},
            {"role": "assistant", "content": "Stockholm"},
            {"role": "user", "content": "And of Norway?"},
        ]
        with pytest.raises(openai.BadRequestError) as refused:
            await ai.responses.create(model="credit", input="And?", previous_response_id=first.id)
        assert refused.value.param == "previous_response_id"


async def test_the_events_of_a_response(tmp_path: Path) -> None:
    async with client(tmp_path, answer("Stock", "holm")) as (_, ai):
        stream = await ai.responses.create(model="credit", input="Capital of Sweden?", stream=True)
        events = [event async for event in stream]
        async with ai.responses.stream(model="credit", input="Capital of Sweden?") as helper:
            final = await helper.get_final_response()
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Stockholm"
    for event in events:
        type(event).model_validate(event.model_dump(by_alias=True))
    assert events[-1].type == "response.completed"
    assert final.output_text == "Stockholm"


async def test_a_response_that_calls_a_tool(tmp_path: Path) -> None:
    script = answer('{"name":"weather","arguments":{"city":"Oslo"}}')
    tools: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}]
    async with client(tmp_path, script, capabilities=["messages", "response_schema"]) as (rig, ai):
        asked: Any = [{"role": "user", "content": "Weather in Oslo?"}]
        async with ai.responses.stream(model="credit", input=asked, tools=tools) as stream:
            (call,) = (await stream.get_final_response()).output
        assert call.type == "function_call"
        assert (call.name, call.arguments) == ("weather", '{"city":"Oslo"}')
        asked += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}]
        got = await ai.responses.create(model="credit", input=asked, tools=tools, tool_choice="none")
        assert got.output
        assert rig.pod.messages[-1] == {"role": "user", "content": f"Result of the tool call {call.call_id}: Rain"}


async def test_a_response_that_is_parsed(tmp_path: Path) -> None:
    script = answer('{"name":"Oslo"}')
    async with client(tmp_path, script, capabilities=["messages", "response_schema"]) as (rig, ai):
        got = await ai.responses.parse(model="credit", input="A city?", text_format=City)
        assert got.output_parsed == City(name="Oslo")
        more: Any = [*got.output, {"role": "user", "content": "Another?"}]
        await ai.responses.create(model="credit", input=more)
        assert rig.pod.messages[0] == {"role": "assistant", "content": '{"name":"Oslo"}'}


async def test_events_that_break_off_raise(tmp_path: Path) -> None:
    async with client(tmp_path, fail(grpc.StatusCode.INTERNAL, "out of memory", "Stock")) as (_, ai):
        stream = await ai.responses.create(model="credit", input="Capital of Sweden?", stream=True)
        text = ""
        with pytest.raises(openai.APIError, match="out of memory"):
            async for event in stream:
                text += event.delta if event.type == "response.output_text.delta" else ""
    assert text == "Stock"


async def test_a_stream_that_is_closed_is_cancelled_in_the_pod(tmp_path: Path) -> None:
    script = Gated(("a", "b"))
    script.release()
    async with client(tmp_path, script) as (rig, ai):
        stream = await ai.chat.completions.create(model="credit", messages=QUESTION, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await rig.until_running(0)
        await rig.until_settled()
    (settlement,) = rig.ledger.settled
    assert (settlement.outcome, settlement.usage.completion_tokens) == (Outcome.CANCELLED, 1)


async def test_a_call_that_is_given_up_is_cancelled_in_the_pod(tmp_path: Path) -> None:
    async with client(tmp_path, Gated(("a",))) as (rig, ai):
        task = asyncio.create_task(ai.chat.completions.create(model="credit", messages=QUESTION))
        await rig.until_running(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await rig.until_running(0)
        await rig.until_settled()
