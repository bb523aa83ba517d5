"""A problem of the spec stops neither the watch over what serves nor its rollback, on a real API server."""

from dataclasses import dataclass

import pytest
import yaml

from r1plus_cli.suite.storage import render_manifest
from r1plus_contract import names
from r1plus_contract.suites.suite_files import SuiteFiles
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_operator.api import kinds
from r1plus_operator.observe.suite_signature import generate_key, sign
from support.apiserver.manifests import Json
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant
from support.golden_suites import NAME, files_of, with_item
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
KEY = generate_key()
ACCURACY = {"suite": NAME, "suiteKeys": [KEY.public], "onBreach": "Rollback"}


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    """What has served for a second is a rollback target."""
    return {"R1PLUS_BAKE_SECONDS": "0"}


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment that has gone from a good revision to a bad one, judged by its tenant's own suite."""

    tenant: Tenant
    monitors: Monitors
    """Of the bad revision."""
    good: str
    bad: str

    def drop(self) -> None:
        self.monitors.stand(WatchStanding.BELOW_THRESHOLD, lost=("loans-1", "loans-2"), correct=4)

    async def incident(self, reason: str) -> Json:
        """Wait for an incident of this reason; return it."""

        async def find() -> Json | None:
            found = (await self.tenant.cr("credit"))["status"].get("incident", {})
            return found if found.get("reason") == reason else None

        return await eventually(find, f"status.incident is {reason}")

    async def pass_control(self) -> None:
        """Let the good revision pass its control and take traffic."""
        pod = await self.tenant.run_pod(self.good, ready=False)

        async def find() -> Json | None:
            return (await self.tenant.settings("credit")).get("control")

        order = await eventually(find, "the monitors have the order to gate the good revision again")
        await self.tenant.decide(self.good, Verdict.PASS, control=order["token"])
        await self.tenant.set_ready(pod, ready=True)
        await self.tenant.switched(self.good)


async def put(tenant: Tenant, files: SuiteFiles) -> None:
    body = yaml.safe_load(render_manifest(files, tenant.namespace))
    await tenant.client.apply(kinds.CONFIG_MAP, body, field_manager="tenant")


@pytest.fixture
async def deployed(operator: OperatorProcess, tenant: Tenant, second: Monitors) -> Deployed:
    await put(tenant, sign(files_of(), KEY))
    good = await tenant.serve("credit", accuracy=ACCURACY)
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048}, accuracy=ACCURACY)
    bad = await tenant.candidate("credit")
    await tenant.run_pod(bad, ready=True, monitors=second)
    await tenant.decide(bad, Verdict.PASS, monitors=second)
    await tenant.switched(bad)
    await tenant.client.delete(kinds.POD, f"{good}-pod", tenant.namespace)
    tenant.monitors.report = None
    return Deployed(tenant, second, good, bad)


async def test_a_drop_is_answered_after_the_suite_was_deleted(tenant: Tenant, deployed: Deployed) -> None:
    mounted = (await tenant.present("ConfigMap", "credit-accuracy"))["data"]
    await tenant.client.delete(kinds.CONFIG_MAP, NAME, tenant.namespace)
    await tenant.until("credit", "QualityVerified", "False", "SuiteNotFound")
    deployed.drop()
    assert "SuiteNotFound" in await tenant.until("credit", "Progressing", "True", "RollingBack")
    await deployed.pass_control()
    assert (await deployed.incident("RolledBack"))["revision"] == deployed.bad
    now = (await tenant.present("ConfigMap", "credit-accuracy"))["data"]
    assert [now[name] for name in ("suite.json", "items.jsonl")] == [
        mounted[name] for name in ("suite.json", "items.jsonl")
    ]


async def test_a_control_goes_on_after_the_suite_was_edited(tenant: Tenant, deployed: Deployed) -> None:
    deployed.drop()
    await tenant.until("credit", "Progressing", "True", "RollingBack")
    await put(tenant, with_item(prompt="easier?"))

    async def is_reported() -> bool:
        return "SuiteInvalid" in (await tenant.condition("credit", "Progressing"))[2]

    await eventually(is_reported, "the problem is reported")
    await deployed.pass_control()
    await deployed.incident("RolledBack")


async def test_in_a_namespace_that_is_no_tenant_a_drop_is_reported_and_nothing_is_written(
    operator: OperatorProcess, tenant: Tenant, deployed: Deployed
) -> None:
    await tenant.label(names.LABEL_TENANT, None)
    await tenant.until("credit", "IsolationVerified", "False", "NamespaceNotTenant")
    await tenant.client.delete(kinds.BY_KIND["NetworkPolicy"], "credit", tenant.namespace)
    deployed.drop()
    incident = await deployed.incident("NamespaceNotTenant")
    assert names.LABEL_TENANT in incident["next"]
    await operator.shows("r1plus_rollback_blocked", namespace=tenant.namespace, reason="NamespaceNotTenant")
    assert await tenant.child("NetworkPolicy", "credit") is None
    assert (await tenant.settings("credit"))["control"] is None
    await tenant.label(names.LABEL_TENANT, "true")
    await tenant.present("NetworkPolicy", "credit")
    await tenant.until("credit", "Progressing", "True", "RollingBack")
    await deployed.pass_control()
