"""The pooled detectors of all deployments, in memory: the plan requests them, the monitor poller feeds them.

No I/O. A pool starts from the checkpoint on its ControllerRevision, so a new leader continues where the old one was: it
polls each monitor from the last outcome in the checkpoint, and counts none twice (`pool.fold`).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.monitor.outcomes import MOST_OUTCOMES, OutcomePage, ProbeOutcome
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.plan.accuracy.pooled_detector import PoolRequest
from r1plus_operator.plan.observation import PoolView
from r1plus_operator.runtime.throttle import TokenBucket
from r1plus_policies.detector.pool import PodReading, Pool, exclude, fold, forget, restore_pool

log = logging.getLogger(__name__)
MOST_CHECKPOINT_BYTES: Final = 128 * 1024
"""Of the 256 KiB that all annotations of an object may take together with the verdicts."""
CHECKPOINT_SECONDS: Final = 300.0
AT_ONCE: Final = 250
"""Outcomes of one pod that are folded at once: a backlog must not block the event loop."""
FASTEST: Final = 2.0
"""A pod's outcomes count up to so many times its probes a minute: a monitor that was taken over and reports right
answers without end cannot outvote the other pods. A whole backlog, MOST_OUTCOMES, counts at once."""
MOST_EPOCH, MOST_NUMBER = 64, 2**53
Evidence = Callable[[DeploymentKey, Pool], None]
"""Called with a deployment's pool whenever its view is read."""


@dataclass(slots=True)
class _PoolState:
    request: PoolRequest
    pool: Pool
    written_at: float
    checkpoint: str
    last_signal: tuple[bool, bool, str] = field(default=(False, False, ""))
    allowances: dict[str, TokenBucket] = field(default_factory=dict)
    """Pod -> how many of its outcomes count now."""
    hurried: set[str] = field(default_factory=set)
    """Pods that have been logged for more outcomes than that."""


class Pools:
    """One pool per deployment, of the current revision."""

    def __init__(self, clock: Callable[[], float], on_evidence: Evidence) -> None:
        """Use a monotonic `clock`."""
        self._clock = clock
        self._on_evidence = on_evidence
        self._states: dict[DeploymentKey, _PoolState] = {}

    def set_request(self, key: DeploymentKey, request: PoolRequest | None) -> None:
        """Set which pool the plan requests for a deployment; None ends it."""
        if request is None:
            self._states.pop(key, None)
            return
        state = self._states.get(key)
        if state is None or (state.pool.key, state.pool.acknowledged) != (request.key, request.acknowledged):
            previous = state.pool if state and state.pool.key == request.key else _load_checkpoint(request.checkpoint)
            pool = restore_pool(previous, request.key, request.alarm_at, request.acknowledged)
            state = self._states[key] = _PoolState(request, pool, self._clock(), request.checkpoint)
        if request.probes_per_minute != state.request.probes_per_minute:
            state.allowances.clear()
        for pod in set(state.allowances) - request.pods:
            del state.allowances[pod]
        state.hurried &= request.pods
        state.request = request
        for pod in sorted(state.pool.readings):
            if pod in request.quarantined_pods:
                state.pool = exclude(state.pool, pod)
            elif pod not in request.pods:
                state.pool = forget(state.pool, pod)

    def find_start(self, key: DeploymentKey, pod: str) -> int | None:
        """Return the sequence number from which to poll a pod's outcomes; None if they are not requested."""
        state = self._states.get(key)
        return state.pool.since(pod) if state and pod in state.request.pods else None

    def fold_page(self, key: DeploymentKey, pod: str, page: OutcomePage) -> None:
        """Fold a page of outcomes into the pool; raise ContractError if it is not of the requested pool."""
        state = self._states.get(key)
        if state is None or pod not in state.request.pods:
            return
        _check_page(page, state.request)
        outcomes = sorted(
            (o for o in page.outcomes if o.sequence > _find_last_sequence(state.pool, pod, page.epoch)),
            key=_get_sequence,
        )
        allowance = self._find_allowance(state, pod)
        folded = outcomes[: min(AT_ONCE, allowance.count())]
        try:
            state.pool = fold(replace(page, outcomes=tuple(folded)), state.pool, pod)
        except ValueError as error:
            log.warning("Pooled detector of %s/%s was restarted: %s", *key, error)
            state.pool = Pool(state.request.key, state.request.alarm_at, acknowledged=state.request.acknowledged)
            allowance.take(len(folded))
        else:
            # A page that waits, such as for an acknowledgement, takes nothing: it comes again with each poll.
            last = _find_last_sequence(state.pool, pod, page.epoch)
            allowance.take(sum(outcome.sequence <= last for outcome in folded))
        if len(folded) < min(len(outcomes), AT_ONCE) and pod not in state.hurried:
            state.hurried.add(pod)
            most = f"more than {FASTEST:g} times its {state.request.probes_per_minute} probes a minute"
            log.warning("Monitor of pod %s of %s reports %s: the rest waits. Look at this pod.", pod, key, most)

    def _find_allowance(self, state: _PoolState, pod: str) -> TokenBucket:
        """Return how many outcomes of a pod may be folded."""
        if pod not in state.allowances:
            rate = FASTEST * state.request.probes_per_minute / 60
            state.allowances[pod] = TokenBucket(rate, MOST_OUTCOMES, clock=self._clock)
        return state.allowances[pod]

    def read_view(self, key: DeploymentKey, sweeps: Callable[[], Mapping[str, str]]) -> tuple[PoolView, bool] | None:
        """Return what a pass decides by, and whether that is news. `sweeps` returns pod -> end of its last sweep."""
        state = self._states.get(key)
        if state is None:
            return None
        pool, worst = state.pool, state.pool.worst
        without = pool.accuracy_without(worst) if worst else 0.0
        alarms = (pool.accuracy >= 1.0, without >= 1.0)
        if alarms[1] is (pool.before_alarm is None):
            pool = state.pool = replace(pool, before_alarm=dict(sweeps()) if alarms[1] else None)
        self._update_checkpoint(state, alarm_changed=alarms != state.last_signal[:2])
        signal = (*alarms, state.checkpoint)
        is_news, state.last_signal = signal != state.last_signal, signal
        self._on_evidence(key, pool)
        view = PoolView(
            pool.key.revision,
            pool.key.suite_hash,
            pool.accuracy,
            without,
            worst,
            pool.before_alarm or {},
            state.checkpoint,
            pool.acknowledged,
        )
        return view, is_news

    def _update_checkpoint(self, state: _PoolState, *, alarm_changed: bool) -> None:
        """Make the next checkpoint: at a changed alarm, else every CHECKPOINT_SECONDS."""
        if not alarm_changed and self._clock() - state.written_at < CHECKPOINT_SECONDS:
            return
        state.written_at = self._clock()
        if all(each == PodReading(each.epoch) for each in state.pool.readings.values()):
            return  # No monitor has reported an outcome yet: nothing to write.
        text = dumps(state.pool)
        if len(text.encode()) > MOST_CHECKPOINT_BYTES:
            # The API server would refuse an annotation that is too large, and with it the pass. From the previous
            # checkpoint outcomes are counted again.
            log.warning("Checkpoint of a pooled detector is too large, kept the previous one: %d bytes", len(text))
            return
        state.checkpoint = text


def _load_checkpoint(text: str) -> Pool | None:
    try:
        return loads(Pool, text, tolerant=True) if text else None
    except ContractError as error:
        log.warning("Checkpoint of a pooled detector was unreadable, began without it: %s", error)
        return None


def _get_sequence(outcome: ProbeOutcome) -> int:
    return outcome.sequence


def _find_last_sequence(pool: Pool, pod: str, epoch: str) -> int:
    """Return the last outcome of this epoch that the pool has counted."""
    pod_reading = pool.readings.get(pod)
    return pod_reading.sequence if pod_reading and pod_reading.epoch == epoch else 0


def _check_page(page: OutcomePage, request: PoolRequest) -> None:
    """Raise ContractError unless the page is of the request: a compromised pod may affect nothing but its own score."""
    subject = (page.revision, page.identity, page.suite_hash, page.scorer_version)
    if subject != (request.key.revision, request.identity, request.key.suite_hash, request.scorer_version):
        raise ContractError(f"OutcomePage: is about {subject[0]!r:.80}, another identity, suite or scorer")
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
    if unknown_item := next((o.item for o in page.outcomes if o.item not in request.items), None):
        raise ContractError(f"OutcomePage.outcomes: {unknown_item!r:.80} is no item of the suite")
