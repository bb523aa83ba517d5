"""What memory is compared with, at the same number of tokens: simpler ways to choose from a conversation."""

import random
from collections.abc import Iterable, Sequence

from r1plus_assistant.memory.packing import TokenCounter
from r1plus_assistant.memory.turns import Sentence, Speaker, Turn, list_sentences

LAST_TURNS = 5


def choose_last(turns: Sequence[Turn]) -> str:
    """Return the last five turns, whatever they cost."""
    return _join(turn for turn in turns[-LAST_TURNS:])


def choose_all(turns: Sequence[Turn]) -> str:
    """Return the whole conversation."""
    return _join(turns)


def choose_newest(turns: Sequence[Turn], budget: int, counter: TokenCounter) -> str:
    """Return the newest sentences that fit."""
    return _fill(reversed(list_sentences(turns)), budget, counter)


def choose_newest_of_user(turns: Sequence[Turn], budget: int, counter: TokenCounter) -> str:
    """Return the user's newest sentences that fit, without the assistant's."""
    own = [one for one in list_sentences(turns) if one.speaker is Speaker.USER]
    return _fill(reversed(own), budget, counter)


def choose_randomly(turns: Sequence[Turn], budget: int, counter: TokenCounter, random_: random.Random) -> str:
    """Return sentences drawn by chance that fit."""
    sentences = list_sentences(turns)
    random_.shuffle(sentences)
    return _fill(sentences, budget, counter)


def _fill(sentences: Iterable[Sentence], budget: int, counter: TokenCounter) -> str:
    """Return sentences until the first that does not fit."""
    texts = []
    for sentence in sentences:
        budget -= counter.count(sentence.text)
        if budget < 0:
            break
        texts.append(sentence.text)
    return "\n".join(texts)


def _join(turns: Iterable[Turn]) -> str:
    return "\n".join(utterance.text for turn in turns for utterance in turn.utterances)
