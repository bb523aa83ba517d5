"""How many random examples a property test tries."""

from hypothesis import settings

DEFAULT = 100
"""What a test has that does not say how many, if all are tried."""


def count_examples(thorough: int) -> int:
    """Return a test's share of its examples: all of them in `make test-long NAME=unit-long`, fewer in `make test`."""
    return max(1, thorough * settings().max_examples // DEFAULT)
