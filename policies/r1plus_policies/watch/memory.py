"""What a pod's monitor remembers of its watch, and what follows from it: detectors, alarm, count, standing.

Pure; the monitor's `watching` asks and stores. An alarm is latched: it stands until what was scored changes, or until
somebody acknowledges it and the gate passes anew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from r1plus_contract.outcomes import ProbeOutcome, ProbeResult
from r1plus_contract.verdict import GateReport, Standing, StratumFigures, SweepFigures, Verdict, Watch
from r1plus_policies.bounds import clopper_pearson
from r1plus_policies.detector.detector import Detector, hear
from r1plus_policies.gate.verdict import MOST_LOST_ITEMS, GateItem, Subject, allowed_in_stratum, allowed_lost
from r1plus_policies.watch.confirmation import ALPHA, Confirmation, Count, Terms, by_stratum, count, judge

LEAST_TOLD: Final = 1e-4
"""Evidence below this share of an alarm is told as none: it comes and goes with every flip."""
_GRAVITY: Final = (Standing.CHANGED, Standing.ERRORS, Standing.BELOW_THRESHOLD)


@dataclass(frozen=True, slots=True)
class WatchState:
    """As stored."""

    subject: Subject
    accuracy: Detector
    """Hears the answers to watched items."""
    errors: Detector
    """Hears every outcome of a watched item; a failure is an error or a time-out of the server."""
    unwatched: tuple[str, ...] | None
    """Items that the gate lost. None until a sweep has told, where the gate did not count to its end."""
    epoch: str = ""
    sequence: int = 0
    """Up to which outcome of which epoch the detectors have heard."""
    alarmed_at: str = ""
    counting: Confirmation | None = None
    """The confirming sweep that is under way."""
    confirmed: Confirmation | None = None
    """The gravest one that is complete."""
    confirmed_at: str = ""
    acknowledged: str = ""
    """The newest acknowledgement that has been acted on."""
    acknowledged_after: int = 0
    """Up to which outcome of the epoch the detectors had heard when it was."""


def born(
    subject: Subject, accuracy: Detector, errors: Detector, gate: GateReport, acknowledged: str = ""
) -> WatchState:
    """A watch over what this gate let in."""
    complete = gate.verdict is Verdict.PASS and gate.lost == len(gate.lost_items)
    unwatched = gate.lost_items if complete else None
    return WatchState(subject, accuracy, errors, unwatched, acknowledged=acknowledged)


def heard(state: WatchState, outcome: ProbeOutcome, at: str, seed: int) -> WatchState:
    """The watch after one outcome: an alarm is dated and starts a count. An outcome heard before changes nothing."""
    if outcome.sequence <= state.sequence:
        return state
    erred = outcome.result is ProbeResult.SERVER_ERROR
    accuracy = state.accuracy if erred else hear(state.accuracy, outcome.item, outcome.result is ProbeResult.CORRECT)
    errors = hear(state.errors, outcome.item, not erred)
    after = replace(state, accuracy=accuracy, errors=errors, sequence=outcome.sequence)
    if (accuracy.alarmed, errors.alarmed) == (state.accuracy.alarmed, state.errors.alarmed):
        return after
    return replace(recount(after, seed), alarmed_at=after.alarmed_at or at)


def recount(state: WatchState, seed: int) -> WatchState:
    """Count now; a count that is under way goes on."""
    return state if state.counting else replace(state, counting=Confirmation(seed))


def confirmed(state: WatchState, items: Sequence[GateItem], threshold: float, at: str) -> WatchState:
    """The count that was under way is complete: it is kept unless an earlier one was graver."""
    done = replace(state, counting=None)
    if state.counting is None:
        return done
    counted = replace(done, confirmed=state.counting, confirmed_at=at)
    return counted if _gravity(counted, items, threshold) >= _gravity(done, items, threshold) else done


def standing(state: WatchState, items: Sequence[GateItem], threshold: float) -> Standing:
    """What the watch says under this threshold: a count is judged by whatever the threshold is now."""
    if not state.alarmed_at:
        return Standing.STEADY
    if state.confirmed is None:
        return Standing.CONFIRMING
    found = count(items, state.confirmed, state.errors.key.p0)
    return judge(items, found, Terms(threshold, state.errors.key.p0, state.errors.alarmed))


def told(evidence: float) -> float:
    """Rounded down to a power of ten, at most 1, so that it is 1 from the alarm on and never before."""
    if evidence < LEAST_TOLD:
        return 0.0
    return min(1.0, float(f"1e{math.floor(math.log10(evidence))}"))


def watch(state: WatchState, items: Sequence[GateItem], threshold: float) -> Watch:
    """The watch as the monitor reports it."""
    found = _counted(state, items)
    lost = lost_since_gate(state, found) if found else ()
    sizes = by_stratum(items, [item.id for item in items]) if lost else {}
    return Watch(
        standing=standing(state, items, threshold),
        watched=0 if state.unwatched is None else len(items) - len(state.unwatched),
        evidence=told(state.accuracy.ratio),
        error_evidence=told(state.errors.ratio),
        alarmed_at=state.alarmed_at,
        confirmation=_figures(found, state.confirmed_at) if found else None,
        lost_since_gate=lost[:MOST_LOST_ITEMS],
        strata=tuple(
            StratumFigures(name, sizes[name], n, allowed_in_stratum(sizes[name], threshold))
            for name, n in by_stratum(items, lost).items()
        ),
    )


def message(state: WatchState, items: Sequence[GateItem], threshold: float) -> str:
    """What the count found, in words."""
    found = _counted(state, items)
    if found is None:
        return f"a detector alarmed at {state.alarmed_at}; a sweep over all {len(items)} items is counting"
    new = lost_since_gate(state, found)
    strata = ", ".join(f"{name} {n}" for name, n in by_stratum(items, new).items())
    since = f"since the gate lost {len(new)} items{f': {strata}' if strata else ''}"
    allowed = allowed_lost(found.items, threshold)
    parts = [since, f"in all {len(found.lost)} of {found.items}, {allowed} allowed at threshold {threshold:g}"]
    if found.first_upper < threshold:
        parts.append(f"first answers are right in {found.first_upper:.3f} at most (alpha {ALPHA:g})")
    if found.unanswered or not found.whole:
        cut = "" if found.whole else ", and the sweep was broken off for errors"
        parts.append(f"{len(found.unanswered)} items got no answer{cut}")
    return "; ".join(parts)


def lost_since_gate(state: WatchState, found: Count) -> tuple[str, ...]:
    """Lost now and not at the gate."""
    known = set(state.unwatched or ())
    return tuple(item for item in found.lost if item not in known)


def _counted(state: WatchState, items: Sequence[GateItem]) -> Count | None:
    return count(items, state.confirmed, state.errors.key.p0) if state.confirmed else None


def _figures(found: Count, at: str) -> SweepFigures:
    """Of the items that were answered."""
    total = found.right + len(found.lost)
    bounds = clopper_pearson(found.right, total, ALPHA)
    return SweepFigures(found.right, total, bounds.lower, bounds.upper, at, found.lost[:MOST_LOST_ITEMS])


def _gravity(state: WatchState, items: Sequence[GateItem], threshold: float) -> int:
    now = standing(state, items, threshold)
    return _GRAVITY.index(now) if now in _GRAVITY else -1
