"""Many questions at once to an engine of any backend, in the engine's own process.

Imports nothing but the standard library and `r1plus_model_repo.backends`: it also runs in a Python that has only vLLM.
"""

import time
from collections.abc import Sequence
from typing import Protocol

from r1plus_model_repo.backends.engine_loop import Job, Pipeline
from r1plus_model_repo.backends.requests import GenerationRequest


class OpenEngine(Pipeline, Protocol):
    """An engine as each backend has it, without Triton."""

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenise, and check against the context. Raise RefusedError."""

    def close(self) -> None:
        """Free the engine; no call follows."""


def generate_all(engine: OpenEngine, questions: Sequence[str], tokens: int) -> tuple[int, float]:
    """Answer all questions at once, with so many tokens each at most; return tokens in all, and seconds."""
    jobs = [engine.prepare(GenerationRequest(prompt=question, max_new_tokens=tokens)) for question in questions]
    began, count = time.monotonic(), 0
    running = [engine.add(job) for job in jobs]
    while running:
        engine.step()
        pieces = [(handle, *handle.read()) for handle in running]
        count += sum(len(ids) for _, ids, _ in pieces)
        running = [handle for handle, _, reason in pieces if reason is None]
    return count, time.monotonic() - began
