"""Engines on volumes, on a real API server: claim, walls, Job, and what is left of it. The test plays Job and kubelet."""

from pathlib import Path
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import FillPhase, FillProgress
from r1plus_operator.api import kinds
from r1plus_operator.plan.revision.storage import read_revision
from support.apiserver.manifests import CONTEXT, Json, manifest
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import until_refused
from support.apiserver.tenant import Tenant, apply_pod_as_default, end_job
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
CLAIM, QUOTA = (kinds.BY_KIND[kind] for kind in ("PersistentVolumeClaim", "ResourceQuota"))
SPEC: Json = {"tier": "full", "context": CONTEXT, "delivery": {"mode": "Volume"}}
UNSIGNED = {"R1PLUS_DELIVERY_REQUIRE_SIGNATURE": "false"}
LONG_AGO = "2026-01-01T00:00:00Z"
CLAIMED: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    """Engines need no signature."""
    return UNSIGNED


async def volume_of(tenant: Tenant, name: str) -> str:
    """The volume of the present candidate, once its Job is there."""
    revision = await tenant.candidate(name)
    volume = read_revision(await tenant.present("ControllerRevision", revision)).volume
    assert volume is not None
    await tenant.present("Job", volume.name)
    return volume.name


async def deliver(tenant: Tenant) -> str:
    """Deploy `credit`, and bring its engine to the volume; the volume."""
    await tenant.deploy("credit", **SPEC)
    volume = await volume_of(tenant, "credit")
    await succeed(tenant, volume)
    return volume


async def succeed(tenant: Tenant, volume: str) -> None:
    """What the Job controller writes at a Job's good end."""
    await end_job(tenant.client, await tenant.present("Job", volume))


async def job_pod(tenant: Tenant, volume: str, **status: Any) -> None:
    """What the Job controller and a kubelet make of the Job's template."""
    job = await tenant.present("Job", volume)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": volume, "uid": job["metadata"]["uid"]}
    await apply_pod_as_default(tenant.client, f"{volume}-x", tenant.namespace, job["spec"]["template"], owner)
    await tenant.set_status(f"{volume}-x", **{"phase": "Running", **status})


async def told(tenant: Tenant, name: str, words: str) -> None:
    async def is_told() -> bool:
        return words in (await tenant.condition(name, "EngineReady"))[2]

    await eventually(is_told, f"EngineReady of {name} says: {words}")


@pytest.mark.apiserver_sample
async def test_an_engine_is_brought_to_a_volume_and_then_served_from_it(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.deploy("credit", **SPEC)
    volume = await volume_of(tenant, "credit")
    revision = await tenant.candidate("credit")
    assert await tenant.child("Deployment", revision) is None
    assert (await tenant.present("PersistentVolumeClaim", volume))["spec"]["accessModes"] == ["ReadWriteOnce"]
    await tenant.present("NetworkPolicy", volume)
    await tenant.until("credit", "EngineReady", "Unknown", "Delivering")
    await job_pod(tenant, volume)
    tenant.monitors.progress = FillProgress(FillPhase.FETCHING, 45, 100)
    await told(tenant, "credit", "fetching 40 %")
    await succeed(tenant, volume)
    await tenant.present("Deployment", revision)
    for kind in ("Job", "NetworkPolicy", "ConfigMap"):
        await tenant.absent(kind, volume)
    claim = await tenant.present("PersistentVolumeClaim", volume)
    digest = read_revision(await tenant.present("ControllerRevision", revision)).identity.engine_digest
    assert claim["metadata"]["annotations"][names.ANNOTATION_DELIVERED] == digest
    assert await tenant.bring_up("credit") == revision


async def test_two_deployments_share_a_volume_and_the_last_one_takes_it_with_it(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    volume = await deliver(tenant)
    await tenant.absent("Job", volume)
    await tenant.deploy("triage", **SPEC)
    await tenant.present("Deployment", await tenant.candidate("triage"))
    await tenant.child_that(
        "PersistentVolumeClaim", volume, lambda it: owners(it) == ["credit", "triage"], "both own the volume"
    )
    assert await tenant.child("Job", volume) is None
    await part(tenant, "credit")
    await tenant.child_that(
        "PersistentVolumeClaim", volume, lambda it: owners(it) == ["triage"], "triage alone owns the volume"
    )
    holder = {"metadata": {"finalizers": ["example.com/holds-it"]}}
    await tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "triage", tenant.namespace, holder)
    # Nobody plays the garbage collector: a finalizer keeps the object, and the operator deletes what it has.
    await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, "triage", tenant.namespace)

    async def going() -> bool:
        claim = await tenant.child("PersistentVolumeClaim", volume)
        return claim is None or "deletionTimestamp" in claim["metadata"]

    await eventually(going, "the volume goes")
    await tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "triage", tenant.namespace, {"metadata": {"finalizers": None}})


async def test_a_volume_stays_while_its_revision_has_lost_its_mark(operator: OperatorProcess, tenant: Tenant) -> None:
    """Else it would go with the last pod that mounts it, and no further pod could start until it is filled again."""
    volume = await deliver(tenant)
    revision = await tenant.bring_up("credit")
    before = await tenant.present("PersistentVolumeClaim", volume)
    kind = kinds.BY_KIND["ControllerRevision"]
    unmark = {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}
    await tenant.client.patch(kind, revision, tenant.namespace, unmark)

    def is_marked(now: Json) -> bool:
        return bool(now["metadata"]["labels"].get(names.LABEL_MANAGED_BY))

    await tenant.child_that("ControllerRevision", revision, is_marked, "the revision has its mark again")
    await tenant.until("credit", "Progressing", "False", "Complete")
    now = await tenant.present("PersistentVolumeClaim", volume)
    assert (now["metadata"]["uid"], "deletionTimestamp" in now["metadata"]) == (before["metadata"]["uid"], False)


async def part(tenant: Tenant, name: str) -> None:
    """Delete a deployment and do what the garbage collector would do with its history and its pods."""
    revision = await tenant.candidate(name)
    await tenant.present("Deployment", revision)
    await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace)
    for kind in ("ControllerRevision", "Deployment"):
        await tenant.client.delete(kinds.BY_KIND[kind], revision, tenant.namespace)


def owners(claim: Json) -> list[str]:
    return sorted(owner["name"] for owner in claim["metadata"]["ownerReferences"])


async def test_what_the_job_says_at_its_end_is_what_the_condition_says(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.deploy("credit", **SPEC)
    volume = await volume_of(tenant, "credit")
    ended = {
        "terminated": {
            "exitCode": 1,
            "message": "StorageFull: engine x: the volume is too small: needs 7 bytes, has 5 free",
        }
    }
    status = {"name": "fill", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
    await job_pod(tenant, volume, phase="Failed", containerStatuses=[status])
    message = await tenant.until("credit", "EngineReady", "False", "StorageFull")
    assert "needs 7 bytes" in message
    job = await tenant.present("Job", volume)
    await end_job(tenant.client, job, "FailureTarget", "Failed", at=LONG_AGO, failed=1)
    await tenant.present("Job", volume, other_than=job)


async def test_a_deleted_policy_comes_back_and_a_deleted_claim_is_filled_anew(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.deploy("credit", **SPEC)
    volume = await volume_of(tenant, "credit")
    await tenant.delete_and_see_it_back("NetworkPolicy", volume)
    await succeed(tenant, volume)
    await tenant.absent("Job", volume)
    # Nobody uses it, and here nobody looks after that: the finalizer goes by hand.
    await tenant.client.patch(CLAIM, volume, tenant.namespace, {"metadata": {"finalizers": None}})
    await tenant.client.delete(CLAIM, volume, tenant.namespace)
    job = await tenant.present("Job", volume)
    claim = await tenant.present("PersistentVolumeClaim", volume)
    assert job["metadata"]["annotations"][names.ANNOTATION_VOLUME_UID] == claim["metadata"]["uid"]
    assert names.ANNOTATION_DELIVERED not in claim["metadata"].get("annotations", {})


async def test_a_quota_that_forbids_the_volume_is_told(
    operator: OperatorProcess, apiserver: ApiServer, tenant: Tenant
) -> None:
    none = {"persistentvolumeclaims": "0"}
    await tenant.client.create(QUOTA, manifest(QUOTA, "no-volumes", tenant.namespace, spec={"hard": none}))
    counted = {"status": {"hard": none, "used": none}}
    await tenant.client.patch(QUOTA, "no-volumes", tenant.namespace, counted, subresource="status")
    until_refused(apiserver, manifest(CLAIM, "probe", spec=CLAIMED), tenant.namespace, "exceeded quota")
    await tenant.deploy("credit", **SPEC)
    assert "exceeded quota" in await tenant.until("credit", "EngineReady", "False", "DeliveryFailed")
    assert (await tenant.condition("credit", "Progressing"))[0] == "False"


async def test_the_operator_starts_anew_without_a_write(
    operator: OperatorProcess, apiserver: ApiServer, tenant: Tenant, tmp_path: Path
) -> None:
    volume = await deliver(tenant)
    revision = await tenant.candidate("credit")
    await tenant.present("Deployment", revision)
    await tenant.absent("Job", volume)
    operator.stop()
    parts = (("PersistentVolumeClaim", volume), ("Deployment", revision), ("ControllerRevision", revision))
    before = [(await tenant.present(*part))["metadata"]["resourceVersion"] for part in parts]
    again = OperatorProcess(apiserver, tmp_path / "again.log", **UNSIGNED)
    again.start()
    try:
        await eventually(again.ready, "the caches are synced")
        # A pass over another deployment tells that the first ones are through.
        await tenant.deploy("triage", tier="edge")
        await tenant.candidate("triage")
        assert [(await tenant.present(*part))["metadata"]["resourceVersion"] for part in parts] == before
    finally:
        again.kill()
