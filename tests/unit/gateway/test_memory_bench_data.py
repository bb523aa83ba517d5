"""The data of `make bench-memory`: halves that share nothing, and values that nothing else in them has."""

from itertools import chain, combinations

from bench.memory.conversations import FACTS, TURNS, build_conversations
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
    conversations = list(build_conversations(half, 1))
    facts = [fact for one in conversations for fact in one.facts]
    assert len(conversations) >= 100
    assert {len(one.turns) for one in conversations} == {TURNS}
    assert {len(one.facts) for one in conversations} == {FACTS}
    assert len(facts) >= 500
    assert {fact.kind for fact in facts} == set(KINDS)
    assert sum(bool(fact.stale) for fact in facts) >= 150
    assert conversations == list(build_conversations(half, 1)), "a seed says it all"


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
