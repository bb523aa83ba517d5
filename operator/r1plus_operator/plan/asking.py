"""What people ask for beside the spec, and how it is told: in the status and, once, as an Event. Called by the plan."""

from r1plus_contract.requests import Request, Verb, requests_in
from r1plus_operator.plan.inputs import Json
from r1plus_operator.plan.notes import Note

_REASONS = {
    Verb.ROLLBACK: "RollbackRequested",
    Verb.PIN: "Pinned",
    Verb.UNPIN: "Unpinned",
    Verb.ACK: "Acknowledged",
}


def acknowledged_in(cr: Json) -> str:
    """The token that tells monitors to gate anew."""
    found = _asked(cr).get(Verb.ACK)
    return found.at if found else ""


def last_request(cr: Json) -> str:
    """`status.lastRequest`: when, which, by whom and why; empty where nobody ever asked."""
    found = sorted((request.at, verb) for verb, request in _asked(cr).items())
    if not found:
        return ""
    at, verb = found[-1]
    return f"{at} {verb} by {_asked(cr)[verb].told}"


def asked(cr: Json, status: Json) -> list[Note]:
    """Events of requests that are newer than the last one that `status` tells of."""
    told = str(status.get("lastRequest", "")).partition(" ")[0]
    new = sorted((request.at, verb) for verb, request in _asked(cr).items() if request.at > told)
    return [Note(_REASONS[verb], f"{_asked(cr)[verb].told} (r1plus {verb})", at) for at, verb in new]


def _asked(cr: Json) -> dict[Verb, Request]:
    return requests_in(cr["metadata"].get("annotations") or {})
