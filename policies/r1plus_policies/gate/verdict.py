"""The gate's judgement: scores -> a verdict with its figures. Pure; `gate.run` decides which probe comes next.

A suite is a finite population whose every item the reference answers right, so accuracy is the share still right.
Every item is asked in `full_sweeps` sweeps at the production batch and once alone (batch 1). An item that fails alone
is asked again until two of three agree. An item is *lost* if it fails at least twice of three in either condition.

Failures that count against `Unstable` are those of items that are *not* lost in the full sweeps. A lost item fails in
every sweep. A threshold of 0.98 allows four of them, and they alone would exceed the limit of 15 failures in 600.

These two allowances would add up: users of an engine with four lost items and 15 flips get 4.5 % wrong answers. So
the share of right first answers must not be below the threshold less a margin either (`FirstAnswers`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Final

from r1plus_contract.verdict import GateReport, StratumFigures, Verdict
from r1plus_policies.bounds import binomial_quantile, hypergeometric_at_least, mcnemar_exact
from r1plus_policies.gate.first_answers import FLIP_QUANTILE, FLIP_RATE, MOST_FIRST_ANSWERS, FirstAnswers

MOST_LOST_ITEMS: Final = 50
"""Ids that a report lists: it is stored in an annotation."""
FAILS_TO_LOSE: Final = 2
SINGLE_ASKS: Final = 3
"""An item that fails at batch 1 is asked twice more."""
SHORT_CHECK_ITEMS: Final = 40
SHORT_CHECK_ALPHA: Final = Fraction(5, 100)


class GateReason(StrEnum):
    """Stable reasons of a gate's report."""

    PASSED = "Passed"
    TOO_MANY_LOST = "TooManyLost"
    STRATUM_LOST = "StratumLost"
    UNSTABLE = "Unstable"
    TOO_MANY_WRONG = "TooManyWrong"
    ITEMS_UNSCORED = "ItemsUnscored"


class Score(StrEnum):
    """The gate's score of one probe. A server error or time-out is FAILED; no answer at all is UNSCORED."""

    CORRECT = "1"
    FAILED = "0"
    UNSCORED = "x"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a gate."""

    threshold: float
    """Least share of items that must still be right, in (0, 1]."""
    batch: int
    """Requests in flight during the full sweeps."""
    full_sweeps: int = 3
    single_sweep: bool = True
    """Whether every item is asked at batch 1, too; a short check leaves that to the revision's own gate."""
    flip_rate: float = FLIP_RATE
    flip_quantile: float = FLIP_QUANTILE
    unscored_retries: int = 2

    def __post_init__(self) -> None:
        """Reject invalid values."""
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"threshold: {self.threshold} must be above 0 and at most 1")
        if self.batch < 1:
            raise ValueError(f"batch: {self.batch} must be 1 or more")
        if self.full_sweeps < FAILS_TO_LOSE:
            raise ValueError(f"full_sweeps: {self.full_sweeps} must be {FAILS_TO_LOSE} or more")

    @classmethod
    def for_sample(cls, batch: int) -> "Rules":
        """Return the rules of a short check: two full sweeps, and the gate's limit of flips.

        `short_check_limit` bounds its lost items, so the threshold is such that the gate's own tests never do.
        """
        return cls(threshold=1e-9, batch=batch, full_sweeps=FAILS_TO_LOSE, single_sweep=False)


@dataclass(frozen=True, slots=True)
class GateItem:
    """An item as the gate sees it: without its text."""

    id: str
    stratum: str


@dataclass(frozen=True, slots=True)
class ItemScores:
    """All scores of one item; None where a full sweep has not reached it."""

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
class GateStage:
    """How far the gate is: whole full sweeps, and whether the sweep at batch 1 is done."""

    full_sweeps: int
    single: bool


@dataclass(frozen=True, slots=True)
class GateFigures:
    """The counts behind a judgement."""

    items: int
    lost_limit: int
    lost_items: tuple[str, ...]
    lost_at_batch_1: int
    strata: tuple[StratumFigures, ...]
    failures: int
    flips: int
    flips_allowed: int
    probes: int
    unscored_items: int
    stage: GateStage


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its cause."""

    verdict: Verdict
    reason: GateReason
    message: str
    figures: GateFigures


@dataclass(frozen=True, slots=True)
class VerdictSubject:
    """What was scored: a verdict holds for exactly this."""

    identity: str
    suite: str
    suite_hash: str
    scorer_version: str


@lru_cache(maxsize=1024)
def max_lost_items(items: int, threshold: float) -> int:
    """Return floor(N(1-t)), exactly: 0.98 means 49/50, not the nearest float (200 x 0.02 is 4, never 3)."""
    return int(items * (1 - Fraction(repr(threshold))))


def max_lost_in_stratum(items: int, threshold: float) -> int:
    """Return one more than the overall share: strata are small, and a single item must not decide."""
    return max_lost_items(items, threshold) + 1


def count_figures(scores: Sequence[ItemScores], rules: Rules, stage: GateStage) -> GateFigures:
    """Count everything once; the checks below only compare."""
    not_lost = [s for s in scores if not s.lost_at_batch]
    return GateFigures(
        items=len(scores),
        lost_limit=max_lost_items(len(scores), rules.threshold),
        lost_items=tuple(sorted(s.item.id for s in scores if s.lost)),
        lost_at_batch_1=sum(s.lost_at_batch_1 for s in scores),
        strata=_count_strata(scores, rules.threshold),
        failures=sum(s.full.count(Score.FAILED) for s in scores),
        flips=sum(s.full.count(Score.FAILED) for s in not_lost),
        flips_allowed=binomial_quantile(len(not_lost) * rules.full_sweeps, rules.flip_rate, rules.flip_quantile),
        probes=sum(len(s.full) - s.full.count(None) + len(s.single) for s in scores),
        unscored_items=sum(s.unscored for s in scores),
        stage=stage,
    )


def judge_gate(scores: Sequence[ItemScores], rules: Rules, stage: GateStage) -> Judgement | None:
    """Return the verdict, or None while more must be scored. Fail may come early; Pass only when all is done.

    Only whole full sweeps count. The next one has begun while the last answers of this one were awaited. With those
    scores a Fail would name the few items that it happened to reach.
    """
    figures = count_figures([_keep_whole_sweeps(s, stage) for s in scores], rules, stage)
    judgement = next((j for check in CHECKS if (j := check(figures, rules))), None)
    if judgement is None and figures.items and stage.single and stage.full_sweeps >= rules.full_sweeps:
        return Judgement(Verdict.PASS, GateReason.PASSED, _describe_pass(figures, rules), figures)
    return judgement


def build_report(
    judgement: Judgement, rules: Rules, subject: VerdictSubject, *, seconds: float, decided_at: str
) -> GateReport:
    """Build the report that leaves the monitor."""
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
        lost=len(figures.lost_items),
        allowed=figures.lost_limit,
        strata=figures.strata,
        failures=figures.failures,
        probes=figures.probes,
        sweeps=figures.stage.full_sweeps,
        lost_at_batch_1=figures.lost_at_batch_1,
        lost_items=figures.lost_items[:MOST_LOST_ITEMS],
        seconds=round(seconds, 1),
        decided_at=decided_at,
        batch=rules.batch,
    )


def rejudge(known_report: GateReport, threshold: float) -> Verdict | None:
    """Judge a report under another threshold, from its own figures; None where only a new gate can decide.

    A Pass has scored everything, so its counts decide under any threshold. A Fail stays one under a higher threshold.
    What it would have lost under a lower one is unknown, unless that allows the same losses: it may have stopped early.
    """
    if allows_same(known_report, threshold):
        return known_report.verdict
    if known_report.verdict is Verdict.FAIL and threshold > known_report.threshold:
        return Verdict.FAIL
    if known_report.verdict is not Verdict.PASS:
        return None
    within = known_report.lost <= max_lost_items(known_report.items, threshold)
    strata = all(s.lost <= max_lost_in_stratum(s.items, threshold) for s in known_report.strata)
    strata &= threshold < known_report.threshold or not _has_unlisted_losses(known_report)
    first = threshold < known_report.threshold or _are_failures_healthy(known_report)
    return Verdict.PASS if within and strata and first else None


def _are_failures_healthy(known_report: GateReport) -> bool:
    """Whether a report's first answers suffice under every threshold; it does not tell flips from lost items."""
    first = FirstAnswers(known_report.items * known_report.sweeps, known_report.failures, known_report.failures)
    # The report may be of a monitor that was taken over: a count beyond every suite would take for ever.
    return 0 <= first.failures <= first.asked <= MOST_FIRST_ANSWERS and first.are_healthy


def _has_unlisted_losses(known_report: GateReport) -> bool:
    """Whether a stratum that the report does not list may have lost two items: one is allowed under any threshold."""
    return known_report.lost - sum(stratum.lost for stratum in known_report.strata) > 1


def allows_same(known_report: GateReport, threshold: float) -> bool:
    """Return whether a threshold allows the same losses as the report's own, over all and in each stratum."""
    sizes = (known_report.items, *(stratum.items for stratum in known_report.strata))
    own = known_report.threshold
    if known_report.verdict is Verdict.PASS and threshold > own and _has_unlisted_losses(known_report):
        return False
    return own == threshold or all(max_lost_items(n, threshold) == max_lost_items(n, own) for n in sizes)


def short_check_limit(items: int, threshold: float, drawn: int) -> int:
    """Return the most items that a sample of `drawn` may lose in a pod whose revision has passed.

    A revision that passed has at most c lost items, so the losses of a sample drawn without replacement are at most
    hypergeometric(N, c, drawn). The limit is the least k that such a revision exceeds with probability <= 5 %: 2 of 40
    for N = 210, c = 4. At most one pod in twenty is asked the whole suite for nothing: a sample never causes a Fail.
    """
    lost_items = max_lost_items(items, threshold)
    return next(
        k for k in range(drawn + 1) if hypergeometric_at_least(k + 1, items, lost_items, drawn) <= SHORT_CHECK_ALPHA
    )


def check_total(figures: GateFigures, rules: Rules) -> Judgement | None:
    """Fail where more items are lost than the threshold allows over the whole suite."""
    lost_count = len(figures.lost_items)
    if lost_count <= figures.lost_limit:
        return None
    message = (
        f"lost {lost_count} of {figures.items} items, {figures.lost_limit} allowed at threshold {rules.threshold:g}; "
        f"{_list_strata(figures)}{_describe_progress(figures, rules)}; McNemar p = {mcnemar_exact(lost_count, 0):.1g}"
    )
    return Judgement(Verdict.FAIL, GateReason.TOO_MANY_LOST, message, figures)


def check_strata(figures: GateFigures, rules: Rules) -> Judgement | None:
    """Fail where one stratum loses too much although the whole suite does not."""
    worst = max(figures.strata, key=lambda s: s.lost - s.allowed, default=None)
    if worst is None or worst.lost <= worst.allowed:
        return None
    message = (
        f"lost {worst.lost} of {worst.items} items of stratum {worst.name}, {worst.allowed} allowed at threshold "
        f"{rules.threshold:g}; over all {len(figures.lost_items)} of {figures.items}, {figures.lost_limit} allowed"
        f"{_describe_progress(figures, rules)}"
    )
    return Judgement(Verdict.FAIL, GateReason.STRATUM_LOST, message, figures)


def check_stability(figures: GateFigures, rules: Rules) -> Judgement | None:
    """Fail where failures do not repeat: no item is lost, but users get wrong answers too often."""
    if figures.stage.full_sweeps < rules.full_sweeps or figures.flips <= figures.flips_allowed:
        return None
    message = (
        f"{figures.flips} failures that did not repeat in {rules.full_sweeps} sweeps at batch {rules.batch}, at most "
        f"{figures.flips_allowed} expected at a flip rate of {rules.flip_rate:g} (quantile {rules.flip_quantile:g}); "
        f"lost {len(figures.lost_items)} of {figures.items} items, {figures.lost_limit} allowed"
    )
    return Judgement(Verdict.FAIL, GateReason.UNSTABLE, message, figures)


def check_first_answers(figures: GateFigures, rules: Rules) -> Judgement | None:
    """Fail where lost items and flips, each within its own limit, are together too many wrong answers."""
    asked = figures.items * rules.full_sweeps
    first = FirstAnswers(asked, figures.failures, figures.flips, rules.flip_rate, rules.flip_quantile)
    if figures.stage.full_sweeps < rules.full_sweeps or first.suffice(rules.threshold):
        return None
    message = (
        f"{first.failures} of {first.asked} answers at batch {rules.batch} are wrong, {first.flips} of them of items "
        f"that are not lost; so the share that is right may be as low as {first.lower:.4f}, and at least "
        f"{rules.threshold - first.margin:.4f} is needed: threshold {rules.threshold:g} less a margin of "
        f"{first.margin:.4f}; lost {len(figures.lost_items)} of {figures.items} items, "
        f"{figures.lost_limit} allowed"
    )
    return Judgement(Verdict.FAIL, GateReason.TOO_MANY_WRONG, message, figures)


def check_unscored(figures: GateFigures, rules: Rules) -> Judgement | None:
    """Return Inconclusive where an item has no score."""
    if not figures.unscored_items:
        return None
    message = (
        f"{figures.unscored_items} of {figures.items} items have no score after {rules.unscored_retries} retries; lost "
        f"{len(figures.lost_items)} of the others, {figures.lost_limit} allowed; the gate is repeated once the engine"
        " answers"
    )
    return Judgement(Verdict.INCONCLUSIVE, GateReason.ITEMS_UNSCORED, message, figures)


CHECKS: Final[tuple[Callable[[GateFigures, Rules], Judgement | None], ...]] = (
    check_total,
    check_strata,
    check_stability,
    check_first_answers,
    check_unscored,
)
"""In order; the first with a judgement decides. A Fail outranks missing scores: more scores would not change it."""


def _keep_whole_sweeps(scores: ItemScores, stage: GateStage) -> ItemScores:
    begun_sweeps = len(scores.full) - stage.full_sweeps
    return replace(scores, full=scores.full[: stage.full_sweeps] + (None,) * begun_sweeps) if begun_sweeps else scores


def _count_strata(scores: Sequence[ItemScores], threshold: float) -> tuple[StratumFigures, ...]:
    sizes: dict[str, list[int]] = {}
    for s in scores:
        size = sizes.setdefault(s.item.stratum, [0, 0])
        size[0] += 1
        size[1] += s.lost
    return tuple(
        StratumFigures(name=name, items=n, lost=lost_count, allowed=max_lost_in_stratum(n, threshold))
        for name, (n, lost_count) in sorted(sizes.items())
    )


def _list_strata(figures: GateFigures) -> str:
    hit = sorted((s for s in figures.strata if s.lost), key=lambda s: (-s.lost, s.name))
    return ", ".join(f"{s.name} {s.lost} of {s.items}" for s in hit)


def _describe_progress(figures: GateFigures, rules: Rules) -> str:
    if figures.stage.full_sweeps >= rules.full_sweeps:
        return f" ({figures.lost_at_batch_1} of them at batch 1)" if figures.lost_at_batch_1 else ""
    return f" (stopped after sweep {figures.stage.full_sweeps} of {rules.full_sweeps})"


def _describe_pass(figures: GateFigures, rules: Rules) -> str:
    lost = len(figures.lost_items)
    return (
        f"lost {lost} of {figures.items} items, {figures.lost_limit} allowed at threshold {rules.threshold:g}; "
        f"{figures.failures} failures in {figures.items * rules.full_sweeps} probes at batch {rules.batch}, "
        f"{figures.lost_at_batch_1} items lost at batch 1"
    )
