"""A tiny world for the passes over a namespace as a tenant: it holds what a plan wrote, and the prober says as a test says.

Like `world`, not a fake API server: it merges nothing and defaults nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.isolation import (
    CONTAINER_ASK,
    CONTAINER_KNOCK,
    Against,
    AttemptFinding,
    AttemptOutcome,
    Findings,
    IsolationProbe,
)
from r1plus_operator.plan.observation import JOB_ENDED, ContainerFacts, Json, NamespaceFacts, PodFacts
from r1plus_operator.plan.settings import IsolationTerms, OperatorConfig
from r1plus_operator.plan.tenancy import isolation_test_run
from r1plus_operator.plan.tenancy.gateway import GatewayObservation
from r1plus_operator.plan.tenancy.tenant import ObjectKey, TenantObservation, TenantPlan, plan_tenant
from support.plan.builders import job_pod
from support.plan.conditions import assert_conditions
from support.plan.timed import Timed

DECOY = "r1plus-decoy"
CONFIG = OperatorConfig(
    monitor_image="registry.local/monitor:1",
    triton_image="registry.local/triton:1",
    default_family="smollm2",
    operator_namespace="r1plus-system",
    monitoring_namespace="monitoring",
    isolation=IsolationTerms(
        decoy_namespace=DECOY, other_targets={"prometheus": "http://prometheus.monitoring.svc:9090"}
    ),
)
DECOYS = tuple(
    connection.name
    for connection in isolation_test_run.list_connection_targets(
        IsolationProbe.CONTROL, isolation_test_run.IsolationTestRun("t", "u", "d", {}, 0), CONFIG
    )
    if connection.against == "decoy"
)
GIVES: Json = {
    "admins": [{"kind": "Group", "name": "credit-ml"}],
    "viewers": [{"kind": "User", "name": "auditor"}],
    "callers": {"namespaces": ["shop"]},
    "egress": [{"cidr": "10.20.0.0/16", "ports": [5432]}],
    "quota": {"pods": 20, "cpu": "8"},
}


def facts(name: str = "team", **changed: Any) -> NamespaceFacts:
    """A namespace as the platform team makes it."""
    return replace(NamespaceFacts(name, f"uid-of-{name}", is_tenant=True, pod_security="restricted"), **changed)


@dataclass
class TenantWorld(Timed):
    """One namespace and what belongs to it."""

    namespace: NamespaceFacts = field(default_factory=facts)
    spec: Json | None = None
    """Of its R1PlusTenant; None: there is none."""
    leaving: bool = False
    finalizers: list[str] = field(default_factory=list)
    status: Json = field(default_factory=dict)
    live: dict[ObjectKey, Json] = field(default_factory=dict)
    going: set[ObjectKey] = field(default_factory=set)
    serving: dict[str, str] = field(default_factory=dict)
    """Deployment -> digest of its walls."""
    deployments: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    pods: dict[tuple[str, str], PodFacts] = field(default_factory=dict)
    decoy_ready: bool = True
    crowded: bool = False
    refused: str = ""
    now: float = 10_000.0
    gateway: GatewayObservation = field(default_factory=GatewayObservation)
    config: OperatorConfig = CONFIG
    writes: int = 0
    made: list[isolation_test_run.IsolationTestRun] = field(default_factory=list)
    """Every run that was begun."""

    @property
    def name(self) -> str:
        return self.namespace.name

    def cr(self) -> Json | None:
        if self.spec is None:
            return None
        meta: Json = {"name": "tenant", "namespace": self.name, "uid": "cr", "generation": 1}
        if self.finalizers:
            meta["finalizers"] = list(self.finalizers)
        if self.leaving:
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return {"metadata": meta, "spec": self.spec, "status": self.status}

    def seen(self) -> TenantObservation:
        return TenantObservation(
            self.namespace,
            self.cr(),
            dict(self.live),
            frozenset(self.going),
            self.deployments if self.leaving else (),
            self.volumes if self.leaving else (),
            dict(self.serving),
            self.addresses,
            dict(self.pods),
            self.decoy_ready,
            self.crowded,
            self.refused,
            self.gateway,
        )

    def plan(self) -> TenantPlan:
        return plan_tenant(self.seen(), self.config, self.now)

    def pass_once(self) -> TenantPlan:
        """One pass, carried out; time moves on a tenth of a second."""
        planned = self.plan()
        self.carry_out(planned)
        self.now += 0.1
        return planned

    def carry_out(self, planned: TenantPlan, writes: int = 10_000, *, backwards: bool = False) -> None:
        """In the applier's order, and no more than so many writes: after them the operator dies."""
        for write in [*self._writes(planned, backwards)][:writes]:
            write()

    def _writes(self, planned: TenantPlan, backwards: bool) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = []
        if planned.finalizer:
            found.append(lambda: self.finalizers.append(names.FINALIZER_TENANT))
        for namespace, kind, name, uid in planned.delete:
            found.append(partial(self._delete, (namespace, kind, name), uid))
        if planned.finalizer is False:
            found.append(self._let_go)
        for stage in planned.apply:
            found += [partial(self._apply, obj) for obj in (reversed(stage) if backwards else stage)]
        if planned.status is not None:
            found.append(lambda: setattr(self, "status", planned.status))
        return found

    def _apply(self, obj: Json) -> None:
        key = obj["metadata"]["namespace"], obj["kind"], obj["metadata"]["name"]
        self.writes += 1
        before = self.live.get(key)
        if before is None and (run := isolation_test_run.read_run(obj)) and run not in self.made:
            self.made.append(run)
        uid = before["metadata"]["uid"] if before else f"u{self.writes}"
        assert obj["metadata"].get("uid", uid) == uid, "bound to another object than is there"
        ended = {JOB_ENDED: before[JOB_ENDED]} if before and JOB_ENDED in before else {}
        self.live[key] = {**obj, "metadata": {**obj["metadata"], "uid": uid}, **ended}

    def _delete(self, key: ObjectKey, uid: str) -> None:
        assert self.live.pop(key)["metadata"]["uid"] == uid

    def _let_go(self) -> None:
        self.finalizers.remove(names.FINALIZER_TENANT)
        if self.leaving and not self.finalizers:
            self.spec, self.status, self.leaving = None, {}, False

    def settle(self, limit: int = 8) -> TenantPlan:
        """Passes until one writes nothing; fails if that does not come."""
        for _ in range(limit):
            planned = self.pass_once()
            if not planned.has_changes and planned.status is None:
                return planned
        raise AssertionError(f"still writing after {limit} passes: {planned}")

    def has(self, kind: str, namespace: str = "") -> list[str]:
        return sorted(name for where, k, name in self.live if k == kind and where == (namespace or self.name))

    def one(self, kind: str, name: str, namespace: str = "") -> Json:
        return self.live[namespace or self.name, kind, name]

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def expect(self, **conditions: str | tuple[str, ...]) -> Self:
        """Assert status, reason or "status reason" of each condition, and that its message holds the words after it."""
        assert_conditions(self.condition, conditions)
        return self

    def jobs(self, *, going_on: bool = False) -> list[Json]:
        return [job for (_, kind, _), job in self.live.items() if kind == "Job" and not (going_on and JOB_ENDED in job)]

    def runs(self) -> tuple[isolation_test_run.IsolationTestResult, ...]:
        return isolation_test_run.collect_results(self.jobs(), self.pods, self.config, self.now)

    def end(self, *, opened: tuple[str, ...] = (), blind: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> Self:
        """The Jobs that go on end; the tries named are open, the control sees the blind ones shut; silent probes say
        nothing."""
        for job in self.jobs(going_on=True):
            job[JOB_ENDED] = {"type": "Complete", "at": self.now, "final": False}
            self.speak(job, opened=opened, blind=blind, silent=silent)
        return self

    def speak(self, job: Json, *, opened: tuple[str, ...] = (), blind: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> None:  # fmt: skip
        """Its pod's last words are heard."""
        probe = job["spec"]["template"]["metadata"]["labels"][names.LABEL_PROBE]
        said = []
        for name, found in last_words(job, self.config, opened=opened, blind=blind).items():
            words = "" if probe in silent else dumps(found)
            said.append(ContainerFacts(name, ready=False, message=words, exit_code=0))
        meta = job["metadata"]
        self.pods[meta["namespace"], meta["uid"]] = job_pod(*said, name=f"{meta['name']}-x")

    def serve(self, *deployments: str) -> Self:
        """Let these have a ready pod, and no others."""
        self.serving = {name: self.serving.get(name, f"walls-of-{name}") for name in deployments}
        return self

    def probed(self, **said: Any) -> Self:
        """Begin a run if it is due, and end it a little later."""
        self.settle()
        self.wait(30.0).end(**said).settle()
        return self

    def idle(self, seconds: float, **said: Any) -> Self:
        """Let time pass, with a pass whenever one asked for it; a run takes half a minute."""
        until = self.now + seconds
        while (left := until - self.now) > 0:
            planned = self.settle()
            if self.jobs(going_on=True):
                self.wait(min(30.0, left))
                if left >= 30.0:
                    self.end(**said)
            else:
                self.wait(min(left, planned.requeue_after or left))
        return self

    def begin_due_runs(self, at: float | None = None) -> int:
        """Begin the runs that are due at a moment, by default now; return how many have been begun in all."""
        self.now = self.now if at is None else at
        self.settle()
        return len(self.made)

    def probed_deployments(self) -> list[str]:
        """Return under whose walls the prober tried, run by run."""
        return [run.deployment for run in self.made]

    def ended_at(self) -> float:
        """Return when the first run that is known ended."""
        ended = self.runs()[0].ended_at
        assert ended is not None
        return ended


def probe_world(*serving: str) -> TenantWorld:
    """Return a tenant with these deployments, which serve."""
    return TenantWorld(spec={}).serve(*serving)


def last_words(
    job: Json, config: OperatorConfig, *, opened: tuple[str, ...] = (), blind: tuple[str, ...] = ()
) -> dict[str, Findings]:
    """What each container of a run's Job finds: the tries named are open, the control sees the blind ones shut."""
    run, template = isolation_test_run.read_run(job), job["spec"]["template"]
    assert run is not None
    probe = IsolationProbe(template["metadata"]["labels"][names.LABEL_PROBE])
    connections, requests = (
        isolation_test_run.list_connection_targets(probe, run, config),
        isolation_test_run.list_api_requests(config),
    )
    control = probe is IsolationProbe.CONTROL
    own = {connection.name for connection in connections if connection.against is Against.OWN}
    tried = {CONTAINER_KNOCK: [one.name for one in connections], CONTAINER_ASK: [one.name for one in requests]}
    through = (
        {name for names_of_one in tried.values() for name in names_of_one} - {*blind} if control else {*opened} | own
    )
    return {
        container["name"]: Findings(
            tuple(
                AttemptFinding(name, AttemptOutcome.OPEN if name in through else AttemptOutcome.SHUT)
                for name in tried[container["name"]]
            )
        )
        for container in template["spec"]["containers"]
    }
