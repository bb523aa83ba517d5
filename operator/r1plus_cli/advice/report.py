"""The advice as a document and as a table."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from r1plus_cli.advice.figures import EngineFigures, Exclusion, Recommendation, Speed
from r1plus_cli.options import print_table
from r1plus_contract.plain_text import to_printable
from r1plus_contract.suites.suite import Suite
from r1plus_policies.engine.memory_fit import MIB

HEADS = ("ENGINE", "TIER", "WHERE", "RIGHT", "INTERVAL", "MEETS", "LOST STRATA", "TOKENS/S", "FIRST TOKEN", "MEMORY")
COST_HEAD = "EUR/1000"


@dataclass(frozen=True, slots=True)
class Advice:
    """All that `r1plus advise` says."""

    suite: Suite
    threshold: float
    price: float | None
    """Euros per hour of the machine."""
    machine: str
    figures: tuple[EngineFigures, ...]
    exclusions: tuple[Exclusion, ...]
    recommendation: Recommendation

    def to_document(self) -> dict[str, Any]:
        """Return the document for `-o json`."""
        cheapest, following = self.recommendation.cheapest, self.recommendation.next
        return {
            "suite": self.suite.header.name,
            "suiteSha256": self.suite.header.sha256,
            "items": len(self.suite.items),
            "threshold": self.threshold,
            "pricePerHour": self.price,
            "machine": self.machine,
            "engines": [self._describe(one) for one in self.figures],
            "notMeasured": [{"engine": one.engine, "tier": one.tier, "why": one.why} for one in self.exclusions],
            "cheapest": cheapest.engine if cheapest else None,
            "next": following.engine if following else None,
            "text": self.recommendation.text,
        }

    def _describe(self, one: EngineFigures) -> dict[str, Any]:
        interval = one.interval
        return {
            "engine": one.engine,
            "tier": one.tier,
            "where": one.source,
            "correct": one.correct,
            "items": one.report.items,
            "accuracy": round(one.accuracy, 4),
            "lower": round(interval.lower, 4),
            "upper": round(interval.upper, 4),
            "meetsThreshold": one.meets(self.threshold),
            "strata": {stratum.name: {"lost": stratum.lost, "items": stratum.items} for stratum in one.report.strata},
            "lostStrata": [stratum.name for stratum in one.list_lost_strata(self.threshold)],
            "batch": one.batch,
            "context": one.context,
            "reservedMiB": _to_mib(one.reserved_bytes),
            "speed": _describe_speed(one.speed),
            "costPerThousand": _round(one.compute_cost(self.price)) if self.price is not None else None,
            "measuredAt": one.measured_at,
        }


def _describe_speed(speed: Speed | None) -> dict[str, Any] | None:
    if speed is None:
        return None
    return {
        "tokensPerSecond": _round(speed.tokens_per_second),
        "answersPerSecond": _round(speed.answers_per_second),
        "firstTokenSeconds": _round(speed.first_token_seconds),
        "processorSecondsPerAnswer": _round(speed.processor_seconds_per_answer),
        "processorShare": _round(speed.processor_share),
        "memoryMiB": _to_mib(speed.memory_bytes),
    }


def show_advice(advice: Advice) -> None:
    """Print the table, what was not measured, and the recommendation."""
    price = "" if advice.price is None else f", {advice.price:g} EUR per hour"
    header = advice.suite.header
    _write(f"{header.name}: {len(advice.suite.items)} items, threshold {advice.threshold:g}, {advice.machine}{price}")
    if advice.figures:
        heads = HEADS if advice.price is None else (*HEADS, COST_HEAD)
        _write("")
        print_table(heads, (list(_list_cells(one, advice)) for one in advice.figures))
    if slowed := [one.engine for one in advice.figures if one.speed is not None and one.speed.is_slowed]:
        _write("")
        _write(
            f"Other work kept this machine busy: alone, {', '.join(slowed)} would be faster. Costs are without that."
        )
    if advice.exclusions:
        _write("\nNot measured:")
        for why, names in _group(advice.exclusions):
            _write(f"  {', '.join(names)}: {why}")
    _write(f"\n{advice.recommendation.text}")


def _list_cells(one: EngineFigures, advice: Advice) -> Iterator[str]:
    lost = [f"{stratum.name} {stratum.lost}/{stratum.items}" for stratum in one.list_lost_strata(advice.threshold)]
    yield from (one.engine, one.tier or "-", one.source, f"{one.correct}/{one.report.items}")
    yield f"{one.interval.lower:.3f}-{one.interval.upper:.3f}"
    yield "yes" if one.meets(advice.threshold) else "no"
    yield ", ".join(lost) or "-"
    speed = one.speed
    yield "-" if speed is None else f"{speed.tokens_per_second:.1f}"
    yield "-" if speed is None else f"{1000 * speed.first_token_seconds:.0f} ms"
    yield "-" if speed is None else f"{_to_mib(speed.memory_bytes)} MiB"
    if advice.price is not None:
        cost = one.compute_cost(advice.price)
        yield "-" if cost is None else f"{cost:.3g}"


def _group(exclusions: Sequence[Exclusion]) -> Iterator[tuple[str, list[str]]]:
    """Yield each reason once, with its engines."""
    reasons: dict[str, list[str]] = {}
    for one in exclusions:
        reasons.setdefault(one.why, []).append(one.engine)
    yield from reasons.items()


def _to_mib(size: int) -> int:
    return round(size / MIB)


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _write(text: str) -> None:
    sys.stdout.write("\n".join(to_printable(line) for line in text.split("\n")) + "\n")
