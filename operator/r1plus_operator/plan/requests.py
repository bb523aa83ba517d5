"""User requests (annotations), and how they are reported: in the status and once as an Event. Called by the plan."""

from collections.abc import Mapping
from typing import Final

from r1plus_contract.requests import Request, Verb, read_requests
from r1plus_contract.timestamps import parse_timestamp
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
_REFUSAL_FIELDS = {Verb.ROLLBACK: "requestRefused", Verb.REFRESH: "refreshRefused"}
"""Verb -> the status field that says why its request is not carried out."""
_KEPT_TOKENS = {Verb.ACK: "acknowledged", Verb.UNPIN: "unpinned"}
"""Verb -> the status field with the token of its newest request: without its annotation it remains in force."""


def read_ack_token(cr: Json) -> str:
    """Return the token of the newest `ack`, which makes monitors run the gate again; empty: none."""
    return _read_newest_token(cr, Verb.ACK)


def read_ack_time(cr: Json) -> float:
    """Return when the newest `ack` was requested, by its client's clock, seconds since the epoch; 0: not known."""
    return parse_timestamp(read_ack_token(cr).partition("#")[0])


def read_release_tokens(cr: Json) -> str:
    """Return the tokens of the newest `ack` and the newest `unpin`, which let a rolled-back revision come back."""
    return "|".join(_read_newest_token(cr, verb) for verb in _KEPT_TOKENS)


def _read_newest_token(cr: Json, verb: Verb) -> str:
    """Return the token of the newest request of a verb, also where its annotation was taken away or set back."""
    request, kept = read_requests(cr["metadata"]).get(verb), str((cr.get("status") or {}).get(_KEPT_TOKENS[verb], ""))
    if request is None:
        return kept
    kept_order = kept.rpartition("#")[2]
    return kept if kept_order.isdecimal() and 0 < request.order < int(kept_order) else request.token


def find_rollback_request(cr: Json, serving: str, revisions: Mapping[str, Revision]) -> Request | None:
    """Return the requested rollback of the revision that serves; None: none is requested, or it was made already."""
    return _find_accepted(cr, Verb.ROLLBACK, serving, revisions)


def find_refresh_request(cr: Json, serving: str, revisions: Mapping[str, Revision]) -> Request | None:
    """Return the requested refresh of the revision that serves; None: none is requested, or it was answered already."""
    return _find_accepted(cr, Verb.REFRESH, serving, revisions)


def _find_accepted(cr: Json, verb: Verb, serving: str, revisions: Mapping[str, Revision]) -> Request | None:
    request = read_requests(cr["metadata"]).get(verb)
    if request is None or _is_answered(verb, request, revisions) or _explain_objection(cr, verb, request, serving):
        return None
    return None if _explain_refusal(cr, verb, serving, revisions) else request


def _is_answered(verb: Verb, request: Request, revisions: Mapping[str, Revision]) -> bool:
    """Whether a revision records that the request was carried out."""
    if verb is Verb.ROLLBACK:
        rollbacks = (r.rollback for r in revisions.values() if r.rollback)
        return any(record.request == request.token and record.switched_at for record in rollbacks)
    return any(r.refresh.request == request.token for r in revisions.values() if r.refresh)


def explain_refusals(cr: Json, serving: str, revisions: Mapping[str, Revision]) -> dict[str, str]:
    """Return why a request is not carried out, by its status field. The first pass that sees a request decides.

    `serving` and `revisions`: after this pass, which may promote what answers a request.
    """
    refusals = {field: _explain_refusal(cr, verb, serving, revisions) for verb, field in _REFUSAL_FIELDS.items()}
    return {field: text for field, text in refusals.items() if text}


def _explain_refusal(cr: Json, verb: Verb, serving: str, revisions: Mapping[str, Revision]) -> str:
    request = read_requests(cr["metadata"]).get(verb)
    if request is None:
        return ""
    if _is_reported(cr, request):
        return str((cr.get("status") or {}).get(_REFUSAL_FIELDS[verb], ""))
    if _is_answered(verb, request, revisions):
        return ""  # In this pass, or its status was lost since.
    objection = _explain_objection(cr, verb, request, serving)
    return f"{request.summary}: the {verb} is not carried out: {objection}" if objection else ""


def _explain_objection(cr: Json, verb: Verb, request: Request, serving: str) -> str:
    requests = read_requests(cr["metadata"])
    for later in (Verb.ACK, Verb.UNPIN) if verb is Verb.ROLLBACK else ():
        if later in requests and requests[later].rank >= request.rank:
            return f"`r1plus {later}` was requested later; request the rollback again if it is still needed."
    if request.revision == serving:
        return ""
    revision = request.revision or "(none)"
    return f"it names revision {revision}, but {serving or 'none'} serves; request it again with r1plus."


def build_request_status(cr: Json, refusals: Mapping[str, str]) -> Json:
    """Return the status fields about requests: the newest, its number, and why one is not carried out."""
    before = cr.get("status") or {}
    # Kept, so that annotations that were taken away are neither an `ack` nor an `unpin`, and numbers go on.
    status: Json = {key: before[key] for key in ("lastRequest", "requests") if key in before}
    status |= {key: token for verb, key in _KEPT_TOKENS.items() if (token := _read_newest_token(cr, verb))}
    in_order = sorted((request.rank, verb, request) for verb, request in read_requests(cr["metadata"]).items())
    if not in_order:
        return status
    _, verb, newest = in_order[-1]
    if newest.order and newest.order < status.get("requests", 0):
        return status | {field: text[:MAX_STATUS] for field, text in refusals.items()}
    status["lastRequest"] = f"{newest.at} {verb} by {newest.summary}"[:MAX_STATUS]
    if newest.order:
        status["requests"] = newest.order
    return status | {field: text[:MAX_STATUS] for field, text in refusals.items()}


def build_request_events(cr: Json, status: Json) -> list[Event]:
    """Return the Events of requests, and of the refusals in the new `status`, that the CR's does not report yet."""
    requests = read_requests(cr["metadata"])
    unreported = sorted((r.rank, verb, r) for verb, r in requests.items() if not _is_reported(cr, r))
    events = [
        Event(_REASONS[verb], f"{request.summary} (r1plus {verb})", request.at) for _, verb, request in unreported
    ]
    for verb, field in _REFUSAL_FIELDS.items():
        refusal = str(status.get(field, ""))
        if refusal and refusal != (cr.get("status") or {}).get(field):
            events.append(Event("RequestRefused", refusal, requests[verb].at, is_warning=True))
    return events


def _is_reported(cr: Json, request: Request) -> bool:
    """Whether the status reports this request, or a later one."""
    status = cr.get("status") or {}
    if request.order:
        return bool(request.order <= status.get("requests", 0))
    return "requests" in status or request.at <= str(status.get("lastRequest", "")).partition(" ")[0]
