"""A token bucket: it bounds how often keys of one group are reconciled, and how many outcomes of a pod count."""

import time
from collections.abc import Callable


class TokenBucket:
    """`rate` tokens per second on average, `burst` at once."""

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"rate: {rate}, burst: {burst}; rate must be above 0 and burst at least 1")
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock()

    def reserve(self) -> float:
        """Take a token now and return how many seconds to wait before using it."""
        self._refill()
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)

    def count(self) -> int:
        """Return how many tokens there are."""
        self._refill()
        return max(0, int(self._tokens))

    def take(self, count: int) -> int:
        """Take up to `count` tokens and return how many there were; those may be used at once."""
        taken = min(count, self.count())
        self._tokens -= taken
        return taken

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(float(self._burst), self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
