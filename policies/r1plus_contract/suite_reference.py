"""Recorded answers of the reference engine with the scores that they got: `reference.jsonl`, one a line.

The monitor replays them through its scorer: where one gets another score than it got, the scorer or the suite is broken
and nothing may be decided by them. They are the reference's answers to the suite's own
questions, never a tenant's text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.metrics import Outcome
from r1plus_contract.settings import REFERENCE_FILE
from r1plus_contract.suite import Suite, SuiteError, lines_of


@dataclass(frozen=True, slots=True)
class Recorded:
    """One answer, held against one item: its own, or another's, so that wrong answers are among them."""

    item: str
    answer: str
    finish_reason: str
    score: str
    """`Outcome.CORRECT` or `Outcome.INCORRECT`."""


def write_reference(recorded: Sequence[Recorded]) -> str:
    """The text of `reference.jsonl`."""
    return "".join(dumps(one) + "\n" for one in recorded)


def read_reference(text: str, suite: Suite) -> tuple[Recorded, ...]:
    """SuiteError names line and field."""
    known = {item.id for item in suite.items}
    found = []
    for number, line in enumerate(lines_of(text), 1):
        try:
            one = loads(Recorded, line)
        except ContractError as error:
            raise SuiteError(f"{REFERENCE_FILE}:{number}: {error}") from error
        if one.item not in known:
            raise SuiteError(f"{REFERENCE_FILE}:{number}: item: {one.item!r:.80} is not in the suite")
        if one.score not in (Outcome.CORRECT, Outcome.INCORRECT):
            raise SuiteError(
                f"{REFERENCE_FILE}:{number}: score: {one.score!r:.40} is neither "
                f"{Outcome.CORRECT} nor {Outcome.INCORRECT}"
            )
        found.append(one)
    return tuple(found)
