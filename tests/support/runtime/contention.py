"""Who else waits, as a test wants it."""

from collections.abc import Hashable

from r1plus_operator.runtime.fairness import Contention


class Contended(Contention):
    """Somebody always waits for another group."""

    def is_alone(self, group: Hashable, now: float) -> bool:
        """Return False."""
        return False
