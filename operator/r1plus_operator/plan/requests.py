"""User requests (annotations), and how they are reported: in the status and once as an Event. Called by the plan."""

from collections.abc import Mapping
from typing import Final

from r1plus_contract.requests import Request, Verb, read_requests
from r1plus_operator.plan.events import Event
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import Revision

MAX_STATUS: Final = 256
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


def read_ack_token(cr: Json) -> str:
    """Return the token of the newest `ack`, which makes monitors run the gate again; empty: none."""
    request = read_requests(cr["metadata"]).get(Verb.ACK)
    return request.token if request else ""


def find_rollback_request(cr: Json, serving: str, revisions: Mapping[str, Revision]) -> Request | None:
    """Return the requested rollback of the revision that serves; None: none is requested, or it was made already."""
    request = read_requests(cr["metadata"]).get(Verb.ROLLBACK)
    if request is None or _explain_objection(cr, request, serving) or explain_refused_rollback(cr, serving):
        return None
    records = (r.rollback for r in revisions.values() if r.rollback)
    return None if any(record.request == request.token and record.switched_at for record in records) else request


def explain_refused_rollback(cr: Json, serving: str) -> str:
    """Return why the requested rollback is not carried out; empty: it is. The first pass that sees it decides."""
    request = read_requests(cr["metadata"]).get(Verb.ROLLBACK)
    if request is None:
        return ""
    if _is_reported(cr, request):
        return str((cr.get("status") or {}).get("requestRefused", ""))
    objection = _explain_objection(cr, request, serving)
    return f"{request.summary}: the rollback is not carried out: {objection}" if objection else ""


def _explain_objection(cr: Json, request: Request, serving: str) -> str:
    requests = read_requests(cr["metadata"])
    for verb in (Verb.ACK, Verb.UNPIN):
        if verb in requests and requests[verb].rank >= request.rank:
            return f"`r1plus {verb}` was requested later; request the rollback again if it is still needed."
    if request.revision == serving:
        return ""
    revision = request.revision or "(none)"
    return f"it names revision {revision}, but {serving or 'none'} serves; request it again with r1plus."


def build_request_status(cr: Json, refusal: str) -> Json:
    """Return the status fields about requests: the newest, its number, and why a rollback is not carried out."""
    in_order = sorted((request.rank, verb, request) for verb, request in read_requests(cr["metadata"]).items())
    if not in_order:
        return {}
    _, verb, newest = in_order[-1]
    status: Json = {"lastRequest": f"{newest.at} {verb} by {newest.summary}"[:MAX_STATUS]}
    if newest.order:
        status["requests"] = newest.order
    if refusal and Verb.ROLLBACK in (verb for _, verb, _ in in_order):
        status["requestRefused"] = refusal[:MAX_STATUS]
    return status


def build_request_events(cr: Json, refusal: str) -> list[Event]:
    """Return the Events of requests, and of a refusal, that the status does not report yet."""
    requests = read_requests(cr["metadata"])
    unreported = sorted((r.rank, verb, r) for verb, r in requests.items() if not _is_reported(cr, r))
    events = [
        Event(_REASONS[verb], f"{request.summary} (r1plus {verb})", request.at) for _, verb, request in unreported
    ]
    if refusal and refusal[:MAX_STATUS] != (cr.get("status") or {}).get("requestRefused"):
        events.append(Event("RequestRefused", refusal, requests[Verb.ROLLBACK].at, is_warning=True))
    return events


def _is_reported(cr: Json, request: Request) -> bool:
    """Whether the status reports this request, or a later one."""
    status = cr.get("status") or {}
    if request.order:
        return bool(request.order <= status.get("requests", 0))
    return "requests" in status or request.at <= str(status.get("lastRequest", "")).partition(" ")[0]
