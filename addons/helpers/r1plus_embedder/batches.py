"""Which texts are computed together: those of like length, so that little is computed of what fills up short ones."""

from collections.abc import Sequence
from typing import Final

MOST_BATCH_TOKENS: Final = 2048
"""Tokens of one computation, filled up ones included: what its activations need is bounded by it."""


def group_by_length(lengths: Sequence[int], most_tokens: int = MOST_BATCH_TOKENS) -> list[list[int]]:
    """Return groups of positions, each with at most so many tokens if all were as long as its longest."""
    groups: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda one: (lengths[one], one)):
        if groups and lengths[position] * (len(groups[-1]) + 1) <= most_tokens:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups
