"""What a request has used whose gateway is gone, by the count of the pods that generated for it."""

import asyncio
from typing import Final

from r1plus_gateway.access.caller import TokenUsage
from r1plus_gateway.serving.errors import AnswerFailedError, ModelUnavailableError, RefusedByEngineError
from r1plus_gateway.serving.generation import USAGE_SECONDS, ask_pod, bound_usage
from r1plus_gateway.serving.pods import Pod, PodPool
from r1plus_gateway.serving.triton_wire import build_usage_request, name_round, name_translation

NOTHING: Final = TokenUsage(0, 0)


async def ask_usage(pool: PodPool, request_id: str, most_rounds: int) -> TokenUsage | None:
    """Return what all generations of a request have used; None if the pods cannot know it.

    Raises:
        ServingError: a pod does not say it now, or there is none.
    """
    pods = pool.list_pods()
    if not pods:
        raise ModelUnavailableError(f"no pod of {pool.model.name} is ready; try again later")
    parts = await _ask_pods(pool, pods, name_translation(request_id))
    for number in range(most_rounds):
        found = await _ask_pods(pool, pods, name_round(request_id, number))
        parts += found
        if not found:
            break
    usage = TokenUsage(sum(one.prompt_tokens for one in parts), sum(one.completion_tokens for one in parts))
    if not parts or (usage == NOTHING and len(pods) > 1):
        return None  # a pod that has only counted the prompt says 0, and another one may have generated and gone
    return usage


async def _ask_pods(pool: PodPool, pods: list[Pod], part: str) -> list[TokenUsage]:
    """Return what each pod that knows a generation has counted: two do where the first one's queue was full."""
    found = await asyncio.gather(*(_ask(pool, pod, part) for pod in pods))
    return [usage for usage in found if usage is not None]


async def _ask(pool: PodPool, pod: Pod, part: str) -> TokenUsage | None:
    with pool.occupy(pod):
        try:
            said = await ask_pod(pod, build_usage_request(part), USAGE_SECONDS)
        except RefusedByEngineError:
            return None
    if not said.has_begun:
        raise AnswerFailedError("the pod ended the stream without an answer; try again")
    return bound_usage(said, pool.model)
