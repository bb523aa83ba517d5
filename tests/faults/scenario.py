"""The story that every run tells: a deployment is made, gated, serves, is tampered with, is changed, and goes.

Each phase does one thing to the world and waits for what must follow, so that the trace of two runs is the same.
The rig plays the kubelet (pods), the monitors (verdicts), somebody with kubectl, and the garbage collector.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from faults import oracle
from faults.calls import LASTS, Json
from faults.lane import Lane
from faults.oracle import CONVERGE_SECONDS
from faults.rig import Case, Rig
from r1plus_contract import names
from r1plus_contract.verdict import GateProgress, MonitorReport, Phase, Verdict
from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ApiError, NotFoundError
from support.apiserver.monitors import Monitors
from support.apiserver.tenant import Tenant

NAME = "credit"
LONGEST_FAULT_SECONDS = max(LASTS.values())
DRAIN_SECONDS = 20.0
CALM_SECONDS = 0.4


class Quiet(NamedTuple):
    """Seconds that a story is watched through, and in which nothing may be written."""

    settled: float
    deleted: float


BRIEF = Quiet(settled=4.0, deleted=4.0)
"""Of the sample that `make test` runs, and of the fault-free runs."""


@dataclass
class Story:
    """One run of the scenario in one lane; `tell` returns the end state."""

    rig: Rig
    lane: Lane
    quiet: Quiet = BRIEF
    monitors: dict[str, Monitors] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    started: dict[str, bool] = field(default_factory=dict)
    """Revisions that have a pod, and whether it is Ready."""
    kubelet: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while pods are made and removed; who removes them from outside holds it as well."""
    other_case: Case | None = None
    """What is deployed in place of the rig's own case."""

    async def tell(self, interlude: Callable[["Story"], Awaitable[None]] | None = None) -> Json:
        """All phases; raises TimeoutError where one does not come to its end. Returns the normalised end state.

        `interlude` happens while the first revision serves.
        """
        async with self.rig.busy:
            # Not before its turn: the namespace's own walls are a place of faults, and from a fault on time is taken.
            await self.rig.namespace(self.namespace)
            kubelet = asyncio.create_task(self._kubelet())
            try:
                return await self._phases(interlude)
            finally:
                kubelet.cancel()
                await asyncio.gather(kubelet, return_exceptions=True)
                for monitors in self.monitors.values():
                    await monitors.stop()

    async def _phases(self, interlude: Callable[["Story"], Awaitable[None]] | None) -> Json:
        first = await self.bring_up(self.case.first)
        if interlude is not None:
            await self.next("interlude")
            await interlude(self)
        await self.tamper()
        await self.change(self.case.second)
        second = await self.bring_up_candidate(first)
        await self.drain(first)
        end = await self.settle(second)
        await self.remove()
        return end

    @property
    def case(self) -> Case:
        """What is deployed, and what it is changed into."""
        return self.other_case or self.rig.case

    @property
    def namespace(self) -> str:
        """The tenant."""
        return self.lane.namespace

    async def deploy(self, context: Json) -> None:
        """`kubectl apply` of the CR."""
        await Tenant(self.rig.client, self.namespace, Monitors()).deploy(NAME, tier=self.case.tier, context=context)

    async def bring_up(self, context: Json) -> str:
        """The CR is applied; its first revision passes, is Ready and serves."""
        await self.deploy(context)
        await self.reached(lambda: self.candidate("") != "" and self.has("Service", NAME), "the CR has its children")
        return await self.bring_up_candidate("")

    async def bring_up_candidate(self, before: str) -> str:
        """The candidate's pod starts, reports progress, passes, is Ready, and takes traffic."""
        mark = "second " if before else "first "
        revision = self.candidate(before)
        await self.next(mark + "starts")
        if revision not in self.monitors:
            self.monitors[revision] = Monitors()
            await self.monitors[revision].start()
        tenant = Tenant(self.rig.client, self.namespace, self.monitors[revision])
        tenant.monitors.report = self._gating(revision)
        self.wake()
        await self.reached(
            lambda: self.condition("QualityVerified") == ("Unknown", "GateRunning"), "its gate is told of"
        )
        await self.next(mark + "passes")
        self.lane.passed.add(revision)
        await tenant.decide(revision, Verdict.PASS)
        await self.reached(lambda: self._has_passed(revision), "its pass is told of and recorded")
        await self.next(mark + "serves")
        self.ready.add(revision)
        self.wake()
        await self.reached(lambda: self.serves(revision), f"traffic goes to revision {revision}")
        return revision

    async def tamper(self) -> None:
        """Somebody opens the wall and deletes the Service."""
        await self.next("tampered")
        policy, service = kinds.BY_KIND["NetworkPolicy"], kinds.BY_KIND["Service"]
        before = self.rig.get("Service", self.namespace, NAME)
        assert before is not None
        await self.rig.client.patch(policy, NAME, self.namespace, {"spec": {"ingress": [{}]}})
        await self.rig.delete(service, before)

        def repaired() -> bool:
            service, network_policy = (
                self.rig.get("Service", self.namespace, NAME),
                self.rig.get("NetworkPolicy", self.namespace, NAME),
            )
            new = service is not None and service["metadata"]["uid"] != before["metadata"]["uid"]
            return new and network_policy is not None and {} not in network_policy["spec"]["ingress"]

        await self.reached(repaired, "the wall and the Service are as they were")

    async def change(self, context: Json) -> None:
        """Another context: a second revision."""
        await self.next("changed")
        before = self.status.get("revision", "")
        await self.deploy(context)
        await self.reached(lambda: self.candidate(before) != "", "the second revision is brought up")

    async def drain(self, first: str) -> None:
        """The first revision's pods go, twenty seconds after the switch."""
        await self.next("drained")
        gone = lambda: not self.has("Deployment", first) and not self.has("ConfigMap", first)  # noqa: E731
        async with self._resting():
            await self.reached(gone, "the first revision is drained", seconds=CONVERGE_SECONDS + DRAIN_SECONDS)

    async def settle(self, revision: str) -> Json:
        """Status true, then silence; the end state."""
        await self.next("settled")
        await self.reached(lambda: oracle.is_true(self.cr, revision), "the status is true")
        await self.silent(self.quiet.settled, "after it has settled")
        return oracle.end_state(self.rig, self.namespace)

    async def remove(self) -> None:
        """The CR is deleted, the collector takes the rest; nothing may be made again."""
        await self.next("deleted")
        cr = self.cr
        await self.rig.delete(kinds.R1PLUS_DEPLOYMENT, cr)
        await self.calm()
        await self.rig.collect(self.namespace, cr)
        await self.reached(lambda: not self._left(), "nothing is left of it")
        await self.silent(self.quiet.deleted, "after it was deleted")
        if self._left():
            self.lane.problems.append("children were made for a deleted deployment")

    def _left(self) -> list[Json]:
        """What the operator and the kubelet have made for the deployment: the namespace's own walls stay."""
        made = [obj for res in (*kinds.CHILDREN, kinds.POD) for obj in self.rig.all(res.kind, self.namespace)]
        return [obj for obj in made if names.LABEL_ISOLATION not in obj["metadata"].get("labels", {})]

    async def next(self, phase: str) -> None:
        """Begin a phase once the last one's events have come and its writes are done."""
        await self.calm()
        self.lane.phase = phase

    async def reached(self, holds: Callable[[], bool], what: str, seconds: float = CONVERGE_SECONDS) -> None:
        """Wait for a phase's outcome: a minute, and as long as the fault itself lasts."""
        limit = seconds + max(LONGEST_FAULT_SECONDS, self.rig.outage)
        await self.rig.until(self.namespace, holds, limit, f"{self.lane.phase}: {what}")

    async def calm(self, seconds: float = CALM_SECONDS) -> None:
        """Until the operator has neither written nor heard anything for so long."""
        clock = asyncio.get_running_loop().time
        while (left := self.lane.last_sign + seconds - clock()) > 0:  # noqa: ASYNC110 - the end of signs is no event
            await asyncio.sleep(left)
        self.lane.calmed()

    async def rest(self) -> None:
        """Until the operator has shown that it is calm, and not only slow or kept waiting.

        Every event has been shown to it, every write been answered, and it has answered a request that came after.
        """
        clock = asyncio.get_running_loop().time
        while True:
            await self.calm()
            sign = self.lane.last_sign
            left = self.rig.shown_by(self.namespace) + CALM_SECONDS - clock()
            if left <= 0 and not self.lane.under_way and await self.rig.operator.process.ready():
                if self.lane.last_sign == sign:
                    return
            else:
                await asyncio.sleep(max(left, CALM_SECONDS))

    async def silent(self, seconds: float, when: str) -> None:
        """So many seconds without a write: one in them is a problem.

        An event that comes before any write begins the window anew, for a minute: the world had not come to rest.
        """
        lane, clock = self.lane, asyncio.get_running_loop().time
        latest = clock() + CONVERGE_SECONDS + max(LONGEST_FAULT_SECONDS, self.rig.outage)
        async with self._resting():
            while True:
                try:
                    async with asyncio.timeout_at(latest):
                        await self.rest()
                except TimeoutError:
                    raise TimeoutError(f"never at rest {when}") from None
                lane.hush()
                with suppress(TimeoutError):
                    await asyncio.wait_for(lane.stirred.wait(), seconds)
                if not lane.stirred.is_set():
                    return
                if lane.broken_by:
                    lane.problems.append(f"wrote {when}: {lane.broken_by}")
                    return

    @asynccontextmanager
    async def _resting(self) -> AsyncIterator[None]:
        """Let another story work while this one only waits."""
        self.rig.busy.release()
        try:
            yield
        finally:
            await self.rig.busy.acquire()

    @property
    def cr(self) -> Json:
        """The CR as the API server has it."""
        return self.rig.get("R1PlusDeployment", self.namespace, NAME) or {}

    @property
    def status(self) -> Json:
        """Its status."""
        return self.cr.get("status") or {}

    def condition(self, kind: str) -> tuple[str, str]:
        """(status, reason)."""
        return oracle.condition(self.cr, kind)

    def has(self, kind: str, name: str) -> bool:
        """Whether a child is there."""
        return self.rig.get(kind, self.namespace, name) is not None

    def candidate(self, before: str) -> str:
        """The revision that is being brought up, once its Deployment stands."""
        name = str(self.status.get("candidate", ""))
        return name if name != before and self.has("Deployment", name) else ""

    def _has_passed(self, revision: str) -> bool:
        """Whether the status has its pass; and the revision, too, unless a fault may keep it off.

        On a slow machine one of the two writes comes long after the other.
        """
        obj = self.rig.get("ControllerRevision", self.namespace, revision) or {}
        is_recorded = names.ANNOTATION_VERDICT in obj.get("metadata", {}).get("annotations", {})
        is_told = self.condition("QualityVerified") == ("True", "GatePassed")
        return is_told and (is_recorded or self.lane.fired_at is not None)

    def serves(self, revision: str) -> bool:
        """Whether traffic goes to it and the status says so."""
        service = self.rig.get("Service", self.namespace, NAME)
        chosen = service["spec"]["selector"].get(names.LABEL_REVISION) if service else None
        return chosen == revision and self.status.get("revision") == revision and self.condition("Ready")[0] == "True"

    def wake(self) -> None:
        """Let the kubelet look again."""
        self.rig.changes[self.namespace].note()

    def _gating(self, revision: str) -> MonitorReport:
        progress = GateProgress(42, 100, "sweep 1")
        return MonitorReport(
            revision,
            "",
            Phase.GATING,
            Verdict.NO_DATA,
            "Gating",
            "",
            f"smollm2-{self.case.tier}-v1",
            progress=progress,
        )

    async def _kubelet(self) -> None:
        """Pods follow their Deployments; they are Ready once their revision has been admitted."""
        changes = self.rig.changes[self.namespace]
        while True:
            count = changes.count
            async with self.kubelet:
                is_done = await self._look()
            if is_done:
                await changes.after(count)
            await asyncio.sleep(0.05)

    async def _look(self) -> bool:
        """Return whether nothing was refused; what was is tried again."""
        told = self.started
        wanted = {d["metadata"]["name"] for d in self.rig.all("Deployment", self.namespace) if d["spec"]["replicas"]}
        wanted &= self.monitors.keys()
        with suppress(ApiError, AssertionError):
            for revision in wanted:
                tenant = Tenant(self.rig.client, self.namespace, self.monitors[revision])
                if revision not in told:
                    await tenant.run_pod(revision, ready=False)
                    told[revision] = False
                if revision in self.ready and not told[revision]:
                    await tenant.set_ready(f"{revision}-pod", ready=True)
                    told[revision] = True
            for revision in told.keys() - wanted:
                with suppress(NotFoundError):
                    await self.rig.client.delete(kinds.POD, f"{revision}-pod", self.namespace)
                told.pop(revision, None)
            return True
        return False
