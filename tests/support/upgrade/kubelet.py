"""Plays scheduler and kubelet for pods that the real controllers make: binds them, starts them, ends them, collects them.

For the recorder. A pod's monitor answers at an address of its own; the pod is Ready once that admits it.
"""

import json
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import httpx

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.jsonable import dumps, from_jsonable
from r1plus_contract.monitor.isolation import (
    ApiRequest,
    AttemptFinding,
    AttemptOutcome,
    ConnectionTarget,
    Findings,
    IsolationProbe,
)
from support.upgrade.monitors import VERDICT, StoredMonitor

Json = dict[str, Any]
NODES = ("n1", "n2")
HEARTBEAT_SECONDS = 10.0


class Kubelet:
    """Nodes `NODES`, and what runs on them in some namespaces. Each `step` looks at every pod once."""

    def __init__(self, server: ApiServer, namespaces: Iterable[str]) -> None:
        client = server.client_cert("kubelet", ("system:masters",))
        tls = ssl.create_default_context(cafile=str(server.ca))
        tls.load_cert_chain(client.certificate, client.key)
        self._http = httpx.AsyncClient(base_url=server.url, verify=tls, timeout=30)
        self._namespaces = tuple(namespaces)
        self._beaten = 0.0
        self.monitors: dict[str, StoredMonitor] = {}
        """Pod -> its monitor."""
        self.filled: set[str] = set()
        """Volumes whose Job may succeed now."""

    async def close(self) -> None:
        """End all monitors."""
        for monitor in self.monitors.values():
            await monitor.stop()
        await self._http.aclose()

    async def step(self) -> None:
        """Do for every pod what is due."""
        await self._beat()
        for namespace in self._namespaces:
            listed = await self._ask("GET", f"/api/v1/namespaces/{namespace}/pods")
            for pod in listed["items"]:
                await self._tend(pod)

    async def _beat(self) -> None:
        """Nodes that say nothing are tainted, and their pods evicted."""
        now = datetime.now(UTC)
        if now.timestamp() - self._beaten < HEARTBEAT_SECONDS:
            return
        self._beaten = now.timestamp()
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _stamp(now)}
        for name in NODES:
            await self._patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [ready]}})

    async def _tend(self, pod: Json) -> None:
        meta, labels = pod["metadata"], pod["metadata"].get("labels") or {}
        if meta.get("deletionTimestamp"):
            await self._collect(pod)
        elif not pod["spec"].get("nodeName"):
            await self._bind(pod)
        elif names.LABEL_PROBE in labels:
            await self._end(pod, [_last_words(labels[names.LABEL_PROBE], one) for one in pod["spec"]["containers"]])
        elif labels.get(names.LABEL_VOLUME) in self.filled and names.LABEL_SERVING not in labels:
            await self._end(pod, ["" for _ in pod["spec"]["containers"]])
        else:
            await self._run(pod)

    async def _collect(self, pod: Json) -> None:
        if monitor := self.monitors.pop(pod["metadata"]["name"], None):
            await monitor.stop()
        await self._ask("DELETE", _path(pod), {"gracePeriodSeconds": 0})

    async def _bind(self, pod: Json) -> None:
        """A volume of one node holds its pods there; others take turns."""
        meta = pod["metadata"]
        taken = [one for one in self.monitors if one.startswith(meta.get("generateName", meta["name"]))]
        node = NODES[0] if names.LABEL_VOLUME in meta["labels"] else NODES[len(taken) % len(NODES)]
        monitor = self.monitors[meta["name"]] = StoredMonitor()
        await monitor.start()
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
        await self._ask("POST", f"{_path(pod)}/binding", binding)

    async def _run(self, pod: Json) -> None:
        report = self.monitors[pod["metadata"]["name"]].answers.get(VERDICT)
        # The decoy has no monitor, and a Job's pod is never Ready to serve.
        is_ready = bool(report and report["admitted"]) or pod["metadata"]["labels"].get(names.LABEL_NAME) == names.DECOY
        conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions") or ()}
        if pod["status"]["phase"] == "Running" and conditions.get("Ready") == ("True" if is_ready else "False"):
            return
        await self._patch(f"{_path(pod)}/status", {"status": self._running(pod, is_ready)})

    def _running(self, pod: Json, is_ready: bool) -> Json:
        now, address = _stamp(datetime.now(UTC)), self.monitors[pod["metadata"]["name"]].address
        began = pod["status"].get("startTime", now)
        ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": began, "finishedAt": began}}
        running = {"running": {"startedAt": began}}
        ready = "True" if is_ready else "False"
        return {
            "phase": "Running",
            "startTime": began,
            "hostIP": "192.0.2.10",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": began},
                {"type": "Initialized", "status": "True", "lastTransitionTime": began},
                {"type": "ContainersReady", "status": ready, "lastTransitionTime": now},
                {"type": "Ready", "status": ready, "lastTransitionTime": now},
            ],
            "initContainerStatuses": [_status(one, ended, True) for one in pod["spec"].get("initContainers") or ()],
            "containerStatuses": [
                _status(one, running, is_ready or one["name"] != names.CONTAINER_TRITON)
                for one in pod["spec"]["containers"]
            ],
        }

    async def _end(self, pod: Json, words: list[str]) -> None:
        """All containers end well, with these last words."""
        if pod["status"]["phase"] == "Succeeded":
            return
        status, now = self._running(pod, False), _stamp(datetime.now(UTC))
        for one, message in zip(status["containerStatuses"], words, strict=True):
            ended = {"exitCode": 0, "reason": "Completed", "message": message, "startedAt": now, "finishedAt": now}
            one |= {"ready": False, "started": False, "state": {"terminated": ended}}
        await self._patch(f"{_path(pod)}/status", {"status": status | {"phase": "Succeeded"}})

    async def _patch(self, path: str, body: Json) -> None:
        await self._ask("PATCH", path, body)

    async def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Ask the API server; what is gone meanwhile, or another one, is looked at in the next step."""
        kind = "application/strategic-merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind, "User-Agent": "kubelet"}
        content = json.dumps(body) if body is not None else None
        answer = await self._http.request(method, path, content=content, headers=headers)
        if answer.status_code not in (404, 409):
            answer.raise_for_status()
        return dict(answer.json())


def _path(pod: Json) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _status(container: Json, state: Json, is_ready: bool) -> Json:
    image = container["image"]
    status = {"name": container["name"], "image": image, "imageID": f"{image}@sha256:{'0' * 64}", "restartCount": 0}
    return status | {"ready": is_ready, "started": is_ready, "state": state}


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _last_words(probe: str, container: Json) -> str:
    """Return what a container of the isolation test finds where everything is as it should be."""
    arguments = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    kind: Any = tuple[ConnectionTarget, ...] if "--doors" in arguments else tuple[ApiRequest, ...]
    text = arguments.get("--doors") or arguments["--questions"]
    tried = from_jsonable(kind, json.loads(text), "arguments")
    is_control = probe == IsolationProbe.CONTROL
    opened = [is_control or (isinstance(one, ConnectionTarget) and one.against == "own") for one in tried]
    tries = zip(tried, opened, strict=True)
    return dumps(
        Findings(
            tuple(
                AttemptFinding(one.name, AttemptOutcome.OPEN if is_open else AttemptOutcome.SHUT)
                for one, is_open in tries
            )
        )
    )
