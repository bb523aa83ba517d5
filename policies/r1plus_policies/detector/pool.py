"""The pooled detector of a revision: folds the outcomes of its pods' monitors, each outcome once.

The operator's leader owns it. It reads the pages of `GET /outcomes?since=` (`since` here says from where), and stores
it as JSON. A page may come twice, late or in pieces, and a monitor may lose its state. `fold` counts every outcome that
it sees exactly once, in each pod's own order.

In addition to the pool of all pods it keeps the pool without each one of them: evidence cannot be separated later.
Whether a revision is bad is decided by the pool without its worst pod. These share the pool's threshold; they decide
what follows an alarm and raise none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from r1plus_contract.monitor.outcomes import OutcomePage, ProbeOutcome, ProbeResult
from r1plus_policies.bounds import Interval
from r1plus_policies.detector.confidence import confidence_sequence
from r1plus_policies.detector.detector import (
    Bets,
    DetectorEvidence,
    DetectorKey,
    Logs,
    advance,
    build_bets,
    carry_over,
    evidence_ratio,
    update_failed_items,
)

T = TypeVar("T")

ALPHA: Final = 0.001
"""The interval ever excludes the true share with this probability at most."""
MOST_RETIRED: Final = 16
"""Former epochs in a pod's record: a page from one of them is an old page, not a restart."""


@dataclass(frozen=True, slots=True)
class DetectorPair:
    """The two detectors of one set of pods."""

    accuracy: DetectorEvidence = field(default_factory=DetectorEvidence)
    """Observes answers only: a server error is no evidence on answers."""
    errors: DetectorEvidence = field(default_factory=DetectorEvidence)
    """Observes every outcome; a failure is an error or a time-out of the server."""


@dataclass(frozen=True, slots=True)
class PodReading:
    """How far one pod's outcomes have been folded."""

    epoch: str = ""
    sequence: int = 0
    retired: tuple[str, ...] = ()
    missed: int = 0
    """Outcomes that the monitor had dropped before they were read."""
    failed: tuple[str, ...] = ()
    """Items that this pod answered wrongly when it last answered them."""
    erred: tuple[str, ...] = ()
    right: int = 0
    answered: int = 0
    """This pod's share of the pool's own counts."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The whole state."""

    key: DetectorKey
    """`pod` is empty: the pool is keyed by the revision and outlives pods."""
    alarm_at: float
    total: DetectorPair = field(default_factory=DetectorPair)
    without: dict[str, DetectorPair] = field(default_factory=dict)
    """By the pod that is left out."""
    readings: dict[str, PodReading] = field(default_factory=dict)
    acknowledged: str = ""
    """The acknowledgement since which it observes."""
    before_alarm: dict[str, str] | None = None
    """Pod -> end of its last sweep when the pool without its worst pod alarmed; None without an alarm. Stored here,
    so that
        the next leader continues to count the sweeps that followed."""
    right: int = 0
    answered: int = 0
    """Answers to watched items since the pool was created, or since its alarm: a changed share is another share."""

    def since(self, pod: str) -> int:
        """Return the sequence to ask this pod for; a new epoch answers from its own beginning if asked for 0."""
        return self.readings[pod].sequence if pod in self.readings else 0

    @property
    def accuracy(self) -> float:
        """M / A of the accuracy detector over all pods; 1 or more from its alarm on."""
        return evidence_ratio(self.total.accuracy, self.alarm_at)

    @property
    def errors(self) -> float:
        """M / A of the detector of server errors over all pods."""
        return evidence_ratio(self.total.errors, self.alarm_at)

    @property
    def interval(self) -> Interval | None:
        """Where the share of right answers lies, by a confidence sequence: it may be read at any time.

        None before an answer. It covers flips per request, for the items as they were drawn (`confidence`).
        """
        return confidence_sequence(self.right, self.answered, ALPHA) if self.answered else None

    @property
    def worst(self) -> str:
        """The pod without which the least evidence is left; empty with fewer than two pods."""
        return min(sorted(self.without), key=self.accuracy_without) if len(self.without) > 1 else ""

    def accuracy_without(self, pod: str) -> float:
        """Return M / A of the accuracy detector over all pods but this one."""
        return evidence_ratio(self.without.get(pod, self.total).accuracy, self.alarm_at)


def restore_pool(stored: Pool | None, key: DetectorKey, alarm_at: float, acknowledged: str = "") -> Pool:
    """Return the stored pool if it has this key, with its own threshold; otherwise a new one.

    A pool of another acknowledgement restarts as well: its evidence is acknowledged. It keeps how far it has read
    each pod, so that older outcomes are not read again. Evidence of another version of the bets is carried over.
    """
    if stored is None or stored.key != key:
        return Pool(key, alarm_at, acknowledged=acknowledged)
    if stored.acknowledged != acknowledged:
        readings = {pod: replace(one, failed=(), erred=()) for pod, one in _reset_counts(stored.readings).items()}
        return Pool(key, alarm_at, readings=readings, acknowledged=acknowledged)
    total, without = _carry_pair(stored.total, key.p0), {p: _carry_pair(w, key.p0) for p, w in stored.without.items()}
    is_of_these_bets = (total, without) == (stored.total, stored.without)
    return stored if is_of_these_bets else replace(stored, total=total, without=without)


def fold(page: OutcomePage, pool: Pool, pod: str) -> Pool:
    """Return the pool after this page; the very same object where the page has nothing new.

    Only what follows the last known outcome without a gap is used, so a page that comes before its predecessor is read
    again later. Where the monitor no longer has the predecessor, the gap is counted as missed. A page of another
    acknowledgement waits until monitor and pool have the same one.
    """
    if (page.revision, page.suite_hash) != (pool.key.revision, pool.key.suite_hash):
        return pool
    if page.acknowledged is not None and page.acknowledged != pool.acknowledged:
        return pool
    before = pool.readings.get(pod, PodReading())
    if page.epoch in before.retired:
        return pool
    pod_reading = before if page.epoch == before.epoch else _start_epoch(before, page.epoch)
    if page.acknowledged_after > pod_reading.sequence:
        pod_reading = replace(pod_reading, sequence=page.acknowledged_after)
    if page.oldest > pod_reading.sequence + 1:
        gap = page.oldest - 1 - pod_reading.sequence
        pod_reading = replace(pod_reading, sequence=page.oldest - 1, missed=pod_reading.missed + gap)
    new = _select_following(page.outcomes, pod_reading.sequence)
    if pod_reading == before and not new:
        return pool
    pairs = {"": pool.total, **{p: pool.without[p] for p in sorted(pool.without)}}
    pairs.setdefault(pod, pool.total)
    readings, right_total, answer_total = pool.readings, pool.right - before.right, pool.answered - before.answered
    for outcome in new:
        was_alarmed = pairs[""].accuracy.alarmed
        pod_reading, gains = _observe(pod_reading, outcome, build_bets(pool.key.p0))
        pairs = {left_out: pair if left_out == pod else _advance_pair(pair, gains, pool.alarm_at)
                 for left_out, pair in pairs.items()}  # fmt: skip
        if pairs[""].accuracy.alarmed is not was_alarmed:
            readings, right_total, answer_total = _reset_counts(readings), 0, 0
            pod_reading = replace(pod_reading, right=0, answered=0)
    return replace(
        pool,
        total=pairs.pop(""),
        without=pairs,
        readings={**readings, pod: pod_reading},
        right=right_total + pod_reading.right,
        answered=answer_total + pod_reading.answered,
    )


def exclude(pool: Pool, pod: str) -> Pool:
    """Return the pool without a quarantined pod; it must not be folded again.

    The pools without two pods are not stored: each gets the smaller of the two evidences, which is never more than
    without either pod.
    """
    total = pool.without.get(pod, pool.total)
    without = {other: _take_smaller_pair(pair, total) for other, pair in pool.without.items() if other != pod}
    pod_reading = pool.readings.get(pod, PodReading())
    right, answer_total = pool.right - pod_reading.right, pool.answered - pod_reading.answered
    return forget(replace(pool, total=total, without=without, right=right, answered=answer_total), pod)


def forget(pool: Pool, pod: str) -> Pool:
    """Remove a pod that is gone: its evidence stays in the pool, its record goes."""
    if pod not in pool.readings and pod not in pool.without:
        return pool
    return replace(pool, without=_without_key(pool.without, pod), readings=_without_key(pool.readings, pod))


def _select_following(outcomes: Sequence[ProbeOutcome], sequence: int) -> list[ProbeOutcome]:
    """Return what comes after `sequence` without a gap, each once, in order."""
    by_number = {outcome.sequence: outcome for outcome in outcomes}
    outcomes_in_order: list[ProbeOutcome] = []
    while (outcome := by_number.get(sequence + 1 + len(outcomes_in_order))) is not None:
        outcomes_in_order.append(outcome)
    return outcomes_in_order


def _start_epoch(reading: PodReading, epoch: str) -> PodReading:
    """Start an epoch: the monitor lost its state and counts from 1; the last answers of the pod still hold."""
    retired_epochs = (*reading.retired, reading.epoch)[-MOST_RETIRED:] if reading.epoch else ()
    return replace(reading, epoch=epoch, sequence=0, retired=retired_epochs)


def _observe(reading: PodReading, outcome: ProbeOutcome, table: Bets) -> tuple[PodReading, tuple[Logs | None, Logs]]:
    """Return the gains of one outcome in each detector, and the pod's record after it."""
    is_right, is_error = outcome.result is ProbeResult.CORRECT, outcome.result is ProbeResult.SERVER_ERROR
    accuracy = None if is_error else table.gains_of(is_right, outcome.item in reading.failed)
    errors = table.gains_of(not is_error, outcome.item in reading.erred)
    after = replace(
        reading,
        sequence=outcome.sequence,
        failed=reading.failed if is_error else update_failed_items(reading.failed, outcome.item, is_right),
        erred=update_failed_items(reading.erred, outcome.item, not is_error),
        right=reading.right + is_right,
        answered=reading.answered + (not is_error),
    )
    return after, (accuracy, errors)


def _reset_counts(readings: Mapping[str, PodReading]) -> dict[str, PodReading]:
    """Return the readings with counts of zero, as far as they were read."""
    return {pod: replace(pod_reading, right=0, answered=0) for pod, pod_reading in readings.items()}


def _advance_pair(pair: DetectorPair, gains: tuple[Logs | None, Logs], alarm_at: float) -> DetectorPair:
    accuracy, errors = gains
    return DetectorPair(
        pair.accuracy if accuracy is None else advance(pair.accuracy, accuracy, alarm_at),
        advance(pair.errors, errors, alarm_at),
    )


def _carry_pair(pair: DetectorPair, p0: float) -> DetectorPair:
    return DetectorPair(carry_over(pair.accuracy, p0), carry_over(pair.errors, p0))


def _take_smaller_pair(a: DetectorPair, b: DetectorPair) -> DetectorPair:
    return DetectorPair(_take_smaller(a.accuracy, b.accuracy), _take_smaller(a.errors, b.errors))


def _take_smaller(a: DetectorEvidence, b: DetectorEvidence) -> DetectorEvidence:
    """Take the smaller evidence per bet; no evidence at all is the smallest."""
    logs = tuple(min(pair) for pair in zip(a.logs, b.logs, strict=True)) if a.logs and b.logs else ()
    return DetectorEvidence(logs, a.alarmed and b.alarmed)


def _without_key(mapping: Mapping[str, T], key: str) -> dict[str, T]:
    return {k: v for k, v in mapping.items() if k != key}
