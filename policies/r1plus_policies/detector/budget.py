"""The false-alarm budget of a deployment: how often its accuracy alarm may fire while nothing has changed.

Every pod has a detector, the revision has a pooled one. An alarm at A comes no sooner than after A probes on average.
So a detector that observes `rate` probes a minute fires at most rate / A times a minute. The sum over all detectors
must stay within one alarm per budget, and each gets the same share. It is computed for the most replicas that the
deployment may have: fewer only make it quieter. The detectors of server errors feed another alert and have the same
budget again.
"""

from dataclasses import dataclass
from typing import Final

MINUTES_PER_DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Budget:
    """One false alarm in `days`, for up to `most_pods` pods that are each asked `probes_per_minute`."""

    probes_per_minute: int
    most_pods: int
    days: int

    def __post_init__(self) -> None:
        """Reject invalid values."""
        for name in ("probes_per_minute", "most_pods", "days"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}: {value} must be 1 or more")

    @property
    def pod(self) -> float:
        """A of a pod's detector: 2.33e6 at 6 probes a minute, 8 pods, 30 days."""
        return float(self.probes_per_minute * MINUTES_PER_DAY * self.days * (self.most_pods + 1))

    @property
    def pool(self) -> float:
        """A of the pooled detector, which observes the probes of all pods."""
        return self.pod * self.most_pods
