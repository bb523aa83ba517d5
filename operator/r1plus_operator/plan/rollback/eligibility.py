"""Why there is no rollback target: what each earlier revision lacks. Shown by the status and by `r1plus rollback`.

The rule is `response.last_good`'s; here it is put into words, revision by revision.
"""

from collections.abc import Iterable, Mapping

from r1plus_contract.remedies import Remedy, word
from r1plus_policies.rollback.response import PastRevision

MOST_LISTED = 5
"""Revisions that are listed, the newest first."""


def rollback_blockers(past: Iterable[PastRevision], engines: Mapping[str, str], bake: float) -> tuple[str, ...]:
    """Return a line for each revision that lacks something.

    `engines`: by revision; `bake`: seconds of traffic that a target needs.
    """
    newest_first = sorted(past, key=lambda r: (-r.promoted_at, r.name))[:MOST_LISTED]
    lines = ((r, _list_blockers(r, bake)) for r in newest_first)
    return tuple(f"{r.name} ({engines[r.name]}) {'; '.join(blockers)}" for r, blockers in lines if blockers)


def _list_blockers(revision: PastRevision, bake: float) -> list[str]:
    blockers = []
    if not revision.has_passed:
        blockers.append("has not passed the current suite and threshold")
    if revision.given_up:
        blockers.append("was itself rolled back")
    if not revision.has_engine:
        blockers.append("needs an engine that was replaced by another of the same name")
    if not revision.is_placed:
        blockers.append("runs on nodes that spec.placement of the R1PlusTenant no longer allows")
    if revision.served_seconds < bake:
        seconds = f"{_format_span(revision.served_seconds)} of the required {_format_span(bake)}"
        blockers.append(f"carried traffic for only {seconds}")
    if not blockers and not revision.supports_control:
        blockers.append("has a monitor of an older version, which cannot repeat the suite")
    return blockers


def _format_span(seconds: float) -> str:
    """Return seconds up to two minutes, whole minutes after that."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min"


def describe_manual_rollback(target: str, blockers: tuple[str, ...]) -> str:
    """Return a clause on whether `r1plus rollback` would help now."""
    if target:
        return word(Remedy.ROLL_BACK_TO, target=target)
    if not blockers:
        return "no revision served before this one, so a rollback is not possible"
    return f"no earlier revision can be the rollback target now: {'. '.join(blockers)}"
