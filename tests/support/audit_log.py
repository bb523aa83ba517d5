"""Lines of a kube-apiserver's audit log."""

import json
from typing import Any

OPERATOR = "system:serviceaccount:r1plus-system:r1plus-operator"


def audit_line(
    verb: str = "patch", resource: str = "services", *, stage: str = "", user: str = OPERATOR, **more: Any
) -> bytes:
    """Return the line of a request for `t/a` that took a quarter of a second; `about` adds to what it is about."""
    entry = {
        "stage": stage or ("ResponseStarted" if verb == "watch" else "ResponseComplete"),
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": resource, "namespace": "t", "name": "a", **more.pop("about", {})},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
        "stageTimestamp": "2026-01-01T00:00:00.250000Z",
        **more,
    }
    return json.dumps(entry).encode() + b"\n"
