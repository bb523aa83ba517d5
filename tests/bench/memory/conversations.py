"""Scripted conversations of 20 turns with five facts each, from the templates of one half."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.memory.templates import FactTemplate, Half, Language
from r1plus_assistant.memory.turns import Speaker, Turn, Utterance, group_turns, split_sentences

TURNS: Final = 20
FACTS: Final = 5
CHANGED_SHARE: Final = 0.5
"""Of the facts that can change."""
DECOY_SHARE: Final = 0.4
EMBEDDED_SHARE: Final = 0.6
"""Of the statements that stand within other talk."""


@dataclass(frozen=True, slots=True)
class ScriptedFact:
    """A fact of one conversation and how it is asked for."""

    kind: str
    latest: str
    stale: str
    """The value before; empty: it never changed."""
    question: str
    turn: int
    """Where the latest value is said, 0 to `TURNS` - 1."""


@dataclass(frozen=True, slots=True)
class ScriptedConversation:
    """Turns, each what the user says and what the assistant answers, and the facts in them."""

    turns: Sequence[tuple[str, str]]
    facts: Sequence[ScriptedFact]


def build_conversations(half: Half, seed: int) -> list[ScriptedConversation]:
    """Return all conversations of a half."""
    return [
        _build(language, random.Random(f"{half.name} {seed} {language.facts[0].said[0]} {number}"))
        for language, count in half.languages
        for number in range(count)
    ]


def make_turns(conversation: ScriptedConversation, without: int | None = None) -> list[Turn]:
    """Return the turns of a conversation; `without`: one whose text by the user was deleted."""
    utterances = []
    for number, (user, assistant) in enumerate(conversation.turns):
        if number != without:
            utterances.append(Utterance(Speaker.USER, user))
        utterances.append(Utterance(Speaker.ASSISTANT, assistant))
    return group_turns(utterances)


def list_texts(conversations: Sequence[ScriptedConversation]) -> list[str]:
    """Return the questions, and each sentence that the user says."""
    users = [user for conversation in conversations for user, _ in conversation.turns]
    said = [sentence for user in users for sentence in split_sentences(user)]
    return [*said, *(fact.question for conversation in conversations for fact in conversation.facts)]


def _build(language: Language, random_: random.Random) -> ScriptedConversation:
    templates = random_.sample(language.facts, FACTS)
    free = list(range(TURNS))
    random_.shuffle(free)
    said: dict[int, str] = {}
    facts = []
    for template in templates:
        changes = bool(template.changed) and random_.random() < CHANGED_SHARE
        turns = sorted(free.pop() for _ in range(2 if changes else 1))
        values = random_.sample(template.values, len(turns))
        for number, (turn, value) in enumerate(zip(turns, values, strict=True)):
            wordings = template.changed if number else template.said
            said[turn] = random_.choice(wordings).format(v=value)
        stale = values[0] if changes else ""
        facts.append(ScriptedFact(template.kind, values[-1], stale, random_.choice(template.asked), turns[-1]))
    decoys = _place_decoys(templates, free, random_)
    talk = random_.sample(language.talk, len(language.talk))
    turns = [_say(language, talk, said.get(turn, ""), decoys.get(turn, ""), random_) for turn in range(TURNS)]
    return ScriptedConversation(turns, facts)


def _place_decoys(templates: Sequence[FactTemplate], free: list[int], random_: random.Random) -> dict[int, str]:
    """Return decoys by their turn: turns of talk."""
    return {free.pop(): template.decoy for template in templates if random_.random() < DECOY_SHARE}


def _say(language: Language, talk: list[str], statement: str, decoy: str, random_: random.Random) -> tuple[str, str]:
    """Return one turn. Nothing of the talk is said twice: repetitions are too easily told from facts."""
    is_embedded = random_.random() < EMBEDDED_SHARE
    most = 2 if len(talk) > TURNS else 1
    texts = [talk.pop() for _ in range(min(random_.choice((1, 1, 2)), most) if is_embedded or not statement else 0)]
    if not statement:
        return " ".join(filter(None, [*texts, decoy])), random_.choice(language.replies)
    texts.insert(random_.choice((0, len(texts))), statement)
    return " ".join(texts), random_.choice(language.acknowledgements)
