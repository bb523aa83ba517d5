"""A tenant's namespace: its objects as they lie in the cluster, and the pods and monitors that a test plays."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from r1plus_contract import names
from r1plus_contract.monitor.settings import hash_config
from r1plus_contract.verdict import GateReport, MonitorReport, Phase, Verdict
from r1plus_operator.api import kinds
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import NotFoundError
from support.apiserver.manifests import (
    CONTEXT,
    SERVICE_ACCOUNT,
    Json,
    condition_of,
    manifest,
    r1plus_tenant,
    tenant_namespace,
)
from support.apiserver.monitors import Monitors
from support.waiting import eventually


@dataclass
class Tenant:
    """One namespace: its CRs, and the pods and monitors that the test plays."""

    client: ApiClient
    namespace: str
    monitors: Monitors
    addresses: dict[str, str] = field(default_factory=dict)
    """Pod -> where its monitor answers."""

    async def deploy(self, name: str, **spec: Any) -> None:
        """`kubectl apply` of a CR."""
        cr = manifest(kinds.R1PLUS_DEPLOYMENT, name, self.namespace, spec=spec)
        await self.client.apply(kinds.R1PLUS_DEPLOYMENT, cr, field_manager="kubectl")

    async def allow(self, **spec: Any) -> None:
        """`kubectl apply` of the R1PlusTenant."""
        await self.client.apply(kinds.R1PLUS_TENANT, r1plus_tenant(self.namespace, **spec), field_manager="platform")

    async def label(self, key: str, value: str | None) -> None:
        """Label the namespace as the platform team does; None takes the label off."""
        await self.client.patch(kinds.NAMESPACE, self.namespace, None, {"metadata": {"labels": {key: value}}})

    async def cr(self, name: str) -> Json:
        """Return the CR as the API server has it."""
        return await self.client.get(kinds.R1PLUS_DEPLOYMENT, name, self.namespace)

    async def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """Return (status, reason, message); empty while it is not there."""
        return condition_of(await self.cr(name), kind)

    async def until(self, name: str, kind: str, status: str, reason: str) -> str:
        """Wait for a condition; return its message."""
        seen = ("", "", "")

        async def holds() -> bool:
            nonlocal seen
            seen = await self.condition(name, kind)
            return seen[:2] == (status, reason)

        await eventually(holds, f"{name}: {kind} {status}/{reason}", evidence=lambda: f"It is {seen}")
        return seen[2]

    async def child(self, kind: str, name: str) -> Json | None:
        """Return a child as it lies in the cluster, or None."""
        try:
            return await self.client.get(kinds.BY_KIND[kind], name, self.namespace)
        except NotFoundError:
            return None

    async def present(self, kind: str, name: str, *, other_than: Json | None = None) -> Json:
        """Wait for a child, and for another one than that object if it is given; return it."""
        former = other_than["metadata"]["uid"] if other_than else ""

        async def find() -> Json | None:
            found = await self.child(kind, name)
            return found if found is not None and found["metadata"]["uid"] != former else None

        return await eventually(find, f"{'another ' if former else ''}{kind} {name} exists")

    async def child_that(self, kind: str, name: str, holds: Callable[[Json], object], what: str) -> Json:
        """Wait for a child of which something holds; return it. `what` names the condition."""

        async def find() -> Json | None:
            found = await self.child(kind, name)
            return found if found is not None and holds(found) else None

        return await eventually(find, what)

    async def absent(self, kind: str, name: str) -> None:
        """Wait until a child is gone."""

        async def is_gone() -> bool:
            return await self.child(kind, name) is None

        await eventually(is_gone, f"{kind} {name} is gone")

    async def delete_and_see_it_back(self, kind: str, name: str) -> None:
        """Delete a child as somebody with kubectl, and wait until there is another one."""
        before = await self.present(kind, name)
        await self.client.delete(kinds.BY_KIND[kind], name, self.namespace)
        await self.present(kind, name, other_than=before)

    async def listed(self, kind: str, selector: str = "") -> list[Json]:
        """Return all objects of a kind in this namespace."""
        return (await self.client.list(kinds.BY_KIND[kind], self.namespace, label_selector=selector))[0]

    async def candidate(self, name: str, *, other_than: str = "") -> str:
        """Wait for a revision that is being brought up; return its name."""

        async def named() -> str:
            found = str((await self.cr(name)).get("status", {}).get("candidate", ""))
            return found if found != other_than else ""

        return await eventually(named, f"{name} has a candidate")

    async def selected(self, name: str = "credit") -> str:
        """Return the revision that traffic goes to."""
        service = await self.present("Service", name)
        return str(service["spec"]["selector"][names.LABEL_REVISION])

    async def switched(self, revision: str, name: str = "credit") -> None:
        """Wait until traffic goes to this revision."""

        async def is_selected() -> bool:
            return await self.selected(name) == revision

        await eventually(is_selected, f"traffic goes to {revision}")

    async def events(self, reason: str) -> list[Json]:
        """Wait for an Event with this reason; return all of them."""

        async def find() -> list[Json]:
            return [event for event in await self.listed("Event") if event["reason"] == reason]

        return await eventually(find, f"an Event says {reason}")

    async def bring_up(self, name: str) -> str:
        """Let the present candidate's pod start, pass and take traffic; return the revision."""
        revision = await self.candidate(name)
        pod = await self.run_pod(revision, ready=False)
        await self.decide(revision, Verdict.PASS)
        await self.until(name, "QualityVerified", "True", "GatePassed")
        await self.set_ready(pod, ready=True)
        await self.until(name, "Ready", "True", "Serving")
        return revision

    async def serve(self, name: str = "credit", **spec: Any) -> str:
        """Deploy, and bring the first revision up; return it."""
        await self.deploy(name, **{"tier": "full", "context": CONTEXT, **spec})
        return await self.bring_up(name)

    async def run_pod(
        self, revision: str, *, ready: bool, monitors: Monitors | None = None, suffix: str = "pod"
    ) -> str:
        """Make a pod of the revision with an address and a condition, as the kubelet would; return its name.

        Its monitor is the tenant's own, or another one where several pods say different things.
        """
        deployment = await self.present("Deployment", revision)
        name = f"{revision}-{suffix}"
        self.addresses[name] = (monitors or self.monitors).address
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{revision}-7d9f", "uid": str(uuid.uuid4())}
        # No ServiceAccount controller here: its admission would wait for a token that nobody makes.
        await apply_pod(self.client, name, self.namespace, deployment["spec"]["template"], owner)
        await self.set_ready(name, ready=ready)
        return name

    async def set_ready(self, pod: str, *, ready: bool) -> None:
        """Say of a pod that it is Ready, or not, and what its address is."""
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        await self.set_status(pod, phase="Running", conditions=conditions)

    async def set_status(self, pod: str, **status: Any) -> None:
        """Write a pod's status as the kubelet would, with its address."""
        address = self.addresses.get(pod, self.monitors.address)
        patch = {"status": {"podIP": address, "podIPs": [{"ip": address}], **status}}
        await self.client.patch(kinds.POD, pod, self.namespace, patch, subresource="status")

    async def settings(self, name: str) -> Json:
        """Return what the monitors of a deployment are told now."""
        accuracy = await self.present("ConfigMap", f"{name}-accuracy")
        return dict(json.loads(accuracy["data"]["settings.json"]))

    async def config_digest(self, name: str) -> str:
        """Return the digest of what the monitors of a deployment mount now."""
        accuracy = await self.present("ConfigMap", f"{name}-accuracy")
        return hash_config({file: hashlib.sha256(text.encode()).hexdigest() for file, text in accuracy["data"].items()})

    async def decide(
        self, revision: str, verdict: Verdict, *, lost: int = 0, monitors: Monitors | None = None, control: str = ""
    ) -> GateReport:
        """Let the revision's monitor report a decided gate, of the `control` where one is ordered."""
        stored = read_revision(await self.present("ControllerRevision", revision))
        settings = await self.settings(revision.rsplit("-", 1)[0])
        identity, suite = stored.identity_digest, (settings["suite"], settings["suiteHash"])
        reason, message = "TooManyLost" if lost else "Passed", f"lost {lost} of 210 items, 4 allowed"
        gate = GateReport(
            verdict, reason, message, identity, *suite, "1", 0.98, 210, lost, 4, batch=stored.batch, control=control
        )
        under = await self.config_digest(revision.rsplit("-", 1)[0])
        (monitors or self.monitors).report = MonitorReport(
            revision,
            identity,
            Phase.WATCHING,
            verdict,
            reason,
            message,
            *suite,
            gate=gate,
            ran_under=under,
            user_requests=0,
        )
        return gate

    async def retire(self) -> None:
        """Leave nothing behind that an operator of a later test would look after, and be no tenant any more.

        Runs of the prober that nobody plays to their end would hold the places of a later test's.
        """
        for kind in (names.KIND_DEPLOYMENT, "Pod"):
            await asyncio.gather(*(self._delete(kind, item["metadata"]["name"]) for item in await self.listed(kind)))
        await self.label(names.LABEL_TENANT, None)

    async def _delete(self, kind: str, name: str) -> None:
        with suppress(NotFoundError):
            await self.client.delete(kinds.BY_KIND[kind], name, self.namespace)


@asynccontextmanager
async def new_tenant(client: ApiClient, name: str = "") -> AsyncIterator[Tenant]:
    """Make a tenant's namespace with monitors at an address of its own; it goes with the server."""
    name = name or f"t-{uuid.uuid4().hex[:10]}"
    await client.create(kinds.NAMESPACE, tenant_namespace(name))
    tenant = Tenant(client, name, Monitors())
    await tenant.monitors.start()
    try:
        yield tenant
    finally:
        await tenant.monitors.stop()
        await tenant.retire()


async def apply_pod(client: ApiClient, name: str, namespace: str, template: Json, *owners: Json) -> None:
    """Make the pod that a controller would make of a template."""
    body = manifest(kinds.POD, name, namespace, spec=template["spec"])
    body["metadata"] |= template["metadata"] | {"name": name, "namespace": namespace}
    body["metadata"]["ownerReferences"] = [owner | {"controller": True} for owner in owners]
    await client.apply(kinds.POD, body, field_manager="kubelet")


async def apply_pod_as_default(client: ApiClient, name: str, namespace: str, template: Json, *owners: Json) -> None:
    """Make such a pod as the account `default`: the one that its template names may not be there."""
    await client.apply(SERVICE_ACCOUNT, manifest(SERVICE_ACCOUNT, "default", namespace), field_manager="kubelet")
    spec = {key: value for key, value in template["spec"].items() if not key.startswith("serviceAccount")}
    await apply_pod(client, name, namespace, {**template, "spec": spec}, *owners)


async def end_job(client: ApiClient, job: Json, *conditions: str, at: str = "", **status: Any) -> None:
    """Write what the Job controller writes at a Job's end: succeeded unless other `conditions` are given."""
    meta = job["metadata"]
    at = at or meta["creationTimestamp"]
    if not conditions:
        conditions, status = ("SuccessCriteriaMet", "Complete"), {"completionTime": at, "succeeded": 1, **status}
    told = [
        {"type": kind, "status": "True", "reason": "Test", "lastTransitionTime": at, "lastProbeTime": at}
        for kind in conditions
    ]
    body = {"status": {"startTime": at, "conditions": told, "uncountedTerminatedPods": {}, **status}}
    await client.patch(kinds.BY_KIND["Job"], meta["name"], meta["namespace"], body, subresource="status")
