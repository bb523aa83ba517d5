"""`r1plus suite verify`: everything that would keep a suite from being used, before anybody is held to it.

What the operator refuses, by the operator's own check; then what only the live scorers can tell; then what is unwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import Outcome
from r1plus_contract.settings import ITEMS_FILE, REFERENCE_FILE
from r1plus_contract.suite import Suite, SuiteError
from r1plus_contract.suite_baseline import Measurement, find_reference_result
from r1plus_contract.suite_check import check, read_items
from r1plus_contract.suite_files import SIGNATURE_FILE, SuiteFiles, key_id
from r1plus_contract.suite_reference import read_reference
from r1plus_monitoring.scoring.replay import replay
from r1plus_monitoring.scoring.scorers import ScorerName, score
from r1plus_operator.observe.suite_signature import signer
from r1plus_operator.pins import SHIPPED_SUITES

OPEN_FORMS = (ScorerName.NEAR, ScorerName.JSON)
"""Scorers whose expectation is a form and no answer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a suite should have: ACCURACY's figures, which the operator does not insist on."""

    items: int = 200
    per_stratum: int = 50


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found."""

    suite: Suite | None
    problems: tuple[str, ...]
    signer: str = ""
    """Public key; empty where nobody signed."""
    reached: Measurement | None = None
    recorded: int = 0
    shipped: bool = False
    """Whether it is, byte for byte, one of this version's own."""

    def summary(self) -> Iterator[str]:
        """What a sound suite is, a line each."""
        assert self.suite is not None
        header = self.suite.header
        strata = ", ".join(f"{name} {size}" for name, size in self.suite.strata().items())
        yield f"{header.name}: {header.items} items ({strata}), reference {header.reference_engine}"
        yield f"sha256 {header.sha256}, scorer version {header.scorer_version}"
        shipped = "; shipped with this version, and trusted without" if self.shipped else ""
        yield (
            f"signed by key {key_id(self.signer)}, public key {self.signer}" if self.signer else f"not signed{shipped}"
        )
        yield f"{self.recorded} recorded answers get their recorded scores" if self.recorded else "no recorded answers"
        if self.reached is None:
            yield "no baseline: a threshold that the reference misses will not be told of beforehand"


def verify(files: SuiteFiles, limits: Limits) -> Verified:
    """All problems at once."""
    found = check(files)
    problems = list(found.problems)
    signed_by = ""
    if not files.find_oversized():
        try:
            signed_by = signer(files)
        except SuiteError as error:
            problems.append(str(error))
    if found.suite is None:
        return Verified(None, tuple(problems), signed_by)
    suite = found.suite
    recorded = read_reference(files.reference, suite)
    problems += _refused_by_scorer(files)
    problems += (f"{REFERENCE_FILE}: {line}; record the answers again" for line in replay(suite, recorded))
    problems += _too_small(suite, limits)
    best = find_reference_result(files.baseline, suite.header) if files.baseline else None
    shipped = files.digest() in SHIPPED_SUITES.values()
    return Verified(suite, tuple(problems), signed_by, best, len(recorded), shipped)


def untrusted(found: Verified, trust: Sequence[str] | None) -> list[str]:
    """Why none of the keys named vouches for it; nothing where none is named."""
    if not trust or found.signer in trust:
        return []
    if not found.signer:
        return [f"{SIGNATURE_FILE}: not signed; sign it: r1plus suite sign"]
    return [f"{SIGNATURE_FILE}: signed by key {key_id(found.signer)}, not by {', '.join(map(key_id, trust))}"]


def _refused_by_scorer(files: SuiteFiles) -> Iterator[str]:
    for line, item in read_items(files.items, ITEMS_FILE)[0]:
        for number, answer in enumerate(() if item.scorer in OPEN_FORMS else item.answers):
            if score(item, answer, FinishReason.STOP) != Outcome.CORRECT:
                told = f"the scorer {item.scorer} calls this very answer wrong; write it as it would be said"
                yield f"{ITEMS_FILE}:{line}: answers[{number}]: {answer!r:.60}: {told}"


def _too_small(suite: Suite, limits: Limits) -> Iterator[str]:
    if len(suite.items) < limits.items:
        yield (
            f"{ITEMS_FILE}: {len(suite.items)} items, fewer than {limits.items}: a loss of 2 % may not show; "
            "write more candidates, or say --min-items"
        )
    for name, size in suite.strata().items():
        if size < limits.per_stratum:
            yield (
                f"{ITEMS_FILE}: stratum {name}: {size} items, fewer than {limits.per_stratum}: one flip weighs too "
                "much; write more candidates of this kind, or say --min-per-stratum"
            )
