"""The step `prepare`: a body is read by its form, and contexts plan what they add to its prompt."""

from collections.abc import Sequence
from dataclasses import replace

from r1plus_contract.inference import MOST_PROMPT_BYTES_PER_TOKEN
from r1plus_gateway.http.completions.math_fields import build_no_calculator_error
from r1plus_gateway.http.completions.operating_points import find_operating_point
from r1plus_gateway.http.completions.requests import GenerateRequest
from r1plus_gateway.http.completions.steps import ContextProvider, Draft, ModelCall
from r1plus_gateway.http.errors import FieldNames, RequestError
from r1plus_gateway.http.schemas.code_tool import TOOLS
from r1plus_gateway.settings import ModelSettings


class MissingCalculator:
    """Stands for the calculations of a gateway without that add-on; see `ContextProvider`."""

    def plan(self, request: GenerateRequest, _: ModelSettings) -> None:
        """Refuse a request that asks for them by name. Raises NotConfiguredError."""
        if request.math is not None and request.math.is_explicit:
            raise build_no_calculator_error()


async def prepare(providers: Sequence[ContextProvider], target: ModelCall) -> Draft:
    """Return the request that a body makes, with what it searches and continues.

    Raises:
        RequestError: it is refused.
    """
    call, model = target.call, target.pool.model
    request = await call.form.read_request(target.fields, target.name, model, call.caller)
    names = call.form.description.names
    if request.has_tools:
        names = replace(names, schema=TOOLS)
    contexts = [one for provider in providers if (one := provider.plan(request, model)) is not None]
    _check_prompt_size(request, model, names)
    return Draft(call, target.pool, request, contexts, names, find_operating_point(request, model))


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
