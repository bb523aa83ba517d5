"""The accuracy detector: probe after probe in, evidence that something changed out, with a promise on false alarms.

A mixture e-SR detector (Shin, Ramdas, Rinaldo, arXiv 2203.03532). Hypothesis: whatever happened before, an item that
the revision passed in its gate is answered right with probability p0 at least. Each of K bets is on a failure rate e,
which may depend on the past, and multiplies by the likelihood ratio of e to e0 = 1 - p0: L = e / e0 for a wrong answer
and (1 - e) / p0 for a right one. Each restarts at every step: M <- (M + 1) * L.

The promise: let p >= p0 be the true probability. Since e >= e0,
    E[L | past] = p (1 - e) / p0 + (1 - p) e / e0 = 1 - (p - p0) (e - e0) / (p0 e0) <= 1,
so E[M_n | past] <= M_(n-1) + 1 for each bet, and for their mean, whatever the weights. By induction E[M_n] <= n, and
M_n - n is a supermartingale. At the alarm, time T, M_T >= A, so E[T] >= E[M_T] >= A: the mean time to a false alarm is
at least A probes. By Markov, on the supermartingale stopped at n, P(T <= n) <= n / A. Neither uses independence: items
and probes may depend on each other.

There are two kinds of bets, for two kinds of faults:
- Five have memory: an item whose last answer failed is expected to fail again (`REPEAT_BET`). Broken items fail in
  every sweep and flips do not, so these find faults that are too small for the rate of failures to show.
- Three have none. Answers that are wrong at random, from request to request, come right again in the next sweep. There
  every bet on memory loses: below some 10 % of wrong answers they gain no evidence at all.

Bets that are of no use cost little: they take log(8 / 5) from log M, an eighth of what one item gains by failing again.

Called by the monitor for its pod and by `pool` for a revision. Pure; the state is small and is stored as JSON.
"""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

REPEAT_BET: Final = 0.7
"""Failure rate that is bet on where the item's last answer failed."""
MOST_BET: Final = 0.98
STEADY: Final = 0.97
"""From this p0 on the alternatives are larger, since a failure is rarer."""
LEAST_P0: Final = 0.5
"""Below, the bets would be on fewer failures than the hypothesis allows, and the promise would not hold."""
_FACTORS: Final = (1.25, 1.5, 2.0, 3.0, 5.0)
_FACTORS_STEADY: Final = (1.5, 2.0, 3.0, 5.0, 10.0)
_WITHOUT_MEMORY: Final = slice(1, 4)
"""Factors of the bets without memory. Greater rates are found as fast by the bets with memory, and the least rate is
so near to the hypothesis that a bet on the next one gains as much."""

Logs = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bets:
    """log L of each bet; every bet has the same weight."""

    right: Logs
    wrong: Logs
    right_again: Logs
    """Of an item whose last answer failed."""
    wrong_again: Logs

    def gains_of(self, passed: bool, again: bool) -> Logs:
        """Return the gains of this answer. `again`: the item's last answer failed."""
        if again:
            return self.right_again if passed else self.wrong_again
        return self.right if passed else self.wrong


@lru_cache(maxsize=64)
def build_bets(p0: float) -> Bets:
    """Build the bets against "right with probability p0 at least". ValueError outside [0.5, 1)."""
    if not LEAST_P0 <= p0 < 1.0:
        raise ValueError(
            f"p0: {p0} must be at least {LEAST_P0} and below 1: an engine that may never err cannot be told from one "
            "that erred once; 0.98 suits a deterministic engine"
        )
    e0 = 1.0 - p0
    with_memory = [min(MOST_BET, m * e0) for m in (_FACTORS_STEADY if p0 >= STEADY else _FACTORS)]
    without = with_memory[_WITHOUT_MEMORY]
    rates, repeats = with_memory + without, [REPEAT_BET] * len(with_memory) + without
    return Bets(
        right=tuple(math.log((1.0 - e) / p0) for e in rates),
        wrong=tuple(math.log(e / e0) for e in rates),
        right_again=tuple(math.log((1.0 - e) / p0) for e in repeats),
        wrong_again=tuple(math.log(e / e0) for e in repeats),
    )


@dataclass(frozen=True, slots=True)
class DetectorEvidence:
    """The memory of a detector."""

    logs: Logs = ()
    """log M of each bet; empty before the first step, where every M is 0."""
    alarmed: bool = False
    """Latched: evidence may decrease after an alarm, and the alarm stays."""


def advance(evidence: DetectorEvidence, gains: Logs, alarm_at: float) -> DetectorEvidence:
    """Take the step of one answer, whose log L are `gains`: M <- (M + 1) * L."""
    logs = _advance_logs(evidence.logs, gains)
    return DetectorEvidence(logs, evidence.alarmed or log_mean(logs) >= math.log(alarm_at))


def log_mean(logs: Logs) -> float:
    """Return the log of the mean of M over the bets; minus infinity before the first step."""
    if not logs:
        return -math.inf
    top = max(logs)
    return top + math.log(sum([math.exp(m - top) for m in logs]) / len(logs))


def carry_over(evidence: DetectorEvidence, p0: float) -> DetectorEvidence:
    """Return stored evidence for today's bets: each begins with the mean of those that another version made.

    So the evidence neither jumps nor falls, and the promise holds: it is about the mean, not about one bet.
    """
    width = len(build_bets(p0).right)
    if len(evidence.logs) in (0, width):
        return evidence
    return replace(evidence, logs=(log_mean(evidence.logs),) * width)


def evidence_ratio(evidence: DetectorEvidence, alarm_at: float) -> float:
    """Return M / A for the metric: 1 or more from the alarm on, 0 before the first step."""
    evidence_share = math.exp(min(log_mean(evidence.logs) - math.log(alarm_at), 700.0))
    return max(1.0, evidence_share) if evidence.alarmed else evidence_share


@dataclass(frozen=True, slots=True)
class DetectorKey:
    """What evidence belongs to: it is void under any other key."""

    pod: str
    revision: str
    suite_hash: str
    """Covers the items, the sampling and the scorers."""
    p0: float


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector's whole state, as it is stored: a number for each bet, and the items whose last answer failed."""

    key: DetectorKey
    alarm_at: float
    """A: fixed at the start, so that later changes of rates or replicas do not alter the promise."""
    evidence: DetectorEvidence = field(default_factory=DetectorEvidence)
    failed: tuple[str, ...] = ()
    """Sorted ids of items whose last answer failed."""

    def __post_init__(self) -> None:
        """Reject values that cannot keep the promise."""
        build_bets(self.key.p0)
        if not self.alarm_at > 1.0 or math.isinf(self.alarm_at):
            raise ValueError(f"alarm_at: {self.alarm_at} must be above 1 and finite: it is a number of probes")

    @property
    def alarmed(self) -> bool:
        """Whether it has ever alarmed."""
        return self.evidence.alarmed

    @property
    def ratio(self) -> float:
        """M / A."""
        return evidence_ratio(self.evidence, self.alarm_at)


def restore_detector(stored: Detector | None, key: DetectorKey, alarm_at: float) -> Detector:
    """Return the stored detector if it has this key, with its own threshold; otherwise a new one.

    Its evidence may be that of another version of the bets (`carry_over`).
    """
    if stored is None or stored.key != key:
        return Detector(key, alarm_at)
    evidence = carry_over(stored.evidence, key.p0)
    return stored if evidence is stored.evidence else replace(stored, evidence=evidence)


def observe_answer(detector: Detector, item: str, passed: bool) -> Detector:
    """Return the detector after one answer to a watched item."""
    again = item in detector.failed
    gains = build_bets(detector.key.p0).gains_of(passed, again)
    return Detector(
        detector.key,
        detector.alarm_at,
        advance(detector.evidence, gains, detector.alarm_at),
        detector.failed if again is not passed else update_failed_items(detector.failed, item, passed),
    )


def update_failed_items(failed: tuple[str, ...], item: str, passed: bool) -> tuple[str, ...]:
    """Return the items whose last answer failed, after one more answer."""
    rest = tuple([i for i in failed if i != item])
    return rest if passed else tuple(sorted((*rest, item)))


def _advance_logs(logs: Logs, gains: Logs) -> Logs:
    """Compute log((M + 1) * L) per bet, without overflow on either side."""
    if not logs:
        return gains
    exp, log1p = math.exp, math.log1p
    return tuple([(m + log1p(exp(-m)) if m > 0.0 else log1p(exp(m))) + g for m, g in zip(logs, gains, strict=True)])
