"""The process that asks an OpenVINO GenAI engine: a Request on standard input, a Reply on standard output.

Started by asking.ProcessAsker, once per condition. It asks as the served backend does: with the tokenizer's own chat
template, greedy, without a prefix cache. As many requests are in flight as the condition's batch.
"""

import sys
from collections import deque
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

import openvino_genai as genai

from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.suites.suite import Item, SuiteSampling
from r1plus_monitoring.curate.asking import (
    F32,
    AskingCondition,
    CandidateAnswer,
    ChildReply,
    ChildRequest,
    choose_finish_reason,
)

CACHE_GIB: Final = 1
"""KV cache: room for some 20,000 tokens of this family, far more than 32 short questions need."""

AS_SERVED: Final = MappingProxyType({"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"})
"""What the served backend sets (r1plus_model_repo.backends, which this room may not import)."""


def main() -> None:
    """Entry point."""
    request = loads(ChildRequest, sys.stdin.read())
    pipeline = open_pipeline(request.engine, request.condition)
    answers = ask_all(pipeline, request.items, request.sampling, request.condition.batch)
    sys.stdout.write(dumps(ChildReply(answers)))


def open_pipeline(engine: str, condition: AskingCondition) -> Any:
    """Load the engine; takes seconds."""
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GIB
    scheduler.max_num_seqs = condition.batch
    scheduler.enable_prefix_caching = False
    properties = AS_SERVED if condition.precision == F32 else {}
    return genai.ContinuousBatchingPipeline(engine, scheduler, "CPU", dict(properties))


def ask_all(pipeline: Any, items: Sequence[Item], sampling: SuiteSampling, batch: int) -> tuple[CandidateAnswer, ...]:
    """Keep `batch` requests in flight until every item has its answer."""
    tokenizer = pipeline.get_tokenizer()
    config = build_generation_config(sampling)
    queue = deque(enumerate(items))
    in_flight: dict[int, Any] = {}
    answers: dict[int, CandidateAnswer] = {}
    while queue or in_flight:
        while queue and len(in_flight) < batch:
            number, item = queue.popleft()
            in_flight[number] = pipeline.add_request(number, apply_chat_template(tokenizer, item, sampling), config)
        pipeline.step()
        for number, handle in list(in_flight.items()):
            if handle.get_status() != genai.GenerationStatus.RUNNING:
                answers[number] = _read_answer(tokenizer, in_flight.pop(number))
    return tuple(answers[number] for number in range(len(items)))


def build_generation_config(sampling: SuiteSampling) -> Any:
    """Build a greedy configuration; a suite that samples cannot be curated by agreement of conditions."""
    if sampling.temperature != 0:
        raise ValueError(f"sampling.temperature: {sampling.temperature} is not 0; the curator asks greedily")
    config = genai.GenerationConfig()
    config.max_new_tokens = sampling.max_new_tokens
    config.do_sample = False
    config.repetition_penalty = sampling.repetition_penalty
    config.stop_strings = set(sampling.stop)
    config.apply_chat_template = False
    return config


def apply_chat_template(tokenizer: Any, item: Item, sampling: SuiteSampling) -> str:
    """Return the prompt with the chat template around it."""
    messages = [{"role": "user", "content": item.prompt}]
    if sampling.system:
        messages.insert(0, {"role": "system", "content": sampling.system})
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def _read_answer(tokenizer: Any, handle: Any) -> CandidateAnswer:
    output = handle.read_all()[0]
    is_stopped = output.finish_reason == genai.GenerationFinishReason.STOP
    return CandidateAnswer(
        tokenizer.decode(output.generated_ids), choose_finish_reason(is_stopped), len(output.generated_ids)
    )


if __name__ == "__main__":
    main()
