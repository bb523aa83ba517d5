"""Tokens per second of servers, asked in turn, so that a change of the machine's pace meets all of them."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from support.engine.client import Answer, Client
from support.engine.server import Server


@dataclass(frozen=True, slots=True)
class Throughput:
    """Of so many requests at once."""

    tokens_per_second: float
    tokens_per_answer: float
    """An answer may end before it is as long as was asked: then more of the time goes to prompts."""


def measure_throughputs(
    servers: Mapping[str, Server], requests: int, rounds: int, tokens: int
) -> dict[str, Throughput]:
    """Ask each server so many requests at once, each of at most so many tokens, after a round that does not count.

    Raises:
        RuntimeError: a server refused a request.
    """
    questions = [
        {"prompt": f"Tell me a long story about a lighthouse. Number {n}.", "max_new_tokens": tokens}
        for n in range(requests)
    ]
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(Client(server.grpc)) for name, server in servers.items()}
        asked = [{name: _ask(client, questions) for name, client in clients.items()} for _ in range(rounds + 1)]
    return {name: _describe([one[name] for one in asked[1:]], requests) for name in servers}


def _ask(client: Client, questions: list[dict[str, Any]]) -> tuple[int, float]:
    """Return tokens and seconds of a round."""
    began = time.monotonic()
    answers: list[Answer] = client.all(questions)
    seconds = time.monotonic() - began
    if errors := {answer.error for answer in answers} - {""}:
        raise RuntimeError(f"the engine refused a request: {', '.join(sorted(errors))}")
    return sum(answer.tokens for answer in answers), seconds


def _describe(rounds: list[tuple[int, float]], requests: int) -> Throughput:
    tokens = sum(count for count, _ in rounds)
    pace = tokens / sum(seconds for _, seconds in rounds)
    return Throughput(round(pace, 1), round(tokens / len(rounds) / requests, 1))
