"""What people ask for beside the spec, and how it is told: in the status and, once, as an Event. Called by the plan."""

from collections.abc import Mapping
from typing import Final

from r1plus_contract.requests import Request, Verb, read_requests
from r1plus_operator.plan.events import Note
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import Revision

MOST_STATUS: Final = 256
"""Characters of a status field."""
_REASONS = {
    Verb.ROLLBACK: "RollbackRequested",
    Verb.PIN: "Pinned",
    Verb.UNPIN: "Unpinned",
    Verb.PAUSE: "Paused",
    Verb.RESUME: "Resumed",
    Verb.ACK: "Acknowledged",
    Verb.REFRESH: "RefreshRequested",
}


def acknowledged_in(cr: Json) -> str:
    """The token that tells monitors to gate anew."""
    found = read_requests(cr["metadata"]).get(Verb.ACK)
    return found.token if found else ""


def rollback_asked(cr: Json, serving: str, revisions: Mapping[str, Revision]) -> Request | None:
    """Return the rollback that somebody asks for and that has not been made: from what serves, once."""
    asked = read_requests(cr["metadata"]).get(Verb.ROLLBACK)
    if asked is None or _objection(cr, asked, serving) or refused_rollback(cr, serving):
        return None
    records = (r.rollback for r in revisions.values() if r.rollback)
    return None if any(record.request == asked.token and record.switched_at for record in records) else asked


def refused_rollback(cr: Json, serving: str) -> str:
    """Return why the rollback that was asked for is not carried out, decided when it is first seen; empty: it is."""
    asked = read_requests(cr["metadata"]).get(Verb.ROLLBACK)
    if asked is None:
        return ""
    if _is_told(cr, asked):
        return str((cr.get("status") or {}).get("requestRefused", ""))
    objection = _objection(cr, asked, serving)
    return f"{asked.summary}: not carried out: {objection}" if objection else ""


def _objection(cr: Json, asked: Request, serving: str) -> str:
    requests = read_requests(cr["metadata"])
    for verb in (Verb.ACK, Verb.UNPIN):
        if verb in requests and requests[verb].rank >= asked.rank:
            return f"`r1plus {verb}` was asked for later. Ask again if it is due."
    if asked.revision == serving:
        return ""
    return f"it is about revision {asked.revision or '(none)'}, and {serving or 'none'} serves. Ask again by r1plus."


def tell_requests(cr: Json, refusal: str) -> Json:
    """Return the status fields about requests: the newest, the number of all, and why it is not carried out."""
    found = sorted((request.rank, verb, request) for verb, request in read_requests(cr["metadata"]).items())
    if not found:
        return {}
    _, verb, newest = found[-1]
    told: Json = {"lastRequest": f"{newest.at} {verb} by {newest.summary}"[:MOST_STATUS]}
    if newest.order:
        told["requests"] = newest.order
    if refusal and Verb.ROLLBACK in (verb for _, verb, _ in found):
        told["requestRefused"] = refusal[:MOST_STATUS]
    return told


def note_requests(cr: Json, refusal: str) -> list[Note]:
    """Return the Events of requests that the status does not tell of yet, and of a refusal that it does not."""
    requests = read_requests(cr["metadata"])
    new = sorted((r.rank, verb, r) for verb, r in requests.items() if not _is_told(cr, r))
    notes = [Note(_REASONS[verb], f"{request.summary} (r1plus {verb})", request.at) for _, verb, request in new]
    if refusal and refusal[:MOST_STATUS] != (cr.get("status") or {}).get("requestRefused"):
        notes.append(Note("RequestRefused", refusal, requests[Verb.ROLLBACK].at, warning=True))
    return notes


def _is_told(cr: Json, request: Request) -> bool:
    """Whether the status tells of it, or of a later one."""
    status = cr.get("status") or {}
    if request.order:
        return bool(request.order <= status.get("requests", 0))
    return "requests" in status or request.at <= str(status.get("lastRequest", "")).partition(" ")[0]
