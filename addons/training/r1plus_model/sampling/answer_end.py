"""Where an answer ends, and what of it is text: the same for every library that computes the tokens. Needs no torch."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from r1plus_contract.engine.llama_architecture import ModelError

MOST_NEW_TOKENS = 256
"""Tokens of an answer where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class StopRule:
    """An answer ends at one of these tokens, or before one of these texts."""

    end_ids: Collection[int]
    stop: Sequence[str]
    decode: Callable[[list[int]], str]

    def is_reached(self, ids: list[int]) -> bool:
        """Return whether tokens, at least one, are a whole answer."""
        return ids[-1] in self.end_ids or any(stop in self.decode(ids) for stop in self.stop)

    def cut(self, ids: list[int]) -> str:
        """Return the text of the answer."""
        return cut_at(self.decode([one for one in ids if one not in self.end_ids]), self.stop)


def cut_at(text: str, stop: Iterable[str]) -> str:
    """Return the text before the first of these."""
    for one in stop:
        text = text.partition(one)[0]
    return text


def check_length_and_stop(max_new_tokens: int, stop: Collection[str]) -> None:
    """Raise ModelError unless these can be asked for."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ModelError(f"max_new_tokens: {max_new_tokens!r:.40} is not a whole number from 1; give one")
    if isinstance(stop, str) or not all(isinstance(one, str) and one for one in stop):
        raise ModelError(f"stop: {stop!r:.40} is not a list of texts, each with a character; give such a list")
