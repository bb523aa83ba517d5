"""The step `prepare`: a body is read by its form, and contexts plan what they add to its prompt."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from r1plus_contract.inference import MOST_PROMPT_BYTES_PER_TOKEN
from r1plus_gateway.assistant.code.code_interpreter import TOOLS
from r1plus_gateway.http.completions.operating_points import find_operating_point
from r1plus_gateway.http.completions.requests import GenerateRequest
from r1plus_gateway.http.completions.steps import Draft, ModelCall
from r1plus_gateway.http.errors import FieldNames, RequestError
from r1plus_gateway.serving.triton_wire import Prompt
from r1plus_gateway.settings import ModelSettings

PromptCounter = Callable[[Prompt], Awaitable[int | None]]
"""Counts a prompt's tokens by the engine; None: no pod says how many."""


class ContextProvider(Protocol):
    """Something that enters prompts besides what their requests say."""

    def plan(self, request: GenerateRequest, model: ModelSettings) -> GenerateRequest:
        """Return the request with what will be done for it.

        Raises:
            RequestError: it asks for what is not there.
        """

    async def measure(self, request: GenerateRequest, model: ModelSettings, count: PromptCounter) -> GenerateRequest:
        """Return the request with what that costs, as the engine counts it."""


async def prepare(contexts: Sequence[ContextProvider], target: ModelCall) -> Draft:
    """Return the request that a body makes, with what it searches and continues.

    Raises:
        RequestError: it is refused.
    """
    call, model = target.call, target.pool.model
    request = await call.form.read_request(target.fields, target.name, model, call.caller)
    names = call.form.description.names
    if request.has_tools:
        names = replace(names, schema=TOOLS)
    for context in contexts:
        request = context.plan(request, model)
    _check_prompt_size(request, model, names)
    return Draft(call, target.pool, request, names, find_operating_point(request, model))


def _check_prompt_size(request: GenerateRequest, model: ModelSettings, names: FieldNames) -> None:
    """Refuse a prompt that no tokenizer fits into the context, as the engine does, before anything is reserved."""
    most = MOST_PROMPT_BYTES_PER_TOKEN * model.context_tokens
    if request.prompt.size > most:
        message = f"the prompt has {request.prompt.size} bytes, more than {most}, which no tokenizer fits into the"
        raise RequestError(
            400,
            "context_length_exceeded",
            f"{message} context of {model.context_tokens} tokens; shorten it",
            param=names.prompt,
        )
