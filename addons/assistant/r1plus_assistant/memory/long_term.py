"""Long-term memory: which sentences of a request are kept across conversations, and what they take the place of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_assistant.memory.cards import Card, find_superseded, make_cards
from r1plus_assistant.memory.cues import FactKind, is_about_others, is_narrative
from r1plus_assistant.memory.turns import Speaker, Turn, Utterance, list_sentences

MOST_KEPT: Final = 8
"""Statements of one request, the last ones: who pastes a text does not speak of himself."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a request changes of what is remembered."""

    said: Sequence[str]
    """Sentences that are new."""
    superseded: Sequence[int]
    """Indices of what is known already and is corrected, or said again."""


def plan_keeping(known: Sequence[str], said: Sequence[str]) -> Keeping:
    """Return what is kept of texts that the user said; `known`: what is remembered, the oldest first.

    Kept is what the user states of himself and what holds: neither requests, nor stories, nor what others do. Of others
    only names are kept.
    """
    earlier = [Turn(0, [Utterance(Speaker.USER, text)]) for text in known]
    now = Turn(1, [Utterance(Speaker.USER, text) for text in said])
    kept = [card for card in make_cards(list_sentences([now])) if _is_lasting(card)][-MOST_KEPT:]
    if not kept:
        return Keeping((), ())
    texts = list(dict.fromkeys(card.sentence.text for card in kept))
    # Each memory and each statement is a turn of its own, so that what is said later supersedes what was said before.
    turns = [*earlier, *(Turn(number, [Utterance(Speaker.USER, text)]) for number, text in enumerate(texts, 1))]
    sentences = list_sentences(turns)
    superseded = find_superseded(make_cards(sentences))
    owners = _find_owners(turns)
    gone = {owners[position] for position in superseded}
    repeated = {index for index, text in enumerate(known) if text in texts}
    return Keeping(
        [text for index, text in enumerate(texts, len(known)) if index not in gone],
        sorted({index for index in gone | repeated if index < len(known)}),
    )


def _is_lasting(card: Card) -> bool:
    text = card.sentence.text
    concerns_user = FactKind.NAME in card.kinds or not is_about_others(text)
    return card.is_own and bool(card.kinds) and concerns_user and not is_narrative(text)


def _find_owners(turns: Sequence[Turn]) -> list[int]:
    """Return for each sentence the index of its turn."""
    return [index for index, turn in enumerate(turns) for _ in list_sentences([turn])]
