"""What clients of other servers send by habit is taken where it does no harm, and the answer says what became of it."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from support.gateway.fake_triton import PromptCounter, answer, fail
from support.gateway.rig import Rig, read_events, running
from support.tables import for_each

CONTEXT = 1024
USER = {"role": "user", "content": "Hi"}
FORMS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a chat": ("/v1/chat/completions", {"messages": [USER]}, "messages", "max_tokens"),
    "a text": ("/v1/completions", {"prompt": "Hi"}, "prompt", "max_tokens"),
    "the native form": ("/v1/generate", {"prompt": "Hi"}, "prompt", "max_new_tokens"),
    "a response": ("/v1/responses", {"input": "Hi"}, "input", "max_output_tokens"),
}
"""Path, body, and the names of prompt and limit."""


async def send(rig: Rig, path: str, **body: Any) -> tuple[int, Any]:
    async with rig.post(path, {"model": "credit", **body}) as response:
        return response.status, await response.json()


@for_each("path, body, prompt, limit", FORMS)
async def test_harmless_fields_of_other_servers_are_ignored_and_named(
    tmp_path: Path, path: str, body: Any, prompt: str, limit: str
) -> None:
    async with running(tmp_path, answer("a")) as rig:
        status, got = await send(rig, path, **body, top_k=40, min_p=None, chat_id="7", keep_alive=-1)
        assert (status, got["r1plus"]["ignored"]) == (200, ["chat_id", "keep_alive", "top_k"])
        status, got = await send(rig, path, **body, min_p=None)
        assert (status, "ignored" in got.get("r1plus", {})) == (200, False)
        status, got = await send(rig, path, **body, temprature=1)
        assert (status, got["error"]["param"]) == (400, "temprature"), "a field that is misspelt is no habit"
    assert rig.pod.inputs[0] == rig.pod.inputs[1]


async def test_what_a_reasoning_model_thought_is_ignored_and_named_once(tmp_path: Path) -> None:
    thought = {"role": "assistant", "content": "Hello", "reasoning_content": "They greet.", "reasoning": None}
    messages = [USER, thought, USER, thought, USER]
    async with running(tmp_path, answer("a"), capabilities=["messages"]) as rig:
        status, got = await send(rig, "/v1/chat/completions", messages=messages)
        assert (status, got["r1plus"]) == (200, {"ignored": ["messages[].reasoning_content"]})
        assert rig.pod.messages[1] == {"role": "assistant", "content": "Hello"}
        status, got = await send(rig, "/v1/chat/completions", messages=[{**USER, "reasoning_content": "x"}])
        assert (status, got["error"]["param"]) == (400, "messages[0].reasoning_content"), "no user thinks aloud"


async def test_a_stream_names_what_was_ignored_in_its_last_chunk(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig, rig.chat(stream=True, top_k=40) as response:
        *chunks, _ = await read_events(response)
    assert [chunk["r1plus"] for chunk in chunks if "r1plus" in chunk] == [{"ignored": ["top_k"]}]
    assert "r1plus" in chunks[-1]


@pytest.mark.parametrize(
    "harmless",
    [{"reasoning_effort": "none"}, {"verbosity": "medium"}, {"chat_template_kwargs": {"enable_thinking": False}}],
    ids=str,
)
async def test_values_that_ask_for_nothing_are_taken(tmp_path: Path, harmless: dict[str, Any]) -> None:
    async with running(tmp_path, answer("a")) as rig:
        status, got = await send(rig, "/v1/chat/completions", messages=[USER], **harmless)
        assert (status, "r1plus" in got) == (200, False)
        (name,) = harmless
        status, got = await send(rig, "/v1/chat/completions", messages=[USER], **{name: "high"})
        assert (status, got["error"]["param"]) == (400, name)


@for_each("path, body, prompt, limit", FORMS)
async def test_a_limit_above_the_context_is_lowered_to_what_is_left(
    tmp_path: Path, path: str, body: Any, prompt: str, limit: str
) -> None:
    async with running(tmp_path, answer("a"), capabilities=["count_only"]) as rig:
        rig.pod.count_tokens = PromptCounter(24)
        for asked, lowered in ((16_384, {limit: 1000}), (1020, {limit: 1000}), (1000, None), (5, None)):
            status, got = await send(rig, path, **body, **{limit: asked})
            assert (status, got.get("r1plus", {}).get("lowered")) == (200, lowered)
            assert rig.pod.inputs[-1]["max_new_tokens"] == min(asked, 1000)
        assert [entry.reservation.tokens for entry in rig.ledger.settled] == [CONTEXT, CONTEXT, CONTEXT, 24 + 5]
        if path == "/v1/responses":
            assert (await send(rig, path, **body, **{limit: 16_384}))[1]["max_output_tokens"] == 16_384
        status, got = await send(rig, path, **body, **{limit: 2**31})
        assert (status, got["error"]["param"]) == (400, limit)


async def test_an_engine_that_counts_nothing_answers_a_limit_above_the_context_by_its_default(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig:
        assert (await send(rig, "/v1/chat/completions", messages=[USER], max_tokens=16_384))[0] == 200
    assert "max_new_tokens" not in rig.pod.inputs[0]


@for_each("path, body, prompt, limit", FORMS)
async def test_a_prompt_that_leaves_no_room_is_refused_by_the_callers_names(
    tmp_path: Path, path: str, body: Any, prompt: str, limit: str
) -> None:
    async with running(tmp_path, answer("a"), capabilities=["count_only"]) as rig:
        rig.pod.count_tokens = PromptCounter(CONTEXT)
        status, got = await send(rig, path, **body)
        assert (status, got["error"]["code"], got["error"]["param"]) == (400, "context_length_exceeded", prompt)
        assert got["error"]["message"] == (
            f"{prompt}: prompt has 1024 tokens; with 1 new token that is 1025, more than the context of 1024; shorten it"
        )
        assert rig.pod.inputs == []


@for_each("path, body, prompt, limit", FORMS)
async def test_what_the_engine_refuses_is_told_by_the_callers_names(
    tmp_path: Path, path: str, body: Any, prompt: str, limit: str
) -> None:
    too_long = "prompt has 2001 tokens; with 512 new tokens that is 2513, more than the context of 1024; "
    refusals = {
        f"text_input: {too_long}shorten the prompt or lower max_new_tokens [7f]": (
            f"{prompt}: {too_long}shorten it or lower {limit}"
        ),
        "messages[3].role: 'bot' is not one of system, user [7f]": f"{prompt}: 'bot' is not one of system, user [7f]",
        "max_new_tokens: 0 is less than 1": f"{limit}: 0 is less than 1",
        "top_p: 2 exceeds 1": "top_p: 2 exceeds 1",
    }
    for refusal, message in refusals.items():
        async with running(tmp_path, fail(grpc.StatusCode.INVALID_ARGUMENT, refusal)) as rig:
            status, got = await send(rig, path, **body)
        assert (status, got["error"]["message"]) == (400, message)
        assert got["error"]["param"] == message.partition(":")[0]


async def test_a_schema_that_the_engine_refuses_is_told_by_its_place_in_the_request(tmp_path: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    tool = {"type": "function", "function": {"name": "f"}}
    refusals: dict[str, tuple[dict[str, Any], str]] = {
        "response_schema.properties.a: no": (
            {"response_format": form},
            "response_format.json_schema.schema.properties.a: no",
        ),
        "response_schema.anyOf[0].properties.arguments: no": ({"tools": [tool]}, "tools: no"),
    }
    for refusal, (fields, message) in refusals.items():
        script = fail(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        async with running(tmp_path, script, capabilities=["response_schema"]) as rig:
            status, got = await send(rig, "/v1/chat/completions", messages=[USER], **fields)
        assert (status, got["error"]["message"]) == (400, message)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"n": 2},
            "n: a request has one answer; send a request for each, at once if you like; leave it out, or send 1",
        ),
        ({"logprobs": True}, "logprobs: the engines give no probabilities of tokens; leave it out, or send false"),
    ],
    ids=["several answers", "probabilities"],
)
async def test_what_a_request_cannot_have_is_refused_with_the_remedy(tmp_path: Path, fields: Any, message: str) -> None:
    async with running(tmp_path, answer("a")) as rig:
        status, got = await send(rig, "/v1/chat/completions", messages=[USER], **fields)
    assert (status, got["error"]["message"]) == (400, message)
