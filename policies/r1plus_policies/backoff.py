"""How long to wait after failures in a row."""

from __future__ import annotations

_MOST_DOUBLINGS = 30
"""More would overflow a float before the cap applies."""


def double_delay(failures: int, first: float, cap: float) -> float:
    """Return the seconds to wait: `first` after one failure, twice as much after each further one, at most `cap`."""
    return min(first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), cap)
