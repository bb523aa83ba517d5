"""Wilson's score bound of a proportion (Wilson 1927)."""

from math import sqrt
from statistics import NormalDist


def compute_wilson_lower(successes: int, n: int, alpha: float) -> float:
    """Return the one-sided lower bound that the proportion exceeds with confidence 1 - alpha."""
    z = NormalDist().inv_cdf(1 - alpha)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n)
