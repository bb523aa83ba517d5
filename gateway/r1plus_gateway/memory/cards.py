"""Cards: sentences in which the user states a fact, each with its source. A newer one supersedes an older one.

Only what the user said becomes a card: neither answers of a model, nor results of tools, nor quoted memory.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_gateway.memory.cues import (
    FactKind,
    find_asked_kinds,
    find_kinds,
    is_about_others,
    is_change,
    is_narrative,
    is_own,
    is_request,
    is_standing,
)
from r1plus_gateway.memory.turns import Sentence, Speaker
from r1plus_gateway.memory.words import WordSplitter

RARE_SHARE: Final = 0.1
"""Of the user's sentences: a word that more of them have says nothing about a subject."""
LEAST_RARE: Final = 3
SAME_FRAME: Final = 0.7
"""Share of common words, numbers aside, from which two sentences state the same with another value."""
MOST_COMPARED: Final = 256
"""Newest cards that are compared with each other: each is compared with each."""
_MOST_KINDS: Final = 2
_OWN_WEIGHT: Final = 1.0
_STANDING_WEIGHT: Final = 1.0
_CHANGE_WEIGHT: Final = 1.0
_NARRATIVE_WEIGHT: Final = 1.0
_OTHERS_WEIGHT: Final = 2.0
_ASKED_WEIGHT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Card:
    """A fact that the user stated."""

    sentence: Sentence
    kinds: frozenset[FactKind]
    is_own: bool
    """Whether it speaks of the user."""
    is_change: bool
    """Whether it seems to correct an older one."""
    weight: float
    """How much it looks like a fact that will be asked for."""


def make_cards(sentences: Sequence[Sentence]) -> list[Card]:
    """Return the cards of what the user said, the oldest first."""
    cards = []
    for sentence in sentences:
        if sentence.speaker is not Speaker.USER:
            continue
        if is_request(sentence.text):
            continue
        kinds, is_of_user = find_kinds(sentence.text), is_own(sentence.text)
        if kinds or is_of_user:
            cards.append(_make_card(sentence, kinds, is_of_user))
    return cards


def find_superseded(cards: Sequence[Card]) -> set[int]:
    """Return the positions of sentences whose fact a newer card states with another value.

    A correction supersedes the newest older card that shares a rare word and a kind with it. Without a sign of a
    correction only a sentence of nearly the same words does. What is in doubt stays: the newer one comes later.
    """
    recent, splitter = cards[-MOST_COMPARED:], WordSplitter()
    texts = [frozenset(splitter.split(card.sentence.text)) for card in recent]
    counts = Counter(word for words in texts for word in words)
    most = max(LEAST_RARE, int(RARE_SHARE * len(recent)))
    rare = {word for word, count in counts.items() if count <= most}
    superseded: set[int] = set()
    for index, newer in enumerate(recent):
        for older in range(index - 1, -1, -1):
            card = recent[older]
            is_before = card.sentence.turn < newer.sentence.turn and card.sentence.position not in superseded
            if is_before and _supersedes(newer, texts[index], card, texts[older], rare):
                superseded.add(card.sentence.position)
                break
    return superseded


def rank_cards(cards: Sequence[Card], question: str) -> list[int]:
    """Return indices of cards, the best first: of the kind that the question asks for, of the user, and new."""
    asked = find_asked_kinds(question)
    return sorted(range(len(cards)), key=lambda index: (-_weigh(cards[index], asked), -index))


def _supersedes(newer: Card, words: frozenset[str], older: Card, older_words: frozenset[str], rare: set[str]) -> bool:
    if words == older_words:
        return True
    common = words & older_words
    if not common or not newer.kinds & older.kinds:
        return False
    if newer.is_change and common & rare:
        return True
    frame = _list_frame(common)
    return len(frame) > 1 and len(frame) >= SAME_FRAME * len(_list_frame(words | older_words))


def _list_frame(words: frozenset[str]) -> set[str]:
    """Return the words that are no numbers."""
    return {word for word in words if not any(character.isdigit() for character in word)}


def _weigh(card: Card, asked: frozenset[FactKind]) -> float:
    return card.weight + _ASKED_WEIGHT * bool(card.kinds & asked)


def _make_card(sentence: Sentence, kinds: frozenset[FactKind], is_of_user: bool) -> Card:
    text = sentence.text
    is_correcting, is_story = is_change(text), is_narrative(text)
    weight = (
        min(_MOST_KINDS, len(kinds))
        + _OWN_WEIGHT * is_of_user
        + _STANDING_WEIGHT * (not is_story and is_standing(text))
        + _CHANGE_WEIGHT * is_correcting
        - _NARRATIVE_WEIGHT * is_story
        - _OTHERS_WEIGHT * is_about_others(text)
    )
    return Card(sentence, kinds, is_of_user, is_correcting, weight)
