"""What a pod's monitor stores of its watch, and what follows from it: detectors, alarm, count, standing.

Pure; the monitor's `session.watch` asks and stores. An alarm is latched until the subject changes, or until it is
acknowledged and the gate passes again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from r1plus_contract.monitor.outcomes import ProbeOutcome, ProbeResult
from r1plus_contract.verdict import GateReport, StratumFigures, SweepFigures, Verdict, Watch, WatchStanding
from r1plus_policies.bounds import clopper_pearson
from r1plus_policies.detector.detector import Detector, observe_answer
from r1plus_policies.gate.verdict import MOST_LOST_ITEMS, GateItem, VerdictSubject, max_lost_in_stratum, max_lost_items
from r1plus_policies.watch.confirmation import (
    ALPHA,
    AnswerCount,
    Confirmation,
    ConfirmationLimits,
    count_answers,
    count_by_stratum,
    judge_count,
)

LEAST_EVIDENCE: Final = 1e-4
"""Evidence below this share of an alarm is reported as none: it changes with every flip."""
_GRAVITY: Final = (WatchStanding.CHANGED, WatchStanding.ERRORS, WatchStanding.BELOW_THRESHOLD)


@dataclass(frozen=True, slots=True)
class WatchState:
    """The stored state of a watch."""

    subject: VerdictSubject
    accuracy: Detector
    """Observes the answers to watched items."""
    errors: Detector
    """Observes every outcome of a watched item; a failure is an error or a time-out of the server."""
    unwatched: tuple[str, ...] | None
    """Items that the gate lost. None until a sweep has shown them, where the gate stopped early."""
    epoch: str = ""
    sequence: int = 0
    """The last outcome of the epoch that the detectors have observed."""
    alarmed_at: str = ""
    counting: Confirmation | None = None
    """The confirming sweep in progress."""
    confirmed: Confirmation | None = None
    """The worst one that is complete."""
    confirmed_at: str = ""
    acknowledged: str = ""
    """The newest acknowledgement that has been acted on."""
    acknowledged_after: int = 0
    """The last outcome that the detectors had observed at that acknowledgement."""


def new_watch(
    subject: VerdictSubject, accuracy: Detector, errors: Detector, gate: GateReport, acknowledged: str = ""
) -> WatchState:
    """Return a watch over what this gate admitted."""
    complete = gate.verdict is Verdict.PASS and gate.lost == len(gate.lost_items)
    lost_at_gate = gate.lost_items if complete else None
    return WatchState(subject, accuracy, errors, lost_at_gate, acknowledged=acknowledged)


def observe_outcome(state: WatchState, outcome: ProbeOutcome, at: str, seed: int) -> WatchState:
    """Return the watch after one outcome: an alarm is dated and starts a count. A known outcome changes nothing."""
    if outcome.sequence <= state.sequence:
        return state
    is_error = outcome.result is ProbeResult.SERVER_ERROR
    accuracy = (
        state.accuracy
        if is_error
        else observe_answer(state.accuracy, outcome.item, outcome.result is ProbeResult.CORRECT)
    )
    errors = observe_answer(state.errors, outcome.item, not is_error)
    after = replace(state, accuracy=accuracy, errors=errors, sequence=outcome.sequence)
    if (accuracy.alarmed, errors.alarmed) == (state.accuracy.alarmed, state.errors.alarmed):
        return after
    return replace(recount(after, seed), alarmed_at=after.alarmed_at or at)


def recount(state: WatchState, seed: int) -> WatchState:
    """Start a count; one in progress continues."""
    return state if state.counting else replace(state, counting=Confirmation(seed))


def record_confirmation(state: WatchState, items: Sequence[GateItem], threshold: float, at: str) -> WatchState:
    """Complete the count in progress: it is stored unless an earlier one was worse."""
    finished_state = replace(state, counting=None)
    if state.counting is None:
        return finished_state
    counted_state = replace(finished_state, confirmed=state.counting, confirmed_at=at)
    return (
        counted_state
        if _rank_standing(counted_state, items, threshold) >= _rank_standing(finished_state, items, threshold)
        else finished_state
    )


def derive_standing(state: WatchState, items: Sequence[GateItem], threshold: float) -> WatchStanding:
    """Return the standing under this threshold: a count is judged by the current threshold."""
    if not state.alarmed_at:
        return WatchStanding.STEADY
    if state.confirmed is None:
        return WatchStanding.CONFIRMING
    answer_count = count_answers(items, state.confirmed, state.errors.key.p0)
    return judge_count(items, answer_count, ConfirmationLimits(threshold, state.errors.key.p0, state.errors.alarmed))


def round_evidence(evidence: float) -> float:
    """Round down to a power of ten, at most 1, so that it is 1 from the alarm on and never before."""
    if evidence < LEAST_EVIDENCE:
        return 0.0
    return min(1.0, float(f"1e{math.floor(math.log10(evidence))}"))


def build_watch_report(state: WatchState, items: Sequence[GateItem], threshold: float) -> Watch:
    """Build the watch as the monitor reports it."""
    answer_count = _count_confirmed(state, items)
    lost_items = find_lost_since_gate(state, answer_count) if answer_count else ()
    sizes = count_by_stratum(items, [item.id for item in items]) if lost_items else {}
    return Watch(
        standing=derive_standing(state, items, threshold),
        watched=0 if state.unwatched is None else len(items) - len(state.unwatched),
        evidence=round_evidence(state.accuracy.ratio),
        error_evidence=round_evidence(state.errors.ratio),
        alarmed_at=state.alarmed_at,
        confirmation=_build_figures(answer_count, state.confirmed_at) if answer_count else None,
        lost_since_gate=lost_items[:MOST_LOST_ITEMS],
        strata=tuple(
            StratumFigures(name, sizes[name], n, max_lost_in_stratum(sizes[name], threshold))
            for name, n in count_by_stratum(items, lost_items).items()
        ),
    )


def describe_watch(state: WatchState, items: Sequence[GateItem], threshold: float) -> str:
    """Describe the result of the count."""
    answer_count = _count_confirmed(state, items)
    if answer_count is None:
        return f"a detector raised an alarm at {state.alarmed_at}; lost items are being counted over all {len(items)}"
    new = find_lost_since_gate(state, answer_count)
    strata = ", ".join(f"{name} {n}" for name, n in count_by_stratum(items, new).items())
    since = f"{len(new)} item{'s' * (len(new) != 1)} lost since the gate{f': {strata}' if strata else ''}"
    limit = f"{max_lost_items(answer_count.items, threshold)} allowed at threshold {threshold:g}"
    parts = [
        since,
        f"{len(answer_count.lost_items)} of {answer_count.items} lost in all, {limit}",
    ]
    if answer_count.first_upper < threshold:
        parts.append(f"share of right first answers at most {answer_count.first_upper:.3f} (alpha {ALPHA:g})")
    if answer_count.unanswered_items or not answer_count.whole:
        cut = "" if answer_count.whole else ", and the sweep stopped early because of errors"
        parts.append(f"{len(answer_count.unanswered_items)} items got no answer{cut}")
    return "; ".join(parts)


def find_lost_since_gate(state: WatchState, answer_count: AnswerCount) -> tuple[str, ...]:
    """Return the items that are lost now and were not at the gate."""
    known_items = set(state.unwatched or ())
    return tuple(item for item in answer_count.lost_items if item not in known_items)


def _count_confirmed(state: WatchState, items: Sequence[GateItem]) -> AnswerCount | None:
    return count_answers(items, state.confirmed, state.errors.key.p0) if state.confirmed else None


def _build_figures(answer_count: AnswerCount, at: str) -> SweepFigures:
    """Build the figures of the items that were answered."""
    total = answer_count.right + len(answer_count.lost_items)
    bounds = clopper_pearson(answer_count.right, total, ALPHA)
    return SweepFigures(
        answer_count.right, total, bounds.lower, bounds.upper, at, answer_count.lost_items[:MOST_LOST_ITEMS]
    )


def _rank_standing(state: WatchState, items: Sequence[GateItem], threshold: float) -> int:
    now = derive_standing(state, items, threshold)
    return _GRAVITY.index(now) if now in _GRAVITY else -1
