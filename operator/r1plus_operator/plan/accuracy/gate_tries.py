"""How many gates in a row a candidate has to pass: one more for each earlier try of its engine that failed.

A gate has a chance to pass an engine below the threshold. Each edit that makes another revision of the same engine
would draw it again. So the chance of a try falls with each one, and no candidate is refused for the tries before it.
"""

from collections.abc import Collection
from typing import Final

from r1plus_contract.verdict import Gate, GateReport, Verdict
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.identity_verdicts import select_same_identity
from r1plus_operator.plan.accuracy.verdict_order import find_place
from r1plus_operator.plan.revision.record import Revision, find_current_revision
from r1plus_policies.gate.verdict import rejudge

MOST_REPEATS: Final = 3
"""Most gates that a candidate has to pass after its first one."""


def count_missing_passes(
    revision: Revision, revisions: Collection[Revision], spec: R1PlusDeploymentSpec, suite_hash: str
) -> int:
    """Return how many more gates a revision that has passed one must pass before it takes traffic; 0: none.

    Passes count of all revisions with its identity, and none is missing while one of them serves: an order names the
    identity, so that pods with traffic would run the gate, too. A revision that was rolled back comes back by one gate
    of its own, and an older monitor repeats none.
    """
    threshold = spec.accuracy.threshold
    passes = set(_list_passes(revision, suite_hash, threshold))
    if not passes or spec.accuracy.gate is not Gate.ENFORCE or revision.regate_token or not revision.can_regate:
        return 0
    same = select_same_identity(revision, revisions)
    if find_current_revision(revisions) in same:
        return 0
    passes |= {v for other in same for v in _list_passes(other, suite_hash, threshold)}
    first = min(find_place(other, v) for other in (revision, *same) for v in passes if v in other.verdicts)
    fails = {
        v
        for other in revisions
        if other.identity.engine_digest == revision.identity.engine_digest
        for v in other.verdicts
        if v.suite_hash == suite_hash and rejudge(v, threshold) is Verdict.FAIL and find_place(other, v) < first
    }
    return max(0, 1 + min(len(fails), MOST_REPEATS) - len(passes))


def build_repeat_token(revision: Revision, suite_hash: str, threshold: float) -> str:
    """Return the name of the next gate that a revision has to pass after those that it has passed."""
    return f"{revision.name}#{len(_list_passes(revision, suite_hash, threshold)) + 1}"


def _list_passes(revision: Revision, suite_hash: str, threshold: float) -> list[GateReport]:
    """Return the Passes at the serving batch since the last Fail, the oldest first."""
    passes: list[GateReport] = []
    for report in revision.valid_verdicts:
        if report.suite_hash != suite_hash:
            continue
        verdict = rejudge(report, threshold)
        if verdict is Verdict.FAIL:
            passes = []
        elif report.admits_at(revision.batch) and verdict is Verdict.PASS:
            passes.append(report)
    return passes
