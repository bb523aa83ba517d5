"""The confirming sweep: an alarm shows that something changed, an exact count shows how much.

The whole suite once, in random order, one probe at a time; an item that fails is asked again until two of three
agree,
as at the gate's batch 1. The gate's own limits decide: items lost in total, items lost in a stratum. Intermittent
faults lose no item, so the upper bound of the first answers is compared with the threshold, too.

Pure; the monitor's `session.watch` asks, and stores the `Confirmation`, so that a killed prober continues it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from r1plus_contract.monitor.outcomes import ProbeResult
from r1plus_contract.verdict import WatchStanding
from r1plus_policies.bounds import binomial_quantile, clopper_pearson
from r1plus_policies.gate.verdict import FAILS_TO_LOSE, SINGLE_ASKS, GateItem, max_lost_in_stratum, max_lost_items

ALPHA: Final = 0.001
"""A bound on the first answers is wrong in at most one sweep of a thousand."""
WINDOW: Final = 50
"""Newest probes over which errors are counted: a rate, since errors rarely come in a row."""
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
class ConfirmationLimits:
    """The limits of the count."""

    threshold: float
    p0: float
    """How steady an item is: it sets how many errors in WINDOW probes end the sweep early."""
    errors_alarmed: bool = False
    """Whether the detector of server errors has alarmed."""


@dataclass(frozen=True, slots=True)
class AnswerCount:
    """A finished confirmation in figures."""

    items: int
    right: int
    lost_items: tuple[str, ...]
    """Wrong at least once among two failures: the engine's answers are not reliable."""
    unanswered_items: tuple[str, ...]
    """Failed twice without any answer."""
    whole: bool
    """False where errors ended it early."""
    first_upper: float
    """Upper bound of the share of first answers that are right."""


def next_item(items: Sequence[GateItem], confirmation: Confirmation, p0: float) -> str | None:
    """Return the item to ask now; None when the count is finished."""
    if has_too_many_errors(confirmation, p0):
        return None
    order = sorted(item.id for item in items)
    random.Random(confirmation.seed).shuffle(order)  # noqa: S311 - an order, not a secret
    rows = [
        (len(confirmation.answers.get(i, "")), i) for i in order if not _is_settled(confirmation.answers.get(i, ""))
    ]
    return min(rows, key=lambda row: row[0])[1] if rows else None


def record_answer(confirmation: Confirmation, item: str, result: ProbeResult) -> Confirmation:
    """Return the confirmation after one more probe."""
    return replace(
        confirmation,
        answers={**confirmation.answers, item: confirmation.answers.get(item, "") + result.value},
        recent=(confirmation.recent + result.value)[-WINDOW:],
    )


def has_too_many_errors(confirmation: Confirmation, p0: float) -> bool:
    """Return whether the engine errs so often that more probes would only time out: 6 of 50 at p0 = 0.98."""
    return confirmation.recent.count(_ERROR) > binomial_quantile(WINDOW, 1.0 - p0, 1.0 - ALPHA)


def count_answers(items: Sequence[GateItem], confirmation: Confirmation, p0: float) -> AnswerCount:
    """Count a finished confirmation."""
    rows = {item.id: confirmation.answers.get(item.id, "") for item in items}
    settled_rows = {item: row for item, row in rows.items() if _is_settled(row)}
    failed_rows = {item: row for item, row in settled_rows.items() if _count_failures(row) >= FAILS_TO_LOSE}
    first_answers = [row[0] for row in rows.values() if row and row[0] != _ERROR]
    return AnswerCount(
        items=len(items),
        right=len(settled_rows) - len(failed_rows),
        lost_items=tuple(sorted(item for item, row in failed_rows.items() if _WRONG in row)),
        unanswered_items=tuple(sorted(item for item, row in failed_rows.items() if _WRONG not in row)),
        whole=next_item(items, confirmation, p0) is None and not has_too_many_errors(confirmation, p0),
        first_upper=clopper_pearson(first_answers.count(_RIGHT), len(first_answers), ALPHA).upper,
    )


def judge_count(items: Sequence[GateItem], answer_count: AnswerCount, limits: ConfirmationLimits) -> WatchStanding:
    """Judge the count. One that errors cut short can show a drop, never that enough is right."""
    limit = max_lost_items(answer_count.items, limits.threshold)
    lost_counts = count_by_stratum(items, answer_count.lost_items)
    sizes = count_by_stratum(items, [item.id for item in items])
    is_stratum_broken = any(
        n > max_lost_in_stratum(sizes[stratum], limits.threshold) for stratum, n in lost_counts.items()
    )
    if len(answer_count.lost_items) > limit or is_stratum_broken or answer_count.first_upper < limits.threshold:
        return WatchStanding.BELOW_THRESHOLD
    if (
        limits.errors_alarmed
        or not answer_count.whole
        or len(answer_count.lost_items) + len(answer_count.unanswered_items) > limit
    ):
        return WatchStanding.ERRORS
    return WatchStanding.CHANGED


def count_by_stratum(items: Sequence[GateItem], item_ids: Sequence[str]) -> dict[str, int]:
    """Count items by stratum, the most first."""
    strata = {item.id: item.stratum for item in items}
    counts: dict[str, int] = {}
    for item in item_ids:
        counts[strata[item]] = counts.get(strata[item], 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _count_failures(row: str) -> int:
    return len(row) - row.count(_RIGHT)


def _is_settled(row: str) -> bool:
    """Return whether an item is decided: one right answer at first, two failures, or the majority of three."""
    return row[:1] == _RIGHT or _count_failures(row) >= FAILS_TO_LOSE or len(row) >= SINGLE_ASKS
