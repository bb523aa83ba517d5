"""Turns of a conversation and the sentences in them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

ABBREVIATION_CHARACTERS: Final = 8
MOST_SENTENCES: Final = 4_096
"""Of one conversation, the newest: about a thousand turns. Each costs some 20 microseconds."""
MOST_SENTENCE_CHARACTERS: Final = 400
"""A longer sentence is cut at words into several."""
_END: Final = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n+|(?<=[。！？])")
_ABBREVIATION: Final = re.compile(
    r"(?:^|\W)(?:mr|mrs|ms|dr|st|prof|no|nr|hr|fr|vs|e\.g|i\.e|z\.b|d\.h|ca|bzw|usw|\w|\d{1,2})\.$", re.IGNORECASE
)
"""What ends with a full stop and ends no sentence: also initials, and a German day of the month."""
_CONTINUED: Final = re.compile(r"[a-zäöü]|\d|Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez")


REMEMBERED: Final = 0
"""Number of the turn that holds what was said in other conversations."""


class Speaker(StrEnum):
    """Who said something."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Utterance:
    """A text of one speaker."""

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user says, and everything after it until the user speaks again."""

    number: int
    """From 1, the oldest; `REMEMBERED` for what was said in other conversations."""
    utterances: Sequence[Utterance]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its source."""

    turn: int
    speaker: Speaker
    position: int
    """Within all sentences of the conversation, from 0."""
    text: str


def group_turns(utterances: Sequence[Utterance]) -> list[Turn]:
    """Return the turns: each begins with what the user says. What is said before belongs to the first one."""
    groups: list[list[Utterance]] = []
    for utterance in utterances:
        is_first = not groups or (utterance.speaker is Speaker.USER and _has_user(groups[-1]))
        if is_first:
            groups.append([])
        groups[-1].append(utterance)
    return [Turn(number, group) for number, group in enumerate(groups, 1)]


def list_sentences(turns: Sequence[Turn]) -> list[Sentence]:
    """Return the newest sentences of all turns, at most `MOST_SENTENCES`, in their order."""
    newest = islice(_list_backwards(turns), MOST_SENTENCES)
    return [
        Sentence(number, speaker, position, text)
        for position, (number, speaker, text) in enumerate(reversed(list(newest)))
    ]


def _list_backwards(turns: Sequence[Turn]) -> Iterator[tuple[int, Speaker, str]]:
    for turn in reversed(turns):
        for utterance in reversed(turn.utterances):
            for text in reversed(split_sentences(utterance.text)):
                yield turn.number, utterance.speaker, text


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, none longer than `MOST_SENTENCE_CHARACTERS`."""
    return [piece for sentence in _join_abbreviations(text) for piece in _cut(sentence)]


def _has_user(group: Sequence[Utterance]) -> bool:
    return any(one.speaker is Speaker.USER for one in group)


def _join_abbreviations(text: str) -> Iterator[str]:
    begin = 0
    for end in _END.finditer(text):
        before = text[max(begin, end.start() - ABBREVIATION_CHARACTERS) : end.start()]
        if "\n" not in end[0] and _ABBREVIATION.search(before) and _CONTINUED.match(text, end.end()):
            continue
        if sentence := text[begin : end.end()].strip():
            yield sentence
        begin = end.end()
    if rest := text[begin:].strip():
        yield rest


def _cut(sentence: str) -> Iterator[str]:
    begin = 0
    while len(sentence) - begin > MOST_SENTENCE_CHARACTERS:
        end = sentence.rfind(" ", begin + 1, begin + MOST_SENTENCE_CHARACTERS)
        end = end if end > 0 else begin + MOST_SENTENCE_CHARACTERS
        if piece := sentence[begin:end].strip():
            yield piece
        begin = end
    if rest := sentence[begin:].strip():
        yield rest
