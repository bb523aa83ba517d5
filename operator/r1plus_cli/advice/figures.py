"""What is known of an engine on a suite, and what follows from it: accuracy, interval, cost."""

from collections.abc import Iterable
from dataclasses import dataclass

from r1plus_contract.verdict import GateReport, StratumFigures, Verdict
from r1plus_policies.bounds import Interval, clopper_pearson
from r1plus_policies.gate.verdict import max_lost_in_stratum, max_lost_items, rejudge
from r1plus_policies.watch.confirmation import ALPHA

BUSY_SHARE = 0.8
"""Of the threads that an engine may use: with less, other work had them, and it would have been faster alone."""
THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an engine answers a suite's prompts through the gateway, and what its processes take meanwhile."""

    tokens_per_second: float
    """Of all requests together, at the batch that it serves at."""
    answers_per_second: float
    first_token_seconds: float
    """Median, one request at a time."""
    processor_seconds_per_answer: float
    """Of all its processes, at that batch."""
    processor_share: float
    """Used, of the processor time that the engine's threads could have had."""
    memory_bytes: int
    """Of all its processes, what they share counted once."""

    @property
    def is_slowed(self) -> bool:
        """Whether other work on this machine made it slower."""
        return self.processor_share < BUSY_SHARE

    @property
    def seconds_per_answer(self) -> float:
        """Seconds of the machine that an answer takes; where other work slowed it, those that its own work took."""
        return (self.processor_share if self.is_slowed else 1.0) / self.answers_per_second


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """One engine on one suite."""

    engine: str
    tier: str
    source: str
    """`this machine`, or the deployment of a cluster that was measured."""
    report: GateReport
    batch: int
    context: int = 0
    """Most tokens of prompt and answer; 0: not known."""
    reserved_bytes: int = 0
    """What the plan reserves for it; 0: not known."""
    speed: Speed | None = None
    measured_at: str = ""
    """RFC 3339."""

    @property
    def correct(self) -> int:
        """Items that it did not lose."""
        return self.report.items - self.report.lost

    @property
    def accuracy(self) -> float:
        """Share of items that it did not lose."""
        return self.correct / self.report.items

    @property
    def interval(self) -> Interval:
        """Return the interval of the accuracy, by the monitor's function and level."""
        return clopper_pearson(self.correct, self.report.items, ALPHA)

    def meets(self, threshold: float) -> bool:
        """Whether the gate would pass it at this threshold."""
        return rejudge(self.report, threshold) is Verdict.PASS

    def list_lost_strata(self, threshold: float) -> tuple[StratumFigures, ...]:
        """Return the strata that lost more than this threshold allows."""
        return tuple(one for one in self.report.strata if one.lost > max_lost_in_stratum(one.items, threshold))

    def compute_cost(self, price: float) -> float | None:
        """Return the cost of a thousand answers on a machine of this price per hour; None: its speed is not known."""
        return None if self.speed is None else price / 3600 * THOUSAND * self.speed.seconds_per_answer


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An engine that was not measured, and why."""

    engine: str
    tier: str
    why: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The cheapest engine that meets the threshold, and the one of the next tier. None: there is none."""

    cheapest: EngineFigures | None
    next: EngineFigures | None
    text: str


TIERS = ("edge", "lite", "full")
"""From the smallest."""


def recommend(figures: Iterable[EngineFigures], threshold: float, price: float | None) -> Recommendation:
    """Return the cheapest tier that meets the threshold, and what the next one would add.

    All run on one machine, so what answers in less time is cheaper. Engines without a speed are not compared by cost.
    """
    measured = sorted(figures, key=_rank)
    passing = [one for one in measured if one.meets(threshold)]
    if not passing:
        return Recommendation(None, None, _explain_none(measured, threshold))
    cheapest = passing[0]
    larger = [one for one in measured if _tier(one) > _tier(cheapest)]
    following = min(larger, key=lambda one: (_tier(one), -one.accuracy, _rank(one)), default=None)
    text = (
        f"The cheapest that meets {threshold:g} is {cheapest.engine} (tier {cheapest.tier}):"
        f" {_describe_accuracy(cheapest)}{_describe_cost(cheapest, price)}."
    )
    return Recommendation(cheapest, following, f"{text}\n{_compare(cheapest, following)}")


def _rank(one: EngineFigures) -> tuple[float, int, str]:
    seconds = one.speed.seconds_per_answer if one.speed is not None else float("inf")
    return seconds, one.reserved_bytes, one.engine


def _tier(one: EngineFigures) -> int:
    return TIERS.index(one.tier) if one.tier in TIERS else -1


def _describe_accuracy(one: EngineFigures) -> str:
    return f"{one.correct} of {one.report.items} right"


def _describe_cost(one: EngineFigures, price: float | None) -> str:
    cost = one.compute_cost(price) if price is not None else None
    return "" if cost is None else f", {cost:.3g} EUR for 1,000 answers"


def _explain_none(measured: list[EngineFigures], threshold: float) -> str:
    if not measured:
        return "No engine was measured on this suite."
    best = max(measured, key=lambda one: one.accuracy)
    text = f"No engine meets {threshold:g}. The best, {best.engine}, has {_describe_accuracy(best)}"
    allowed = max_lost_items(best.report.items, threshold)
    if best.report.lost > allowed:
        return (
            f"{text}: it lost {best.report.lost}, {allowed} are allowed. Bring a better engine, or lower the threshold."
        )
    if lost := best.list_lost_strata(threshold):
        names = ", ".join(f"{one.name} {one.lost} of {one.items}" for one in lost)
        return f"{text}, but lost too much of one stratum ({names}). Bring a better engine, or lower the threshold."
    return f"{text}, but its gate decided {best.report.verdict.value}: {best.report.message}."


def _compare(cheapest: EngineFigures, following: EngineFigures | None) -> str:
    if following is None:
        return "No engine of a larger tier was measured."
    gain = round(following.accuracy * cheapest.report.items) - cheapest.correct
    items = f"{gain:+d} of {cheapest.report.items} items" if gain else "no item"
    changes = [f"{following.tier} ({following.engine}) would add {items}"]
    if cheapest.speed is not None and following.speed is not None:
        changes += [
            f"cost × {following.speed.seconds_per_answer / cheapest.speed.seconds_per_answer:.2f}",
            f"first token × {following.speed.first_token_seconds / cheapest.speed.first_token_seconds:.2f}",
            f"memory × {following.speed.memory_bytes / cheapest.speed.memory_bytes:.2f}",
        ]
    return f"The next tier, {', '.join(changes)}."
