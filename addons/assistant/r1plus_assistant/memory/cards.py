"""Cards: sentences in which the user states a fact, each with its source. A newer one supersedes an older one.

Only what the user said becomes a card: neither answers of a model, nor results of tools, nor quoted memory.
"""

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_assistant.memory.cues import (
    FactKind,
    find_asked_kinds,
    find_kinds,
    is_about_others,
    is_change,
    is_narrative,
    is_own,
    is_request,
    is_standing,
    remove_change,
)
from r1plus_assistant.memory.turns import Sentence, Speaker
from r1plus_assistant.memory.words import WordSplitter

RARE_SHARE: Final = 0.1
"""Of the user's sentences: a word that more of them have says nothing about a subject."""
LEAST_RARE: Final = 3
SAME_SUBJECT: Final = 0.3
"""Share of the shorter sentence's words, numbers aside, from which a correction speaks of the same."""
SAME_FRAME: Final = 0.7
"""Share of common words, numbers aside, from which two sentences state the same with another value."""
MOST_COMPARED: Final = 256
"""Newest cards among which a newer one looks for what it supersedes."""
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

    @property
    def is_fact(self) -> bool:
        """Whether it has a sign of a fact. Other statements are asked for as well, though less often."""
        return self.is_own or bool(self.kinds)


def read_card(sentence: Sentence) -> Card | None:
    """Return the card of what the user states; None of a request, and of what others say."""
    if sentence.speaker is not Speaker.USER or is_request(sentence.text):
        return None
    return _make_card(sentence, find_kinds(sentence.text), is_own(sentence.text))


def make_cards(sentences: Iterable[Sentence]) -> list[Card]:
    """Return the cards that have a sign of a fact, the oldest first."""
    return [card for sentence in sentences if (card := read_card(sentence)) is not None and card.is_fact]


class CardComparison:
    """Finds what each next card supersedes, among the newest before it.

    A correction supersedes the newest older card of its kind with the same subject. Its subject are its words besides
    numbers, and besides those that say that something has changed; the two share rare ones of it, and a good part of
    the shorter sentence. Without a sign of a correction only a sentence of nearly the same words supersedes. What is
    in doubt stays: the newer one comes later.
    """

    def __init__(self, splitter: WordSplitter) -> None:
        self._splitter = splitter
        self._lock = threading.Lock()
        self._recent: deque[tuple[Card, frozenset[str], frozenset[str]]] = deque()
        """Each with its words, and those of the subject that it corrects."""
        self._first = 0
        """Number of the first one in `_recent`."""
        self._numbers: dict[str, list[int]] = {}
        """Word -> numbers of the cards in `_recent` that have it, in their order."""
        self._superseded: set[int] = set()

    def find_superseded(self, card: Card, words: frozenset[str]) -> int | None:
        """Add a card with its words; return the position of the sentence that it supersedes."""
        with self._lock:
            if len(self._recent) == MOST_COMPARED:
                self._forget_oldest()
            number = self._first + len(self._recent)
            subject = self._find_subject(card)
            self._recent.append((card, words, subject))
            for word in words:
                self._numbers.setdefault(word, []).append(number)
            subject = self._keep_rare(subject, number + 1)
            for other in self._list_sharing(words, number):
                older, older_words, _ = self._recent[other - self._first]
                is_before = older.sentence.turn < card.sentence.turn and other not in self._superseded
                if is_before and supersedes(card, words, subject, older, older_words):
                    self._superseded.add(other)
                    return older.sentence.position
            return None

    def is_corrected(self, card: Card, words: frozenset[str], end: int) -> bool:
        """Return whether one of the newest of the first `end` cards supersedes one that is older than all of them."""
        with self._lock:
            newest = (self._recent[number - self._first] for number in self._list_sharing(words, end))
            return any(supersedes(one, its, self._keep_rare(subject, end), card, words) for one, its, subject in newest)

    def _find_subject(self, card: Card) -> frozenset[str]:
        """Return the words of a correction that do not say that something has changed."""
        return frozenset(self._splitter.split(remove_change(card.sentence.text))) if card.is_change else frozenset()

    def _list_sharing(self, words: frozenset[str], end: int) -> list[int]:
        """Return numbers of cards before `end` with one of these words, the newest first."""
        return sorted({one for word in words for one in self._numbers.get(word, ()) if one < end}, reverse=True)

    def _keep_rare(self, words: frozenset[str], end: int) -> frozenset[str]:
        most = max(LEAST_RARE, int(RARE_SHARE * (end - self._first)))
        return frozenset(word for word in words if bisect_left(self._numbers.get(word, ()), end) <= most)

    def _forget_oldest(self) -> None:
        _, words, _ = self._recent.popleft()
        for word in words:
            numbers = self._numbers[word]
            numbers.pop(0)
            if not numbers:
                del self._numbers[word]
        self._superseded.discard(self._first)
        self._first += 1


def find_superseded(cards: Iterable[Card]) -> set[int]:
    """Return the positions of sentences whose fact a newer card states with another value; cards in their order."""
    splitter = WordSplitter()
    comparison = CardComparison(splitter)
    positions = [comparison.find_superseded(card, frozenset(splitter.split(card.sentence.text))) for card in cards]
    return {position for position in positions if position is not None}


def rank_cards(cards: Sequence[Card], question: str) -> list[int]:
    """Return indices of cards, the best first: of the kind that the question asks for, of the user, and new."""
    asked = find_asked_kinds(question)
    return sorted(range(len(cards)), key=lambda index: (-_weigh(cards[index], asked), -index))


def supersedes(
    newer: Card, words: frozenset[str], subject: frozenset[str], older: Card, older_words: frozenset[str]
) -> bool:
    """Return whether a card takes the place of an older one; `subject`: rare words of a correction's subject."""
    if words == older_words:
        return True
    if not newer.kinds & older.kinds:
        return False
    frame, older_frame = _list_frame(words), _list_frame(older_words)
    shared = _list_frame(subject & older_words)
    if shared and len(shared) >= SAME_SUBJECT * min(len(frame), len(older_frame)):
        return True
    common = frame & older_frame
    return len(common) > 1 and len(common) >= SAME_FRAME * len(frame | older_frame)


def _list_frame(words: frozenset[str]) -> frozenset[str]:
    """Return the words that are no numbers."""
    return frozenset(word for word in words if not any(character.isdigit() for character in word))


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
