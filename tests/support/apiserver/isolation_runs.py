"""Runs of the isolation prober, and the decoy that it attacks: what Job controller and kubelet would write of them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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
from r1plus_operator.api import kinds
from r1plus_operator.plan.tenancy.isolation_test_run import read_run
from support.apiserver.manifests import Json, condition_of
from support.apiserver.tenant import Tenant, apply_pod_as_default, end_job
from support.waiting import eventually


@dataclass
class Team:
    """A tenant with its R1PlusTenant, and the prober's pods."""

    tenant: Tenant
    decoy: str
    """The decoy's namespace."""

    async def cr(self) -> Json | None:
        """Return the R1PlusTenant, if there is one."""
        return await self.tenant.child(names.KIND_TENANT, names.TENANT)

    async def until(self, kind: str, status: str, reason: str) -> str:
        """Wait for a condition of the R1PlusTenant; return its message."""
        seen = ("", "", "")

        async def holds() -> bool:
            nonlocal seen
            seen = condition_of(await self.cr(), kind)
            return seen[:2] == (status, reason)

        await eventually(holds, f"R1PlusTenant: {kind} {status}/{reason}", evidence=lambda: f"It is {seen}")
        return seen[2]

    async def delete(self) -> None:
        """Delete the R1PlusTenant; its finalizer may hold it."""
        await self.tenant.client.delete(kinds.R1PLUS_TENANT, names.TENANT, self.tenant.namespace)

    async def is_gone(self) -> None:
        """Wait until the R1PlusTenant is gone."""
        await self.tenant.absent(names.KIND_TENANT, names.TENANT)

    async def jobs(self) -> dict[str, Json]:
        """Return probe -> Job of the newest run."""
        namespaces = (self.tenant.namespace, self.decoy)
        listed = [job for one in namespaces for job in (await self.tenant.client.list(kinds.BY_KIND["Job"], one))[0]]
        runs = [(run, job) for job in listed if (run := read_run(job)) and run.namespace == self.tenant.namespace]
        newest = max(((run.started, run.id) for run, _ in runs), default=None)
        of_it = [job for run, job in runs if (run.started, run.id) == newest]
        return {job["spec"]["template"]["metadata"]["labels"][names.LABEL_PROBE]: job for job in of_it}

    async def run(self) -> dict[str, Json]:
        """Wait for the three Jobs of a run."""

        async def all_jobs() -> dict[str, Json] | None:
            jobs = await self.jobs()
            return jobs if len(jobs) == 3 else None

        return await eventually(all_jobs, "three Jobs of a run")

    async def play(self, jobs: dict[str, Json], *, opened: Iterable[str] = (), blind: Iterable[str] = ()) -> None:
        """Let the Jobs end: the tries named in `opened` are open, the control sees those in `blind` shut."""
        for probe, job in jobs.items():
            said = []
            for container in job["spec"]["template"]["spec"]["containers"]:
                findings = Findings(
                    tuple(
                        AttemptFinding(one.name, _outcome(one, probe, frozenset(opened), frozenset(blind)))
                        for one in _asked(container["args"])
                    )
                )
                ended = {"exitCode": 0, "reason": "Completed", "message": dumps(findings)}
                idle = {"ready": False, "restartCount": 0, "image": "", "imageID": ""}
                said.append({"name": container["name"], **idle, "state": {"terminated": ended}})
            client, meta = self.tenant.client, job["metadata"]
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
            pod = f"{meta['name']}-x"
            await apply_pod_as_default(client, pod, meta["namespace"], job["spec"]["template"], owner)
            status = {"phase": "Succeeded", "containerStatuses": said}
            await client.patch(kinds.POD, pod, meta["namespace"], {"status": status}, subresource="status")
            await end_job(client, job)


def _asked(arguments: list[str]) -> tuple[ConnectionTarget | ApiRequest, ...]:
    """Return what a container of the prober is told to try."""
    words = dict(zip(arguments[::2], arguments[1::2], strict=True))
    kind: Any = tuple[ConnectionTarget, ...] if "--doors" in words else tuple[ApiRequest, ...]
    found: tuple[ConnectionTarget | ApiRequest, ...] = from_jsonable(
        kind, json.loads(words.get("--doors") or words["--questions"]), "arguments"
    )
    return found


def _outcome(
    one: ConnectionTarget | ApiRequest, probe: str, opened: frozenset[str], blind: frozenset[str]
) -> AttemptOutcome:
    if probe == IsolationProbe.CONTROL:
        return AttemptOutcome.SHUT if one.name in blind else AttemptOutcome.OPEN
    is_own = isinstance(one, ConnectionTarget) and one.against == "own"
    return AttemptOutcome.OPEN if is_own or one.name in opened else AttemptOutcome.SHUT


async def start_decoy(decoy: Tenant) -> None:
    """Let the decoy be up, as controllers and a kubelet would."""
    made = await decoy.present("Deployment", names.DECOY)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
    status = {"observedGeneration": made["metadata"]["generation"], **counts}
    await decoy.client.patch(
        kinds.BY_KIND["Deployment"], names.DECOY, decoy.namespace, {"status": status}, subresource="status"
    )
    await apply_pod_as_default(decoy.client, f"{names.DECOY}-x", decoy.namespace, made["spec"]["template"])
    await decoy.set_ready(f"{names.DECOY}-x", ready=True)
