"""Keeps the pooled detectors of all deployments, in memory: what the plan wants kept, fed by the verdict source.

No I/O. A pool begins from the checkpoint on its ControllerRevision, so a new leader goes on where the old one was: it
asks each monitor from the last outcome that the checkpoint has heard, and hears none twice (`pool.fold`).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.outcomes import MOST_OUTCOMES, OutcomePage, ProbeOutcome
from r1plus_operator.plan.accuracy.pooled_detector import PoolRequest
from r1plus_operator.plan.observation import PoolView
from r1plus_policies.detector.pool import PodReading, Pool, exclude, fold, forget, restore_pool

log = logging.getLogger(__name__)
Key = tuple[str, str]
MOST_CHECKPOINT_BYTES: Final = 128 * 1024
"""Of the 256 KiB that all annotations of an object may take; the verdicts need theirs."""
CHECKPOINT_SECONDS: Final = 300.0
AT_ONCE: Final = 250
"""Outcomes of one pod that are folded in one go: a backlog must not hold up the event loop."""
MOST_EPOCH, MOST_NUMBER = 64, 2**53
Evidence = Callable[[Key, Pool], None]
"""Is told of a deployment's pool whenever that is looked at."""


@dataclass(slots=True)
class _Kept:
    wanted: PoolRequest
    pool: Pool
    written_at: float
    checkpoint: str
    told: tuple[bool, bool, str] = field(default=(False, False, ""))


class Pools:
    """One pool per deployment: of the revision that serves."""

    def __init__(self, clock: Callable[[], float], on_evidence: Evidence) -> None:
        """`clock` is monotonic."""
        self._clock = clock
        self._on_evidence = on_evidence
        self._kept: dict[Key, _Kept] = {}

    def want(self, key: Key, wanted: PoolRequest | None) -> None:
        """What the plan wants kept for a deployment from now on; None ends it."""
        if wanted is None:
            self._kept.pop(key, None)
            return
        kept = self._kept.get(key)
        if kept is None or (kept.pool.key, kept.pool.acknowledged) != (wanted.key, wanted.acknowledged):
            before = kept.pool if kept and kept.pool.key == wanted.key else _stored(wanted.checkpoint)
            pool = restore_pool(before, wanted.key, wanted.alarm_at, wanted.acknowledged)
            kept = self._kept[key] = _Kept(wanted, pool, self._clock(), wanted.checkpoint)
        kept.wanted = wanted
        for pod in sorted(kept.pool.readings):
            if pod in wanted.quarantined_pods:
                kept.pool = exclude(kept.pool, pod)
            elif pod not in wanted.pods:
                kept.pool = forget(kept.pool, pod)

    def since(self, key: Key, pod: str) -> int | None:
        """From where to ask this pod for outcomes; None where nobody wants them."""
        kept = self._kept.get(key)
        return kept.pool.since(pod) if kept and pod in kept.wanted.pods else None

    def take(self, key: Key, pod: str, page: OutcomePage) -> None:
        """Fold a page, if it is what was asked for; ContractError says why it is not."""
        kept = self._kept.get(key)
        if kept is None or pod not in kept.wanted.pods:
            return
        _check(page, kept.wanted)
        after = sorted((o for o in page.outcomes if o.sequence > _heard(kept.pool, pod, page.epoch)), key=_number)
        try:
            kept.pool = fold(replace(page, outcomes=tuple(after[:AT_ONCE])), kept.pool, pod)
        except ValueError as error:
            log.warning("Pooled detector of %s/%s was restarted: %s", *key, error)
            kept.pool = Pool(kept.wanted.key, kept.wanted.alarm_at, acknowledged=kept.wanted.acknowledged)

    def view(self, key: Key, sweeps: Callable[[], Mapping[str, str]]) -> tuple[PoolView, bool] | None:
        """What a pass decides by, and whether that is news. `sweeps`: pod -> when its last sweep ended."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        pool, worst = kept.pool, kept.pool.worst
        without = pool.accuracy_without(worst) if worst else 0.0
        alarms = (pool.accuracy >= 1.0, without >= 1.0)
        if alarms[1] is (pool.before_alarm is None):
            pool = kept.pool = replace(pool, before_alarm=dict(sweeps()) if alarms[1] else None)
        self._write_down(kept, rang=alarms != kept.told[:2])
        told = (*alarms, kept.checkpoint)
        news, kept.told = told != kept.told, told
        self._on_evidence(key, pool)
        found = PoolView(
            pool.key.revision,
            pool.key.suite_hash,
            pool.accuracy,
            without,
            worst,
            pool.before_alarm or {},
            kept.checkpoint,
            pool.acknowledged,
        )
        return found, news

    def _write_down(self, kept: _Kept, *, rang: bool) -> None:
        """Make the next checkpoint: at an alarm, else now and then."""
        if not rang and self._clock() - kept.written_at < CHECKPOINT_SECONDS:
            return
        kept.written_at = self._clock()
        if all(reading == PodReading(reading.epoch) for reading in kept.pool.readings.values()):
            return  # Monitors were asked, and none has said anything: no write is due for that.
        text = dumps(kept.pool)
        if len(text.encode()) > MOST_CHECKPOINT_BYTES:
            # An annotation that is too large would refuse the whole pass; from the former one outcomes are heard again.
            log.warning("Checkpoint of a pooled detector is too large, kept the previous one: %d bytes", len(text))
            return
        kept.checkpoint = text


def _stored(text: str) -> Pool | None:
    try:
        return loads(Pool, text, tolerant=True) if text else None
    except ContractError as error:
        log.warning("Checkpoint of a pooled detector was unreadable, began without it: %s", error)
        return None


def _number(outcome: ProbeOutcome) -> int:
    return outcome.sequence


def _heard(pool: Pool, pod: str, epoch: str) -> int:
    """The last outcome of this epoch that the pool has heard."""
    reading = pool.readings.get(pod)
    return reading.sequence if reading and reading.epoch == epoch else 0


def _check(page: OutcomePage, wanted: PoolRequest) -> None:
    """A pod that was broken into must fill no memory and be evidence of nothing but itself."""
    said = (page.revision, page.identity, page.suite_hash, page.scorer_version)
    if said != (wanted.key.revision, wanted.identity, wanted.key.suite_hash, wanted.scorer_version):
        raise ContractError(f"OutcomePage: is about {said[0]!r:.80}, another identity, suite or scorer")
    if not 0 < len(page.epoch) <= MOST_EPOCH:
        raise ContractError(f"OutcomePage.epoch: {len(page.epoch)} characters, between 1 and {MOST_EPOCH} expected")
    numbers = (page.oldest, page.newest, *(outcome.sequence for outcome in page.outcomes))
    if not all(0 <= number < MOST_NUMBER for number in numbers):
        raise ContractError("OutcomePage: a sequence number is negative or beyond 2^53")
    if not 0 <= page.acknowledged_after <= page.newest:
        text = f"{page.acknowledged_after} is not between 0 and the newest, {page.newest}"
        raise ContractError(f"OutcomePage.acknowledgedAfter: {text}")
    if len(page.outcomes) > MOST_OUTCOMES:
        raise ContractError(f"OutcomePage.outcomes: {len(page.outcomes)}, at most {MOST_OUTCOMES} expected")
    if strange := next((o.item for o in page.outcomes if o.item not in wanted.items), None):
        raise ContractError(f"OutcomePage.outcomes: {strange!r:.80} is no item of the suite")
