"""The operator on a real API server: from a CR to its children, verdicts to traffic, repair, restart, silence."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from apiserver.operator_rig import NAMESPACE, ROLES, OperatorProcess, Tenant, add_node, eventually, grant
from devcluster.apiserver_only import ApiServer
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.runtime.client import JSON_PATCH, ApiClient

pytestmark = pytest.mark.apiserver
DEPLOYMENT = kinds.BY_KIND["Deployment"]
Q4_1 = {"precision": "Q4_1"}
CONTEXT = {"maxTokens": 1024}


@pytest.fixture
async def operator(apiserver: ApiServer, client: ApiClient, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    await grant(client)
    await add_node(client)
    process = OperatorProcess(apiserver, tmp_path / "operator.log")
    process.start()
    yield process
    process.kill()


async def serve(tenant: Tenant, name: str = "credit", **spec: object) -> str:
    """A deployment whose first revision has passed and takes traffic; the revision."""
    await tenant.deploy(name, tier="full", context=CONTEXT, **spec)
    return await tenant.bring_up(name)


async def selected(tenant: Tenant, name: str = "credit") -> str:
    service = await tenant.present("Service", name)
    return str(service["spec"]["selector"]["r1plus.ai/revision"])


async def test_a_cr_becomes_its_children_and_serves_after_its_gate(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    revision = await tenant.candidate("credit")
    for kind in ("ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget"):
        await tenant.present(kind, "credit")
    await tenant.present("ConfigMap", "credit-accuracy")
    await tenant.present("ConfigMap", revision)
    assert (await tenant.condition("credit", "Ready"))[:2] == ("False", "NotServing")
    pod = await tenant.run_pod(revision, ready=False)
    await tenant.decide(revision, Verdict.PASS)
    await tenant.until("credit", "QualityVerified", "True", "GatePassed")
    assert "revision" not in (await tenant.cr("credit"))["status"]
    await tenant.set_ready(pod, ready=True)
    await tenant.until("credit", "Ready", "True", "Serving")
    assert await selected(tenant) == revision
    status = (await tenant.cr("credit"))["status"]
    assert (status["engine"], status["verdict"], status["accuracy"]) == ("smollm2-full-f16", "Pass", "210/210")


async def test_the_gate_refuses_and_traffic_never_moves(operator: OperatorProcess, tenant: Tenant) -> None:
    stable = await serve(tenant)
    await tenant.deploy("credit", tier="full", context=CONTEXT, engine=Q4_1)
    candidate = await tenant.candidate("credit")
    await tenant.run_pod(candidate, ready=False)
    await tenant.decide(candidate, Verdict.FAIL, lost=97)
    message = await tenant.until("credit", "QualityVerified", "False", "GateFailed")
    assert "lost 97 of 210 items, 4 allowed" in message
    await tenant.absent("Deployment", candidate)
    assert await selected(tenant) == stable
    assert (await tenant.condition("credit", "Ready"))[0] == "True"


async def test_under_observe_the_refused_engine_serves_and_its_failure_shows(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await serve(tenant)
    await tenant.deploy("credit", tier="full", context=CONTEXT, engine=Q4_1, accuracy={"gate": "Observe"})
    candidate = await tenant.candidate("credit")
    await tenant.run_pod(candidate, ready=True)
    await tenant.decide(candidate, Verdict.FAIL, lost=97)
    await tenant.until("credit", "QualityVerified", "False", "GateFailed")

    async def switched() -> bool:
        return await selected(tenant) == candidate

    await eventually(switched, "traffic goes to the observed revision")


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy"])
async def test_a_child_deleted_by_hand_comes_back(kind: str, operator: OperatorProcess, tenant: Tenant) -> None:
    revision = await serve(tenant)
    name = revision if kind == "Deployment" else "credit"
    before = await tenant.present(kind, name)
    await tenant.client.delete(kinds.BY_KIND[kind], name, tenant.namespace)

    async def back() -> bool:
        found = await tenant.child(kind, name)
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    await eventually(back, f"{kind} is back")


async def test_an_edited_wall_is_repaired_and_a_foreign_label_stays(operator: OperatorProcess, tenant: Tenant) -> None:
    await serve(tenant)
    policy = kinds.BY_KIND["NetworkPolicy"]
    edit = {"metadata": {"labels": {"team": "blue"}}, "spec": {"ingress": [{}]}}
    await tenant.client.patch(policy, "credit", tenant.namespace, edit)

    async def repaired() -> bool:
        found = await tenant.client.get(policy, "credit", tenant.namespace)
        return {} not in found["spec"]["ingress"] and found["metadata"]["labels"].get("team") == "blue"

    await eventually(repaired, "the open wall is closed, the foreign label stays")


async def test_a_container_that_somebody_added_is_taken_out_whatever_it_says(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    """The API server writes `&` and `>` in JSON otherwise than others do, and a JSON patch compares texts."""
    await serve(tenant)
    (revision,) = [r["metadata"]["name"] for r in (await tenant.client.list(DEPLOYMENT, tenant.namespace))[0]]
    alien = {"name": "alien", "image": "alien:1", "command": ["/bin/sh", "-c", "true && true > /dev/null"]}
    edit = [{"op": "add", "path": "/spec/template/spec/containers/-", "value": alien}]
    await tenant.client.patch(DEPLOYMENT, revision, tenant.namespace, edit, content_type=JSON_PATCH)

    async def gone() -> bool:
        found = await tenant.client.get(DEPLOYMENT, revision, tenant.namespace)
        return "alien" not in {c["name"] for c in found["spec"]["template"]["spec"]["containers"]}

    await eventually(gone, "the container is gone")


async def writes_of_operator(apiserver: ApiServer, namespace: str) -> int:
    """Writes of the operator in a namespace, from the API server's own audit log."""
    count = 0
    for line in apiserver.audit_log.read_text().splitlines():
        entry = json.loads(line)
        if entry["stage"] == "ResponseComplete" and entry["user"]["username"].endswith(":r1plus-operator"):
            count += entry["verb"] not in ("get", "list", "watch") and namespace in entry["requestURI"]
    return count


async def healthy(process: OperatorProcess) -> bool:
    async with httpx.AsyncClient() as http:
        try:
            return (await http.get(f"http://127.0.0.1:{process.port}/readyz")).status_code == 200
        except httpx.TransportError:
            return False


async def passes(process: OperatorProcess) -> float:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://127.0.0.1:{process.port}/metrics")).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("r1plus_reconcile_total{"))


async def test_a_killed_operator_starts_again_and_writes_nothing(
    apiserver: ApiServer, operator: OperatorProcess, tenant: Tenant
) -> None:
    revision = await serve(tenant)
    settled = -1

    async def quiet() -> bool:
        nonlocal settled
        before, settled = settled, await writes_of_operator(apiserver, tenant.namespace)
        await asyncio.sleep(0.5)
        return before == settled

    await eventually(quiet, "the operator has nothing more to write")
    operator.kill()
    operator.start()

    async def looked() -> bool:
        return await healthy(operator) and await passes(operator) >= 2

    await eventually(looked, "the new process has made passes")
    await eventually(quiet, "and is done")
    assert await writes_of_operator(apiserver, tenant.namespace) == settled
    assert await selected(tenant) == revision


async def test_a_write_that_is_refused_is_a_condition_and_heals(operator: OperatorProcess, tenant: Tenant) -> None:
    role = await tenant.client.get(ROLES["ClusterRole"], NAMESPACE)
    narrowed = [
        {**rule, "verbs": [v for v in rule["verbs"] if v not in ("create", "patch")]}
        if "poddisruptionbudgets" in rule["resources"]
        else rule
        for rule in role["rules"]
    ]
    await tenant.client.patch(ROLES["ClusterRole"], NAMESPACE, None, {"rules": narrowed})
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    message = await tenant.until("credit", "Progressing", "False", "WriteRefused")
    assert "poddisruptionbudgets" in message
    await grant(tenant.client)
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1000})
    await tenant.present("PodDisruptionBudget", "credit")
    await tenant.until("credit", "Progressing", "True", "RollingOut")


async def test_a_deleted_engine_of_the_catalog_comes_back(operator: OperatorProcess, client: ApiClient) -> None:
    async def there() -> bool:
        engines, _ = await client.list(kinds.R1PLUS_ENGINE)
        return "smollm2-full-f16" in {engine["metadata"]["name"] for engine in engines}

    await eventually(there, "the catalog is applied")
    await client.delete(kinds.R1PLUS_ENGINE, "smollm2-full-f16")
    await eventually(there, "the engine is back")


async def test_the_operator_ends_at_a_signal_and_met_no_error(operator: OperatorProcess, tenant: Tenant) -> None:
    await serve(tenant)
    assert operator.stop() == 0
    assert "ERROR" not in operator.log
    assert operator.forbidden(tenant.namespace) == []
