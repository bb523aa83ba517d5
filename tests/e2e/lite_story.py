"""What happens to `lite` while other tests run: it becomes Ready, its prober hangs, and then one of two pods of it goes bad."""

from concurrent.futures import Future

from e2e.background import run_in_background
from e2e.prober_outage import ProberOutage, prober_outage
from e2e.quarantine import quarantine_one_of_two
from e2e.story import Name
from e2e.target import Target
from e2e.tiers import FirstDay, first_day


class LiteStory:
    """A future for each step."""

    def __init__(self, lite: Name, target: Target) -> None:
        self.first_day: Future[FirstDay]
        self.hanging: Future[ProberOutage]
        self.quarantined: Future[None]
        self.first_day, self.hanging, self.quarantined = run_in_background(
            lambda: first_day(target, lite),
            lambda: prober_outage(target, lite, "SIGSTOP"),
            lambda: quarantine_one_of_two(target.kube, lite),
        )
