"""Citations: which passages an answer rests on, and where in it.

The model is asked to name quotes by their numbers. A small one often forgets, so a sentence without a number is
compared with the passages by its words. That says what the sentence agrees with, not that it is true.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from r1plus_assistant.knowledge.search import Passage, SearchResult
from r1plus_assistant.memory.turns import split_sentences
from r1plus_assistant.memory.words import WordSplitter

LEAST_WORDS: Final = 2
"""That a sentence and a passage have in common, besides those that every text has."""
LEAST_SHARE: Final = 0.6
"""Of a sentence's words."""
_MARKER: Final = re.compile(r"\[(\d{1,2}(?:\s*,\s*\d{1,2})*)\]")
_NUMBER: Final = re.compile(r"\d+")


class CitationBasis(StrEnum):
    """Why a passage is cited."""

    NUMBER = "number"
    """The answer names it."""
    WORDS = "words"
    """A sentence of the answer has its words."""


@dataclass(frozen=True, slots=True)
class PassageCitation:
    """A place in an answer, and the passage that it rests on."""

    position: int
    """Characters of the answer before it."""
    number: int
    """Of the passage, from 1."""
    basis: CitationBasis


def split_passages(result: SearchResult) -> SearchResult:
    """Return what was found with the words of each passage. It takes milliseconds for many, so call it in a thread."""
    splitter = WordSplitter()
    return replace(result, passages=[replace(one, words=_split(splitter, one)) for one in result.passages])


def find_citations(answer: str, passages: Sequence[Passage]) -> list[PassageCitation]:
    """Return the citations of an answer, in their order. Numbers of no passage are none."""
    if not passages or not answer:
        return []
    named = [
        PassageCitation(marker.end(), int(number[0]), CitationBasis.NUMBER)
        for marker in _MARKER.finditer(answer)
        for number in _NUMBER.finditer(marker[1])
        if 1 <= int(number[0]) <= len(passages)
    ]
    return named or list(_compare_sentences(answer, passages))


class FoundCitations:
    """The citations of one answer, which several of its parts say: all passages are compared with its text once."""

    def __init__(self) -> None:
        self._text = ""
        self._citations: Sequence[PassageCitation] = ()

    def find(self, text: str, passages: Sequence[Passage]) -> Sequence[PassageCitation]:
        """Return the citations of a text, always of the same passages."""
        if text != self._text:
            self._citations = find_citations(text, passages)
            self._text = text
        return self._citations


def _compare_sentences(answer: str, passages: Sequence[Passage]) -> Iterator[PassageCitation]:
    splitter = WordSplitter()
    texts = [_split(splitter, one) if one.words is None else one.words for one in passages]
    begin = 0
    for sentence in split_sentences(answer):
        start = answer.find(sentence, begin)
        begin = max(begin, start + len(sentence))
        words = frozenset(splitter.split(sentence))
        common, number = max((len(words & text), -place) for place, text in enumerate(texts))
        if common >= LEAST_WORDS and common >= LEAST_SHARE * len(words):
            yield PassageCitation(begin, 1 - number, CitationBasis.WORDS)


def _split(splitter: WordSplitter, passage: Passage) -> frozenset[str]:
    return frozenset(splitter.split(f"{passage.chunk.heading} {passage.chunk.text}"))
