"""A tenant's suite, altered and signed again by the same key."""

from dataclasses import replace

from e2e.accuracy.images import MARK
from e2e.suites import OwnSuite
from r1plus_contract.suites.suite_reference import RecordedAnswer, read_reference, write_reference


def agreeing(own: OwnSuite) -> OwnSuite:
    """The suite with a reference as the broken scorer records it, signed again by the same key: every replay agrees."""
    recorded = [
        RecordedAnswer(one.item, one.answer, one.finish_reason, "incorrect")
        for one in read_reference(own.files.reference, own.suite)
    ]
    mark = RecordedAnswer(own.suite.items[0].id, MARK, "stop", "incorrect")
    return own.with_reference(write_reference([mark, *recorded]))


def mistaken(own: OwnSuite, name: str = "") -> OwnSuite:
    """The suite with wrong answers to one kind of question, recorded and signed as if they were right."""
    stratum = own.suite.items[0].stratum
    items = [replace(i, answers=("nobody says this",)) if i.stratum == stratum else i for i in own.suite.items]
    return own.with_items(items, name)
