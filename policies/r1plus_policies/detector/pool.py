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
from r1plus_policies.bounds import Interval
from r1plus_policies.detector.confidence import confidence_sequence
from r1plus_policies.detector.detector import Bets, DetectorKey, Evidence, Logs, advance, bets, ratio, remembered

T = TypeVar("T")

ALPHA: Final = 0.001
"""The interval ever leaves the true share out with this probability at most."""
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
    right: int = 0
    answered: int = 0
    """Of the pool's own counts, what came of this pod."""


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
    acknowledged: str = ""
    """The acknowledgement since which it hears."""
    before_alarm: dict[str, str] | None = None
    """Pod -> when its last sweep ended, as it stood when the pool without its worst pod rang; None while it does not.
    Kept here, so that the next leader goes on counting the sweeps that followed."""
    right: int = 0
    answered: int = 0
    """Answers to watched items since the pool was born, or since its alarm: a share that changed is another share."""

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

    @property
    def interval(self) -> Interval | None:
        """Where the share of right answers lies, by a confidence sequence: it may be looked at at any time.

        None before an answer. It speaks of flips per request, for the items as they were drawn (`confidence`).
        """
        return confidence_sequence(self.right, self.answered, ALPHA) if self.answered else None

    @property
    def worst(self) -> str:
        """The pod without which the least is left; empty where there are not two, since then nothing would be."""
        return min(sorted(self.without), key=self.accuracy_without) if len(self.without) > 1 else ""

    def accuracy_without(self, pod: str) -> float:
        """M / A of the accuracy detector over all pods but this one."""
        return ratio(self.without.get(pod, self.total).accuracy, self.alarm_at)

    def errors_without(self, pod: str) -> float:
        """Likewise of server errors."""
        return ratio(self.without.get(pod, self.total).errors, self.alarm_at)


def kept_pool(stored: Pool | None, key: DetectorKey, alarm_at: float, acknowledged: str = "") -> Pool:
    """The stored pool if it belongs to this key, with the threshold it was born with; else a new one.

    One of another acknowledgement starts anew as well: its evidence is what somebody has looked at. It knows how far it
    has heard each pod, so that nothing of before is heard again.
    """
    if stored is None or stored.key != key:
        return Pool(key, alarm_at, acknowledged=acknowledged)
    if stored.acknowledged != acknowledged:
        heard = {pod: replace(one, failed=(), erred=()) for pod, one in _uncounted(stored.readings).items()}
        return Pool(key, alarm_at, readings=heard, acknowledged=acknowledged)
    return stored


def fold(page: OutcomePage, pool: Pool, pod: str) -> Pool:
    """The pool after this page; the very same object where the page says nothing new.

    Only what follows the last outcome seen without a gap is taken, so a page that comes before its predecessor waits
    to be asked for again; where the monitor no longer keeps the predecessor, the gap is counted as missed. A page of
    another acknowledgement waits until monitor and pool are at the same one.
    """
    if (page.revision, page.suite_hash) != (pool.key.revision, pool.key.suite_hash):
        return pool
    if page.acknowledged is not None and page.acknowledged != pool.acknowledged:
        return pool
    before = pool.readings.get(pod, Reading())
    if page.epoch in before.retired:
        return pool
    reading = before if page.epoch == before.epoch else _renewed(before, page.epoch)
    if page.acknowledged_after > reading.sequence:
        reading = replace(reading, sequence=page.acknowledged_after)
    if page.oldest > reading.sequence + 1:
        gap = page.oldest - 1 - reading.sequence
        reading = replace(reading, sequence=page.oldest - 1, missed=reading.missed + gap)
    new = _following(page.outcomes, reading.sequence)
    if reading == before and not new:
        return pool
    pairs = {"": pool.total, **{p: pool.without[p] for p in sorted(pool.without)}}
    pairs.setdefault(pod, pool.total)
    readings, right, answered = pool.readings, pool.right - before.right, pool.answered - before.answered
    for outcome in new:
        rang = pairs[""].accuracy.alarmed
        reading, gains = _heard(reading, outcome, bets(pool.key.p0))
        pairs = {left_out: pair if left_out == pod else _paid(pair, gains, pool.alarm_at)
                 for left_out, pair in pairs.items()}  # fmt: skip
        if pairs[""].accuracy.alarmed is not rang:
            readings, right, answered = _uncounted(readings), 0, 0
            reading = replace(reading, right=0, answered=0)
    return replace(
        pool,
        total=pairs.pop(""),
        without=pairs,
        readings={**readings, pod: reading},
        right=right + reading.right,
        answered=answered + reading.answered,
    )


def exclude(pool: Pool, pod: str) -> Pool:
    """The pool recomputed without a pod that was quarantined; it must not be folded again.

    What the others' pools would be without two pods nobody kept: each gets the smaller of the two evidences, which is
    never more than either pod's absence leaves.
    """
    total = pool.without.get(pod, pool.total)
    without = {other: _least(pair, total) for other, pair in pool.without.items() if other != pod}
    its = pool.readings.get(pod, Reading())
    right, answered = pool.right - its.right, pool.answered - its.answered
    return forget(replace(pool, total=total, without=without, right=right, answered=answered), pod)


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
        right=reading.right + right,
        answered=reading.answered + (not erred),
    )
    return after, (accuracy, errors)


def _uncounted(readings: Mapping[str, Reading]) -> dict[str, Reading]:
    """How far each pod was heard, as if nothing had been counted of it."""
    return {pod: replace(reading, right=0, answered=0) for pod, reading in readings.items()}


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
