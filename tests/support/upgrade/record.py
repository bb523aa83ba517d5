"""Record a stored cluster: `PYTHONPATH=tests python -m support.upgrade.record tests/golden/cluster-COMMIT`.

The operator of COMMIT, as the working tree has it, runs against a real etcd, kube-apiserver and kube-controller-manager.
This script plays users, scheduler, kubelet and monitors (`kubelet`, `reports`) until each deployment is in the state that
`states` describes. Then the operator ends at a SIGTERM, as in an upgrade, and what is stored is written down.

It takes about three minutes. It refuses a folder that is there, since what a version stored never changes, and a tree
whose code is not COMMIT's. tests/golden/cluster-035d42d comes from commit 035d42d in this way.
"""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.plan.tenancy.isolation_test_run import read_run as read_run
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource
from support.upgrade.fixture import DECOY_NAMESPACE, ENVIRONMENT, OPERATOR_NAMESPACE, TENANT_NAMESPACE, write_cluster
from support.upgrade.kubelet import NODES, Kubelet
from support.upgrade.rig import OperatorProcess, Tenant, grant, install_crd
from support.upgrade.states import Recording
from support.upgrade.storage import STORED
from support.waiting import eventually

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
CODE = ("operator", "policies", "monitoring", "model_repo", "charts")
STEP_SECONDS = 0.2
QUIET_SECONDS = 5.0
PERSISTENT_VOLUME = Resource("", "v1", "persistentvolumes", "PersistentVolume", False)
TENANT_SPEC: Json = {
    "admins": [{"kind": "Group", "name": "credit-ml"}, {"kind": "ServiceAccount", "name": "ci"}],
    "viewers": [{"kind": "User", "name": "auditor@example.com"}],
    "callers": {"namespaces": ["shop"]},
    "egress": [{"cidr": "203.0.113.0/24", "ports": [443]}, {"namespace": "postgres", "ports": [5432]}],
    "quota": {"deployments": 40, "pods": 100, "cpu": "64", "memory": "262144Mi", "storage": "200Gi"},
}


async def prepare(client: ApiClient) -> None:
    """Nodes, namespaces, definitions and the chart's own objects."""
    for path in sorted((ROOT / "charts" / "r1plus-operator" / "crds").glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text()):
            await install_crd(client, crd)
    for kind in kinds.OPTIONAL_CHILDREN:
        await install_crd(client, _any_object(kind))
    for name in NODES:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        }
        await client.apply(kinds.NODE, node, field_manager="kubelet")
        allocatable = {"cpu": "32", "memory": "256Gi", "pods": "110"}
        addresses = [{"type": "InternalIP", "address": f"192.0.2.{10 + NODES.index(name)}"}]
        await client.apply(
            kinds.NODE,
            {**node, "status": {"allocatable": allocatable, "addresses": addresses}},
            field_manager="kubelet",
            subresource="status",
        )
    await grant(client, OPERATOR_NAMESPACE)
    labels = {names.LABEL_TENANT: "true", names.LABEL_POD_SECURITY: "restricted"}
    for name in (TENANT_NAMESPACE, DECOY_NAMESPACE):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        await client.apply(kinds.NAMESPACE, namespace, field_manager="helm")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "control", "namespace": DECOY_NAMESPACE},
    }
    await client.apply(kinds.BY_KIND["ServiceAccount"], account, field_manager="helm")
    for number in range(2):
        await client.apply(PERSISTENT_VOLUME, _persistent_volume(number), field_manager="storage")
    tenant = {"apiVersion": names.API_VERSION, "kind": names.KIND_TENANT, "spec": TENANT_SPEC}
    meta = {"name": names.TENANT, "namespace": TENANT_NAMESPACE}
    await client.apply(kinds.R1PLUS_TENANT, tenant | {"metadata": meta}, field_manager="platform")


def _any_object(kind: Resource) -> Json:
    """Return a definition that takes anything: of prometheus-operator's kinds the operator only writes objects."""
    spec = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.name},
        "spec": {
            "group": kind.group,
            "names": {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower()},
            "scope": "Namespaced",
            "versions": [{"name": kind.version, "served": True, "storage": True, "schema": schema}],
        },
    }


def _persistent_volume(number: int) -> Json:
    spec = {
        "capacity": {"storage": "20Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": f"/volumes/{number}"},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"volume-{number}"}, "spec": spec}


async def wait_for_isolation(tenant: Tenant) -> None:
    """Wait until a run of the isolation test has ended that knew the policies of all that serves, and all say so."""

    async def is_covered() -> bool:
        jobs, _ = await tenant.client.list(kinds.BY_KIND["Job"], TENANT_NAMESPACE)
        runs = [run for job in jobs if (run := read_run(job)) and (job.get("status") or {}).get("succeeded")]
        deployments, _ = await tenant.client.list(kinds.R1PLUS_DEPLOYMENT, TENANT_NAMESPACE)
        serving = {one["metadata"]["name"] for one in deployments if one["status"].get("readyReplicas")}
        held = [
            one["metadata"]["name"]
            for one in deployments
            for condition in one["status"]["conditions"]
            if (condition["type"], condition["status"]) == ("IsolationVerified", "True")
        ]
        known = set(max(runs, key=lambda run: run.started).walls) if runs else set()
        return len(held) == len(deployments) and serving <= known

    await eventually(is_covered, "the isolation test has covered all that serves", 400.0, period_s=1.0)


async def stored_objects(client: ApiClient) -> list[Json]:
    """Read everything that the fixture holds, but what the API server makes by itself."""
    objects: list[Json] = []
    ours = (OPERATOR_NAMESPACE, TENANT_NAMESPACE, DECOY_NAMESPACE)
    for resource in STORED:
        for obj in (await client.list(resource))[0]:
            meta = obj["metadata"]
            place = meta.get("namespace") or (meta["name"] if resource == kinds.NAMESPACE else ours[0])
            parent = ((obj.get("spec") or {}).get("parentRef") or {}).get("namespace", ours[0])
            if place in ours and parent in ours:
                del meta["resourceVersion"]
                objects.append({"apiVersion": resource.api_version, "kind": resource.kind, **obj})
    return objects


@contextlib.asynccontextmanager
async def run_kubelet(server: ApiServer, client: ApiClient) -> AsyncIterator[tuple[Kubelet, Recording]]:
    """Let pods run in the background; an error there ends the recording."""
    kubelet = Kubelet(server, (TENANT_NAMESPACE, DECOY_NAMESPACE))
    recording = Recording(server, client, kubelet)

    async def run() -> None:
        while True:
            await kubelet.step()
            recording.answer_for_new_pods()
            await asyncio.sleep(STEP_SECONDS)

    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(run())
            yield kubelet, recording
            running.cancel()
    finally:
        await kubelet.close()


async def record(server: ApiServer, folder: Path, commit: str, logs: Path) -> None:
    """Play the story, end the operator, write down what is stored."""
    env = {"R1PLUS_POD_NAME": "r1plus-operator-old", **ENVIRONMENT}
    operator = OperatorProcess(server, logs / "operator.log", kubeconfig=None, **env)
    async with ApiClient.from_kubeconfig(server.kubeconfig) as client:
        await prepare(client)
        operator.start()
        try:
            async with run_kubelet(server, client) as (kubelet, recording):
                await recording.put_suites()
                await asyncio.gather(*(_named(state) for state in recording.states))
                await wait_for_isolation(recording.tenant)
                await _wait_for_quiet(operator)
                assert operator.stop() == 0, operator.log[-2000:]
                at = time.time()
                objects = await stored_objects(client)
                monitors = [
                    {"pod": pod, "answers": monitor.answers}
                    | ({"next": more} if (more := recording.next.get(pod.rsplit("-", 2)[0])) else {})
                    for pod, monitor in kubelet.monitors.items()
                ]
        finally:
            operator.kill()
    write_cluster(folder, {"commit": commit, "at": at}, objects, monitors)


async def _named(state: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await state()
    print(f"{datetime.now(UTC):%H:%M:%S} {state.__name__}", flush=True)


async def _wait_for_quiet(operator: OperatorProcess) -> None:
    """Wait until the operator has applied and deleted nothing for a while."""
    since, size = time.monotonic(), -1

    def is_quiet() -> bool:
        nonlocal since, size
        if (now := len(operator.log)) != size:
            since, size = time.monotonic(), now
        return time.monotonic() - since > QUIET_SECONDS

    await eventually(is_quiet, "the operator has nothing to write")


def refuse(folder: Path, commit: str) -> str:
    """Return why nothing may be recorded there; empty if it may."""
    if folder.exists():
        return f"{folder} is there: what a version stored is never edited; add a folder for another commit"
    same = subprocess.run(["git", "-C", str(ROOT), "diff", "--quiet", commit, "--", *CODE], check=False).returncode
    return "" if same == 0 else f"the code below {', '.join(CODE)} is not that of commit {commit}"


def main() -> None:
    """Record into the folder that the command line names."""
    folder = Path(sys.argv[1])
    commit = folder.name.removeprefix("cluster-")
    if refusal := refuse(folder, commit):
        raise SystemExit(refusal)
    with tempfile.TemporaryDirectory() as logs, ApiServer(controller_manager=True) as server:
        try:
            asyncio.run(record(server, folder, commit, Path(logs)))
        except BaseException:
            print((Path(logs) / "operator.log").read_text()[-6000:])
            raise


if __name__ == "__main__":
    main()
