"""Packing: which turns stay verbatim, and which sentences of the others are quoted, within a budget of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from r1plus_gateway.memory.cards import find_superseded, make_cards, rank_cards
from r1plus_gateway.memory.quotation import HEAD, Quotation, quote_sentences, render_quotations
from r1plus_gateway.memory.ranking import Ranking, WordRanking, fuse_rankings
from r1plus_gateway.memory.turns import REMEMBERED, Sentence, Speaker, Turn, Utterance, list_sentences

MOST_VERBATIM: Final = 5
VERBATIM_SHARE: Final = 0.25
"""Of the budget; what quotations leave of the rest goes to turns as well."""
LINE_TOKENS: Final = 4
"""About: of a line of quotations, besides its text and number."""
JOIN_TOKENS: Final = 2
"""About: between two sentences of a line."""
FILLINGS: Final = 2
"""Times that sentences are added: by an estimate of their tokens, and what it leaves by another one."""


class TokenCounter(Protocol):
    """Counts the tokens of a text, or estimates them."""

    def count(self, text: str) -> int:
        """Return the tokens of a text."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What enters a prompt of the turns before."""

    verbatim: Sequence[Turn]
    """The newest turns, the oldest first."""
    quotations: Sequence[Quotation]
    """Of the turns before those, in their order."""
    cards: int
    """Sentences in the quotations that state a fact of the user."""
    retrieved: int
    """The other ones, which have words of the question."""
    remembered: int
    """Of both, those that were said in other conversations."""
    budget: int
    tokens: int
    """Of it all, as counted; at most the budget."""

    @property
    def block(self) -> str:
        """The quotations as a text; empty without any."""
        return render_quotations(self.quotations)


def pack_memory(
    turns: Sequence[Turn],
    question: str,
    budget: int,
    counter: TokenCounter,
    rankings: Sequence[Ranking] = (WordRanking(),),
    remembered: Sequence[str] = (),
) -> Memory:
    """Return what enters the prompt of a question, within a budget of tokens.

    `remembered`: what the user said in other conversations, the oldest first.
    """
    verbatim = _count_verbatim(turns, int(VERBATIM_SHARE * budget), counter)
    tokens = sum(_count_turn(turn, counter) for turn in turns[len(turns) - verbatim :])
    known = Turn(REMEMBERED, [Utterance(Speaker.USER, text) for text in remembered])
    earlier = [known, *turns[: len(turns) - verbatim]]
    picked = _pick_sentences(earlier, question, budget - tokens, counter, rankings)
    tokens += picked.tokens
    while verbatim < min(MOST_VERBATIM, len(turns)):
        turn = turns[len(turns) - verbatim - 1]
        if tokens + (cost := _count_turn(turn, counter)) > budget:
            break
        verbatim, tokens = verbatim + 1, tokens + cost
    begin = len(turns) - verbatim
    # A turn that became verbatim is not quoted as well; what that saves is not spent again.
    sentences = [one for one in picked.sentences if one.turn <= begin]
    cards = sum(one.position in picked.cards for one in sentences)
    return Memory(
        verbatim=turns[begin:],
        quotations=quote_sentences(sentences),
        cards=cards,
        retrieved=len(sentences) - cards,
        remembered=sum(one.turn == REMEMBERED for one in sentences),
        budget=budget,
        tokens=tokens,
    )


@dataclass(frozen=True, slots=True)
class _Picked:
    sentences: Sequence[Sentence]
    """In their order."""
    cards: frozenset[int]
    """Positions of the cards among all sentences."""
    tokens: int


def _count_verbatim(turns: Sequence[Turn], budget: int, counter: TokenCounter) -> int:
    """Return how many of the newest turns fit into this budget, at most `MOST_VERBATIM`."""
    tokens = 0
    for count, turn in enumerate(reversed(turns[-MOST_VERBATIM:])):
        tokens += _count_turn(turn, counter)
        if tokens > budget:
            return count
    return min(MOST_VERBATIM, len(turns))


def _count_turn(turn: Turn, counter: TokenCounter) -> int:
    return sum(counter.count(one.text) for one in turn.utterances)


def _pick_sentences(
    turns: Sequence[Turn], question: str, budget: int, counter: TokenCounter, rankings: Sequence[Ranking]
) -> _Picked:
    """Return the best sentences that fit, with their quotation."""
    sentences = list_sentences(turns)
    cards = make_cards(sentences)
    positions = frozenset(card.sentence.position for card in cards)
    superseded = find_superseded(cards)
    ranked_cards = [cards[index].sentence.position for index in rank_cards(cards, question)]
    ranked = [
        sentences[position]
        for position in _rank(sentences, question, rankings, ranked_cards)
        if position not in superseded
    ]
    picked: list[Sentence] = []
    tokens = counter.count(HEAD)
    for _ in range(FILLINGS):
        picked = _fill(picked, ranked, budget - tokens, counter)
        while picked and (tokens := _count_block(picked, counter)) > budget:
            picked = picked[:-1]
    return _Picked(_order(picked), positions, tokens if picked else 0)


def _fill(picked: Sequence[Sentence], ranked: Sequence[Sentence], tokens: int, counter: TokenCounter) -> list[Sentence]:
    """Return what is picked, and those of the others that fit into so many tokens more, by an estimate."""
    result = list(picked)
    lines = {(one.turn, one.speaker) for one in picked}
    taken = {one.position for one in picked}
    for sentence in ranked:
        if sentence.position in taken:
            continue
        cost = counter.count(sentence.text)
        cost += JOIN_TOKENS if (sentence.turn, sentence.speaker) in lines else LINE_TOKENS + len(str(sentence.turn))
        if cost <= tokens:
            tokens -= cost
            result.append(sentence)
            lines.add((sentence.turn, sentence.speaker))
    return result


def _order(sentences: Sequence[Sentence]) -> list[Sentence]:
    return sorted(sentences, key=lambda one: one.position)


def _count_block(sentences: Sequence[Sentence], counter: TokenCounter) -> int:
    return counter.count(render_quotations(quote_sentences(_order(sentences))))


def _rank(sentences: Sequence[Sentence], question: str, rankings: Sequence[Ranking], cards: Sequence[int]) -> list[int]:
    """Return positions of sentences, the best first."""
    scores = fuse_rankings([*(ranking.rank(question, sentences) for ranking in rankings), cards])
    return sorted(scores, key=lambda index: (-scores[index], -index))
