"""Packing: which turns stay verbatim, and which sentences of the others are quoted, within a budget of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from r1plus_assistant.memory.cards import Card, rank_cards
from r1plus_assistant.memory.cues import find_asked_kinds, is_question
from r1plus_assistant.memory.index import View, find_corrected, index_remembered, index_turns, view_index
from r1plus_assistant.memory.quotation import (
    HEAD,
    Quotation,
    quote_sentences,
    render_best,
    render_quotations,
)
from r1plus_assistant.memory.ranking import Ranking, fuse_rankings, rank_words
from r1plus_assistant.memory.turns import REMEMBERED, Sentence, Turn

MOST_VERBATIM: Final = 5
VERBATIM_SHARE: Final = 0.125
"""Of the budget; what quotations leave of the rest goes to turns as well."""
LINE_TOKENS: Final = 2
"""About: of a line of quotations, besides its text."""
JOIN_TOKENS: Final = 2
"""About: between two sentences of a line."""
FURTHER_WEIGHT: Final = 2.0
"""Of a further ranking, such as vectors, where words and cards weigh 1 each."""
MOST_RANKED: Final = 8
"""Sentences that are quoted where a further ranking finds the right ones: small models lose a fact among more."""
FILLINGS: Final = 2
"""Times that sentences are added: by an estimate of their tokens, and what it leaves by another one."""


class TokenCounter(Protocol):
    """Counts the tokens of a text, or estimates them."""

    def count(self, text: str) -> int:
        """Return the tokens of a text."""


@dataclass(frozen=True, slots=True)
class PromptMemory:
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
    best: str
    """The sentence that answers the question best, quoted for a place beside it; empty where that is not known."""
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
    rankings: Sequence[Ranking] = (),
    remembered: Sequence[str] = (),
) -> PromptMemory:
    """Return what enters the prompt of a question, within a budget of tokens.

    `remembered`: what the user said in other conversations, the oldest first.
    """
    said, known = index_turns(turns), index_remembered(remembered)
    return pack_views(view_index(said), view_index(known), question, budget, counter, rankings)


def pack_views(
    said: View, known: View, question: str, budget: int, counter: TokenCounter, rankings: Sequence[Ranking] = ()
) -> PromptMemory:
    """Return what enters the prompt of a question: of what was said, and of what is known from other conversations."""
    newest = said.list_newest(MOST_VERBATIM)
    verbatim = _count_verbatim(newest, int(VERBATIM_SHARE * budget), counter)
    tokens = sum(_count_turn(turn, counter) for turn in newest[len(newest) - verbatim :])
    best = ""
    if rankings and _asks(question):
        best = _quote_best(_rank_all(known, said, question, rankings).sentences, budget - tokens, counter)
        tokens += counter.count(best)
    first = [] if verbatim else _pick_end(said, int(VERBATIM_SHARE * budget), counter)
    ranked = _rank_all(known, said.until_turn(said.turn_count - verbatim), question, rankings)
    candidates = [*first, *(ranked.sentences[:MOST_RANKED] if rankings else ranked.sentences)]
    picked, quoted = _pick_sentences(candidates, budget - tokens, counter)
    tokens += quoted
    while verbatim < len(newest):
        if tokens + (cost := _count_turn(newest[len(newest) - verbatim - 1], counter)) > budget:
            break
        verbatim, tokens = verbatim + 1, tokens + cost
    # A turn that became verbatim is not quoted as well; what that saves is not spent again.
    sentences = [one for one in picked if one.turn <= said.turn_count - verbatim]
    cards = sum(one.position in ranked.cards for one in sentences)
    return PromptMemory(
        verbatim=newest[len(newest) - verbatim :],
        quotations=quote_sentences(sentences),
        cards=cards,
        retrieved=len(sentences) - cards,
        remembered=sum(one.turn == REMEMBERED for one in sentences),
        best=best,
        budget=budget,
        tokens=tokens,
    )


@dataclass(frozen=True, slots=True)
class _Ranked:
    sentences: Sequence[Sentence]
    """The best first."""
    cards: frozenset[int]
    """Positions of the cards among all sentences."""


def _count_verbatim(newest: Sequence[Turn], budget: int, counter: TokenCounter) -> int:
    """Return how many of the newest turns fit into this budget."""
    tokens = 0
    for count, turn in enumerate(reversed(newest)):
        tokens += _count_turn(turn, counter)
        if tokens > budget:
            return count
    return len(newest)


def _count_turn(turn: Turn, counter: TokenCounter) -> int:
    return sum(counter.count(one.text) for one in turn.utterances)


def _pick_end(said: View, budget: int, counter: TokenCounter) -> list[Sentence]:
    """Return the last sentence of all if it asks something and fits: what the user says now may be the answer."""
    last = said.index.sentences[said.end - 1 : said.end]
    return [one for one in last if is_question(one.text) and counter.count(one.text) + LINE_TOKENS <= budget]


def _asks(question: str) -> bool:
    """Return whether a text asks for something that may have been said; a wish for a poem does not."""
    return is_question(question.rstrip()) or bool(find_asked_kinds(question))


def _quote_best(ranked: Sequence[Sentence], budget: int, counter: TokenCounter) -> str:
    """Return the best sentence as a quotation; empty where there is none, or it does not fit."""
    best = render_best(ranked[0]) if ranked else ""
    return best if counter.count(best) <= budget else ""


def _rank_all(known: View, said: View, question: str, rankings: Sequence[Ranking]) -> _Ranked:
    """Return what is known and what was said, less what was corrected, by what it says to the question."""
    corrected = find_corrected(known, said)
    cards = [card for card in known.list_cards() if card.sentence.position not in corrected] + said.list_cards()
    by_words = [
        one
        for one in rank_words(question, [known, said])
        if not said.is_superseded(one) and not known.is_superseded(one) and one.position not in corrected
    ]
    facts = frozenset(card.sentence.position for card in cards if card.is_fact)
    return _Ranked(_rank(cards, by_words, question, rankings), facts)


def _pick_sentences(ranked: Sequence[Sentence], budget: int, counter: TokenCounter) -> tuple[Sequence[Sentence], int]:
    """Return the first sentences that fit, in the order of the conversation, and the tokens of their block."""
    picked: list[Sentence] = []
    tokens = counter.count(HEAD)
    for _ in range(FILLINGS):
        picked = _fill(picked, ranked, budget - tokens, counter)
        while picked and (tokens := _count_block(picked, counter)) > budget:
            picked = picked[:-1]
    return _order(picked), tokens if picked else 0


def _rank(
    cards: Sequence[Card], by_words: Sequence[Sentence], question: str, rankings: Sequence[Ranking]
) -> list[Sentence]:
    """Return sentences, the best first."""
    stated, facts = [card.sentence for card in cards], [card for card in cards if card.is_fact]
    sentences = {one.position: one for one in (*stated, *by_words)}
    scores = fuse_rankings(
        [
            [one.position for one in by_words],
            [facts[index].sentence.position for index in rank_cards(facts, question)],
            *([stated[index].position for index in one.rank(question, stated)] for one in rankings),
        ],
        [1.0, 1.0, *(FURTHER_WEIGHT for _ in rankings)],
    )
    return [sentences[position] for position in sorted(scores, key=lambda one: (-scores[one], -one))]


def _fill(picked: Sequence[Sentence], ranked: Sequence[Sentence], tokens: int, counter: TokenCounter) -> list[Sentence]:
    """Return what is picked, and those of the others that fit into so many tokens more, by an estimate."""
    result = list(picked)
    lines = {(one.turn, one.speaker) for one in picked}
    taken = {one.position for one in picked}
    for sentence in ranked:
        if sentence.position in taken:
            continue
        cost = counter.count(sentence.text)
        cost += JOIN_TOKENS if (sentence.turn, sentence.speaker) in lines else LINE_TOKENS
        if cost <= tokens:
            tokens -= cost
            result.append(sentence)
            taken.add(sentence.position)
            lines.add((sentence.turn, sentence.speaker))
    return result


def _order(sentences: Sequence[Sentence]) -> list[Sentence]:
    return sorted(sentences, key=lambda one: one.position)


def _count_block(sentences: Sequence[Sentence], counter: TokenCounter) -> int:
    return counter.count(render_quotations(quote_sentences(_order(sentences))))
