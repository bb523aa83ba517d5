"""The audit log, counted: what is a request, whose it is, and what of it is a write."""

from pathlib import Path

import pytest

from bench.reconcile.audit import AuditLog, Request, parsed, tally
from support.audit_log import OPERATOR, audit_line


def test_a_line_says_who_did_what_to_what_and_when() -> None:
    found = parsed(
        audit_line(about={"apiGroup": "apps", "subresource": "status"}, responseStatus={"code": 409, "message": "no"})
    )
    assert found is not None
    assert found.said == "no"
    assert (found.user, found.verb, found.group, found.resource, found.namespace, found.name, found.code) == (
        OPERATOR, "patch", "apps", "services/status", "t", "a", 409,
    )  # fmt: skip
    assert found.ended - found.began == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        pytest.param(audit_line("watch"), True, id="a watch that begins"),
        pytest.param(audit_line("watch", stage="ResponseComplete"), False, id="a watch that ends"),
        pytest.param(audit_line("list"), True, id="a list"),
        pytest.param(audit_line("list", stage="ResponseStarted"), False, id="the start of an answer"),
        pytest.param(audit_line(objectRef=None), False, id="what names no object"),
    ],
)
def test_each_request_is_counted_once(text: bytes, counts: bool) -> None:
    assert (parsed(text) is not None) is counts


def test_reading_goes_on_where_it_stopped_also_in_mid_line_and_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(audit_line() + audit_line("list")[:20])
    with AuditLog(path) as log:
        assert [request.verb for request in log.read()] == ["patch"]
        with path.open("ab") as more:
            more.write(audit_line("list")[20:] + audit_line("delete"))
        path.rename(tmp_path / "audit-1.log")
        path.write_bytes(audit_line("create") + audit_line("get", user="somebody"))
        assert [request.verb for request in log.read(OPERATOR)] == ["list", "delete", "create"]
        assert log.read() == []


def request(
    verb: str, resource: str = "services", *, code: int = 200, began: float = 0.0, ended: float = 0.0
) -> Request:
    return Request(OPERATOR, verb, "", resource, "t", "a", code, "", began, ended)


def test_reads_and_writes_are_counted_and_the_lease_is_not() -> None:
    found = tally(
        [
            request("list"),
            request("watch"),
            request("get", "leases"),
            request("update", "leases", began=0.5, ended=99.0),
            request("patch", began=2.0, ended=3.0),
            request("delete", code=404, began=1.0, ended=1.5),
        ]
    )
    assert (found.reads, found.writes, found.refused, found.began, found.ended) == (2, 2, 1, 1.0, 3.0)


def test_nothing_written_took_no_time() -> None:
    found = tally([request("list", ended=5.0)])
    assert (found.writes, found.began, found.ended) == (0, 0.0, 0.0)
