"""The operator's own parts around a namespace's pass, with an API server in memory behind the applier's Protocol.

It keeps what is applied whole, and says what it did by the observer's reflectors, as a stream would. What the real one
does with it is tested in tests/apiserver.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.timestamps import format_timestamp
from r1plus_operator.api import kinds
from r1plus_operator.controllers.applier import Applier
from r1plus_operator.controllers.tenant import TenantReconciler
from r1plus_operator.main import select_lane
from r1plus_operator.metrics.gateways import GatewayFleetMetrics
from r1plus_operator.metrics.isolation import IsolationMetrics
from r1plus_operator.observe.keys import PassKey, TenantKey
from r1plus_operator.observe.observer import Observer
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.runtime.client import JSON_PATCH, ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.errors import ApiError, ConflictError, InvalidError, NotFoundError
from r1plus_operator.runtime.queue import WorkQueue
from r1plus_operator.runtime.resources import Resource
from support.operator.enqueued_keys import EnqueuedKeys
from support.plan.tenant_world import CONFIG, DECOY, last_words
from support.runtime.clock import ManualClock

NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""
Where = tuple[str, str, str]


def ended(job: Json, at: float = NOW + 30) -> Json:
    """A Job that is complete."""
    said = {"type": "Complete", "status": "True", "lastTransitionTime": format_timestamp(at)}
    return {**job, "status": {"conditions": [said]}}


class Cluster:
    """Objects by kind, namespace and name; every write is in `log`."""

    def __init__(self) -> None:
        self.objects: dict[Where, Json] = {}
        self.log: list[str] = []
        self.refusals: dict[str, ApiError] = {}
        """Kind -> what is said to whoever applies one."""
        self._versions = itertools.count(100)

    async def list(self, res: Resource, namespace: str | None = None, *, name: str = "") -> tuple[list[Json], str]:
        return [obj for (kind, where, _), obj in self.objects.items() if (kind, where) == (res.kind, namespace)], "1"

    async def apply(
        self, res: Resource, obj: Json, *, field_manager: str, force: bool = True, subresource: str = ""
    ) -> Json:
        meta = obj["metadata"]
        key = (res.kind, meta["namespace"], meta["name"])
        self.log.append(f"apply {res.kind}{subresource and '/' + subresource} {meta['namespace']}/{meta['name']}")
        if (error := self.refusals.get(res.kind)) and not subresource:
            raise error
        before = self.objects.get(key)
        if meta.get("uid") and (before is None or before["metadata"]["uid"] != meta["uid"]):
            raise ConflictError(409, "Conflict", "uid mismatch")
        if res is kinds.R1PLUS_TENANT:
            assert before is not None
            more = {"status": obj["status"]} if subresource else {}
            finalizers = {"finalizers": meta["finalizers"]} if "finalizers" in meta else {}
            return self.keep(res.kind, {**before, **more, "metadata": {**before["metadata"], **finalizers}})
        return self.keep(res.kind, {**obj, "metadata": {**(before or {}).get("metadata", {}), **meta}})

    async def patch(
        self, res: Resource, name: str, namespace: str | None, body: Sequence[Json], *, content_type: str
    ) -> Json:
        assert content_type == JSON_PATCH
        self.log.append(f"patch {res.kind} {namespace}/{name}")
        found = copy.deepcopy(self.objects.get((res.kind, namespace or "", name)))
        if found is None:
            raise NotFoundError(404, "NotFound", name)
        for step in body:
            *path, last = step["path"].split("/")[1:]
            at: Any = found
            for part in path:
                at = at[int(part) if isinstance(at, list) else part]
            place = int(last) if isinstance(at, list) else last
            if step["op"] == "test" and at[place] != step["value"]:
                raise InvalidError(422, "Invalid", "the test failed")
            if step["op"] == "remove":
                del at[place]
        return self.keep(res.kind, found)

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "",
        grace_seconds: int | None = None,
    ) -> Json:
        self.log.append(f"delete {res.kind} {namespace}/{name}")
        found = self.objects.pop((res.kind, namespace or "", name), None)
        if found is None:
            raise NotFoundError(404, "NotFound", name)
        assert found["metadata"]["uid"] == uid
        return found

    def keep(self, kind: str, obj: Json) -> Json:
        """Store it with a version of its own."""
        version = str(next(self._versions))
        meta = {"uid": f"u{version}", **obj["metadata"], "resourceVersion": version}
        kept = {**obj, "metadata": meta}
        self.objects[kind, meta.get("namespace", ""), meta["name"]] = kept
        return kept


class Rig:
    """Observer, applier, queue and reconciler, tied as `main` ties them."""

    def __init__(self, config: OperatorConfig = CONFIG) -> None:
        self.cluster = Cluster()
        self.clock = ManualClock()
        self.queue: WorkQueue[PassKey] = WorkQueue(clock=self.clock, lane=select_lane)
        self.enqueued = EnqueuedKeys(on_add=self.queue.add)
        client = ApiClient(ApiConnection("http://127.0.0.1:1"))
        self.observer = Observer(client, self.enqueued, {}, decoy_namespace=config.isolation.decoy_namespace)
        self.registry = CollectorRegistry()
        self.reconciler = TenantReconciler(
            self.observer,
            Applier(self.cluster, self.observer),
            self.queue,
            config,
            IsolationMetrics(self.registry),
            GatewayFleetMetrics(self.registry),
            clock=lambda: NOW + self.clock.time(),
        )

    def say(self, event: str, kind: str, obj: Json) -> Json:
        """Somebody else's doing: the API server has it, and the stream brings it."""
        obj = self.cluster.keep(kind, obj)
        if event == "DELETED":
            self.cluster.objects.pop((kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
        self._reflector(kind)._apply_event(event, obj)
        return obj

    def lose(self, kind: str, namespace: str, name: str) -> None:
        """Somebody deletes what is there."""
        self.say("DELETED", kind, self.cluster.objects[kind, namespace, name])

    def _reflector(self, kind: str) -> Any:
        beside = {
            "Namespace": self.observer.namespaces,
            "Node": self.observer.nodes,
            "Pod": self.observer.pods,
            names.KIND_TENANT: self.observer.tenants,
        }
        return beside.get(kind) or self.observer.children[kind]

    def label(self, name: str, event: str = "ADDED", **meta: Any) -> None:
        """The platform team makes a tenant."""
        labels = {names.LABEL_TENANT: "true", names.LABEL_POD_SECURITY: "restricted"}
        self.say(event, "Namespace", {"metadata": {"name": name, "uid": f"uid-of-{name}", "labels": labels, **meta}})

    def give(self, namespace: str, spec: Json, event: str = "ADDED", **meta: Any) -> Json:
        head = {"name": names.TENANT, "namespace": namespace, "uid": f"cr-of-{namespace}", "generation": 1}
        return self.say(event, names.KIND_TENANT, {"metadata": head | meta, "spec": spec})

    def decoy_is_up(self, *, ready: bool = True) -> None:
        self.pod(DECOY, "decoy-x", {names.LABEL_DEPLOYMENT: "decoy"}, ready=ready)

    def serve(self, namespace: str, deployment: str) -> None:
        """It has its walls and a ready pod."""
        uid = f"d-{namespace}-{deployment}"
        owner = {"kind": names.KIND_DEPLOYMENT, "name": deployment, "uid": uid, "controller": True}
        labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: deployment}
        meta = {"name": deployment, "namespace": namespace, "labels": labels, "ownerReferences": [owner]}
        self.say("ADDED", "NetworkPolicy", {"metadata": meta, "spec": {"podSelector": {}}})
        self.pod(namespace, f"{deployment}-x", {names.LABEL_DEPLOYMENT: deployment})

    def pod(self, namespace: str, name: str, labels: dict[str, str], *, ready: bool = True, **meta: Any) -> None:
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        head = {"name": name, "namespace": namespace, "labels": labels, "uid": f"pod-{namespace}-{name}", **meta}
        event = "MODIFIED" if ("Pod", namespace, name) in self.cluster.objects else "ADDED"
        self.say(event, "Pod", {"metadata": head, "spec": {}, "status": {"conditions": conditions}})

    async def probed(self) -> None:
        """The run that goes on ends: every door is shut but to the control."""
        for job in [obj for (kind, _, _), obj in self.cluster.objects.items() if kind == "Job" and "status" not in obj]:
            self._speak(job)
            self.say("MODIFIED", "Job", ended(job, NOW + self.clock.time()))
        await self.work()

    def _speak(self, job: Json) -> None:
        told = [
            {"name": name, "state": {"terminated": {"message": dumps(found)}}}
            for name, found in last_words(job, CONFIG).items()
        ]
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        meta = {
            **job["spec"]["template"]["metadata"],
            "name": f"{name}-x",
            "namespace": job["metadata"]["namespace"],
            "uid": f"pod-{uid}",
            "ownerReferences": [{"kind": "Job", "name": name, "uid": uid, "controller": True}],
        }
        self.say("ADDED", "Pod", {"metadata": meta, "spec": {}, "status": {"containerStatuses": told}})

    async def work(self, limit: int = 100) -> int:
        """Passes over tenants until none is asked for; how many there were."""
        for made in range(limit):
            if not self.queue.depth:
                return made
            key = await self.queue.get()
            try:
                if isinstance(key, TenantKey):
                    await self.reconciler.reconcile(key)
            finally:
                self.queue.finish(key)
        raise AssertionError(f"still asking after {limit} passes: {self.cluster.log[-6:]}")

    def has(self, kind: str, namespace: str) -> list[str]:
        return sorted(name for k, where, name in self.cluster.objects if (k, where) == (kind, namespace))

    def condition(self, namespace: str, kind: str) -> tuple[str, str]:
        status = self.cluster.objects[names.KIND_TENANT, namespace, names.TENANT].get("status", {})
        return next(((c["status"], c["reason"]) for c in status.get("conditions", []) if c["type"] == kind), ("", ""))
