"""Which rights a run has used: what counts as a use, and what is left over."""

from pathlib import Path
from typing import Any

import pytest

from bench.reconcile.audit import Request
from e2e.rbac_surplus import HOLDERS, UNSEEN, Holder, Right, granted, requests_in, surplus, used
from r1plus_operator.api.rbac import RbacGrant
from support.audit_log import OPERATOR, audit_line

GRANTS = (
    RbacGrant("what it writes", "apps", ("deployments", "deployments/status"), ("create", "patch")),
    RbacGrant("who leads", "coordination.k8s.io", ("leases",), ("get",), names=("r1plus-operator",)),
)
WRITTEN = {Right("apps", "deployments/status", verb) for verb in ("create", "patch")}


def request(verb: str, resource: str = "deployments", **more: Any) -> Request:
    said = {"group": "apps", "namespace": "t", "name": "a", "code": 200, "user": OPERATOR, **more}
    return Request(verb=verb, resource=resource, said="", began=0.0, ended=0.0, **said)


LEASE = request("get", "leases", group="coordination.k8s.io", name="r1plus-operator")


@pytest.mark.parametrize(
    ("requests", "left"),
    [
        ((), ["create deployments.apps", "patch deployments.apps", "get leases.coordination.k8s.io r1plus-operator"]),
        ((request("patch", code=201), LEASE), []),
        ((request("patch"), LEASE), ["create deployments.apps"]),
        ((request("patch", code=403), LEASE), ["create deployments.apps", "patch deployments.apps"]),
        ((request("patch", code=201, user="somebody"), LEASE), ["create deployments.apps", "patch deployments.apps"]),
        (
            (request("patch", code=201), request("get", "leases", group="coordination.k8s.io", name="another")),
            ["get leases.coordination.k8s.io r1plus-operator"],
        ),
    ],
    ids=[
        "nothing was asked",
        "an apply that makes an object needs create and patch",
        "one of an object that is there needs patch alone",
        "what was refused shows no need",
        "what others do is none of it",
        "a grant to one object is not used by another's",
    ],
)
def test_left_over_is_what_was_never_used(requests: tuple[Request, ...], left: list[str]) -> None:
    seen = (request("patch", "deployments/status", code=201), *requests)
    assert surplus(Holder(OPERATOR, GRANTS), seen) == left


def test_what_cannot_be_seen_is_granted_to_somebody_and_has_a_reason() -> None:
    everything = {right for holder in HOLDERS.values() for right in granted(holder.grants)}
    assert set(UNSEEN) <= everything
    assert all(len(reason) > 40 for reason in UNSEEN.values())


def test_a_subresource_is_a_resource_of_its_own() -> None:
    assert Right("apps", "deployments", "patch") not in used([request("patch", "deployments/status")])
    assert used([request("patch", "deployments/status", code=201)]) >= WRITTEN


def test_what_was_rotated_away_counts_too(tmp_path: Path) -> None:
    for name, verb in (("audit-2026-01-01T00-00-00.000.log", "list"), ("audit.log", "delete")):
        (tmp_path / name).write_bytes(audit_line(verb, "pods"))
    assert [one.verb for one in requests_in(tmp_path / "audit.log")] == ["list", "delete"]
