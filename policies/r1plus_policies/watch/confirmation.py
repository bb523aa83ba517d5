"""The confirming sweep: an alarm says that something changed, an exact count says how much.

The whole suite once, in random order, one probe at a time; an item that fails is asked again until two of three agree,
as at the gate's batch 1. Decided by the gate's own limits: items lost over all, items lost in a stratum. Faults that
come and go lose no item, so the first answers are held to the threshold, too, by their upper bound.

Pure; the monitor's `watching` asks, and stores the `Confirmation` so that a killed prober goes on where it stood.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from r1plus_contract.outcomes import ProbeResult
from r1plus_contract.verdict import Standing
from r1plus_policies.bounds import binomial_quantile, clopper_pearson
from r1plus_policies.gate.verdict import FAILS_TO_LOSE, SINGLE_ASKS, GateItem, allowed_in_stratum, allowed_lost

ALPHA: Final = 0.001
"""A bound on the first answers is missed by at most one sweep in a thousand."""
WINDOW: Final = 50
"""Newest probes over which errors are counted: a rate, since a server that errs rarely errs only in rows."""
_RIGHT, _WRONG, _ERROR = (r.value for r in (ProbeResult.CORRECT, ProbeResult.INCORRECT, ProbeResult.SERVER_ERROR))


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What has been counted so far."""

    seed: int
    """Decides the order."""
    answers: dict[str, str] = field(default_factory=dict)
    """Item -> its results in the order they came, a character each."""
    recent: str = ""
    """The newest results, WINDOW at most."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the count is held to."""

    threshold: float
    p0: float
    """How steady an item is: it sets how many errors in WINDOW probes end the sweep early."""
    errors_alarmed: bool = False
    """Whether the detector of server errors has alarmed."""


@dataclass(frozen=True, slots=True)
class Count:
    """A finished confirmation in figures."""

    items: int
    right: int
    lost: tuple[str, ...]
    """Wrong at least once among two failures: the engine's answers cannot be relied on."""
    unanswered: tuple[str, ...]
    """Failed twice without ever giving an answer."""
    whole: bool
    """False where errors ended it early."""
    first_upper: float
    """Upper bound of the share of first answers that are right."""


def next_item(items: Sequence[GateItem], confirmation: Confirmation, p0: float) -> str | None:
    """Which item to ask now; None when the count is finished."""
    if too_many_errors(confirmation, p0):
        return None
    order = sorted(item.id for item in items)
    random.Random(confirmation.seed).shuffle(order)  # noqa: S311 - an order, not a secret
    rows = [(len(confirmation.answers.get(i, "")), i) for i in order if not _settled(confirmation.answers.get(i, ""))]
    return min(rows, key=lambda row: row[0])[1] if rows else None


def answered(confirmation: Confirmation, item: str, result: ProbeResult) -> Confirmation:
    """The confirmation after one more probe."""
    return replace(
        confirmation,
        answers={**confirmation.answers, item: confirmation.answers.get(item, "") + result.value},
        recent=(confirmation.recent + result.value)[-WINDOW:],
    )


def too_many_errors(confirmation: Confirmation, p0: float) -> bool:
    """Whether the engine errs so often that asking on would only wait for time-outs: 6 of 50 at p0 = 0.98."""
    return confirmation.recent.count(_ERROR) > binomial_quantile(WINDOW, 1.0 - p0, 1.0 - ALPHA)


def count(items: Sequence[GateItem], confirmation: Confirmation, p0: float) -> Count:
    """Count a finished confirmation."""
    rows = {item.id: confirmation.answers.get(item.id, "") for item in items}
    settled = {item: row for item, row in rows.items() if _settled(row)}
    failed = {item: row for item, row in settled.items() if _failures(row) >= FAILS_TO_LOSE}
    first = [row[0] for row in rows.values() if row and row[0] != _ERROR]
    return Count(
        items=len(items),
        right=len(settled) - len(failed),
        lost=tuple(sorted(item for item, row in failed.items() if _WRONG in row)),
        unanswered=tuple(sorted(item for item, row in failed.items() if _WRONG not in row)),
        whole=next_item(items, confirmation, p0) is None and not too_many_errors(confirmation, p0),
        first_upper=clopper_pearson(first.count(_RIGHT), len(first), ALPHA).upper,
    )


def judge(items: Sequence[GateItem], found: Count, terms: Terms) -> Standing:
    """What the count says. A count that errors cut short can show that too much is lost, never that enough is right."""
    allowed = allowed_lost(found.items, terms.threshold)
    lost = by_stratum(items, found.lost)
    sizes = by_stratum(items, [item.id for item in items])
    broken = any(n > allowed_in_stratum(sizes[stratum], terms.threshold) for stratum, n in lost.items())
    if len(found.lost) > allowed or broken or found.first_upper < terms.threshold:
        return Standing.BELOW_THRESHOLD
    if terms.errors_alarmed or not found.whole or len(found.lost) + len(found.unanswered) > allowed:
        return Standing.ERRORS
    return Standing.CHANGED


def by_stratum(items: Sequence[GateItem], chosen: Sequence[str]) -> dict[str, int]:
    """How many of the chosen items each stratum has, the most first."""
    strata = {item.id: item.stratum for item in items}
    counts: dict[str, int] = {}
    for item in chosen:
        counts[strata[item]] = counts.get(strata[item], 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _failures(row: str) -> int:
    return len(row) - row.count(_RIGHT)


def _settled(row: str) -> bool:
    """One right answer at first, two failures, or the majority of three."""
    return row[:1] == _RIGHT or _failures(row) >= FAILS_TO_LOSE or len(row) >= SINGLE_ASKS
