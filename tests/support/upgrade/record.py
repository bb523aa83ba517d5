"""Record a stored cluster: `PYTHONPATH=tests python -m support.upgrade.record tests/golden/cluster-COMMIT`.

The operator of COMMIT, as the working tree has it, runs against a real etcd, kube-apiserver and kube-controller-manager.
This script plays users, scheduler, kubelet and monitors (`kubelet`, `reports`) until each deployment is in the state that
its function below describes. Then the operator ends at a SIGTERM, as in an upgrade, and what is stored is written down.

It takes about three minutes. It refuses a folder that is there, since what a version stored never changes, and a tree
whose code is not COMMIT's. tests/golden/cluster-035d42d was made so from commit 035d42d.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from devcluster.apiserver_only import ApiServer
from r1plus_cli.kubernetes_cluster import KubernetesCluster
from r1plus_cli.steering import steer
from r1plus_cli.suite_store import manifest
from r1plus_contract import names
from r1plus_contract.filling import FillPhase, FillProgress
from r1plus_contract.jsonable import to_jsonable
from r1plus_contract.outcomes import ProbeResult
from r1plus_contract.requests import Verb
from r1plus_contract.suite import load_suite
from r1plus_contract.verdict import Shadow
from r1plus_operator.api import kinds
from r1plus_operator.plan.probing import read as read_run
from r1plus_operator.plan.revision import read
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource
from r1plus_operator.suite_signature import new_key, sign
from support.upgrade.fixture import DECOY_NAMESPACE, ENVIRONMENT, OPERATOR_NAMESPACE, TENANT_NAMESPACE, write_cluster
from support.upgrade.kubelet import NODES, Kubelet
from support.upgrade.monitors import OUTCOMES, PROGRESS, VERDICT
from support.upgrade.reports import Monitored
from support.upgrade.rig import ITEMS, NAME, OperatorProcess, Tenant, files_of, grant, install_crd
from support.upgrade.storage import STORED
from support.waiting import eventually

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
CODE = ("operator", "policies", "monitoring", "model_repo", "charts")
STEP_SECONDS = 0.2
QUIET_SECONDS = 5.0
SECRET = Resource("", "v1", "secrets", "Secret")
PERSISTENT_VOLUME = Resource("", "v1", "persistentvolumes", "PersistentVolume", False)
TENANT_SPEC: Json = {
    "admins": [{"kind": "Group", "name": "credit-ml"}, {"kind": "ServiceAccount", "name": "ci"}],
    "viewers": [{"kind": "User", "name": "auditor@example.com"}],
    "callers": {"namespaces": ["shop"]},
    "egress": [{"cidr": "203.0.113.0/24", "ports": [443]}, {"namespace": "postgres", "ports": [5432]}],
    "quota": {"deployments": 40, "pods": 100, "cpu": "64", "memory": "262144Mi", "storage": "200Gi"},
}
ROLLBACK: Json = {"accuracy": {"onBreach": "Rollback"}}
LOST = 6
"""Items of a suite of about 210, where 4 may be lost."""


class Recording:
    """The tenant's namespace with the deployments in it, each brought to its state by one method."""

    def __init__(self, server: ApiServer, client: ApiClient, kubelet: Kubelet) -> None:
        self.tenant = Tenant(client, TENANT_NAMESPACE, None)  # type: ignore[arg-type]
        self.next: dict[str, Json] = {}
        """Revision -> what its monitor answers next, for the test in which time goes on."""
        self._cluster = KubernetesCluster(str(server.kubeconfig))
        self._key = new_key()
        self._kubelet = kubelet
        self._answers: dict[str, Json] = {}
        """Revision -> what the monitors of its pods answer, those to come included."""

    # -- The states --------------------------------------------------------------------------------------------------

    async def served(self) -> None:
        """Serves after two promotions, and lets another namespace in."""
        await self.bring_up("served", 1024)
        await self.bring_up("served", 2048, access={"namespaces": ["shop"]})

    async def rolled_back(self) -> None:
        """The second revision fell, and traffic went back to the first. The spec still asks for the second."""
        good, bad = await self.two_revisions("rolled-back", **ROLLBACK)
        await self.fall("rolled-back", good, bad)
        token = await self.order("rolled-back")
        about = await self.monitored("rolled-back", good)
        self.say(good, about.watching(about.gate(control=token)))
        await self.serves("rolled-back", good)
        await self.tenant.until("rolled-back", "QualityVerified", "False", "RolledBack")
        await self.let_go("rolled-back", bad)

    async def returned(self) -> None:
        """A person asked to go back, and the first revision passed anew."""
        good, bad = await self.two_revisions("returned", accuracy=self.own_terms())
        await self.let_go("returned", good)
        await self.ask("returned", Verb.ROLLBACK, "answers are too long")
        token = await self.order("returned")
        about = await self.monitored("returned", good)
        self.say(good, about.watching(about.gate(control=token)))
        await self.serves("returned", good)
        await self.tenant.until("returned", "QualityVerified", "False", "RolledBack")
        await self.let_go("returned", bad)

    async def pinned(self) -> None:
        """Pinned by `r1plus pin`; the spec asks for a third revision since."""
        await self.two_revisions("pinned", accuracy=self.own_terms())
        await self.ask("pinned", Verb.PIN, "quarter-end")
        patch = {"spec": {"context": {"maxTokens": 4096}}}
        await self.tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "pinned", TENANT_NAMESPACE, patch)
        await self.tenant.until("pinned", "Progressing", "False", "Pinned")

    async def gating(self) -> None:
        """A third revision is being gated while the second serves."""
        await self.two_revisions("gating")
        candidate = await self.deploy("gating", 4096)
        about = await self.monitored("gating", candidate)
        self.say(candidate, about.gating(40))
        await self.tenant.until("gating", "QualityVerified", "Unknown", "GateRunning")
        self.next[candidate] = {VERDICT: about.watching(about.gate()), OUTCOMES: about.outcomes(())}

    async def refused(self) -> None:
        """A third revision failed its gate, and the second goes on serving."""
        await self.two_revisions("refused")
        candidate = await self.deploy("refused", 2048, engine={"precision": "Q4_1"})
        about = await self.monitored("refused", candidate)
        self.say(candidate, about.watching(about.gate(lost=97)))
        await self.tenant.until("refused", "Progressing", "False", "CandidateRefused")

    async def dropping(self) -> None:
        """The second revision fell, its pooled detector rang as well, and the first is being swept anew."""
        good, bad = await self.two_revisions("dropping", **ROLLBACK)
        page = (await self.monitored("dropping", bad)).outcomes([ProbeResult.INCORRECT] * 60)
        self.answer(bad, {OUTCOMES: page})
        await eventually(lambda: self.has_pool(bad), "an alarm of the pooled detector is stored")
        await self.fall("dropping", good, bad)
        token = await self.order("dropping")
        about = await self.monitored("dropping", good)
        self.say(good, about.gating(40))
        decided = about.watching(about.gate(control=token))
        self.next[good] = {VERDICT: decided, OUTCOMES: about.outcomes(())}
        await self.tenant.until("dropping", "Progressing", "True", "RollingBack")

    async def quarantined(self) -> None:
        """One pod of two fell alone: it is in quarantine, and another one serves in its place."""
        _, serving = await self.two_revisions("quarantined", replicas=2, **ROLLBACK)
        await eventually(lambda: self.has_ready("quarantined", 2), "two pods serve")
        about = await self.monitored("quarantined", serving)
        bad = self.pods(serving)[0]
        self._kubelet.monitors[bad].answers[VERDICT] = about.fallen(about.gate(), LOST)
        await self.tenant.until("quarantined", "QualityVerified", "True", "BadPod")
        await eventually(lambda: self.has_ready("quarantined", 2), "a new pod serves in its place")

    async def in_place(self) -> None:
        """For want of room the second revision was stopped so that the third can be gated."""
        terms = {"rollout": {"strategy": "InPlace"}, "accuracy": self.own_terms()}
        await self.two_revisions("in-place", **terms)
        candidate = await self.deploy("in-place", 4096, **terms)
        self.say(candidate, (await self.monitored("in-place", candidate)).gating(70))
        await self.tenant.until("in-place", "QualityVerified", "Unknown", "GateRunning")
        await self.tenant.until("in-place", "Ready", "False", "InPlaceRollout")

    async def observed(self) -> None:
        """The second revision failed its gate and serves, since the gate only observes."""
        await self.bring_up("observed", 1024)
        candidate = await self.deploy("observed", 2048, engine={"precision": "Q4_1"}, accuracy={"gate": "Observe"})
        about = await self.monitored("observed", candidate)
        self.say(candidate, about.watching(about.gate(lost=97), is_admitted=True))
        await self.serves("observed", candidate)
        await self.tenant.until("observed", "QualityVerified", "False", "GateFailed")

    async def acknowledged(self) -> None:
        """The second revision fell, somebody acknowledged that, and it passed its gate again beside traffic."""
        _, bad = await self.two_revisions("acknowledged")
        about = await self.monitored("acknowledged", bad)
        self.say(bad, about.fallen(about.gate(), LOST))
        await self.tenant.until("acknowledged", "QualityVerified", "False", "BelowThreshold")
        await self.ask("acknowledged", Verb.ACK, "the node has its old driver again")
        await eventually(lambda: self.has_token("acknowledged"), "monitors are told of the acknowledgement")
        about = await self.monitored("acknowledged", bad)
        token = about.settings["acknowledged"]
        self.say(bad, about.watching(about.gate(batch=1, acknowledged=token)))
        await self.tenant.until("acknowledged", "QualityVerified", "True", "GatePassed")

    async def on_volume(self) -> None:
        """The engine was brought to a volume, and both revisions were served from it."""
        volume = {"delivery": {"mode": "Volume"}}
        await self.tenant.deploy("on-volume", tier="full", context={"maxTokens": 1024}, **volume)
        self._kubelet.filled.add(await self.volume("on-volume"))
        await self.two_revisions("on-volume", **volume)

    async def filling(self) -> None:
        """What serves came in its engine's image; the next revision waits for its engine on a volume."""
        await self.bring_up("filling", 1024, tier="lite")
        await self.tenant.deploy("filling", tier="lite", context={"maxTokens": 1024}, delivery={"mode": "Volume"})
        volume = await self.volume("filling")
        await eventually(lambda: bool(self.pods(volume)), "the Job's pod runs")
        (pod,) = self.pods(volume)
        said = FillProgress(FillPhase.FETCHING, 45, 100)
        self._kubelet.monitors[pod].answers[PROGRESS] = to_jsonable(said)
        await self.tenant.until("filling", "EngineReady", "Unknown", "Delivering")
        await eventually(lambda: self.tells("filling", "EngineReady", "40 %"), "its progress shows")

    async def own_suite(self) -> None:
        """Judged by the tenant's own signed suite, whose next version is asked beside it."""
        _, serving = await self.two_revisions("own-suite", accuracy=self.own_terms())
        await self.deploy_again("own-suite", 2048, accuracy=self.own_terms("bank-v2"))
        await self.tenant.until("own-suite", "QualityVerified", "Unknown", "SuiteShadowed")
        about = await self.monitored("own-suite", serving)
        shadow = Shadow("bank-v2", about.settings["suiteHash"], 40)
        self.say(serving, about.watching(about.gate(), shadow=shadow))
        await eventually(lambda: self.tells("own-suite", "QualityVerified", "40 %"), "its progress shows")

    # -- What they are made of ---------------------------------------------------------------------------------------

    async def two_revisions(self, name: str, **spec: Any) -> tuple[str, str]:
        """Bring up one revision and then the next, and wait until the first has drained."""
        first = await self.bring_up(name, 1024, **spec)
        second = await self.bring_up(name, 2048, **spec)
        await self.tenant.absent("Deployment", first)
        return first, second

    async def bring_up(self, name: str, context: int, **spec: Any) -> str:
        """Deploy, pass the gate, take traffic; return the revision."""
        revision = await self.deploy(name, context, **spec)
        about = await self.monitored(name, revision)
        self.say(revision, about.watching(about.gate()))
        await self.serves(name, revision)
        return revision

    async def deploy(self, name: str, context: int, **spec: Any) -> str:
        """Apply the spec, and return the candidate that follows, whose Deployment is there."""
        await self.deploy_again(name, context, **spec)
        candidate = await self.tenant.candidate(name)
        await self.tenant.present("Deployment", candidate)
        return candidate

    async def deploy_again(self, name: str, context: int, **spec: Any) -> None:
        """Apply the spec."""
        await self.tenant.deploy(name, **{"tier": "full", "context": {"maxTokens": context}} | spec)

    async def serves(self, name: str, revision: str) -> None:
        """Wait until traffic goes to the revision, and the status says so."""

        async def is_there() -> bool:
            service = await self.tenant.present("Service", name)
            status = (await self.tenant.cr(name)).get("status", {})
            selected = service["spec"]["selector"][names.LABEL_REVISION]
            return bool(selected == revision == status.get("revision") and status.get("readyReplicas"))

        await eventually(is_there, f"{revision} serves")

    async def fall(self, name: str, good: str, bad: str) -> None:
        """The serving revision counts below its threshold; a control of the good one begins."""
        await self.let_go(name, good)
        about = await self.monitored(name, bad)
        self.say(bad, about.fallen(about.gate(), LOST))
        await self.tenant.until(name, "Progressing", "True", "RollingBack")

    async def let_go(self, name: str, revision: str) -> None:
        """Wait until no pod of a revision is left, and let those to come say nothing yet."""
        await self.tenant.absent("Deployment", revision)
        await eventually(lambda: not self.pods(revision), f"{name}: pods of {revision} are gone")
        self._answers.pop(revision, None)

    async def order(self, name: str) -> str:
        """Return the token of the control that the monitors are told of."""

        async def token() -> str:
            return str(((await self.tenant.settings(name)).get("control") or {}).get("token", ""))

        return str(await eventually(token, f"{name}: a control is ordered"))

    async def monitored(self, name: str, revision: str) -> Monitored:
        """Return what a revision's monitors know."""
        stored = read(await self.tenant.present("ControllerRevision", revision))
        data = (await self.tenant.present("ConfigMap", f"{name}-accuracy"))["data"]
        settings = json.loads(data["settings.json"])
        is_former = stored.identity_digest in (settings["former"] or {}).get("identities", ())
        prefix = "former-" if is_former else ""
        return Monitored(stored, load_suite(data[f"{prefix}suite.json"], data[f"{prefix}items.jsonl"]), settings)

    async def volume(self, name: str) -> str:
        """Return the volume of the candidate, whose Job is there."""
        candidate = await self.tenant.candidate(name)
        volume = read(await self.tenant.present("ControllerRevision", candidate)).volume
        assert volume is not None
        await self.tenant.present("Job", volume.name)
        return volume.name

    async def put_suites(self) -> None:
        """`kubectl apply -f` of what `r1plus suite sign --configmap` writes: the tenant's own suite in two versions."""
        for files in (files_of(), files_of((replace(ITEMS[0], prompt="easier?"), *ITEMS[1:]), name="bank-v2")):
            body = yaml.safe_load(manifest(sign(files, self._key), TENANT_NAMESPACE))
            await self.tenant.client.apply(kinds.CONFIG_MAP, body, field_manager="kubectl")

    def own_terms(self, suite: str = NAME) -> Json:
        """Return `spec.accuracy` of what is judged by one of them."""
        return {"suite": suite, "suiteKeys": [self._key.public]}

    async def ask(self, name: str, verb: Verb, why: str) -> None:
        """`r1plus VERB`."""
        await asyncio.to_thread(steer, self._cluster, TENANT_NAMESPACE, name, verb, why, datetime.now(UTC))

    def say(self, revision: str, report: Json) -> None:
        """Let the monitors of all pods of a revision send this report."""
        self.answer(revision, {VERDICT: report})

    def answer(self, revision: str, answers: Json) -> None:
        """Likewise these answers, beside those that they give already."""
        known = self._answers.setdefault(revision, {})
        known |= answers
        for pod in self.pods(revision):
            self._kubelet.monitors[pod].answers |= answers

    def pods(self, revision: str) -> list[str]:
        """Return the pods of a revision, or of the Job of a volume."""
        return [pod for pod in self._kubelet.monitors if pod.startswith(f"{revision}-")]

    def answer_for_new_pods(self) -> None:
        """Let pods that have come since say what their revision's monitors say."""
        for pod, monitor in list(self._kubelet.monitors.items()):
            revision = pod.rsplit("-", 2)[0]
            if not monitor.answers and revision in self._answers:
                monitor.answers |= self._answers[revision]

    async def has_pool(self, revision: str) -> bool:
        """Whether a checkpoint of the pooled detector is stored."""
        return bool(read(await self.tenant.present("ControllerRevision", revision)).pool)

    async def has_ready(self, name: str, count: int) -> bool:
        """Whether so many pods of the serving revision are Ready."""
        return bool((await self.tenant.cr(name))["status"].get("readyReplicas") == count)

    async def has_token(self, name: str) -> bool:
        """Whether monitors are told of an acknowledgement."""
        return bool((await self.tenant.settings(name))["acknowledged"])

    async def tells(self, name: str, condition: str, words: str) -> bool:
        """Whether a condition's message has these words."""
        return words in (await self.tenant.condition(name, condition))[2]

    @property
    def states(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """All deployments."""
        return [
            self.served, self.rolled_back, self.returned, self.pinned, self.gating, self.refused, self.dropping,
            self.quarantined, self.in_place, self.observed, self.acknowledged, self.on_volume, self.filling,
            self.own_suite,
        ]  # fmt: skip


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
    found: list[Json] = []
    ours = (OPERATOR_NAMESPACE, TENANT_NAMESPACE, DECOY_NAMESPACE)
    for resource in STORED:
        for obj in (await client.list(resource))[0]:
            meta = obj["metadata"]
            place = meta.get("namespace") or (meta["name"] if resource == kinds.NAMESPACE else ours[0])
            parent = ((obj.get("spec") or {}).get("parentRef") or {}).get("namespace", ours[0])
            if place in ours and parent in ours:
                del meta["resourceVersion"]
                found.append({"apiVersion": resource.api_version, "kind": resource.kind, **obj})
    return found


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
