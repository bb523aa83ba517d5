"""The operator on a real API server: from a CR to its children, verdicts to traffic, repair, restart, silence."""

from collections.abc import AsyncIterator

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds, rbac
from r1plus_operator.runtime.client import JSON_PATCH, ApiClient
from support.apiserver.audit import writes_at_rest, writes_of
from support.apiserver.manifests import CLUSTER_ROLE, CONTEXT, MARK, Json, manifest, user
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE, grant_operator, may
from support.apiserver.tenant import Tenant
from support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.apiserver_sample]
DEPLOYMENT = kinds.BY_KIND["Deployment"]
Q4_1 = {"precision": "Q4_1"}


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
    await tenant.switched(revision)
    status = (await tenant.cr("credit"))["status"]
    assert (status["engine"], status["verdict"], status["accuracy"]) == ("smollm2-full-f16", "Pass", "210/210")


async def test_ready_is_said_once_the_service_leads_to_a_ready_pod(operator: OperatorProcess, tenant: Tenant) -> None:
    revision = await tenant.serve()
    (pod,) = await tenant.listed("Pod", f"{names.LABEL_REVISION}={revision}")
    endpoint: Json = {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"]}}
    labels = {**MARK, "kubernetes.io/service-name": "credit"}
    body = manifest(kinds.ENDPOINT_SLICE, "credit-abcde", tenant.namespace, labels=labels, addressType="IPv4")
    await tenant.client.create(
        kinds.ENDPOINT_SLICE, body | {"endpoints": [endpoint | {"conditions": {"ready": False}}]}
    )
    await tenant.until("credit", "Ready", "False", "Pending")
    edit = {"endpoints": [endpoint | {"conditions": {"ready": True}}]}
    await tenant.client.patch(kinds.ENDPOINT_SLICE, "credit-abcde", tenant.namespace, edit)
    await tenant.until("credit", "Ready", "True", "Serving")


async def test_the_gate_refuses_and_traffic_never_moves(operator: OperatorProcess, tenant: Tenant) -> None:
    stable = await tenant.serve()
    await tenant.deploy("credit", tier="full", context=CONTEXT, engine=Q4_1)
    candidate = await tenant.candidate("credit")
    await tenant.run_pod(candidate, ready=False)
    await tenant.decide(candidate, Verdict.FAIL, lost=97)
    message = await tenant.until("credit", "QualityVerified", "False", "GateFailed")
    assert "lost 97 of 210 items, 4 allowed" in message
    await tenant.absent("Deployment", candidate)
    assert await tenant.selected() == stable
    assert (await tenant.condition("credit", "Ready"))[0] == "True"


async def test_under_observe_the_refused_engine_serves_and_its_failure_shows(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.serve()
    await tenant.deploy("credit", tier="full", context=CONTEXT, engine=Q4_1, accuracy={"gate": "Observe"})
    candidate = await tenant.candidate("credit")
    await tenant.run_pod(candidate, ready=True)
    await tenant.decide(candidate, Verdict.FAIL, lost=97)
    await tenant.until("credit", "QualityVerified", "False", "GateFailed")
    await tenant.switched(candidate)


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy"])
async def test_a_child_deleted_by_hand_comes_back(kind: str, operator: OperatorProcess, tenant: Tenant) -> None:
    revision = await tenant.serve()
    await tenant.delete_and_see_it_back(kind, revision if kind == "Deployment" else "credit")


async def test_an_edited_policy_is_repaired_and_a_foreign_label_stays(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.serve()
    policy = kinds.BY_KIND["NetworkPolicy"]
    edit = {"metadata": {"labels": {"team": "blue"}}, "spec": {"ingress": [{}]}}
    await tenant.client.patch(policy, "credit", tenant.namespace, edit)
    await tenant.child_that(
        "NetworkPolicy",
        "credit",
        lambda it: {} not in it["spec"]["ingress"] and it["metadata"]["labels"].get("team") == "blue",
        "the open wall is closed, the foreign label stays",
    )


async def test_a_container_that_somebody_added_is_taken_out_whatever_it_says(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    """The API server writes `&` and `>` in JSON otherwise than others do, and a JSON patch compares texts."""
    revision = await tenant.serve()
    assert [one["metadata"]["name"] for one in await tenant.listed("Deployment")] == [revision]
    alien = {"name": "alien", "image": "alien:1", "command": ["/bin/sh", "-c", "true && true > /dev/null"]}
    edit = [{"op": "add", "path": "/spec/template/spec/containers/-", "value": alien}]
    await tenant.client.patch(DEPLOYMENT, revision, tenant.namespace, edit, content_type=JSON_PATCH)
    await tenant.child_that(
        "Deployment",
        revision,
        lambda it: "alien" not in {one["name"] for one in it["spec"]["template"]["spec"]["containers"]},
        "the container is gone",
    )


async def test_a_killed_operator_starts_again_and_writes_nothing(
    apiserver: ApiServer, operator: OperatorProcess, tenant: Tenant, neighbour: Tenant
) -> None:
    """The neighbour's children show that passes have gone by."""
    revision = await tenant.serve()
    await neighbour.serve()
    written = await writes_at_rest(apiserver, tenant, neighbour)
    operator.restart()
    await operator.has_made_passes()
    await neighbour.deploy("later", tier="full", context=CONTEXT)
    await neighbour.candidate("later")
    assert written
    assert writes_of(apiserver, OPERATOR, tenant.namespace) == written
    assert await tenant.selected() == revision


@pytest.fixture
async def narrowed(client: ApiClient) -> AsyncIterator[None]:
    """The operator may not write PodDisruptionBudgets, and the API server knows it."""
    rules = [row.build_rule() for row in rbac.list_operator_grants()]
    for rule in rules:
        if "poddisruptionbudgets" in rule.get("resources", ()):
            rule["verbs"] = [verb for verb in rule["verbs"] if verb not in ("create", "patch")]
    await client.patch(CLUSTER_ROLE, OPERATOR_NAMESPACE, None, {"rules": rules})
    taken = rbac.RbacGrant("Taken away", "policy", ("poddisruptionbudgets",), ("create",))

    async def is_known() -> bool:
        return not await may(client, user(OPERATOR), taken)

    await eventually(is_known, "the authoriser knows it")
    yield
    await grant_operator(client)


async def test_a_write_that_is_refused_is_a_condition_and_heals(
    operator: OperatorProcess, narrowed: None, tenant: Tenant
) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    message = await tenant.until("credit", "Progressing", "False", "WriteRefused")
    assert "poddisruptionbudgets" in message
    await grant_operator(tenant.client)
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
    await tenant.serve()
    assert operator.stop() == 0
    assert " INFO " in operator.log
    assert "ERROR" not in operator.log
    assert operator.forbidden(tenant.namespace) == []
