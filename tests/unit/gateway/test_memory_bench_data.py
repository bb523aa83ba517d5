"""The data of `make bench NAME=memory`: halves that share nothing, and values that nothing else in them has."""

import random
from itertools import chain, combinations
from typing import Any

from bench.memory.conversations import FACTS, TURNS, build_conversations
from bench.memory.coqa import tell_stories
from bench.memory.development import DEVELOPMENT
from bench.memory.matching import has_value
from bench.memory.reported import REPORTED
from bench.memory.templates import KINDS, Half, Language
from bench.memory.validation import VALIDATION
from support.tables import for_each

HALVES = for_each("half", {"reported": REPORTED, "development": DEVELOPMENT, "validation": VALIDATION})


def list_texts(half: Half) -> set[str]:
    """Return everything that a half can say."""
    texts: list[str] = []
    for language, _ in half.languages:
        texts += chain(language.talk, language.replies, language.acknowledgements)
        for fact in language.facts:
            texts += [*fact.said, *fact.changed, *fact.asked, fact.decoy, *fact.values]
    return set(texts)


@HALVES
def test_there_are_conversations_enough(half: Half) -> None:
    conversations = build_conversations(half, 1)
    facts = [fact for one in conversations for fact in one.facts]
    assert len(conversations) >= 100
    assert {len(one.turns) for one in conversations} == {TURNS}
    assert {len(one.facts) for one in conversations} == {FACTS}
    assert len(facts) >= 500
    assert {fact.kind for fact in facts} == set(KINDS)
    assert sum(bool(fact.stale) for fact in facts) >= 150
    assert conversations == build_conversations(half, 1), "a seed says it all"


def test_the_halves_share_no_text() -> None:
    halves = [list_texts(half) for half in (REPORTED, DEVELOPMENT, VALIDATION)]
    assert min(map(len, halves)) > 100
    for one, other in combinations(halves, 2):
        assert not one & other


def list_others(language: Language) -> list[str]:
    """Return what is said besides the statements with their values."""
    said = chain.from_iterable((*fact.asked, fact.decoy) for fact in language.facts)
    frames = (text.format(v="") for fact in language.facts for text in (*fact.said, *fact.changed))
    return [*language.talk, *language.replies, *language.acknowledgements, *said, *frames]


@HALVES
def test_no_value_is_in_a_prompt_by_chance(half: Half) -> None:
    for language, _ in half.languages:
        values = [value for fact in language.facts for value in fact.values]
        others = list_others(language)
        assert len(values) == len(set(values)) > 0
        assert others
        for value in values:
            assert not [text for text in others if has_value(text, value)], value


@HALVES
def test_each_fact_is_said_where_the_script_says(half: Half) -> None:
    for conversation in build_conversations(half, 1):
        for fact in conversation.facts:
            turns = [n for n, (user, _) in enumerate(conversation.turns) if has_value(user, fact.latest)]
            assert turns == [fact.turn]


@for_each("text, value, expected", {
    "as it was said": ("We need 11 altos.", "11 altos", True),
    "in capitals": ("MISO SOUP", "miso soup", True),
    "a part of a number": ("at 111", "11", False),
    "a part of a time": ("at 11:05", "11", False),
    "a part of a word": ("sages", "sage", False),
    "at the end of a sentence": ("It is 4471.", "4471", True),
})  # fmt: skip
def test_matching(text: str, value: str, expected: bool) -> None:
    assert has_value(text, value) == expected


def make_story(question: str, answer: str, span: str = "", text: str = "") -> Any:
    """Return a story as CoQA has it."""
    return {
        "source": "made",
        "story": text or "Ann sat by the river. A heron flew over her. Later it rained for hours. Nobody minded.",
        "questions": [{"input_text": question}, {"input_text": "What did she do then?"}],
        "answers": [{"input_text": answer, "span_text": span}, {"input_text": "sat", "span_text": "sat by the river"}],
    }


def test_of_a_public_story_the_first_question_is_asked() -> None:
    (told,) = tell_stories([make_story("Which bird came?", "A heron.", "a heron flew over")], random.Random(1))
    (fact,) = told.facts
    assert [user for user, _ in told.turns] == [
        "Ann sat by the river. A heron flew over her.",
        "Later it rained for hours. Nobody minded.",
    ]
    assert (fact.kind, fact.latest, fact.question, fact.turn) == ("made", "A heron", "Which bird came?", 0)


@for_each("story", {
    "yes or no": make_story("Did it rain?", "yes", "it rained"),
    "a value of the question": make_story("Was it a heron?", "a heron", "A heron flew"),
    "an answer in other words": make_story("Where did she sit?", "at a stream", "by the river"),
    "an answer that two sentences have": make_story("Who sat?", "Ann", "Ann sat", "Ann sat. Ann slept."),
    "a long answer": make_story("What flew?", "A heron flew over her. Later", "A heron flew over her. Later"),
})  # fmt: skip
def test_a_public_question_whose_answer_cannot_be_looked_for_is_left_out(story: Any) -> None:
    assert tell_stories([story], random.Random(1)) == []


def test_a_public_conversation_has_three_stories() -> None:
    stories = [
        make_story("Who came?", f"N{n}", f"N{n} came", f"It rained. A heron called N{n} came.") for n in range(7)
    ]
    told = tell_stories(stories, random.Random(1))
    assert [(len(one.turns), len(one.facts)) for one in told] == [(3, 3), (3, 3), (1, 1)]
    assert {fact.latest for one in told for fact in one.facts} == {f"N{n}" for n in range(7)}
