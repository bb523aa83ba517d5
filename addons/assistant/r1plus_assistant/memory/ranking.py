"""Rankings of what was said for a question, and how several become one."""

import math
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from r1plus_assistant.memory.index import View
from r1plus_assistant.memory.turns import Sentence, Speaker
from r1plus_assistant.memory.words import WordSplitter

SATURATION: Final = 1.2
LENGTH_WEIGHT: Final = 0.75
"""BM25's k1 and b, as most search engines have them."""
LEAST_SHARE: Final = 0.5
"""Of the question's words that a sentence needs which the user did not say: models say a lot, with any word in it."""
RANK_CONSTANT: Final = 5
"""Of reciprocal rank fusion (Cormack et al. 2009). They have 60, for long lists; here the first few places count."""


class Ranking(Protocol):
    """A further way to rank what the user states."""

    def rank(self, question: str, sentences: Sequence[Sentence]) -> list[int]:
        """Return indices of the sentences that have to do with the question, the best first."""


def rank_words(question: str, views: Sequence[View]) -> list[Sentence]:
    """Return the sentences with words of the question by BM25: what the user said before what others did."""
    words = set(WordSplitter().split(question))
    total = sum(view.end - view.begin for view in views)
    if not words or not total:
        return []
    mean = sum(view.index.count_characters(view.begin, view.end) for view in views) / total
    ranked = [
        hit
        for view, hits in zip(views, _find_hits(words, views, total), strict=True)
        for hit in _score_hits(view, hits, len(words), mean)
    ]
    return [sentence for *_, sentence in sorted(ranked, key=lambda hit: hit[:3])]


def fuse_rankings(rankings: Iterable[Sequence[int]], weights: Sequence[float] = ()) -> dict[int, float]:
    """Return the score of each index by reciprocal rank fusion: what several rankings have high is high.

    `weights`: of the rankings; 1 without.
    """
    scores: dict[int, float] = {}
    for number, ranking in enumerate(rankings):
        weight = weights[number] if weights else 1.0
        for rank, index in enumerate(ranking, 1):
            scores[index] = scores.get(index, 0.0) + weight / (RANK_CONSTANT + rank)
    return scores


_Hits = dict[int, list[tuple[float, int]]]
"""Place of a sentence -> rarity and count of each word of the question that it has."""


def _find_hits(words: Iterable[str], views: Sequence[View], total: int) -> list[_Hits]:
    """Return the hits in each view."""
    hits: list[_Hits] = [{} for _ in views]
    for word in sorted(words):
        found = [list(view.index.find_word(word, view.begin, view.end)) for view in views]
        count = sum(map(len, found))
        rarity = math.log(1 + (total - count + 0.5) / (count + 0.5))
        for own, places in zip(hits, found, strict=True):
            for place, times in places:
                own.setdefault(place, []).append((rarity, times))
    return hits


def _score_hits(view: View, hits: _Hits, words: int, mean: float) -> Iterable[tuple[bool, float, int, Sentence]]:
    """Yield the sort key of each sentence that has words enough, and the sentence."""
    for place, found in hits.items():
        sentence = view.index.sentences[place]
        is_user = sentence.speaker is Speaker.USER
        if is_user or len(found) >= LEAST_SHARE * words:
            length = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * len(sentence.text) / mean
            score = sum(rarity * times * (SATURATION + 1) / (times + SATURATION * length) for rarity, times in found)
            yield not is_user, -score, -sentence.position, sentence
