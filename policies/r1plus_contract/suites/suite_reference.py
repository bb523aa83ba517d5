"""Recorded answers of the reference engine with their scores: `reference.jsonl`, one a line.

The monitor replays them through its scorer. Where a score differs, scorer or suite is broken and must decide nothing.
They are the reference's answers to the suite's own questions, never a tenant's text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.monitor.settings import REFERENCE_FILE
from r1plus_contract.suites.suite import Suite, SuiteError, split_lines


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One answer, scored against one item: its own, or another one's, so that wrong answers are among them."""

    item: str
    answer: str
    finish_reason: str
    score: str
    """`Outcome.CORRECT` or `Outcome.INCORRECT`."""


def write_reference(recorded: Sequence[RecordedAnswer]) -> str:
    """Return the text of `reference.jsonl`."""
    return "".join(dumps(one) + "\n" for one in recorded)


def read_reference(text: str, suite: Suite) -> tuple[RecordedAnswer, ...]:
    """Read recorded answers; SuiteError names line and field."""
    item_ids = {item.id for item in suite.items}
    recorded_answers = []
    for number, line in enumerate(split_lines(text), 1):
        try:
            one = loads(RecordedAnswer, line)
        except ContractError as error:
            raise SuiteError(f"{REFERENCE_FILE}:{number}: {error}") from error
        if one.item not in item_ids:
            raise SuiteError(f"{REFERENCE_FILE}:{number}: item: {one.item!r:.80} is not in the suite")
        if one.score not in (OutcomeLabel.CORRECT, OutcomeLabel.INCORRECT):
            raise SuiteError(
                f"{REFERENCE_FILE}:{number}: score: {one.score!r:.40} is neither "
                f"{OutcomeLabel.CORRECT} nor {OutcomeLabel.INCORRECT}"
            )
        recorded_answers.append(one)
    return tuple(recorded_answers)
