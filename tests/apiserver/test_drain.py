"""Draining on a real API server: an old revision stays for the requests that its monitors report, and not for ever."""

from dataclasses import dataclass, replace

import pytest

from r1plus_contract.verdict import Verdict
from support.apiserver.manifests import CONTEXT
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant

pytestmark = pytest.mark.apiserver


@dataclass(frozen=True, slots=True)
class Switch:
    """A deployment whose second revision has just taken over, while a stream runs at the first."""

    tenant: Tenant
    first: str
    second: str

    def run_requests(self, count: int) -> None:
        """Let the first revision's monitor say how many requests its pod runs."""
        report = self.tenant.monitors.report
        assert report is not None
        self.tenant.monitors.report = replace(report, user_requests=count)

    async def until_it_stays(self) -> None:
        """Wait until the operator says that the first revision stays for its requests."""

        def says(cr: dict[str, object]) -> bool:
            return f"pods of {self.first} stay for the requests that they run" in str(cr.get("status"))

        await self.tenant.child_that("R1PlusDeployment", "credit", says, "the old revision stays for its requests")
        assert await self.tenant.child("Deployment", self.first) is not None


async def switch(tenant: Tenant, second: Monitors, drain: str) -> Switch:
    rollout = {"drain": drain}
    first = await tenant.serve("credit", rollout=rollout)
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048}, rollout=rollout)
    new = await tenant.candidate("credit")
    await tenant.run_pod(new, ready=True, monitors=second)
    await tenant.decide(new, Verdict.PASS, monitors=second)
    await tenant.switched(new)
    switched = Switch(tenant, first, new)
    switched.run_requests(1)
    return switched


async def test_an_old_revision_with_a_stream_stays_until_that_ends(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    at = await switch(tenant, second, "10m")
    await at.until_it_stays()
    at.run_requests(0)
    await tenant.absent("Deployment", at.first)
    assert await tenant.selected() == at.second


async def test_a_stream_without_an_end_holds_it_for_the_drain_at_the_latest(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    # Pods stay for 20 s in any case; what is said of their requests is said from then on.
    at = await switch(tenant, second, "40s")
    await at.until_it_stays()
    await tenant.absent("Deployment", at.first)
    await tenant.absent("Pod", f"{at.first}-pod")


async def test_traffic_goes_back_at_once_and_streams_of_what_is_left_go_on(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    at = await switch(tenant, second, "10m")
    before = await tenant.present("Deployment", at.first)
    assert second.report is not None
    second.report = replace(second.report, user_requests=1)
    await tenant.deploy("credit", tier="full", context=CONTEXT, rollout={"drain": "10m"})
    await tenant.switched(at.first)
    assert (await tenant.present("Deployment", at.first))["metadata"]["uid"] == before["metadata"]["uid"]
    back = replace(at, first=at.second, second=at.first)
    await back.until_it_stays()
