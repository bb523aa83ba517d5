"""Engines that several machines train, with the real controllers of Kubeflow's trainer and of JobSet.

The test plays the kubelet: it ends the pods that kube-controller-manager makes of the Jobs.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import FillPhase, FillProgress
from r1plus_contract.gateway import LABEL_GATEWAY
from r1plus_operator.api import kinds
from r1plus_operator.api.rbac import RbacGrant
from r1plus_operator.plan.podspec.pod import build_container_security_context, build_pod_security_context
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.plan.settings import PodUser
from r1plus_operator.plan.tenancy.train_jobs import PATCH_MANAGER
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import NotFoundError
from r1plus_operator.runtime.resources import Resource
from support.apiserver.chart import started_with_chart
from support.apiserver.kubeflow import CONTROLLERS, JOB_SET, TORCH, install_kubeflow
from support.apiserver.manifests import SERVICE_ACCOUNT, Json, manifest, user
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import Answer, people
from support.apiserver.rights import OPERATOR, grant
from support.apiserver.tenant import Tenant
from support.plan.builders import SHIPPED
from support.waiting import eventually

pytestmark = pytest.mark.trainjob
TRAINER = "registry.local/trainer:1"
VALUES = (
    "trainJobs.enabled=true",
    f"trainJobs.controllers={{{','.join(CONTROLLERS)}}}",
    f"images.trainer={TRAINER}",
)
SETTINGS = {"R1PLUS_DELIVERY_REQUIRE_SIGNATURE": "false", "R1PLUS_TRAINER_IMAGE": TRAINER, "R1PLUS_TRAIN_JOBS": "true"}
BASE, SUITE = "smollm2-edge-q4-1", "smollm2-edge-v1"
JOB, SERVICE = kinds.BY_KIND["Job"], kinds.BY_KIND["Service"]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """A server of this module's own, with the chart as it is with TrainJobs, and no Kubeflow yet."""
    with started_with_chart(*VALUES) as server:
        yield server


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    return SETTINGS


@pytest.fixture
async def kubeflow(server: ApiServer, client: ApiClient) -> AsyncIterator[None]:
    """The trainer and JobSet, from the first test on that asks for them."""
    try:
        await client.list(kinds.TRAIN_JOB)
    except NotFoundError:
        await install_kubeflow(server.layout, client)
    yield


async def write_engine(client: ApiClient, name: str, runtime: str = TORCH, **distill: Any) -> None:
    """Write an engine that two machines train."""
    document = SHIPPED[BASE].spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    document |= {"family": name, "artifact": {"image": "registry.local/teacher:1", "sha256": "b" * 64}}
    document["architecture"]["layers"] = 24
    document["build"] = {
        "distill": {"layers": 24, "memory": "6Gi", "storage": "8Gi", "numNodes": 2, **distill}
        | {"runtimeRef": {"name": runtime}}
    }
    await client.apply(
        kinds.R1PLUS_ENGINE, manifest(kinds.R1PLUS_ENGINE, name, spec=document), field_manager="platform"
    )


async def deploy(tenant: Tenant, family: str) -> str:
    """Deploy the engine of this family; return its volume."""
    await tenant.deploy("credit", tier="edge", engine={"family": family}, accuracy={"suite": SUITE})
    revision = await tenant.candidate("credit")
    volume = read_revision(await tenant.present("ControllerRevision", revision)).volume
    assert volume is not None
    return volume.name


async def pods_of(tenant: Tenant, job: str) -> list[Json]:
    pods = await tenant.listed("Pod", f"job-name={job}")
    return sorted(
        (pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") != "Failed"),
        key=lambda pod: str(pod["metadata"]["name"]),
    )


async def wait_for_pods(tenant: Tenant, job: str, count: int) -> list[Json]:
    """Wait for so many pods of a Job that have not failed; return them by name."""

    async def find() -> list[Json]:
        pods = await pods_of(tenant, job)
        return pods if len(pods) == count else []

    return await eventually(find, f"Job {job} has {count} pods")


async def end_pod(tenant: Tenant, pod: Json, *, exit_code: int = 0, message: str = "") -> None:
    """What a kubelet reports of a pod whose containers have ended."""
    end = {"exitCode": exit_code, "message": message, "reason": "Completed"}
    statuses = [
        {"name": one["name"], "image": one["image"], "imageID": "", "ready": False, "restartCount": 0}
        | {"state": {"terminated": end}}
        for one in pod["spec"]["containers"]
    ]
    phase = "Failed" if exit_code else "Succeeded"
    await tenant.set_status(pod["metadata"]["name"], phase=phase, containerStatuses=statuses)


async def run_pod(tenant: Tenant, pod: Json) -> None:
    statuses = [
        {"name": one["name"], "image": one["image"], "imageID": "", "ready": True, "restartCount": 0}
        | {"state": {"running": {}}}
        for one in pod["spec"]["containers"]
    ]
    await tenant.set_status(pod["metadata"]["name"], phase="Running", containerStatuses=statuses)


async def fetch(tenant: Tenant, volume: str) -> None:
    """Let the Job that fetches end well."""
    for pod in await wait_for_pods(tenant, volume, 1):
        await end_pod(tenant, pod)


async def says(tenant: Tenant, words: str) -> tuple[str, str, str]:
    """Wait until EngineReady says this; return it."""
    seen = ("", "", "")

    async def is_said() -> bool:
        nonlocal seen
        seen = await tenant.condition("credit", "EngineReady")
        return words in seen[2]

    await eventually(is_said, f"EngineReady says: {words}", evidence=lambda: str(seen))
    return seen


async def test_a_cluster_without_the_trainer_says_what_to_install(operator: OperatorProcess, tenant: Tenant) -> None:
    """Runs first: what comes later installs it. Then the same deployment goes on by itself."""
    await write_engine(tenant.client, "early")
    volume = await deploy(tenant, "early")
    status, reason, _ = await says(
        tenant, "install Kubeflow Trainer 2.2 or later, set the chart's trainJobs.enabled to true, or remove"
    )
    assert (status, reason) == ("False", "EngineNotDelivered")
    await fetch(tenant, volume)
    assert operator.forbidden(tenant.namespace) == []


async def test_a_fetched_engine_is_trained_by_the_pods_that_the_plan_describes(
    kubeflow: None, operator: OperatorProcess, tenant: Tenant
) -> None:
    await write_engine(tenant.client, "trained")
    volume = await deploy(tenant, "trained")
    assert await tenant.child("TrainJob", volume) is None
    await fetch(tenant, volume)
    train_job = await tenant.present("TrainJob", volume)
    assert train_job["spec"]["runtimeRef"]["name"] == TORCH
    workers = await wait_for_pods(tenant, f"{volume}-node-0", 2)
    job = await tenant.present("Job", f"{volume}-node-0")
    assert (job["spec"]["parallelism"], job["spec"]["completionMode"]) == (2, "Indexed")
    for worker in workers:
        check_worker(worker, volume)
    policy = await tenant.present("NetworkPolicy", volume)
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= workers[0]["metadata"]["labels"].items()
    await says(tenant, "its Job starts")

    # One is killed: the Job makes another, and the TrainJob goes on.
    await run_pod(tenant, workers[0])
    tenant.monitors.progress = FillProgress(FillPhase.TRAINING, 800, 2000, 0.5123, 1200)
    await says(tenant, "training, step 800 of 2000, loss 0.5123, about 20 min left")
    await tenant.client.delete(kinds.POD, workers[1]["metadata"]["name"], tenant.namespace)
    again = await wait_for_pods(tenant, f"{volume}-node-0", 2)
    assert workers[1]["metadata"]["name"] not in [pod["metadata"]["name"] for pod in again]

    # Trained: the Job without a TrainJob makes the engine of the student, and everything but the claim goes.
    fetched = await tenant.present("Job", volume)
    for worker in again:
        await end_pod(tenant, worker)
    last = await tenant.present("Job", volume, other_than=fetched)
    assert [one["name"] for one in last["spec"]["template"]["spec"]["initContainers"]] == ["engine", "fetch", "build"]
    assert await tenant.child("TrainJob", volume) is not None
    for pod in await wait_for_pods(tenant, volume, 1):
        await end_pod(tenant, pod)
    await tenant.present("Deployment", await tenant.candidate("credit"))
    for kind in ("TrainJob", "Job", "NetworkPolicy", "ConfigMap", "ServiceAccount"):
        await tenant.absent(kind, volume)
    assert operator.forbidden(tenant.namespace) == []


def check_worker(worker: Json, volume: str) -> None:
    """Compare a pod that the controllers made with what the plan says."""
    spec, labels = worker["spec"], worker["metadata"]["labels"]
    (container,) = spec["containers"]
    assert (container["name"], container["image"]) == ("node", TRAINER)
    assert container["command"][:3] + container["command"][-1:] == [
        "python3",
        "-m",
        "r1plus_training.distill_job",
        "--worker",
    ]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert (env["PET_NNODES"], env["PET_MASTER_ADDR"]) == ("2", f"{volume}-node-0-0.{volume}")
    assert env["OMP_NUM_THREADS"] == "2"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "6Gi"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"] is True
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounts == {
        "volume": names.DIR_VOLUME,
        "order": names.DIR_ORDER,
        "suite": names.DIR_TRAINING_SUITE,
        "build-tmp": "/tmp",
    }, "no token of a service account, too"
    (claim,) = [one for one in spec["volumes"] if one["name"] == "volume"]
    assert claim["persistentVolumeClaim"]["claimName"] == volume
    assert spec["serviceAccountName"] == volume
    assert labels[names.LABEL_VOLUME] == volume


async def test_a_runtime_that_is_not_there_is_named_and_a_corrected_one_goes_on(
    kubeflow: None, operator: OperatorProcess, tenant: Tenant
) -> None:
    await write_engine(tenant.client, "misnamed", "no-such-runtime")
    volume = await deploy(tenant, "misnamed")
    await fetch(tenant, volume)
    status, reason, message = await says(tenant, "no-such-runtime")
    assert (status, reason) == ("False", "DeliveryFailed")
    assert "correct spec.build.distill.runtimeRef of the R1PlusEngine" in message
    await write_engine(tenant.client, "misnamed")
    await wait_for_pods(tenant, f"{volume}-node-0", 2)


async def test_a_training_that_fails_for_good_says_why_and_what_to_look_at(
    kubeflow: None, operator: OperatorProcess, tenant: Tenant
) -> None:
    await write_engine(tenant.client, "failing")
    volume = await deploy(tenant, "failing")
    await fetch(tenant, volume)
    job = await tenant.present("Job", f"{volume}-node-0")
    await tenant.client.patch(
        kinds.BY_KIND["Job"], job["metadata"]["name"], tenant.namespace, {"spec": {"backoffLimit": 0}}
    )
    leader, _ = await wait_for_pods(tenant, f"{volume}-node-0", 2)
    text = "TrainingRefused: spec.build.distill.learningRate: the training diverged at step 3"
    await end_pod(tenant, leader, exit_code=2, message=text)
    status, reason, _ = await says(tenant, "spec.build.distill.learningRate: the training diverged at step 3")
    assert (status, reason) == ("False", "DeliveryFailed")
    for pod in await tenant.listed("Pod", f"job-name={volume}-node-0"):
        await tenant.client.delete(kinds.POD, pod["metadata"]["name"], tenant.namespace)
    _, _, message = await says(tenant, "its TrainJob has failed")
    assert f"see `kubectl describe trainjob {volume}`" in message


async def test_a_foreign_train_job_of_the_same_name_is_left_alone_and_reported(
    kubeflow: None, operator: OperatorProcess, tenant: Tenant
) -> None:
    await write_engine(tenant.client, "taken")
    volume = await deploy(tenant, "taken")
    spec = {"runtimeRef": {"name": TORCH}, "suspend": True}
    foreign = manifest(kinds.TRAIN_JOB, volume, tenant.namespace, spec=spec)
    await tenant.client.create(kinds.TRAIN_JOB, foreign)
    await fetch(tenant, volume)
    status, reason, message = await says(tenant, "so the operator does not overwrite it")
    assert (status, reason) == ("False", "DeliveryFailed")
    assert "runtimeRef" not in message, "that is not what is wrong"
    assert (await tenant.present("TrainJob", volume))["spec"]["suspend"] is True


def merge(target: Json, change: Json) -> Json:
    """Return a copy with the fields of `change`, at any depth."""
    merged = {key: merge(target.get(key) or {}, one) if isinstance(one, dict) else one for key, one in change.items()}
    return target | merged


def own_train_job(namespace: str, *, pod: Json, container: Json, job: str = "node", **spec: Any) -> Json:
    """Return a TrainJob as the operator writes them, with changes of its pods, of their container and of its spec."""
    right = {"image": TRAINER, "command": ["python3", "-m", "r1plus_training.distill_job", "--worker"]}
    containers = [merge({"name": "node", "securityContext": build_container_security_context()}, container)]
    own = {"serviceAccountName": "r1plus-engine-1", "securityContext": build_pod_security_context(PodUser())}
    template = {"spec": merge({**own, "containers": containers}, pod)}
    patched = {"replicatedJobs": [{"name": job, "template": {"spec": {"template": template}}}]}
    patch = {"manager": PATCH_MANAGER, "trainingRuntimeSpec": {"template": {"spec": patched}}}
    marks = {names.LABEL_MANAGED_BY: names.MANAGED_BY}
    document: Json = {"runtimeRef": {"name": TORCH}, "trainer": right, "runtimePatches": [patch]}
    return manifest(kinds.TRAIN_JOB, "r1plus-engine-1", namespace, labels=marks, spec=document | spec)


SECRET = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "r1plus-gateway-key", "key": "key"}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trainer": {"image": "registry.local/other:1"}}, "images.trainer"),
        ({"trainer": {"image": TRAINER, "command": ["sh", "-c", "id"]}}, "r1plus_training.distill_job"),
        ({"initializer": {"model": {"storageUri": "hf://x/y"}}}, "initializer"),
        ({"runtimePatches": []}, "own account"),
        ({"job": "other"}, "job node"),
        ({"pod": {"serviceAccountName": "default"}}, "own account"),
        ({"container": {"env": [SECRET]}}, "without env"),
        ({"pod": {"volumes": [{"name": "x", "secret": {"secretName": "r1plus-gateway-key"}}]}}, "volumes emptyDir"),
        ({"pod": {"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "own"}}]}}, "claims r1plus-engine-"),
        ({"pod": {"tolerations": [{"operator": "Exists"}]}}, "tolerate neither"),
        ({"pod": {"imagePullSecrets": [{"name": "others"}]}}, "pull secrets"),
        ({"container": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}}, "no capabilities"),
        ({"container": {"securityContext": {"runAsUser": 0}}}, "user 0"),
        ({"pod": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}, "seccompProfile"),
        ({"pod": {"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}}}, "sysctls"),
    ],
    ids=[
        "another image",
        "another program",
        "an initializer, which has a network of its own",
        "no patch, so that the pods run as the account of their runtime",
        "a patch of another job alone",
        "another account",
        "a Secret in the environment",
        "a Secret as a volume",
        "another claim",
        "every taint",
        "another pull secret",
        "a capability",
        "root",
        "no seccomp profile",
        "a sysctl",
    ],
)
async def test_the_operators_account_makes_no_other_train_job(
    kubeflow: None, server: ApiServer, tenant: Tenant, change: Json, words: str
) -> None:
    unchanged: Json = {"pod": {}, "container": {}}
    with people(server, OPERATOR) as known:
        path = kinds.TRAIN_JOB.path(tenant.namespace)
        answer = known[OPERATOR].ask("POST", path, own_train_job(tenant.namespace, **unchanged | change))
        assert answer.status == 403, answer.text
        assert words in answer.text
        answer = known[OPERATOR].ask("POST", path, own_train_job(tenant.namespace, **unchanged))
        assert answer.status == 201, answer.text


async def test_the_account_of_a_train_jobs_pods_has_no_token(server: ApiServer, tenant: Tenant) -> None:
    marks = {names.LABEL_MANAGED_BY: names.MANAGED_BY}
    with people(server, OPERATOR) as known:
        path = SERVICE_ACCOUNT.path(tenant.namespace)
        for has_token, status in ((True, 403), (False, 201)):
            account = manifest(SERVICE_ACCOUNT, "r1plus-engine-1", tenant.namespace, labels=marks)
            answer = known[OPERATOR].ask("POST", path, account | {"automountServiceAccountToken": has_token})
            assert answer.status == status, answer.text


@pytest.mark.parametrize(
    ("labels", "status"),
    [
        ({names.LABEL_VOLUME: "r1plus-engine-1"}, 201),
        ({names.LABEL_VOLUME: "r1plus-engine-2"}, 403),
        ({names.LABEL_VOLUME: "r1plus-engine-1", names.LABEL_SERVING: names.SERVING}, 403),
        ({LABEL_GATEWAY: "true"}, 403),
    ],
    ids=["of its volume", "of another volume", "that serve, too", "of a gateway"],
)
async def test_jobset_makes_pods_with_the_label_of_its_train_jobs_volume_alone(
    kubeflow: None, server: ApiServer, tenant: Tenant, labels: dict[str, str], status: int
) -> None:
    """Whatever a runtime says, which may be one of the tenant's."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "node", "image": "own:1"}]}
    spec = {"template": {"metadata": {"labels": labels}, "spec": pod}}
    job = manifest(JOB, "r1plus-engine-1-node-0", tenant.namespace, spec=spec)
    answer = ask_of_job_set(server, JOB, job)
    assert answer.status == status, answer.text
    assert status == 201 or "belongs to the operator" in answer.text


@pytest.mark.parametrize(
    ("name", "status"),
    [("r1plus-engine-1", 201), ("gateway", 403), ("r1plus-registry", 403), ("r1plus-engine-12", 403)],
)
async def test_jobset_makes_the_service_of_its_train_job_alone(
    kubeflow: None, server: ApiServer, tenant: Tenant, name: str, status: int
) -> None:
    service = manifest(SERVICE, name, tenant.namespace, spec={"clusterIP": "None", "selector": {"own": "true"}})
    answer = ask_of_job_set(server, SERVICE, service)
    assert answer.status == status, answer.text
    assert status == 201 or "is a name that the operator gives" in answer.text


def ask_of_job_set(server: ApiServer, kind: Resource, body: Json) -> Answer:
    """Let JobSet's account create an object of a JobSet of the operator's."""
    owner = {"apiVersion": f"{JOB_SET.group}/v1alpha2", "kind": JOB_SET.kind, "name": "r1plus-engine-1", "uid": "u-1"}
    body["metadata"]["ownerReferences"] = [owner]
    account = CONTROLLERS[1]
    with people(server, account) as known:
        return known[account].ask("POST", kind.path(body["metadata"]["namespace"]), body)


async def test_nobody_has_jobset_make_pods_for_him_with_the_operators_labels(
    kubeflow: None, server: ApiServer, client: ApiClient, tenant: Tenant
) -> None:
    """A user who may write JobSets, but is not of the platform team: the controller would act for him."""
    right = RbacGrant("", JOB_SET.group, (JOB_SET.plural,), ("create",))
    await grant(client, "job-sets", (right,), user("jo"), namespace=tenant.namespace)
    labels = {names.LABEL_VOLUME: "r1plus-engine-1"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "node", "image": "own:1"}]}}
    job = {"name": "node", "template": {"spec": {"template": pod}}}
    with people(server, "jo") as known:

        def create(name: str) -> Answer:
            body = manifest(JOB_SET, name, tenant.namespace, spec={"replicatedJobs": [job]})
            return known["jo"].ask("POST", JOB_SET.path(tenant.namespace), body, dry=False)

        refused = create("r1plus-engine-1")
        assert refused.status == 403, refused.text
        assert "is a name that the operator gives" in refused.text
        assert create("own").status == 201
    await tenant.events("JobCreationFailed")
    assert await tenant.listed("Job") == []
