"""How many of one tenant's writes the operator begins before it restores what another tenant has lost."""

from collections.abc import Iterable

from bench.reconcile.audit import Request
from e2e import chart
from e2e.story import Name

OPERATOR = f"system:serviceaccount:{chart.NAMESPACE}:{chart.RELEASE}-operator"


def count_overtaking(requests: Iterable[Request], wall: Name, noisy: str) -> list[int]:
    """Return, for each time that NetworkPolicy `wall` was deleted and restored, the operator's writes in `noisy` meanwhile.

    They are counted from the end of the deletion to the arrival of the write that restores.
    """
    counts: list[int] = []
    deleted_at: float | None = None
    writes: list[float] = []
    for request in sorted(requests, key=lambda one: one.began):
        if (request.resource, request.namespace, request.name) == ("networkpolicies", wall.namespace, wall.name):
            if request.verb == "delete":
                deleted_at = request.ended
            elif deleted_at is not None and request.user == OPERATOR and request.began >= deleted_at:
                counts.append(sum(deleted_at <= at for at in writes))
                deleted_at = None
        elif request.user == OPERATOR and request.namespace == noisy and request.writes:
            writes.append(request.began)
    return counts
