"""What the served model answers with memory in its prompt, beside its ceiling: the fact alone in the prompt.

The prompts are those that the gateway makes, within the same share of the conversation; the real Triton answers them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from bench.memory.conversations import ScriptedConversation, ScriptedFact
from bench.memory.matching import has_value
from bench.serving.__main__ import serve_engine
from devcluster.cache import cache_dir
from r1plus_contract import inference
from r1plus_gateway.http.indexed_history import index_items
from r1plus_gateway.http.messages import PromptMessage
from r1plus_gateway.http.response_memory import EstimatedTokens, recall_messages
from r1plus_model_repo.importing.shipped import build_shipped_engine
from support.engine.client import Client

MOST_AT_ONCE: Final = 16
ANSWER_TOKENS: Final = 32
EARLIER_TOKENS: Final = 4_096
"""Enough for one fact in the prompt."""
Json = dict[str, Any]


@dataclass(slots=True)
class Answers:
    """How many questions were answered with the latest value."""

    asked: int = 0
    right: int = 0
    """With memory."""
    oracle: int = 0
    """With nothing but what the user said of the fact."""
    right_of_oracle: int = 0
    """Of those, the ones with memory, too."""
    right_of_included: int = 0
    included: int = 0
    """Whose prompt had the value."""

    def build_figures(self) -> dict[str, float]:
        """Return the figures of the JSON line."""
        return {
            "asked": self.asked,
            "answers": round(self.right / self.asked, 4),
            "oracle": round(self.oracle / self.asked, 4),
            "answers_of_oracle": round(self.right_of_oracle / max(1, self.oracle), 4),
            "answers_to_oracle": round(self.right / max(1, self.oracle), 4),
            "answers_of_included": round(self.right_of_included / max(1, self.included), 4),
        }


def measure_answers(conversations: Sequence[ScriptedConversation], share: float, most: int, engine: str) -> Answers:
    """Ask an engine for facts, one of each conversation and then the next of each, at most so many."""
    facts = zip_longest(*([(script, fact) for fact in script.facts] for script in conversations))
    cases = [case for cases in facts for case in cases if case is not None][:most]
    spec, build = build_shipped_engine(engine, cache_dir() / "engines", print)
    result = Answers()
    with serve_engine(spec, build.folder) as server, Client(server.grpc) as client:
        for start in range(0, len(cases), MOST_AT_ONCE):
            batch = cases[start : start + MOST_AT_ONCE]
            prompts = [_recall(script, fact, share) for script, fact in batch]
            alone = [_recall_alone(script, fact) for script, fact in batch]
            texts = _ask(client, [*prompts, *alone])
            for index, (_, fact) in enumerate(batch):
                is_right = has_value(texts[index], fact.latest)
                is_oracle_right = has_value(texts[len(batch) + index], fact.latest)
                is_included = any(has_value(message.content, fact.latest) for message in prompts[index])
                result.asked += 1
                result.right += is_right
                result.included += is_included
                result.right_of_included += is_right and is_included
                result.oracle += is_oracle_right
                result.right_of_oracle += is_right and is_oracle_right
    return result


def _recall(script: ScriptedConversation, fact: ScriptedFact, share: float) -> list[PromptMessage]:
    earlier = [item for user, assistant in script.turns for item in (_say("user", user), _say("assistant", assistant))]
    counter = EstimatedTokens()
    tokens = sum(counter.count(text) for turn in script.turns for text in turn)
    messages, _ = recall_messages(index_items(earlier), [_say("user", fact.question)], int(share * tokens))
    return messages


def _recall_alone(script: ScriptedConversation, fact: ScriptedFact) -> list[PromptMessage]:
    """Return the prompt of memory that found what states the fact, and nothing else."""
    user, _ = script.turns[fact.turn]
    messages, _ = recall_messages(index_items([], [user]), [_say("user", fact.question)], EARLIER_TOKENS)
    return messages


def _say(role: str, text: str) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _ask(client: Client, prompts: Sequence[Sequence[PromptMessage]]) -> list[str]:
    answers = client.all(
        [
            {
                inference.MESSAGES: json.dumps([{"role": one.role, "content": one.content} for one in prompt]),
                inference.MAX_NEW_TOKENS: ANSWER_TOKENS,
            }
            for prompt in prompts
        ]
    )
    for answer in answers:
        if answer.error:
            raise RuntimeError(f"the engine refused a prompt: {answer.error}")
    return [answer.text for answer in answers]
