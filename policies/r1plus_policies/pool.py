"""The pooled detector of a revision: folds the outcomes of its pods' monitors, each outcome once.

Kept by the operator's leader from the pages that `GET /outcomes?since=` returns (`since` in here says from where), and
checkpointed as JSON. A page may come twice, late or in pieces, and a monitor may lose its state: `fold` counts every
outcome that it gets to see exactly once, in each pod's own order, and never one that it has seen.

Beside the pool of all pods it keeps the pool without each one of them: evidence cannot be taken apart afterwards, and
whether a revision is bad is asked of the pool without its worst pod. These share the pool's threshold; they decide
what follows an alarm and raise none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from r1plus_contract.outcomes import OutcomePage, ProbeOutcome, ProbeResult
from r1plus_policies.detector import Bets, DetectorKey, Evidence, Logs, advance, bets, ratio, remembered, sound

T = TypeVar("T")

MOST_RETIRED: Final = 16
"""Former epochs that a pod's record keeps: a page from one of them is an old page, not a new start."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two detectors of one set of pods."""

    accuracy: Evidence = field(default_factory=Evidence)
    """Hears answers only: what the server failed to answer is not evidence on its answers."""
    errors: Evidence = field(default_factory=Evidence)
    """Hears every outcome; a failure is an error or a time-out of the server."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far one pod's outcomes have been folded."""

    epoch: str = ""
    sequence: int = 0
    retired: tuple[str, ...] = ()
    missed: int = 0
    """Outcomes that the monitor had dropped before anybody asked."""
    failed: tuple[str, ...] = ()
    """Items that this pod answered wrongly when it last answered them."""
    erred: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """The whole state."""

    key: DetectorKey
    """`pod` is empty: the pool is keyed by the revision and outlives pods."""
    alarm_at: float
    total: Pair = field(default_factory=Pair)
    without: dict[str, Pair] = field(default_factory=dict)
    """By the pod that is left out."""
    readings: dict[str, Reading] = field(default_factory=dict)

    def since(self, pod: str) -> int:
        """What to ask this pod for; a new epoch answers from its own beginning if asked for 0."""
        return self.readings[pod].sequence if pod in self.readings else 0

    @property
    def accuracy(self) -> float:
        """M / A of the accuracy detector over all pods; 1 or more from its alarm on."""
        return ratio(self.total.accuracy, self.alarm_at)

    @property
    def errors(self) -> float:
        """M / A of the detector of server errors over all pods."""
        return ratio(self.total.errors, self.alarm_at)

    def accuracy_without(self, pod: str) -> float:
        """M / A of the accuracy detector over all pods but this one."""
        return ratio(self.without.get(pod, self.total).accuracy, self.alarm_at)

    def errors_without(self, pod: str) -> float:
        """Likewise of server errors."""
        return ratio(self.without.get(pod, self.total).errors, self.alarm_at)


def kept_pool(stored: Pool | None, key: DetectorKey, alarm_at: float) -> Pool:
    """The stored pool if it belongs to this key, with the threshold it was born with; else a new one."""
    if stored is None or stored.key != key:
        return Pool(key, alarm_at)
    pairs = (stored.total, *stored.without.values())
    return stored if all(sound(p.accuracy) and sound(p.errors) for p in pairs) else Pool(key, alarm_at)


def fold(page: OutcomePage, pool: Pool, pod: str) -> Pool:
    """The pool after this page; the very same object where the page says nothing new.

    Only what follows the last outcome seen without a gap is taken, so a page that comes before its predecessor waits
    to be asked for again; where the monitor no longer keeps the predecessor, the gap is counted as missed.
    """
    if (page.revision, page.suite_hash) != (pool.key.revision, pool.key.suite_hash):
        return pool
    before = pool.readings.get(pod, Reading())
    if page.epoch in before.retired:
        return pool
    reading = before if page.epoch == before.epoch else _renewed(before, page.epoch)
    if page.oldest > reading.sequence + 1:
        gap = page.oldest - 1 - reading.sequence
        reading = replace(reading, sequence=page.oldest - 1, missed=reading.missed + gap)
    new = _following(page.outcomes, reading.sequence)
    if reading == before and not new:
        return pool
    pairs = {"": pool.total, **{p: pool.without[p] for p in sorted(pool.without)}}
    pairs.setdefault(pod, pool.total)
    for outcome in new:
        reading, gains = _heard(reading, outcome, bets(pool.key.p0))
        pairs = {left_out: pair if left_out == pod else _paid(pair, gains, pool.alarm_at)
                 for left_out, pair in pairs.items()}  # fmt: skip
    total = pairs.pop("")
    return replace(pool, total=total, without=pairs, readings={**pool.readings, pod: reading})


def exclude(pool: Pool, pod: str) -> Pool:
    """The pool recomputed without a pod that was quarantined; it must not be folded again.

    What the others' pools would be without two pods nobody kept: each gets the smaller of the two evidences, which is
    never more than either pod's absence leaves.
    """
    total = pool.without.get(pod, pool.total)
    without = {other: _least(pair, total) for other, pair in pool.without.items() if other != pod}
    return forget(replace(pool, total=total, without=without), pod)


def forget(pool: Pool, pod: str) -> Pool:
    """A pod that is gone: its evidence stays in the pool, its record goes."""
    if pod not in pool.readings and pod not in pool.without:
        return pool
    return replace(pool, without=_but(pool.without, pod), readings=_but(pool.readings, pod))


def _following(outcomes: Sequence[ProbeOutcome], sequence: int) -> list[ProbeOutcome]:
    """What comes after `sequence` without a gap, each once, in order."""
    by_number = {outcome.sequence: outcome for outcome in outcomes}
    found: list[ProbeOutcome] = []
    while (outcome := by_number.get(sequence + 1 + len(found))) is not None:
        found.append(outcome)
    return found


def _renewed(reading: Reading, epoch: str) -> Reading:
    """The monitor lost its state and counts from 1; what the pod answered last is still what it answered last."""
    retired = (*reading.retired, reading.epoch)[-MOST_RETIRED:] if reading.epoch else ()
    return replace(reading, epoch=epoch, sequence=0, retired=retired)


def _heard(reading: Reading, outcome: ProbeOutcome, table: Bets) -> tuple[Reading, tuple[Logs | None, Logs]]:
    """What one outcome pays in each detector, and the pod's record after it."""
    right, erred = outcome.result is ProbeResult.CORRECT, outcome.result is ProbeResult.SERVER_ERROR
    accuracy = None if erred else table.on(right, outcome.item in reading.failed)
    errors = table.on(not erred, outcome.item in reading.erred)
    after = replace(
        reading,
        sequence=outcome.sequence,
        failed=reading.failed if erred else remembered(reading.failed, outcome.item, right),
        erred=remembered(reading.erred, outcome.item, not erred),
    )
    return after, (accuracy, errors)


def _paid(pair: Pair, gains: tuple[Logs | None, Logs], alarm_at: float) -> Pair:
    accuracy, errors = gains
    return Pair(
        pair.accuracy if accuracy is None else advance(pair.accuracy, (accuracy,), alarm_at),
        advance(pair.errors, (errors,), alarm_at),
    )


def _least(a: Pair, b: Pair) -> Pair:
    return Pair(_smaller(a.accuracy, b.accuracy), _smaller(a.errors, b.errors))


def _smaller(a: Evidence, b: Evidence) -> Evidence:
    """Per bet; no evidence at all is the smallest."""
    logs = tuple(min(pair) for pair in zip(a.logs, b.logs, strict=True)) if a.logs and b.logs else ()
    return Evidence(logs, a.alarmed and b.alarmed)


def _but(mapping: Mapping[str, T], key: str) -> dict[str, T]:
    return {k: v for k, v in mapping.items() if k != key}
