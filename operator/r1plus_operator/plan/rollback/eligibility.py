"""Why there is no way back: what each earlier revision lacks to be gone back to. The status and `r1plus rollback` tell.

The rule is `response.last_good`'s; here it is put into words for people, revision by revision.
"""

from collections.abc import Iterable, Mapping

from r1plus_contract.requests import Verb, format_command
from r1plus_policies.rollback.response import PastRevision

MOST_TOLD = 5
"""Revisions of which it is told, the newest first."""


def rollback_blockers(past: Iterable[PastRevision], engines: Mapping[str, str], bake: float) -> tuple[str, ...]:
    """A line for each revision that lacks something. `engines`: by revision; `bake`: seconds of traffic needed."""
    newest_first = sorted(past, key=lambda r: (-r.promoted_at, r.name))[:MOST_TOLD]
    lines = ((r, _lacks(r, bake)) for r in newest_first)
    return tuple(f"{r.name} ({engines[r.name]}) {'; '.join(found)}" for r, found in lines if found)


def _lacks(revision: PastRevision, bake: float) -> list[str]:
    found = []
    if not revision.passed:
        found.append("holds no Pass on the suite and threshold in force")
    if revision.given_up:
        found.append("was itself rolled back from")
    if not revision.engine_there:
        found.append("has lost its engine from the catalog")
    if not revision.is_placed:
        found.append("has a place that spec.placement of the R1PlusTenant does not allow any more")
    if revision.served_seconds < bake:
        carried = f"carried traffic for {_span(revision.served_seconds)} of the {_span(bake)} that it takes"
        found.append(f"{carried}, and gets no more of it while another one serves")
    if not found and not revision.takes_orders:
        found.append("has a monitor of an older version, which cannot prove that it passes now")
    return found


def _span(seconds: float) -> str:
    """Seconds up to two minutes, whole minutes after that."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min"


def told(last_good: str, lacks: tuple[str, ...]) -> str:
    """Whether `r1plus rollback` would help now: a clause for whoever reads that nothing is moved."""
    if last_good:
        return f"{format_command(Verb.ROLLBACK)} goes back to {last_good} by hand"
    if not lacks:
        return "no revision served before this one, so there is none to go back to"
    return f"now there is no revision to go back to: {'. '.join(lacks)}"
