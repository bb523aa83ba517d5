"""What LlamaIndex finds at a gateway."""

from typing import Literal

from cases import KEYS, URL, case, run_cases
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

KEY = KEYS["valid"]
QUESTION = "What is the capital of Sweden?"

# region chat
llm = OpenAILike(
    model="credit",
    api_base=URL,
    api_key=KEY,
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=1024,
    max_tokens=64,
)
# endregion
# region embeddings
embeddings = OpenAILikeEmbedding(model_name="all-minilm-l6-v2", api_base=URL, api_key=KEY)
# endregion


# region city
class City(BaseModel):
    """A city."""

    name: Literal["Oslo", "Stockholm"]
    has_river: bool


# endregion
# region weather
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """Weather of a city."""
    return f"Rain in {city}"


# endregion


@case
def a_whole_answer() -> None:
    got = llm.chat([ChatMessage(role="user", content=QUESTION)])
    assert got.message.content and got.raw.usage.completion_tokens > 0
    assert llm.complete(QUESTION).text == got.message.content


@case
def a_stream() -> None:
    # region stream
    pieces = [piece.delta for piece in llm.stream_chat([ChatMessage(role="user", content="Name three colours.")])]
    # endregion
    assert "".join(piece or "" for piece in pieces)


@case
def a_tool_call_and_its_result() -> None:
    # region tools
    tool = FunctionTool.from_defaults(weather)
    asked = llm.chat_with_tools([tool], user_msg="How is the weather in Oslo?", tool_required=True)
    (call,) = llm.get_tool_calls_from_response(asked)
    # endregion
    assert call.tool_name == "weather" and call.tool_kwargs["city"] in ("Oslo", "Rome")
    result = ChatMessage(role="tool", content="Rain", additional_kwargs={"tool_call_id": call.tool_id})
    question = ChatMessage(role="user", content="How is the weather in Oslo?")
    assert llm.chat([question, asked.message, result]).message.content


@case
def structured_output() -> None:
    # region structured
    city = llm.structured_predict(City, PromptTemplate("What is the capital of Sweden?"))
    # endregion
    assert isinstance(city, City)


@case
def a_completion_without_a_template() -> None:
    texts = OpenAILike(model="credit", api_base=URL, api_key=KEY, is_chat_model=False, max_tokens=8)
    assert texts.complete("One, two,").text
    assert "".join(piece.delta or "" for piece in texts.stream_complete("One, two,"))


@case
def retrieval() -> None:
    # region retrieval
    documents = [Document(text="An account is opened online."), Document(text="It rains in Oslo.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=embeddings)
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("How do I open an account?")
    answer = index.as_query_engine(llm=llm, similarity_top_k=1).query("How do I open an account?")
    # endregion
    assert found.text.startswith("An account") and str(answer)


if __name__ == "__main__":
    run_cases()
