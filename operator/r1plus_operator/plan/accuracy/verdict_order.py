"""In which order the operator recorded verdicts. Monitors date them by their nodes' clocks, which may be wrong."""

from collections.abc import Collection
from dataclasses import replace

from r1plus_contract.verdict import GateReport
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.storage import clip_report


def record_verdict(revision: Revision, gate: GateReport, revisions: Collection[Revision]) -> Revision:
    """Return the revision with one more verdict, numbered after all that the deployment's revisions have.

    A gate that another revision of the same identity has recorded keeps its number: it was not run again.
    """
    verdict, known = clip_report(gate), (revision, *revisions)
    if (source := next((r for r in known if verdict in r.verdicts), None)) is not None:
        number = source.verdict_numbers.get(verdict)
    else:
        number = 1 + max((n for r in known for n in r.verdict_numbers.values()), default=0)
    numbers = {**revision.verdict_numbers, verdict: number} if number else revision.verdict_numbers
    return replace(revision, verdicts=(*revision.verdicts, verdict), verdict_numbers=numbers)


def find_place(revision: Revision, verdict: GateReport) -> tuple[int, str]:
    """Return by what a recorded verdict is ordered: its number.

    Those that an older operator recorded have none. They come first, by their monitors' clocks.
    """
    number = revision.verdict_numbers.get(verdict, 0)
    return number, "" if number else verdict.decided_at
