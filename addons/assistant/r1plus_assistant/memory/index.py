"""The index of what was said: sentences, the statements among them, and where each word is. It grows at its end.

An index is kept by one process and read by several requests. Each reads a `View`, which shows the index as it was when
the view was taken: what is added later is behind its ends.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_assistant.memory.cards import Card, CardComparison, read_card
from r1plus_assistant.memory.turns import (
    MOST_SENTENCES,
    REMEMBERED,
    Sentence,
    Speaker,
    Turn,
    Utterance,
    split_sentences,
)
from r1plus_assistant.memory.words import WordSplitter

MOST_INDEXED: Final = 2 * MOST_SENTENCES
"""Of what is added at once: a text of short lines would need hundreds of times its bytes. A view shows half as many,
and begins earlier where the newest turns are none of it."""
SENTENCE_BYTES: Final = 480
"""About: of a sentence and its words in the index, besides its text."""
CARD_BYTES: Final = 700
"""About: of a card, and of what the next ones are compared with."""
POSTING_BYTES: Final = 8
WORD_BYTES: Final = 560
"""About: of a word, as it is said and as it is compared, with its two arrays."""
UTTERANCE_BYTES: Final = 240


class ConversationIndex:
    """The index of one conversation, or of what one user said in others."""

    def __init__(self, first_position: int = 0) -> None:
        """`first_position`: of the first sentence; negative for what was said before a conversation."""
        self.utterances: list[Utterance] = []
        self.turns: list[int] = []
        """Number of each utterance's turn."""
        self.sentences: list[Sentence] = []
        self.ends: list[int] = []
        """Sentences up to the end of each utterance."""
        self.cards: list[Card] = []
        """Statements of the user."""
        self.card_places: array[int] = array("I")
        """Of each card, the place of its sentence."""
        self.superseded: dict[int, int] = {}
        """Position of a sentence -> place among the cards of the newer one."""
        self._first_position = first_position
        self._splitter = WordSplitter()
        self._postings: dict[str, tuple[array[int], array[int]]] = {}
        """Word -> places of sentences, and how often each has it."""
        self._lengths: array[int] = array("Q", [0])
        """Characters of the first sentences, by their number."""
        self._comparison = CardComparison(self._splitter)
        self._has_user = False
        """Whether the user has spoken in the last turn."""
        self._posting_count = 0

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        words = len(self._postings) * WORD_BYTES + self._posting_count * POSTING_BYTES
        said = len(self.sentences) * SENTENCE_BYTES + len(self.ends) * UTTERANCE_BYTES + len(self.cards) * CARD_BYTES
        return 2 * self._lengths[-1] + said + words

    def add(self, utterance: Utterance, sentences: Sequence[str] | None = None) -> None:
        """Add what is said next. A turn begins with what the user says; what is said before belongs to the first.

        `sentences`: those of it that are indexed; all without.
        """
        is_user = utterance.speaker is Speaker.USER
        if not self.turns or (is_user and self._has_user):
            number = self.turns[-1] + 1 if self.turns else 1
            self._has_user = is_user
        else:
            number = self.turns[-1]
            self._has_user |= is_user
        self._append(utterance, number, split_sentences(utterance.text) if sentences is None else sentences)

    def add_remembered(self, text: str, sentences: Sequence[str]) -> None:
        """Add what the user said in another conversation."""
        self._append(Utterance(Speaker.USER, text), REMEMBERED, sentences)

    def _append(self, utterance: Utterance, turn: int, sentences: Sequence[str]) -> None:
        for text in sentences:
            self._add_sentence(turn, utterance.speaker, text)
        self.utterances.append(utterance)
        self.turns.append(turn)
        self.ends.append(len(self.sentences))

    def _add_sentence(self, turn: int, speaker: Speaker, text: str) -> None:
        place = len(self.sentences)
        sentence = Sentence(turn, speaker, self._first_position + place, text)
        words: dict[str, int] = {}
        for word in self._splitter.split(text):
            words[word] = words.get(word, 0) + 1
        for word, count in words.items():
            if (posting := self._postings.get(word)) is None:
                posting = self._postings[word] = (array("I"), array("I"))
            # The count first: a reader takes as many as there are places.
            posting[1].append(count)
            posting[0].append(place)
        self._posting_count += len(words)
        card = read_card(sentence)
        if card is not None:
            older = self._comparison.find_superseded(card, frozenset(words))
            if older is not None:
                self.superseded[older] = len(self.cards)
            self.card_places.append(place)
            self.cards.append(card)
        self._lengths.append(self._lengths[-1] + len(text))
        self.sentences.append(sentence)

    def is_corrected(self, card: Card, end: int) -> bool:
        """Return whether one of the first `end` cards supersedes one from before all that is indexed."""
        return self._comparison.is_corrected(card, frozenset(self._splitter.split(card.sentence.text)), end)

    def count_characters(self, begin: int, end: int) -> int:
        """Return the characters of the sentences from one place to another."""
        return self._lengths[end] - self._lengths[begin]

    def find_word(self, word: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield places of sentences between two places that have a word, and how often."""
        if (posting := self._postings.get(word)) is not None:
            places, counts = posting
            for number in range(bisect_left(places, begin), bisect_left(places, end)):
                yield places[number], counts[number]


@dataclass(frozen=True, slots=True)
class View:
    """An index as it is now, or its beginning. Of more than `MOST_SENTENCES` it shows the newest."""

    index: ConversationIndex
    utterance_count: int
    end: int
    """Of the sentences."""
    card_end: int
    """Of the cards that may supersede others: also those after `end`."""

    @property
    def begin(self) -> int:
        """The place of the first sentence."""
        return max(0, self.end - MOST_SENTENCES)

    @property
    def turn_count(self) -> int:
        """The number of the last turn; 0 without one."""
        return self.index.turns[self.utterance_count - 1] if self.utterance_count else 0

    def list_newest(self, most: int) -> list[Turn]:
        """Return the newest turns, the oldest first."""
        turns: list[Turn] = []
        for place in range(self.utterance_count - 1, -1, -1):
            number = self.index.turns[place]
            if turns and turns[-1].number == number:
                turns[-1] = Turn(number, [self.index.utterances[place], *turns[-1].utterances])
            elif len(turns) == most:
                break
            else:
                turns.append(Turn(number, [self.index.utterances[place]]))
        return turns[::-1]

    def list_sentences(self) -> Sequence[Sentence]:
        """Return the sentences."""
        return self.index.sentences[self.begin : self.end]

    def list_cards(self) -> list[Card]:
        """Return the statements of the user that no newer one has superseded."""
        index = self.index
        first, last = bisect_left(index.card_places, self.begin), bisect_left(index.card_places, self.end)
        return [card for card in index.cards[first:last] if not self.is_superseded(card.sentence)]

    def is_superseded(self, sentence: Sentence) -> bool:
        """Return whether a newer statement has superseded a sentence."""
        return self.index.superseded.get(sentence.position, self.card_end) < self.card_end

    def until_turn(self, turn: int) -> "View":
        """Return what was said up to a turn's end."""
        count = self.utterance_count
        while count and self.index.turns[count - 1] > turn:
            count -= 1
        end = self.index.ends[count - 1] if count else 0
        return View(self.index, count, end, self.card_end)


def view_index(index: ConversationIndex) -> View:
    """Return an index as it is now."""
    count = len(index.ends)
    end = index.ends[count - 1] if count else 0
    return View(index, count, end, bisect_left(index.card_places, end))


def index_turns(turns: Iterable[Turn]) -> ConversationIndex:
    """Return the index of a conversation."""
    index = ConversationIndex()
    for turn in turns:
        for utterance in turn.utterances:
            index.add(utterance)
    return index


def index_remembered(texts: Sequence[str]) -> ConversationIndex:
    """Return the index of what the user said in other conversations, the oldest first."""
    sentences = split_newest(texts)
    index = ConversationIndex(-sum(map(len, sentences)))
    for text, own in zip(texts, sentences, strict=True):
        index.add_remembered(text, own)
    return index


def split_newest(texts: Sequence[str]) -> list[list[str]]:
    """Return the sentences of each text, the oldest first; of all together the newest `MOST_INDEXED`."""
    left, found = MOST_INDEXED, list[list[str]]()
    for text in reversed(texts):
        sentences = split_sentences(text)[-left:] if left else []
        left -= len(sentences)
        found.append(sentences)
    return found[::-1]


def find_corrected(known: View, said: View) -> frozenset[int]:
    """Return the positions of what is known from other conversations, and is corrected or repeated in this one."""
    return frozenset(
        card.sentence.position for card in known.list_cards() if said.index.is_corrected(card, said.card_end)
    )
