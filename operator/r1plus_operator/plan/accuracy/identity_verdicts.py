"""Verdicts that revisions of one identity share: what one of them has passed, another need not pass again.

An edit of placement makes another revision of the same identity. Its monitors read the stored verdict and report it.
"""

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import replace

from r1plus_contract.verdict import GateReport, Verdict
from r1plus_operator.plan.accuracy.verdict_order import find_place
from r1plus_operator.plan.revision.record import Revision
from r1plus_policies.gate.verdict import rejudge


def select_same_identity(revision: Revision, revisions: Iterable[Revision]) -> list[Revision]:
    """Return the revisions with the identity of this one; it is one of them."""
    digest = revision.identity_digest
    return [other for other in revisions if other.identity_digest == digest]


def find_recording_revision(
    gate: GateReport | None, revision: Revision, revisions: Collection[Revision]
) -> Revision | None:
    """Return another revision of the same identity that has passed exactly this recorded gate; None: there is none.

    A pod cannot make such a record: the operator stores a Pass only where it is proven.
    """
    if gate is None or gate.identity != revision.identity_digest:
        return None
    recorded = (r for r in revisions if r.name != revision.name and gate in r.valid_verdicts)
    same = select_same_identity(revision, recorded)
    return next((r for r in same if r.has_passed(gate.suite_hash, gate.threshold)), None)


def void_shared_verdicts(revisions: Mapping[str, Revision]) -> dict[str, Revision]:
    """Return the revisions without the verdicts that no longer count for their identity.

    An accuracy drop voids those from before it on each revision. A later Fail on another revision voids a Pass, except
    of one that had traffic: it returns by that Pass.
    """
    valid = {name: frozenset(revision.valid_verdicts) for name, revision in revisions.items()}
    void = {verdict for name, r in revisions.items() for verdict in r.verdicts if verdict not in valid[name]}
    return {name: _remove_void(r, valid[name], void, revisions.values()) for name, r in revisions.items()}


def _remove_void(
    revision: Revision, valid: Set[GateReport], void: Set[GateReport], revisions: Collection[Revision]
) -> Revision:
    """Return the revision without what is void. What its own drop voided stays: it shows what was passed."""
    others = [r for r in revisions if r.name != revision.name]
    rest = tuple(
        v for v in revision.verdicts if v not in valid or not (v in void or _is_overruled(v, revision, others))
    )
    return replace(revision, verdicts=rest) if rest != revision.verdicts else revision


def _is_overruled(verdict: GateReport, revision: Revision, others: Iterable[Revision]) -> bool:
    """Whether another revision of this identity failed the same suite after this Pass."""
    if revision.promoted_at is not None or verdict.verdict is not Verdict.PASS:
        return False
    place, about = find_place(revision, verdict), (verdict.identity, verdict.suite_hash)
    return any(
        (fail.identity, fail.suite_hash) == about
        and fail.verdict is Verdict.FAIL
        and rejudge(fail, verdict.threshold) is Verdict.FAIL
        and find_place(other, fail) > place
        for other in others
        for fail in other.verdicts
    )
