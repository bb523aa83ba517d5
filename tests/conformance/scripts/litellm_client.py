"""What LiteLLM, as a client, finds at a gateway."""

import json
from typing import Any, Literal

import litellm
from cases import KEYS, URL, case, expect, run_cases
from pydantic import BaseModel

KEY = KEYS["valid"]
# region chat
gateway = {"model": "openai/credit", "api_base": URL, "api_key": KEY}
# endregion
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
        },
    },
}


class City(BaseModel):
    """A city."""

    name: Literal["Oslo", "Stockholm"]
    has_river: bool


def chat(**fields: Any) -> Any:
    """Ask."""
    return litellm.completion(**{**gateway, "messages": QUESTION, "max_tokens": 64, **fields})


@case
def a_whole_answer() -> None:
    # region whole
    question = [{"role": "user", "content": "What is the capital of Sweden?"}]
    answer = litellm.completion(**gateway, messages=question, max_tokens=64)
    # endregion
    assert answer.choices[0].message.content and answer.usage.completion_tokens > 0


@case
def a_stream() -> None:
    question = QUESTION
    # region stream
    stream = litellm.completion(**gateway, messages=question, max_tokens=64, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    # endregion
    assert text


@case
def a_tool_call_and_its_result() -> None:
    # region tools
    message = chat(tools=[TOOL], tool_choice="required").choices[0].message
    (call,) = message.tool_calls
    # endregion
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    result = {"role": "tool", "tool_call_id": call.id, "content": "Rain"}
    assert chat(messages=[*QUESTION, message.model_dump(), result], tools=[TOOL], tool_choice="none").choices


@case
def structured_output() -> None:
    # region structured
    answer = chat(response_format=City)
    city = City.model_validate_json(answer.choices[0].message.content)
    # endregion
    assert city.name in ("Oslo", "Stockholm")


@case
def a_response() -> None:
    got = litellm.responses(**gateway, input="What is the capital of Sweden?", max_output_tokens=64)
    assert got.output[0].content[0].text and got.status in ("completed", "incomplete")
    kinds = [event.type for event in litellm.responses(**gateway, input="Hello", max_output_tokens=8, stream=True)]
    assert kinds[-1] in ("response.completed", "response.incomplete")


@case
def a_text_completion() -> None:
    fields = {**gateway, "model": "text-completion-openai/credit"}
    assert litellm.text_completion(**fields, prompt="One, two,", max_tokens=8).choices[0].text


@case
def embeddings() -> None:
    # region embeddings
    got = litellm.embedding(**{**gateway, "model": "openai/all-minilm-l6-v2"}, input=["Hello"], encoding_format="float")
    # endregion
    assert len(got.data[0]["embedding"]) == 384


@case
def what_is_not_supported_is_dropped_or_refused_with_the_remedy() -> None:
    refused = expect(litellm.BadRequestError, lambda: chat(n=2))
    assert "send a request for each" in str(refused)
    assert chat(extra_body={"top_k": 40}).choices


if __name__ == "__main__":
    run_cases()
