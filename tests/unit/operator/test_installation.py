"""What `helm test` finds: a leader, policies that bind and a decoy that holds; and what it says where one does not."""

from collections.abc import Collection
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_operator import installation
from r1plus_operator.installation import ALLOWED_PORT, BLOCKED_PORTS, InstallationCheck, run_checks, try_connection
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, NotFoundError
from r1plus_operator.runtime.resources import Resource
from support.tables import for_each

pytestmark = pytest.mark.usefixtures("virtual_time")
Json = dict[str, Any]
POLICY = ForbiddenError(403, "Forbidden", "ValidatingAdmissionPolicy 'r1plus-operator-names' denied request: its name")
NO_RIGHT = ForbiddenError(403, "Forbidden", "cannot create resource configmaps")


def lease(version: int, holder: str = "operator-a_uid") -> Json:
    return {"metadata": {"resourceVersion": str(version)}, "spec": {"holderIdentity": holder}}


def decoy_pod(ready: str) -> Json:
    conditions = [{"type": "Ready", "status": ready}]
    return {"metadata": {"name": "decoy-a"}, "status": {"conditions": conditions, "podIP": "10.0.0.7"}}


LEADS = [lease(1), lease(1), lease(2)]
GONE = NotFoundError(404, "NotFound", "no Lease")


class Cluster:
    """Answers as it is told; the last answer of a list is repeated."""

    def __init__(
        self,
        leases: list[Json | ApiError] = LEADS,  # type: ignore[assignment]
        refusal: ApiError | None = POLICY,
        pods: list[list[Json]] | None = None,
        open_ports: Collection[int] = (ALLOWED_PORT,),
    ) -> None:
        self.leases, self.refusal, self.open_ports = list(leases), refusal, open_ports
        self.pods = [[decoy_pod("True")]] if pods is None else list(pods)
        self.asked: list[str] = []

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Json:
        assert (res.kind, name, namespace) == ("Lease", names.LEASE, "r1plus-system")
        found = self.leases.pop(0) if len(self.leases) > 1 else self.leases[0]
        if isinstance(found, ApiError):
            raise found
        return found

    async def list(self, res: Resource, namespace: str | None = None, *, label_selector: str = "") -> Any:
        assert (res.kind, namespace, label_selector) == ("Pod", "r1plus-decoy", "r1plus.ai/deployment=decoy")
        return (self.pods.pop(0) if len(self.pods) > 1 else self.pods[0]), "1"

    async def create(self, res: Resource, obj: Json, *, dry_run: bool = False) -> Json:
        assert (obj["metadata"]["namespace"], dry_run) == ("r1plus-decoy", True)
        self.asked.append(res.kind)
        if self.refusal is not None:
            raise self.refusal
        return obj

    async def connect(self, address: str, port: int) -> bool:
        assert address == "10.0.0.7"
        return port in self.open_ports


async def check(cluster: Cluster, decoy: str = "r1plus-decoy", *, are_enforced: bool = True) -> list[InstallationCheck]:
    return await run_checks(cluster, "r1plus-system", decoy, cluster.connect, are_enforced=are_enforced)


async def test_an_installation_that_works_passes() -> None:
    found = await check(Cluster())
    assert [one.holds for one in found] == [True, True, True]
    assert found[0].text == "The operator leads: operator-a renews its Lease"


FAILURES = {
    "no Lease was ever made": (Cluster([GONE]), 0, "nobody holds it"),
    "the Lease is not held": (Cluster([lease(1, "")]), 0, "nobody holds it"),
    "its holder is gone and does not renew it": (Cluster([lease(1)]), 0, "operator-a_uid does not renew it"),
    "the test may not read the Lease": (Cluster([NO_RIGHT]), 0, "The API server refused a question of the test"),
    "a policy is missing": (Cluster(refusal=None), 1, "Policies do not bind"),
    "the test may not write at all": (Cluster(refusal=NO_RIGHT), 1, "Policies were not tried"),
    "the decoy has no pod": (Cluster(pods=[[]]), 2, "The decoy has no Ready pod"),
    "the decoy never becomes Ready": (Cluster(pods=[[decoy_pod("False")]]), 2, "The decoy has no Ready pod"),
    "a port of the decoy is open": (Cluster(open_ports=(ALLOWED_PORT, names.PORT_GRPC)), 2, f"port {names.PORT_GRPC} of its pod is open"),
    "all ports of the decoy are open": (Cluster(open_ports=(ALLOWED_PORT, *BLOCKED_PORTS)), 2, "port 8000, 8001 of its pod is open"),
    "nothing of the decoy is reached at all": (Cluster(open_ports=()), 2, "The decoy proves nothing"),
}  # fmt: skip


@for_each("cluster, number, text", FAILURES)
async def test_one_check_fails_and_the_others_go_on(cluster: Cluster, number: int, text: str) -> None:
    found = await check(cluster)
    assert [one.holds for one in found] == [place != number for place in range(3)]
    assert text in found[number].text


async def test_what_has_just_been_installed_has_time() -> None:
    found = await check(Cluster([GONE, lease(1, ""), *LEADS], pods=[[], [decoy_pod("False")], [decoy_pod("True")]]))
    assert [one.holds for one in found] == [True, True, True]


@for_each("decoy, are_enforced, checks, writes", {
    "without a decoy only the leader": ("", True, 1, 0),
    "no policies that do not refuse": ("r1plus-decoy", False, 2, 0),
})  # fmt: skip
async def test_what_the_values_leave_out_is_not_checked(
    decoy: str, are_enforced: bool, checks: int, writes: int
) -> None:
    cluster = Cluster()
    found = await check(cluster, decoy, are_enforced=are_enforced)
    assert ([one.holds for one in found], len(cluster.asked)) == ([True] * checks, writes)


async def test_a_port_that_nobody_listens_at_is_not_open() -> None:
    assert await try_connection("127.0.0.1", 1) is False


@for_each("holds, status", {"all hold": (True, 0), "one does not": (False, 1)})
def test_the_exit_status_is_that_of_the_worst(
    holds: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def find(_: object) -> list[InstallationCheck]:
        return [InstallationCheck(True, "The operator leads"), InstallationCheck(holds, "The decoy")]

    monkeypatch.setattr(installation, "_test_cluster", find)
    assert installation.main(["--namespace=r1plus-system", "--policies=enforced"]) == status
    assert capsys.readouterr().out.splitlines()[0] == "ok      The operator leads"
