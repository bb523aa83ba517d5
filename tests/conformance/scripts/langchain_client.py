"""What LangChain finds at a gateway."""

from typing import Any, Literal

import openai
from cases import KEYS, URL, case, expect, run_cases
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

KEY = KEYS["valid"]
QUESTION = "What is the capital of Sweden?"

# region chat
model = ChatOpenAI(model="credit", base_url=URL, api_key=KEY, max_tokens=64)
# endregion


class Note(BaseModel):
    """A note of a city."""

    city: Literal["Oslo", "Rome"]
    text: str = Field(default="", max_length=500)
    tags: set[str] = Field(default_factory=set)


# region weather
@tool
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """Weather of a city."""
    return f"Rain in {city}"


# endregion


@tool(args_schema=Note)
def note(**fields: Any) -> str:
    """Note something of a city."""
    return f"Noted {fields}"


@case
def a_whole_answer() -> None:
    got = model.invoke(QUESTION)
    assert got.content and got.response_metadata["finish_reason"] in ("stop", "length")
    assert got.usage_metadata["output_tokens"] > 0


@case
def a_stream() -> None:
    # region stream
    pieces = list(model.stream("What is the capital of Sweden?"))
    text = "".join(piece.text for piece in pieces)
    # endregion
    assert len(pieces) > 2 and text == model.invoke(QUESTION).content


@case
def a_tool_call_and_its_result() -> None:
    # region tools
    with_tools = model.bind_tools([weather], tool_choice="weather")
    asked = with_tools.invoke("How is the weather in Oslo?")
    (call,) = asked.tool_calls
    result = weather.invoke(call)
    # endregion
    assert isinstance(result, ToolMessage) and call["args"]["city"] in ("Oslo", "Rome")
    answered = model.invoke([HumanMessage("How is the weather in Oslo?"), asked, result])
    assert answered.content


@case
def one_tool_among_twenty_that_is_enforced_in_part() -> None:
    others = [weather.model_copy(update={"name": f"weather_{number}"}) for number in range(19)]
    got = model.bind_tools([*others, note], tool_choice="note").invoke("Note that it rains in Oslo.")
    assert got.tool_calls or got.invalid_tool_calls or got.response_metadata["finish_reason"] == "length"
    assert model.bind_tools([weather, note]).invoke("Hello").response_metadata["finish_reason"]


# region city
class City(BaseModel):
    """A city."""

    name: Literal["Oslo", "Stockholm"]
    has_river: bool


# endregion


@case
def structured_output_by_each_method() -> None:
    # region structured
    structured = model.with_structured_output(City)
    city = structured.invoke("What is the capital of Sweden? Answer in JSON.")
    # endregion
    assert isinstance(city, City)
    assert isinstance(model.with_structured_output(City, method="function_calling").invoke(QUESTION), City)


@case
def structured_output_that_is_enforced_in_part() -> None:
    letters = {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2, "uniqueItems": True}
    schema = {"title": "Letters", "type": "object", "properties": {"letters": letters}, "required": ["letters"]}
    loose = model.with_structured_output(schema, method="json_schema", strict=False)
    assert len(loose.invoke("Name letters.")["letters"]) <= 2
    strict = model.with_structured_output(Note, method="json_schema")
    refused = expect(openai.BadRequestError, lambda: strict.invoke(QUESTION))
    assert refused.param == "response_format.json_schema.schema.properties.text.maxLength"


@case
def a_response() -> None:
    responses = ChatOpenAI(model="credit", base_url=URL, api_key=KEY, max_tokens=64, use_responses_api=True)
    got = responses.invoke(QUESTION)
    assert got.text and got.id.startswith("resp_")
    assert "".join(piece.text for piece in responses.stream(QUESTION))


@case
def embeddings_and_retrieval() -> None:
    # region retrieval
    embeddings = OpenAIEmbeddings(model="all-minilm-l6-v2", base_url=URL, api_key=KEY, check_embedding_ctx_length=False)
    store = InMemoryVectorStore(embeddings)
    store.add_documents([Document("An account is opened online."), Document("It rains in Oslo.")])
    (found,) = store.similarity_search("How do I open an account?", k=1)
    # endregion
    assert found.page_content.startswith("An account")


@case
def embeddings_as_tokens_are_refused_with_the_remedy() -> None:
    by_tokens = OpenAIEmbeddings(
        model="all-minilm-l6-v2", base_url=URL, api_key=KEY, tiktoken_enabled=False, check_embedding_ctx_length=False
    )
    assert len(by_tokens.embed_query("Hello")) == 384


@case
def completions_one_prompt_a_request() -> None:
    # region completions
    texts = OpenAI(model="credit", base_url=URL, api_key=KEY, max_tokens=8, batch_size=1)
    answers = texts.batch(["One, two,", "The capital of Sweden is"])
    # endregion
    assert all(answers)
    together = OpenAI(model="credit", base_url=URL, api_key=KEY, max_tokens=8)
    refused = expect(openai.BadRequestError, lambda: together.generate(["One, two,", "Three,"]))
    assert "send a request for each" in str(refused)


@case
def refusals_show_their_remedy() -> None:
    for fields, words in (({"n": 2}, "send a request for each"), ({"logprobs": True}, "no probabilities")):
        refused = expect(openai.BadRequestError, lambda fields=fields: model.bind(**fields).invoke(QUESTION))
        assert words in str(refused)


if __name__ == "__main__":
    run_cases()
