"""What the `openai` client finds at a gateway."""

import asyncio
import contextlib
import json
from typing import Any, Literal

import openai
from cases import KEYS, URL, case, expect, run_cases
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

QUESTION: Any = [{"role": "user", "content": "What is the capital of Sweden?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
client = OpenAI(base_url=URL, api_key=KEYS["valid"], max_retries=0, timeout=300)
EMBEDDING_MODEL = "all-minilm-l6-v2"


class City(BaseModel):
    """What a parsed answer is."""

    name: Literal["Oslo", "Stockholm"]
    has_river: bool


def chat(**fields: Any) -> Any:
    """Ask."""
    return client.chat.completions.create(**{"model": "credit", "messages": QUESTION, "max_tokens": 8, **fields})


@case
def a_whole_answer() -> None:
    got = chat()
    (choice,) = got.choices
    assert got.object == "chat.completion" and got.id.startswith("chatcmpl-") and got.model == "credit"
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert got.usage.prompt_tokens > 0 and 0 < got.usage.completion_tokens <= 8
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    assert got.system_fingerprint is None or got.system_fingerprint
    assert got._request_id and got._request_id in got.id


@case
def a_stream() -> None:
    chunks = list(chat(stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" and chunk.usage is None for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == chat().choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length") and not chunks[-1].choices[0].delta.content


@case
def a_stream_with_its_usage() -> None:
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


@case
def the_stream_helper() -> None:
    with client.chat.completions.stream(model="credit", messages=QUESTION, max_tokens=8) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds and final.choices[0].message.content


@case
def a_stream_in_a_with_block_that_is_left() -> None:
    with chat(stream=True, max_tokens=500) as stream:
        next(iter(stream))
    assert chat().choices, "the gateway goes on"


@case
def an_asynchronous_client() -> None:
    async def ask() -> None:
        async with AsyncOpenAI(base_url=URL, api_key=KEYS["valid"], max_retries=0) as ai:
            calls = [ai.chat.completions.create(model="credit", messages=QUESTION, max_tokens=4) for _ in range(4)]
            assert all(got.choices[0].message.content for got in await asyncio.gather(*calls))
            stream = await ai.chat.completions.create(model="credit", messages=QUESTION, max_tokens=4, stream=True)
            assert [chunk async for chunk in stream]

    asyncio.run(ask())


@case
def an_asynchronous_call_that_is_cancelled() -> None:
    async def ask() -> None:
        async with AsyncOpenAI(base_url=URL, api_key=KEYS["valid"], max_retries=0) as ai:
            call = ai.chat.completions.create(model="credit", messages=QUESTION, max_tokens=500)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(call, 0.2)

    asyncio.run(ask())
    assert chat().choices


@case
def a_conversation() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "my name?"}]},
    ]
    assert chat(messages=messages).usage.prompt_tokens > 20


@case
def a_developer_message() -> None:
    assert chat(messages=[{"role": "developer", "content": "Be brief."}, *QUESTION]).choices


@case
def limits_and_stop_strings() -> None:
    got = client.chat.completions.create(model="credit", messages=QUESTION, max_completion_tokens=2)
    assert got.choices[0].finish_reason == "length" and got.usage.completion_tokens == 2
    whole = chat(max_tokens=16).choices[0].message.content
    stop = whole.split()[1]
    got = chat(max_tokens=16, stop=[stop])
    assert got.choices[0].finish_reason == "stop" and stop not in got.choices[0].message.content


@case
def the_same_seed_gives_the_same_answer() -> None:
    first, second = (chat(temperature=1.0, seed=7).choices[0].message.content for _ in range(2))
    assert first == second


@case
def fields_that_cannot_change_the_answer() -> None:
    assert chat(user="u", metadata={"a": "b"}, n=1, store=False, parallel_tool_calls=True, logprobs=False).choices


@case
def an_answer_that_is_parsed() -> None:
    parse = getattr(client.chat.completions, "parse", None) or client.beta.chat.completions.parse
    got = parse(model="credit", messages=QUESTION, response_format=City, max_tokens=64)
    parsed = got.choices[0].message.parsed
    assert isinstance(parsed, City)


@case
def an_answer_that_is_json() -> None:
    got = chat(response_format={"type": "json_object"}, max_tokens=256, stop=["}"])
    assert got.choices[0].message.content.lstrip().startswith("{")


@case
def a_tool_call_and_its_result() -> None:
    got = chat(tools=[TOOL], tool_choice="required", max_tokens=96).choices[0]
    assert got.finish_reason == "tool_calls" and got.message.content is None
    (call,) = got.message.tool_calls
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    history = [
        *QUESTION,
        got.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Rain"},
    ]
    assert chat(messages=history, tools=[TOOL], tool_choice="none").choices[0].message.content


@case
def a_tool_call_of_a_stream() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    with client.chat.completions.stream(
        model="credit", messages=QUESTION, tools=[TOOL], tool_choice=named, max_tokens=96
    ) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")


@case
def a_tool_of_which_a_part_is_enforced() -> None:
    parameters = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 500}}, "required": ["text"]}
    note = {"type": "function", "function": {"name": "note", "parameters": parameters}}
    got = chat(tools=[TOOL, note], tool_choice={"type": "function", "function": {"name": "note"}}, max_tokens=200)
    report = got.r1plus["schema"]
    assert report["dropped"] == ["tools[1].function.parameters.properties.text.maxLength"]
    assert report["valid"] is (got.choices[0].finish_reason == "tool_calls" or None)
    note["function"]["strict"] = True
    error = expect(openai.BadRequestError, lambda: chat(tools=[note]))
    assert error.param == "tools[0].function.parameters.properties.text.maxLength"


@case
def what_clients_send_by_habit() -> None:
    got = chat(max_tokens=16_384, stop=["."], extra_body={"top_k": 40, "chat_id": "7"})
    assert got.r1plus["ignored"] == ["chat_id", "top_k"]
    assert got.r1plus["lowered"]["max_tokens"] + got.usage.prompt_tokens == 1024


@case
def a_text_completion() -> None:
    got = client.completions.create(model="credit", prompt="The capital of Sweden is", max_tokens=4)
    assert got.object == "text_completion" and got.choices[0].text and got.usage.completion_tokens == 4
    chunks = list(client.completions.create(model="credit", prompt="One, two,", max_tokens=4, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) and chunks[-1].choices[0].finish_reason


def respond(**fields: Any) -> Any:
    """Ask by the Responses API."""
    return client.responses.create(**{"model": "credit", "input": QUESTION, "max_output_tokens": 16, **fields})


@case
def a_response() -> None:
    got = respond(metadata={"trace": "7"}, instructions="Be brief.")
    assert got.object == "response" and got.id.startswith("resp_") and got._request_id in got.id
    assert got.status in ("completed", "incomplete") and got.output_text and got.metadata == {"trace": "7"}
    assert (got.status == "incomplete") == (got.incomplete_details is not None)
    assert got.usage.input_tokens > 0 and 0 < got.usage.output_tokens <= 16
    assert got.usage.total_tokens == got.usage.input_tokens + got.usage.output_tokens
    assert got.store is True and got.error is None and got.r1plus["verdict"] == "Pass"
    assert (
        got.output_text
        == chat(messages=[{"role": "system", "content": "Be brief."}, *QUESTION], max_tokens=16)
        .choices[0]
        .message.content
    )


@case
def the_events_of_a_response() -> None:
    events = list(respond(stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type in ("response.completed", "response.incomplete")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text and text == events[-1].response.output_text == respond().output_text
    for event in events:
        type(event).model_validate(event.model_dump(by_alias=True, exclude_unset=True))


@case
def the_stream_helper_of_responses() -> None:
    with client.responses.stream(model="credit", input="Say hello.", max_output_tokens=400) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed" and final.output_text


@case
def a_response_that_is_parsed() -> None:
    got = client.responses.parse(model="credit", input=QUESTION, text_format=City, max_output_tokens=64)
    assert isinstance(got.output_parsed, City)


@case
def a_tool_call_of_a_response_and_its_result() -> None:
    tool = {"type": "function", "strict": True, **TOOL["function"]}
    got = respond(tools=[tool], tool_choice="required", max_output_tokens=96)
    (call,) = got.output
    assert call.type == "function_call" and call.name == "weather"
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}
    history = [*QUESTION, call.model_dump(exclude_none=True), result]
    assert respond(input=history, tools=[tool], tool_choice="none").output_text
    kinds = [event.type for event in respond(tools=[tool], tool_choice="required", max_output_tokens=96, stream=True)]
    assert "response.function_call_arguments.done" in kinds and kinds[-1] == "response.completed"


@case
def a_conversation_of_responses() -> None:
    first = respond()
    history = [*QUESTION, *(item.model_dump(exclude_none=True) for item in first.output), *QUESTION]
    assert respond(input=history).usage.input_tokens > first.usage.input_tokens


@case
def stored_responses_that_are_continued() -> None:
    first = respond()
    second = respond(previous_response_id=first.id)
    assert second.previous_response_id == first.id and second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(first.id).output_text == first.output_text
    assert respond(store=False).store is False
    client.responses.delete(first.id)
    assert expect(openai.NotFoundError, lambda: client.responses.retrieve(first.id)).code == "not_found"
    assert expect(openai.NotFoundError, lambda: respond(previous_response_id=second.id)).code == "not_found"


@case
def a_stored_conversation() -> None:
    if not hasattr(client, "conversations"):
        return  # of before October 2025
    begun = client.conversations.create(metadata={"topic": "cities"}, items=[{"type": "message", **QUESTION[0]}])
    answered = respond(conversation=begun.id)
    items = list(client.conversations.items.list(begun.id, order="asc", limit=2))
    assert [item.role for item in items] == ["user", "user", "assistant"]
    assert items[2].content[0].text == answered.output_text
    assert client.conversations.update(begun.id, metadata={"topic": "b"}).metadata == {"topic": "b"}
    assert client.conversations.delete(begun.id).deleted
    assert expect(openai.NotFoundError, lambda: client.conversations.retrieve(begun.id)).code == "not_found"


@case
def bad_fields_of_a_response() -> None:
    assert expect(openai.BadRequestError, lambda: respond(truncation="auto")).param == "truncation"
    assert expect(openai.BadRequestError, lambda: respond(input="word " * 3000)).code == "context_length_exceeded"
    assert expect(openai.BadRequestError, lambda: respond(stream=True, background=True)).param == "background"
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"}
    error = expect(openai.BadRequestError, lambda: respond(input=[{"role": "user", "content": [image]}]))
    assert error.param == "input[0].content[0].type"


@case
def models() -> None:
    ids = [model.id for model in client.models.list()]
    presets = ("", ":code", ":creative", ":math")
    assert ids == [f"{name}{preset}" for name in ("credit", "silent") for preset in presets] + [EMBEDDING_MODEL]
    assert client.models.retrieve("credit:code").id == "credit:code"


@case
def presets() -> None:
    assert chat(extra_body={"preset": "creative"}).model == "credit"
    assert chat(model="credit:creative").model == "credit:creative"


@case
def raw_responses_and_headers() -> None:
    raw = client.chat.completions.with_raw_response.create(model="credit", messages=QUESTION, max_tokens=2)
    assert raw.headers["x-request-id"] in raw.parse().id
    assert raw.headers["x-r1plus-verdict"] == "Pass" and raw.headers["x-r1plus-revision"] == "credit-1"
    with client.chat.completions.with_streaming_response.create(
        model="credit", messages=QUESTION, max_tokens=2, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream") and lines[-1] == "data: [DONE]"


@case
def a_bad_field() -> None:
    error = expect(openai.BadRequestError, lambda: chat(n=2))
    assert (error.param, error.code, error.type) == ("n", "unsupported_parameter", "invalid_request_error")
    assert "send a request for each" in str(error), "the client shows the remedy"
    texts = expect(openai.BadRequestError, lambda: client.completions.create(model="credit", prompt=["a", "b"]))
    assert texts.param == "prompt" and "send a request for each" in str(texts)
    assert error.request_id and error.body["message"]


@case
def a_bad_field_of_a_stream() -> None:
    assert expect(openai.BadRequestError, lambda: chat(stream=True, logprobs=True)).param == "logprobs"


@case
def a_prompt_that_is_too_long() -> None:
    long = [{"role": "user", "content": "word " * 3000}]
    assert expect(openai.BadRequestError, lambda: chat(messages=long)).code == "context_length_exceeded"


@case
def an_image() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    error = expect(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": [part]}]))
    assert error.param == "messages[0].content[0].type"


@case
def a_model_that_does_not_exist() -> None:
    assert expect(openai.NotFoundError, lambda: chat(model="gpt-5")).code == "model_not_found"
    assert expect(openai.NotFoundError, lambda: client.models.retrieve("gpt-5")).code == "model_not_found"


@case
def a_key_that_is_not_valid() -> None:
    other = client.with_options(api_key="r1p_mallory")
    error = expect(openai.AuthenticationError, other.models.list)
    assert error.code == "invalid_api_key"


@case
def a_budget_that_is_used_up_is_not_tried_again() -> None:
    other = client.with_options(api_key=KEYS["exhausted"], max_retries=2)
    error = expect(
        openai.RateLimitError,
        lambda: other.chat.completions.create(model="credit", messages=QUESTION, max_tokens=8),
    )
    assert error.code == "insufficient_quota" and error.response.headers["x-should-retry"] == "false"


@case
def a_rate_limit_says_when_to_try_again() -> None:
    other = client.with_options(api_key=KEYS["slow"])

    def ask() -> Any:
        return other.chat.completions.create(model="credit", messages=QUESTION, max_tokens=1)

    expect(openai.RateLimitError, lambda: [ask(), ask()])
    error = expect(openai.RateLimitError, ask)
    assert error.code == "rate_limit_exceeded" and int(error.response.headers["retry-after"]) >= 1


@case
def an_endpoint_that_is_not_there() -> None:
    error = expect(openai.NotFoundError, lambda: client.moderations.create(input="x"))
    assert error.code == "not_found"


@case
def embeddings_of_several_texts() -> None:
    """The client asks for base64 by default, and decodes it."""
    texts = ["How do I open an account?", "Opening a bank account", "The weather in Oslo"]
    for options in ({}, {"encoding_format": "float"}):
        got = client.embeddings.create(model=EMBEDDING_MODEL, input=texts, **options)
        first, near, far = ([float(number) for number in item.embedding] for item in got.data)
        assert [item.index for item in got.data] == [0, 1, 2] and len(first) == 384
        assert abs(sum(number * number for number in first) - 1) < 1e-4
        assert (
            sum(a * b for a, b in zip(first, near, strict=True))
            > sum(a * b for a, b in zip(first, far, strict=True)) + 0.3
        )
        assert got.model == EMBEDDING_MODEL and got.usage.prompt_tokens == got.usage.total_tokens > 9


@case
def embeddings_that_cannot_be() -> None:
    error = expect(openai.NotFoundError, lambda: client.embeddings.create(model="credit", input="x"))
    assert error.code == "model_not_found"
    error = expect(openai.BadRequestError, lambda: client.embeddings.create(model=EMBEDDING_MODEL, input=[1, 2]))
    assert error.code == "invalid_type" and "send the texts themselves" in str(error)
    error = expect(openai.BadRequestError, lambda: client.embeddings.create(model=EMBEDDING_MODEL, input="w " * 300))
    assert error.code == "text_refused" and "256" in str(error)


@case
def a_timeout_of_the_client() -> None:
    hurried = client.with_options(timeout=1)
    expect(openai.APITimeoutError, lambda: hurried.chat.completions.create(model="silent", messages=QUESTION))
    assert chat().choices


if __name__ == "__main__":
    run_cases()
