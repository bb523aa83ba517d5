"""The rest of a cluster: controllers of Deployments and endpoints, and a kubelet, each a small state machine.

They act on the simulated API server at once and without faults, after delays that the seed draws.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1plus_contract import names
from r1plus_contract.jsonable import loads
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.timestamps import format_timestamp
from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ConflictError
from r1plus_operator.runtime.resources import Resource
from support.simulation.world.access import Access
from support.simulation.world.loop import ProcessLoop
from support.simulation.world.monitors import Engine, MonitorFleet, PodMonitor

Json = dict[str, Any]
Key = tuple[str, str]
REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet")
DEPLOYMENT = kinds.BY_KIND["Deployment"]
SERVICE = kinds.BY_KIND["Service"]
LABEL_SERVICE = "kubernetes.io/service-name"
LABEL_HASH = "pod-template-hash"
NODE_NAME = "n1"
TICK_SECONDS = 2.0
"""How often the kubelet looks whether a pod has become Ready."""
REACTION = (0.02, 0.4)
"""Seconds in which a controller acts on a change."""
START = (2.0, 8.0)
"""Seconds in which a pod's containers start."""
END = (0.5, 3.0)
"""Seconds in which they end."""
PROPAGATION = (1.0, 30.0)
"""Seconds until a pod sees a changed ConfigMap."""


@dataclass
class Quality:
    """How many items each engine loses, which nobody but the monitors can find out."""

    variants: dict[tuple[str, str, int], int] = field(default_factory=dict)
    """Namespace, deployment and context -> items that such a revision loses from the start."""
    revisions: dict[Key, int] = field(default_factory=dict)
    """Namespace and revision -> items that it has come to lose, in every pod."""
    pods: dict[str, int] = field(default_factory=dict)
    """uid of a pod -> items that it alone has come to lose."""

    def count_lost(self, namespace: str, deployment: str, revision: str, context: int, uid: str) -> int:
        """Return how many items a pod's engine loses now."""
        base = self.variants.get((namespace, deployment, context), 0)
        return max(base, self.revisions.get((namespace, revision), 0), self.pods.get(uid, 0))


class Cluster:
    """Every controller and the one node."""

    def __init__(
        self,
        access: Access,
        loop: ProcessLoop,
        rand: random.Random,
        fleet: MonitorFleet,
        quality: Quality,
        numbers: dict[str, int],
        folder: Path,
        read_time: Callable[[], float],
    ) -> None:
        """`numbers`: prompt -> number of its item. `folder`: where pods have their files."""
        self._access = access
        self._loop = loop
        self._rand = rand
        self._fleet = fleet
        self._quality = quality
        self._numbers = numbers
        self._folder = folder
        self._read_time = read_time
        self._addresses = 0
        self._planned: set[tuple[str, str, str]] = set()
        self.full_until: float = 0.0
        """The node takes no new pod before then."""
        self.skew: float = 0.0
        """Seconds by which the node's clock is ahead: all monitors go by it."""
        self.crashed: dict[str, float] = {}
        """uid of a pod -> when its containers start again."""

    async def run(self) -> None:
        """Look at pods for ever, as the kubelet does."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for monitor in list(self._fleet.by_address.values()):
                monitor.raise_error()
                self._tend(monitor)

    def on_change(self, kind: str, before: Json | None, after: Json | None) -> None:
        """Plan what each controller does about a write."""
        obj = after or before or {}
        meta = obj["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        if kind == "Deployment":
            self._plan(REACTION, self._sync_deployment, namespace, name)
        elif kind == "ReplicaSet":
            self._plan_owner(meta, "Deployment")
        elif kind == "Pod":
            self._on_pod(before, after)
        elif kind == "Service":
            self._plan(REACTION, self._sync_endpoints, namespace, name)
        elif kind == "ConfigMap" and after is not None:
            self._plan(PROPAGATION, self._remount, namespace, name)

    def crash(self, monitor: PodMonitor, seconds: float) -> None:
        """Let a pod's containers end, and start again after a while."""
        monitor.stop()
        self.crashed[monitor.uid] = self._loop.time() + seconds
        pod = self._access.read(kinds.POD, monitor.namespace, monitor.pod)
        if pod is not None:
            self._write_running(pod, monitor, is_ready=False, has_crashed=True)

    def resync(self) -> None:
        """Look at everything again, after etcd was set back: no event says what has changed."""
        for deployment in self._access.list(DEPLOYMENT):
            self._plan(REACTION, self._sync_deployment, *_address(deployment))
        for service in self._access.list(SERVICE):
            self._plan(REACTION, self._sync_endpoints, *_address(service))
        for config in self._access.list(kinds.CONFIG_MAP):
            self._plan(PROPAGATION, self._remount, *_address(config))
        for pod in self._access.list(kinds.POD):
            if "deletionTimestamp" in pod["metadata"]:
                self._plan(END, self._end_pod, *_address(pod))
            elif self._fleet.of_pod(pod["metadata"]["uid"]) is None:
                step = self._run_containers if pod["spec"].get("nodeName") else self._start_pod
                self._plan(START, step, *_address(pod))

    # -- Deployments -------------------------------------------------------------------------------------------------

    def _sync_deployment(self, namespace: str, name: str) -> None:
        deployment = self._access.read(DEPLOYMENT, namespace, name)
        if deployment is None or "deletionTimestamp" in deployment["metadata"]:
            return
        template, wanted = deployment["spec"]["template"], int(deployment["spec"].get("replicas", 1))
        text = json.dumps(template, sort_keys=True)
        current = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        owned = [r for r in self._access.list(REPLICA_SET, namespace) if _has_owner(r, deployment)]
        replica_set = next((r for r in owned if r["metadata"]["name"] == current), None)
        if replica_set is None:
            try:
                replica_set = self._create_replica_set(deployment, current)
            except ConflictError:  # That of a Deployment that is gone is not collected yet.
                self._plan(REACTION, self._sync_deployment, namespace, name)
                return
        ready = self._sync_pods(replica_set, template, wanted)
        for old in owned:
            if old["metadata"]["name"] != current and ready >= wanted:
                self._access.delete(REPLICA_SET, old)

    def _create_replica_set(self, deployment: Json, name: str) -> Json:
        spec, namespace = deployment["spec"], deployment["metadata"]["namespace"]
        labels = {**spec["template"]["metadata"]["labels"], LABEL_HASH: name.rpartition("-")[2]}
        meta = {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [_own(DEPLOYMENT, deployment)],
        }
        body = {"replicas": spec.get("replicas", 1), "selector": spec["selector"], "template": spec["template"]}
        return self._access.create(REPLICA_SET, {"metadata": meta, "spec": body})

    def _sync_pods(self, replica_set: Json, template: Json, wanted: int) -> int:
        """Create and delete pods; return how many are Ready."""
        meta, selector = replica_set["metadata"], replica_set["spec"]["selector"]["matchLabels"]
        pods = []
        for pod in self._access.list(kinds.POD, meta["namespace"]):
            if not _has_owner(pod, replica_set) or "deletionTimestamp" in pod["metadata"]:
                continue
            if selector.items() <= (pod["metadata"].get("labels") or {}).items():
                pods.append(pod)
            else:
                self._release(pod)
        for _ in range(wanted - len(pods)):
            self._create_pod(replica_set, template)
        pods.sort(key=_is_ready)
        for pod in pods[: max(0, len(pods) - wanted)]:
            self._access.delete(kinds.POD, pod)
        return sum(map(_is_ready, pods))

    def _release(self, pod: Json) -> None:
        meta = pod["metadata"]
        self._access.patch(kinds.POD, meta["namespace"], meta["name"], {"metadata": {"ownerReferences": None}})

    def _create_pod(self, replica_set: Json, template: Json) -> None:
        meta = replica_set["metadata"]
        name = f"{meta['name']}-{''.join(self._rand.choices('bcdfghjklmnpqrstvwxz2456789', k=5))}"
        labels = {**template["metadata"]["labels"], LABEL_HASH: meta["name"].rpartition("-")[2]}
        pod_meta = {
            **template["metadata"], "name": name, "namespace": meta["namespace"], "labels": labels,
            "ownerReferences": [_own(REPLICA_SET, replica_set)],
        }  # fmt: skip
        self._access.create(kinds.POD, {"metadata": pod_meta, "spec": template["spec"]})

    def _plan_owner(self, meta: Json, kind: str) -> None:
        for owner in meta.get("ownerReferences") or ():
            if owner["kind"] == kind:
                self._plan(REACTION, self._sync_deployment, meta["namespace"], owner["name"])

    # -- Pods --------------------------------------------------------------------------------------------------------

    def _on_pod(self, before: Json | None, after: Json | None) -> None:
        meta = (after or before or {})["metadata"]
        namespace, name, labels = meta["namespace"], meta["name"], meta.get("labels") or {}
        if names.LABEL_DEPLOYMENT not in labels:
            return
        if after is None:
            self._remove_monitor(meta["uid"])
        elif "deletionTimestamp" in meta:
            self._plan(END, self._end_pod, namespace, name)
        elif before is None:
            self._plan(REACTION, self._start_pod, namespace, name)
        self._sync_endpoints_of(namespace, labels[names.LABEL_DEPLOYMENT])
        if revision := labels.get(names.LABEL_REVISION):
            self._plan(REACTION, self._sync_deployment, namespace, revision)

    def _start_pod(self, namespace: str, name: str) -> None:
        pod = self._access.read(kinds.POD, namespace, name)
        if pod is None or "deletionTimestamp" in pod["metadata"] or pod["spec"].get("nodeName"):
            return
        if self._loop.time() < self.full_until:
            self._write_unschedulable(pod)
            self._plan((5.0, 10.0), self._start_pod, namespace, name)
            return
        self._access.patch(kinds.POD, namespace, name, {"spec": {"nodeName": NODE_NAME}})
        self._plan(START, self._run_containers, namespace, name)

    def _write_unschedulable(self, pod: Json) -> None:
        if any(c.get("reason") == "Unschedulable" for c in (pod.get("status") or {}).get("conditions") or ()):
            return
        condition = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient memory.", "lastTransitionTime": self._now(),
        }  # fmt: skip
        self._write_status(pod, {"phase": "Pending", "conditions": [condition]})

    def _run_containers(self, namespace: str, name: str) -> None:
        pod = self._access.read(kinds.POD, namespace, name)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return
        monitor = self._make_monitor(pod)
        if monitor is None:
            self._plan((2.0, 4.0), self._run_containers, namespace, name)
            return
        monitor.start()
        self._write_running(pod, monitor, is_ready=False)

    def _make_monitor(self, pod: Json) -> PodMonitor | None:
        """Return a pod's monitor with its files; None while one of its ConfigMaps is absent."""
        meta = pod["metadata"]
        labels, uid = meta["labels"], meta["uid"]
        namespace, revision, deployment = (
            meta["namespace"], labels.get(names.LABEL_REVISION, ""), labels[names.LABEL_DEPLOYMENT]
        )  # fmt: skip
        files = {volume: self._read_config(namespace, name) for volume, name in _list_configs(pod)}
        mounts = {
            "accuracy": next((f for f in files.values() if f and "settings.json" in f), None),
            "revision": next((f for f in files.values() if f and "identity.json" in f), None),
        }
        revision_files = mounts["revision"]
        if mounts["accuracy"] is None or revision_files is None:
            return None
        self._addresses += 1
        address = f"10.0.{self._addresses // 250}.{self._addresses % 250 + 1}"
        context = loads(ServingIdentity, revision_files["identity.json"]).context

        def count_lost() -> int:
            return self._quality.count_lost(namespace, deployment, revision, context, uid)

        engine = Engine(random.Random(self._rand.getrandbits(64)), count_lost, self._numbers)
        monitor = PodMonitor(
            namespace, deployment, revision, meta["name"], uid, _read_identity(pod), engine,
            self._folder / uid, lambda: self._read_time() + self.skew, self._loop.start_outside,
        )  # fmt: skip
        for name, mounted in mounts.items():
            monitor.mount(name, mounted or {})
        self._fleet.by_address[address] = monitor
        return monitor

    def _read_config(self, namespace: str, name: str) -> dict[str, str] | None:
        config = self._access.read(kinds.CONFIG_MAP, namespace, name)
        return dict(config.get("data") or {}) if config else None

    def _remount(self, namespace: str, name: str) -> None:
        """Show pods a changed ConfigMap; one that is gone leaves their files as they were."""
        files = self._read_config(namespace, name)
        folder = "accuracy" if files and "settings.json" in files else "revision"
        for monitor in self._fleet.by_address.values():
            pod = self._access.read(kinds.POD, namespace, monitor.pod) if monitor.namespace == namespace else None
            if files and pod is not None and name in {config for _, config in _list_configs(pod)}:
                monitor.mount(folder, files)

    def _tend(self, monitor: PodMonitor) -> None:
        if monitor.uid in self.crashed:
            if self._loop.time() < self.crashed[monitor.uid]:
                return
            del self.crashed[monitor.uid]
            monitor.start()
        pod = self._access.read(kinds.POD, monitor.namespace, monitor.pod)
        if pod is None or pod["metadata"]["uid"] != monitor.uid:
            self._remove_monitor(monitor.uid)
        elif monitor.is_admitted != _is_ready(pod):
            self._write_running(pod, monitor, is_ready=monitor.is_admitted)

    def _write_running(self, pod: Json, monitor: PodMonitor, *, is_ready: bool, has_crashed: bool = False) -> None:
        address = next(a for a, m in self._fleet.by_address.items() if m is monitor)
        now = self._now()
        state: Json = {"running": {"startedAt": now}}
        if has_crashed:
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
        ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}

        def is_up(container: str) -> bool:
            # The readiness of the engine is that of the pod: the token that its monitor writes.
            return is_ready or (container != names.CONTAINER_TRITON and not has_crashed)

        self._write_status(
            pod,
            {
                "phase": "Running",
                "podIP": address,
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
                    {"type": "Ready", "status": "True" if is_ready else "False", "lastTransitionTime": now},
                ],
                "initContainerStatuses": [
                    {"name": c["name"], "ready": True, "state": ended} for c in pod["spec"].get("initContainers") or ()
                ],
                "containerStatuses": [
                    {"name": c["name"], "ready": is_up(c["name"]), "state": state} for c in pod["spec"]["containers"]
                ],
            },
        )

    def _end_pod(self, namespace: str, name: str) -> None:
        pod = self._access.read(kinds.POD, namespace, name)
        if pod is not None and "deletionTimestamp" in pod["metadata"]:
            self._remove_monitor(pod["metadata"]["uid"])
            self._access.delete(kinds.POD, pod, grace_seconds=0)

    def _remove_monitor(self, uid: str) -> None:
        self.crashed.pop(uid, None)
        for address, monitor in list(self._fleet.by_address.items()):
            if monitor.uid == uid:
                monitor.remove()
                del self._fleet.by_address[address]

    # -- Endpoints ---------------------------------------------------------------------------------------------------

    def _sync_endpoints_of(self, namespace: str, deployment: str) -> None:
        self._plan(REACTION, self._sync_endpoints, namespace, deployment)

    def _sync_endpoints(self, namespace: str, name: str) -> None:
        service = self._access.read(SERVICE, namespace, name)
        selector = ((service or {}).get("spec") or {}).get("selector")
        if service is None or not selector:
            return
        endpoints = [
            {"conditions": {"ready": _is_ready(pod)}, "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"]}}
            for pod in self._access.list(kinds.POD, namespace)
            if selector.items() <= (pod["metadata"].get("labels") or {}).items()
        ]
        labels = {**(service["metadata"].get("labels") or {}), LABEL_SERVICE: name}
        meta = {
            "name": f"{name}-slice", "namespace": namespace, "labels": labels,
            "ownerReferences": [_own(SERVICE, service)],
        }  # fmt: skip
        live = self._access.read(kinds.ENDPOINT_SLICE, namespace, f"{name}-slice")
        if live is None:
            body = {"metadata": meta, "addressType": "IPv4", "endpoints": endpoints, "ports": []}
            self._access.create(kinds.ENDPOINT_SLICE, body)
        elif live.get("endpoints") != endpoints:
            self._access.patch(kinds.ENDPOINT_SLICE, namespace, f"{name}-slice", {"endpoints": endpoints})

    # -- Small things ------------------------------------------------------------------------------------------------

    def _plan(self, within: tuple[float, float], act: Callable[[str, str], None], namespace: str, name: str) -> None:
        """Act on an object after a while, once for all changes until then."""
        plan = (act.__name__, namespace, name)
        if plan in self._planned:
            return
        self._planned.add(plan)

        def later() -> None:
            self._planned.discard(plan)
            act(namespace, name)

        self._loop.call_outside(self._rand.uniform(*within), later)

    def _write_status(self, pod: Json, status: Json) -> None:
        meta = pod["metadata"]
        self._access.patch(kinds.POD, meta["namespace"], meta["name"], {"status": status}, subresource="status")

    def _now(self) -> str:
        return format_timestamp(self._read_time())


def _address(obj: Json) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _own(resource: Resource, owner: Json) -> Json:
    meta = owner["metadata"]
    return {
        "apiVersion": resource.api_version, "kind": resource.kind, "name": meta["name"], "uid": meta["uid"],
        "controller": True,
    }  # fmt: skip


def _has_owner(obj: Json, owner: Json) -> bool:
    uid = owner["metadata"]["uid"]
    return any(one["uid"] == uid for one in obj["metadata"].get("ownerReferences") or ())


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _list_configs(pod: Json) -> list[tuple[str, str]]:
    """Return volume and name of each ConfigMap that a pod mounts."""
    return [(v["name"], v["configMap"]["name"]) for v in pod["spec"].get("volumes") or () if "configMap" in v]


def _read_identity(pod: Json) -> str:
    monitor = next(c for c in pod["spec"]["containers"] if c["name"] == names.CONTAINER_MONITOR)
    return next((e["value"] for e in monitor.get("env") or () if e["name"] == names.ENV_IDENTITY), "")
