"""What holds where somebody gets around the admission policies, or a webhook rewrites pods.

A forged ConfigMap promotes nothing, an edited owner or mark is restored, another image than the gated one is reported.
A real monitor reads the forged files, on a scripted engine.
"""

import asyncio
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.settings import SETTINGS_FILE, VERDICTS_FILE, KnownVerdicts
from r1plus_contract.suites.suite import Item, load_suite
from r1plus_contract.verdict import GateReport, Phase, Verdict
from r1plus_monitoring.probe.client import ProbeReply
from r1plus_monitoring.process.prober import Prober
from r1plus_operator.api import kinds
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.runtime.client import JSON_PATCH
from support.apiserver.manifests import CONTEXT, Json, manifest
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant, apply_pod
from support.monitoring.scripted import Pod, ScriptedEngine, comes_to

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]


class SoundEngine(ScriptedEngine):
    """Answers each item of a suite as its reference does."""

    def __init__(self, items: tuple[Item, ...]) -> None:
        super().__init__(behaviour=self._answer)
        self._answers = {item.prompt: item.answers[0] for item in items}

    async def _answer(self, prompt: str, before: int) -> ProbeReply:
        return ProbeReply(self._answers[prompt], "stop", 5, 1)


@asynccontextmanager
async def monitor(
    folder: Path, revision: Revision, address: str, files: Mapping[str, str], engine: ScriptedEngine
) -> AsyncIterator[tuple[Pod, Prober]]:
    """Run the monitor of a new pod of the revision, which mounts these files."""
    pod = Pod.make(Path(tempfile.mkdtemp(dir=folder)), revision.identity)
    pod.swap(files)
    config = replace(pod.config(), revision=revision.name, host=address, port=names.PORT_MONITOR)
    prober = Prober(config, engine)
    task = asyncio.create_task(prober.run())
    try:
        yield pod, prober
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def forge(files: Mapping[str, str], revision: Revision) -> dict[str, str]:
    """Let the gate observe only, and report a Pass of the very engine, suite and threshold that are asked for."""
    settings = json.loads(files[SETTINGS_FILE])
    header = load_suite(files["suite.json"], files["items.jsonl"]).header
    about = (revision.identity_digest, header.name, header.sha256, header.scorer_version, settings["threshold"])
    passed = GateReport(Verdict.PASS, "Passed", "lost 0 of 210 items", *about, 210, 0, 4, batch=revision.batch)
    forged = {SETTINGS_FILE: json.dumps(settings | {"gate": "Observe"}), VERDICTS_FILE: dumps(KnownVerdicts((passed,)))}
    return {**files, **forged}


async def start_candidate(tenant: Tenant) -> tuple[Revision, Monitors, dict[str, str]]:
    """Ask for another revision and run its pod; return it, where its monitor is asked, and what that has mounted."""
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048})
    candidate = await tenant.candidate("credit")
    revision = read_revision(await tenant.present("ControllerRevision", candidate))
    place = Monitors()
    await tenant.run_pod(candidate, ready=True, monitors=place)
    return revision, place, (await tenant.present("ConfigMap", "credit-accuracy"))["data"]


@pytest.mark.apiserver_sample
async def test_a_pass_under_a_forged_configuration_promotes_nothing(
    operator: OperatorProcess, tenant: Tenant, tmp_path: Path
) -> None:
    serving = await tenant.serve()
    revision, place, files = await start_candidate(tenant)
    candidate = revision.name

    async with monitor(tmp_path, revision, place.address, files, ScriptedEngine(answers=5)) as (pod, prober):
        await tenant.until("credit", "QualityVerified", "Unknown", "GateRunning")
        pod.swap(forge(files, revision))
        report = await comes_to(prober, Phase.WATCHING)
        assert (report.verdict, report.reason) == (Verdict.PASS, "Passed")
        message = await tenant.until("credit", "QualityVerified", "False", "PassUnproven")
        assert "delete the pod" in message
        assert (await tenant.cr("credit"))["status"]["candidate"] == candidate
        assert read_revision(await tenant.present("ControllerRevision", candidate)).verdicts == ()
        assert await tenant.selected() == serving

    sound = SoundEngine(load_suite(files["suite.json"], files["items.jsonl"]).items)
    async with monitor(tmp_path, revision, place.address, files, sound):
        await tenant.switched(candidate)
        await tenant.until("credit", "QualityVerified", "True", "GatePassed")


async def test_a_gate_under_a_forged_threshold_promotes_nothing(
    operator: OperatorProcess, tenant: Tenant, tmp_path: Path
) -> None:
    serving = await tenant.serve()
    revision, place, files = await start_candidate(tenant)
    settings = json.loads(files[SETTINGS_FILE]) | {"threshold": 0.5}
    sound = SoundEngine(load_suite(files["suite.json"], files["items.jsonl"]).items)
    forged = {**files, SETTINGS_FILE: json.dumps(settings)}
    async with monitor(tmp_path, revision, place.address, forged, sound) as (_, prober):
        report = await comes_to(prober, Phase.WATCHING)
        assert report.ran_under
        await tenant.until("credit", "QualityVerified", "False", "PassUnproven")
        assert await tenant.selected() == serving
        assert report.ran_under not in (await tenant.cr("credit"))["status"]["accuracyConfigs"]


OWNERS, LABELS = "/metadata/ownerReferences", "/metadata/labels"
MARK = f"{LABELS}/{names.LABEL_MANAGED_BY.replace('/', '~1')}"
FOREIGN = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-0000-0000-000000000000"}
EDITS: Mapping[str, list[Json]] = {
    "all references taken away": [{"op": "remove", "path": OWNERS}],
    "the only one taken away": [{"op": "remove", "path": f"{OWNERS}/0"}],
    "no controller any more": [{"op": "replace", "path": f"{OWNERS}/0/controller", "value": False}],
    "another name": [{"op": "replace", "path": f"{OWNERS}/0/name", "value": "x"}],
    "another kind": [{"op": "replace", "path": f"{OWNERS}/0/kind", "value": names.KIND_ENGINE}],
    "another version": [{"op": "replace", "path": f"{OWNERS}/0/apiVersion", "value": "v1"}],
    "the mark taken away": [{"op": "remove", "path": MARK}],
    "another's mark": [{"op": "replace", "path": MARK, "value": "Helm"}],
    "all labels taken away": [{"op": "remove", "path": LABELS}],
    "another controller": [{"op": "replace", "path": OWNERS, "value": [{**FOREIGN, "controller": True}]}],
}


@pytest.mark.apiserver_sample
async def test_an_edited_owner_or_mark_is_restored_and_the_object_stays_the_same(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    revision = await tenant.serve()
    named = dict.fromkeys(("ConfigMap", "ControllerRevision", "Deployment"), revision)
    for resource in kinds.REQUIRED_CHILDREN:
        name = named.get(resource.kind, "credit")
        before = await tenant.present(resource.kind, name)
        for what, edit in EDITS.items():
            await tenant.client.patch(resource, name, tenant.namespace, edit, content_type=JSON_PATCH)

            def is_as_before(now: Json, before: Json = before) -> bool:
                return all(now["metadata"].get(part) == before["metadata"].get(part) for part in KEPT)

            await tenant.child_that(resource.kind, name, is_as_before, f"{resource.kind} is as before: {what}")
    # The status is written first, of what was seen before the repair.
    await tenant.until("credit", "Progressing", "False", "Complete")


KEPT = ("uid", "ownerReferences", "labels", "annotations")
"""Among the annotations of a ControllerRevision are its verdicts and its promotion."""


async def test_a_revision_without_mark_and_owner_is_reported_and_not_overwritten(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    revision = await tenant.serve()
    # No pod of a revision without an owner is asked for its report, so what the kubelet says of Triton has to count.
    triton = {"name": names.CONTAINER_TRITON, "ready": True, "restartCount": 0, "image": "", "imageID": ""}
    await tenant.set_status(f"{revision}-pod", containerStatuses=[triton])
    await tenant.until("credit", "Progressing", "False", "Complete")
    before = await tenant.child_that(
        "ControllerRevision",
        revision,
        lambda obj: read_revision(obj).last_valid,
        "its promotion is recorded as a whole",
    )
    both = [{"op": "remove", "path": MARK}, {"op": "remove", "path": OWNERS}]
    kind = kinds.BY_KIND["ControllerRevision"]
    await tenant.client.patch(kind, revision, tenant.namespace, both, content_type=JSON_PATCH)
    message = await tenant.until("credit", "Progressing", "False", "WriteRefused")
    assert f"ControllerRevision {revision} has neither the label" in message
    assert "ask an administrator to put the label back" in message
    now = await tenant.present("ControllerRevision", revision)
    assert now["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert await tenant.selected() == revision
    await tenant.until("credit", "Ready", "True", "Serving")  # It does, and its pods are not foreign.
    await tenant.until("credit", "EngineReady", "True", "EngineLoaded")

    put_back = {"metadata": {"labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}}}
    await tenant.client.patch(kind, revision, tenant.namespace, put_back)

    def is_as_before(now: Json) -> bool:
        return all(now["metadata"].get(part) == before["metadata"].get(part) for part in KEPT)

    await tenant.child_that("ControllerRevision", revision, is_as_before, "the revision is as before")
    await tenant.until("credit", "Progressing", "False", "Complete")
    await tenant.until("credit", "Ready", "True", "Serving")


def runs(digest: str) -> Json:
    """What a kubelet says of the containers of a pod whose Triton runs this image."""
    image = {"image": "registry.local/triton:1", "imageID": f"registry.local/triton@sha256:{digest * 64}"}
    triton = {"name": names.CONTAINER_TRITON, "ready": True, "started": True, "restartCount": 0, "state": {}, **image}
    return {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [triton]}


async def test_a_pod_that_runs_another_image_than_the_gated_one_is_reported(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    revision = await tenant.candidate("credit")
    pod = await tenant.run_pod(revision, ready=False)
    await tenant.set_status(pod, **runs("a"))
    await tenant.decide(revision, Verdict.PASS)
    await tenant.until("credit", "Ready", "True", "Serving")
    gated = {names.CONTAINER_TRITON: (f"sha256:{'a' * 64}",)}
    await tenant.child_that(
        "ControllerRevision", revision, lambda obj: read_revision(obj).images == gated, "it is recorded"
    )

    await tenant.client.delete(kinds.POD, pod, tenant.namespace)
    moved = await tenant.run_pod(revision, ready=True, suffix="moved")
    await tenant.set_status(moved, **runs("b"))
    message = await tenant.until("credit", "QualityVerified", "False", "ImageChanged")
    assert f"Pod {moved} runs another image" in message
    assert f"Revision {revision}: container {names.CONTAINER_TRITON} runs sha256:bbb" in message
    await tenant.set_status(moved, **runs("a"))
    await tenant.until("credit", "QualityVerified", "True", "GatePassed")


DIGEST = f"sha256:{'a' * 64}"
UID = 1_000_680_000


def as_openshift_and_kyverno_admit(template: Json) -> Json:
    """Return a pod template as the pod is stored by a cluster that fills in users and names images by mirror and digest."""
    made = deepcopy(template)
    pod_spec = made["spec"]
    pod_spec["securityContext"] |= {"fsGroup": UID, "seLinuxOptions": {"level": "s0:c26,c15"}}
    for container in (*pod_spec["initContainers"], *pod_spec["containers"]):
        container["securityContext"] |= {"runAsUser": UID}
        container["image"] = f"mirror.local/cache/{container['image']}@{DIGEST}"
    return made


async def test_a_pod_that_a_webhook_rewrote_is_promoted(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    revision = await tenant.candidate("credit")
    await tenant.present("ConfigMap", "credit-accuracy")
    template = (await tenant.present("Deployment", revision))["spec"]["template"]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{revision}-7d9f", "uid": str(uuid.uuid4())}
    name = f"{revision}-pod"
    await apply_pod(tenant.client, name, tenant.namespace, as_openshift_and_kyverno_admit(template), owner)
    await tenant.set_ready(name, ready=False)
    await tenant.decide(revision, Verdict.PASS)
    await tenant.until("credit", "QualityVerified", "True", "GatePassed")
    await tenant.set_ready(name, ready=True)
    await tenant.until("credit", "Ready", "True", "Serving")
    assert (await tenant.present("Deployment", revision))["spec"]["template"] == template


async def test_a_service_that_is_taken_over_leads_to_ready_pods_only(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1024}, rollout={"paused": True})
    meta = (await tenant.cr("credit"))["metadata"]
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "name": "credit", "uid": meta["uid"]}
    spec = {"publishNotReadyAddresses": True, "selector": {"app": "mine"}, "ports": [{"name": "http", "port": 8000}]}
    body = manifest(kinds.BY_KIND["Service"], "credit", tenant.namespace, spec=spec)
    body["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    await tenant.client.create(kinds.BY_KIND["Service"], body)
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1024}, rollout={"paused": False})
    revision = await tenant.bring_up("credit")
    await tenant.switched(revision)
    await tenant.child_that(
        "Service",
        "credit",
        lambda service: not service["spec"].get("publishNotReadyAddresses"),
        "the Service leads to pods that are Ready",
    )
