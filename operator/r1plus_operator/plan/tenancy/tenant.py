"""A namespace as a tenant: which walls stand around it, and whether the prober found them shut. Pure, like `plan`.

Its pass is the namespace's. Walls come first and hang on the label alone; what an R1PlusTenant gives beyond them
(access, quota, ways out) goes with it. A pass that writes a wall begins no run of the prober: a run is for walls that
stand.
"""

import hashlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.catalog.types import spec_problems
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.plan.manifests.drift import bound, in_sync, stamped
from r1plus_operator.plan.observation import Json, NamespaceFacts, TenantView
from r1plus_operator.plan.revision.record import rfc3339
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.conditions import conditions
from r1plus_operator.plan.tenancy import decoy, isolation_test_jobs, isolation_test_run, network_policies
from r1plus_operator.plan.tenancy.isolation_condition import verified

BARS = ("ResourceQuota", "LimitRange")
GIVEN = (*BARS, "RoleBinding")
"""What an R1PlusTenant gives, and what goes with it."""
PARTS = ("NetworkPolicy", *GIVEN, "ServiceAccount", "Job", "Deployment", "Service")
"""Kinds of what belongs to a namespace as a tenant, the decoy's included."""
LEFT = ("ServiceAccount", "Service")
"""Of those, what stays until the namespace goes, since it does nothing: accounts without rights, empty Services."""
Part = tuple[str, str, str]
"""Namespace, kind and name."""


@dataclass(frozen=True, slots=True)
class TenantSeen:
    """What a pass over a namespace as a tenant plans from."""

    namespace: NamespaceFacts
    cr: Json | None
    """Its R1PlusTenant: metadata, spec and the status that was last written."""
    live: Mapping[Part, Json]
    """What the operator made for it, in its own namespace and in the decoy's."""
    going: frozenset[Part] = frozenset()
    deployments: tuple[str, ...] = ()
    """Its R1PlusDeployments."""
    volumes: tuple[str, ...] = ()
    """Its claims for engines."""
    walls: Mapping[str, str] = field(default_factory=dict)
    """Deployment that serves -> digest of its NetworkPolicy as it lies in the cluster."""
    addresses: tuple[str, ...] = ()
    """Of the nodes."""
    pods: isolation_test_run.Pods = field(default_factory=dict)
    """Of the prober's Jobs."""
    decoy_ready: bool = False
    crowded: bool = False
    """As many runs of other tenants go on as may at once."""
    refused: str = ""
    """Which write failed in the pass before, in the API server's words, and what is to be done."""


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """What to write. `apply` is in stages: all of a stage stands before the next begins."""

    view: TenantView
    apply: tuple[tuple[Json, ...], ...] = ()
    delete: tuple[tuple[str, str, str, str], ...] = ()
    """(namespace, kind, name, uid)."""
    finalizer: bool | None = None
    """Whether the R1PlusTenant is to bear one from now on; None: as it is."""
    status: Json | None = None
    """Of the R1PlusTenant; None: there is none, or it says that already."""
    newest: isolation_test_run.Ran | None = None
    """The newest run that has ended."""
    running: bool = False
    """Whether a run goes on, or begins now."""
    requeue_after: float | None = None

    @property
    def again(self) -> bool:
        """Whether another pass goes on from what this one writes."""
        return bool(self.apply or self.delete or self.finalizer is not None)


def plan_tenant(seen: TenantSeen, config: OperatorConfig, now: float) -> TenantPlan:
    """Plan a pass over a namespace. A second one over what the first wrote yields nothing."""
    one = _Pass(seen, config.in_namespace(assigns_users=seen.namespace.assigns_users), now)
    refusal = _refusal(seen, config)
    return one.hold(refusal) if refusal else one.plan()


def _refusal(seen: TenantSeen, config: OperatorConfig) -> Finding | None:
    """Why this namespace is no tenant."""
    name = seen.namespace.name
    if config.reserved(name):
        text = (
            f"metadata.namespace: {name} is Kubernetes', the operator's or monitoring's own; make another for a tenant"
        )
        return Finding("False", Reason.NAMESPACE_RESERVED, text)
    if not seen.namespace.tenant:
        text = (
            f"metadata.namespace: {name} does not bear the label {names.LABEL_TENANT}=true: what serves goes on behind"
            " its walls, and nothing new is rolled out; the platform team labels it, or moves the deployments"
        )
        return Finding("False", Reason.NAMESPACE_NOT_TENANT, text)
    return None


@dataclass(slots=True)
class _Pass:
    """One pass over one namespace."""

    seen: TenantSeen
    config: OperatorConfig
    now: float
    problem: str = ""

    def plan(self) -> TenantPlan:
        seen = self.seen
        spec = self._spec()
        runs = isolation_test_run.ran(self._jobs(), seen.pods, self.config, self.now)
        runs = tuple(one for one in runs if one.run.uid == seen.namespace.uid)
        newest = next((one for one in runs if one.ended_at is not None), None)
        waits = self._waits()
        stages = self._stages(spec, waits)
        changed = tuple(found for stage in stages if (found := self._changed(stage)))
        if seen.namespace.terminating:
            changed = ()  # The API server makes nothing there any more, and takes away all there is.
        begun, look = self._run(runs) if self._probes and not changed else ((), None)
        kept = {_key(obj) for obj in (*(obj for stage in stages for obj in stage), *begun)} | self._kept(runs, newest)
        verdict = self._verdict(changed, newest)
        return TenantPlan(
            view=self._view(verdict, spec),
            apply=(*changed, *((begun,) if begun else ())),
            delete=self._deletions(kept),
            finalizer=self._finalizer(waits),
            status=self._status(newest, self._ready(spec, waits), verdict) if self._bears_on(waits) else None,
            newest=newest,
            running=bool(begun) or (bool(runs) and runs[0].ended_at is None),
            requeue_after=look,
        )

    def hold(self, refusal: Finding) -> TenantPlan:
        """Of no tenant: what stands stays, since a label that is gone opens no door, nor shuts one to who calls.

        But an R1PlusTenant that is deleted takes what it gave, or neither it nor its namespace would ever be gone.
        """
        waits = self._waits()
        given = {key for key in self.seen.live if key[1] in GIVEN} if waits == () else set()
        return TenantPlan(
            view=replace(self._view(refusal, self._spec()), is_tenant=False),
            delete=self._deletions(self.seen.live.keys() - given),
            finalizer=None if waits is None else self._finalizer(waits),
            status=self._status(None, refusal, refusal) if self._bears_on(waits) else None,
        )

    def _view(self, verdict: Finding, spec: R1PlusTenantSpec) -> TenantView:
        return TenantView(
            verdict.status,
            verdict.reason,
            verdict.message,
            callers=frozenset(spec.callers.namespaces),
            placement=spec.placement,
            unreadable=self.problem,
            assigns_users=self.seen.namespace.assigns_users,
        )

    def _deletions(self, kept: AbstractSet[Part]) -> tuple[tuple[str, str, str, str], ...]:
        gone = {key: obj for key, obj in self.seen.live.items() if key not in kept and key[1] not in LEFT}
        return tuple((*key, obj["metadata"]["uid"]) for key, obj in gone.items())

    def _verdict(self, changed: tuple[tuple[Json, ...], ...], newest: isolation_test_run.Ran | None) -> Finding:
        """IsolationVerified."""
        missing = [obj["metadata"]["name"] for stage in changed for obj in stage if obj["kind"] == "NetworkPolicy"]
        if missing and self.seen.refused:
            return Finding(
                "False", Reason.WRITE_REFUSED, f"NetworkPolicy {missing[0]} does not stand: {self.seen.refused}"
            )
        if self._is_decoy:
            return Finding("Unknown", Reason.PROBING_OFF, "This is what the prober attacks; nobody tries it from here")
        return verified(self.seen.namespace, self._probes, self._standing(), newest, self.config, self.now)

    @property
    def _is_decoy(self) -> bool:
        return self.seen.namespace.name == self.config.isolation.decoy_namespace

    @property
    def _probes(self) -> bool:
        return bool(self.config.isolation.decoy_namespace) and not self._is_decoy

    def _spec(self) -> R1PlusTenantSpec:
        """Without an R1PlusTenant, or with one that cannot be read, the narrowest there is."""
        try:
            return R1PlusTenantSpec.model_validate((self.seen.cr or {}).get("spec") or {})
        except ValidationError as error:
            self.problem = "; ".join(spec_problems(error, R1PlusTenantSpec))
            return R1PlusTenantSpec()

    def _waits(self) -> tuple[str, ...] | None:
        """What an R1PlusTenant that is being deleted waits for before it takes what it gave. None: it stays."""
        if self.seen.cr is None or not self.seen.cr["metadata"].get("deletionTimestamp"):
            return None
        if self.seen.deployments:
            return tuple(f"R1PlusDeployment {name}" for name in self.seen.deployments)
        return tuple(f"PersistentVolumeClaim {name}" for name in self.seen.volumes)

    def _bears_on(self, waits: tuple[str, ...] | None) -> bool:
        """Whether the R1PlusTenant keeps its finalizer: until all that it gave is gone, too."""
        return waits != () or any(kind in GIVEN for _, kind, _ in self.seen.live)

    def _finalizer(self, waits: tuple[str, ...] | None) -> bool | None:
        if self.seen.cr is None:
            return None
        bears = names.FINALIZER_TENANT in (self.seen.cr["metadata"].get("finalizers") or ())
        wanted = self._bears_on(waits)
        if wanted and not bears and (waits is not None or self.seen.namespace.terminating):
            return None  # The API server takes no finalizer on what is being deleted; and nothing is given any more.
        return wanted if wanted != bears else None

    def _stages(self, spec: R1PlusTenantSpec, waits: tuple[str, ...] | None) -> list[list[Json]]:
        """Walls first; then what they let through; then who may act; last what proves it, and holds up nothing else."""
        namespace = self.seen.namespace.name
        if self._is_decoy:
            return [
                [network_policies.default_deny(namespace), *decoy.walls_of(self.config)],
                decoy.objects(self.config),
            ]
        opened = [way for way in spec.egress if not network_policies.reaches(way, self.seen.addresses)]
        out = network_policies.callers(namespace, opened, self.config.dns, self.seen.addresses)
        stages = [[network_policies.default_deny(namespace)], [out]]
        if self.seen.cr is not None and waits != ():
            limits = [] if self.problem else network_policies.limits(namespace, spec.quota)
            stages.append([*limits, *network_policies.access(namespace, spec)])
            if self.config.has_registry:
                stages.append(network_policies.registry_reader(namespace))
        if self._probes:
            stages.append(
                [isolation_test_jobs.account(namespace), isolation_test_jobs.way_to_ask(namespace, self.config)]
            )
        return stages

    def _changed(self, stage: list[Json]) -> tuple[Json, ...]:
        pairs = ((desired, self.seen.live.get(_key(desired))) for desired in map(stamped, stage))
        return tuple(
            bound(desired, live)
            for desired, live in pairs
            if not in_sync(desired, live) and _key(desired) not in self.seen.going
        )

    def _jobs(self) -> list[Json]:
        return [live for (_, kind, _), live in self.seen.live.items() if kind == "Job"]

    def _standing(self) -> Mapping[str, str]:
        """Digests of the walls as they lie in the cluster."""
        here = (self.seen.namespace.name, "NetworkPolicy")
        own = [live for key, live in self.seen.live.items() if key[:2] == here]
        return {**self.seen.walls, "": digest(own)} if self.seen.walls else {}

    def _run(self, runs: tuple[isolation_test_run.Ran, ...]) -> tuple[tuple[Json, ...], float | None]:
        """The Jobs to make now, and when to look again."""
        standing = self._standing()
        if not standing or not self.seen.decoy_ready or self.seen.namespace.terminating:
            return (), None
        latest = runs[0] if runs else None
        wait = isolation_test_run.due(latest, standing, self.config.isolation.interval, self.now)
        if wait == float("inf"):
            assert latest is not None
            # One that a crash left in pieces is made whole: its Jobs follow from what each of them bears.
            missing = [
                job
                for job in isolation_test_jobs.jobs(latest.run, self.config)
                if job["metadata"]["name"] not in latest.jobs
            ]
            return tuple(map(stamped, missing)), min(
                max(1.0, latest.quiet_at - self.now), 2.0 * isolation_test_run.DEADLINE_SECONDS
            )
        if wait > 0:
            return (), wait
        if self.seen.crowded:
            return (), isolation_test_run.CROWDED_SECONDS
        run = isolation_test_run.next_run(self.seen.namespace.name, self.seen.namespace.uid, standing, latest, self.now)
        return tuple(map(stamped, isolation_test_jobs.jobs(run, self.config))), None

    def _kept(self, runs: tuple[isolation_test_run.Ran, ...], newest: isolation_test_run.Ran | None) -> set[Part]:
        """Jobs of the newest run that has ended, and of one that goes on after it."""
        kept = [one for one in runs if one is newest or (one is runs[0] and one.ended_at is None)]
        found = {_key(job) for one in kept for job in one.jobs.values()} if self._probes else set()
        # An R1PlusTenant that cannot be read opens nothing, and its quota is no door.
        return found | ({key for key in self.seen.live if key[1] in BARS} if self.problem else set())

    def _ready(self, spec: R1PlusTenantSpec, waits: tuple[str, ...] | None) -> Finding:
        if waits is not None:
            given = "what it gave: access, quota and limits"
            text = f"Waits until these are gone: {', '.join(waits[:10]) or given}; walls stay with the namespace"
            return Finding("False", Reason.DELETING, text)
        if self.problem:
            text = f"{self.problem}; until then nobody calls, nothing goes out, nobody administers; a quota stays"
            return Finding("False", Reason.INVALID_SPEC, text)
        if self.seen.refused:
            return Finding("False", Reason.WRITE_REFUSED, self.seen.refused)
        shut = [
            f"spec.egress[{i}].cidr: {way.cidr} holds nothing but nodes ({node}), whose own ports it would open: it"
            " stays shut; name another network"
            for i, way in enumerate(spec.egress)
            if (node := network_policies.reaches(way, self.seen.addresses))
        ]
        if shut:
            return Finding("False", Reason.EGRESS_NOT_OPENED, "; ".join(shut))
        return Finding("True", Reason.WALLS_STAND, "Default deny both ways; what is allowed is in spec")

    def _status(self, newest: isolation_test_run.Ran | None, ready: Finding, isolation: Finding) -> Json | None:
        """The R1PlusTenant's status; None where there is none to write."""
        cr = self.seen.cr
        if cr is None:
            return None
        before = cr.get("status") or {}
        generation = int(cr["metadata"].get("generation", 0))
        found = {ConditionType.READY: ready, ConditionType.ISOLATION_VERIFIED: isolation}
        told = conditions(found, before, generation, self.now)
        status: Json = {"observedGeneration": generation, "conditions": told, **_isolation(newest)}
        return status if status != before else None


def _isolation(newest: isolation_test_run.Ran | None) -> Json:
    """What the newest run tried and what held."""
    if newest is None or newest.ended_at is None:
        return {}
    told = newest.judgement
    found = {
        "deployment": newest.run.deployment,
        "finished": rfc3339(newest.ended_at),
        "tries": len(told.held) + len(told.open) + len(told.unseen) + len(told.failed),
        "held": len(told.held),
        "open": list(told.open),
        "unseen": [*told.unseen, *told.failed],
        "late": told.late,
    }
    return {"isolation": found}


def digest(policies: Iterable[Json]) -> str:
    """Of NetworkPolicies as they lie in the cluster: one that was deleted and made anew has another uid."""
    told = sorted(dumps([p["metadata"]["name"], p["metadata"]["uid"], p.get("spec")]) for p in policies)
    return hashlib.sha256(dumps(told).encode()).hexdigest()[:8]


def _key(obj: Json) -> Part:
    return obj["metadata"]["namespace"], obj["kind"], obj["metadata"]["name"]
