"""`r1plus suite verify`: all problems of a suite, before it is used.

First the operator's own check, then the scorers, then recommendations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.monitor.settings import ITEMS_FILE, REFERENCE_FILE
from r1plus_contract.suites.suite import Suite, SuiteError
from r1plus_contract.suites.suite_baseline import Measurement, find_reference_result
from r1plus_contract.suites.suite_check import check, read_items
from r1plus_contract.suites.suite_files import SIGNATURE_FILE, SuiteFiles, key_id
from r1plus_contract.suites.suite_reference import read_reference
from r1plus_monitoring.scoring.replay import replay
from r1plus_monitoring.scoring.scorers import ScorerName, score
from r1plus_operator.observe.suite_signature import find_signer
from r1plus_operator.pins import SHIPPED_SUITES

OPEN_FORMS = (ScorerName.NEAR, ScorerName.JSON)
"""Scorers whose expectation is a form, not an answer."""


@dataclass(frozen=True, slots=True)
class RecommendedSizes:
    """Recommended sizes of a suite, which the operator does not enforce."""

    items: int = 200
    per_stratum: int = 50


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The result of a verification."""

    suite: Suite | None
    problems: tuple[str, ...]
    signer: str = ""
    """Public key of the signer; empty if unsigned."""
    reached: Measurement | None = None
    recorded: int = 0
    is_shipped: bool = False
    """Whether it equals one of this version's suites, byte for byte."""

    def format_summary(self) -> Iterator[str]:
        """Yield the lines that describe a valid suite."""
        assert self.suite is not None
        header = self.suite.header
        strata = ", ".join(f"{name} {size}" for name, size in self.suite.strata().items())
        yield f"{header.name}: {header.items} items ({strata}), reference {header.reference_engine}"
        yield f"sha256 {header.sha256}, scorer version {header.scorer_version}"
        shipped_note = "; shipped with this version, so trusted without a signature" if self.is_shipped else ""
        yield (
            f"signed by key {key_id(self.signer)}, public key {self.signer}"
            if self.signer
            else f"not signed{shipped_note}"
        )
        yield f"{self.recorded} recorded answers get their recorded scores" if self.recorded else "no recorded answers"
        if self.reached is None:
            yield "no baseline: thresholds above what the reference reaches are not rejected in advance"


def verify(files: SuiteFiles, limits: RecommendedSizes) -> VerificationResult:
    """Return all problems at once."""
    result = check(files)
    problems = list(result.problems)
    signed_by = ""
    if not files.find_oversized():
        try:
            signed_by = find_signer(files)
        except SuiteError as error:
            problems.append(str(error))
    if result.suite is None:
        return VerificationResult(None, tuple(problems), signed_by)
    suite = result.suite
    recorded = read_reference(files.reference, suite)
    problems += _find_scorer_problems(files)
    problems += (f"{REFERENCE_FILE}: {line}; record the answers again" for line in replay(suite, recorded))
    problems += _find_size_problems(suite, limits)
    baseline = find_reference_result(files.baseline, suite.header) if files.baseline else None
    is_shipped = files.digest() in SHIPPED_SUITES.values()
    return VerificationResult(suite, tuple(problems), signed_by, baseline, len(recorded), is_shipped)


def find_trust_problems(result: VerificationResult, trust: Sequence[str] | None) -> list[str]:
    """Return why none of the given keys signed it; empty without keys."""
    if not trust or result.signer in trust:
        return []
    if not result.signer:
        return [f"{SIGNATURE_FILE}: not signed; sign it: r1plus suite sign"]
    return [f"{SIGNATURE_FILE}: signed by key {key_id(result.signer)}, not by {', '.join(map(key_id, trust))}"]


def _find_scorer_problems(files: SuiteFiles) -> Iterator[str]:
    for line, item in read_items(files.items, ITEMS_FILE)[0]:
        for number, answer in enumerate(() if item.scorer in OPEN_FORMS else item.answers):
            if score(item, answer, FinishReason.STOP) != OutcomeLabel.CORRECT:
                reason = f"the scorer {item.scorer} rates this answer wrong; write it as the model would answer"
                yield f"{ITEMS_FILE}:{line}: answers[{number}]: {answer!r:.60}: {reason}"


def _find_size_problems(suite: Suite, limits: RecommendedSizes) -> Iterator[str]:
    if len(suite.items) < limits.items:
        yield (
            f"{ITEMS_FILE}: {len(suite.items)} items, fewer than {limits.items}: a loss of 2 % may not be visible; "
            "write more candidates, or set --min-items"
        )
    for name, size in suite.strata().items():
        if size < limits.per_stratum:
            yield (
                f"{ITEMS_FILE}: stratum {name}: {size} items, fewer than {limits.per_stratum}: one flip weighs too "
                "much; write more candidates of this kind, or set --min-per-stratum"
            )
