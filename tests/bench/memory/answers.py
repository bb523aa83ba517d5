"""What the served model answers with memory in its prompt, beside its ceiling: the fact alone in the prompt.

The prompts are those that the gateway makes, within the same share of the conversation; the real Triton answers them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Final

from bench.memory.conversations import ScriptedConversation, ScriptedFact, make_turns
from bench.memory.matching import has_value
from bench.memory.vectors import Vectors, rank_by_vectors
from bench.serving.__main__ import serve_engine
from devcluster.cache import cache_dir
from r1plus_assistant.conversations.indexed_history import index_items
from r1plus_assistant.responses.response_memory import EstimatedTokens, recall_messages
from r1plus_contract import inference
from r1plus_gateway.http.completions.messages import PromptMessage
from r1plus_model_repo.importing.shipped import build_shipped_engine
from support.engine.client import Client

MOST_AT_ONCE: Final = 16
ANSWER_TOKENS: Final = 32
EARLIER_TOKENS: Final = 4_096
"""Enough for one fact in the prompt."""
Json = dict[str, Any]
Prompt = list[PromptMessage]
Case = tuple[ScriptedConversation, ScriptedFact]


@dataclass(slots=True)
class Right:
    """How many answers have the latest value, of one way to make the prompts."""

    right: int = 0
    of_oracle: int = 0
    """Of those that the fact alone answers, too."""
    of_included: int = 0
    included: int = 0
    """Whose prompt had the value."""

    def add(self, case: Case, prompt: Prompt, text: str, *, is_oracle_right: bool) -> None:
        """Score one answer."""
        _, fact = case
        is_right = has_value(text, fact.latest)
        is_included = any(has_value(message.content, fact.latest) for message in prompt)
        self.right += is_right
        self.of_oracle += is_right and is_oracle_right
        self.included += is_included
        self.of_included += is_right and is_included


@dataclass(slots=True)
class Answers:
    """How many questions were answered with the latest value."""

    asked: int = 0
    oracle: int = 0
    """With nothing but what the user said of the fact."""
    words: Right = field(default_factory=Right)
    """With memory that searched by words."""
    vectors: Right = field(default_factory=Right)
    """With memory that searched by vectors, too."""

    def build_figures(self) -> dict[str, float]:
        """Return the figures of the JSON line."""
        figures: dict[str, float] = {"asked": self.asked, "oracle": round(self.oracle / self.asked, 4)}
        for end, one in (("", self.words), ("_with_vectors", self.vectors)):
            figures |= {
                f"answers{end}": round(one.right / self.asked, 4),
                f"answers_to_oracle{end}": round(one.right / max(1, self.oracle), 4),
                f"answers_of_oracle{end}": round(one.of_oracle / max(1, self.oracle), 4),
                f"answers_of_included{end}": round(one.of_included / max(1, one.included), 4),
            }
        return figures


def measure_answers(
    conversations: Sequence[ScriptedConversation], vectors: Vectors, share: float, most: int, engine: str
) -> Answers:
    """Ask an engine for facts, one of each conversation and then the next of each, at most so many."""
    facts = zip_longest(*([(script, fact) for fact in script.facts] for script in conversations))
    cases = [case for cases in facts for case in cases if case is not None][:most]
    spec, build = build_shipped_engine(engine, cache_dir() / "engines", print)
    result = Answers()
    with serve_engine(spec, build.folder) as server, Client(server.grpc) as client:
        for start in range(0, len(cases), MOST_AT_ONCE):
            batch = cases[start : start + MOST_AT_ONCE]
            alone = _ask(client, [_recall_alone(*case) for case in batch])
            oracle = [has_value(text, fact.latest) for (_, fact), text in zip(batch, alone, strict=True)]
            result.asked += len(batch)
            result.oracle += sum(oracle)
            for right, ranks in ((result.words, None), (result.vectors, vectors)):
                prompts = [_recall(*case, share, ranks) for case in batch]
                for case, prompt, text, is_right in zip(batch, prompts, _ask(client, prompts), oracle, strict=True):
                    right.add(case, prompt, text, is_oracle_right=is_right)
    return result


def _recall(script: ScriptedConversation, fact: ScriptedFact, share: float, vectors: Vectors | None) -> Prompt:
    """Return the prompt of memory; with `vectors` as where a tenant has an embedding engine."""
    earlier = [item for user, assistant in script.turns for item in (_say("user", user), _say("assistant", assistant))]
    counter = EstimatedTokens()
    tokens = sum(counter.count(text) for turn in script.turns for text in turn)
    ranking = None if vectors is None else rank_by_vectors(make_turns(script), fact.question, vectors)
    recollection = replace(index_items(earlier), ranking=ranking)
    messages, _ = recall_messages(recollection, [_say("user", fact.question)], int(share * tokens))
    return messages


def _recall_alone(script: ScriptedConversation, fact: ScriptedFact) -> Prompt:
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
