"""Pods in a cluster that assigns them a user, and refuses every other, as OpenShift does.

The admission of OpenShift is imitated by policies (`support/restricted_v2.yaml`). Kubernetes' own controllers make the pods.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster
from r1plus_cli.rollout.actions import request_action
from r1plus_contract import names
from r1plus_contract.requests import Verb
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.plan.podspec.pod import has_user
from r1plus_operator.plan.revision.storage import read_revision
from support.apiserver.audit import writes_at_rest, writes_of
from support.apiserver.chart import DECOY_NAMESPACE
from support.apiserver.isolation_runs import Team
from support.apiserver.manifests import CONTEXT, Json
from support.apiserver.openshift import RANGE, REFUSED, assert_admitted, restricting
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import Person
from support.apiserver.rights import OPERATOR
from support.apiserver.tenant import Tenant
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
NOW = datetime(2026, 11, 24, 17, 30, tzinfo=UTC)
JOB_NAME, CONTROLLER = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"
DECOY_ADDRESS = "10.244.0.9"
READY: Json = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
UNSIGNED = {"R1PLUS_DELIVERY_REQUIRE_SIGNATURE": "false"}


@pytest.fixture(scope="module")
def server(installed_server: ApiServer, admin: Person) -> Iterator[ApiServer]:
    """With the chart, real controllers and the imitation; the decoy's namespace has a range."""
    with restricting(admin, "restricted"):
        admin.do("PATCH", kinds.NAMESPACE.path(name=DECOY_NAMESPACE), {"metadata": {"annotations": RANGE}})
        yield installed_server


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    """With a decoy; engines need no signature."""
    return {"R1PLUS_DECOY_NAMESPACE": DECOY_NAMESPACE, **UNSIGNED}


async def assign_users(tenant: Tenant) -> None:
    """Annotate the namespace as OpenShift does."""
    await tenant.client.patch(kinds.NAMESPACE, tenant.namespace, None, {"metadata": {"annotations": RANGE}})


async def made_pod(tenant: Tenant, selector: str) -> Json:
    """Wait for the pod with these labels that a controller makes; return it."""

    async def find() -> Json | None:
        return next(iter(await tenant.listed("Pod", selector)), None)

    return await eventually(find, f"a controller has made a pod {selector}")


async def pass_gate(tenant: Tenant, revision: str) -> Json:
    """Let the revision's own pod start, pass and take traffic; return it as it was admitted."""
    found = await made_pod(tenant, f"{names.LABEL_REVISION}={revision}")
    pod = found["metadata"]["name"]
    await tenant.set_ready(pod, ready=False)
    await tenant.decide(revision, Verdict.PASS)
    await tenant.until("credit", "QualityVerified", "True", "GatePassed")
    await tenant.set_ready(pod, ready=True)
    await tenant.switched(revision)
    return found


async def template_of(tenant: Tenant, kind: str, name: str) -> Json:
    """The spec of the pods that a Deployment or a Job makes."""
    return dict((await tenant.present(kind, name))["spec"]["template"]["spec"])


async def without_user(tenant: Tenant) -> str:
    """Wait for a candidate whose pods name no user; return it."""

    async def find() -> str:
        revision = await tenant.candidate("credit")
        deployment = await tenant.child("Deployment", revision)
        names_none = deployment and not has_user(deployment["spec"]["template"]["spec"])
        return revision if names_none else ""

    return await eventually(find, "the candidate's pods name no user")


async def test_what_serves_is_admitted_promoted_and_left_alone(
    operator: OperatorProcess, tenant: Tenant, neighbour: Tenant, server: ApiServer
) -> None:
    await assign_users(tenant)
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    revision = await without_user(tenant)
    admitted = await pass_gate(tenant, revision)
    assert_admitted(admitted, await template_of(tenant, "Deployment", revision))
    await neighbour.deploy("credit", tier="full", context=CONTEXT)
    await neighbour.candidate("credit")
    written = await writes_at_rest(server, tenant, neighbour)
    operator.restart()
    await operator.has_made_passes()
    await neighbour.deploy("later", tier="full", context=CONTEXT)
    await neighbour.candidate("later")
    assert writes_of(server, OPERATOR, tenant.namespace) == written
    assert (await tenant.condition("credit", "EngineReady"))[1] == "EngineLoaded"


async def test_a_candidate_converges_when_its_namespace_gets_a_range(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    refused = await tenant.candidate("credit")
    before = await tenant.present("ControllerRevision", refused)
    assert has_user(read_revision(before).template["spec"])
    await assign_users(tenant)
    revision = await without_user(tenant)
    assert_admitted(await pass_gate(tenant, revision), await template_of(tenant, "Deployment", revision))
    await tenant.absent("Deployment", refused)
    after = await tenant.present("ControllerRevision", refused)
    assert after["data"] == before["data"]
    assert len(await tenant.listed("ControllerRevision")) == 2


async def test_what_serves_goes_on_and_a_refresh_brings_what_is_admitted(
    operator: OperatorProcess, tenant: Tenant, server: ApiServer
) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    first = await tenant.candidate("credit")
    pod = await pass_gate(tenant, first)
    deployment = await tenant.present("Deployment", first)
    await assign_users(tenant)

    async def is_reported() -> bool:
        message = (await tenant.cr("credit"))["status"]["runtime"]["message"]
        return "this namespace assigns users now" in message and "r1plus refresh" in message

    await eventually(is_reported, "status.runtime says what to do")
    await tenant.client.delete(kinds.POD, pod["metadata"]["name"], tenant.namespace)
    said = await tenant.until("credit", "CapacityFits", "False", "PodRefused")
    assert REFUSED in said
    assert "requests a candidate whose pods set none" in said
    unchanged = await tenant.present("Deployment", first)
    assert unchanged["metadata"]["generation"] == deployment["metadata"]["generation"]
    request_action(
        KubernetesCluster(str(server.kubeconfig)), tenant.namespace, "credit", Verb.REFRESH, "OpenShift", NOW
    )
    revision = await without_user(tenant)
    assert_admitted(await pass_gate(tenant, revision), await template_of(tenant, "Deployment", revision))


async def test_the_isolation_test_and_its_decoy_are_admitted(operator: OperatorProcess, tenant: Tenant) -> None:
    await assign_users(tenant)
    decoy = replace(tenant, namespace=DECOY_NAMESPACE)
    pod = await made_pod(decoy, f"{names.LABEL_DEPLOYMENT}={names.DECOY}")
    assert_admitted(pod, await template_of(decoy, "Deployment", names.DECOY))
    await decoy.set_status(pod["metadata"]["name"], podIP=DECOY_ADDRESS, podIPs=[{"ip": DECOY_ADDRESS}], **READY)
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    await pass_gate(tenant, await without_user(tenant))
    jobs = await Team(tenant, DECOY_NAMESPACE).run()
    for job in jobs.values():
        owner = replace(tenant, namespace=job["metadata"]["namespace"])
        pod = await made_pod(owner, f"{JOB_NAME}={job['metadata']['name']}")
        assert_admitted(pod, job["spec"]["template"]["spec"])


async def test_a_delivery_is_admitted_also_one_that_began_before_the_range(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT, delivery={"mode": "Volume"})
    volume = read_revision(await tenant.present("ControllerRevision", await tenant.candidate("credit"))).volume
    assert volume is not None
    await tenant.present("Job", volume.name)
    await assign_users(tenant)
    job = await tenant.child_that(
        "Job", volume.name, lambda it: not has_user(it["spec"]["template"]["spec"]), "the Job's pods name no user"
    )
    pod = await made_pod(tenant, f"{CONTROLLER}={job['metadata']['uid']}")
    assert_admitted(pod, job["spec"]["template"]["spec"])
    assert len(await tenant.listed("PersistentVolumeClaim")) == 1
