"""The gate's judgement: what was scored -> a verdict with its figures. Pure; `gate_run` decides which probe comes next.

A suite is a finite population whose every item the reference answers right, so accuracy is the share still right.
Every item is asked in `full_sweeps` sweeps at the production batch and once alone (batch 1), where an item that fails
is asked again until two of three agree. An item is *lost* if it fails at least twice of three in either condition.

One reading is ours: failures that count against `Unstable` are those of items that are *not* lost in the full sweeps.
A lost item fails in every sweep; counted here as well, the four lost items that a threshold of 0.98 allows would break
the limit of 15 failures in 600 by themselves, and the threshold would promise what the gate refuses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Final

from r1plus_contract.verdict import GateReport, StratumFigures, Verdict
from r1plus_policies.bounds import binomial_quantile, hypergeometric_at_least, mcnemar_exact

MOST_LOST_ITEMS: Final = 50
"""Ids that a report lists: it travels in an annotation."""
FAILS_TO_LOSE: Final = 2
SINGLE_ASKS: Final = 3
"""An item that fails at batch 1 is asked twice more."""
SHORT_CHECK_ITEMS: Final = 40
SHORT_CHECK_ALPHA: Final = Fraction(5, 100)


class Reason(StrEnum):
    """Stable reasons of a gate's report."""

    PASSED = "Passed"
    TOO_MANY_LOST = "TooManyLost"
    STRATUM_LOST = "StratumLost"
    UNSTABLE = "Unstable"
    ITEMS_UNSCORED = "ItemsUnscored"


class Score(StrEnum):
    """One probe's worth to the gate. A server error or time-out is FAILED; no answer at all is UNSCORED."""

    CORRECT = "1"
    FAILED = "0"
    UNSCORED = "x"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the gate holds an engine to."""

    threshold: float
    """Least share of items that must still be right, in (0, 1]."""
    batch: int
    """Requests in flight during the full sweeps."""
    full_sweeps: int = 3
    single_sweep: bool = True
    """Whether every item is asked at batch 1, too; a short check leaves that to the revision's own gate."""
    flip_rate: float = 0.01
    """How often a healthy engine fails an item that it usually passes, per probe: measured on the demo engines."""
    flip_quantile: float = 0.999
    unscored_retries: int = 2

    def __post_init__(self) -> None:
        """Refuse what no gate can be held to."""
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"threshold: {self.threshold} must be above 0 and at most 1")
        if self.batch < 1:
            raise ValueError(f"batch: {self.batch} must be 1 or more")
        if self.full_sweeps < FAILS_TO_LOSE:
            raise ValueError(f"full_sweeps: {self.full_sweeps} must be {FAILS_TO_LOSE} or more")


@dataclass(frozen=True, slots=True)
class GateItem:
    """What the gate knows of an item: never its text."""

    id: str
    stratum: str


@dataclass(frozen=True, slots=True)
class ItemScores:
    """All that was scored of one item; None where a full sweep has not reached it."""

    item: GateItem
    full: tuple[Score | None, ...]
    single: tuple[Score, ...]

    @property
    def lost_at_batch(self) -> bool:
        return self.full.count(Score.FAILED) >= FAILS_TO_LOSE

    @property
    def lost_at_batch_1(self) -> bool:
        return self.single.count(Score.FAILED) >= FAILS_TO_LOSE

    @property
    def lost(self) -> bool:
        return self.lost_at_batch or self.lost_at_batch_1

    @property
    def unscored(self) -> bool:
        return Score.UNSCORED in self.full or Score.UNSCORED in self.single


@dataclass(frozen=True, slots=True)
class Stage:
    """How far the gate is: whole full sweeps, and whether the sweep at batch 1 is done."""

    full_sweeps: int
    single: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The counts behind a judgement."""

    items: int
    allowed: int
    lost: tuple[str, ...]
    lost_at_batch_1: int
    strata: tuple[StratumFigures, ...]
    failures: int
    flips: int
    flips_allowed: int
    probes: int
    unscored: int
    stage: Stage


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its cause."""

    verdict: Verdict
    reason: Reason
    message: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Subject:
    """What was scored: a verdict holds for exactly this."""

    identity: str
    suite: str
    suite_hash: str
    scorer_version: str


def allowed_lost(items: int, threshold: float) -> int:
    """floor(N(1-t)), exactly: 0.98 means 49/50, not the float beside it (200 x 0.02 is 4, never 3)."""
    return int(items * (1 - Fraction(repr(threshold))))


def allowed_in_stratum(items: int, threshold: float) -> int:
    """One more than the overall share: strata are small, and a single item must not decide."""
    return allowed_lost(items, threshold) + 1


def figures_of(scores: Sequence[ItemScores], rules: Rules, stage: Stage) -> Figures:
    """Count everything once; the checks below only compare."""
    kept = [s for s in scores if not s.lost_at_batch]
    return Figures(
        items=len(scores),
        allowed=allowed_lost(len(scores), rules.threshold),
        lost=tuple(sorted(s.item.id for s in scores if s.lost)),
        lost_at_batch_1=sum(s.lost_at_batch_1 for s in scores),
        strata=_strata(scores, rules.threshold),
        failures=sum(s.full.count(Score.FAILED) for s in scores),
        flips=sum(s.full.count(Score.FAILED) for s in kept),
        flips_allowed=binomial_quantile(len(kept) * rules.full_sweeps, rules.flip_rate, rules.flip_quantile),
        probes=sum(len(s.full) - s.full.count(None) + len(s.single) for s in scores),
        unscored=sum(s.unscored for s in scores),
        stage=stage,
    )


def judge(scores: Sequence[ItemScores], rules: Rules, stage: Stage) -> Judgement | None:
    """The verdict, or None while more must be scored. Fail may come early; Pass only when all is done.

    Whole full sweeps count alone. The next one has begun while the last answers of this one were awaited: judged by
    it, too, a Fail would name the few items that it happened to reach, and not what the engine loses.
    """
    given = figures_of([_whole(s, stage) for s in scores], rules, stage)
    found = next((j for check in CHECKS if (j := check(given, rules))), None)
    if found is None and given.items and stage.single and stage.full_sweeps >= rules.full_sweeps:
        return Judgement(Verdict.PASS, Reason.PASSED, _passed(given, rules), given)
    return found


def report(judgement: Judgement, rules: Rules, subject: Subject, *, seconds: float, decided_at: str) -> GateReport:
    """The judgement as it leaves the monitor."""
    figures = judgement.figures
    return GateReport(
        verdict=judgement.verdict,
        reason=judgement.reason.value,
        message=judgement.message,
        identity=subject.identity,
        suite=subject.suite,
        suite_hash=subject.suite_hash,
        scorer_version=subject.scorer_version,
        threshold=rules.threshold,
        items=figures.items,
        lost=len(figures.lost),
        allowed=figures.allowed,
        strata=figures.strata,
        failures=figures.failures,
        probes=figures.probes,
        sweeps=figures.stage.full_sweeps,
        lost_at_batch_1=figures.lost_at_batch_1,
        lost_items=figures.lost[:MOST_LOST_ITEMS],
        seconds=round(seconds, 1),
        decided_at=decided_at,
        batch=rules.batch,
    )


def rejudge(known: GateReport, threshold: float) -> Verdict | None:
    """A Pass under another threshold, from its own figures; None where only a new gate can tell.

    A Pass has scored everything, so its counts decide under any threshold. A Fail may have stopped early: under a
    lower threshold nobody knows what it would have lost.
    """
    if known.threshold == threshold:
        return known.verdict
    if known.verdict is not Verdict.PASS:
        return None
    within = known.lost <= allowed_lost(known.items, threshold)
    strata = all(s.lost <= allowed_in_stratum(s.items, threshold) for s in known.strata)
    return Verdict.PASS if within and strata else None


def short_check_allowed(items: int, threshold: float, drawn: int) -> int:
    """Most items that a sample of `drawn` may lose in a pod whose revision has passed.

    A revision that passed has at most c lost items, so the losses of a sample drawn without replacement are at most
    hypergeometric(N, c, drawn). The limit is the least k that such a revision exceeds with probability <= 5 % (2 of 40
    for N = 210, c = 4). One pod in twenty at worst is asked the whole suite for nothing: a sample never says Fail.
    """
    lost = allowed_lost(items, threshold)
    return next(k for k in range(drawn + 1) if hypergeometric_at_least(k + 1, items, lost, drawn) <= SHORT_CHECK_ALPHA)


def too_many_lost(given: Figures, rules: Rules) -> Judgement | None:
    """More items lost than the threshold allows over the whole suite."""
    lost = len(given.lost)
    if lost <= given.allowed:
        return None
    message = (
        f"lost {lost} of {given.items} items, {given.allowed} allowed at threshold {rules.threshold:g}; "
        f"{_by_stratum(given)}{_so_far(given, rules)}; McNemar p = {mcnemar_exact(lost, 0):.1g}"
    )
    return Judgement(Verdict.FAIL, Reason.TOO_MANY_LOST, message, given)


def stratum_lost(given: Figures, rules: Rules) -> Judgement | None:
    """One stratum is broken although the whole suite holds."""
    worst = max(given.strata, key=lambda s: s.lost - s.allowed, default=None)
    if worst is None or worst.lost <= worst.allowed:
        return None
    message = (
        f"lost {worst.lost} of {worst.items} items of stratum {worst.name}, {worst.allowed} allowed at threshold "
        f"{rules.threshold:g}; over all {len(given.lost)} of {given.items}, {given.allowed} allowed"
        f"{_so_far(given, rules)}"
    )
    return Judgement(Verdict.FAIL, Reason.STRATUM_LOST, message, given)


def unstable(given: Figures, rules: Rules) -> Judgement | None:
    """Failures that do not repeat: each item looks sound, and yet a user meets a wrong answer too often."""
    if given.stage.full_sweeps < rules.full_sweeps or given.flips <= given.flips_allowed:
        return None
    message = (
        f"{given.flips} failures that did not repeat in {rules.full_sweeps} sweeps at batch {rules.batch}, at most "
        f"{given.flips_allowed} expected at a flip rate of {rules.flip_rate:g} (quantile {rules.flip_quantile:g}); "
        f"lost {len(given.lost)} of {given.items} items, {given.allowed} allowed"
    )
    return Judgement(Verdict.FAIL, Reason.UNSTABLE, message, given)


def items_unscored(given: Figures, rules: Rules) -> Judgement | None:
    """An item without a score is not good news."""
    if not given.unscored:
        return None
    message = (
        f"{given.unscored} of {given.items} items have no score after {rules.unscored_retries} retries; lost "
        f"{len(given.lost)} of the others, {given.allowed} allowed; the gate starts anew once the engine answers"
    )
    return Judgement(Verdict.INCONCLUSIVE, Reason.ITEMS_UNSCORED, message, given)


CHECKS: Final[tuple[Callable[[Figures, Rules], Judgement | None], ...]] = (
    too_many_lost,
    stratum_lost,
    unstable,
    items_unscored,
)
"""In order; the first that speaks decides. A Fail outranks missing scores: more scores would not mend it."""


def _whole(scores: ItemScores, stage: Stage) -> ItemScores:
    begun = len(scores.full) - stage.full_sweeps
    return replace(scores, full=scores.full[: stage.full_sweeps] + (None,) * begun) if begun else scores


def _strata(scores: Sequence[ItemScores], threshold: float) -> tuple[StratumFigures, ...]:
    sizes: dict[str, list[int]] = {}
    for s in scores:
        size = sizes.setdefault(s.item.stratum, [0, 0])
        size[0] += 1
        size[1] += s.lost
    return tuple(
        StratumFigures(name=name, items=n, lost=lost, allowed=allowed_in_stratum(n, threshold))
        for name, (n, lost) in sorted(sizes.items())
    )


def _by_stratum(given: Figures) -> str:
    hit = sorted((s for s in given.strata if s.lost), key=lambda s: (-s.lost, s.name))
    return ", ".join(f"{s.name} {s.lost} of {s.items}" for s in hit)


def _so_far(given: Figures, rules: Rules) -> str:
    if given.stage.full_sweeps >= rules.full_sweeps:
        return f" ({given.lost_at_batch_1} of them at batch 1)" if given.lost_at_batch_1 else ""
    return f" (stopped after sweep {given.stage.full_sweeps} of {rules.full_sweeps})"


def _passed(given: Figures, rules: Rules) -> str:
    lost = f"lost {len(given.lost)} of {given.items} items, {given.allowed} allowed at threshold {rules.threshold:g}"
    return (
        f"{lost}; {given.failures} failures in {given.items * rules.full_sweeps} probes at batch {rules.batch}, "
        f"{given.lost_at_batch_1} items lost at batch 1"
    )
