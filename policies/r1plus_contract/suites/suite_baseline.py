"""The result of the reference on its suite: the part of `baseline.json` that decides anything.

The curator writes much more into it, for people. The operator compares this part with a threshold, and
`r1plus suite diff` compares two.
"""

from dataclasses import dataclass
from typing import Final

from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.suites.suite import SuiteError, SuiteHeader
from r1plus_contract.suites.suite_files import BASELINE_FILE

MOST_DIGITS: Final = 9
"""Of a count: no suite has room for a billion items."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of one engine under one condition."""

    engine: str
    condition: str
    items: int
    correct: int
    strata: dict[str, str]
    """`correct/items` of each stratum."""
    lost: tuple[str, ...]
    """Ids of the items that were not right; empty where nearly all candidates failed."""

    def count_lost_by_stratum(self) -> dict[str, tuple[int, int]]:
        """Return lost and all items of each stratum; SuiteError where the figures are invalid or contradict each
        other."""
        lost_counts = {}
        for name, text in self.strata.items():
            right, _, items = text.partition("/")
            # Python refuses to read an integer of thousands of digits, by a ValueError.
            are_counts = all(count.isdecimal() and len(count) <= MOST_DIGITS for count in (right, items))
            if not (are_counts and int(right) <= int(items)):
                raise SuiteError(f"{BASELINE_FILE}: {self.condition}: strata.{name}: {text!r:.40} is not CORRECT/ITEMS")
            lost_counts[name] = (int(items) - int(right), int(items))
        sums = tuple(sum(pair[part] for pair in lost_counts.values()) for part in (0, 1))
        if sums != (self.items - self.correct, self.items):
            raise SuiteError(
                f"{BASELINE_FILE}: {self.condition}: {self.correct} of {self.items} right, "
                f"but by stratum {sums[1] - sums[0]} of {sums[1]}"
            )
        return lost_counts


@dataclass(frozen=True, slots=True)
class BaselineFigures:
    """The measurements in `baseline.json`. Read tolerantly: the rest is for people."""

    suite: str
    """The suite's hash."""
    baseline: tuple[Measurement, ...] = ()
    """Of the reference engine, on repeats that took no part in the choice."""
    cross: tuple[Measurement, ...] = ()
    served: tuple[Measurement, ...] = ()


def read_figures(text: str) -> BaselineFigures:
    """Read the figures; SuiteError names the field."""
    try:
        return loads(BaselineFigures, text, tolerant=True)
    except ContractError as error:
        raise SuiteError(f"{BASELINE_FILE}: {error}") from error


def find_reference_result(text: str, header: SuiteHeader) -> Measurement | None:
    """Find the reference engine's own result under its worst condition; None where none is recorded.

    Raises SuiteError where the record is of another suite or contradicts itself.
    """
    figures = read_figures(text)
    if figures.suite != header.sha256:
        raise SuiteError(
            f"{BASELINE_FILE}: suite: measured on {figures.suite:.64}, this suite is {header.sha256}; measure again"
        )
    own = [one for one in figures.baseline if one.engine == header.reference_engine]
    for one in own:
        one.count_lost_by_stratum()
        if one.items != header.items:
            raise SuiteError(f"{BASELINE_FILE}: {one.condition}: {one.items} items, the suite has {header.items}")
    return min(own, key=lambda one: one.correct, default=None)
