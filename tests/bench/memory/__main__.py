"""`make bench NAME=memory`: how many facts of a conversation are in the prompt, at a quarter of the conversation's tokens.

Each of 120 scripted conversations has 20 turns and five facts, some of which change. After the last turn each fact is
asked for, and the prompt is searched for its latest value. Rules may be written on the half `development`; figures are
those of the half `reported`, by words alone, and with vectors as where a tenant has an embedding engine. Variants are
compared on `validation`, which was written after the rules, in words that they do not know. `coqa` has public texts.

Then two end users of each of two tenants hold a thousand conversations through their gateways, and each prompt is
searched for markers of others and for deleted ones. The time to the first token is measured. Last a served model
answers some of the questions. `--parts` leaves some of it out. A table by kind, then a JSON line: shares of the facts
and of the answers, milliseconds, and counts of facts and harm.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.memory import baselines, coqa
from bench.memory.answers import measure_answers
from bench.memory.conversations import ScriptedConversation, ScriptedFact, build_conversations, list_texts, make_turns
from bench.memory.development import DEVELOPMENT
from bench.memory.first_token import measure_first_token
from bench.memory.matching import has_value
from bench.memory.reported import REPORTED
from bench.memory.tokens import EngineTokens
from bench.memory.validation import VALIDATION
from bench.memory.vectors import Vectors, embed_texts, rank_by_vectors
from bench.memory.wilson import compute_wilson_lower
from bench.running import exit_at_sigterm
from r1plus_assistant.memory.index import index_remembered, index_turns, view_index
from r1plus_assistant.memory.packing import PromptMemory, pack_memory, pack_views
from r1plus_assistant.memory.turns import Turn, group_turns
from r1plus_assistant.responses.response_memory import EstimatedTokens
from support.gateway.fake_triton import FakeTriton, serving
from support.gateway.interleaving import Leaks, answer_briefly, count_leaks
from support.gateway.process import running_process

SHARE = 0.25
"""Of the conversation's tokens."""
ALPHA = 0.05
LONG = 1000
REPETITIONS = 9
PARTS = ("facts", "gateway", "answers")
HALVES: Final[dict[str, Callable[[int], list[ScriptedConversation]]]] = {
    **{half.name: partial(build_conversations, half) for half in (REPORTED, DEVELOPMENT, VALIDATION)},
    coqa.NAME: coqa.build_conversations,
}
"""Name -> what makes its conversations from a seed."""
UNSEEN = (REPORTED.name, coqa.NAME)
"""Whose misses nobody looks at who writes rules."""


class Tally:
    """Counts over all facts of a half."""

    def __init__(self, counter: EngineTokens, seed: int, vectors: Vectors, *, shows_misses: bool) -> None:
        self._counter = counter
        self._vectors = vectors
        self._random = random.Random(seed)
        self._shows_misses = shows_misses
        self.facts = Counter[str]()
        self.hits = defaultdict[str, Counter[str]](Counter)
        """By way of choosing: facts by kind."""
        self.harm = Counter({"stale": 0, "stale_alone": 0, "foreign": 0, "deleted": 0})
        self.tokens = 0
        self.largest_share = 0.0

    def measure(self, conversation: ScriptedConversation, other: ScriptedConversation) -> None:
        """Ask for each fact; `other`: a conversation of another end user."""
        turns = make_turns(conversation)
        whole = baselines.choose_all(turns)
        size = sum(self._counter.count(one.text) for turn in turns for one in turn.utterances)
        budget = int(SHARE * size)
        foreign = [fact.latest for fact in other.facts if not has_value(whole, fact.latest)]
        for fact in conversation.facts:
            self.facts[fact.kind] += 1
            memory = pack_memory(turns, fact.question, budget, self._counter)
            prompt = self._check_size(memory, budget, size)
            self._count("included", fact, prompt)
            further = pack_memory(
                turns, fact.question, budget, self._counter, [rank_by_vectors(turns, fact.question, self._vectors)]
            )
            self._count("included_with_vectors", fact, self._check_size(further, budget, size))
            if self._shows_misses and not has_value(prompt, fact.latest):
                user = next(user for user, _ in conversation.turns if has_value(user, fact.latest))
                print(f"{fact.kind} | {fact.question} | {user}")
            self._count_baselines(turns, fact, budget)
            is_stale = bool(fact.stale) and has_value(prompt, fact.stale)
            self.harm["stale"] += is_stale
            self.harm["stale_alone"] += is_stale and not has_value(prompt, fact.latest)
            self.harm["foreign"] += sum(has_value(prompt, value) for value in foreign)
            self.harm["deleted"] += self._is_deleted_there(conversation, fact, budget)

    def _check_size(self, memory: PromptMemory, budget: int, size: int) -> str:
        """Return the prompt before the question; what it says of its size has to hold by the tokenizer."""
        texts = [memory.block, memory.best, *(one.text for turn in memory.verbatim for one in turn.utterances)]
        tokens = sum(map(self._counter.count, texts))
        assert tokens <= memory.tokens <= budget, (tokens, memory.tokens, budget)
        self.tokens += tokens
        self.largest_share = max(self.largest_share, tokens / size)
        return "\n".join(texts)

    def _count(self, name: str, fact: ScriptedFact, prompt: str) -> None:
        self.hits[name][fact.kind] += has_value(prompt, fact.latest)

    def _count_baselines(self, turns: Sequence[Turn], fact: ScriptedFact, budget: int) -> None:
        counter = self._counter
        self._count("last5", fact, baselines.choose_last(turns))
        self._count("recency", fact, baselines.choose_newest(turns, budget, counter))
        self._count("recency_user", fact, baselines.choose_newest_of_user(turns, budget, counter))
        self._count("random", fact, baselines.choose_randomly(turns, budget, counter, self._random))
        self._count("full_context", fact, baselines.choose_all(turns))

    def _is_deleted_there(self, conversation: ScriptedConversation, fact: ScriptedFact, budget: int) -> bool:
        """Return whether a fact is in the prompt after what said it was deleted."""
        left = make_turns(conversation, without=fact.turn)
        memory = pack_memory(left, fact.question, budget, self._counter)
        return has_value(f"{memory.block}\n{memory.best}\n{baselines.choose_all(memory.verbatim)}", fact.latest)

    def build_figures(self) -> dict[str, float | dict[str, float]]:
        """Return the figures of the JSON line."""
        facts = self.facts.total()
        included, further = (self.hits[name].total() for name in ("included", "included_with_vectors"))
        return {
            "facts": facts,
            "included": round(included / facts, 4),
            "lower95": round(compute_wilson_lower(included, facts, ALPHA), 4),
            "lower95_with_vectors": round(compute_wilson_lower(further, facts, ALPHA), 4),
            **{name: round(hits.total() / facts, 4) for name, hits in self.hits.items() if name != "included"},
            "by_kind": {kind: round(self.hits["included"][kind] / asked, 4) for kind, asked in self.facts.items()},
            **self.harm,
            "tokens_per_fact": round(self.tokens / max(1, included + further)),
            "largest_share": round(self.largest_share, 4),
        }


def main() -> None:
    """Measure the parts of one half and print a JSON line last."""
    arguments = _build_parser().parse_args()
    exit_at_sigterm()
    if arguments.misses and arguments.half in UNSEEN:
        raise SystemExit(f"--misses: no rule may be written on {arguments.half}; add --half development")
    conversations = HALVES[arguments.half](arguments.seed)
    figures: dict[str, Any] = {"half": arguments.half, "seed": arguments.seed}
    vectors = asyncio.run(embed_texts(list_texts(conversations)))
    if "facts" in arguments.parts:
        tally = measure_facts(conversations, arguments.seed, vectors, shows_misses=arguments.misses)
        figures |= tally.build_figures()
    if "gateway" in arguments.parts:
        leaks = asyncio.run(measure_leaks(arguments.conversations))
        print(
            f"{leaks.prompts} prompts through the gateway, {leaks.recalled} with the marker of their own conversation"
        )
        figures |= {"foreign": figures.get("foreign", 0) + leaks.foreign}
        figures |= {"deleted": figures.get("deleted", 0) + leaks.deleted}
        figures |= {**measure_pace(), **asyncio.run(measure_first_token())}
    if "answers" in arguments.parts:
        answers = measure_answers(conversations, vectors, SHARE, arguments.answers, arguments.engine)
        figures |= {"engine": arguments.engine, **answers.build_figures()}
    print(json.dumps(figures))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Facts of a conversation that reach the prompt.")
    parser.add_argument("--half", choices=HALVES, default="reported")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--misses", action="store_true", help="show what is missed; of the half `development` only")
    parser.add_argument("--conversations", type=int, default=1000, help="through the gateway")
    parser.add_argument("--answers", type=int, default=32, help="questions that the served model is asked")
    parser.add_argument("--engine", default="smollm2-full-f16", help="that answers, of `r1plus engine make`")
    return parser


def measure_facts(
    conversations: Sequence[ScriptedConversation], seed: int, vectors: Vectors, *, shows_misses: bool
) -> Tally:
    """Count the facts of all conversations that reach the prompt, and print a table by kind."""
    tally = Tally(EngineTokens(), seed, vectors, shows_misses=shows_misses)
    for conversation, other in zip(conversations, [*conversations[1:], conversations[0]], strict=True):
        tally.measure(conversation, other)
    _print_table(tally)
    return tally


async def measure_leaks(conversations: int) -> Leaks:
    """Return what reached prompts of others through the gateways of two tenants, before the same pod."""
    settings = {"data": {"contentDays": 30}}
    pod = FakeTriton(answer_briefly)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        async with (
            serving(pod),
            running_process(Path(one), pod, settings) as first,
            running_process(Path(two), pod, settings) as second,
        ):
            return await count_leaks([first, second], pod, conversations)


def measure_pace() -> dict[str, float]:
    """Return the milliseconds of processor time for indexing `LONG` turns and for packing them, medians of some."""
    conversations = build_conversations(DEVELOPMENT, 1)
    turns = group_turns([one for script in conversations for turn in make_turns(script) for one in turn.utterances])
    known, indexing, packing = view_index(index_remembered(())), [], []
    for _ in range(REPETITIONS):
        begin = time.thread_time()
        index = index_turns(turns[:LONG])
        indexed = time.thread_time()
        pack_views(view_index(index), known, "When does our version come out?", 2_000, EstimatedTokens())
        indexing.append(indexed - begin)
        packing.append(time.thread_time() - indexed)
    return {
        f"index_{LONG}_turns_cpu_ms": round(1000 * statistics.median(indexing)),
        f"pack_{LONG}_turns_cpu_ms": round(1000 * statistics.median(packing), 1),
    }


def _print_table(tally: Tally) -> None:
    names = list(tally.hits)
    print(f"{'kind':<12}{'facts':>6}" + "".join(f"{name:>22}" for name in names))
    for kind, facts in tally.facts.items():
        print(f"{kind:<12}{facts:>6}" + "".join(f"{tally.hits[name][kind] / facts:>22.3f}" for name in names))


if __name__ == "__main__":
    main()
