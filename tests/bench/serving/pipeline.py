"""Many questions at once to an engine of any backend, in the engine's own process.

Imports nothing but the standard library and `r1plus_model_repo.backends`: it also runs in a Python that has only vLLM.
"""

import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from r1plus_model_repo.backends.engine_loop import Handle, Job, Pipeline
from r1plus_model_repo.backends.requests import GenerationRequest


class OpenEngine(Pipeline, Protocol):
    """An engine as each backend has it, without Triton."""

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenise, and check against the context. Raise RefusedError."""

    def close(self) -> None:
        """Free the engine; no call follows."""


def generate_all(
    engine: OpenEngine, questions: Sequence[str], tokens: int, *, at_once: int | None = None
) -> tuple[int, float]:
    """Answer all questions, with so many tokens each at most; return tokens in all, and seconds.

    `at_once`: how many run at most, as the served loop limits them; all if it is None. The engine's own limit is none:
    OpenVINO GenAI runs all that it is given.
    """
    jobs = [engine.prepare(GenerationRequest(prompt=question, max_new_tokens=tokens)) for question in questions]
    began, count = time.monotonic(), 0
    waiting, running = deque(jobs), list[Handle]()
    while waiting or running:
        while waiting and len(running) < (at_once or len(jobs)):
            running.append(engine.add(waiting.popleft()))
        engine.step()
        pieces = [(handle, *handle.read()) for handle in running]
        count += sum(len(ids) for _, ids, _ in pieces)
        running = [handle for handle, _, reason in pieces if reason is None]
    return count, time.monotonic() - began
