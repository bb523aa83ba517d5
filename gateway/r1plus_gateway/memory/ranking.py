"""Rankings of a conversation's sentences for a question, and how several become one."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from r1plus_gateway.memory.turns import Sentence, Speaker
from r1plus_gateway.memory.words import LEAST_STEM, WordSplitter

SATURATION: Final = 1.2
LENGTH_WEIGHT: Final = 0.75
"""BM25's k1 and b, as most search engines have them."""
LEAST_SHARE: Final = 0.5
"""Of the question's words that a sentence needs which the user did not say: models say a lot, with any word in it."""
RANK_CONSTANT: Final = 60
"""Of reciprocal rank fusion, as in Cormack et al. 2009."""


_NONE: Final[Counter[str]] = Counter()


class Ranking(Protocol):
    """A way to rank. Vectors of an embedding engine become another one."""

    def rank(self, question: str, sentences: Sequence[Sentence]) -> list[int]:
        """Return indices of the sentences that have to do with the question, the best first."""


class WordRanking:
    """BM25 over the sentences of one conversation. Nothing is indexed before the question, and nothing stays."""

    def rank(self, question: str, sentences: Sequence[Sentence]) -> list[int]:
        """See `Ranking`: what the user said before what others did. Without a word of the question it is left out."""
        splitter = WordSplitter()
        words = set(splitter.split(question))
        if not words or not sentences:
            return []
        beginnings = [word[:LEAST_STEM] for word in words]
        mean = sum(len(sentence.text) for sentence in sentences) / len(sentences)
        counts = [
            Counter(word for word in splitter.split(sentence.text) if word in words)
            if _may_have(sentence.text, beginnings)
            else _NONE
            for sentence in sentences
        ]
        rarity = _compute_rarity(words, counts)
        scores = [
            _score(count, rarity, 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * len(sentence.text) / mean) if count else 0.0
            for sentence, count in zip(sentences, counts, strict=True)
        ]
        hits = [
            index
            for index, sentence in enumerate(sentences)
            if len(counts[index]) >= (1 if sentence.speaker is Speaker.USER else LEAST_SHARE * len(words))
            and scores[index] > 0
        ]
        return sorted(hits, key=lambda index: (sentences[index].speaker is not Speaker.USER, -scores[index], -index))


def _may_have(text: str, beginnings: Sequence[str]) -> bool:
    """Return whether a text may have a word that begins so: most have none, and splitting them costs the most."""
    if not text.isascii():
        return True
    lowered = text.lower()
    return any(beginning in lowered for beginning in beginnings)


def fuse_rankings(rankings: Iterable[Sequence[int]]) -> dict[int, float]:
    """Return the score of each index by reciprocal rank fusion: what several rankings have high is high."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, index in enumerate(ranking, 1):
            scores[index] = scores.get(index, 0.0) + 1 / (RANK_CONSTANT + rank)
    return scores


def _compute_rarity(words: Iterable[str], counts: Sequence[Counter[str]]) -> dict[str, float]:
    rarity = {}
    for word in words:
        hits = sum(word in count for count in counts)
        rarity[word] = math.log(1 + (len(counts) - hits + 0.5) / (hits + 0.5))
    return rarity


def _score(count: Counter[str], rarity: dict[str, float], length: float) -> float:
    return sum(rarity[word] * times * (SATURATION + 1) / (times + SATURATION * length) for word, times in count.items())
