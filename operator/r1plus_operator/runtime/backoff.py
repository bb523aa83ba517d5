"""Growing, jittered delays. Used by reflectors between attempts and by the client between retries."""

import random
from dataclasses import dataclass

_LARGEST_EXPONENT = 60


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling delays in seconds: `first`, twice that, … up to `cap`, each shortened at random by up to `jitter`.

    The jitter keeps a crowd that failed together from coming back together.
    """

    first: float
    cap: float
    jitter: float = 0.5

    def compute_delay(self, failures: int, rand: random.Random) -> float:
        """Return the delay in seconds after `failures` failures before this one (0 for the first)."""
        full_delay = min(self.cap, self.first * 2.0 ** min(failures, _LARGEST_EXPONENT))
        return full_delay * (1.0 - self.jitter * rand.random())
